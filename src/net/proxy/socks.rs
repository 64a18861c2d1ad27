//! What a client says to a SOCKS5 proxy (RFC 1928): pure, strict, and only as much as a TCP connection takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::policy::Host;

pub(super) const VERSION: u8 = 5;

/// Go on: no name and no password are wanted.
pub(super) const WELCOME: [u8; 2] = [VERSION, 0];
/// The client insists on one.
pub(super) const UNWELCOME: [u8; 2] = [VERSION, 0xff];

/// Codes of an answer.
pub(super) const CONNECTED: u8 = 0;
pub(super) const REFUSED: u8 = 2;
pub(super) const UNREACHABLE: u8 = 4;
const NO_SUCH_COMMAND: u8 = 7;
const NO_SUCH_ADDRESS: u8 = 8;
const FAILED: u8 = 1;

/// An answer, with an address that says nothing.
pub(super) fn answer(code: u8) -> [u8; 10] {
    [VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub end: usize,
    /// Whether the client would come in without a password.
    pub open: bool,
}

/// `None`: it is not whole yet.
pub(super) fn greeting(bytes: &[u8]) -> Option<Greeting> {
    let (&count, rest) = bytes.get(1..)?.split_first()?;
    let methods = rest.get(..count.into())?;
    Some(Greeting { end: 2 + methods.len(), open: methods.contains(&0) })
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub end: usize,
    pub host: Host,
    pub port: u16,
}

/// Why a request is none: the answer's code, and words.
pub(super) type Wrong = (u8, String);

/// `None`: it is not whole yet.
pub(super) fn request(bytes: &[u8]) -> Result<Option<Request>, Wrong> {
    let wrong = |code, why: &str| Err((code, why.to_owned()));
    let Some((&[version, command, reserved, kind], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    if version != VERSION || reserved != 0 {
        return wrong(FAILED, "it is no request of SOCKS5");
    }
    if command != 1 {
        return wrong(NO_SUCH_COMMAND, "SOCKS5 is for connections alone here");
    }
    let (length, start) = match (kind, rest.first()) {
        (1, _) => (4, 0),
        (4, _) => (16, 0),
        (3, Some(&length)) => (length.into(), 1),
        (3, None) => return Ok(None),
        _ => return wrong(NO_SUCH_ADDRESS, "it has an unknown kind of address"),
    };
    let Some(address) = rest.get(start..start + length) else { return Ok(None) };
    let host = if let Ok(v4) = <[u8; 4]>::try_from(address)
        && kind == 1
    {
        Host::Address(IpAddr::V4(Ipv4Addr::from(v4)))
    } else if let Ok(v6) = <[u8; 16]>::try_from(address)
        && kind == 4
    {
        Host::Address(IpAddr::V6(Ipv6Addr::from(v6)))
    } else {
        Host::from_wire(address).map_err(|error| (REFUSED, error.to_string()))?
    };
    let Some(&[high, low]) = rest[start + length..].first_chunk() else { return Ok(None) };
    let port = u16::from_be_bytes([high, low]);
    if port == 0 {
        return wrong(FAILED, "there is no port 0");
    }
    Ok(Some(Request { end: 4 + start + length + 2, host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &[u8]) -> Vec<u8> {
        [&[5, 1, 0, 3, name.len() as u8], name, &443u16.to_be_bytes()].concat()
    }

    fn host(text: &str) -> Host {
        Host::from_wire(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_request_has_a_name_or_an_address() {
        let v6 = [
            &b"\x05\x01\0\x04"[..],
            &[0x20, 1, 0x48, 0x60, 0x48, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x88],
            b"\x01\xbb",
        ]
        .concat();
        for (bytes, expected) in [
            (named(b"Example.com"), host("example.com")),
            (named(b"8.8.8.8"), host("8.8.8.8")),
            (b"\x05\x01\0\x01\x08\x08\x08\x08\x01\xbb".to_vec(), host("8.8.8.8")),
            (v6, host("[2001:4860:4860::8888]")),
        ] {
            for length in 0..bytes.len() {
                assert_eq!(request(&bytes[..length]), Ok(None), "{length}");
            }
            let followed = [&bytes[..], b"more"].concat();
            assert_eq!(request(&followed), Ok(Some(Request { end: bytes.len(), host: expected, port: 443 })));
        }
    }

    #[test]
    fn bypass_07_a_name_ends_where_it_says() {
        for name in
            [&b"example.com\0.evil.example"[..], b"example.com\0", b"", b"0x7f.1", b"2130706433", b"\xff", b"a b"]
        {
            assert_eq!(request(&named(name)).unwrap_err().0, REFUSED, "{name:?}");
        }
    }

    #[test]
    fn what_is_not_for_a_connection_is_refused() {
        for (bytes, code) in [
            (&b"\x05\x02\0\x01\x08\x08\x08\x08\x01\xbb"[..], NO_SUCH_COMMAND),
            (b"\x05\x03\0\x01\x08\x08\x08\x08\x01\xbb", NO_SUCH_COMMAND),
            (b"\x05\x01\0\x02\x08\x08\x08\x08\x01\xbb", NO_SUCH_ADDRESS),
            (b"\x04\x01\0\x01\x08\x08\x08\x08\x01\xbb", FAILED),
            (b"\x05\x01\x01\x01\x08\x08\x08\x08\x01\xbb", FAILED),
            (b"\x05\x01\0\x01\x08\x08\x08\x08\0\0", FAILED),
        ] {
            assert_eq!(request(bytes).unwrap_err().0, code, "{bytes:?}");
        }
    }

    #[test]
    fn a_client_may_come_in_without_a_password() {
        assert_eq!(greeting(b"\x05\x02\x02\0rest"), Some(Greeting { end: 4, open: true }));
        assert_eq!(greeting(b"\x05\x01\x02"), Some(Greeting { end: 3, open: false }));
        for short in [&b""[..], b"\x05", b"\x05\x02", b"\x05\x02\0"] {
            assert_eq!(greeting(short), None);
        }
    }
}
