//! What the proxy asks of the kernel and of the host's resolver.
//!
//! Three questions behind one type, so that tests can give other answers to them where there is no gateway: where a
//! steered connection was going, which addresses a name has, and where an address is.
//!
//! A proxy may dial from another network namespace than it is in. Names are resolved in its own all the same, but for those
//! that are known there alone.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    os::fd::OwnedFd,
    sync::Arc,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tokio::net::TcpStream;

use super::engine::{Names, Outward, Sockets};
use crate::{
    net::policy::{HOST_NAME, LOCALHOST, Name},
    sys::netlink::{self, Netlink},
};

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
    pub elsewhere: Option<Sockets>,
}

impl Outside {
    /// Of the calling thread's network namespace, but for what is dialled.
    pub fn real(outward: Option<Outward>) -> io::Result<Self> {
        let mut tables = vec![Netlink::open(SockProtocol::NetlinkRoute)?];
        let (mut elsewhere, mut names) = (None, None);
        if let Some(outward) = outward {
            let (sockets, [table, another]) = outward.stand_there()?;
            tables.push(table);
            names = Some(Names::new(sockets.clone(), another));
            elsewhere = Some(sockets);
        }
        Ok(Self {
            destination: Box::new(TcpStream::local_addr),
            resolve: Arc::new(move |name| match names.as_ref().and_then(|names| names.find(name)) {
                Some(found) => Ok(found),
                None => resolve(name),
            }),
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
        match &self.elsewhere {
            None => made(family, kind),
            Some(sockets) => sockets.make(family, kind),
        }
    }
}

pub(super) fn made(family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
    Ok(socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?)
}

fn resolve(name: &Name) -> io::Result<Vec<IpAddr>> {
    // RFC 6761: nobody is asked for these.
    if name.as_str() == HOST_NAME || name.as_str() == LOCALHOST {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    Ok((name.as_str(), 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES))
}

/// Asks the routing table, which also knows addresses that no interface has.
fn is_own(table: &Netlink, address: IpAddr) -> io::Result<bool> {
    const UNICAST: u8 = 1;
    const KIND: usize = 7;
    Ok(routes(table, address, |route| route.get(KIND).copied())? != UNICAST)
}

/// What is said of the route there: struct rtmsg and attributes.
pub(super) fn routes<T>(table: &Netlink, address: IpAddr, read: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
    const GET_ROUTE: u16 = 26;
    const DESTINATION: u16 = 1;
    let (family, bytes) = match address {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    // struct rtmsg: family, prefix length, and zeroes.
    let mut payload = vec![family as u8, bytes.len() as u8 * 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(netlink::attribute(DESTINATION, &bytes));
    Ok(table.look(&netlink::message(GET_ROUTE, 0, 1, &payload), read)?)
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
