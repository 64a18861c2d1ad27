//! Answers to the sandbox's questions for names; nothing is ever asked of anybody else.
//!
//! A question is one name, read strictly (RFC 1035, 6891): no compression, nothing after it but an OPT record. Pure
//! functions over bytes, so that hostile ones can be tried on them.

use std::{net::Ipv4Addr, time::Instant};

use super::{
    policy::{Name, Policy, Refusal},
    pool::{Pool, TTL, is_fake},
};

pub(super) const HEADER: usize = 12;
pub(super) const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_OPT: u16 = 41;
pub(super) const CLASS_IN: u16 = 1;

pub(super) const NO_ERROR: u8 = 0;
const FORMAT_ERROR: u8 = 1;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;

/// What UDP messages may have, told to clients that tell us theirs.
const UDP_BYTES: u16 = 1232;

/// A well-formed question.
#[derive(Debug, PartialEq, Eq)]
struct Question<'a> {
    /// Its labels, each behind its length, without the root's.
    labels: &'a [u8],
    kind: u16,
    class: u16,
    /// Whether the client knows EDNS.
    extended: bool,
    /// Where the question ends, to be repeated in the answer.
    end: usize,
}

impl<'a> Question<'a> {
    /// An answer's code where it is no question.
    fn parse(message: &'a [u8]) -> Result<Self, u8> {
        let count = |at| number(message, at);
        let flags = count(2).ok_or(FORMAT_ERROR)?;
        if flags >> 11 & 0xf != 0 {
            return Err(NOT_IMPLEMENTED);
        }
        // Questions, answers, authorities; the last two and a truncated question are no question.
        let (Some(1), Some(0), Some(0), Some(additional @ (0 | 1))) = (count(4), count(6), count(8), count(10)) else {
            return Err(FORMAT_ERROR);
        };
        if flags & 0x0200 != 0 {
            return Err(FORMAT_ERROR);
        }
        let mut at = HEADER;
        loop {
            match message.get(at).copied().ok_or(FORMAT_ERROR)? {
                0 => break,
                // 64 and more are pointers and extensions.
                length @ 1..64 => at += 1 + usize::from(length),
                _ => return Err(FORMAT_ERROR),
            }
            if at - HEADER > 254 {
                return Err(FORMAT_ERROR);
            }
        }
        let labels = &message[HEADER..at];
        let (Some(kind), Some(class)) = (count(at + 1), count(at + 3)) else { return Err(FORMAT_ERROR) };
        let end = at + 5;
        let extended = additional == 1;
        let rest = &message[end..];
        let well_formed = if extended { is_opt(rest) } else { rest.is_empty() };
        if !well_formed {
            return Err(FORMAT_ERROR);
        }
        Ok(Self { labels, kind, class, extended, end })
    }

    /// Dotted; a dot inside of a label becomes what no name has.
    fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.labels.len());
        let mut rest = self.labels;
        while let Some((&length, after)) = rest.split_first() {
            let (label, next) = after.split_at_checked(length.into()).unwrap_or((after, &[]));
            if !text.is_empty() {
                text.push(b'.');
            }
            text.extend(label.iter().map(|&byte| if byte == b'.' { b' ' } else { byte }));
            rest = next;
        }
        text
    }
}

fn is_opt(record: &[u8]) -> bool {
    let &[0, high, low, _, _, _, _, _, _, length_high, length_low, ref data @ ..] = record else { return false };
    u16::from_be_bytes([high, low]) == TYPE_OPT
        && data.len() == usize::from(u16::from_be_bytes([length_high, length_low]))
}

/// The name that is asked for, of a question that is one.
pub(super) fn asked(message: &[u8]) -> Option<Name> {
    Name::from_wire(&Question::parse(message).ok()?.text()).ok()
}

/// A question that policy refused.
pub(super) type RefusedName = (String, Refusal);

/// The answer to `message`; `None` to what is no question at all.
pub(super) fn answer(
    message: &[u8],
    policy: &Policy,
    pool: &mut Pool,
    now: Instant,
) -> Option<(Vec<u8>, Option<RefusedName>)> {
    // An answer is never answered, or two could keep each other busy.
    if message.len() < HEADER || message[2] & 0x80 != 0 {
        return None;
    }
    let question = match Question::parse(message) {
        Ok(question) => question,
        Err(code) => return Some((reply(message, None, code, None), None)),
    };
    let said = |code| Some((reply(message, Some(&question), code, None), None));
    if question.class != CLASS_IN {
        return said(REFUSED);
    }
    let text = question.text();
    if let Some(reversed) = reversed(&text) {
        let name = reversed.filter(|address| is_fake(*address)).and_then(|address| pool.name(address, now).cloned());
        return match name {
            Some(name) if question.kind == TYPE_PTR => {
                Some((reply(message, Some(&question), NO_ERROR, Some(&encoded(&name))), None))
            }
            Some(_) => said(NO_ERROR),
            None => said(NO_SUCH_NAME),
        };
    }
    let refused =
        |target: String, refusal| Some((reply(message, Some(&question), NO_SUCH_NAME, None), Some((target, refusal))));
    let name = match Name::from_wire(&text) {
        Ok(name) => name,
        Err(error) => return refused(printable(&text), Refusal::new(error.to_string())),
    };
    if let Err(refusal) = policy.check_name(&name) {
        return refused(name.to_string(), refusal);
    }
    // Addresses of IPv6, and parameters of HTTPS with their keys for encrypted hellos: there are none.
    if question.kind != TYPE_A {
        return said(NO_ERROR);
    }
    match pool.address(&name, now) {
        Some(address) => Some((reply(message, Some(&question), NO_ERROR, Some(&address.octets())), None)),
        None => said(SERVER_FAILURE),
    }
}

/// `Some`: a name for addresses; inside, the IPv4 address that it is for.
fn reversed(text: &[u8]) -> Option<Option<Ipv4Addr>> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    if text.ends_with(".ip6.arpa") {
        return Some(None);
    }
    let octets = text.strip_suffix(".in-addr.arpa")?;
    let forward: Vec<&str> = octets.rsplit('.').collect();
    Some(forward.join(".").parse().ok())
}

pub(super) fn encoded(name: &Name) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.as_str().len() + 2);
    for label in name.as_str().split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// What two bytes of a message say.
pub(super) fn number(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]))
}

fn printable(text: &[u8]) -> String {
    text.escape_ascii().to_string()
}

/// A message with the question as it was asked, and one record of its kind that holds `data`.
fn reply(message: &[u8], question: Option<&Question<'_>>, code: u8, data: Option<&[u8]>) -> Vec<u8> {
    let asked = question.map_or(&[][..], |question| &message[HEADER..question.end]);
    let extended = question.is_some_and(|question| question.extended);
    let mut bytes = Vec::with_capacity(HEADER + asked.len() + 32 + data.map_or(0, <[u8]>::len));
    bytes.extend(&message[..2]);
    // An answer, authoritative or not at all; recursion is as available as it was desired.
    bytes.push(0x80 | message[2] & 0x79);
    bytes.push(0x80 | code);
    for count in [u16::from(question.is_some()), u16::from(data.is_some()), 0, u16::from(extended)] {
        bytes.extend(count.to_be_bytes());
    }
    bytes.extend(asked);
    if let (Some(question), Some(data)) = (question, data) {
        // A pointer to the question's name.
        bytes.extend([0xc0, HEADER as u8]);
        bytes.extend(question.kind.to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        bytes.extend((TTL.as_secs() as u32).to_be_bytes());
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
    }
    if extended {
        bytes.push(0);
        bytes.extend(TYPE_OPT.to_be_bytes());
        bytes.extend(UDP_BYTES.to_be_bytes());
        bytes.extend([0; 6]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{policy::Mode, pool::FAKE_FIRST};

    fn policy() -> Policy {
        serde_json::from_str(r#"{"allow":["example.com","*.example.org"]}"#).unwrap()
    }

    fn labels(name: &str) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        bytes.push(0);
        bytes
    }

    fn question(name: &[u8], kind: u16) -> Vec<u8> {
        [b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0", name, &kind.to_be_bytes(), &[0, 1]].concat()
    }

    struct Answer {
        code: u8,
        data: Option<Vec<u8>>,
        refused: Option<RefusedName>,
    }

    fn ask_with(pool: &mut Pool, policy: &Policy, message: &[u8]) -> Answer {
        let (bytes, refused) = answer(message, policy, pool, Instant::now()).unwrap();
        assert_eq!(bytes[..2], message[..2]);
        assert_eq!(bytes[2] & 0x80, 0x80);
        let data = (bytes[7] == 1).then(|| {
            let at = HEADER + message[HEADER..].iter().position(|&byte| byte == 0).unwrap() + 5;
            let length = usize::from(u16::from_be_bytes([bytes[at + 10], bytes[at + 11]]));
            bytes[at + 12..at + 12 + length].to_vec()
        });
        Answer { code: bytes[3] & 0xf, data, refused }
    }

    fn ask(message: &[u8]) -> Answer {
        ask_with(&mut Pool::default(), &policy(), message)
    }

    #[test]
    fn an_allowed_name_has_an_address_that_nobody_else_has() {
        let mut pool = Pool::default();
        let mut ask = |name: &str| ask_with(&mut pool, &policy(), &question(&labels(name), TYPE_A));
        let first = ask("example.com");
        assert_eq!((first.code, first.data), (NO_ERROR, Some(FAKE_FIRST.octets().to_vec())));
        assert_eq!(ask("EXAMPLE.com").data, Some(FAKE_FIRST.octets().to_vec()));
        assert_eq!(ask("a.example.org").data, Some(vec![198, 18, 1, 1]));
    }

    #[test]
    fn a_name_that_is_not_allowed_does_not_exist_and_is_told() {
        let answer = ask(&question(&labels("evil.example"), TYPE_A));
        assert_eq!((answer.code, answer.data), (NO_SUCH_NAME, None));
        let (target, refusal) = answer.refused.unwrap();
        assert_eq!(target, "evil.example");
        assert_eq!(refusal.hint.as_deref(), Some("--allow evil.example"));
    }

    /// Row 4: no parameters, and so no keys for encrypted hellos; row 16's half: no address of IPv6.
    #[test]
    fn bypass_04_other_records_of_an_allowed_name_are_none() {
        for kind in [28, 64, 65, 16, 15, 2, 6, 255, 43, 257] {
            let answer = ask(&question(&labels("example.com"), kind));
            assert_eq!((answer.code, answer.data), (NO_ERROR, None), "{kind}");
            assert!(answer.refused.is_none());
        }
    }

    #[test]
    fn bypass_07_odd_names_do_not_exist() {
        for odd in [
            b"\x0cexample\0.com\x00".to_vec(),
            b"\x0bexample.com\x00".to_vec(),
            b"\x08exa mple\x03com\x00".to_vec(),
            b"\x08exampl\xc3\xa9\x03com\x00".to_vec(),
            labels("0x7f.1"),
            labels("2130706433"),
            vec![0],
        ] {
            let answer = ask(&question(&odd, TYPE_A));
            assert_eq!((answer.code, answer.data), (NO_SUCH_NAME, None), "{odd:?}");
            assert!(answer.refused.is_some());
        }
    }

    /// Row 12: whatever is asked, at most a made-up address is in the answer.
    #[test]
    fn bypass_12_a_tunnel_has_no_other_end() {
        let mut pool = Pool::default();
        let policy = Policy::new(Mode::Open).unwrap();
        for number in 0..1000 {
            let name = format!("{number:x}aGVsbG8gd29ybGQ.t.evil.example");
            let answer = ask_with(&mut pool, &policy, &question(&labels(&name), TYPE_A));
            let data: [u8; 4] = answer.data.unwrap().try_into().unwrap();
            assert!(is_fake(data.into()));
            let text = ask_with(&mut pool, &policy, &question(&labels(&name), 16));
            assert_eq!((text.code, text.data), (NO_ERROR, None));
        }
    }

    #[test]
    fn an_address_answers_to_its_name_alone() {
        let mut pool = Pool::default();
        let mut ask = |message: &[u8]| ask_with(&mut pool, &policy(), message);
        ask(&question(&labels("example.com"), TYPE_A));
        let answer = ask(&question(&labels("0.1.18.198.in-addr.arpa"), TYPE_PTR));
        assert_eq!((answer.code, answer.data), (NO_ERROR, Some(labels("example.com"))));
        for none in ["1.1.18.198.in-addr.arpa", "8.8.8.8.in-addr.arpa", "1.0.18.198.in-addr.arpa", "0.ip6.arpa"] {
            let answer = ask(&question(&labels(none), TYPE_PTR));
            assert_eq!((answer.code, answer.data), (NO_SUCH_NAME, None), "{none}");
            assert!(answer.refused.is_none());
        }
    }

    #[test]
    fn what_is_no_question_is_an_error() {
        let whole = question(&labels("example.com"), TYPE_A);
        for length in HEADER..whole.len() {
            assert_eq!(ask(&whole[..length]).code, FORMAT_ERROR, "{length}");
        }
        let with = |at: usize, byte: u8| {
            let mut message = whole.clone();
            message[at] = byte;
            message
        };
        for (at, byte) in [(5, 2), (5, 0), (7, 1), (9, 1), (11, 1), (11, 2), (2, 3), (12, 0xc0), (12, 0x40), (12, 8)] {
            assert_eq!(ask(&with(at, byte)).code, FORMAT_ERROR, "{at} {byte}");
        }
        assert_eq!(ask(&with(2, 0x28)).code, NOT_IMPLEMENTED);
        assert_eq!(ask(&with(whole.len() - 1, 3)).code, REFUSED);
        assert_eq!(ask(&[&whole[..], b"x"].concat()).code, FORMAT_ERROR);
        let long = labels(&["a".repeat(63).as_str(); 4].join("."));
        assert_eq!(ask(&question(&long, TYPE_A)).code, FORMAT_ERROR);
        let mut pool = Pool::default();
        assert!(answer(&with(2, 0x81), &policy(), &mut pool, Instant::now()).is_none());
        assert!(answer(&whole[..11], &policy(), &mut pool, Instant::now()).is_none());
    }

    #[test]
    fn a_client_that_knows_edns_is_answered_in_kind() {
        let mut message = question(&labels("example.com"), TYPE_A);
        message[11] = 1;
        // With a cookie, which is nobody's business.
        message.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x08abcdefgh");
        let answer = ask(&message);
        assert_eq!(answer.data, Some(FAKE_FIRST.octets().to_vec()));
        let (bytes, _) = super::answer(&message, &policy(), &mut Pool::default(), Instant::now()).unwrap();
        assert_eq!(bytes[11], 1);
        assert_eq!(bytes[bytes.len() - 11..], [0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    }
}
