//! What is allowed gets through as if there were no proxy, and what is not is told.

use std::{io::Write, net::Shutdown, net::TcpStream, thread};

use super::{
    super::hello::tests::hello,
    world::{End, PUBLIC, World, address_in, exactly, policy, question, send, until_end},
};
use crate::net::{Denied, Protocol};

fn example() -> World {
    let world = World::new(r#"{"allow":["example.com"]}"#);
    world.name("example.com", &["93.184.215.14"]);
    world
}

#[test]
fn a_server_may_speak_first() {
    let world = example();
    world.serve(PUBLIC, 22, |mut client| {
        send(&mut client, b"SSH-2.0-server\r\n");
        let said = exactly(&mut client, 16);
        send(&mut client, said);
    });
    let mut client = world.connect_to("example.com", 22);
    assert_eq!(exactly(&mut client, 16), b"SSH-2.0-server\r\n");
    send(&mut client, b"SSH-2.0-client\r\n");
    assert_eq!(until_end(&mut client), (b"SSH-2.0-client\r\n".to_vec(), End::Closed));
}

#[test]
fn a_server_that_speaks_first_is_asked_no_web_page() {
    let world = example();
    let serve = |greeting: &'static [u8]| {
        move |mut client: TcpStream| {
            send(&mut client, greeting);
            let end = until_end(&mut client);
            send(&mut client, end.0);
        }
    };
    world.serve(PUBLIC, 4222, serve(b"INFO {}\r\n")).serve(PUBLIC, 80, serve(b"HTTP/1.1 408 x\r\n"));
    world.serve(PUBLIC, 81, serve(b"\0\0\x06\x04\0\0\0\0\0")).serve(PUBLIC, 443, serve(b"\x15\x03\x03\0\x02"));
    let said = b"CONNECT {\"verbose\":false}\r\nPING\r\n";
    for (port, length, passed) in [(4222, 9, true), (80, 16, false), (81, 9, false), (443, 5, false)] {
        let mut client = world.connect_to("example.com", port);
        exactly(&mut client, length);
        send(&mut client, said);
        _ = client.shutdown(Shutdown::Write);
        let expected = if passed { (said.to_vec(), End::Closed) } else { (Vec::new(), End::Reset) };
        assert_eq!(until_end(&mut client), expected, "{port}");
    }
}

#[test]
fn each_half_closes_by_itself() {
    let world = example();
    world.serve(PUBLIC, 7, |mut client| {
        let (all, end) = until_end(&mut client);
        assert_eq!(end, End::Closed);
        send(&mut client, all);
    });
    let mut client = world.connect_to("example.com", 7);
    send(&mut client, b"\0said\n");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(until_end(&mut client), (b"\0said\n".to_vec(), End::Closed));

    let got = world.serve(PUBLIC, 8, |_| ()).record(PUBLIC, 9, b"");
    let mut client = world.connect_to("example.com", 9);
    send(&mut client, b"\0");
    drop(client);
    assert_eq!(got.recv().unwrap(), b"\0");
}

fn reset(stream: &TcpStream) {
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &at_once).unwrap();
}

#[test]
fn a_reset_stays_a_reset() {
    let world = example();
    let (sender, ends) = std::sync::mpsc::channel();
    world.serve(PUBLIC, 7, move |mut client| {
        send(&mut client, b"x");
        _ = sender.send(until_end(&mut client).1);
    });
    let mut client = world.connect_to("example.com", 7);
    assert_eq!(exactly(&mut client, 1), b"x");
    reset(&client);
    drop(client);
    assert_eq!(ends.recv().unwrap(), End::Reset);

    world.serve(PUBLIC, 8, |mut client| {
        exactly(&mut client, 1);
        reset(&client);
    });
    let mut client = world.connect_to("example.com", 8);
    send(&mut client, b"\0");
    assert_eq!(until_end(&mut client), (vec![], End::Reset));
}

#[test]
fn bytes_arrive_as_they_were_sent() {
    const MANY: usize = 24 << 20;
    let bytes =
        || -> Vec<u8> { (0..MANY as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect() };
    let world = example();
    world.serve(PUBLIC, 7, move |mut client| {
        let mut back = client.try_clone().unwrap();
        let sending = thread::spawn(move || {
            back.write_all(&bytes()).unwrap();
            back.shutdown(Shutdown::Write).unwrap();
        });
        assert!(until_end(&mut client) == (bytes(), End::Closed), "what the server got differs");
        sending.join().unwrap();
    });
    let mut client = world.connect_to("example.com", 7);
    let mut out = client.try_clone().unwrap();
    let sending = thread::spawn(move || {
        out.write_all(&bytes()).unwrap();
        out.shutdown(Shutdown::Write).unwrap();
    });
    assert!(until_end(&mut client) == (bytes(), End::Closed), "what the client got differs");
    sending.join().unwrap();
}

/// Row 27 of the list of bypasses, what is true without any certificate of ours.
#[test]
fn bypass_27_tls_is_end_to_end() {
    let world = example();
    let got = world.record(PUBLIC, 443, b"\x15\x03\x03\0\x02\x01\x5a");
    let mut client = world.connect_to("example.com", 443);
    let said = [&hello("example.com")[..], b"\x17\x03\x03\0\x05hello", &[0xff; 100_000]].concat();
    send(&mut client, &said);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(until_end(&mut client), (b"\x15\x03\x03\0\x02\x01\x5a".to_vec(), End::Closed));
    assert_eq!(got.recv().unwrap(), said);
}

#[test]
fn a_range_is_passed_unread() {
    let world = World::new(r#"{"allow":["93.184.215.0/24:443"]}"#);
    let got = world.record(PUBLIC, 443, b"");
    let mut client = world.connect(PUBLIC, 443);
    send(&mut client, hello("any.example"));
    client.shutdown(Shutdown::Write).unwrap();
    until_end(&mut client);
    assert_eq!(got.recv().unwrap(), hello("any.example"));
}

#[test]
fn a_refusal_is_readable_over_http_and_a_reset_otherwise() {
    let world = World::new(r#"{"allow":["example.com:443"]}"#);
    let mut client = world.connect_to("example.com", 80);
    send(&mut client, "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 100000\r\n\r\n");
    send(&mut client, "x".repeat(100_000));
    client.shutdown(Shutdown::Write).ok();
    let (answer, end) = until_end(&mut client);
    let answer = String::from_utf8(answer).unwrap();
    assert_eq!(end, End::Closed);
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    let body = "fumehood: denied: example.com:80 (--net filtered); hint: --allow example.com:80\n";
    assert!(
        answer.ends_with(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())),
        "{answer}"
    );
    let denied = Denied {
        protocol: Protocol::Tcp,
        target: "example.com:80".to_owned(),
        rule: "--net filtered".to_owned(),
        hint: Some("--allow example.com:80".to_owned()),
    };
    assert_eq!(world.denial(), denied);
    for other in [hello("example.com"), b"\0".to_vec(), b"SSH-2.0-x y\r\n".to_vec()] {
        let mut client = world.connect_to("example.com", 22);
        send(&mut client, other);
        assert_eq!(until_end(&mut client), (vec![], End::Reset));
    }
    assert_eq!(world.dialled(), []);
}

#[test]
fn who_is_refused_and_says_nothing_is_reset() {
    let world = World::with("{}", |limits| limits.refused = std::time::Duration::from_millis(20));
    assert_eq!(until_end(&mut world.connect(PUBLIC, 22)), (vec![], End::Reset));
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let world = World::new(r#"{"allow":["example.com","gone.example"]}"#);
    world.name("example.com", &["93.184.215.14"]);
    for (name, why) in [("gone.example", "entity not found"), ("example.com", "Connection refused")] {
        let mut client = world.connect_to(name, 80);
        send(&mut client, format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        let answer = String::from_utf8(until_end(&mut client).0).unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && answer.contains(why), "{answer}");
        let mut client = world.connect_to(name, 443);
        send(&mut client, hello(name));
        assert_eq!(until_end(&mut client), (vec![], End::Reset));
    }
    assert_eq!(world.denials(), []);
}

#[test]
fn a_second_address_is_tried() {
    let world = example();
    world
        .name("example.com", &["93.184.215.99", "93.184.215.14"])
        .serve(PUBLIC, 7, |mut client| send(&mut client, b"x"));
    assert_eq!(until_end(&mut world.connect_to("example.com", 7)), (b"x".to_vec(), End::Closed));
}

/// Row 23 of the list of bypasses.
#[test]
fn bypass_23_a_tightened_policy_cuts_what_is_open() {
    let world = World::new(r#"{"allow":["a.example","b.example"],"deny":["c.example"]}"#);
    world.name("a.example", &["93.184.215.14"]).name("b.example", &["93.184.215.99"]);
    let echo = |mut client: TcpStream| {
        while let [byte] = exactly(&mut client, 1)[..] {
            send(&mut client, [byte]);
        }
    };
    world.serve(PUBLIC, 7, echo).serve(super::world::OTHER, 7, echo);
    let ping = |client: &mut TcpStream| {
        send(client, b"\0");
        assert_eq!(exactly(client, 1), b"\0");
    };
    let (mut first, mut second) = (world.connect_to("a.example", 7), world.connect_to("b.example", 7));
    ping(&mut first);
    ping(&mut second);
    world.proxy.set_policy(policy(r#"{"allow":["a.example","b.example"],"deny":["93.184.215.99"]}"#));
    assert_eq!(until_end(&mut second), (vec![], End::Reset));
    assert_eq!(world.denial().rule, "--deny 93.184.215.99");
    ping(&mut first);
    world.proxy.set_policy(policy("{}"));
    assert_eq!(until_end(&mut first), (vec![], End::Reset));
    assert_eq!(world.denial().target, "a.example:7");
    assert_eq!(world.lookup("a.example"), None);
    world.proxy.set_policy(policy(r#"{"allow":["a.example"]}"#));
    ping(&mut world.connect_to("a.example", 7));
}

#[test]
fn bypass_23_a_tightened_policy_cuts_what_is_being_dialled() {
    let world = World::new(r#"{"allow":["a.example"]}"#);
    world.name("a.example", &["93.184.215.14"]).serve(PUBLIC, 7, |mut client| send(&mut client, b"x"));
    let (arriving, go_on) = world.hold();
    let mut client = world.connect_to("a.example", 7);
    arriving.recv().unwrap();
    // The name is as good as it was; and the address was checked already.
    world.proxy.set_policy(policy(r#"{"allow":["a.example"],"deny":["93.184.215.14"]}"#));
    go_on.send(()).unwrap();
    // A client that begins a request would be told in its words.
    send(&mut client, b"\0");
    assert_eq!(until_end(&mut client), (vec![], End::Reset));
    assert_eq!(world.denial().rule, "--deny 93.184.215.14");
}

#[test]
fn bypass_23_a_denied_name_cuts_what_is_not_looked_into() {
    let world = World::new(r#"{"allow":["93.184.215.14"]}"#);
    world.serve(PUBLIC, 7, |mut client| {
        while let [byte] = exactly(&mut client, 1)[..] {
            send(&mut client, [byte]);
        }
    });
    let ping = |client: &mut TcpStream| {
        send(client, b"\0");
        assert_eq!(exactly(client, 1), b"\0");
    };
    let mut client = world.connect(PUBLIC, 7);
    ping(&mut client);
    world.proxy.set_policy(policy(r#"{"allow":["93.184.215.14","b.example"]}"#));
    ping(&mut client);
    world.proxy.set_policy(policy(r#"{"allow":["93.184.215.14"],"deny":["c.example"]}"#));
    assert_eq!(until_end(&mut client), (vec![], End::Reset));
    assert_eq!(world.denial().target, "93.184.215.14:7");
    // One that was is not in the way.
    let mut client = world.connect(PUBLIC, 7);
    ping(&mut client);
    world.proxy.set_policy(policy(r#"{"allow":["93.184.215.14"],"deny":["c.example","d.example"]}"#));
    ping(&mut client);
    assert_eq!(world.denials(), []);
}

#[test]
fn everything_ends_with_the_proxy() {
    let world = example();
    let (sender, ends) = std::sync::mpsc::channel();
    world.serve(PUBLIC, 7, move |mut client| {
        send(&mut client, b"x");
        _ = sender.send(until_end(&mut client).1);
    });
    let mut client = world.connect_to("example.com", 7);
    assert_eq!(exactly(&mut client, 1), b"x");
    let explicit = world.explicit;
    drop(world.proxy);
    assert_eq!(until_end(&mut client), (vec![], End::Reset));
    assert_eq!(ends.recv().unwrap(), End::Reset);
    assert!(TcpStream::connect(explicit).is_err());
}

#[test]
fn names_are_asked_over_tcp_too() {
    let world = example();
    let mut client = TcpStream::connect(world.dns_tcp).unwrap();
    let framed = |name: &str| {
        let question = question(name);
        [&(question.len() as u16).to_be_bytes()[..], &question].concat()
    };
    send(&mut client, [framed("example.com"), framed("evil.example")].concat());
    let mut answer = || {
        let length = exactly(&mut client, 2);
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        exactly(&mut client, length)
    };
    assert_eq!(address_in(&answer()), world.lookup("example.com"));
    assert_eq!(answer()[3] & 0xf, 3);
    assert_eq!(world.denial().protocol, Protocol::Dns);
}

#[test]
fn many_connections_at_once() {
    let world = example();
    world.serve(PUBLIC, 7, |mut client| {
        let said = exactly(&mut client, 2);
        send(&mut client, said);
    });
    let mut clients: Vec<_> = (0..200u8).map(|number| (number, world.connect_to("example.com", 7))).collect();
    for (number, client) in &mut clients {
        send(client, [0, *number]);
    }
    for (number, client) in &mut clients {
        assert_eq!(until_end(client), (vec![0, *number], End::Closed));
    }
}
