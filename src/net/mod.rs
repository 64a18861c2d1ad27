//! The sandbox's network.

pub mod gateway;

use std::os::fd::OwnedFd;

/// Sockets made inside the gateway namespace.
#[derive(Debug)]
pub struct Listeners {
    /// All TCP that was redirected; SO_ORIGINAL_DST tells the destination.
    pub tcp: OwnedFd,
    pub dns_udp: OwnedFd,
    pub dns_tcp: OwnedFd,
    /// For programs that know of proxies.
    pub explicit: OwnedFd,
}
