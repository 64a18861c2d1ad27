//! The gateway of a container, made by a process that is where the container is, and its ports, taken where the engine is.
//!
//! In the gateway's namespace is nobody, but where ports are open: there the process stays, and makes the sockets by which
//! the proxy reaches the container.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, OwnedFd},
    thread,
};

use super::{FAILED, GO, WORDS, copy};
use crate::{
    launch::container::program::failed,
    net::{
        Listeners, NetError, Outward, gateway,
        publish::{Inward, Publish, Published},
    },
    plan::container::egress::Egress,
    sys::{
        Errno,
        clone::{self, Cloned},
        namespace, process, socket,
    },
};

/// What the proxy is behind.
pub(super) struct Made {
    pub listeners: Listeners,
    /// Where a socket in the gateway's namespace is had for each byte, if ports are open.
    sockets: Option<OwnedFd>,
}

/// Links `network` to a gateway; `users` is the container's user namespace, where only its root has rights over that.
pub(super) fn make(egress: &Egress, network: &OwnedFd, users: Option<&OwnedFd>) -> Result<Made, String> {
    let (ours, theirs) = socket::record_pair().map_err(failed("make a socket pair"))?;
    let reserved = copy(theirs.as_fd())?;
    let udp = egress.policy.passes_udp();
    let making = gateway::Gateway::new(reserved.as_fd(), udp);
    let Cloned::Parent { pid, .. } = clone::clone_process(0, None).map_err(failed("clone"))? else {
        drop(ours);
        let made = link(&making, reserved, network, users);
        let sent = match &made {
            Ok((listeners, _)) => {
                listeners.descriptors().try_for_each(|fd| socket::send(theirs.as_fd(), &[GO], Some(fd.as_fd())))
            }
            Err(why) => socket::send(theirs.as_fd(), &[&[FAILED], why.as_bytes()].concat(), None),
        };
        if let (Ok((listeners, namespace)), Ok(()), false) = (made, sent, egress.publish.is_empty()) {
            drop(listeners);
            _ = gateway::give_sockets(namespace.as_fd(), theirs.as_fd());
        }
        process::exit_now(i32::from(sent.is_err()))
    };
    drop((theirs, reserved));
    let listeners = receive_listeners(&ours, udp);
    let sockets = (listeners.is_ok() && !egress.publish.is_empty()).then_some(ours);
    if sockets.is_none() {
        _ = process::wait(pid, true);
    }
    Ok(Made { listeners: listeners?, sockets })
}

/// What the process that makes it does.
fn link(
    gateway: &gateway::Gateway,
    reserved: OwnedFd,
    network: &OwnedFd,
    users: Option<&OwnedFd>,
) -> Result<(Listeners, OwnedFd), String> {
    if let Some(users) = users {
        namespace::enter(users.as_fd(), libc::CLONE_NEWUSER).map_err(failed("enter the container's user namespace"))?;
    }
    let step = |(step, errno): (gateway::Step, Errno)| {
        let hint = step.hint(errno).map_or_else(String::new, |hint| format!(" ({hint})"));
        format!("cannot {}: {}{hint}", step.what(), errno.desc().to_lowercase())
    };
    namespace::leave(libc::CLONE_NEWNET).map_err(failed("make a network namespace"))?;
    let begun = gateway.begin(reserved, || namespace::enter(network.as_fd(), libc::CLONE_NEWNET)).map_err(step)?;
    let (listeners, namespace) = begun.finish().map_err(step)?;
    let within = gateway::listen_within().map_err(failed("listen for questions for names"))?;
    Ok((Listeners { within: Some(within), ..listeners }, namespace))
}

fn receive_listeners(from: &OwnedFd, udp: bool) -> Result<Listeners, String> {
    let next = || {
        let mut words = [0; WORDS];
        let (length, fd) = socket::receive(from.as_fd(), &mut words).map_err(failed("hear of the gateway"))?;
        match (words[..length].split_first(), fd) {
            (Some((&GO, [])), Some(fd)) => Ok(fd),
            (Some((&FAILED, why)), None) => Err(String::from_utf8_lossy(why).into_owned()),
            _ => Err("the process that makes the gateway has ended".to_owned()),
        }
    };
    Listeners::receive(true, udp, next)
}

impl Made {
    /// Takes the ports in the network that the engine gives the container, on every address that it has there; where that
    /// is the host's, on its loopback.
    pub fn inward(&mut self, ports: &[u16], outward: Option<&Outward>) -> Result<Option<Inward>, String> {
        let Some(sockets) = self.sockets.take() else { return Ok(None) };
        let published = match outward {
            None => take(ports, Ipv4Addr::LOCALHOST.into()).map_err(|error| why(&error))?,
            Some(Outward(engine)) => thread::scope(|scope| {
                let there = || {
                    namespace::enter(engine.as_fd(), libc::CLONE_NEWNET)
                        .map_err(failed("enter the network that the engine has made"))?;
                    // Of both families, where there are two.
                    take(ports, Ipv6Addr::UNSPECIFIED.into())
                        .or_else(|_| take(ports, Ipv4Addr::UNSPECIFIED.into()))
                        .map_err(|error| why(&error))
                };
                scope.spawn(there).join().unwrap_or_else(|_| Err("the thread that opens ports has ended".to_owned()))
            })?,
        };
        Ok(Some(Inward { published, sockets }))
    }
}

fn take(ports: &[u16], address: IpAddr) -> Result<Published, NetError> {
    let wanted: Vec<_> = ports.iter().map(|&port| Publish { address, host_port: port, port }).collect();
    Published::take(&wanted)
}

/// Without the hint, which is for options that a container has not.
fn why(error: &NetError) -> String {
    let source = std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"));
    format!("io.fumehood.egress: {error}{source}")
}
