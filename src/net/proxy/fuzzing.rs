//! The parsers of a client's first bytes, for the fuzz targets.

use super::{
    answer,
    head::{self, Chunks, Kind, Looks, Sent},
    hello,
    request::Asked,
    socks,
};
use crate::net::policy::{Granted, Name};

/// The beginning of a TLS connection: one that is whole at its end is not whole before, and means the same whatever
/// follows.
pub fn hello(bytes: &[u8]) {
    _ = hello::is_retry(bytes);
    if let Some(before) = hello::before_second(bytes) {
        assert!(before <= bytes.len());
    }
    let Ok(Some(found)) = hello::parse(bytes) else { return };
    assert!(hello::is_tls(bytes));
    assert_eq!(hello::parse(&bytes[..found.end]).ok().flatten().as_ref(), Some(&found));
    for length in 0..found.end {
        assert_eq!(hello::parse(&bytes[..length]), Ok(None));
    }
    if let Some(name) = found.name {
        assert_eq!(Name::from_wire(name.as_str().as_bytes()), Ok(name));
    }
}

/// The head of a request, and a chunked body: what any reader takes for a request is not passed unread, and where it
/// ends doesn't depend on the pieces in which it comes.
pub fn head(bytes: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    if httparse::Request::new(&mut headers).parse(bytes).is_ok_and(|status| status.is_complete()) {
        assert_eq!(head::looks(bytes), Looks::Http);
    }
    for sent in [Sent::Direct, Sent::Proxied] {
        let Ok(Some(found)) = head::parse(bytes, sent) else { continue };
        let (text, _) = bytes.split_at(found.end);
        assert!(text.ends_with(b"\r\n\r\n") && text.len() <= head::MOST);
        assert_eq!(head::parse(text, sent).ok().flatten().as_ref(), Some(&found));
        for length in 0..found.end {
            assert_eq!(head::parse(&text[..length], sent), Ok(None));
        }
        // What is made of it for a server is a request to the same.
        if let Kind::Request { body, direct: Some(direct), .. } = &found.kind {
            let again = head::parse(direct, Sent::Direct).ok().flatten();
            let same = again.is_some_and(|again| {
                (again.host, again.port, again.end) == (found.host.clone(), found.port, direct.len())
                    && matches!(again.kind, Kind::Request { body: again, .. } if again == *body)
            });
            assert!(same, "{}", direct.escape_ascii());
        }
    }
    let upgrade = head::Upgrade::with(b"dGhlIHNhbXBsZSBub25jZQ==");
    _ = head::is_switched(&upgrade, bytes);
    for method in ["GET", "HEAD"] {
        if let Ok(Some(answer)) = answer::parse(bytes, method, Some(&upgrade)) {
            assert!(answer.end <= bytes.len().min(answer::MOST));
            assert_eq!(answer::parse(&bytes[..answer.end], method, Some(&upgrade)), Ok(Some(answer)));
        }
    }
    if let Ok(Some(found)) = head::parse(bytes, Sent::Direct)
        && let Some(asked) = Asked::read(bytes)
    {
        // What is made of it for the server is a request to the same, and of the same length.
        let upgrades = matches!(found.kind, Kind::Request { upgrade: Some(_), .. });
        let made = asked.head(&bytes[..found.end], &Granted::default(), upgrades, true);
        let again = head::parse(&made, Sent::Direct).ok().flatten();
        assert!(again.is_some_and(|again| (again.host, again.port, again.end) == (found.host, found.port, made.len())));
    }
    let whole = {
        let mut chunks = Chunks::default();
        chunks.feed(bytes).map(|taken| (taken, chunks.is_done()))
    };
    let mut chunks = Chunks::default();
    let mut taken = 0;
    for byte in bytes.chunks(1) {
        match chunks.feed(byte) {
            Ok(0) => break,
            Ok(_) => taken += 1,
            Err(_) => {
                assert!(whole.is_err());
                return;
            }
        }
    }
    assert_eq!(whole, Ok((taken, chunks.is_done())));
}

/// What a SOCKS client says.
pub fn socks(bytes: &[u8]) {
    if let Some(greeting) = socks::greeting(bytes) {
        assert!((2..=257).contains(&greeting.end) && greeting.end <= bytes.len());
    }
    if let Ok(Some(request)) = socks::request(bytes) {
        assert!(request.end <= bytes.len() && request.port != 0);
        for length in 0..request.end {
            assert_eq!(socks::request(&bytes[..length]), Ok(None));
        }
    }
}
