//! What the proxy asks of the kernel and of the host's resolver.
//!
//! Three questions behind one type, so that tests can give other answers to them where there is no gateway: where a
//! steered connection was going, which addresses a name has, and where an address is.
//!
//! A proxy may dial from another network namespace than it is in: a thread stands there and makes its sockets. Names are
//! resolved in its own all the same.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, mpsc},
    thread,
};

use nix::sys::{
    signal::SigSet,
    socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};
use tokio::net::TcpStream;

use crate::{
    net::policy::{HOST_NAME, Name},
    sys::{
        namespace,
        netlink::{self, Netlink},
    },
};

/// The network namespace from which a proxy reaches out, where that is not the one it is started in.
#[derive(Debug)]
pub struct Outward(pub OwnedFd);

/// Asked for a socket there: TCP's or UDP's.
type Wish = (AddressFamily, SockType, mpsc::Sender<io::Result<OwnedFd>>);

type Destination = Box<dyn Fn(&TcpStream) -> io::Result<SocketAddr> + Send>;
pub(super) type Resolve = Arc<dyn Fn(&Name) -> io::Result<Vec<IpAddr>> + Send + Sync>;
type IsOwn = Box<dyn Fn(IpAddr) -> io::Result<bool> + Send>;
type Route = Box<dyn Fn(SocketAddr) -> SocketAddr + Send>;

pub(super) struct Outside {
    /// Where the client wanted to go.
    pub destination: Destination,
    /// Blocks.
    pub resolve: Resolve,
    /// Whether packets to it stay on this host, or go to more than one.
    pub is_own: IsOwn,
    /// What is dialled for a checked address: itself, but in tests.
    pub route: Route,
    /// Where sockets are made; here, if nowhere else.
    pub elsewhere: Option<mpsc::Sender<Wish>>,
}

impl Outside {
    /// Of the calling thread's network namespace, but for what is dialled.
    pub fn real(outward: Option<Outward>) -> io::Result<Self> {
        let mut tables = vec![Netlink::open(SockProtocol::NetlinkRoute)?];
        let elsewhere = match outward {
            None => None,
            Some(outward) => {
                let (wishes, table) = outward.stand_there()?;
                tables.push(table);
                Some(wishes)
            }
        };
        Ok(Self {
            destination: Box::new(TcpStream::local_addr),
            resolve: Arc::new(resolve),
            // What is this host's is out of bounds, wherever it is seen from.
            is_own: Box::new(move |address| {
                let (last, others) = tables.split_last().ok_or(io::ErrorKind::NotFound)?;
                for table in others {
                    match is_own(table, address) {
                        Ok(true) => return Ok(true),
                        Ok(false) => {}
                        // There need be no way there from here.
                        Err(error) if is_unreachable(&error) => {}
                        Err(error) => return Err(error),
                    }
                }
                is_own(last, address)
            }),
            route: Box::new(|address| address),
            elsewhere,
        })
    }

    /// A socket to dial with, which does not block.
    pub fn socket(&self, family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
        let Some(elsewhere) = &self.elsewhere else { return made(family, kind) };
        let gone = || io::Error::other("nobody makes sockets in the network namespace of the container");
        let (answer, answered) = mpsc::channel();
        elsewhere.send((family, kind, answer)).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}

impl Outward {
    /// A thread there that makes sockets, and the routes of that namespace.
    fn stand_there(self) -> io::Result<(mpsc::Sender<Wish>, Netlink)> {
        let (wishes, wished) = mpsc::channel::<Wish>();
        let (arrived, arriving) = mpsc::channel();
        let stand = move || {
            _ = SigSet::all().thread_block();
            let there = namespace::enter(self.0.as_fd(), libc::CLONE_NEWNET)
                .and_then(|()| Netlink::open(SockProtocol::NetlinkRoute));
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
        let table = arriving.recv().map_err(io::Error::other)??;
        Ok((wishes, table))
    }
}

fn made(family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
    Ok(socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?)
}

fn resolve(name: &Name) -> io::Result<Vec<IpAddr>> {
    // RFC 6761: nobody is asked for these.
    if name.as_str() == HOST_NAME || name.as_str() == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    Ok((name.as_str(), 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES))
}

/// Asks the routing table, which also knows addresses that no interface has.
fn is_own(routes: &Netlink, address: IpAddr) -> io::Result<bool> {
    const GET_ROUTE: u16 = 26;
    const DESTINATION: u16 = 1;
    const UNICAST: u8 = 1;
    const KIND: usize = 7;
    let (family, bytes) = match address {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    // struct rtmsg: family, prefix length, and zeroes.
    let mut payload = vec![family as u8, bytes.len() as u8 * 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(netlink::attribute(DESTINATION, &bytes));
    let kind = routes.look(&netlink::message(GET_ROUTE, 0, 1, &payload), |route| route.get(KIND).copied())?;
    Ok(kind != UNICAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routing_table_knows_what_is_ours() {
        let routes = Netlink::open(SockProtocol::NetlinkRoute).unwrap();
        for own in ["127.0.0.1", "127.9.9.9", "255.255.255.255"] {
            assert!(is_own(&routes, own.parse().unwrap()).unwrap(), "{own}");
        }
        // Twice: nothing of one answer is left for the next.
        for _ in 0..2 {
            assert!(!is_own(&routes, "8.8.8.8".parse().unwrap()).unwrap_or(false));
        }
    }

    #[test]
    fn localhost_is_known_without_asking() {
        for name in ["localhost", HOST_NAME] {
            assert_eq!(resolve(&name.parse().unwrap()).unwrap()[0], Ipv4Addr::LOCALHOST);
        }
    }
}
