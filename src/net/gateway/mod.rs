//! The gateway: a network namespace of fumehood's own, to which the sandbox's only link leads.
//!
//! It is owned by a user namespace that the payload is not in, so nothing inside can touch its rules. Packets end there:
//! the proxy takes connections from its listening sockets and dials out by itself, from the host's namespace, so nothing
//! is forwarded, and the host's own network is as it was (DESIGN "the gateway namespace").
//!
//! A [`Gateway`] is data, computed before; [`Gateway::begin`] and [`Begun::finish`] send it, within the namespaces.

pub(crate) mod links;
mod rules;
mod sockets;

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
    },
    unistd::dup3,
};

pub use sockets::give_sockets;

use super::{BUFFER, Datagrams, Listeners, Within};
use crate::sys::{Errno, netlink::Netlink};

/// In a range for tests of networks (RFC 2544), which no host has and which names stand for inside.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub const SANDBOX: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Where programs that know of proxies find one.
pub const EXPLICIT_PORT: u16 = 3128;

const OUTER: links::End = links::End { index: 1000, name: "sandbox", address: GATEWAY, hardware: [2, 0, 0, 0, 0, 1] };
const INNER: links::End = links::End { index: 1001, name: "eth0", address: SANDBOX, hardware: [2, 0, 0, 0, 0, 2] };
const PORTS: Ports = Ports { tcp: 1, dns: 53, explicit: EXPLICIT_PORT, udp: 2 };

/// Where the listeners are.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    tcp: u16,
    dns: u16,
    explicit: u16,
    udp: u16,
}

/// What of the kernel a gateway needs, by the names of the modules.
pub const MODULES: &str = "veth nf_tables nft_reject_inet nft_tproxy";

/// A step of the making that the kernel refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Namespace,
    Rules,
    Link,
    Route,
    Listen,
}

impl Step {
    pub const ALL: [Self; 5] = [Self::Namespace, Self::Rules, Self::Link, Self::Route, Self::Listen];

    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Namespace => "make a network namespace",
            Self::Rules => "load the gateway's packet filter",
            Self::Link => "make the link to the gateway",
            Self::Route => "set the route to the gateway",
            Self::Listen => "listen on the gateway",
        }
    }

    /// What can be done where the kernel says that it doesn't know what the step needs.
    #[must_use]
    pub fn hint(self, errno: Errno) -> Option<String> {
        let unknown = [Errno::ENOENT, Errno::EOPNOTSUPP, Errno::EPROTONOSUPPORT, Errno::EAFNOSUPPORT, Errno::EINVAL];
        let module = matches!(self, Self::Rules | Self::Link) && unknown.contains(&errno);
        module.then(|| format!("the kernel lacks modules that a gateway needs: sudo modprobe -a {MODULES}"))
    }
}

/// Everything that is sent to the kernel, made before there is a process that must not allocate.
#[derive(Debug)]
pub struct Gateway {
    rules: Vec<u8>,
    rules_acknowledged: usize,
    pair: Vec<u8>,
    outer: Vec<u8>,
    outer_acknowledged: usize,
    udp: bool,
    inner: Vec<u8>,
    outer_question: Vec<u8>,
    inner_question: Vec<u8>,
}

impl Gateway {
    /// `reserved`: a descriptor that [`Self::begin`] may replace.
    /// `udp`: it is let out.
    #[must_use]
    pub fn new(reserved: BorrowedFd<'_>, udp: bool) -> Self {
        let (rules, rules_acknowledged) = rules::load(SANDBOX, GATEWAY, PORTS, udp);
        let outer = [links::take_all(), links::up(OUTER, INNER)].concat();
        let inner = [vec![links::loopback()], links::up(INNER, OUTER), vec![links::route(INNER, GATEWAY)]].concat();
        Self {
            rules,
            rules_acknowledged,
            pair: links::pair(INNER, OUTER, reserved),
            outer_acknowledged: outer.len(),
            outer: outer.concat(),
            udp,
            inner: inner.concat(),
            outer_question: links::question(OUTER),
            inner_question: links::question(INNER),
        }
    }

    /// The caller has just come into a new network namespace, which becomes the gateway's, and leaves in the sandbox's,
    /// which `enter` makes and enters: what is in there has no way out until [`Begun::finish`] makes one.
    /// Allocates nothing.
    pub fn begin(
        &self,
        reserved: OwnedFd,
        enter: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<Begun<'_>, (Step, Errno)> {
        let at = |step: Step| move |errno: Errno| (step, errno);
        let filter = Netlink::open(SockProtocol::NetlinkNetFilter).map_err(at(Step::Rules))?;
        let outside = Netlink::open(SockProtocol::NetlinkRoute).map_err(at(Step::Link))?;
        let gateway = File::open("/proc/thread-self/ns/net");
        let gateway = gateway.map_err(|error| (Step::Namespace, Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
        let mut namespace = reserved;
        dup3(&gateway, &mut namespace, OFlag::O_CLOEXEC).map_err(at(Step::Namespace))?;
        let listeners = listen_all(self.udp).map_err(at(Step::Listen))?;
        enter().map_err(at(Step::Namespace))?;
        let inside = Netlink::open(SockProtocol::NetlinkRoute).map_err(at(Step::Link))?;
        Ok(Begun { gateway: self, filter, outside, inside, namespace, listeners })
    }
}

/// What gives the sandbox's end of the link its address and its route once more: gVisor's network stack takes them off
/// when it starts, and the next one finds none. Made before there is a process that must not allocate.
#[derive(Debug)]
pub struct Again {
    messages: Vec<u8>,
    acknowledged: usize,
}

impl Again {
    #[must_use]
    #[expect(clippy::new_without_default, reason = "nothing is there by default")]
    pub fn new() -> Self {
        let messages = [links::up(INNER, OUTER), vec![links::route(INNER, GATEWAY)]].concat();
        Self { acknowledged: messages.len(), messages: messages.concat() }
    }

    /// In the sandbox's namespace. Allocates nothing.
    pub fn carry_out(&self) -> Result<(), Errno> {
        Netlink::open(SockProtocol::NetlinkRoute)?.carry_out(&self.messages, self.acknowledged)
    }
}

/// Two namespaces without a link.
#[derive(Debug)]
pub struct Begun<'a> {
    gateway: &'a Gateway,
    filter: Netlink,
    outside: Netlink,
    inside: Netlink,
    /// The gateway's: the number that the link is made with.
    namespace: OwnedFd,
    listeners: Listeners,
}

impl Begun<'_> {
    /// They are there already; nothing comes to them yet.
    #[must_use]
    pub fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Makes the link, behind rules that are in force before. With the listeners comes the gateway's namespace.
    /// Allocates nothing.
    pub fn finish(self) -> Result<(Listeners, OwnedFd), (Step, Errno)> {
        let at = |step: Step| move |errno: Errno| (step, errno);
        let Self { gateway, filter, outside, inside, namespace, listeners } = self;
        filter.carry_out(&gateway.rules, gateway.rules_acknowledged).map_err(at(Step::Rules))?;
        inside.carry_out(&gateway.pair, 1).map_err(at(Step::Link))?;
        outside.carry_out(&gateway.outer, gateway.outer_acknowledged).map_err(at(Step::Link))?;
        inside.carry_out(&gateway.inner, 5).map_err(at(Step::Link))?;
        wait_for(&outside, &gateway.outer_question).map_err(at(Step::Link))?;
        wait_for(&inside, &gateway.inner_question).map_err(at(Step::Link))?;
        Ok((listeners, namespace))
    }
}

/// The kernel lets a device take packets by a worker of its own. Until then they are lost, and a connection's first is
/// sent again after a second only.
fn wait_for(socket: &Netlink, question: &[u8]) -> Result<(), Errno> {
    const LOOKS: u32 = 20_000;
    for _ in 0..LOOKS {
        if socket.look(question, links::is_running)? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Err(Errno::ETIMEDOUT)
}

/// On any address there is: all are the namespace's.
fn listen_all(udp: bool) -> Result<Listeners, Errno> {
    Ok(Listeners {
        udp: udp.then(datagrams).transpose()?,
        within: None,
        tcp: transparent(SockType::Stream, PORTS.tcp)?,
        dns_udp: transparent(SockType::Datagram, PORTS.dns)?,
        dns_tcp: transparent(SockType::Stream, PORTS.dns)?,
        explicit: transparent(SockType::Stream, PORTS.explicit)?,
    })
}

/// Where Docker's containers ask for names in networks that have one: on their own loopback, in the namespace of the caller.
pub fn listen_within() -> Result<Within, Errno> {
    const DOCKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
    Ok(Within {
        udp: bound(SockType::Datagram, DOCKER, PORTS.dns, |_| Ok(()))?,
        tcp: bound(SockType::Stream, DOCKER, PORTS.dns, |_| Ok(()))?,
    })
}

fn datagrams() -> Result<Datagrams, Errno> {
    let listener = transparent(SockType::Datagram, PORTS.udp)?;
    setsockopt(&listener, sockopt::Ipv4OrigDstAddr, &true)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    // What it is given has an IP header already.
    let answers = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Raw)?;
    Ok(Datagrams { listener, answers })
}

/// Answers from whatever address was asked.
fn transparent(kind: SockType, port: u16) -> Result<OwnedFd, Errno> {
    let set = |socket: &OwnedFd| setsockopt(socket, sockopt::IpTransparent, &true);
    bound(kind, Ipv4Addr::UNSPECIFIED, port, set)
}

fn bound(
    kind: SockType,
    address: Ipv4Addr,
    port: u16,
    set: impl Fn(&OwnedFd) -> Result<(), Errno>,
) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, kind, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // Inherited by each connection, and told to its client with the first packet.
    setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
    setsockopt(&socket, sockopt::SndBuf, &BUFFER)?;
    set(&socket)?;
    let address = SockaddrIn::from(SocketAddrV4::new(address, port));
    bind(socket.as_raw_fd(), &address)?;
    if kind == SockType::Stream {
        listen(&socket, Backlog::new(1024).unwrap_or(Backlog::MAXCONN))?;
    }
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests;
