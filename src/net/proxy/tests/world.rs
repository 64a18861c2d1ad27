//! A proxy on loopback sockets, with servers that stand for hosts of the internet.
//!
//! Everything is the real thing but three answers: where a client was going (nothing is steered here), what a name
//! resolves to, and on which loopback port a public address is.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, setsockopt, socket, sockopt,
};

use super::super::{Limits, Proxy, outside::Outside};
use crate::net::{BUFFER, Denied, Listeners, Policy, policy::Name};

/// What a test waits at most for what should come at once; never for what should not.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);
pub const OTHER: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 99);

#[derive(Default)]
struct Answers {
    destinations: HashMap<SocketAddr, SocketAddr>,
    names: HashMap<String, Vec<IpAddr>>,
    places: HashMap<SocketAddr, SocketAddr>,
    /// What was dialled and what was resolved.
    dialled: Vec<SocketAddr>,
    resolved: Vec<String>,
    own: Vec<IpAddr>,
    /// Says that an address is about to be dialled, and waits until that may go on.
    held: Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>,
}

pub struct World {
    pub proxy: Proxy,
    answers: Arc<Mutex<Answers>>,
    denied: mpsc::Receiver<Denied>,
    tcp: SocketAddr,
    dns_udp: SocketAddr,
    pub dns_tcp: SocketAddr,
    pub explicit: SocketAddr,
}

pub fn policy(json: &str) -> Policy {
    serde_json::from_str(json).unwrap()
}

impl World {
    pub fn new(json: &str) -> Self {
        Self::with(json, |_| ())
    }

    pub fn with(json: &str, limit: impl FnOnce(&mut Limits)) -> Self {
        let answers = Arc::new(Mutex::new(Answers::default()));
        let of = |answers: &Arc<Mutex<Answers>>| answers.clone();
        let (destinations, names, own, places) = (of(&answers), of(&answers), of(&answers), of(&answers));
        let outside = Outside {
            destination: Box::new(move |client| {
                let found = destinations.lock().unwrap().destinations.get(&client.peer_addr()?).copied();
                found.ok_or_else(|| ErrorKind::NotFound.into())
            }),
            resolve: Arc::new(move |name: &Name| {
                let mut answers = names.lock().unwrap();
                answers.resolved.push(name.to_string());
                answers.names.get(name.as_str()).cloned().ok_or_else(|| ErrorKind::NotFound.into())
            }),
            is_own: Box::new(move |address| Ok(own.lock().unwrap().own.contains(&address))),
            route: Box::new(move |address| {
                let held = places.lock().unwrap().held.take();
                if let Some((arrived, go_on)) = held {
                    arrived.send(()).unwrap();
                    _ = go_on.recv();
                }
                let mut answers = places.lock().unwrap();
                answers.dialled.push(address);
                // Nothing listens on the discard port.
                answers.places.get(&address).copied().unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9))
            }),
            elsewhere: None,
        };
        // None that a slow machine could reach; a test of one sets it.
        let long = Duration::from_secs(60);
        let mut limits = Limits { refused: long, head: long, farewell: long, ..Limits::default() };
        limit(&mut limits);
        let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (tcp, dns_tcp, explicit) = (listener(), listener(), listener());
        // As the gateway does.
        setsockopt(&tcp, sockopt::SndBuf, &BUFFER).unwrap();
        let dns_udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = |listener: &TcpListener| listener.local_addr().unwrap();
        let places = (at(&tcp), dns_udp.local_addr().unwrap(), at(&dns_tcp), at(&explicit));
        let (told, denied) = mpsc::channel();
        let tell = Box::new(move |denial| _ = told.send(denial));
        let listeners = Listeners {
            tcp: tcp.into(),
            dns_udp: dns_udp.into(),
            dns_tcp: dns_tcp.into(),
            explicit: explicit.into(),
            udp: None,
            within: None,
        };
        let proxy = Proxy::start_with(policy(json), listeners, tell, None, None, outside, limits).unwrap();
        Self { proxy, answers, denied, tcp: places.0, dns_udp: places.1, dns_tcp: places.2, explicit: places.3 }
    }

    /// Has `name` resolve to these.
    pub fn name(&self, name: &str, addresses: &[&str]) -> &Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.answers.lock().unwrap().names.insert(name.to_owned(), addresses);
        self
    }

    /// Has `serve` answer each connection to `address` and `port`.
    pub fn serve(
        &self,
        address: impl Into<IpAddr>,
        port: u16,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> &Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let place = listener.local_addr().unwrap();
        self.answers.lock().unwrap().places.insert(SocketAddr::new(address.into(), port), place);
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (serve, client) = (serve.clone(), client.unwrap());
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                thread::spawn(move || serve(client));
            }
        });
        self
    }

    /// As `serve`; what each connection's client sent, once it has ended, comes through what is returned.
    pub fn record(&self, address: Ipv4Addr, port: u16, answer: &'static [u8]) -> mpsc::Receiver<Vec<u8>> {
        let (sender, receiver) = mpsc::channel();
        self.serve(address, port, move |mut client| {
            _ = client.write_all(answer);
            _ = sender.send(until_end(&mut client).0);
        });
        receiver
    }

    /// The next dialling says that it is about to begin, and waits.
    pub fn hold(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((arrived, arriving), (go_on, going_on)) = (mpsc::channel(), mpsc::channel());
        self.answers.lock().unwrap().held = Some((arrived, going_on));
        (arriving, go_on)
    }

    pub fn own(&self, address: Ipv4Addr) -> &Self {
        self.answers.lock().unwrap().own.push(address.into());
        self
    }

    /// A connection of the sandbox to `address`, redirected.
    pub fn connect(&self, address: Ipv4Addr, port: u16) -> TcpStream {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let own: SockaddrIn = getsockname(fd.as_raw_fd()).unwrap();
        let own = SocketAddrV4::new(own.ip(), own.port());
        let destination = SocketAddr::new(address.into(), port);
        self.answers.lock().unwrap().destinations.insert(own.into(), destination);
        let SocketAddr::V4(proxy) = self.tcp else { panic!() };
        connect(fd.as_raw_fd(), &SockaddrIn::from(proxy)).unwrap();
        patient(fd)
    }

    /// A connection of the sandbox to a name: looked up, then connected to.
    pub fn connect_to(&self, name: &str, port: u16) -> TcpStream {
        self.connect(self.lookup(name).unwrap_or_else(|| panic!("{name} has no address")), port)
    }

    pub fn connect_explicit(&self) -> TcpStream {
        patient(TcpStream::connect(self.explicit).unwrap())
    }

    /// What the name server says of `name`.
    pub fn lookup(&self, name: &str) -> Option<Ipv4Addr> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&question(name), self.dns_udp).unwrap();
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).unwrap();
        address_in(&answer[..length])
    }

    pub fn denial(&self) -> Denied {
        self.denied.recv_timeout(PATIENCE).expect("nothing was denied")
    }

    pub fn dialled(&self) -> Vec<SocketAddr> {
        self.answers.lock().unwrap().dialled.clone()
    }

    pub fn resolved(&self) -> Vec<String> {
        self.answers.lock().unwrap().resolved.clone()
    }

    pub fn denials(&self) -> Vec<Denied> {
        self.denied.try_iter().collect()
    }
}

fn patient(stream: impl Into<TcpStream>) -> TcpStream {
    let stream = stream.into();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub fn question(name: &str) -> Vec<u8> {
    let labels: Vec<u8> = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    [b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0", &labels[..], &[0, 0, 1, 0, 1]].concat()
}

/// The one address of an answer.
pub fn address_in(answer: &[u8]) -> Option<Ipv4Addr> {
    let address: [u8; 4] = answer.last_chunk().copied()?;
    (answer[7] == 1).then(|| address.into())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
}

/// All that comes, and how it ended.
pub fn until_end(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let (mut all, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (all, End::Closed),
            Ok(read) => all.extend(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (all, End::Reset),
            Err(error) => panic!("after {} bytes: {error}", all.len()),
        }
    }
}

/// Exactly so many bytes.
pub fn exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Sends it, whether or not the other side still listens.
pub fn send(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    _ = stream.write_all(bytes.as_ref());
}
