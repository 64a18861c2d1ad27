//! The pair of network devices between a sandbox and its gateway, as the messages that make it (rtnetlink(7), veth(4)).
//!
//! Both ends have addresses and neighbours that never change, so nothing is asked and nobody can answer falsely.

use std::{
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
};

use crate::sys::netlink::{ACK, CREATE, EXCLUSIVE, NESTED, REPLACE, attribute, message};

/// What one packet holds at most: the kernel hands on large ones whole.
const MTU: u32 = 65535;
const PREFIX: u8 = 30;

// linux/rtnetlink.h
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;

/// One end of the pair.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// Above those of devices that a kernel puts into every namespace. The two differ: a device whose peer has its own
    /// index is not told of its carrier for up to a second.
    pub index: i32,
    pub name: &'static str,
    pub address: Ipv4Addr,
    /// Locally administered.
    pub hardware: [u8; 6],
}

/// Brings the loopback device up.
#[must_use]
pub fn loopback() -> Vec<u8> {
    message(NEW_LINK, ACK, 1, &link(1, libc::IFF_UP))
}

/// Makes both, `here` in the namespace of the socket that it is sent by, `there` in the other; both down.
#[must_use]
pub fn pair(here: End, there: End, namespace: BorrowedFd<'_>) -> Vec<u8> {
    // linux/if_link.h: IFLA_*, IFLA_INFO_*, VETH_INFO_PEER
    let end = |end: End| {
        let name = [end.name.as_bytes(), b"\0"].concat();
        [attribute(3, &name), attribute(1, &end.hardware), attribute(4, &MTU.to_ne_bytes())].concat()
    };
    let peer =
        [link(there.index, 0).to_vec(), end(there), attribute(28, &namespace.as_raw_fd().to_ne_bytes())].concat();
    let info = [attribute(1, b"veth\0"), attribute(2 | NESTED, &attribute(1 | NESTED, &peer))].concat();
    let payload = [link(here.index, 0).to_vec(), end(here), attribute(18 | NESTED, &info)].concat();
    message(NEW_LINK, ACK | CREATE | EXCLUSIVE, 1, &payload)
}

/// Gives one end its address and what it knows of the other, and brings it up.
#[must_use]
pub fn up(own: End, other: End) -> Vec<Vec<u8>> {
    let mut address = vec![libc::AF_INET as u8, PREFIX, 0, 0];
    address.extend(own.index.to_ne_bytes());
    // IFA_LOCAL, IFA_ADDRESS
    for kind in [2, 1] {
        address.extend(attribute(kind, &own.address.octets()));
    }
    // struct ndmsg: NUD_PERMANENT
    let mut neighbour = vec![libc::AF_INET as u8, 0, 0, 0];
    neighbour.extend(own.index.to_ne_bytes());
    neighbour.extend(0x80_u16.to_ne_bytes());
    neighbour.extend([0, 0]);
    neighbour.extend(attribute(1, &other.address.octets()));
    neighbour.extend(attribute(2, &other.hardware));
    vec![
        message(NEW_ADDRESS, ACK | CREATE | REPLACE, 1, &address),
        message(NEW_LINK, ACK, 2, &link(own.index, libc::IFF_UP)),
        message(NEW_NEIGHBOUR, ACK | CREATE, 3, &neighbour),
    ]
}

/// Asks how a device is.
#[must_use]
pub fn question(end: End) -> Vec<u8> {
    message(GET_LINK, 0, 1, &link(end.index, 0))
}

/// Whether the answer is that packets are taken: a device is up a moment before it does so.
#[must_use]
pub fn is_running(answer: &[u8]) -> Option<bool> {
    let flags = answer.get(8..12)?.try_into().ok()?;
    Some(i32::from_ne_bytes(flags) & libc::IFF_RUNNING != 0)
}

/// Sends everything by way of `gateway`.
#[must_use]
pub fn route(own: End, gateway: Ipv4Addr) -> Vec<u8> {
    // struct rtmsg: table main, protocol static, scope universe, unicast
    let mut route = vec![libc::AF_INET as u8, 0, 0, 0, 254, 4, 0, 1];
    route.extend(0_u32.to_ne_bytes());
    route.extend(attribute(5, &gateway.octets()));
    route.extend(attribute(4, &own.index.to_ne_bytes()));
    message(NEW_ROUTE, ACK | CREATE | REPLACE, 1, &route)
}

/// Has the namespace take for its own whatever comes in, whoever it is for, but what its link leads to.
#[must_use]
pub fn take_all() -> Vec<Vec<u8>> {
    // struct rtmsg: table main, protocol static, scope host, local; by the loopback device
    let mut route = vec![libc::AF_INET as u8, 0, 0, 0, 254, 4, 254, 2];
    route.extend(0_u32.to_ne_bytes());
    route.extend(attribute(4, &1_i32.to_ne_bytes()));
    vec![loopback(), message(NEW_ROUTE, ACK | CREATE | EXCLUSIVE, 1, &route)]
}

/// `struct ifinfomsg`
fn link(index: i32, flags: i32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
    bytes
}
