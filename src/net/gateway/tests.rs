//! Real packets through a real gateway; as root, since threads cannot have user namespaces of their own.

use std::{
    io::{ErrorKind, IoSlice, IoSliceMut, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

use super::*;
use crate::sys::namespace;

fn behind_a_gateway<T: Send>(inside: impl FnOnce() -> T + Send, outside: impl FnOnce(&Listeners)) -> Option<T> {
    behind(false, inside, outside)
}

/// Runs `inside` on a thread in the sandbox's network, with what its gateway listens on outside.
fn behind<T: Send>(udp: bool, inside: impl FnOnce() -> T + Send, outside: impl FnOnce(&Listeners)) -> Option<T> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIP gateway: it takes root");
        return None;
    }
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let inside = scope.spawn(move || {
            namespace::leave(libc::CLONE_NEWNET).unwrap();
            let reserved = OwnedFd::from(File::open("/dev/null").unwrap());
            let gateway = Gateway::new(std::os::fd::AsFd::as_fd(&reserved), udp);
            let begun = gateway.begin(reserved, || namespace::leave(libc::CLONE_NEWNET)).unwrap();
            sender.send(begun.finish().unwrap().0).unwrap();
            inside()
        });
        // The namespace lasts as long as they do.
        let listeners = receiver.recv().unwrap();
        outside(&listeners);
        Some(inside.join().unwrap())
    })
}

fn blocking(socket: &OwnedFd) -> TcpListener {
    let listener = TcpListener::from(socket.try_clone().unwrap());
    listener.set_nonblocking(false).unwrap();
    listener
}

#[test]
fn all_tcp_comes_to_the_listener_and_tells_where_it_was_meant_to_go() {
    const TARGETS: [&str; 5] =
        ["1.2.3.4:80", "198.19.3.4:443", "10.0.0.1:65535", "198.18.0.1:22", "169.254.169.254:80"];
    behind_a_gateway(
        || {
            for target in TARGETS {
                let mut stream = TcpStream::connect(target).unwrap();
                stream.write_all(target.as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert_eq!(answer, "heard");
            }
        },
        |listeners| {
            let listener = blocking(&listeners.tcp);
            for target in TARGETS {
                let (mut stream, from) = listener.accept().unwrap();
                assert_eq!(from.ip(), SANDBOX);
                assert_eq!(stream.local_addr().unwrap().to_string(), target);
                let mut said = vec![0; target.len()];
                stream.read_exact(&mut said).unwrap();
                stream.write_all(b"heard").unwrap();
            }
        },
    );
}

#[test]
fn questions_come_to_the_responder_whoever_was_asked() {
    behind_a_gateway(
        || {
            for server in ["198.18.0.1:53", "8.8.8.8:53"] {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.connect(server).unwrap();
                socket.send(b"question").unwrap();
                let mut answer = [0; 16];
                socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                assert_eq!(socket.recv(&mut answer).unwrap(), 6);
                let mut stream = TcpStream::connect(server).unwrap();
                stream.write_all(b"question").unwrap();
                assert_eq!(stream.read(&mut answer).unwrap(), 6);
            }
        },
        |listeners| {
            let (udp, tcp) = (UdpSocket::from(listeners.dns_udp.try_clone().unwrap()), blocking(&listeners.dns_tcp));
            udp.set_nonblocking(false).unwrap();
            setsockopt(&udp, sockopt::Ipv4PacketInfo, &true).unwrap();
            for _ in 0..2 {
                let mut question = [0; 16];
                let (from, asked) = {
                    let mut room = cmsg_space!(libc::in_pktinfo);
                    let mut slices = [IoSliceMut::new(&mut question)];
                    let heard = recvmsg::<SockaddrIn>(udp.as_raw_fd(), &mut slices, Some(&mut room), MsgFlags::empty());
                    let heard = heard.unwrap();
                    let Some(ControlMessageOwned::Ipv4PacketInfo(info)) = heard.cmsgs().unwrap().next() else {
                        panic!("it is not told who was asked")
                    };
                    (heard.address.unwrap(), info.ipi_addr)
                };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: asked, ipi_addr: asked };
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                let answer = [IoSlice::new(b"answer")];
                sendmsg(udp.as_raw_fd(), &answer, &control, MsgFlags::empty(), Some(&from)).unwrap();
                let (mut stream, _) = tcp.accept().unwrap();
                stream.read_exact(&mut question[..8]).unwrap();
                stream.write_all(b"answer").unwrap();
            }
        },
    );
}

#[test]
fn all_else_is_refused_at_once() {
    behind_a_gateway(
        || {
            let began = Instant::now();
            for target in ["1.1.1.1:443", "198.18.0.1:123", "198.18.0.1:1", "8.8.8.8:853"] {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.connect(target).unwrap();
                socket.send(b"x").unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{target}");
            }
            // There is no way to any other address of the sixth version.
            let six: SocketAddr = "[2606:4700::1111]:443".parse().unwrap();
            let refused = TcpStream::connect(six).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable), "{refused}");
            began.elapsed()
        },
        |_| (),
    );
}

#[test]
fn the_explicit_proxy_is_reached_where_it_is() {
    behind_a_gateway(
        || {
            let mut stream = TcpStream::connect((GATEWAY, EXPLICIT_PORT)).unwrap();
            stream.write_all(b"!").unwrap();
            // On any other address, the port is like all others.
            TcpStream::connect("9.9.9.9:3128").unwrap();
        },
        |listeners| {
            let (explicit, tcp) = (blocking(&listeners.explicit), blocking(&listeners.tcp));
            explicit.accept().unwrap().0.read_exact(&mut [0]).unwrap();
            tcp.accept().unwrap();
        },
    );
}
