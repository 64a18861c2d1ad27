//! Replacing secrets in a stream, however the stream is cut into chunks.
//!
//! Every byte that is part of an occurrence of any secret is hidden; occurrences that overlap become
//! one `***`. What could still become an occurrence is held back until it is decided, so no chunk
//! boundary shows half of one. Encodings of a value (base64, percent) are other bytes and pass.

use std::sync::Arc;

use crate::{
    occurrences::{Hold, Piece, Search, Values},
    request::secrets::{Secret, SecretValue},
};

const STARS: &[u8] = b"***";

/// The values to hide, made ready once for all streams of a sandbox.
#[derive(Debug)]
pub struct Mask(Values<SecretValue>);

impl Mask {
    #[must_use]
    pub fn new(secrets: &[Secret]) -> Arc<Self> {
        Arc::new(Self(Values::new(secrets.iter().map(|secret| secret.value().clone()).collect())))
    }
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
    search: Search,
}

impl Masker {
    pub(super) fn new(mask: &Arc<Mask>) -> Self {
        Self { mask: Arc::clone(mask), search: Search::new(Hold::Beginnings) }
    }

    /// Appends to `out` what is decided of the stream with `chunk`.
    pub(super) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        if self.mask.0.is_empty() {
            out.extend_from_slice(chunk);
        } else {
            self.search.push(&self.mask.0, chunk, |piece| write(piece, out));
        }
    }

    /// Appends to `out` what was held back.
    pub(super) fn finish(&mut self, tail: Tail, out: &mut Vec<u8>) {
        match tail {
            Tail::Whole => self.search.finish(&self.mask.0, |piece| write(piece, out)),
            Tail::Cut if self.search.forget() => out.extend_from_slice(STARS),
            Tail::Cut => {}
        }
    }
}

fn write(piece: Piece<'_>, out: &mut Vec<u8>) {
    match piece {
        Piece::Clear(bytes) => out.extend_from_slice(bytes),
        Piece::Found { begins: true, .. } => out.extend_from_slice(STARS),
        Piece::Found { begins: false, .. } => {}
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
        for pushed in 1..=1000 {
            masker.push(b"aaa", &mut out);
            assert!(3 * pushed - out.len() < 8);
        }
    }
}
