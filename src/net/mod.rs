//! The network of a sandbox: what it may reach, and the way there.

pub mod gateway;
pub mod policy;

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
