//! A host and the world beyond it, for nobody but this process: two network namespaces with a link between.
//!
//! The process's own becomes the host's, so everything that it starts has only this network, with a name server that is
//! ours. Beyond, every address there is leads to the hostile servers, and whatever arrives is seen. Nothing of the machine
//! is changed, and all of it ends with the process.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
};

use nix::{
    mount::{MsFlags, mount},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::SockProtocol,
    },
    unistd::{getegid, geteuid, mkdtemp},
};

use super::{
    SelftestError,
    keys::Certificates,
    servers::{self, Seen, Servers},
};
use crate::{
    net::gateway::links::{self, End},
    sys::{
        namespace,
        netlink::{ACK, CREATE, Netlink, attribute, message},
        process,
    },
};

const UP: End = End { index: 1000, name: "up0", address: Ipv4Addr::new(5, 5, 5, 1), hardware: [2, 0, 0, 0, 1, 1] };
const DOWN: End = End { index: 1001, name: "down0", address: Ipv4Addr::new(5, 5, 5, 2), hardware: [2, 0, 0, 0, 1, 2] };
const SIXTH: [[u8; 16]; 2] = [
    [0x2a, 0, 0x55, 0x55, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0x2a, 0, 0x55, 0x55, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
];

/// The name server, which the host's resolver asks.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 53);

#[derive(Debug)]
pub struct World {
    seen: Seen,
    dir: PathBuf,
    /// Dropped, the servers end.
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    /// For the whole process, which has one thread yet.
    pub fn make() -> Result<Self, SelftestError> {
        // As many connections as there may be want descriptors at three places of this process.
        if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
            _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
        }
        let (user, group) = (geteuid(), getegid());
        if !user.is_root() {
            namespace::leave(libc::CLONE_NEWUSER).map_err(SelftestError::errno("make a user namespace"))?;
            for (file, text) in [
                ("setgroups", "deny".to_owned()),
                ("uid_map", format!("{user} {user} 1")),
                ("gid_map", format!("{group} {group} 1")),
            ] {
                fs::write(format!("/proc/self/{file}"), text).map_err(SelftestError::io("map one's own id"))?;
            }
        }
        namespace::leave(libc::CLONE_NEWNET | libc::CLONE_NEWNS)
            .map_err(SelftestError::errno("make a network namespace"))?;
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
            .map_err(SelftestError::errno("keep mounts private"))?;
        let dir = mkdtemp(&std::env::temp_dir().join("fumehood-selftest-XXXXXX"))
            .map_err(SelftestError::errno("make a temporary directory"))?;
        let seen = Seen::default();
        let mut world = Self { seen, dir, end: None, thread: None };
        world.resolve_by_ours()?;
        namespace::raise_loopback().map_err(SelftestError::errno("bring up the loopback device"))?;
        world.link()?;
        Ok(world)
    }

    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The host's resolver has our name server, and nobody else whom it could ask.
    fn resolve_by_ours(&self) -> Result<(), SelftestError> {
        let resolver = format!("nameserver {NAME_SERVER}\noptions timeout:2 attempts:2\n");
        let files = [
            ("/etc/resolv.conf", resolver.as_str()),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
            ("/etc/hosts", "127.0.0.1 localhost\n"),
        ];
        for (to, text) in files {
            // A C library without it has none of what it would switch off.
            let Ok(to) = fs::canonicalize(to) else {
                if to == "/etc/resolv.conf" {
                    let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
                    return Err(SelftestError::io("replace /etc/resolv.conf")(missing));
                }
                continue;
            };
            let name = self.dir.join(to.file_name().unwrap_or_default());
            fs::write(&name, text).map_err(SelftestError::io("write a temporary file"))?;
            mount(Some(&name), &to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(SelftestError::errno("replace the resolver's files"))?;
        }
        // Daemons that a C library asks before it asks itself.
        for daemon in ["/run/nscd", "/var/run/nscd"] {
            if Path::new(daemon).is_dir() {
                mount(Some("none"), daemon, Some("tmpfs"), MsFlags::empty(), None::<&str>)
                    .map_err(SelftestError::errno("hide nscd"))?;
            }
        }
        Ok(())
    }

    fn link(&mut self) -> Result<(), SelftestError> {
        let failed = SelftestError::errno("make the link between the host and the world");
        let here = servers::on_the_host(&self.dir)?;
        let (certificates, trusted) = Certificates::make()?;
        // Whom the proxy trusts: for the tools of this process, the world's authority is one of the host's.
        let file = self.dir.join("authorities.pem");
        fs::write(&file, trusted).map_err(SelftestError::io("write a temporary file"))?;
        process::set_variable("SSL_CERT_FILE", &file).map_err(SelftestError::errno("name the world's authority"))?;
        let (made, making) = mpsc::channel();
        let (linked, linking) = mpsc::channel::<()>();
        let (end, ended) = tokio::sync::oneshot::channel();
        let seen = self.seen.clone();
        let thread = std::thread::Builder::new().name("selftest-world".to_owned()).spawn(move || {
            let namespace = beyond();
            let failed = namespace.is_err();
            if made.send(namespace.map(|fd| (fd, None))).is_err() || failed || linking.recv().is_err() {
                return;
            }
            match settle().and_then(|()| Servers::new(here, certificates)) {
                Ok(servers) => servers.serve(seen, ended, || made.send(Ok((None, Some(())))).is_ok()),
                Err(error) => _ = made.send(Err(error)),
            }
        });
        self.thread = Some(thread.map_err(SelftestError::io("start a thread"))?);
        self.end = Some(end);
        let lost = || SelftestError::io("hear of the world")(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        let namespace = making.recv().map_err(|_| lost())??.0.ok_or_else(lost)?;
        let routes = Netlink::open(SockProtocol::NetlinkRoute).map_err(&failed)?;
        routes.transact(&[links::pair(UP, DOWN, namespace.as_fd())], 1).map_err(&failed)?;
        _ = linked.send(());
        making.recv().map_err(|_| lost())??;
        routes.carry_out(&links::up(UP, DOWN).concat(), 3).map_err(&failed)?;
        routes.transact(&[links::route(UP, DOWN.address)], 1).map_err(&failed)?;
        // Where the kernel has it: else what goes by it is not tested, and said so.
        if sixth(&routes, UP, 0).is_ok() {
            _ = routes.transact(&[route(libc::AF_INET6, UP.index, UNICAST, Some(&SIXTH[1]))], 1);
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
        _ = fs::remove_dir_all(&self.dir);
    }
}

/// The world's namespace, in which the calling thread stays.
fn beyond() -> Result<Option<OwnedFd>, SelftestError> {
    namespace::leave(libc::CLONE_NEWNET).map_err(SelftestError::errno("make a network namespace"))?;
    namespace::raise_loopback().map_err(SelftestError::errno("bring up the loopback device"))?;
    let file = File::open("/proc/thread-self/ns/net").map_err(SelftestError::io("open a network namespace"))?;
    Ok(Some(file.into()))
}

/// Every address there is becomes one of the world's.
fn settle() -> Result<(), SelftestError> {
    let failed = SelftestError::errno("make every address the world's");
    let routes = Netlink::open(SockProtocol::NetlinkRoute).map_err(&failed)?;
    routes.carry_out(&links::up(DOWN, UP).concat(), 3).map_err(&failed)?;
    routes.transact(&[route(libc::AF_INET, LOOPBACK, LOCAL, None)], 1).map_err(&failed)?;
    if sixth(&routes, DOWN, 1).is_ok() {
        _ = routes.transact(&[route(libc::AF_INET6, LOOPBACK, LOCAL, None)], 1);
    }
    Ok(())
}

const LOOPBACK: i32 = 1;
// linux/rtnetlink.h
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const UNICAST: u8 = 1;
const LOCAL: u8 = 2;

/// What goes to anywhere.
fn route(family: i32, device: i32, kind: u8, gateway: Option<&[u8]>) -> Vec<u8> {
    let scope = if kind == LOCAL { 254 } else { 0 };
    let mut payload = vec![family as u8, 0, 0, 0, 254, 4, scope, kind];
    payload.extend(0_u32.to_ne_bytes());
    if let Some(gateway) = gateway {
        payload.extend(attribute(5, gateway));
    }
    payload.extend(attribute(4, &device.to_ne_bytes()));
    message(NEW_ROUTE, ACK | CREATE, 1, &payload)
}

/// An address of IPv6, without asking whether anybody else has it.
fn sixth(routes: &Netlink, own: End, number: usize) -> Result<(), SelftestError> {
    const NO_DETECTION: u8 = 2;
    let mut payload = vec![libc::AF_INET6 as u8, 126, NO_DETECTION, 0];
    payload.extend(own.index.to_ne_bytes());
    payload.extend(attribute(1, &SIXTH[number]));
    routes
        .transact(&[message(NEW_ADDRESS, ACK | CREATE, 1, &payload)], 1)
        .map_err(SelftestError::errno("give an address of IPv6"))
}
