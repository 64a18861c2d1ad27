//! The network of a sandbox: what it may reach, and the only way there.
//!
//! The sandbox's packets end in a namespace that is neither its own nor the host's, at listening sockets whose other
//! side is [`Proxy`]: it runs in the host's network, answers DNS itself with made-up addresses, and dials for each
//! connection what the name behind its made-up address truly resolves to. So nothing is forwarded, and what the
//! proxy doesn't understand doesn't get out.

mod asking;
pub(crate) mod authority;
mod dns;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod gateway;
mod log;
pub mod policy;
mod pool;
mod proxy;
pub mod publish;

use std::{fmt, os::fd::OwnedFd};

pub use self::{
    authority::Authority,
    error::NetError,
    log::{Allowed, Contact},
    policy::Policy,
    pool::{FAKE_FIRST, FAKE_LAST},
    proxy::{Log, Outward, Proxy},
};

/// What the kernel keeps for each direction of a socket. Left to itself it takes megabytes for one that is not read, from
/// memory of the host that no limit of a sandbox counts.
const BUFFER: usize = 256 << 10;

/// Sockets made where the sandbox's packets end, non-blocking or not.
#[derive(Debug)]
pub struct Listeners {
    /// All TCP: the own address of what is accepted is the one that was asked for.
    pub tcp: OwnedFd,
    pub dns_udp: OwnedFd,
    pub dns_tcp: OwnedFd,
    /// For clients that know of a proxy: HTTP and SOCKS5, told apart by the first byte.
    pub explicit: OwnedFd,
    /// Where UDP is let out.
    pub udp: Option<Datagrams>,
    /// For questions that never get to the gateway: see [`gateway::listen_within`].
    pub within: Option<Within>,
}

impl Listeners {
    /// In the order of [`Self::receive`]. Allocates nothing.
    pub fn descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        let Self { tcp, dns_udp, dns_tcp, explicit, udp, within } = self;
        let within = within.iter().flat_map(|within| [&within.udp, &within.tcp]);
        let udp = udp.iter().flat_map(|udp| [&udp.listener, &udp.answers]);
        [tcp, dns_udp, dns_tcp, explicit].into_iter().chain(within).chain(udp)
    }

    /// From whoever has made them; `within` and `udp`, where there are such.
    pub fn receive<E>(within: bool, udp: bool, mut next: impl FnMut() -> Result<OwnedFd, E>) -> Result<Self, E> {
        Ok(Self {
            tcp: next()?,
            dns_udp: next()?,
            dns_tcp: next()?,
            explicit: next()?,
            within: if within { Some(Within { udp: next()?, tcp: next()? }) } else { None },
            udp: if udp { Some(Datagrams { listener: next()?, answers: next()? }) } else { None },
        })
    }
}

/// Sockets for DNS on a loopback address of the sandbox's own.
#[derive(Debug)]
pub struct Within {
    pub udp: OwnedFd,
    pub tcp: OwnedFd,
}

/// Sockets for UDP, made there too.
#[derive(Debug)]
pub struct Datagrams {
    /// All but DNS, with the address that each was meant for (`IP_RECVORIGDSTADDR`).
    pub listener: OwnedFd,
    /// Raw: answers come from that address.
    pub answers: OwnedFd,
}

/// A connection or a question that was not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    pub protocol: Protocol,
    /// `host:port`; of a question the name alone.
    pub target: String,
    /// What refused it.
    pub rule: String,
    /// The flag that would allow it: `--allow example.com`.
    pub hint: Option<String>,
}

/// What was seen of it when it was refused, or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Dns,
    Udp,
    Tcp,
    Tls,
    Http,
    /// Within TLS that ends in the proxy.
    Https,
    Socks,
}

impl Protocol {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks => "socks",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
