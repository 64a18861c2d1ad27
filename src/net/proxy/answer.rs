//! The head of an HTTP/1 answer, and where the answer ends (RFC 9112 §6.3). Pure.

use super::head::Upgrade;

/// Of one head.
pub(super) const MOST: usize = 64 << 10;
const MOST_HEADERS: usize = 256;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Bytes of its head.
    pub end: usize,
    pub code: u16,
    pub body: Body,
    /// The server ends the connection behind it.
    pub closes: bool,
    /// It is compressed, or otherwise not what it looks like.
    pub encoded: bool,
    /// It takes up what the request offered.
    pub switches: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    /// To the end of the connection.
    End,
}

impl Answer {
    /// Said before the answer itself.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.code) && self.code != 101
    }
}

/// The head that `bytes` begin with, of the answer to a request by `method`, which offers `upgrade`; `None` when it is not
/// whole yet.
pub(super) fn parse(bytes: &[u8], method: &str, upgrade: Option<&Upgrade>) -> Result<Option<Answer>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(&bytes[..bytes.len().min(MOST)]) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) if bytes.len() < MOST => return Ok(None),
        Ok(httparse::Status::Partial) => return Err("the head of its answer is too long"),
        Err(_) => return Err("its answer is not well-formed"),
    };
    let (Some(code), Some(minor)) = (response.code, response.version) else {
        return Err("its answer is not well-formed");
    };
    let (mut length, mut chunked, mut encoded) = (None, false, false);
    let mut closes = minor == 0;
    for header in response.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        let has = |word: &str| {
            header.value.split(|&byte| byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        };
        if is("content-length") {
            let digits = std::str::from_utf8(header.value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let value: u64 = digits.and_then(|text| text.parse().ok()).ok_or("its Content-Length is no number")?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err("its answer has two lengths");
            }
        } else if is("transfer-encoding") {
            if chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err("the Transfer-Encoding of its answer is not just chunked");
            }
            chunked = true;
        } else if is("content-encoding") {
            encoded |= !header.value.is_empty() && !has("identity");
        } else if is("connection") {
            closes |= has("close");
        }
    }
    let body = match (length, chunked) {
        _ if (100..200).contains(&code) || code == 204 || code == 304 || method == "HEAD" => Body::Length(0),
        (Some(_), true) => return Err("its answer has both Content-Length and Transfer-Encoding"),
        (None, true) => Body::Chunked,
        (Some(length), false) => Body::Length(length),
        (None, false) => Body::End,
    };
    let switches = code == 101 && upgrade.is_some_and(|upgrade| upgrade.is_taken_up(response.headers));
    Ok(Some(Answer { end, code, body, closes: closes || body == Body::End, encoded, switches }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str, method: &str) -> Answer {
        let head = format!("HTTP/1.1 {text}\r\n\r\n");
        for length in 0..head.len() {
            assert_eq!(parse(&head.as_bytes()[..length], method, None), Ok(None), "{length}");
        }
        let answer = parse(format!("{head}rest").as_bytes(), method, None).unwrap().unwrap();
        assert_eq!(answer.end, head.len());
        answer
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        for (text, method, body, closes) in [
            ("200 OK\r\nContent-Length: 5", "GET", Body::Length(5), false),
            ("200 OK\r\nContent-Length: 5\r\nConnection: x, Close", "GET", Body::Length(5), true),
            ("200 OK\r\nContent-Length: 5", "HEAD", Body::Length(0), false),
            ("204 No Content", "GET", Body::Length(0), false),
            ("304 Not Modified\r\nContent-Length: 5", "GET", Body::Length(0), false),
            ("101 Switching Protocols", "GET", Body::Length(0), false),
            ("200 OK\r\nTransfer-Encoding: chunked", "GET", Body::Chunked, false),
            ("200 OK", "GET", Body::End, true),
        ] {
            let answer = answer(text, method);
            assert_eq!((answer.body, answer.closes), (body, closes), "{text}");
        }
        assert!(answer("200 OK\r\nContent-Encoding: gzip", "GET").encoded);
        assert!(!answer("200 OK\r\nContent-Encoding: identity", "GET").encoded);
    }

    #[test]
    fn an_answer_with_two_ends_is_none() {
        for text in [
            "200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
            "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            "200 OK\r\nTransfer-Encoding: gzip, chunked",
            "200 OK\r\nContent-Length: -1",
            "200 OK\r\n Content-Length: 1",
        ] {
            assert!(parse(format!("HTTP/1.1 {text}\r\n\r\n").as_bytes(), "GET", None).is_err(), "{text}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(MOST));
        assert!(parse(long.as_bytes(), "GET", None).is_err());
    }
}
