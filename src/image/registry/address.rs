//! Which addresses may be asked. A registry on the Internet must not have us ask, in its place, what only this machine
//! or its network can reach: services on loopback, the cloud's metadata server.
//!
//! Names are resolved here and what they resolve to is what is connected to, so a name that changes its mind between
//! the check and the use changes nothing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, OnceLock},
};

use ureq::{
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

/// From where an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Public,
    Private,
    LinkLocal,
    Loopback,
}

impl Reach {
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_four(address),
            IpAddr::V6(address) => of_six(address),
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Loopback => "loopback",
        }
    }
}

/// Whatever is not plainly for all of the Internet counts as private (IANA's registries of special addresses).
fn of_four(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [127 | 0, ..] => Reach::Loopback,
        [169, 254, ..] => Reach::LinkLocal,
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => Reach::Private,
        [192, 0, 0 | 2, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] | [224..=255, ..] => {
            Reach::Private
        }
        _ => Reach::Public,
    }
}

fn of_six(address: Ipv6Addr) -> Reach {
    let parts = address.segments();
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        of_four(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Reach::Loopback,
        // Addresses of four parts in several disguises: mapped, compatible, translated (NAT64), 6to4.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] => four(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
        [0x2002, high, low, ..] => four(high, low),
        [0xfe80..=0xfebf, ..] => Reach::LinkLocal,
        // Global unicast, but for Teredo and other protocols' own, and documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] => Reach::Private,
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Private,
    }
}

/// From where the registry itself can be reached, once that is known.
#[derive(Debug, Clone, Default)]
pub struct Home(Arc<OnceLock<Reach>>);

impl Home {
    /// Whether what this registry names may be asked.
    #[must_use]
    pub fn allows(&self, other: Reach) -> bool {
        other == Reach::Public || self.0.get().is_some_and(|home| *home == other)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{host} is at {address}, a {reach} address, where the registry is not", reach = Reach::of(*address).name())]
pub struct Refused {
    pub host: String,
    pub address: IpAddr,
}

/// Resolves the registry's own name, or names that it told.
#[derive(Debug)]
pub struct Guard {
    pub home: Home,
    pub own: bool,
    pub resolver: DefaultResolver,
}

impl Resolver for Guard {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = self.resolver.resolve(uri, config, timeout)?;
        if self.own {
            // The first answer is whom the user named; later ones must not lead further inwards.
            let reaches = || addresses.iter().map(|address| Reach::of(address.ip()));
            self.home.0.get_or_init(|| reaches().find(|reach| *reach != Reach::Public).unwrap_or(Reach::Public));
        }
        let mut allowed = self.resolver.empty();
        for address in addresses.iter().filter(|address| self.home.allows(Reach::of(address.ip()))) {
            allowed.push(*address);
        }
        match addresses.first() {
            Some(address) if allowed.is_empty() => {
                let host = uri.host().unwrap_or_default().to_owned();
                Err(ureq::Error::Other(Box::new(Refused { host, address: address.ip() })))
            }
            _ => Ok(allowed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_inwards_is_known() {
        for (text, reach) in [
            ("8.8.8.8", Reach::Public),
            ("172.15.0.1", Reach::Public),
            ("2606:4700::1", Reach::Public),
            ("2002:808:808::1", Reach::Public),
            ("127.8.9.1", Reach::Loopback),
            ("0.0.0.0", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("::", Reach::Loopback),
            ("::ffff:127.0.0.1", Reach::Loopback),
            ("64:ff9b::7f00:1", Reach::Loopback),
            ("169.254.169.254", Reach::LinkLocal),
            ("::ffff:169.254.169.254", Reach::LinkLocal),
            ("fe80::1", Reach::LinkLocal),
            ("10.0.0.1", Reach::Private),
            ("172.31.255.255", Reach::Private),
            ("192.168.1.1", Reach::Private),
            ("100.64.0.1", Reach::Private),
            ("2002:a00:1::", Reach::Private),
            ("fd00:ec2::254", Reach::Private),
            ("2001::1", Reach::Private),
            ("224.0.0.1", Reach::Private),
            ("255.255.255.255", Reach::Private),
            ("ff02::1", Reach::Private),
        ] {
            assert_eq!(Reach::of(text.parse().unwrap()), reach, "{text}");
        }
    }

    #[test]
    fn a_registry_leads_outwards_or_stays() {
        let home = |reach| {
            let home = Home::default();
            home.0.set(reach).unwrap();
            home
        };
        assert!(home(Reach::Public).allows(Reach::Public) && !home(Reach::Public).allows(Reach::Private));
        assert!(home(Reach::Loopback).allows(Reach::Loopback) && home(Reach::Loopback).allows(Reach::Public));
        assert!(!home(Reach::Private).allows(Reach::Loopback) && !home(Reach::Private).allows(Reach::LinkLocal));
        assert!(!Home::default().allows(Reach::Loopback));
    }
}
