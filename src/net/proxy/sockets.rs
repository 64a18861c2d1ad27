//! The sockets at which the sandbox's packets end, as the proxy has them.

use std::{
    ffi::OsString,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{setsockopt, sockopt},
};
use tokio::net::{TcpListener, UdpSocket};

use super::stream::prepare;
use crate::net::Listeners;

/// The listeners, within the runtime.
pub(super) struct Sockets {
    pub tcp: TcpListener,
    pub dns: Vec<(UdpSocket, TcpListener)>,
    pub explicit: TcpListener,
    pub udp: Option<(UdpSocket, OwnedFd)>,
}

impl Sockets {
    /// All that the sandbox's packets can come to.
    pub fn all(&self) -> Vec<RawFd> {
        let dns = self.dns.iter().flat_map(|(udp, tcp)| [udp.as_raw_fd(), tcp.as_raw_fd()]);
        let udp = self.udp.iter().map(|(udp, _)| udp.as_raw_fd());
        [self.tcp.as_raw_fd(), self.explicit.as_raw_fd()].into_iter().chain(dns).chain(udp).collect()
    }
}

impl TryFrom<Listeners> for Sockets {
    type Error = std::io::Error;

    fn try_from(listeners: Listeners) -> std::io::Result<Self> {
        let waiting = |fd: OwnedFd| -> std::io::Result<OwnedFd> {
            let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
            fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
            Ok(fd)
        };
        let listener = |fd| TcpListener::from_std(waiting(fd)?.into());
        for clients in [&listeners.tcp, &listeners.explicit] {
            prepare(clients)?;
            // Inherited by what is accepted. The link loses nothing and is nobody else's: to feel for its speed, as the
            // host's own way may do, only slows it down. Always there, and allowed to anybody.
            setsockopt(clients, sockopt::TcpCongestion, &OsString::from("reno"))?;
        }
        Ok(Self {
            tcp: listener(listeners.tcp)?,
            dns: [
                Some((listeners.dns_udp, listeners.dns_tcp)),
                listeners.within.map(|within| (within.udp, within.tcp)),
            ]
            .into_iter()
            .flatten()
            .map(|(udp, tcp)| {
                // It is told at which address it was asked.
                setsockopt(&udp, sockopt::Ipv4PacketInfo, &true)?;
                Ok((UdpSocket::from_std(waiting(udp)?.into())?, listener(tcp)?))
            })
            .collect::<std::io::Result<_>>()?,
            explicit: listener(listeners.explicit)?,
            udp: match listeners.udp {
                Some(udp) => Some((UdpSocket::from_std(waiting(udp.listener)?.into())?, waiting(udp.answers)?)),
                None => None,
            },
        })
    }
}
