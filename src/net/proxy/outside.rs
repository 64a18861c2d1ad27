//! What the proxy asks of the kernel and of the host's resolver.
//!
//! Three questions behind one type, so that tests can give other answers to them where there is no gateway: where a
//! redirected connection was going, which addresses a name has, and where an address is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, ToSocketAddrs},
    sync::Arc,
};

use nix::sys::socket::{SockProtocol, getsockopt, sockopt};
use tokio::net::TcpStream;

use crate::{
    net::policy::{HOST_NAME, Name},
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
}

impl Outside {
    /// Of the calling thread's network namespace.
    pub fn real() -> io::Result<Self> {
        let routes = Netlink::open(SockProtocol::NetlinkRoute)?;
        Ok(Self {
            destination: Box::new(original_destination),
            resolve: Arc::new(resolve),
            is_own: Box::new(move |address| is_own(&routes, address)),
            route: Box::new(|address| address),
        })
    }
}

fn original_destination(client: &TcpStream) -> io::Result<SocketAddr> {
    let raw = getsockopt(client, sockopt::OriginalDst)?;
    let address = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
    Ok(SocketAddrV4::new(address, u16::from_be(raw.sin_port)).into())
}

fn resolve(name: &Name) -> io::Result<Vec<IpAddr>> {
    // RFC 6761: nobody is asked for these.
    if name.as_str() == HOST_NAME || name.as_str() == "localhost" {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    Ok((name.as_str(), 0).to_socket_addrs()?.map(|address| address.ip()).collect())
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
