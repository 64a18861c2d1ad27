//! Questions to a name server that is told of, and its answers (RFC 1035): for names that the host's resolver does not know.
//!
//! Pure functions over bytes, so that hostile ones can be tried on them.

use std::net::Ipv4Addr;

use super::{
    dns::{CLASS_IN, HEADER, NO_ERROR, TYPE_A, encoded, number},
    policy::Name,
};

/// More addresses of one name than this are not looked at.
const MOST: usize = 16;

/// For the IPv4 addresses of a name.
pub(super) fn question(name: &Name, id: u16) -> Vec<u8> {
    let mut bytes = Vec::from(id.to_be_bytes());
    // Recursion is desired; there is one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(encoded(name));
    bytes.extend(TYPE_A.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    bytes
}

/// What answers `question`, as far as there was room for it: nothing, where there is no such name, or the server does not
/// say. `None` to what is no answer to it.
pub(super) fn addresses(message: &[u8], question: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let count = |at| number(message, at);
    let asked = message.get(HEADER..question.len())?;
    let flags = count(2)?;
    let (is_answer, truncated, code) = (flags & 0xf800 == 0x8000, flags & 0x0200 != 0, flags as u8 & 0xf);
    if !is_answer || message[..2] != question[..2] || count(4)? != 1 || asked != &question[HEADER..] {
        return None;
    }
    if code != NO_ERROR {
        return Some(Vec::new());
    }
    let (mut found, mut at) = (Vec::new(), question.len());
    for _ in 0..count(6)? {
        match record(message, at) {
            Some((address, end)) => {
                found.extend(address);
                at = end;
            }
            None if truncated => break,
            None => return None,
        }
    }
    found.truncate(MOST);
    Some(found)
}

/// The address that the record at `at` is about, if it is, and where the next one begins.
fn record(message: &[u8], at: usize) -> Option<(Option<Ipv4Addr>, usize)> {
    let count = |at| number(message, at);
    let at = after_name(message, at)?;
    let (kind, class, end) = (count(at)?, count(at + 2)?, at + 10 + usize::from(count(at + 8)?));
    let address = match (kind, class, message.get(at + 10..end)?) {
        (TYPE_A, CLASS_IN, &[a, b, c, d]) => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    };
    Some((address, end))
}

/// Whose it is is not looked at: it is the question's, or what that one leads to (CNAME).
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match message.get(at).copied()? {
            0 => return Some(at + 1),
            length @ 1..64 => at += 1 + usize::from(length),
            // A pointer ends it.
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With records of these kinds and data after the question.
    fn answer(question: &[u8], records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&[0x81, 0x80]);
        message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (kind, data) in records {
            message.extend([0xc0, 12]);
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 9]);
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(*data);
        }
        message
    }

    #[test]
    fn addresses_are_those_of_the_answer() {
        let question = question(&"db".parse().unwrap(), 7);
        assert_eq!(question[HEADER..], *b"\x02db\0\0\x01\0\x01");
        let found = addresses(&answer(&question, &[(5, b"\x02xy\0"), (1, &[10, 0, 0, 1])]), &question);
        assert_eq!(found, Some(vec![Ipv4Addr::new(10, 0, 0, 1)]));
        let mut nothing = answer(&question, &[]);
        assert_eq!(addresses(&nothing, &question), Some(vec![]));
        for code in 1..6 {
            nothing[3] = 0x80 | code;
            assert_eq!(addresses(&nothing, &question), Some(vec![]));
        }
        // Cut short, and said to be.
        let mut short = answer(&question, &[(1, &[10, 0, 0, 1]), (1, &[10, 0, 0, 2])]);
        short.truncate(short.len() - 1);
        assert_eq!(addresses(&short, &question), None);
        short[2] |= 2;
        assert_eq!(addresses(&short, &question), Some(vec![Ipv4Addr::new(10, 0, 0, 1)]));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let question = question(&"db".parse().unwrap(), 7);
        let good = answer(&question, &[(1, &[10, 0, 0, 1])]);
        // A question, another's, another name, another operation.
        for (at, byte) in [(2, 1), (1, 8), (13, b'x'), (2, 0x89)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(addresses(&bad, &question), None, "{at}");
        }
        for length in 0..good.len() {
            assert_eq!(addresses(&good[..length], &question), None, "{length}");
        }
    }
}
