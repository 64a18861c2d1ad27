//! The world's name server: everything exists, and much of it leads where no sandbox may go.

use std::net::IpAddr;

/// What the filter is told to allow: this name, and those below the other.
pub const ALLOWED: &str = "allowed.example";
pub const WILD: &str = "wild.example";
/// Its server asks for a second hello.
pub const RETRY: &str = "retry.wild.example";
/// To these the proxy adds a key. Only the first one's server has a certificate that is one.
pub const KEYED: [&str; 4] =
    ["good.keys.example", "nobodys.keys.example", "anothers.keys.example", "ended.keys.example"];
/// Where names are that nobody has heard of.
pub const ELSEWHERE: &str = "93.184.220.250";

/// Names, and their addresses.
const ZONE: [(&str, &str); 19] = [
    (ALLOWED, "93.184.215.14"),
    (RETRY, "93.184.215.15"),
    (KEYED[0], "93.184.215.16"),
    (KEYED[1], "93.184.215.17"),
    (KEYED[2], "93.184.215.18"),
    (KEYED[3], "93.184.215.19"),
    ("private.wild.example", "10.9.9.9"),
    ("shared.wild.example", "100.64.9.9"),
    ("loopback.wild.example", "127.9.9.9"),
    ("link.wild.example", "169.254.9.9"),
    ("metadata.wild.example", "169.254.169.254"),
    ("host.wild.example", "5.5.5.1"),
    ("mapped.wild.example", "::ffff:10.9.9.10"),
    ("translated.wild.example", "64:ff9b::a09:90b"),
    ("tunnel.wild.example", "2002:a09:90c::1"),
    ("unique.wild.example", "fd00::9"),
    ("metadata.google.internal", "169.254.169.254"),
    ("dns.google", "8.8.4.4"),
    ("mail.example", "93.184.220.28"),
];

const TYPE_A: u16 = 1;
const TYPE_TXT: u16 = 16;
const TYPE_AAAA: u16 = 28;
const TYPE_HTTPS: u16 = 65;

/// Where a name of the zone leads.
pub fn address(name: &str) -> Option<IpAddr> {
    ZONE.iter().find(|(known, _)| *known == name).and_then(|(_, to)| to.parse().ok())
}

/// The name that a question is for, and its answer.
pub fn answer(question: &[u8]) -> Option<(String, Vec<u8>)> {
    const HEADER: usize = 12;
    let mut labels = Vec::new();
    let mut at = HEADER;
    while let length @ 1..64 = usize::from(*question.get(at)?) {
        labels.push(String::from_utf8_lossy(question.get(at + 1..at + 1 + length)?).to_lowercase());
        at += 1 + length;
    }
    let kind = u16::from_be_bytes(question.get(at + 1..at + 3)?.try_into().ok()?);
    let end = at + 5;
    let asked = question.get(HEADER..end)?;
    let name = labels.join(".");
    let address = address(&name).or_else(|| ELSEWHERE.parse().ok())?;
    let data = match (kind, address) {
        (TYPE_A, IpAddr::V4(v4)) => v4.octets().to_vec(),
        (TYPE_AAAA, IpAddr::V6(v6)) => v6.octets().to_vec(),
        (TYPE_TXT, _) => b"\x04leak".to_vec(),
        // Priority 1, the name itself, and keys for an encrypted hello.
        (TYPE_HTTPS, _) => b"\0\x01\0\0\x05\0\x04leak".to_vec(),
        _ => Vec::new(),
    };
    let mut reply = question.get(..2)?.to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
    reply.extend(asked);
    if !data.is_empty() {
        reply.extend([0xc0, HEADER as u8]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 0]);
        reply.extend((data.len() as u16).to_be_bytes());
        reply.extend(data);
    }
    Some((name, reply))
}
