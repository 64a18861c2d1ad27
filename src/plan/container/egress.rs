//! A container whose network is filtered: it gets a namespace with nothing in it but the link to a gateway, whatever its
//! specification says, and what the engine makes of its network is where the gateway's proxy reaches out from.

use std::path::PathBuf;

use oci_spec::runtime as oci;

use super::{ContainerError, Namespaces, process::Capabilities};
use crate::{net::Policy, spec::container::Egress as Wanted};

#[derive(Debug)]
pub struct Egress {
    pub policy: Box<Policy>,
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
        Ok(Self { policy: wanted.policy.clone(), network })
    }
}

/// Whether one more process of a container whose network is filtered may have these.
pub fn check_exec(linux: &oci::Linux, held: &Capabilities) -> Result<(), ContainerError> {
    let namespaces = Namespaces::new(linux)?;
    let (users, processes) = (namespaces.has(libc::CLONE_NEWUSER), namespaces.new & libc::CLONE_NEWPID != 0);
    check_capabilities(held, users, processes)
}

/// Who may do these things has other ways out of a network namespace than its devices.
pub fn check_capabilities(held: &Capabilities, own_users: bool, own_processes: bool) -> Result<(), ContainerError> {
    const PTRACE: (u32, &str) = (19, "CAP_SYS_PTRACE");
    const ALWAYS: [(u32, &str); 3] = [(21, "CAP_SYS_ADMIN"), (16, "CAP_SYS_MODULE"), (17, "CAP_SYS_RAWIO")];
    if own_users {
        return Ok(());
    }
    let others = (!own_processes).then_some(PTRACE);
    let all = held.bounding | held.permitted | held.inheritable | held.ambient;
    match ALWAYS.into_iter().chain(others).find(|(number, _)| all & 1 << number != 0) {
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
        assert!(check_capabilities(&net_admin, false, true).is_ok());
        let admin = check_capabilities(&with(21), false, true).unwrap_err().to_string();
        assert!(admin.contains("io.fumehood.egress") && admin.contains("CAP_SYS_ADMIN"), "{admin}");
        assert!(check_capabilities(&with(21), true, false).is_ok());
        assert!(check_capabilities(&with(19), false, true).is_ok());
        assert!(check_capabilities(&with(19), false, false).is_err());
    }

    #[test]
    fn the_engines_network_is_the_proxys() {
        let wanted = Wanted { policy: Box::new("web".parse().map(Policy::new).unwrap().unwrap()), from_host: true };
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
