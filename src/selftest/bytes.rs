//! What the two sides say to each other, byte for byte: hellos, questions, requests.

/// The type of a record with a hello in it.
pub const HANDSHAKE: u8 = 22;
pub const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 40];
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: any\r\n\r\n";

pub const SERVER_NAME: u16 = 0;
pub const ENCRYPTED_HELLO: u16 = 0xfe0d;
const PADDING: u16 = 21;

fn counted<const WIDTH: usize>(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [&length[4 - WIDTH..], bytes].concat()
}

/// A ClientHello (RFC 8446) in as many records as `per_record` makes of it.
pub fn hello(name: Option<&[u8]>, more: &[(u16, Vec<u8>)], padding: usize, per_record: usize) -> Vec<u8> {
    let mut extensions: Vec<(u16, Vec<u8>)> = vec![
        (43, vec![2, 3, 4]),
        (10, vec![0, 2, 0, 29]),
        (13, vec![0, 2, 4, 3]),
        (51, [&[0, 36, 0, 29, 0, 32][..], &[7; 32]].concat()),
    ];
    if padding > 0 {
        extensions.push((PADDING, vec![0; padding]));
    }
    extensions.extend(more.iter().cloned());
    if let Some(name) = name {
        extensions.push((SERVER_NAME, counted::<2>(&[&[0][..], &counted::<2>(name)].concat())));
    }
    let extensions: Vec<u8> =
        extensions.iter().flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &counted::<2>(data)].concat()).collect();
    let body = [&[3, 3][..], &[9; 32], &[0, 0, 2, 0x13, 1, 1, 0], &counted::<2>(&extensions)].concat();
    let message = [&[1][..], &counted::<3>(&body)].concat();
    message.chunks(per_record).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &counted::<2>(part)].concat()).collect()
}

/// As the rest of them is sent.
pub fn plain_hello(name: &str) -> Vec<u8> {
    hello(Some(name.as_bytes()), &[], 0, 16 << 10)
}

/// A server's wish for another hello: a ServerHello whose random bytes say so.
pub fn hello_retry() -> Vec<u8> {
    const RANDOM: [u8; 32] = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2,
        0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
    ];
    let extensions = [0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 23];
    let body = [&[3, 3][..], &RANDOM, &[0, 0x13, 1, 0], &counted::<2>(&extensions)].concat();
    let message = [&[2][..], &counted::<3>(&body)].concat();
    [&[HANDSHAKE, 3, 3][..], &counted::<2>(&message)].concat()
}

/// A question of DNS for labels as they are.
pub fn question(labels: &[&[u8]], kind: u16) -> Vec<u8> {
    let mut bytes = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    for label in labels {
        bytes.extend(counted::<1>(label));
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// Behind its length, as over TCP.
pub fn framed(message: &[u8]) -> Vec<u8> {
    counted::<2>(message)
}

/// What a SOCKS5 client says at once: its greeting and its request for a host of `kind`.
pub fn socks(kind: u8, host: &[u8], port: u16) -> Vec<u8> {
    let host = if kind == 3 { counted::<1>(host) } else { host.to_vec() };
    [&[5, 1, 0, 5, 1, 0, kind][..], &host, &port.to_be_bytes()].concat()
}

pub fn get(path: &str, host: &str) -> Vec<u8> {
    format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// The port to which a client of FTP wants to be connected (RFC 959).
pub fn active_port(said: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(said).ok()?;
    let numbers = text.split("PORT ").nth(1)?.lines().next()?;
    let mut last = numbers.trim().rsplit(',').map(str::parse::<u16>);
    let (low, high) = (last.next()?.ok()?, last.next()?.ok()?);
    (low < 256 && high < 256).then_some(high * 256 + low)
}
