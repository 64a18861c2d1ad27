//! A container whose network is filtered: it gets a namespace with nothing in it but the link to a gateway, whatever its
//! specification says, and what the engine makes of its network is where the gateway's proxy reaches out from.

use std::path::PathBuf;

use oci_spec::runtime as oci;

use super::{ContainerError, Namespaces, process::Capabilities};
use crate::{
    net::Policy,
    spec::container::{Egress as Wanted, egress::Open},
};

#[derive(Debug)]
pub struct Egress {
    pub policy: Box<Policy>,
    /// Ports of the container that are open in the engine's network.
    pub publish: Vec<u16>,
    pub network: Network,
}

/// What the engine knows as the container's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// It has made one.
    Path(PathBuf),
    /// It wants one made, and puts in it what it likes until the container is started. Where that is nothing and
    /// `or_host` is said, the host's is taken.
    New { or_host: bool },
}

impl Egress {
    /// Takes the engine's network out of `namespaces`.
    pub fn new(
        wanted: &Wanted,
        namespaces: &mut Namespaces,
        devices: bool,
        rootless: bool,
    ) -> Result<Self, ContainerError> {
        let joined = namespaces.joined.iter().position(|(flag, _)| *flag == libc::CLONE_NEWNET);
        let network = match joined {
            Some(at) => Network::Path(namespaces.joined.remove(at).1),
            None if namespaces.new & libc::CLONE_NEWNET != 0 => Network::New { or_host: wanted.from_host },
            None => return Err(refuse("the container is in the host's network, which is nobody's to filter")),
        };
        namespaces.new |= libc::CLONE_NEWNET;
        if rootless && network != (Network::New { or_host: true }) {
            let why = "an ordinary user's container has no network that could be filtered; --egress-from-host gives it \
                       the host's";
            return Err(refuse(why));
        }
        if devices {
            return Err(refuse("a network device of the container's own (linux.netDevices) would be a way around it"));
        }
        let Open { policy, publish } = wanted.open.clone();
        Ok(Self { policy, publish, network })
    }
}

/// Whether one more process of a container whose network is filtered may have these.
pub fn check_exec(linux: &oci::Linux, held: &Capabilities, nested: bool) -> Result<(), ContainerError> {
    check_held(&Held::new(&Namespaces::new(linux)?, linux, nested), held)
}

/// What else stands around a filtered container's processes.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// A user namespace of the container's own: in one that others are in as well, their processes may be traced.
    users: bool,
    /// Likewise of processes.
    processes: bool,
    /// Whether devices are closed but for some, or, as in any user namespace, cannot be made (mknod(2)).
    devices: bool,
}

impl Held {
    #[must_use]
    pub fn new(namespaces: &Namespaces, linux: &oci::Linux, nested: bool) -> Self {
        let own = |flag: i32| namespaces.new & flag != 0;
        let rules = linux.resources().as_ref().and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
        let closes = |rule: &oci::LinuxDeviceCgroup| {
            let all = rule.typ().is_none_or(|kind| kind == oci::LinuxDeviceType::A);
            let access = rule.access().as_deref().unwrap_or("rwm");
            !rule.allow() && all && rule.major().is_none() && access.contains('r') && access.contains('w')
        };
        Self {
            users: own(libc::CLONE_NEWUSER),
            processes: own(libc::CLONE_NEWPID),
            devices: nested || rules.iter().any(closes),
        }
    }
}

/// Who may do these things has other ways out of a network namespace than its devices. A container that sees others' processes
/// needs none of them: it may trace those of its user (ptrace(2)), take their sockets (pidfd_getfd(2)), and, with a user
/// namespace of its own, too, give itself devices on their networks by their number alone (RTM_NEWNSID).
pub fn check_held(held: &Held, capabilities: &Capabilities) -> Result<(), ContainerError> {
    const ALWAYS: [(u32, &str); 6] = [
        (21, "CAP_SYS_ADMIN"),
        (16, "CAP_SYS_MODULE"),
        (17, "CAP_SYS_RAWIO"),
        // Over a process that is about to be in the container, which `exec` has made.
        (19, "CAP_SYS_PTRACE"),
        // Any file of a disk by its handle, and so any socket that is a file (open_by_handle_at(2)).
        (2, "CAP_DAC_READ_SEARCH"),
        (22, "CAP_SYS_BOOT"),
    ];
    const MKNOD: (u32, &str) = (27, "CAP_MKNOD");
    if !held.processes {
        let why = "a container without a pid namespace of its own sees processes of others, and gets around it by way of them";
        return Err(refuse(why));
    }
    if held.users {
        return Ok(());
    }
    let open = (!held.devices).then_some(MKNOD);
    let all = capabilities.all();
    match ALWAYS.into_iter().chain(open).find(|(number, _)| all & 1 << number != 0) {
        Some((27, _)) => Err(refuse("with CAP_MKNOD and every device open to it, a process gets around it")),
        Some((_, name)) => Err(refuse(&format!("with {name}, a process without a user namespace gets around it"))),
        None => Ok(()),
    }
}

fn refuse(why: &str) -> ContainerError {
    ContainerError::spec("io.fumehood.egress", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_leave_is_not_held() {
        let with = |number: u32| Capabilities { bounding: 1 << number, ..Capabilities::default() };
        let net_admin = with(12);
        let own = Held { users: false, processes: true, devices: true };
        let check_held = |held: Held, capabilities| check_held(&held, &capabilities).map_err(|error| error.to_string());
        check_held(own, net_admin).unwrap();
        check_held(own, with(27)).unwrap();
        check_held(Held { devices: false, ..own }, with(27)).unwrap_err();
        check_held(Held { processes: false, ..own }, Capabilities::default()).unwrap_err();
        check_held(Held { users: true, processes: true, devices: false }, with(21)).unwrap();
        check_held(Held { users: true, processes: false, devices: true }, Capabilities::default()).unwrap_err();
        for number in [2, 16, 17, 19, 22] {
            check_held(own, with(number)).unwrap_err();
        }
        let admin = check_held(own, with(21)).unwrap_err();
        assert!(admin.contains("io.fumehood.egress") && admin.contains("CAP_SYS_ADMIN"), "{admin}");
    }

    #[test]
    fn the_engines_network_is_the_proxys() {
        let wanted = Wanted { open: crate::spec::container::egress::parse("web").unwrap(), from_host: true };
        let path = || vec![(libc::CLONE_NEWNET, "/n".into()), (libc::CLONE_NEWIPC, "/i".into())];
        let mut namespaces = Namespaces { joined: path(), ..Namespaces::default() };
        let egress = Egress::new(&wanted, &mut namespaces, false, false).unwrap();
        assert_eq!(egress.network, Network::Path("/n".into()));
        assert_eq!(namespaces.joined, [(libc::CLONE_NEWIPC, PathBuf::from("/i"))]);
        assert_eq!(namespaces.new, libc::CLONE_NEWNET);
        let mut new = Namespaces { new: libc::CLONE_NEWNET, ..Namespaces::default() };
        assert_eq!(Egress::new(&wanted, &mut new, false, true).unwrap().network, Network::New { or_host: true });
        assert!(Egress::new(&wanted, &mut new, true, false).unwrap_err().to_string().contains("netDevices"));
        assert!(
            Egress::new(&wanted, &mut Namespaces::default(), false, false).unwrap_err().to_string().contains("host's")
        );
    }
}
