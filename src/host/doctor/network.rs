//! Can a network of a sandbox's own be made: a gateway, in namespaces that end with the trial. No program of the host is
//! needed for it.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};

use nix::sched::CloneFlags;

use super::{
    Check,
    child::{Trial, in_namespaces, step},
};
use crate::{
    host::circumstances::Circumstances,
    net::gateway::{Begun, Gateway, MODULES},
    sys::{self, namespace},
};

const NEW_NET: i32 = CloneFlags::CLONE_NEWNET.bits();

pub(super) fn check(around: &Circumstances, checks: &mut Vec<Check>) {
    let loopback = in_namespaces(NEW_NET, || step("loopback", "lo", loopback()));
    checks.push(
        Check::of_trial(around, "loopback", loopback, "comes up in a network namespace")
            .at_most_degraded("no localhost inside"),
    );
    let egress = in_namespaces(NEW_NET, gateway);
    checks.push(
        Check::of_trial(around, "egress", egress, "a gateway with its packet filter and link can be made")
            .at_most_degraded("--allow is refused, offline sandboxes run")
            .or_fix(format!("sudo modprobe -a {MODULES}")),
    );
}

/// As a launch does it: a namespace more, made aside.
fn loopback() -> sys::Result<()> {
    let mut network = sys::aside::Network::new();
    network.start()?;
    network.join()
}

/// All of it, as a launch makes it: the namespaces, the packet filter, the link and the listeners.
fn gateway() -> Trial {
    let reserved = OwnedFd::from(step("open", "/dev/null", File::open("/dev/null"))?);
    let gateway = Gateway::new(reserved.as_fd(), false);
    let made = gateway.begin(reserved, || namespace::leave(NEW_NET)).and_then(Begun::finish);
    made.map(drop).or_else(|(at, errno)| step("gateway", at.what(), Err(errno)))
}
