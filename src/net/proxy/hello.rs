//! The first thing a TLS client says, and whose name is on it (RFC 8446 §4.1.2, RFC 6066 §3).
//!
//! Pure and strict: a hello that two readers could read differently (two names, lengths that don't fit, bytes left over)
//! is refused.

use crate::net::policy::Name;

/// Of one hello with its record headers; a large one has a few KiB, with post-quantum keys and sessions.
pub(super) const MOST: usize = 64 << 10;

const HANDSHAKE: u8 = 0x16;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const RECORD_HEADER: usize = 5;
/// RFC 8446 §5.1; for a hello in plain text there is no allowance on top.
const RECORD_MOST: usize = 1 << 14;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// `None`: it has none on it.
    pub name: Option<Name>,
    /// Bytes of the records that it is in.
    pub end: usize,
}

/// Whether a client that begins so speaks TLS, or something that a server of TLS may take for it.
pub(super) fn is_tls(bytes: &[u8]) -> bool {
    // Any record of any version; and the hello of SSL 2, which has no name on it.
    matches!(bytes, [0x14..=0x18, 3, ..] | [0x80..=0xff, _, CLIENT_HELLO, 0 | 2 | 3, ..])
}

/// `None`: more is needed to tell. At most four bytes are.
pub(super) fn may_be_tls(bytes: &[u8]) -> bool {
    match bytes {
        [0x14..=0x18] => true,
        [0x80..=0xff] | [0x80..=0xff, _] | [0x80..=0xff, _, CLIENT_HELLO] => true,
        _ => false,
    }
}

/// The hello that `bytes` begin with; `None` when it is not whole yet.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Hello>, &'static str> {
    let mut message = Vec::new();
    let mut at = 0;
    loop {
        let Some((header, rest)) = bytes[at..].split_at_checked(RECORD_HEADER) else { return more(bytes) };
        let &[kind, major, _, high, low] = header else { return Err("its first record is cut") };
        if kind != HANDSHAKE || major != 3 {
            return Err("it doesn't begin with a hello");
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > RECORD_MOST {
            return Err("its hello has a record of a length that none has");
        }
        let Some(part) = rest.get(..length) else {
            // What kind of message it is, and how long, is known before it is there.
            return if rest.is_empty() { more(bytes) } else { incomplete(&message, rest, bytes) };
        };
        message.extend(part);
        at += RECORD_HEADER + length;
        let Some(&[kind, a, b, c]) = message.first_chunk() else { continue };
        if kind != CLIENT_HELLO {
            return Err("it doesn't begin with a hello");
        }
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let body = &message[4..];
        if length > MOST {
            return Err("its hello is too long");
        }
        if body.len() > length {
            return Err("something follows its hello in the same record");
        }
        if body.len() == length {
            return Ok(Some(Hello { name: name(body).ok_or("its hello is not well-formed")??, end: at }));
        }
    }
}

fn more(bytes: &[u8]) -> Result<Option<Hello>, &'static str> {
    if bytes.len() > MOST { Err("its hello is too long") } else { Ok(None) }
}

fn incomplete(message: &[u8], rest: &[u8], bytes: &[u8]) -> Result<Option<Hello>, &'static str> {
    match message.first().or(rest.first()) {
        Some(&CLIENT_HELLO) => more(bytes),
        _ => Err("it doesn't begin with a hello"),
    }
}

/// What is left to be read, taken from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn short(&mut self) -> Option<u16> {
        self.take(2).map(|taken| u16::from_be_bytes([taken[0], taken[1]]))
    }

    /// As many bytes as the next one says, and as the next two say.
    fn vector8(&mut self) -> Option<Self> {
        let length = self.byte()?;
        self.take(length.into()).map(Self)
    }

    fn vector16(&mut self) -> Option<Self> {
        let length = self.short()?;
        self.take(length.into()).map(Self)
    }
}

/// The name on a hello's body; outer `None`: it is not well-formed.
fn name(body: &[u8]) -> Option<Result<Option<Name>, &'static str>> {
    const VERSION_AND_RANDOM: usize = 34;
    let mut body = Reader(body);
    body.take(VERSION_AND_RANDOM)?;
    let session = body.vector8()?.0;
    let suites = body.vector16()?.0;
    let compressions = body.vector8()?.0;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compressions.is_empty() {
        return None;
    }
    // Before extensions there were hellos without any.
    if body.0.is_empty() {
        return Some(Ok(None));
    }
    let mut extensions = body.vector16()?;
    if !body.0.is_empty() {
        return None;
    }
    let mut name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.short()?;
        let data = extensions.vector16()?;
        if kind != SERVER_NAME {
            continue;
        }
        if name.is_some() {
            return Some(Err("its hello has two names"));
        }
        name = Some(match server_name(data)? {
            Ok(name) => name,
            Err(why) => return Some(Err(why)),
        });
    }
    Some(Ok(name))
}

/// The one name of a list that has one.
fn server_name(mut data: Reader<'_>) -> Option<Result<Name, &'static str>> {
    let mut list = data.vector16()?;
    let kind = list.byte()?;
    let name = list.vector16()?.0;
    if kind != HOST_NAME || !data.0.is_empty() {
        return None;
    }
    if !list.0.is_empty() {
        return Some(Err("its hello has two names"));
    }
    Some(Name::from_wire(name).map_err(|_| "the name on its hello is none"))
}

/// Whether the server asks for a second hello: it may read the name from that one (RFC 8446 §4.1.4). `None`: the
/// answer is too short to tell.
pub(super) fn is_retry(answer: &[u8]) -> Option<bool> {
    /// SHA-256 of "HelloRetryRequest", in the place of a random.
    const RETRY: [u8; 32] = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2,
        0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
    ];
    const SERVER_HELLO: u8 = 2;
    const RANDOM: usize = RECORD_HEADER + 4 + 2;
    match answer {
        [kind, ..] if *kind != HANDSHAKE => Some(false),
        [_, _, _, _, _, SERVER_HELLO, ..] | [] | [_] | [_, _] | [_, _, _] | [_, _, _, _] | [_, _, _, _, _] => {
            answer.get(RANDOM..RANDOM + RETRY.len()).map(|random| random == RETRY)
        }
        _ => Some(false),
    }
}

/// Bytes of the records before the second hello: a change of cipher that changes nothing, and data sent too early.
/// `None`: more is needed.
pub(super) fn before_second(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let &[kind, _, _, high, low] = bytes[at..].first_chunk()?;
        if !matches!(kind, 0x14 | 0x17) {
            return Some(at);
        }
        let end = at + RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
        if end > bytes.len() {
            return None;
        }
        at = end;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A hello's body with these extensions.
    fn body(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let extensions: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat())
            .collect();
        let fixed = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0]].concat();
        [fixed, (extensions.len() as u16).to_be_bytes().to_vec(), extensions].concat()
    }

    fn named(name: &str) -> (u16, Vec<u8>) {
        let length = name.len() as u16;
        (0, [&(length + 3).to_be_bytes()[..], &[0], &length.to_be_bytes(), name.as_bytes()].concat())
    }

    fn message(body: &[u8]) -> Vec<u8> {
        [&[1], &(body.len() as u32).to_be_bytes()[1..], body].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|part| [&[0x16, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat())
            .collect()
    }

    /// A whole hello with this name.
    pub fn hello(name: &str) -> Vec<u8> {
        records(&message(&body(&[(10, vec![0, 2, 0, 29]), named(name)])), RECORD_MOST)
    }

    /// As `hello`, a record for each `size` bytes.
    pub fn split_hello(name: &str, size: usize) -> Vec<u8> {
        records(&message(&body(&[named(name)])), size)
    }

    fn named_in(bytes: &[u8]) -> Option<String> {
        parse(bytes).unwrap().unwrap().name.map(|name| name.to_string())
    }

    fn wrapped(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        records(&message(&body(extensions)), RECORD_MOST)
    }

    #[test]
    fn the_name_is_found_wherever_records_are_cut() {
        for size in [1, 2, 3, 4, 5, 7, 50, RECORD_MOST] {
            assert_eq!(named_in(&split_hello("Example.COM", size)).as_deref(), Some("example.com"), "{size}");
        }
        let whole = split_hello("example.com", 9);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), Ok(None), "{length}");
        }
        let followed = [&whole[..], b"\x14\x03\x03"].concat();
        assert_eq!(parse(&followed).unwrap().unwrap().end, whole.len());
    }

    /// Row 5: larger than a record, and larger than any.
    #[test]
    fn bypass_05_large_hellos_are_read_and_endless_ones_refused() {
        let large = records(&message(&body(&[(21, vec![0; 40_000]), named("example.com")])), RECORD_MOST);
        assert_eq!(named_in(&large).as_deref(), Some("example.com"));
        let endless = [&[1, 0, 0xff, 0xff][..], &[0; 0xffff]].concat();
        assert!(parse(&records(&endless, 1)[..MOST + 1]).is_err());
        let long = [&[1, 2, 0, 0][..], &[0; 10]].concat();
        assert!(parse(&records(&long, 100)).is_err());
    }

    /// Row 4: none is told apart from one; an encrypted hello counts by the name on its outside.
    #[test]
    fn bypass_04_the_outer_name_is_what_counts() {
        assert_eq!(named_in(&wrapped(&[(10, vec![0, 0])])), None);
        let encrypted = (0xfe0d, vec![0; 200]);
        assert_eq!(named_in(&wrapped(&[encrypted, named("outer.example")])).as_deref(), Some("outer.example"));
        let bare = &body(&[])[..41];
        assert_eq!(named_in(&records(&message(bare), 100)), None);
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        let two = (0, [&[0, 10][..], b"\0\0\x02ab", b"\0\0\x02cd"].concat());
        assert_eq!(parse(&wrapped(&[two])), Err("its hello has two names"));
        assert_eq!(parse(&wrapped(&[named("a.com"), named("b.com")])), Err("its hello has two names"));
        for name in ["a\0.com", "1.2.3.4", "", "ex ample.com", "b\u{fc}cher.example"] {
            assert!(parse(&wrapped(&[named(name)])).is_err(), "{name:?}");
        }
        let sound = body(&[named("a.com")]);
        for (broken, why) in [
            ([&sound[..], b"x"].concat(), "bytes after the extensions"),
            (sound[..sound.len() - 1].to_vec(), "cut extensions"),
            (body(&[(0, b"\0\x06\0\0\x03a.c!".to_vec())]), "bytes after the list"),
            (body(&[(0, b"\0\x05\x01\0\x02ab".to_vec())]), "an unknown kind of name"),
            (body(&[(0, vec![])]), "no list"),
            (sound[..30].to_vec(), "no random"),
        ] {
            assert!(parse(&records(&message(&broken), 1000)).is_err(), "{why}");
        }
        let mut followed = message(&sound);
        followed.extend([1, 0, 0]);
        assert!(parse(&records(&followed, 1000)).is_err());
        let other = [&[2][..], &message(&sound)[1..]].concat();
        assert!(parse(&records(&other, 1000)).is_err());
        assert!(parse(b"\x17\x03\x03\0\x05hello").is_err());
        assert!(parse(b"\x16\x03\x01\0\0").is_err());
        assert!(parse(b"\x16\x03\x01\xff\xff\x01").is_err());
    }

    #[test]
    fn tls_is_known_by_its_first_bytes() {
        for tls in [&b"\x16\x03\x01"[..], b"\x16\x03", b"\x17\x03\x03", b"\x80\x2e\x01\x03\x01", b"\x80\x2e\x01\0\x02"]
        {
            assert!(is_tls(tls), "{tls:?}");
        }
        for other in [&b"GET"[..], b"SSH", b"\x16\x01", b"\0\0\0\x08", b"\x80\x2e\x02", b""] {
            assert!(!is_tls(other) && !may_be_tls(other), "{other:?}");
        }
        for short in [&b"\x16"[..], b"\x80", b"\x80\x2e", b"\x80\x2e\x01"] {
            assert!(!is_tls(short) && may_be_tls(short), "{short:?}");
        }
    }

    #[test]
    fn a_request_for_a_second_hello_is_known() {
        let random: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(b"HelloRetryRequest").into();
        let answer = [&b"\x16\x03\x03\0\x58\x02\0\0\x54\x03\x03"[..], &random].concat();
        for length in 0..answer.len() {
            assert_eq!(is_retry(&answer[..length]), None, "{length}");
        }
        assert_eq!(is_retry(&answer), Some(true));
        let other = [&answer[..11], &[7; 32]].concat();
        assert_eq!(is_retry(&other), Some(false));
        assert_eq!(is_retry(b"\x15\x03\x03"), Some(false));
        assert_eq!(is_retry(b"\x16\x03\x03\0\x02\x01"), Some(false));
        let change = b"\x14\x03\x03\0\x01\x01\x17\x03\x03\0\x02ab\x16\x03\x03\0\x01";
        assert_eq!(before_second(change), Some(13));
        assert_eq!(before_second(&change[..12]), None);
        assert_eq!(before_second(&change[..17]), None);
        assert_eq!(before_second(b"\x16\x03\x03\0\x01"), Some(0));
    }
}
