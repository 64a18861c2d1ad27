//! Connections that are open when the rules are made tighter: whether they go on.

use std::{
    io::{self, Write},
    net::{TcpStream, UdpSocket},
    sync::{Mutex, OnceLock, PoisonError},
    thread::sleep,
    time::Duration,
};

use super::{Attempt, Under};
use crate::selftest::{
    bytes::{get, plain_hello},
    names::ALLOWED,
    probe::{Saw, connect, is_inside, read, salt, say_other},
};

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::new(23, "a connection", |t| goes_on(t, |open| &mut open.plain, format!("\0{t}").as_bytes()))
        .under(Under::Tightened),
    Attempt::new(23, "another request", |t| goes_on(t, |open| &mut open.http, &get(t, ALLOWED)))
        .under(Under::Tightened),
    Attempt::new(23, "a connection of TLS", |t| goes_on(t, |open| &mut open.tls, &said_in_tls(t)))
        .under(Under::Tightened),
    Attempt::new(23, "datagrams", |t| {
        let sent = with_open(t, |open| open.datagrams.send(t.as_bytes()).map(|_| Vec::new()));
        Saw::answered(sent)
    })
    .under(Under::Tightened),
];

/// Who sees this makes the rules tighter.
#[must_use]
pub fn wish(salt: &str) -> String {
    format!("tighten-{salt}")
}

#[derive(Debug)]
struct Open {
    plain: TcpStream,
    http: TcpStream,
    tls: TcpStream,
    datagrams: UdpSocket,
}

impl Open {
    /// Each is used once, so that it stands, and then there are other rules.
    fn make(token: &str) -> io::Result<Self> {
        let wish = wish(salt(token));
        let mut plain = connect(&format!("{ALLOWED}:9999"))?;
        let mut http = connect(&format!("{ALLOWED}:80"))?;
        let mut tls = connect(&format!("{ALLOWED}:443"))?;
        let datagrams = UdpSocket::bind("0.0.0.0:0")?;
        datagrams.connect("93.184.221.2:9999")?;
        datagrams.send(b"first")?;
        for (stream, first) in [
            (&mut http, get("first", ALLOWED)),
            (&mut tls, plain_hello(ALLOWED)),
            (&mut plain, format!("\0{wish}").into()),
        ] {
            stream.write_all(&first)?;
            read(stream)?;
        }
        // No rule is left by which this is let through. Without a sandbox there is none that could change.
        let mut looks = 0;
        while is_inside() && looks < 500 && say_other(&format!("{ALLOWED}:9999"), "again").is_ok() {
            sleep(Duration::from_millis(10));
            looks += 1;
        }
        Ok(Self { plain, http, tls, datagrams })
    }
}

/// The first attempt of all opens what each of them uses.
fn with_open<T>(token: &str, work: impl FnOnce(&mut Open) -> io::Result<T>) -> io::Result<T> {
    static OPEN: OnceLock<Mutex<io::Result<Open>>> = OnceLock::new();
    let open = OPEN.get_or_init(|| Mutex::new(Open::make(token)));
    match &mut *open.lock().unwrap_or_else(PoisonError::into_inner) {
        Ok(open) => work(open),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

fn goes_on(token: &str, which: fn(&mut Open) -> &mut TcpStream, bytes: &[u8]) -> Saw {
    Saw::answered(with_open(token, |open| {
        let stream = which(open);
        stream.write_all(bytes)?;
        read(stream)
    }))
}

/// A record of application data, which nobody but the two ends can read.
fn said_in_tls(token: &str) -> Vec<u8> {
    [&[23, 3, 3, 0, token.len() as u8], token.as_bytes()].concat()
}
