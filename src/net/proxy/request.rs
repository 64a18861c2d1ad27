//! A request as it goes on to a server whose requests are looked into: with headers added, and without those by which it
//! could become another one.

use zeroize::Zeroizing;

use crate::net::policy::{Granted, Header};

const MOST_HEADERS: usize = 128;
/// By these some servers take a request for one by another method, or to another path.
const OTHER_METHODS: [&[u8]; 3] = [b"x-http-method-override", b"x-http-method", b"x-method-override"];
const OTHER_PATHS: [&[u8]; 2] = [b"x-original-url", b"x-rewrite-url"];
/// Between the client and us, or what we say ourselves.
const HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "http2-settings"];

/// By which an answer is compressed, or cut where the client says: a secret could be read in pieces.
const PARTS: [&str; 3] = ["accept-encoding", "range", "if-range"];

/// What rules ask of a request whose head was found to be well-formed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub method: String,
    /// Path and query, also where a whole URL was sent.
    pub target: String,
    pub closes: bool,
    minor: u8,
}

impl Asked {
    pub fn read(head: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        request.parse(head).ok()?;
        let (method, target, minor) = (request.method?, request.path?, request.version?);
        let target = match target.split_once("://").filter(|_| !target.starts_with('/')) {
            Some((_, rest)) => match rest.find(['/', '?']) {
                Some(at) if rest[at..].starts_with('/') => rest[at..].to_owned(),
                Some(at) => format!("/{}", &rest[at..]),
                None => "/".to_owned(),
            },
            None => target.to_owned(),
        };
        let asks = |header: &httparse::Header<'_>| {
            header.name.eq_ignore_ascii_case("connection")
                && header.value.split(|&byte| byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(b"close"))
        };
        let closes = minor == 0 || request.headers.iter().any(asks);
        Some(Self { method: method.to_owned(), target, closes, minor })
    }

    /// Why it may be another request to the server than to us, where rules are about methods.
    pub fn overridden(head: &[u8], granted: &Granted) -> Option<&'static str> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        request.parse(head).ok()?;
        let names = |wanted: &[&[u8]]| {
            // Many servers' programs see all of these as `_`.
            let plain = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
            request
                .headers
                .iter()
                .any(|header| wanted.iter().any(|name| header.name.bytes().map(plain).eq(name.iter().copied())))
        };
        match granted {
            Granted { by_method: true, .. } if names(&OTHER_METHODS) => Some("a header of it names another method"),
            Granted { target: Some(_), .. } if names(&OTHER_PATHS) => Some("a header of it names another path"),
            _ => None,
        }
    }

    /// The head that the server is sent in place of `head`. `whole`: its answer must be found in it, and so be
    /// neither compressed nor a part.
    pub fn head(&self, head: &[u8], granted: &Granted, upgrade: bool, whole: bool) -> Zeroizing<Vec<u8>> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        // It was parsed before.
        _ = request.parse(head);
        let added: usize = granted.add.iter().map(|header| header.name().len() + header.value().len() + 4).sum();
        // With room for all of it, so that no secret stays behind when it grows.
        let mut out = Zeroizing::new(Vec::with_capacity(head.len() + self.target.len() + added + 256));
        let mut line = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| out.extend_from_slice(part));
            out.extend_from_slice(b"\r\n");
        };
        let target = granted.target.as_ref().unwrap_or(&self.target);
        let version: &[u8] = if self.minor == 0 { b"HTTP/1.0" } else { b"HTTP/1.1" };
        line(&[self.method.as_bytes(), b" ", target.as_bytes(), b" ", version]);
        for header in request.headers.iter() {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            // Some servers take `X_Key` for `X-Key`.
            let replaced =
                |own: &Header| header.name.replace('_', "-").eq_ignore_ascii_case(&own.name().replace('_', "-"));
            if HOP.into_iter().any(is) || granted.add.iter().any(replaced) || (whole && PARTS.into_iter().any(is)) {
                continue;
            }
            line(&[header.name.as_bytes(), b": ", header.value]);
        }
        if whole {
            line(&[b"Accept-Encoding: identity"]);
        }
        for header in &granted.add {
            line(&[header.name().as_bytes(), b": ", header.value()]);
        }
        match (upgrade, self.closes) {
            (true, _) => line(&[b"Connection: Upgrade"]),
            (false, true) => line(&[b"Connection: close"]),
            (false, false) => {}
        }
        line(&[]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(head: &str, granted: &Granted, whole: bool) -> String {
        let asked = Asked::read(head.as_bytes()).unwrap();
        String::from_utf8(asked.head(head.as_bytes(), granted, false, whole).to_vec()).unwrap()
    }

    #[test]
    fn headers_are_replaced_and_not_only_added() {
        let add = vec![Header::new("X-Key", "hunter2", |_| None).unwrap()];
        let granted = Granted { add, target: None, by_method: false };
        let head = "GET /a?b HTTP/1.1\r\nHost: x.com\r\nx-key: mine\r\nX_Key: mine\r\nAccept-Encoding: gzip\r\nRange: bytes=0-9\r\nIf-Range: x\r\n\
                    Connection: X-Key\r\nTE: trailers\r\nA: b\r\n\r\n";
        assert_eq!(
            sent(head, &granted, true),
            "GET /a?b HTTP/1.1\r\nHost: x.com\r\nA: b\r\nAccept-Encoding: identity\r\nX-Key: hunter2\r\n\r\n"
        );
        let nothing = Granted { target: Some("/c".to_owned()), ..Granted::default() };
        assert_eq!(
            sent("GET /a HTTP/1.1\r\nHost: x.com\r\nConnection: close\r\n\r\n", &nothing, false),
            "GET /c HTTP/1.1\r\nHost: x.com\r\nConnection: close\r\n\r\n"
        );
        let part = "GET /a HTTP/1.1\r\nHost: x.com\r\nRange: bytes=0-9\r\n\r\n";
        assert_eq!(sent(part, &Granted::default(), false), part);
    }

    #[test]
    fn a_whole_url_is_sent_as_its_path() {
        for (target, expected) in [
            ("http://x.com/a?b", "/a?b"),
            ("http://x.com", "/"),
            ("http://x.com?a/b", "/?a/b"),
            ("/a?u=http://y/", "/a?u=http://y/"),
        ] {
            let asked = Asked::read(format!("GET {target} HTTP/1.1\r\nHost: x.com\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(asked.target, expected);
        }
    }

    #[test]
    fn bypass_25_a_method_or_path_is_not_named_elsewhere() {
        let by_method = Granted { by_method: true, ..Granted::default() };
        let by_path = Granted { target: Some("/".to_owned()), ..Granted::default() };
        let overridden = |name: &str, granted| {
            Asked::overridden(format!("POST / HTTP/1.1\r\n{name}: DELETE\r\n\r\n").as_bytes(), granted).is_some()
        };
        for name in ["X-HTTP-Method-Override", "x-method-override", "X-Http-Method", "X_HTTP_Method_Override"] {
            assert!(overridden(name, &by_method) && !overridden(name, &by_path), "{name}");
        }
        for name in ["X-Original-URL", "x-rewrite-url", "X_Rewrite_URL"] {
            assert!(overridden(name, &by_path) && !overridden(name, &by_method), "{name}");
        }
        assert!(!overridden("X-Method", &by_method));
    }
}
