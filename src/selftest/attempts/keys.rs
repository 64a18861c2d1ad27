//! Credentials that the proxy adds, and the servers that it adds them for: who is inside wants to see them, and a server
//! that is another than it says wants to be asked.
//!
//! Without a sandbox the program adds the key itself, or nobody would.

use std::io::{self, Read, Write};

use super::{Attempt, Under};
use crate::selftest::{
    bytes::{OK, get},
    keys::{END, HEADER, SEEN, key},
    names::{ALLOWED, KEYED},
    probe::{Saw, connect, is_inside, salt},
    tls,
};

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::new(26, "said back in a body", |t| said_back("body", t)).under(Under::Keys),
    Attempt::new(26, "said back in a header", |t| said_back("header", t)).under(Under::Keys),
    Attempt::new(26, "said back in pieces", |t| said_back("pieces", t)).under(Under::Keys),
    Attempt::new(26, "asked for in cleartext", |t| saw(t, clear(&format!("{}:80", KEYED[0]), KEYED[0], t)))
        .under(Under::Keys),
    Attempt::new(26, "asked for in cleartext, on another port", |t| {
        saw(t, clear(&format!("{}:8080", KEYED[0]), KEYED[0], t))
    })
    .under(Under::Keys),
    Attempt::new(26, "asked for by another allowed name", |t| saw(t, clear(&format!("{ALLOWED}:80"), ALLOWED, t)))
        .under(Under::Keys),
    Attempt::new(26, "for another Host on the same connection", |t| {
        Saw::answered(secured(KEYED[0], &get(t, &format!("{t}.example"))))
    })
    .under(Under::Keys),
    Attempt::new(27, "a server with a certificate of nobody's", |t| asked(KEYED[1], t)).under(Under::Keys),
    Attempt::new(27, "a server with another's certificate", |t| asked(KEYED[2], t)).under(Under::Keys),
    Attempt::new(27, "a server with a certificate of long ago", |t| asked(KEYED[3], t)).under(Under::Keys),
];

fn said_back(how: &str, token: &str) -> Saw {
    let heard = secured(KEYED[0], &request(how, KEYED[0], token));
    match &heard {
        // Only who was shown one says something back.
        Ok(all) if !has(all, END) => Saw::Impossible("no key was added".to_owned()),
        _ => saw(token, heard),
    }
}

fn asked(name: &str, token: &str) -> Saw {
    Saw::answered(secured(name, &get(token, name)))
}

fn request(path: &str, host: &str, token: &str) -> Vec<u8> {
    let own = if is_inside() { String::new() } else { format!("{HEADER}: {}\r\n", key(salt(token))) };
    format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n{own}\r\n").into_bytes()
}

/// Whoever answers is believed to be who they say.
fn secured(name: &str, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = tls::begin(connect(&format!("{name}:443"))?, name)?;
    stream.write_all(request)?;
    to_the_end(&mut stream)
}

fn clear(to: &str, host: &str, token: &str) -> io::Result<Vec<u8>> {
    let mut stream = connect(to)?;
    stream.write_all(&request("body", host, token))?;
    to_the_end(&mut stream)
}

fn to_the_end(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while !has(&all, END) && all != OK {
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => all.extend(&buffer[..length]),
            Err(error) if all.is_empty() => return Err(error),
            _ => break,
        }
    }
    Ok(all)
}

fn has(all: &[u8], what: &[u8]) -> bool {
    all.windows(what.len()).any(|part| part == what)
}

fn saw(token: &str, heard: io::Result<Vec<u8>>) -> Saw {
    let key = key(salt(token));
    // In pieces it comes with their lengths between.
    let joined = |all: &[u8]| String::from_utf8_lossy(all).replace("\r\n1\r\n", "");
    match &heard {
        Ok(all) if joined(all).contains(&key) => Saw::Through("the key was seen inside".to_owned()),
        Ok(all) if has(all, SEEN) => Saw::Through("the key was sent in cleartext".to_owned()),
        _ => Saw::answered(heard),
    }
}
