//! Clients that know of a proxy are under the same rules.

use std::net::Shutdown;

use super::{
    super::hello::tests::hello,
    world::{End, OTHER, PUBLIC, World, exactly, send, until_end},
};
use crate::net::Protocol;

const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

fn example() -> World {
    let world = World::new(r#"{"allow":["example.com","other.example"]}"#);
    world.name("example.com", &["93.184.215.14"]).name("other.example", &["93.184.215.99"]);
    world
}

fn connect(target: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

fn socks(name: &[u8], port: u16) -> Vec<u8> {
    [&[5, 1, 0, 3, name.len() as u8], name, &port.to_be_bytes()].concat()
}

#[test]
fn a_tunnel_is_read_as_any_connection() {
    let world = example();
    let got = world.record(PUBLIC, 443, b"\x15\x03\x03\0\x02\x02\x28");
    for (name, passes) in [("example.com", true), ("other.example", false)] {
        let mut client = world.connect_explicit();
        // The hello is not waited with by every client.
        send(&mut client, [connect("example.com:443").as_bytes(), &hello(name)].concat());
        assert_eq!(exactly(&mut client, CONNECTED.len()), CONNECTED);
        client.shutdown(Shutdown::Write).ok();
        until_end(&mut client);
        assert_eq!(got.recv().unwrap(), if passes { hello(name) } else { vec![] });
    }
    assert_eq!(world.denial().protocol, Protocol::Tls);
}

#[test]
fn bypass_06_a_tunnel_in_a_tunnel_is_none() {
    let world = example();
    let got = world.record(PUBLIC, 3128, b"");
    let mut client = world.connect_explicit();
    send(&mut client, [connect("example.com:3128"), connect("evil.example:443")].concat());
    let (answer, _) = until_end(&mut client);
    assert!(answer.strip_prefix(CONNECTED).unwrap().starts_with(b"HTTP/1.1 403 "));
    assert_eq!(got.recv().unwrap(), b"");
    assert_eq!(world.denial().rule, "it asks a server for a tunnel");
}

#[test]
fn what_is_not_allowed_is_told() {
    let world = example();
    for (target, denied) in [
        ("evil.example:443", "evil.example:443"),
        ("93.184.215.14:443", "93.184.215.14:443"),
        ("169.254.169.254:80", "169.254.169.254:80"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("localhost:80", "localhost:80"),
        ("[::1]:80", "[::1]:80"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
        ("198.18.200.1:80", "198.18.200.1:80"),
    ] {
        let mut client = world.connect_explicit();
        send(&mut client, connect(target));
        let (answer, end) = until_end(&mut client);
        assert!(answer.starts_with(b"HTTP/1.1 403 Forbidden\r\n"), "{target}");
        assert_eq!(end, End::Closed);
        let denial = world.denial();
        assert_eq!((denial.protocol, denial.target.as_str()), (Protocol::Http, denied));
    }
    assert_eq!(world.dialled(), []);
}

#[test]
fn bypass_09_numbers_and_odd_names_are_not_understood() {
    let world = example();
    for target in
        ["0x7f.1:80", "2130706433:80", "127.1:80", "example.com\0.evil.example:80", "::1:80", "a b:80", "x@y:80"]
    {
        let mut client = world.connect_explicit();
        send(&mut client, connect(target));
        let (answer, _) = until_end(&mut client);
        assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\n"), "{target}");
        let denial = world.denial();
        assert_eq!((denial.protocol, denial.target), (Protocol::Http, world.explicit.to_string()), "{target}");
    }
    for name in [&b"example.com\0.evil.example"[..], b"0x7f.1", b"2130706433", b"127.1"] {
        let mut client = world.connect_explicit();
        send(&mut client, [b"\x05\x01\0", &socks(name, 80)[..]].concat());
        assert_eq!(until_end(&mut client).0[..4], [5, 0, 5, 2], "{name:?}");
        assert_eq!(world.denial().protocol, Protocol::Socks);
    }
    assert_eq!((world.dialled(), world.resolved()), (vec![], vec![]));
}

#[test]
fn whole_urls_are_passed_on_one_a_connection() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    const SENT: &str = "POST /x?y HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let world = example();
    let (sender, got) = std::sync::mpsc::channel();
    world.serve(PUBLIC, 80, move |mut client| {
        _ = sender.send(exactly(&mut client, SENT.len()));
        send(&mut client, ANSWER);
    });
    let mut client = world.connect_explicit();
    send(
        &mut client,
        "POST http://example.com/x?y HTTP/1.1\r\nHost: example.com\r\nProxy-Connection: keep-alive\r\nContent-Length: 5\r\n\r\n",
    );
    // A second one behind it gets nowhere.
    send(&mut client, "helloGET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(until_end(&mut client), (ANSWER.to_vec(), End::Closed));
    assert_eq!(String::from_utf8(got.recv().unwrap()).unwrap(), SENT);

    for (request, status) in [
        ("GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", "403 Forbidden"),
        ("GET http://example.com:8080/ HTTP/1.1\r\nHost: example.com:8080\r\n\r\n", "502 Bad Gateway"),
        ("GET http://example.com/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "400 Bad Request"),
    ] {
        let mut client = world.connect_explicit();
        send(&mut client, request);
        let answer = String::from_utf8(until_end(&mut client).0).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:?}: {answer}");
    }
}

#[test]
fn socks_leads_to_names_and_made_up_addresses() {
    let world = example();
    world.serve(OTHER, 22, |mut client| {
        send(&mut client, b"SSH-2.0-server\r\n");
        until_end(&mut client);
    });
    let made_up = world.lookup("other.example").unwrap();
    let by_address = [&[5, 1, 0, 1][..], &made_up.octets(), &22u16.to_be_bytes()].concat();
    for request in [socks(b"other.example", 22), by_address] {
        let mut client = world.connect_explicit();
        send(&mut client, b"\x05\x02\x02\0");
        assert_eq!(exactly(&mut client, 2), [5, 0]);
        send(&mut client, request);
        assert_eq!(exactly(&mut client, 10), [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(exactly(&mut client, 16), b"SSH-2.0-server\r\n");
    }
    for (request, code) in [(socks(b"evil.example", 22), 2), (socks(b"other.example", 23), 4)] {
        let mut client = world.connect_explicit();
        send(&mut client, [b"\x05\x01\0", &request[..]].concat());
        assert_eq!(until_end(&mut client).0[..4], [5, 0, 5, code]);
    }
    let mut client = world.connect_explicit();
    send(&mut client, b"\x05\x01\x02");
    assert_eq!(until_end(&mut client), (vec![5, 0xff], End::Closed));
}

#[test]
fn the_host_is_reached_by_a_name_of_its_own_where_it_was_opened() {
    let world = World::new(r#"{"allow_private":["localhost:5432"]}"#);
    world.name("host.fumehood.internal", &["127.0.0.1"]).name("localhost", &["127.0.0.1"]);
    world.serve([127, 0, 0, 1], 5432, |mut client| send(&mut client, b"hello"));
    assert_eq!(until_end(&mut world.connect_to("host.fumehood.internal", 5432)).0, b"hello");
    let mut client = world.connect_explicit();
    send(&mut client, connect("localhost:5432"));
    assert_eq!(until_end(&mut client).0, [CONNECTED, b"hello"].concat());
    let mut client = world.connect_explicit();
    send(&mut client, connect("localhost:5433"));
    assert!(until_end(&mut client).0.starts_with(b"HTTP/1.1 403 "));
}
