//! The list of ways around a filter, and what is tried of each.
//!
//! Each attempt has a token that is in everything it sends, so that whoever sees it knows whose it is; one that goes to an
//! address where nobody else goes is known by that, too.

mod kernel;
mod keys;
mod names;
mod network;
mod tightened;
mod web;

use std::net::IpAddr;

pub use self::tightened::wish;
use super::probe::Saw;

/// What the sandbox is allowed while it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    /// Two names.
    Names,
    /// Everything that can be allowed.
    Open,
    /// As `Names`, and the attempt is the first thing that the program does.
    Start,
    /// As `Open`, until it asks for less.
    Tightened,
    /// As `Names`, and to requests to some of them the proxy adds a key.
    Keys,
}

impl Under {
    pub const ALL: [Self; 5] = [Self::Names, Self::Open, Self::Start, Self::Tightened, Self::Keys];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Open => "open",
            Self::Start => "start",
            Self::Tightened => "tightened",
            Self::Keys => "keys",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub row: u8,
    pub what: &'static str,
    pub under: Under,
    pub work: fn(&str) -> Saw,
    /// Where nobody else goes.
    pub only: &'static [&'static str],
}

impl Attempt {
    const fn new(row: u8, what: &'static str, work: fn(&str) -> Saw) -> Self {
        Self { row, what, under: Under::Names, work, only: &[] }
    }

    const fn under(self, under: Under) -> Self {
        Self { under, ..self }
    }

    const fn only(self, only: &'static [&'static str]) -> Self {
        Self { only, ..self }
    }

    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.only.iter().filter_map(|text| text.parse().ok()).collect()
    }
}

/// In an order that never changes: the probe counts as we do.
#[must_use]
pub fn all() -> Vec<Attempt> {
    [network::ATTEMPTS, web::ATTEMPTS, names::ATTEMPTS, kernel::ATTEMPTS, tightened::ATTEMPTS, keys::ATTEMPTS].concat()
}

/// What becomes of a row beside its attempts.
#[derive(Debug, Clone, Copy)]
pub enum Row {
    /// What blocks it.
    Tried(&'static str),
    OutOfScope(&'static str),
}

/// The rows by number, from 1 on.
pub const ROWS: [(&str, Row); 30] = [
    ("an address instead of a name", Row::Tried("rules by name open no address")),
    ("an allowed name said to another server", Row::Tried("the proxy dials what the name itself resolves to")),
    ("another Host within a connection", Row::Tried("every request in cleartext is read; inside TLS nothing is seen")),
    (
        "TLS without a name, or with a hidden one",
        Row::Tried("a hello must have the name; keys for hidden ones are not answered"),
    ),
    ("a hello in pieces, too long, or on odd ports", Row::Tried("hellos are put together first, on every port")),
    ("requests that are read in two ways", Row::Tried("one strict reading, and refused otherwise")),
    ("odd names", Row::Tried("a name is read once, in one way")),
    ("names that look like a wildcard's", Row::Tried("whole labels are compared; the name itself is not below itself")),
    ("addresses in disguise", Row::Tried("a number is no name, and an address within another is that one")),
    (
        "an allowed name that leads to private addresses",
        Row::Tried("the address that is dialled is the one that was checked"),
    ),
    ("metadata services of clouds", Row::Tried("never reached, whatever is allowed")),
    ("a tunnel through DNS", Row::Tried("no question leaves the host")),
    ("one's own resolver", Row::Tried("all questions are answered by the gateway")),
    ("QUIC", Row::Tried("UDP is refused where the mode is not open")),
    ("other protocols and kinds of sockets", Row::Tried("the system call filter, and the gateway's rules")),
    ("IPv6", Row::Tried("there is none inside, and the gateway's rules refuse it")),
    (
        "fragments, options and extension headers",
        Row::Tried("what is not plain TCP or DNS over IPv4 ends at the gateway"),
    ),
    (
        "another's address, neighbours, the gateway's services",
        Row::Tried("a link of its own, and its source is checked"),
    ),
    ("Unix sockets and inherited descriptors", Row::Tried("namespaces, Landlock, and only three descriptors")),
    ("the host's loopback", Row::Tried("a network namespace of its own")),
    ("changing the filter from inside", Row::Tried("it is in a namespace that nothing inside owns")),
    ("sending before the filter is there", Row::Tried("rules are loaded before the link is up")),
    ("connections from before rules became tighter", Row::Tried("what new rules forbid is cut when they come")),
    (
        "being called back by way of an open connection",
        Row::Tried("nothing is forwarded, and no helper of conntrack is used"),
    ),
    ("sending data to an allowed host", Row::OutOfScope("an allowed host is a way out for data")),
    (
        "credentials that the proxy adds",
        Row::Tried("added within TLS alone, for the name itself, and masked in answers"),
    ),
    (
        "the proxy's own certificate authority",
        Row::Tried("a server is asked nothing before its certificate was checked"),
    ),
    ("sending mail", Row::Tried("its ports are open only where a rule names them")),
    ("wearing out the proxy", Row::Tried("connections, heads and hellos have limits")),
    (
        "covert channels by time, clock and caches",
        Row::OutOfScope("processes on one machine can always signal each other"),
    ),
];
