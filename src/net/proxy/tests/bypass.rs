//! Known ways around a filter of names: each must end at the proxy, and nothing may be dialled or sent that it asks for.

use std::net::{Ipv4Addr, Shutdown};

use super::{
    super::hello::tests::{hello, split_hello},
    world::{End, OTHER, PUBLIC, World, exactly, send, until_end},
};
use crate::net::Protocol;

/// What any server of TLS may say.
const ALERT: &[u8] = b"\x15\x03\x03\0\x02\x02\x28";

/// A hello without extensions.
const NAMELESS: &[u8] = b"\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x03rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr\0\0\x02\x13\x01\x01\0";

const EXAMPLE: &str = r#"{"allow":["example.com"]}"#;

fn example() -> World {
    let world = World::new(EXAMPLE);
    world.name("example.com", &["93.184.215.14"]).name("evil.example", &["93.184.215.99"]);
    world
}

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn bypass_01_an_address_is_not_the_name_that_it_has() {
    let world = example();
    for first in [hello("example.com"), get("example.com").into_bytes(), b"SSH-2.0-x\r\n".to_vec()] {
        let mut client = world.connect(PUBLIC, 443);
        send(&mut client, first);
        until_end(&mut client);
        let denial = world.denial();
        assert_eq!((denial.protocol, denial.target.as_str()), (Protocol::Tcp, "93.184.215.14:443"));
        assert_eq!(denial.hint.as_deref(), Some("--allow 93.184.215.14"));
    }
    assert_eq!(world.dialled(), []);
}

/// The address that the client chose is never dialled, whatever name it shows.
#[test]
fn bypass_02_a_shown_name_leads_to_its_own_address() {
    let world = example();
    for first in [hello("example.com"), get("example.com").into_bytes()] {
        let mut client = world.connect(OTHER, 443);
        send(&mut client, first);
        until_end(&mut client);
        assert_eq!(world.denial().target, "93.184.215.99:443");
    }
    // A made-up address that was given to nobody.
    let mut client = world.connect(Ipv4Addr::new(198, 19, 0, 7), 443);
    send(&mut client, hello("example.com"));
    assert_eq!(until_end(&mut client).1, End::Reset);
    assert_eq!(world.denial().rule, "no name stands behind this address");
    assert_eq!((world.dialled(), world.resolved()), (vec![], vec![]));
}

#[test]
fn bypass_03_every_request_of_a_connection_is_for_the_name() {
    let world = example();
    let got = world.record(PUBLIC, 80, b"");
    let mut client = world.connect_to("example.com", 80);
    let fine =
        [get("example.com"), "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello".to_owned()];
    let chunked = "POST / HTTP/1.1\r\nHost: EXAMPLE.com:80\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n";
    send(&mut client, [&fine.concat(), chunked, &get("evil.example")].concat());
    until_end(&mut client);
    assert_eq!(String::from_utf8(got.recv().unwrap()).unwrap(), [&fine.concat(), chunked].concat());
    let denial = world.denial();
    assert_eq!((denial.protocol, denial.rule.as_str()), (Protocol::Http, "the request is for evil.example"));
}

#[test]
fn bypass_03_a_hello_has_the_name_on_it() {
    let world = example();
    let got = world.record(PUBLIC, 443, b"");
    let mut client = world.connect_to("example.com", 443);
    send(&mut client, hello("evil.example"));
    assert_eq!(until_end(&mut client), (vec![], End::Reset));
    assert_eq!(got.recv().unwrap(), b"");
    let denial = world.denial();
    assert_eq!((denial.protocol, denial.target.as_str()), (Protocol::Tls, "example.com:443"));
    assert_eq!(denial.rule, "the name on its hello is evil.example");
}

/// A server that asks for a second hello may go by the name on that one.
#[test]
fn bypass_03_a_second_hello_has_the_name_on_it_too() {
    use sha2::Digest;
    let retry: Vec<u8> =
        [&b"\x16\x03\x03\0\x2a\x02\0\0\x26\x03\x03"[..], &sha2::Sha256::digest(b"HelloRetryRequest"), b"rest"].concat();
    let asked = retry.clone();
    let world = example();
    let (sender, got) = std::sync::mpsc::channel();
    world.serve(PUBLIC, 443, move |mut client| {
        exactly(&mut client, hello("example.com").len());
        send(&mut client, &asked);
        _ = sender.send(until_end(&mut client).0);
    });
    const CHANGE: &[u8] = b"\x14\x03\x03\0\x01\x01";
    for (second, passes) in [("example.com", true), ("evil.example", false)] {
        let mut client = world.connect_to("example.com", 443);
        // Early data, sent before the server has said anything.
        send(&mut client, [&hello("example.com")[..], b"\x17\x03\x03\0\x05early"].concat());
        assert_eq!(exactly(&mut client, retry.len()), retry);
        send(&mut client, [CHANGE, &hello(second), b"\x17\x03\x03\0\x04late"].concat());
        client.shutdown(std::net::Shutdown::Write).ok();
        until_end(&mut client);
        let before = [b"\x17\x03\x03\0\x05early", CHANGE].concat();
        let all = [&before[..], &hello(second), b"\x17\x03\x03\0\x04late"].concat();
        assert_eq!(got.recv().unwrap(), if passes { all } else { before });
    }
    assert_eq!(world.denial().rule, "the name on its hello is evil.example");
}

#[test]
fn bypass_04_a_hello_without_a_name_goes_nowhere() {
    let world = example();
    let got = world.record(PUBLIC, 443, b"");
    let ssl2 = b"\x80\x2e\x01\x00\x02\0\x15\0\0\0\x10".to_vec();
    for first in [NAMELESS.to_vec(), ssl2, b"\x17\x03\x03\0\x05hello".to_vec(), b"\x14\x03\x03\0\x01\x01".to_vec()] {
        let mut client = world.connect_to("example.com", 443);
        send(&mut client, first);
        assert_eq!(until_end(&mut client), (vec![], End::Reset));
        assert_eq!(got.recv().unwrap(), b"");
        assert_eq!(world.denial().protocol, Protocol::Tls);
    }
}

/// In segments of one byte, in records of a few, on a port where nobody expects it.
#[test]
fn bypass_05_a_hello_in_pieces_is_read_on_any_port() {
    let world = example();
    let got = world.record(PUBLIC, 2222, ALERT);
    for (name, passes) in [("example.com", true), ("evil.example", false)] {
        let mut client = world.connect_to("example.com", 2222);
        let hello = split_hello(name, 7);
        for byte in &hello {
            send(&mut client, [*byte]);
        }
        client.shutdown(std::net::Shutdown::Write).ok();
        until_end(&mut client);
        assert_eq!(got.recv().unwrap(), if passes { hello } else { vec![] }, "{name}");
    }
    assert_eq!(world.denial().protocol, Protocol::Tls);
}

#[test]
fn bypass_06_what_is_ambiguous_is_answered_here() {
    let world = example();
    let got = world.record(PUBLIC, 80, b"");
    for request in [
        "GET http://evil.example/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\nHost: evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\n evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET /\r\n",
        "get / http/1.1\r\nhost: evil.example\r\n\r\n",
        "CONNECT evil.example:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: h2c\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "FOO / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ] {
        let mut client = world.connect_to("example.com", 80);
        // In pieces, so that nothing is decided by what happens to come at once.
        for piece in request.as_bytes().chunks(5) {
            send(&mut client, piece);
        }
        let (answer, end) = until_end(&mut client);
        assert!(answer.starts_with(b"HTTP/1.1 403 Forbidden\r\n"), "{request:?}: {answer:?} {end:?}");
        assert_eq!(got.recv().unwrap(), b"", "{request:?}");
        assert_eq!(world.denial().protocol, Protocol::Http);
    }
}

/// An offer that the server doesn't take up changes nothing.
#[test]
fn bypass_06_a_web_socket_begins_when_the_server_says_so() {
    const OFFER: &str = "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (answer, switched) in [
        (
            &b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
               Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"[..],
            true,
        ),
        // As one that answers with whatever code it is asked for.
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        let world = example();
        let (sender, got) = std::sync::mpsc::channel();
        world.serve(PUBLIC, 80, move |mut client| {
            exactly(&mut client, OFFER.len());
            send(&mut client, answer);
            _ = sender.send(until_end(&mut client).0);
        });
        let mut client = world.connect_to("example.com", 80);
        send(&mut client, [OFFER, &get("evil.example")].concat());
        assert_eq!(exactly(&mut client, answer.len()), answer);
        client.shutdown(std::net::Shutdown::Write).ok();
        let sent = got.recv().unwrap();
        assert_eq!(String::from_utf8(sent).unwrap(), if switched { get("evil.example") } else { String::new() });
        if !switched {
            assert_eq!(world.denial().rule, "the request is for evil.example");
        }
        assert_eq!(world.denials(), []);
    }
}

#[test]
fn bypass_07_one_name_in_any_spelling_is_resolved_in_one() {
    let world = example();
    let got = world.record(PUBLIC, 80, b"");
    let mut client = world.connect_to("EXAMPLE.Com", 80);
    send(&mut client, get("Example.COM."));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    until_end(&mut client);
    assert_eq!(String::from_utf8(got.recv().unwrap()).unwrap(), get("Example.COM."));
    assert_eq!(world.resolved(), ["example.com"]);
    assert_eq!(world.lookup("example.com\0.evil.example"), None);
}

#[test]
fn bypass_08_a_wildcard_ends_at_a_dot() {
    let world = World::new(r#"{"allow":["*.example.com"]}"#);
    assert!(world.lookup("a.example.com").is_some());
    for none in ["example.com", "evilexample.com", "a.example.com.evil.example"] {
        assert_eq!(world.lookup(none), None, "{none}");
        let denial = world.denial();
        assert_eq!((denial.protocol, denial.target.as_str()), (Protocol::Dns, none));
    }
}

#[test]
fn bypass_09_and_10_a_name_that_turns_private_is_not_dialled() {
    for private in ["127.0.0.1", "10.0.0.1", "::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "fe80::1", "100.64.0.1"] {
        let world = World::new(EXAMPLE);
        world.name("example.com", &[private]);
        let mut client = world.connect_to("example.com", 443);
        send(&mut client, hello("example.com"));
        assert_eq!(until_end(&mut client), (vec![], End::Reset));
        assert_eq!(world.denial().target, "example.com:443");
        assert_eq!(world.dialled(), [], "{private}");
    }
}

#[test]
fn bypass_10_only_addresses_that_were_checked_are_dialled() {
    let world = World::new(EXAMPLE);
    world.name("example.com", &["10.0.0.1", "93.184.215.14", "169.254.169.254"]);
    let got = world.record(PUBLIC, 443, ALERT);
    let mut client = world.connect_to("example.com", 443);
    send(&mut client, hello("example.com"));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    until_end(&mut client);
    assert_eq!(got.recv().unwrap(), hello("example.com"));
    assert_eq!(world.dialled(), [(PUBLIC, 443).into()]);
    // The host's own address is as shut as a private one.
    let world = World::new(EXAMPLE);
    world.name("example.com", &["93.184.215.14"]).own(PUBLIC);
    let mut client = world.connect_to("example.com", 443);
    send(&mut client, hello("example.com"));
    assert_eq!(until_end(&mut client), (vec![], End::Reset));
    let denial = world.denial();
    assert_eq!(
        (denial.rule.as_str(), denial.hint.as_deref()),
        ("the host's own addresses", Some("--allow-private example.com:443"))
    );
}

#[test]
fn bypass_11_metadata_is_not_dialled() {
    let world = World::new(r#"{"mode":"open","allow":["0.0.0.0/0","metadata.google.internal"]}"#);
    world.name("metadata.google.internal", &["169.254.169.254"]);
    let mut clients = vec![world.connect_to("metadata.google.internal", 80)];
    for address in ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200"] {
        clients.push(world.connect(address.parse().unwrap(), 80));
    }
    for mut client in clients {
        send(&mut client, get("metadata.google.internal"));
        assert!(until_end(&mut client).0.starts_with(b"HTTP/1.1 403 "));
        assert_eq!(world.denial().rule, "cloud metadata addresses");
    }
    assert_eq!(world.dialled(), []);
}

#[test]
fn bypass_12_nobody_hears_a_question() {
    let world = World::new(r#"{"mode":"open"}"#);
    for number in 0..50 {
        assert!(world.lookup(&format!("c2VjcmV0{number}.evil.example")).is_some());
    }
    assert_eq!(world.resolved(), Vec::<String>::new());
}

#[test]
fn bypass_01_a_denied_name_is_not_asked_for_at_its_address() {
    let world = World::new(r#"{"mode":"public","deny":["evil.example","*.evil.example:443"]}"#);
    let tls = world.record(PUBLIC, 443, ALERT);
    let http = world.record(PUBLIC, 80, b"");
    let request = |name: &str| format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").into_bytes();
    for (port, got, said, rule) in [
        (443, &tls, hello("evil.example"), Some("--deny evil.example")),
        (443, &tls, hello("a.evil.example"), Some("--deny *.evil.example:443")),
        (443, &tls, hello("good.example"), None),
        (443, &tls, NAMELESS.to_vec(), None),
        (443, &tls, b"\x01neither".to_vec(), None),
        (80, &http, request("evil.example"), Some("--deny evil.example")),
        (80, &http, [request("good.example"), request("evil.example")].concat(), Some("--deny evil.example")),
        (80, &http, request("good.example"), None),
        (80, &http, request("93.184.215.14"), None),
    ] {
        let mut client = world.connect(PUBLIC, port);
        send(&mut client, &said);
        _ = client.shutdown(Shutdown::Write);
        let text = said.escape_ascii().to_string();
        match rule {
            Some(rule) => {
                assert_eq!(world.denial().rule, rule, "{text}");
                assert!(!got.recv().unwrap().escape_ascii().to_string().contains("evil"), "{text}");
            }
            None => assert_eq!(got.recv().unwrap(), said, "{text}"),
        }
    }
}

#[test]
fn bypass_28_mail_is_not_sent() {
    let world = World::new(r#"{"mode":"open"}"#);
    for port in [25, 465, 587] {
        let mut client = world.connect(PUBLIC, port);
        send(&mut client, b"EHLO me\r\n");
        assert_eq!(until_end(&mut client), (vec![], End::Reset));
        assert_eq!(world.denial().hint, Some(format!("--allow 93.184.215.14:{port}")));
    }
    assert_eq!(world.dialled(), []);
}

#[test]
fn bypass_29_connections_are_counted() {
    let world = World::with(r#"{"mode":"open"}"#, |limits| limits.connections = 3);
    world.serve(PUBLIC, 1, |mut client| {
        send(&mut client, b"hello");
        until_end(&mut client);
    });
    let mut held: Vec<_> = (0..3).map(|_| world.connect(PUBLIC, 1)).collect();
    for client in &mut held {
        assert_eq!(exactly(client, 5), b"hello");
    }
    assert_eq!(until_end(&mut world.connect(PUBLIC, 1)), (vec![], End::Reset));
    assert_eq!(world.denial().rule, "more than 3 connections at once");
    // One that ends makes room.
    let mut last = held.pop().unwrap();
    last.shutdown(std::net::Shutdown::Write).unwrap();
    until_end(&mut last);
    let room = || exactly_or_reset(&mut world.connect(PUBLIC, 1));
    assert!((0..1000).any(|_| room() == b"hello"));
}

/// The kernel would keep them for as long as the client likes, each with all that it doesn't read.
#[test]
fn bypass_29_connections_count_until_the_client_has_their_last_byte() {
    const MORE_THAN_IT_TAKES_UNREAD: usize = 200 << 10;
    let world = World::with(r#"{"mode":"open"}"#, |limits| limits.connections = 1);
    world.serve(PUBLIC, 1, |mut client| {
        until_end(&mut client);
        send(&mut client, vec![b'x'; MORE_THAN_IT_TAKES_UNREAD]);
    });
    let mut unread = world.connect(PUBLIC, 1);
    unread.shutdown(std::net::Shutdown::Write).unwrap();
    // Both sides have ended by then.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(until_end(&mut world.connect(PUBLIC, 1)), (vec![], End::Reset));
    assert_eq!(world.denial().rule, "more than 1 connections at once");
    assert_eq!(until_end(&mut unread), (vec![b'x'; MORE_THAN_IT_TAKES_UNREAD], End::Closed));
    let room = || {
        std::thread::sleep(std::time::Duration::from_millis(10));
        exactly_or_reset(&mut world.connect(PUBLIC, 1))
    };
    assert!((0..1000).any(|_| room().len() == MORE_THAN_IT_TAKES_UNREAD));
    // Nor is one waited for that will never read.
    let unread = std::iter::repeat_with(|| world.connect(PUBLIC, 1))
        // The one before may have its place yet.
        .find(|client| client.shutdown(std::net::Shutdown::Write).is_ok())
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    // What has come and was not read makes a reset of it.
    drop(unread);
    assert!((0..1000).any(|_| room().len() == MORE_THAN_IT_TAKES_UNREAD));
}

fn exactly_or_reset(client: &mut std::net::TcpStream) -> Vec<u8> {
    client.shutdown(std::net::Shutdown::Write).ok();
    until_end(client).0
}

/// One byte at a time, and never the last one.
#[test]
fn bypass_29_a_slow_head_is_given_up() {
    let world = World::with(EXAMPLE, |limits| limits.head = std::time::Duration::from_millis(50));
    world.name("example.com", &["93.184.215.14"]);
    let got = world.record(PUBLIC, 80, b"");
    for (first, protocol) in [
        (b"GET / HTTP/1.1\r\nHost: example".to_vec(), Protocol::Http),
        (hello("example.com")[..50].to_vec(), Protocol::Tls),
        (b"FOO".to_vec(), Protocol::Tcp),
    ] {
        let mut client = world.connect_to("example.com", 80);
        send(&mut client, first);
        until_end(&mut client);
        assert_eq!(world.denial().protocol, protocol);
        assert_eq!(got.recv().unwrap(), b"");
    }
}

#[test]
fn bypass_29_an_endless_head_is_given_up() {
    let world = example();
    let got = world.record(PUBLIC, 80, b"");
    let mut client = world.connect_to("example.com", 80);
    send(&mut client, format!("GET / HTTP/1.1\r\nHost: example.com\r\nX: {}", "x".repeat(64 << 10)));
    until_end(&mut client);
    assert_eq!(world.denial().rule, "its head is too long");
    assert_eq!(got.recv().unwrap(), b"");
}
