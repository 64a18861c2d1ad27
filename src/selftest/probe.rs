//! Making the attempts: what runs inside of the sandbox, and once outside of it.
//!
//! Nothing is presumed but the kernel: the probe is this very program, which was copied in.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    sync::mpsc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::attempts::{Attempt, Under};
use crate::net::gateway::{GATEWAY, SANDBOX};

/// A server that says nothing within this says nothing at all. None of ours takes near as long.
const PATIENCE: Duration = Duration::from_secs(5);
/// What doesn't end by then hangs.
const LONGEST: Duration = Duration::from_secs(30);

/// How an attempt looked to who made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Saw {
    /// It got what it must not get.
    Through(String),
    /// It did not notice that it got anywhere: others may have.
    Kept(String),
    /// This kernel has no such thing.
    Impossible(String),
}

/// A line of the probe's output.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    pub attempt: usize,
    pub saw: Saw,
}

/// By which what an attempt sends is known again.
#[must_use]
pub fn token(salt: &str, attempt: usize) -> String {
    format!("esc{attempt:03}x{salt}")
}

/// What tokens of the same test have in common.
#[must_use]
pub fn salt(token: &str) -> &str {
    token.split_once('x').map_or("", |(_, salt)| salt)
}

/// Makes those attempts of `all` that are made under `under`, one after another, and hands on how each looked; an error of
/// that is the end.
pub fn make<E>(
    all: &[Attempt],
    under: Under,
    salt: &str,
    mut told: impl FnMut(Line) -> Result<(), E>,
) -> Result<(), E> {
    for (number, attempt) in all.iter().enumerate().filter(|(_, attempt)| attempt.under == under) {
        let (work, own) = (attempt.work, token(salt, number));
        let (done, doing) = mpsc::channel();
        // On a thread of its own: some change the namespaces of theirs.
        let thread = std::thread::Builder::new().spawn(move || _ = done.send(work(&own)));
        let saw = match thread {
            Ok(_) => doing.recv_timeout(LONGEST).unwrap_or_else(|_| Saw::Kept("it hangs".to_owned())),
            Err(error) => Saw::Impossible(error.to_string()),
        };
        told(Line { attempt: number, saw })?;
    }
    Ok(())
}

/// Whether this is a sandbox with a gateway: by the address with which it would speak to that. Nothing is sent.
pub fn is_inside() -> bool {
    let own = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect((GATEWAY, 9))?;
        socket.local_addr()
    });
    own.is_ok_and(|own| own.ip() == SANDBOX)
}

impl Saw {
    /// Others will know whether it got anywhere.
    pub fn answered(result: io::Result<Vec<u8>>) -> Self {
        Self::Kept(match result {
            Ok(bytes) if bytes.is_empty() => "ended without a word".to_owned(),
            Ok(bytes) => {
                let line: Vec<u8> = bytes.into_iter().take(40).take_while(|byte| !b"\r\n".contains(byte)).collect();
                format!("answered {}", line.escape_ascii())
            }
            Err(error) => reason(&error),
        })
    }

    /// That it was made is what must not be.
    pub fn made<T>(what: &str, result: Result<T, nix::errno::Errno>) -> Self {
        use nix::errno::Errno;
        match result {
            Ok(_) => Self::Through(format!("{what}: made")),
            Err(errno @ (Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT | Errno::ENOSYS)) => {
                Self::Impossible(errno.desc().to_owned())
            }
            Err(errno) => Self::Kept(errno.desc().to_owned()),
        }
    }
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

fn addresses(to: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(to.to_socket_addrs()?.collect())
}

pub fn connect(to: &str) -> io::Result<TcpStream> {
    let first = addresses(to)?.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
    let stream = TcpStream::connect_timeout(&first, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 4096];
    let length = stream.read(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Connects, says it all, and hears what comes first.
pub fn say(to: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = connect(to)?;
    stream.write_all(bytes)?;
    read(&mut stream)
}

/// As [`say`], byte by byte, each in a packet of its own.
pub fn say_slowly(to: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = connect(to)?;
    for byte in bytes {
        stream.write_all(&[*byte])?;
    }
    read(&mut stream)
}

/// As [`say`], and hears an answer before each part but the first, and after the last.
pub fn say_in_turn(to: &str, parts: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let mut stream = connect(to)?;
    let mut answer = Vec::new();
    for part in parts {
        stream.write_all(part)?;
        answer = read(&mut stream)?;
    }
    Ok(answer)
}

/// As [`say`], of what is no request, nor the beginning of one: it is repeated.
pub fn say_other(to: &str, token: &str) -> io::Result<Vec<u8>> {
    say(to, format!("\0{token}").as_bytes())
}

/// What is heard of who speaks first.
pub fn hear(to: &str) -> io::Result<Vec<u8>> {
    let mut stream = connect(to)?;
    let heard = read(&mut stream);
    _ = stream.shutdown(Shutdown::Both);
    heard
}

/// Sends a datagram. Nobody answers; an error is heard of at the second one.
pub fn send(to: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let to = addresses(to)?.into_iter().next().ok_or(io::ErrorKind::NotFound)?;
    let from = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(from)?;
    socket.connect(to)?;
    send_twice(&socket, bytes)
}

pub fn send_twice(socket: &UdpSocket, bytes: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(bytes)?;
    socket.send(bytes)?;
    Ok(b"nothing".to_vec())
}

/// Asks a question of DNS over UDP; the answer.
pub fn ask(server: &str, question: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut buffer = vec![0; 1500];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// The records of an answer, and its code.
pub fn records(answer: &[u8]) -> Option<(u8, u8)> {
    Some((answer.get(3)? & 15, *answer.get(7)?))
}
