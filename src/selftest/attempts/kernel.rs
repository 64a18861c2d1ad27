//! What the kernel itself would lend: sockets of other kinds, namespaces, descriptors.

use std::{
    io::Read,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    path::Path,
};

use nix::sys::socket::SockProtocol;

use super::{Attempt, Under};
use crate::{
    net::gateway::links,
    selftest::{
        probe::{Saw, is_inside},
        servers::{ABSTRACT, BANNER, SOCKET},
    },
    sys::{
        namespace,
        netlink::{ACK, Netlink, message},
        trial,
    },
};

const DCCP: i32 = 33;
const UDP_LITE: i32 = 136;

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::new(15, "raw ICMP", |_| socket("a raw socket", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    Attempt::new(15, "raw IP", |_| socket("a raw socket", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)),
    Attempt::new(15, "ping", |_| socket("a socket for ping", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)),
    Attempt::new(15, "whole frames", |_| socket("a packet socket", libc::AF_PACKET, libc::SOCK_RAW, 0)),
    Attempt::new(15, "packets", |_| socket("a packet socket", libc::AF_PACKET, libc::SOCK_DGRAM, 0)),
    Attempt::new(15, "SCTP", |_| socket("a socket for SCTP", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP)),
    Attempt::new(15, "DCCP", |_| socket("a socket for DCCP", libc::AF_INET, 6, DCCP)),
    Attempt::new(15, "UDP-Lite", light).only(&["93.184.220.30"]),
    Attempt::new(15, "virtual machines' sockets", |_| {
        socket("a socket to the hypervisor", libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    }),
    Attempt::new(15, "Bluetooth", |_| socket("a socket for Bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)),
    Attempt::new(15, "the kernel's ciphers", |_| socket("a socket for ciphers", libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    Attempt::new(15, "XDP", |_| socket("a socket for XDP", libc::AF_XDP, libc::SOCK_RAW, 0)),
    Attempt::new(15, "io_uring", |_| Saw::made("a ring", trial::ring())),
    Attempt::new(19, "an abstract socket of the host", |_| abstract_socket()),
    Attempt::new(19, "a socket file of the host", |_| socket_file()),
    Attempt::new(19, "inherited sockets", |_| inherited()),
    Attempt::new(21, "another network namespace", |_| {
        Saw::made("a network namespace", namespace::leave(libc::CLONE_NEWNET))
    }),
    Attempt::new(21, "another user namespace, and one in it", |_| {
        // Outside there are other threads, with which no process can.
        if namespace::leave(libc::CLONE_NEWUSER).is_ok() {
            return Saw::made("a network namespace of its own", namespace::leave(libc::CLONE_NEWNET));
        }
        Saw::made("a network namespace", namespace::leave(libc::CLONE_NEWNET))
    }),
    Attempt::new(21, "the namespace of process 1", |_| join()),
    Attempt::new(21, "its rules", |_| rules()),
    Attempt::new(21, "its devices", |_| devices()),
    Attempt::new(21, "its settings", |_| setting("/proc/sys/net/ipv4/ip_forward")),
    Attempt::new(21, "with everything allowed: its rules", |_| rules()).under(Under::Open),
];

fn socket(what: &str, family: i32, kind: i32, protocol: i32) -> Saw {
    Saw::made(what, trial::socket(family, kind, protocol))
}

fn light(token: &str) -> Saw {
    match trial::socket(libc::AF_INET, libc::SOCK_DGRAM, UDP_LITE) {
        Ok(socket) => {
            let socket = std::net::UdpSocket::from(socket);
            let sent = socket.connect("93.184.220.30:9999");
            Saw::answered(sent.and_then(|()| super::super::probe::send_twice(&socket, token.as_bytes())))
        }
        other => Saw::made("a socket for UDP-Lite", other),
    }
}

fn abstract_socket() -> Saw {
    let connected = SocketAddr::from_abstract_name(ABSTRACT).and_then(|address| UnixStream::connect_addr(&address));
    greeted(connected)
}

/// Wherever the host has it, this is how it is called there. Outside, the test's own will do: the others are real.
fn socket_file() -> Saw {
    let dirs = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let sockets = dirs.map(|entry| entry.path().join(SOCKET));
    let usual =
        ["/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket", "/run/containerd/containerd.sock"];
    let usual = usual.into_iter().filter(|_| is_inside()).map(Into::into);
    let found = sockets.chain(usual).find_map(|path| {
        let stream = UnixStream::connect(&path).ok()?;
        Some((path, stream))
    });
    match found {
        Some((path, _)) => Saw::Through(format!("{} was reached", path.display())),
        None => Saw::Kept("none is found".to_owned()),
    }
}

fn greeted(stream: std::io::Result<UnixStream>) -> Saw {
    let mut heard = vec![0; BANNER.len()];
    let result = stream.and_then(|mut stream| stream.read_exact(&mut heard));
    match result {
        Ok(()) if heard == BANNER => Saw::Through("the host answers".to_owned()),
        Ok(()) => Saw::Kept("somebody else answers".to_owned()),
        Err(error) => Saw::answered(Err(error)),
    }
}

/// Sockets and namespaces that were open before the program began: its own are numbered above its streams, and are none.
fn inherited() -> Saw {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Saw::Kept("/proc is not there".to_owned()) };
    let foreign = entries.flatten().find_map(|entry| {
        let to = std::fs::read_link(entry.path()).ok()?;
        let text = to.to_string_lossy().into_owned();
        (text.starts_with("socket:") || text.starts_with("net:")).then_some(text)
    });
    match foreign {
        Some(text) => Saw::Through(format!("{text} is open")),
        None => Saw::Kept("none is open".to_owned()),
    }
}

/// Outside, the first process's is the machine's own, which is no business of a test.
fn join() -> Saw {
    let first = if is_inside() { "/proc/1/ns/net" } else { "/proc/self/ns/net" };
    let tried = [first, "/proc/self/ns/net"].map(|path| {
        let file = std::fs::File::open(Path::new(path)).map_err(|error| errno(&error))?;
        namespace::enter(std::os::fd::AsFd::as_fd(&file), libc::CLONE_NEWNET)
    });
    let [first, own] = tried;
    Saw::made("a network namespace was entered", first.or(own))
}

/// Whether there could be a new table: the question is whether one may ask.
fn rules() -> Saw {
    const NFTABLES: u16 = 10;
    const GET_TABLE: u16 = 1;
    let asked = Netlink::open(SockProtocol::NetlinkNetFilter)
        .and_then(|filter| filter.ask(&message(NFTABLES << 8 | GET_TABLE, ACK | 0x300, 1, &[0, 0, 0, 0])));
    Saw::made("the packet filter was read", asked)
}

/// Taking the loopback device up, which it is.
fn devices() -> Saw {
    let asked = Netlink::open(SockProtocol::NetlinkRoute).and_then(|routes| routes.transact(&[links::loopback()], 1));
    Saw::made("a device was set", asked)
}

/// Writes what is there.
fn setting(path: &str) -> Saw {
    let written = std::fs::read(path).and_then(|value| std::fs::write(path, value));
    Saw::made("a setting was written", written.map_err(|error| errno(&error)))
}

fn errno(error: &std::io::Error) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
