//! Replacing secrets in a stream, however the stream is cut into chunks.
//!
//! Every byte that is part of an occurrence of any secret is hidden; occurrences that overlap become
//! one `***`. What could still become an occurrence is held back until it is decided, so no chunk
//! boundary shows half of one. Encodings of a value (base64, percent) are other bytes and pass.

use std::sync::Arc;

use crate::request::secrets::{Secret, SecretValue};

const STARS: &[u8] = b"***";

/// The values to hide, made ready once for all streams of a sandbox.
#[derive(Debug)]
pub struct Mask {
    /// Longest first, so the first that fits is the longest that fits.
    values: Vec<SecretValue>,
    /// Whether a value begins with this byte.
    begins: [bool; 256],
}

impl Mask {
    #[must_use]
    pub fn new(secrets: &[Secret]) -> Arc<Self> {
        let mut values: Vec<_> = secrets.iter().map(|s| s.value().clone()).collect();
        values.sort_by_key(|v| std::cmp::Reverse(v.as_bytes().len()));
        let mut begins = [false; 256];
        for value in &values {
            begins[usize::from(value.as_bytes()[0])] = true;
        }
        Arc::new(Self { values, begins })
    }

    /// The longest value at the start of `rest`. With `more` to come, a longer one that `rest` only
    /// begins goes first.
    fn longest(&self, rest: &[u8], more: bool) -> Match {
        for value in self.values.iter().map(SecretValue::as_bytes) {
            if rest.starts_with(value) {
                return Match::Value(value.len());
            }
            if more && value.starts_with(rest) {
                return Match::Undecided;
            }
        }
        Match::None
    }
}

enum Match {
    None,
    Value(usize),
    Undecided,
}

/// How a stream ended, which decides about a held-back beginning of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The program ended by itself: what it wrote is what it meant to write.
    Whole,
    /// The program was killed: the beginning may be half of a secret, so it is hidden.
    Cut,
}

/// The masking of one stream.
#[derive(Debug)]
pub(super) struct Masker {
    mask: Arc<Mask>,
    /// The undecided end of the stream: begins a value, and is shorter than it.
    held: Vec<u8>,
    /// How many bytes of `held` an occurrence before it covers, for which `***` was already written.
    hidden: usize,
}

impl Masker {
    pub(super) fn new(mask: &Arc<Mask>) -> Self {
        Self { mask: Arc::clone(mask), held: Vec::new(), hidden: 0 }
    }

    /// Appends to `out` what is decided of the stream with `chunk`.
    pub(super) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        if self.mask.values.is_empty() {
            out.extend_from_slice(chunk);
        } else if self.held.is_empty() {
            let decided = self.scan(chunk, true, out);
            self.held.extend_from_slice(&chunk[decided..]);
        } else {
            let mut data = std::mem::take(&mut self.held);
            data.extend_from_slice(chunk);
            let decided = self.scan(&data, true, out);
            data.drain(..decided);
            self.held = data;
        }
    }

    /// Appends to `out` what was held back.
    pub(super) fn finish(&mut self, tail: Tail, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        match tail {
            Tail::Whole => _ = self.scan(&held, false, out),
            Tail::Cut if held.is_empty() || self.hidden > 0 => {}
            Tail::Cut => out.extend_from_slice(STARS),
        }
    }

    /// Masks `data` into `out`, up to the first byte that needs more to be decided; returns its place.
    fn scan(&mut self, data: &[u8], more: bool, out: &mut Vec<u8>) -> usize {
        // Everything before this is written, clear or as stars.
        let mut written = std::mem::take(&mut self.hidden);
        let mut at = 0;
        while let Some(step) = data[at..].iter().position(|b| self.mask.begins[usize::from(*b)]) {
            at += step;
            match self.mask.longest(&data[at..], more) {
                Match::Value(length) => {
                    if at >= written {
                        out.extend_from_slice(&data[written..at]);
                        out.extend_from_slice(STARS);
                    }
                    written = written.max(at + length);
                }
                Match::Undecided => {
                    out.extend_from_slice(data.get(written..at).unwrap_or_default());
                    self.hidden = written.saturating_sub(at);
                    return at;
                }
                Match::None => {}
            }
            at += 1;
        }
        out.extend_from_slice(&data[written..]);
        data.len()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// xorshift64*: the same cases on every run.
    pub(in crate::report) struct Random(pub(in crate::report) u64);

    impl Random {
        pub(in crate::report) fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
        }

        pub(in crate::report) fn bytes(&mut self, alphabet: &[u8], length: usize) -> Vec<u8> {
            (0..length).map(|_| alphabet[self.below(alphabet.len())]).collect()
        }

        /// `data` in random pieces, empty ones among them.
        pub(in crate::report) fn split<'a>(&mut self, mut data: &'a [u8]) -> Vec<&'a [u8]> {
            let mut pieces = Vec::new();
            while !data.is_empty() {
                let (piece, rest) = data.split_at(self.below(data.len().min(5) + 1));
                pieces.push(piece);
                data = rest;
            }
            pieces
        }
    }

    pub(in crate::report) fn mask(values: &[impl AsRef<[u8]>]) -> Arc<Mask> {
        Mask::new(&values.iter().map(|v| Secret::new("KEY", v.as_ref()).unwrap()).collect::<Vec<_>>())
    }

    /// The definition: find every occurrence in the whole, join those that overlap, replace.
    pub(in crate::report) fn naive(values: &[impl AsRef<[u8]>], data: &[u8]) -> Vec<u8> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        for at in 0..data.len() {
            for value in values.iter().map(AsRef::as_ref).filter(|v| data[at..].starts_with(v)) {
                match found.last_mut() {
                    Some((_, end)) if at < *end => *end = (*end).max(at + value.len()),
                    _ => found.push((at, at + value.len())),
                }
            }
        }
        let mut out = Vec::new();
        let mut clear = 0;
        for (start, end) in found {
            out.extend_from_slice(&data[clear..start]);
            out.extend_from_slice(STARS);
            clear = end;
        }
        out.extend_from_slice(&data[clear..]);
        out
    }

    fn masked(values: &[impl AsRef<[u8]>], pieces: &[&[u8]], tail: Tail) -> String {
        let mut masker = Masker::new(&mask(values));
        let mut out = Vec::new();
        for piece in pieces {
            masker.push(piece, &mut out);
        }
        masker.finish(tail, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn by_hand() {
        let cases: [(&[&str], &[&str], &str); 10] = [
            (&["hunter2"], &["a hunter2 b"], "a *** b"),
            (&["hunter2"], &["a hun", "ter", "2", " b"], "a *** b"),
            (&["hunter2"], &["hunhunter2hun"], "hun***hun"),
            (&["abc", "abcdef"], &["abc", "de", "f abcde"], "*** ***de"),
            (&["abcd", "cdef"], &["abc", "def"], "***"),
            (&["abcd", "cdef"], &["abcd", "e"], "***e"),
            (&["ab"], &["ab", "ab"], "******"),
            (&["aa"], &["a", "a", "a"], "***"),
            (&["x"], &["x", "yx"], "***y***"),
            (&[], &["hunter2"], "hunter2"),
        ];
        for (values, pieces, expected) in cases {
            let pieces: Vec<_> = pieces.iter().map(|p| p.as_bytes()).collect();
            assert_eq!(masked(values, &pieces, Tail::Whole), expected, "{values:?} {pieces:?}");
        }
    }

    #[test]
    fn any_split_gives_what_the_whole_gives() {
        let mut random = Random(1);
        for _ in 0..20_000 {
            // Few letters, so that values overlap themselves and each other; one byte is no UTF-8.
            let values: Vec<_> = (0..1 + random.below(3))
                .map(|_| {
                    let length = 1 + random.below(6);
                    random.bytes(b"ab\xff", length)
                })
                .collect();
            let length = random.below(40);
            let data = random.bytes(b"aabb\xffc", length);
            let expected = String::from_utf8_lossy(&naive(&values, &data)).into_owned();
            assert_eq!(masked(&values, &random.split(&data), Tail::Whole), expected, "{values:x?} {data:x?}");
        }
    }

    #[test]
    fn a_kill_in_the_middle_shows_no_beginning() {
        let (values, text) = ([&b"hunter2"[..], b"r2d2hunter"], b"x hunter2 r2d2hunter2 x");
        for cut in 0..=text.len() {
            for at in 0..=cut {
                let out = masked(&values, &[&text[..at], &text[at..cut]], Tail::Cut);
                assert!(out.chars().all(|c| "x *".contains(c)), "{out}");
            }
        }
    }

    #[test]
    fn a_kill_adds_no_stars_to_what_is_already_hidden() {
        assert_eq!(masked(&["abca"], &[b"-abca"], Tail::Cut), "-***");
        assert_eq!(masked(&["abca"], &[b"-abcab", b"c"], Tail::Cut), "-***");
        assert_eq!(masked(&["abca"], &[b"-abca-ab"], Tail::Cut), "-***-***");
        assert_eq!(masked(&["abca"], &[b"-abca-ab"], Tail::Whole), "-***-ab");
    }

    #[test]
    fn what_is_held_back_is_shorter_than_the_longest_value() {
        let mut masker = Masker::new(&mask(&["aaaaaaab"]));
        let mut out = Vec::new();
        for _ in 0..1000 {
            masker.push(b"aaa", &mut out);
            assert!(masker.held.len() < 8);
        }
        assert_eq!(out.len(), 3000 - masker.held.len());
    }
}
