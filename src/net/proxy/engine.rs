//! The network that an engine has made for a container: a thread stands there and makes the proxy's sockets, and what only
//! the engine knows is asked of it, the names of its other containers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    signal::SigSet,
    socket::{AddressFamily, SockProtocol, SockType},
};

use super::outside::{made, routes};
use crate::{
    net::{
        asking,
        policy::{LOCALHOST, Name},
    },
    sys::{
        namespace,
        netlink::{self, Netlink},
        process,
    },
};

/// The network namespace from which a proxy reaches out, where that is not the one it is started in.
#[derive(Debug)]
pub struct Outward(pub OwnedFd);

/// Asked for a socket there: TCP's or UDP's.
type Wish = (AddressFamily, SockType, mpsc::Sender<io::Result<OwnedFd>>);

/// Makes sockets there.
#[derive(Debug, Clone)]
pub(super) struct Sockets(mpsc::Sender<Wish>);

/// Where Docker has its name server in networks that have one.
const DOCKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const DNS: u16 = 53;
/// How long is waited for an answer, so often.
const PATIENCE: Duration = Duration::from_millis(700);
const TRIES: usize = 2;
/// How long is not asked who did not answer.
const SILENCE: Duration = Duration::from_secs(5);

impl Outward {
    /// A thread there, and two views of that namespace's routes.
    pub(super) fn stand_there(self) -> io::Result<(Sockets, [Netlink; 2])> {
        let (wishes, wished) = mpsc::channel::<Wish>();
        let (arrived, arriving) = mpsc::channel();
        let stand = move || {
            _ = SigSet::all().thread_block();
            let open = || Netlink::open(SockProtocol::NetlinkRoute);
            let there = namespace::enter(self.0.as_fd(), libc::CLONE_NEWNET).and_then(|()| Ok([open()?, open()?]));
            let stays = there.is_ok();
            _ = arrived.send(there);
            if !stays {
                return;
            }
            while let Ok((family, kind, answer)) = wished.recv() {
                _ = answer.send(made(family, kind));
            }
        };
        thread::Builder::new().name("fumehood-outward".to_owned()).spawn(stand)?;
        let tables = arriving.recv().map_err(io::Error::other)??;
        Ok((Sockets(wishes), tables))
    }
}

impl Sockets {
    pub fn make(&self, family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
        let gone = || io::Error::other("nobody makes sockets in the network namespace of the container");
        let (answer, answered) = mpsc::channel();
        self.0.send((family, kind, answer)).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}

/// The engine's name server, of those engines that have one.
pub(super) struct Names {
    sockets: Sockets,
    routes: Mutex<Netlink>,
    /// Who did not answer, and when.
    silent: Mutex<Option<(Ipv4Addr, Instant)>>,
}

impl Names {
    pub fn new(sockets: Sockets, routes: Netlink) -> Self {
        Self { sockets, routes: Mutex::new(routes), silent: Mutex::default() }
    }

    /// The addresses of another container: a name without a dot, of which is believed what is answered here. `None`, if
    /// nobody answers.
    pub fn find(&self, name: &Name) -> Option<Vec<IpAddr>> {
        if name.as_str().contains('.') || name.as_str() == LOCALHOST {
            return None;
        }
        // That of Podman and others is on the bridge that leads out.
        [Some(DOCKER), self.gateway()].into_iter().flatten().find_map(|server| {
            if self.is_silent(server) {
                return None;
            }
            let asked = self.ask(server, name);
            if asked.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                *self.silent() = Some((server, Instant::now()));
            }
            asked.ok()
        })
    }

    /// Whether it has just let somebody wait in vain.
    fn is_silent(&self, server: Ipv4Addr) -> bool {
        self.silent().is_some_and(|(silent, since)| silent == server && since.elapsed() < SILENCE)
    }

    fn silent(&self) -> MutexGuard<'_, Option<(Ipv4Addr, Instant)>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, server: Ipv4Addr, name: &Name) -> io::Result<Vec<IpAddr>> {
        let socket = UdpSocket::from(self.sockets.make(AddressFamily::Inet, SockType::Datagram)?);
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(SocketAddrV4::new(server, DNS))?;
        let mut id = [0; 2];
        process::random(&mut id)?;
        let question = asking::question(name, u16::from_ne_bytes(id));
        let mut message = [0; 512];
        for _ in 0..TRIES {
            socket.send(&question)?;
            match socket.recv(&mut message) {
                Ok(length) => {
                    let found = asking::addresses(&message[..length], &question);
                    let found = found.ok_or_else(|| io::Error::other("no answer to the question"))?;
                    return Ok(found.into_iter().map(IpAddr::V4).collect());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// By which what is nowhere near goes out.
    fn gateway(&self) -> Option<Ipv4Addr> {
        const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
        const GATEWAY: u16 = 5;
        const ROUTE: usize = 12;
        let find = |route: &[u8]| {
            let mut attributes = netlink::attributes(route.get(ROUTE..)?);
            let address = attributes.find_map(|(kind, value)| (kind == GATEWAY).then_some(value))?;
            <[u8; 4]>::try_from(address).ok().map(Ipv4Addr::from)
        };
        routes(&self.routes.lock().unwrap_or_else(PoisonError::into_inner), FAR.into(), find).ok()
    }
}
