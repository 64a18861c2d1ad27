//! Which addresses are nobody's business: those that are not a public host on the internet.
//!
//! An address is judged by what a packet to it would reach, so one that embeds another (v4-mapped, NAT64) is judged as
//! that other. Of IPv6 only global unicast remains, without its tunnels and special parts: what is not known is denied.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::LazyLock,
};

/// What an address is that no sandbox may reach unless it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    Loopback,
    Private,
    CarrierNat,
    LinkLocal,
    Metadata,
    Multicast,
    Reserved,
    /// Of the host that the proxy runs on.
    Own,
}

impl Special {
    /// Whether `--allow-private NAME:PORT` opens it where the name has it. What serves credentials to whoever asks,
    /// or is no host, has to be named by address.
    #[must_use]
    pub fn opens_by_name(self) -> bool {
        matches!(self, Self::Loopback | Self::Private | Self::CarrierNat | Self::Own)
    }
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback addresses",
            Self::Private => "private addresses",
            Self::CarrierNat => "carrier-grade NAT addresses",
            Self::LinkLocal => "link-local addresses",
            Self::Metadata => "cloud metadata addresses",
            Self::Multicast => "multicast addresses",
            Self::Reserved => "reserved addresses",
            Self::Own => "the host's own addresses",
        })
    }
}

const V4: [(&str, Special); 20] = [
    ("169.254.169.254/32", Special::Metadata), // nearly every cloud
    ("169.254.170.2/32", Special::Metadata),   // ECS
    ("168.63.129.16/32", Special::Metadata),   // Azure
    ("100.100.100.200/32", Special::Metadata), // Alibaba
    ("192.0.0.192/32", Special::Metadata),     // Oracle
    ("0.0.0.0/8", Special::Reserved),
    ("10.0.0.0/8", Special::Private),
    ("100.64.0.0/10", Special::CarrierNat),
    ("127.0.0.0/8", Special::Loopback),
    ("169.254.0.0/16", Special::LinkLocal),
    ("172.16.0.0/12", Special::Private),
    ("192.0.0.0/24", Special::Reserved),
    ("192.0.2.0/24", Special::Reserved),
    ("192.88.99.0/24", Special::Reserved),
    ("192.168.0.0/16", Special::Private),
    ("198.18.0.0/15", Special::Reserved),
    ("198.51.100.0/24", Special::Reserved),
    ("203.0.113.0/24", Special::Reserved),
    ("224.0.0.0/4", Special::Multicast),
    ("240.0.0.0/4", Special::Reserved),
];

const V6: [(&str, Special); 11] = [
    ("fd00:ec2::254/128", Special::Metadata), // AWS
    ("fd20:ce::254/128", Special::Metadata),  // Google
    ("::1/128", Special::Loopback),
    ("fc00::/7", Special::Private),
    ("fe80::/10", Special::LinkLocal),
    ("fec0::/10", Special::Private),
    ("ff00::/8", Special::Multicast),
    ("2001::/23", Special::Reserved), // Teredo among others
    ("2001:db8::/32", Special::Reserved),
    ("2002::/16", Special::Reserved), // 6to4
    ("3fff::/20", Special::Reserved),
];

type Table = Vec<(Cidr, Special)>;

/// Both, read once: each connection asks.
static READ: LazyLock<[Table; 2]> = LazyLock::new(|| [read(&V4), read(&V6)]);

fn read(table: &[(&str, Special)]) -> Table {
    // A test parses all of them.
    table.iter().filter_map(|(range, what)| Some((range.parse().ok()?, *what))).collect()
}

/// As a packet to it would be sent: an IPv4 address in IPv6 clothes is the IPv4 address.
#[must_use]
pub fn normal(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// `None`: an address of the public internet.
#[must_use]
pub fn special(address: IpAddr) -> Option<Special> {
    let within = |table: &Table, address| table.iter().find(|row| row.0.contains(address)).map(|row| row.1);
    match normal(address) {
        IpAddr::V4(v4) => within(&READ[0], IpAddr::V4(v4)),
        IpAddr::V6(v6) => {
            // NAT64, by which hosts without IPv4 reach it.
            if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = v6.segments() {
                return special(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into());
            }
            let global = v6.segments()[0] & 0xe000 == 0x2000;
            within(&READ[1], IpAddr::V6(v6)).or((!global).then_some(Special::Reserved))
        }
    }
}

/// Addresses with a common beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    first: IpAddr,
    bits: u8,
}

impl Cidr {
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, normal(address)) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                (first.to_bits() ^ address.to_bits()).checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                (first.to_bits() ^ address.to_bits()).checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// Why no address of it can ever be reached by it, where that is so.
    #[must_use]
    pub fn all_special(&self) -> Option<Special> {
        let table = &READ[usize::from(self.first.is_ipv6())];
        let covers = |range: &Self| range.bits <= self.bits && range.contains(self.first);
        let listed = table.iter().find(|(range, _)| covers(range)).map(|row| row.1);
        listed.or_else(|| special(self.first).filter(|_| self.is_one()))
    }

    fn is_one(&self) -> bool {
        self.bits == if self.first.is_ipv4() { 32 } else { 128 }
    }
}

impl FromStr for Cidr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let written: IpAddr = address.parse().map_err(|_| "it is no address")?;
        let first = normal(written);
        if first != written && bits.is_some() {
            return Err("ranges of IPv4 are written as IPv4");
        }
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.len() <= 3 && bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or("it has more bits than an address")?
            }
            Some(_) => return Err("after `/` comes a number of bits"),
        };
        let beyond = match first {
            IpAddr::V4(first) => first.to_bits().checked_shl(bits.into()).unwrap_or(0) != 0,
            IpAddr::V6(first) => first.to_bits().checked_shl(bits.into()).unwrap_or(0) != 0,
        };
        if beyond {
            return Err("the address has bits set beyond its range");
        }
        Ok(Self { first, bits })
    }
}

impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Self {
        let first = normal(address);
        Self { first, bits: if first.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_one() { write!(f, "{}", self.first) } else { write!(f, "{}/{}", self.first, self.bits) }
    }
}

/// An address as a program writes it, in the one spelling that every resolver reads alike.
#[must_use]
pub fn literal(text: &str) -> Option<IpAddr> {
    let v6 = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(|address| normal(address.into())),
        None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Special> {
        special(text.parse().unwrap())
    }

    #[test]
    fn bypass_09_addresses_in_clothes_are_judged_as_what_they_are() {
        for (text, what) in [
            ("::ffff:127.0.0.1", Special::Loopback),
            ("::ffff:7f00:1", Special::Loopback),
            ("::ffff:10.1.2.3", Special::Private),
            ("::ffff:169.254.169.254", Special::Metadata),
            ("64:ff9b::a9fe:a9fe", Special::Metadata),
            ("64:ff9b::127.0.0.1", Special::Loopback),
            ("64:ff9b:1::1", Special::Reserved),
            ("::127.0.0.1", Special::Reserved),
            ("::", Special::Reserved),
            ("2002:7f00:1::1", Special::Reserved),
            ("2001:0:7f00:1::1", Special::Reserved),
            ("::ffff:0:127.0.0.1", Special::Reserved),
        ] {
            assert_eq!(of(text), Some(what), "{text}");
        }
        assert_eq!(of("::ffff:8.8.8.8"), None);
        assert_eq!(of("64:ff9b::8.8.8.8"), None);
        for none in
            ["0x7f.1", "2130706433", "127.1", "0177.0.0.1", "::1", "[127.0.0.1]", "[::1", "1.2.3.4 ", "01.2.3.4"]
        {
            assert_eq!(literal(none), None, "{none}");
        }
        assert_eq!(literal("[::ffff:127.0.0.1]"), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn bypass_11_metadata_of_every_cloud_is_known() {
        for text in [
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:a9fe:a9fe",
        ] {
            assert_eq!(of(text), Some(Special::Metadata), "{text}");
            assert!(!Special::Metadata.opens_by_name());
        }
    }

    #[test]
    fn only_the_public_internet_is_not_special() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::1",
            "fc00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001:10::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "100::1",
        ] {
            assert!(of(text).is_some(), "{text}");
        }
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn every_row_of_the_tables_is_a_range() {
        for (text, _) in V4.iter().chain(&V6) {
            assert!(text.parse::<Cidr>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_range_holds_what_begins_alike() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(cidr("0.0.0.0/0").contains(ip("8.8.8.8")));
        assert!(!cidr("0.0.0.0/0").contains(ip("2606::1")));
        assert!(cidr("::/0").contains(ip("2606::1")));
        assert!(cidr("8.8.8.0/24").contains(ip("::ffff:8.8.8.8")));
        assert!(!cidr("8.8.8.0/24").contains(ip("8.8.9.8")));
        assert_eq!(cidr("8.8.8.8").to_string(), "8.8.8.8");
        assert_eq!(cidr("2606::/16").to_string(), "2606::/16");
        for none in ["8.8.8.8/24", "8.8.8.0/33", "8.8.8.0/", "8.8.8.0/+24", "8.8.8/24", "::ffff:8.8.8.0/120", "a/8"] {
            assert!(none.parse::<Cidr>().is_err(), "{none}");
        }
        assert_eq!(cidr("10.1.0.0/16").all_special(), Some(Special::Private));
        assert_eq!(cidr("::1").all_special(), Some(Special::Loopback));
        assert_eq!(cidr("8.0.0.0/5").all_special(), None);
    }
}
