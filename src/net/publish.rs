//! Ports of a sandbox that are opened on the host: `[ADDRESS:][HOSTPORT:]PORT`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::{
    NetError,
    policy::{address::literal, port},
};

/// One port, and where on the host it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    pub address: IpAddr,
    /// 0: any that is free.
    pub host_port: u16,
    /// The sandbox's.
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {why}")]
pub struct PublishError {
    text: String,
    why: &'static str,
}

impl crate::error::Hint for PublishError {
    fn hint(&self) -> Option<String> {
        Some("as in 8080, 8080:80, 0:80 for any free port, or 127.0.0.1:8080:80".to_owned())
    }
}

impl FromStr for Publish {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        let bad = |why| PublishError { text: text.to_owned(), why };
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        if protocol != "tcp" {
            return Err(bad("only ports of TCP are published"));
        }
        let (before, inside) = ports.rsplit_once(':').map_or((None, ports), |(before, inside)| (Some(before), inside));
        let inside = port(inside).ok_or_else(|| bad("its last part is no port"))?;
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let host_port = |text: &str| match text {
            "" | "0" => Ok(0),
            text => port(text).ok_or_else(|| bad("the host's port is none")),
        };
        let (address, host_port) = match before {
            None => (loopback, inside),
            Some(before) => match (literal(before), before.rsplit_once(':')) {
                (Some(address), _) => (address, inside),
                (None, Some((address, port))) => {
                    (literal(address).ok_or_else(|| bad("its first part is no address"))?, host_port(port)?)
                }
                (None, None) => (loopback, host_port(before)?),
            },
        };
        Ok(Self { address, host_port, port: inside })
    }
}

impl Publish {
    #[must_use]
    pub fn at(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.host_port)
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.at(), self.port)
    }
}

/// Ports that are taken on the host, in the calling thread's network namespace; nobody answers yet.
#[derive(Debug, Default)]
pub struct Published {
    listeners: Vec<TcpListener>,
    /// As they came to be.
    pub ports: Vec<Publish>,
}

impl Published {
    pub fn take(wanted: &[Publish]) -> Result<Self, NetError> {
        let mut taken = Self::default();
        for publish in wanted {
            let failed = |source| NetError::Publish { publish: *publish, source };
            let listener = TcpListener::bind(publish.at()).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            let host_port = listener.local_addr().map_err(failed)?.port();
            taken.ports.push(Publish { host_port, ..*publish });
            taken.listeners.push(listener);
        }
        Ok(taken)
    }

    /// The listeners, with what each is for.
    pub(super) fn listeners(self) -> impl Iterator<Item = (TcpListener, Publish)> {
        self.listeners.into_iter().zip(self.ports)
    }
}

/// Published ports and the way to them.
#[derive(Debug)]
pub struct Inward {
    pub published: Published,
    /// Gives a socket in the gateway's namespace for each byte that it is sent.
    pub sockets: OwnedFd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_on_loopback_unless_an_address_is_named() {
        for (text, shown) in [
            ("80", "127.0.0.1:80:80"),
            ("8080:80", "127.0.0.1:8080:80"),
            ("0:80", "127.0.0.1:0:80"),
            (":80", "127.0.0.1:0:80"),
            ("80/tcp", "127.0.0.1:80:80"),
            ("0.0.0.0:80", "0.0.0.0:80:80"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80"),
            ("127.0.0.1::80", "127.0.0.1:0:80"),
            ("[::1]:80", "[::1]:80:80"),
            ("[::1]:8080:80", "[::1]:8080:80"),
        ] {
            assert_eq!(text.parse::<Publish>().unwrap().to_string(), shown, "{text}");
        }
        for bad in [
            "",
            "0",
            "a",
            "80:",
            "80:0",
            "65536",
            "x:80",
            "1.2.3:80:80",
            "80/udp",
            "::1:80:80",
            "1:2:3",
            "-1",
            " 80",
            "80:80:80:80",
        ] {
            assert!(bad.parse::<Publish>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_in_use_is_an_error_and_what_is_free_is_found() {
        let any: Publish = "0:80".parse().unwrap();
        let taken = Published::take(&[any]).unwrap();
        let port = taken.ports[0].host_port;
        assert_ne!(port, 0);
        let again = Publish { host_port: port, ..any };
        let error = crate::error::Hint::into_error(Published::take(&[again]).unwrap_err());
        assert!(error.message().contains(&format!("127.0.0.1:{port}")), "{error}");
        assert!(error.hint().unwrap().contains("0:80"), "{error:?}");
    }
}
