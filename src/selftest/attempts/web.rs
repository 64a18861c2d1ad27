//! TLS and HTTP: what is said to a server that may be reached.

use super::Attempt;
use crate::selftest::{
    bytes::{ENCRYPTED_HELLO, SERVER_NAME, get, hello, plain_hello},
    names::{ALLOWED, RETRY},
    probe::{Saw, say, say_in_turn, say_slowly},
};

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::new(2, "another name on the hello", |t| tls(443, &plain_hello(&other(t)))),
    Attempt::new(2, "another Host", |t| http(&get(t, &other(t)))),
    Attempt::new(2, "the allowed name on a hello to another's address", |t| {
        let marked = hello(Some(ALLOWED.as_bytes()), &[(0xfafa, t.as_bytes().to_vec())], 0, 16 << 10);
        Saw::answered(say("93.184.220.5:443", &marked))
    })
    .only(&["93.184.220.5"]),
    Attempt::new(2, "the allowed name as Host at another's address", |t| {
        Saw::answered(say("93.184.220.6:80", &get(t, ALLOWED)))
    })
    .only(&["93.184.220.6"]),
    Attempt::new(3, "another Host in a later request", |t| {
        Saw::answered(say_in_turn(&at(80), &[get("first", ALLOWED), get(t, &other(t))]))
    }),
    Attempt::new(3, "another Host in a request sent along", |t| {
        http(&[get("first", ALLOWED), get(t, &other(t))].concat())
    }),
    Attempt::new(3, "another Host behind a body", |t| {
        let first = format!("POST /first HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: 4\r\n\r\nbody").into_bytes();
        http(&[first, get(t, &other(t))].concat())
    }),
    Attempt::new(4, "no name", |t| tls(443, &hello(None, &[(0xfafa, t.as_bytes().to_vec())], 0, 16 << 10))),
    Attempt::new(4, "an empty name", |t| tls(443, &hello(Some(b""), &[(0xfafa, t.as_bytes().to_vec())], 0, 16 << 10))),
    Attempt::new(4, "a hidden name behind another", |t| {
        tls(443, &hello(Some(other(t).as_bytes()), &[(ENCRYPTED_HELLO, vec![0; 200])], 0, 16 << 10))
    }),
    Attempt::new(4, "a hidden name alone", |t| {
        let hidden = [&[0; 200], t.as_bytes()].concat();
        tls(443, &hello(None, &[(ENCRYPTED_HELLO, hidden)], 0, 16 << 10))
    }),
    Attempt::new(4, "two names", |t| {
        let second = [&[0, 17, 0, 0, 14][..], b"second.example"].concat();
        let both = [(SERVER_NAME, second), (0xfafa, t.as_bytes().to_vec())];
        tls(443, &hello(Some(ALLOWED.as_bytes()), &both, 0, 16 << 10))
    }),
    Attempt::new(5, "byte by byte", |t| Saw::answered(say_slowly(&at(443), &plain_hello(&other(t))))),
    Attempt::new(5, "in many records", |t| tls(443, &hello(Some(other(t).as_bytes()), &[], 0, 50))),
    Attempt::new(5, "in more than 16 KiB", |t| tls(443, &hello(Some(other(t).as_bytes()), &[], 20_000, 16 << 10))),
    Attempt::new(5, "in more than is looked at", |t| {
        let hello = hello(Some(other(t).as_bytes()), &[(1, vec![0; 60_000])], 5_000, 16 << 10);
        tls(443, &hello)
    }),
    Attempt::new(5, "on another port", |t| tls(8443, &plain_hello(&other(t)))),
    Attempt::new(5, "on a database's port", |t| tls(5432, &plain_hello(&other(t)))),
    Attempt::new(5, "on HTTP's port", |t| tls(80, &plain_hello(&other(t)))),
    Attempt::new(5, "in a second hello that the server asked for", |t| {
        Saw::answered(say_in_turn(&format!("{RETRY}:443"), &[plain_hello(RETRY), plain_hello(&other(t))]))
    }),
    Attempt::new(6, "a whole URL", |t| {
        request(&format!("GET http://{t}.example/{t} HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n"))
    }),
    Attempt::new(6, "two Hosts", |t| {
        request(&format!("GET /{t} HTTP/1.1\r\nHost: {ALLOWED}\r\nHost: {t}.example\r\n\r\n"))
    }),
    Attempt::new(6, "a Host over two lines", |t| {
        request(&format!("GET /{t} HTTP/1.1\r\nHost: {ALLOWED}\r\n {t}.example\r\n\r\n"))
    }),
    Attempt::new(6, "no Host", |t| request(&format!("GET /{t} HTTP/1.1\r\n\r\n"))),
    Attempt::new(6, "a space before the colon", |t| {
        request(&format!("GET /{t} HTTP/1.1\r\nHost : {t}.example\r\nHost: {ALLOWED}\r\n\r\n"))
    }),
    Attempt::new(6, "lines without a carriage return", |t| {
        request(&format!("GET /{t} HTTP/1.1\nHost: {t}.example\n\n\r\n\r\n"))
    }),
    Attempt::new(6, "a tunnel within", |t| {
        request(&format!("CONNECT {t}.example:443 HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n"))
    }),
    Attempt::new(6, "a tunnel within a tunnel", |t| {
        let outer = format!("CONNECT {ALLOWED}:80 HTTP/1.1\r\nHost: {ALLOWED}:80\r\n\r\n").into_bytes();
        let inner = format!("CONNECT {t}.example:443 HTTP/1.1\r\nHost: {t}.example:443\r\n\r\n").into_bytes();
        Saw::answered(say_in_turn("198.18.0.1:3128", &[outer, inner]))
    }),
    Attempt::new(6, "two lengths", |t| {
        request(&format!(
            "POST /{t} HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ))
    }),
    Attempt::new(6, "an odd coding", |t| {
        request(&format!(
            "POST /{t} HTTP/1.1\r\nHost: {ALLOWED}\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
        ))
    }),
    Attempt::new(6, "HTTP/2 by an upgrade", |t| {
        request(&format!("GET /{t} HTTP/1.1\r\nHost: {ALLOWED}\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"))
    }),
    Attempt::new(6, "HTTP/2 at once", |t| {
        http(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", t.as_bytes()].concat())
    }),
    Attempt::new(6, "a WebSocket behind another request", |t| {
        let upgrade =
            format!("GET /{t} HTTP/1.1\r\nHost: {ALLOWED}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        http(&[get("first", ALLOWED), upgrade.into_bytes()].concat())
    }),
    Attempt::new(29, "a head of 40 KiB", |t| {
        let long = "x".repeat(40 << 10);
        request(&format!("GET /first HTTP/1.1\r\nHost: {ALLOWED}\r\nA: {long}\r\nB: {t}\r\n\r\n"))
    }),
];

/// A name that is not allowed.
fn other(token: &str) -> String {
    format!("{token}.example")
}

fn at(port: u16) -> String {
    format!("{ALLOWED}:{port}")
}

fn tls(port: u16, hello: &[u8]) -> Saw {
    Saw::answered(say(&at(port), hello))
}

fn http(bytes: &[u8]) -> Saw {
    Saw::answered(say(&at(80), bytes))
}

fn request(text: &str) -> Saw {
    http(text.as_bytes())
}
