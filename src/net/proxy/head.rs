//! The head of an HTTP/1 request, and where the request ends (RFC 9112).
//!
//! Pure and stricter than servers are: whatever two readers could read differently is refused, since the second reader
//! might see another host in it, or another request.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::net::policy::{Host, port};

/// Of one head.
pub(super) const MOST: usize = 32 << 10;
const MOST_HEADERS: usize = 128;
/// Of one line of a chunked body.
const MOST_LINE: usize = 4 << 10;

/// Who a request is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The server itself.
    Direct,
    /// A proxy.
    Proxied,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of it.
    pub end: usize,
    pub host: Host,
    /// As it was written; `None` is the scheme's.
    pub port: Option<u16>,
    pub kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A tunnel is asked for.
    Connect,
    Request {
        body: Body,
        /// It asks to go on with WebSocket.
        upgrade: Option<Upgrade>,
        /// What a server is sent in place of the whole head, where it was meant for a proxy.
        direct: Option<Vec<u8>>,
    },
}

/// How a server takes up the offer of WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upgrade {
    /// What follows from the client's key, which who doesn't speak WebSocket doesn't say.
    accept: String,
}

impl Upgrade {
    pub fn with(key: &[u8]) -> Self {
        // RFC 6455 §4.2.2
        let said = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
        Self { accept: BASE64.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &said)) }
    }

    /// Whether an answer with the code 101 and these headers is one to it.
    pub fn is_taken_up(&self, headers: &[httparse::Header<'_>]) -> bool {
        let one = |name: &str| {
            let mut found = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            found.next().map(|header| header.value).filter(|_| found.next().is_none())
        };
        one("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
            && one("sec-websocket-accept") == Some(self.accept.as_bytes())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
}

/// Whether this may become a line of HTTP, which is decided early and for too much rather than too little: a server
/// must never find a request in what went through unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    Http,
    Other,
    /// It depends on what follows.
    Open,
}

pub(super) fn looks(bytes: &[u8]) -> Looks {
    // What load balancers put in front of a request, in its second version.
    if bytes.starts_with(b"\r\n\r\n\0") {
        return Looks::Http;
    }
    // Servers skip empty lines, some also blanks.
    let Some(start) = bytes.iter().position(|&byte| !is_blank(byte)) else { return Looks::Open };
    let text = &bytes[start..];
    let method_end = text.iter().position(|&byte| !is_token(byte));
    let method = match method_end {
        // There are servers that take any word for a method, however long.
        None if text.len() > MOST => return Looks::Http,
        None => return Looks::Open,
        Some(end) => &text[..end],
    };
    if method.is_empty() {
        return Looks::Other;
    }
    if !is_blank(text[method.len()]) {
        return Looks::Other;
    }
    if is_known(method) {
        return Looks::Http;
    }
    match text.iter().position(|&byte| byte == b'\n') {
        Some(end) if contains_http(&text[..end]) => Looks::Http,
        Some(_) => Looks::Other,
        None if contains_http(text) || text.len() > MOST => Looks::Http,
        // No server takes this for a request, and old protocols have it (git://).
        None if text.contains(&0) => Looks::Other,
        None => Looks::Open,
    }
}

fn is_known(method: &[u8]) -> bool {
    // PROXY: the first version of that.
    const KNOWN: [&[u8]; 11] =
        [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI", b"PROXY"];
    // In small letters there are other protocols' commands, and a line that names its version gives itself away.
    KNOWN.contains(&method)
}

fn contains_http(line: &[u8]) -> bool {
    line.windows(5).any(|five| five.eq_ignore_ascii_case(b"HTTP/"))
}

/// What some reader splits a line at: there are those that take it for Latin-1 and ask Unicode.
fn is_blank(byte: u8) -> bool {
    matches!(byte, 0x09..=0x0d | 0x1c..=0x20 | 0x85 | 0xa0)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The head that `bytes` begin with; `None` when it is not whole yet.
pub(super) fn parse(bytes: &[u8], sent: Sent) -> Result<Option<Head>, &'static str> {
    let end = end(bytes)?;
    if end.unwrap_or(bytes.len()) > MOST {
        return Err("its head is too long");
    }
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let end = match (request.parse(&bytes[..end.unwrap_or(bytes.len())]), end) {
        (Ok(httparse::Status::Complete(length)), Some(end)) if length == end => end,
        (Ok(httparse::Status::Partial), None) => return Ok(None),
        _ => return Err("its head is not well-formed"),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err("its head is not well-formed");
    };
    let fields = Fields::read(request.headers)?;
    let head = |(host, port), kind| Ok(Some(Head { end, host, port, kind }));
    if method == "CONNECT" {
        if sent == Sent::Direct {
            return Err("it asks a server for a tunnel");
        }
        let (host, Some(port)) = authority(target.as_bytes())? else { return Err("a tunnel needs a port") };
        return head((host, Some(port)), Kind::Connect);
    }
    if method == "PRI" {
        return Err("it begins HTTP/2 in plain text");
    }
    let named = authority(fields.host.ok_or("it names no host")?)?;
    // There may be a URL within a path.
    let absolute = target.split_once("://").filter(|_| !target.starts_with('/'));
    let path = match absolute {
        Some((scheme, rest)) => {
            if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("ws") {
                return Err("its scheme is none for plain text");
            }
            let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (written, path) = rest.split_at(at);
            if authority(written.as_bytes())? != named {
                return Err("it names two hosts");
            }
            path
        }
        None if target.starts_with('/') || (target == "*" && method == "OPTIONS") => target,
        None => return Err("its target is neither a path nor a URL"),
    };
    if sent == Sent::Proxied && absolute.is_none() {
        return Err("this is a proxy: it takes whole URLs, CONNECT and SOCKS5");
    }
    let body = fields.body(minor)?;
    let upgrade = fields.upgrade()?;
    if upgrade.is_some() && (sent == Sent::Proxied || body != Body::Length(0) || method != "GET") {
        return Err("WebSocket is begun by GET, directly or in a tunnel, and without a body");
    }
    let direct = (sent == Sent::Proxied).then(|| rewritten(method, path, request.headers));
    head(named, Kind::Request { body, upgrade, direct })
}

/// Where the head ends. Lines end in CR and LF: some readers take one of them for an end, and some don't.
fn end(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    if matches!(bytes, [b'\r' | b'\n', ..]) {
        return Err("there is an empty line before it");
    }
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if at == 0 || bytes[at - 1] != b'\r' => return Err("a line of its head ends in LF alone"),
            b'\r' if bytes.get(at + 1).is_some_and(|&next| next != b'\n') => {
                return Err("there is a CR within a line of its head");
            }
            b'\n' if at >= 3 && &bytes[at - 3..at] == b"\r\n\r" => return Ok(Some(at + 1)),
            0 => return Err("there is a NUL in its head"),
            _ => {}
        }
    }
    Ok(None)
}

/// The headers that decide where a request goes and where it ends.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    /// `Connection: upgrade`
    goes_on: bool,
    key: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>]) -> Result<Self, &'static str> {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("host") {
                if fields.host.replace(header.value).is_some() {
                    return Err("it has two Host headers");
                }
            } else if is("content-length") {
                let digits = !header.value.is_empty() && header.value.iter().all(u8::is_ascii_digit);
                let length = digits.then(|| std::str::from_utf8(header.value).ok()?.parse().ok()).flatten();
                if fields.length.replace(length.ok_or("its Content-Length is no number")?).is_some() {
                    return Err("it has two Content-Length headers");
                }
            } else if is("transfer-encoding") {
                if fields.chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err("its Transfer-Encoding is not just chunked");
                }
                fields.chunked = true;
            } else if is("upgrade") {
                if fields.upgrade || !header.value.eq_ignore_ascii_case(b"websocket") {
                    return Err("it asks for another protocol than WebSocket");
                }
                fields.upgrade = true;
            } else if is("connection") {
                let mut words = header.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
                fields.goes_on |= words.any(|word| word.eq_ignore_ascii_case(b"upgrade"));
            } else if is("sec-websocket-key") {
                if fields.key.replace(header.value).is_some() {
                    return Err("it has two keys of WebSocket");
                }
            } else if is("http2-settings") {
                return Err("it asks for HTTP/2 in plain text");
            }
        }
        Ok(fields)
    }

    fn upgrade(&self) -> Result<Option<Upgrade>, &'static str> {
        match (self.upgrade, self.goes_on, self.key) {
            (false, ..) => Ok(None),
            (true, false, _) => Err("it asks for WebSocket, and its Connection doesn't say so"),
            (true, true, None) => Err("it asks for WebSocket, and has no key"),
            (true, true, Some(key)) => Ok(Some(Upgrade::with(key))),
        }
    }

    fn body(&self, minor: u8) -> Result<Body, &'static str> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err("it has both Content-Length and Transfer-Encoding"),
            (None, true) if minor == 0 => Err("HTTP/1.0 knows no Transfer-Encoding"),
            (None, true) => Ok(Body::Chunked),
            (length, false) => Ok(Body::Length(length.unwrap_or(0))),
        }
    }
}

/// `host` or `host:port`, and nothing else: no user, no blanks.
fn authority(text: &[u8]) -> Result<(Host, Option<u16>), &'static str> {
    const WHY: &str = "its host is no name and no address";
    let text = std::str::from_utf8(text).map_err(|_| WHY)?;
    let v6 = text.find(']').map_or(0, |end| end + 1);
    let (host, after) = match text[v6..].split_once(':') {
        Some((before, after)) => (&text[..v6 + before.len()], Some(after)),
        None => (text, None),
    };
    let port = after.map(|after| port(after).ok_or("its port is no number")).transpose()?;
    Ok((Host::from_wire(host.as_bytes()).map_err(|_| WHY)?, port))
}

/// The head as a server gets it from a proxy that goes on with no second request.
fn rewritten(method: &str, path: &str, headers: &[httparse::Header<'_>]) -> Vec<u8> {
    const OURS: [&str; 6] = ["connection", "proxy-connection", "proxy-authorization", "keep-alive", "te", "trailer"];
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = path.split('#').next().unwrap_or_default();
    let mut head = format!("{method} {slash}{path} HTTP/1.1\r\n").into_bytes();
    for header in headers.iter().filter(|header| !OURS.iter().any(|ours| header.name.eq_ignore_ascii_case(ours))) {
        head.extend(header.name.as_bytes());
        head.extend(b": ");
        head.extend(header.value);
        head.extend(b"\r\n");
    }
    head.extend(b"Connection: close\r\n\r\n");
    head
}

/// Where in a chunked body one is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailer,
    Done,
}

/// Follows a chunked body to its end.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    line: Vec<u8>,
    /// Bytes of the trailers so far.
    trailers: usize,
}

impl Chunks {
    /// How many of `bytes` belong to the body, all unless it ends in them.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        self.feed_with(bytes, |_| ())
    }

    /// The same; `data` gets what is in the chunks.
    pub fn feed_with(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, &'static str> {
        let mut at = 0;
        while at < bytes.len() && self.at != At::Done {
            if let At::Data(left) = self.at {
                let taken = left.min((bytes.len() - at) as u64);
                data(&bytes[at..at + taken as usize]);
                at += taken as usize;
                self.at = if taken == left { At::DataEnd } else { At::Data(left - taken) };
                continue;
            }
            let byte = bytes[at];
            at += 1;
            self.line.push(byte);
            if byte != b'\n' {
                if byte == 0 || self.line.len() > MOST_LINE {
                    return Err("a line of its chunks is not well-formed");
                }
                continue;
            }
            let line = self.line.strip_suffix(b"\r\n").ok_or("a line of its chunks ends in LF alone")?;
            if line.contains(&b'\r') {
                return Err("there is a CR within a line of its chunks");
            }
            self.at = match self.at {
                At::Size => match size(line)? {
                    0 => At::Trailer,
                    size => At::Data(size),
                },
                At::DataEnd if line.is_empty() => At::Size,
                At::DataEnd => return Err("a chunk is longer than it says"),
                _ if line.is_empty() => At::Done,
                _ => {
                    self.trailers += line.len();
                    if self.trailers > MOST {
                        return Err("its trailers are too long");
                    }
                    At::Trailer
                }
            };
            self.line.clear();
        }
        Ok(at)
    }

    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Whether no chunk has begun that has not ended.
    pub fn is_between(&self) -> bool {
        self.at == At::Size && self.line.is_empty()
    }

    /// As [`Self::feed`]; `out` gets what is in the chunks, in others: without trailers, and without what is said beside
    /// their sizes, which two readers could read differently.
    pub fn renew(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, &'static str> {
        let mut data = Vec::new();
        let part = self.feed_with(bytes, |bytes| data.extend_from_slice(bytes))?;
        chunk(&data, out);
        if self.is_done() {
            out.extend_from_slice(LAST_CHUNK);
        }
        Ok(part)
    }
}

pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// One with `data`; none is without any.
pub(super) fn chunk(data: &[u8], out: &mut Vec<u8>) {
    if !data.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// The size at the beginning of a chunk's line; what follows `;` says nothing.
fn size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
    let text = std::str::from_utf8(digits).unwrap_or_default();
    if text.is_empty() || text.len() > 15 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("a chunk's size is no number");
    }
    u64::from_str_radix(text, 16).map_err(|_| "a chunk's size is no number")
}

/// Whether the server took up the offer of WebSocket; `None`: its answer is not whole yet.
pub(super) fn is_switched(upgrade: &Upgrade, answer: &[u8]) -> Option<bool> {
    let mut rest = answer;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(rest) {
            Ok(httparse::Status::Complete(end)) => match response.code {
                Some(101) => return Some(upgrade.is_taken_up(response.headers)),
                // Said before the answer.
                Some(100..200) => rest = &rest[end..],
                _ => return Some(false),
            },
            Ok(httparse::Status::Partial) if answer.len() <= MOST => return None,
            _ => return Some(false),
        }
    }
}

#[cfg(test)]
mod tests;
