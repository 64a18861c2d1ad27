//! Names: what one is, whose it is, and where it leads.

use super::{Attempt, Under};
use crate::selftest::{
    bytes::{get, plain_hello, question, socks},
    names::{ALLOWED, WILD},
    probe::{Saw, ask, records, say},
};

/// Where the gateway's proxy is. Outside, it is one of the world's servers.
const PROXY: &str = "198.18.0.1:3128";

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::new(4, "keys for hidden names", |_| https_record()),
    Attempt::new(7, "a zero byte in a label", |t| resolved(&[format!("{t}\0{ALLOWED}").as_bytes(), b"example"])),
    Attempt::new(7, "a dot in a label", |t| resolved(&[format!("{t}.allowed").as_bytes(), b"example"])),
    Attempt::new(7, "a space in a label", |t| resolved(&[format!("{t} allowed").as_bytes(), b"wild", b"example"])),
    Attempt::new(7, "letters that only look alike", |t| {
        resolved(&[t.as_bytes(), "\u{430}llowed".as_bytes(), b"example"])
    }),
    Attempt::new(7, "SOCKS5 with a zero byte behind the allowed name", |t| {
        socks5(3, format!("{ALLOWED}\0.{t}.example").as_bytes(), t)
    }),
    Attempt::new(7, "SOCKS5 with a zero byte before the allowed name", |t| {
        socks5(3, format!("{t}.example\0.{ALLOWED}").as_bytes(), t)
    }),
    Attempt::new(7, "SOCKS5 with two dots at the end", |t| socks5(3, format!("{ALLOWED}..").as_bytes(), t)),
    Attempt::new(7, "SOCKS5 with a percent sign", |t| socks5(3, format!("{ALLOWED}%00.{t}.example").as_bytes(), t)),
    Attempt::new(7, "SOCKS5 with a name that is too long", |t| {
        socks5(3, format!("{}.{ALLOWED}", "a".repeat(239)).as_bytes(), t)
    }),
    Attempt::new(7, "CONNECT with a user before another name", |t| connect(&format!("{ALLOWED}@{t}.example:80"), t)),
    Attempt::new(7, "CONNECT with a zero byte", |t| connect(&format!("{ALLOWED}\0.{t}.example:80"), t)),
    Attempt::new(7, "a Host with a user before another name", |t| {
        Saw::answered(say(&format!("{ALLOWED}:80"), &get(t, &format!("{ALLOWED}@{t}.example"))))
    }),
    Attempt::new(7, "a hello with a zero byte in its name", |t| {
        Saw::answered(say(&format!("{ALLOWED}:443"), &plain_hello(&format!("{ALLOWED}\0.{t}.example"))))
    }),
    Attempt::new(8, "a name that ends as the wildcard's do", |t| by_name(&format!("evil{WILD}"), t)),
    Attempt::new(8, "the wildcard's own name", |t| by_name(WILD, t)),
    Attempt::new(8, "a name above it", |t| by_name("example", t)),
    Attempt::new(8, "the wildcard within another name", |t| by_name(&format!("a.{WILD}.{t}.example"), t)),
    Attempt::new(8, "below a name that has no wildcard", |t| by_name(&format!("{t}.{ALLOWED}"), t)),
    Attempt::new(9, "hexadecimal", |t| socks5(3, b"0x5db8dc09", t)),
    Attempt::new(9, "a long number", |t| by_name("1572396041", t)).only(&["93.184.220.9"]),
    Attempt::new(9, "octal", |t| by_name("0135.0270.0334.012", t)).only(&["93.184.220.10"]),
    Attempt::new(9, "fewer numbers", |t| by_name("93.12114955", t)).only(&["93.184.220.11"]),
    Attempt::new(9, "within an address of IPv6", |t| Saw::answered(say("[::ffff:93.184.220.12]:80", &get(t, "a"))))
        .only(&["93.184.220.12"]),
    Attempt::new(9, "SOCKS5 for a private address within one of IPv6", |t| {
        socks5(4, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 9, 9, 20], t)
    })
    .under(Under::Open)
    .only(&["10.9.9.20"]),
    Attempt::new(9, "SOCKS5 for one behind a translator", |t| {
        socks5(4, &[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 10, 9, 9, 21], t)
    })
    .under(Under::Open)
    .only(&["64:ff9b::a09:915"]),
    Attempt::new(9, "SOCKS5 for one behind 6to4", |t| {
        socks5(4, &[0x20, 2, 10, 9, 9, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], t)
    })
    .under(Under::Open)
    .only(&["2002:a09:916::1"]),
    Attempt::new(9, "SOCKS5 for one behind Teredo", |t| {
        socks5(4, &[0x20, 1, 0, 0, 10, 9, 9, 23, 0, 0, 0, 0, 0, 0, 0, 1], t)
    })
    .under(Under::Open)
    .only(&["2001:0:a09:917::1"]),
    Attempt::new(9, "CONNECT to a number with everything allowed", |t| connect("0x0a090918:80", t))
        .under(Under::Open)
        .only(&["10.9.9.24"]),
    Attempt::new(10, "a private address", |t| by_name("private.wild.example", t)).only(&["10.9.9.9"]),
    Attempt::new(10, "a shared address", |t| by_name("shared.wild.example", t)).only(&["100.64.9.9"]),
    Attempt::new(10, "the host's loopback", |t| by_name("loopback.wild.example", t)).only(&["127.9.9.9"]),
    Attempt::new(10, "a link-local address", |t| by_name("link.wild.example", t)).only(&["169.254.9.9"]),
    Attempt::new(10, "a metadata service", |t| by_name("metadata.wild.example", t)),
    Attempt::new(10, "the host's own address", |t| by_name("host.wild.example", t)),
    Attempt::new(10, "a private address within one of IPv6", |t| by_name("mapped.wild.example", t))
        .only(&["10.9.9.10"]),
    Attempt::new(10, "a private address behind a translator", |t| by_name("translated.wild.example", t))
        .only(&["64:ff9b::a09:90b"]),
    Attempt::new(10, "a private address behind a tunnel", |t| by_name("tunnel.wild.example", t))
        .only(&["2002:a09:90c::1"]),
    Attempt::new(10, "a private address of IPv6", |t| by_name("unique.wild.example", t)).only(&["fd00::9"]),
];

/// By the system's resolver.
fn by_name(name: &str, token: &str) -> Saw {
    Saw::answered(say(&format!("{name}:80"), &get(token, name)))
}

/// Whether there is an answer for such a name, or the question got out.
fn resolved(labels: &[&[u8]]) -> Saw {
    match ask("93.184.215.53:53", &question(labels, 1)).map(|answer| records(&answer)) {
        Ok(Some((0, 1..))) => Saw::Through("it has an address".to_owned()),
        Ok(Some((code, _))) => Saw::Kept(format!("answered with code {code}")),
        Ok(None) => Saw::Kept("no answer".to_owned()),
        Err(error) => Saw::answered(Err(error)),
    }
}

fn https_record() -> Saw {
    const HTTPS: u16 = 65;
    let labels: Vec<&[u8]> = ALLOWED.split('.').map(str::as_bytes).collect();
    match ask("93.184.215.53:53", &question(&labels, HTTPS)).map(|answer| records(&answer)) {
        Ok(Some((_, 1..))) => Saw::Through("there are keys".to_owned()),
        Ok(_) => Saw::Kept("none is answered".to_owned()),
        Err(error) => Saw::answered(Err(error)),
    }
}

fn socks5(kind: u8, host: &[u8], token: &str) -> Saw {
    let said = [socks(kind, host, 80), get(token, ALLOWED)].concat();
    Saw::answered(say(PROXY, &said))
}

fn connect(authority: &str, token: &str) -> Saw {
    let said = format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\nGET /{token} HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n"
    );
    Saw::answered(say(PROXY, said.as_bytes()))
}
