//! The hostile servers, and what they and the wire have seen.
//!
//! They take whatever comes, on every address of the world and on the host's own: names lead where they must not, TLS asks
//! for a second hello, upgrades are granted. One thread; it ends when it is told.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixListener},
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
    task::{LocalSet, spawn_local},
};
use tokio_rustls::TlsAcceptor;

use super::{
    SelftestError, bytes,
    keys::{self, Certificates},
    names,
    world::NAME_SERVER,
};
use crate::sys::trial;

/// Where they listen for TCP, on any address.
pub const PORTS: [u16; 16] = [1, 21, 22, 25, 53, 80, 443, 465, 587, 853, 2222, 3128, 5432, 8080, 8443, 9999];
/// Who connects here is spoken to first.
pub const BANNER_PORT: u16 = 2222;
pub const BANNER: &[u8] = b"SSH-2.0-selftest\r\n";
const FTP_PORT: u16 = 21;
/// An abstract socket of the host's, and one in a directory of its own.
pub const ABSTRACT: &[u8] = b"fumehood-selftest";
pub const SOCKET: &str = "host.sock";

/// Kept of one connection.
const MOST: usize = 256 << 10;
/// A frame holds no more.
const FRAME: usize = 65_600;

#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<Records>>);

#[derive(Debug, Default)]
struct Records {
    /// As they were on the wire, from the host to the world.
    frames: Vec<Vec<u8>>,
    streams: Vec<(SocketAddr, Vec<u8>)>,
    /// Names that the name server was asked for.
    questions: Vec<String>,
}

impl Seen {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.records() = Records::default();
    }

    /// Whether anything came with `token` in it, or to one of `addresses`; what it was.
    #[must_use]
    pub fn witness(&self, token: &str, addresses: &[IpAddr]) -> Option<String> {
        let records = self.records();
        let has = |bytes: &[u8]| bytes.windows(token.len()).any(|part| part.eq_ignore_ascii_case(token.as_bytes()));
        if let Some(name) = records.questions.iter().find(|name| has(name.as_bytes())) {
            return Some(format!("the world's name server was asked for {name}"));
        }
        for (to, bytes) in &records.streams {
            if has(bytes) || addresses.contains(&to.ip()) {
                return Some(format!("{to} was reached"));
            }
        }
        records.frames.iter().find_map(|frame| {
            let to = destination(frame)?;
            (has(frame) || addresses.contains(&to)).then(|| format!("a packet to {to} got out"))
        })
    }
}

/// Where a frame of IP is going.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x00] => Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(30..34)?).ok()?).into()),
        [0x86, 0xdd] => Some(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(38..54)?).ok()?).into()),
        _ => None,
    }
}

/// Sockets of the host's own, which no sandbox may reach.
#[derive(Debug)]
pub struct HostSockets {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
}

/// Made in the host's namespace.
pub fn on_the_host(dir: &Path) -> Result<HostSockets, SelftestError> {
    let failed = SelftestError::io("listen on the host");
    let tcp = listen(Ipv4Addr::UNSPECIFIED.into()).map_err(&failed)?;
    let sixth = TcpListener::bind((Ipv6Addr::LOCALHOST, 9998)).into_iter();
    let hidden = UnixAddress::from_abstract_name(ABSTRACT).and_then(|address| UnixListener::bind_addr(&address));
    let named = UnixListener::bind(dir.join(SOCKET));
    let unix = vec![hidden.map_err(&failed)?, named.map_err(&failed)?];
    Ok(HostSockets { tcp: tcp.into_iter().chain(sixth).collect(), unix })
}

fn listen(address: IpAddr) -> io::Result<Vec<TcpListener>> {
    PORTS.into_iter().map(|port| TcpListener::bind((address, port))).collect()
}

#[derive(Debug)]
pub struct Servers {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    names: UdpSocket,
    wire: OwnedFd,
    certificates: Certificates,
}

impl Servers {
    /// In the world's namespace.
    pub fn new(host: HostSockets, certificates: Certificates) -> Result<Self, SelftestError> {
        let failed = SelftestError::io("listen in the world");
        let mut tcp = host.tcp;
        // Of both versions, where there are both.
        let all = listen(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| listen(Ipv4Addr::UNSPECIFIED.into()));
        tcp.extend(all.map_err(&failed)?);
        let names = UdpSocket::bind((NAME_SERVER, 53)).map_err(&failed)?;
        let wire = SelftestError::errno("watch the wire");
        let every = i32::from((libc::ETH_P_ALL as u16).to_be());
        let socket = trial::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, every).map_err(&wire)?;
        // As much as there may be: what is read late is not lost.
        _ = setsockopt(&socket, sockopt::RcvBuf, &(4 << 20));
        Ok(Self { tcp, unix: host.unix, names, wire: socket, certificates })
    }

    /// Until `ended`. `ready` is called when all of them answer.
    pub fn serve(self, seen: Seen, ended: oneshot::Receiver<()>, ready: impl FnOnce() -> bool) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            if self.start(&seen).is_ok() && ready() {
                _ = ended.await;
            }
        });
    }

    fn start(self, seen: &Seen) -> io::Result<()> {
        for listener in self.tcp {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (seen, certificates) = (seen.clone(), self.certificates.clone());
            spawn_local(async move {
                while let Ok((stream, from)) = listener.accept().await {
                    spawn_local(receive(stream, from, seen.clone(), certificates.clone()));
                }
            });
        }
        for listener in self.unix {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::UnixListener::from_std(listener)?;
            spawn_local(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    _ = stream.write_all(BANNER).await;
                }
            });
        }
        self.names.set_nonblocking(true)?;
        let names = tokio::net::UdpSocket::from_std(self.names)?;
        let asked = seen.clone();
        spawn_local(async move {
            let mut buffer = [0; 1500];
            loop {
                let Ok((length, from)) = names.recv_from(&mut buffer).await else { continue };
                if let Some((name, answer)) = names::answer(&buffer[..length]) {
                    asked.records().questions.push(name);
                    _ = names.send_to(&answer, from).await;
                }
            }
        });
        // Not UDP, but read in the same way.
        let wire = tokio::net::UdpSocket::from_std(self.wire.into())?;
        let seen = seen.clone();
        spawn_local(async move {
            let mut buffer = vec![0; FRAME];
            loop {
                if let Ok(length) = wire.recv(&mut buffer).await {
                    seen.records().frames.push(buffer[..length].to_vec());
                }
            }
        });
        Ok(())
    }
}

async fn receive(stream: tokio::net::TcpStream, from: SocketAddr, seen: Seen, certificates: Certificates) {
    let Ok(to) = stream.local_addr() else { return };
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    match certificates.of(to.ip()).filter(|_| to.port() == 443) {
        None => converse(stream, (from, to), false, seen).await,
        Some(config) => {
            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                converse(stream, (from, to), true, seen).await;
            }
        }
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    (from, to): (SocketAddr, SocketAddr),
    secure: bool,
    seen: Seen,
) {
    let number = {
        let mut records = seen.records();
        records.streams.push((to, Vec::new()));
        records.streams.len() - 1
    };
    if matches!(to.port(), BANNER_PORT | FTP_PORT) && stream.write_all(BANNER).await.is_err() {
        return;
    }
    let (mut all, mut answered) = (Vec::new(), 0);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(length @ 1..) = stream.read(&mut buffer).await else { return };
        all.extend(&buffer[..length]);
        if let Some((_, kept)) = seen.records().streams.get_mut(number)
            && kept.len() < MOST
        {
            kept.extend(&buffer[..length]);
        }
        let answer = answer(&all, &mut answered, to.port(), secure);
        if let Some(port) = bytes::active_port(&all).filter(|_| to.port() == FTP_PORT) {
            // As a server of FTP would: to whom it thinks that asked.
            if let Ok(mut back) = tokio::net::TcpStream::connect((from.ip().to_canonical(), port)).await {
                _ = back.write_all(BANNER).await;
            }
        }
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// What is answered to `all` that was said, but for the first `answered` of it.
fn answer(all: &[u8], answered: &mut usize, port: u16, secure: bool) -> Vec<u8> {
    let new = &all[*answered..];
    if all.first() == Some(&bytes::HANDSHAKE) {
        let first = *answered == 0;
        // A whole hello, as far as its first record says.
        let whole = all.get(3..5).is_some_and(|two| all.len() >= 5 + usize::from(u16::from_be_bytes([two[0], two[1]])));
        if !whole {
            return Vec::new();
        }
        *answered = all.len();
        let again = all.windows(names::RETRY.len()).any(|part| part == names::RETRY.as_bytes());
        return if first && again { bytes::hello_retry() } else { bytes::ALERT.to_vec() };
    }
    // No request begins so.
    let other = !all.first().is_some_and(u8::is_ascii_uppercase);
    if port == BANNER_PORT || port == FTP_PORT || other {
        *answered = all.len();
        return new.to_vec();
    }
    let mut answers = Vec::new();
    let mut rest = new;
    while let Some(end) = rest.windows(4).position(|part| part == b"\r\n\r\n") {
        let head = rest[..end].to_ascii_lowercase();
        let upgraded = head.windows(8).any(|part| part == b"upgrade:");
        match keys::say_back(&rest[..end], secure) {
            Some(said) => answers.extend(said),
            None => answers.extend(if upgraded { bytes::SWITCHED } else { bytes::OK }),
        }
        rest = &rest[end + 4..];
    }
    *answered = all.len() - rest.len();
    answers
}
