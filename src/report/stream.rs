//! The way of one output stream: chunk → secrets masked → capped → kept, and passed on.
//!
//! What is kept and what is passed on are the same bytes. The cap counts them after masking, as
//! [`Limits::output`](crate::request::limits::Limits) says: memory is bounded by it whatever the
//! secrets are, and since no beginning of a secret gets past the mask, no cut can show one.

use std::sync::Arc;

use super::{
    mask::{Mask, Masker, Tail},
    text::unfinished,
};
use crate::request::limits::Bytes;

/// One stream while the program runs.
#[derive(Debug)]
pub struct Capture {
    masker: Masker,
    cap: usize,
    kept: Vec<u8>,
    truncated: bool,
}

/// One stream as it goes into the result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    pub bytes: Vec<u8>,
    /// The program wrote more than the limit, and the rest is lost.
    pub truncated: bool,
}

impl Capture {
    #[must_use]
    pub fn new(mask: &Arc<Mask>, cap: Bytes) -> Self {
        let cap = usize::try_from(cap.get()).unwrap_or(usize::MAX);
        Self { masker: Masker::new(mask), cap, kept: Vec::new(), truncated: false }
    }

    /// Takes what the program wrote, and returns what to pass on now: it may lag behind by less than a
    /// secret's length, and is empty once the stream is over its cap.
    pub fn push(&mut self, chunk: &[u8]) -> &[u8] {
        let before = self.kept.len();
        if !self.truncated {
            self.masker.push(chunk, &mut self.kept);
            self.cut();
        }
        &self.kept[before..]
    }

    /// Whether the stream went over its cap: time to kill the program.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// The stream's end: what was kept, and how much of its end is still to be passed on.
    #[must_use]
    pub fn finish(mut self, tail: Tail) -> (Captured, Vec<u8>) {
        let before = self.kept.len();
        self.masker.finish(tail, &mut self.kept);
        self.cut();
        let last = self.kept[before..].to_vec();
        if self.truncated {
            // Text that the cap cut inside a character would no longer be text.
            self.kept.truncate(self.kept.len() - unfinished(&self.kept));
        }
        (Captured { bytes: self.kept, truncated: self.truncated }, last)
    }

    fn cut(&mut self) {
        if self.kept.len() > self.cap {
            self.kept.truncate(self.cap);
            self.truncated = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mask::tests::{Random, mask, naive};
    use super::*;

    const NONE: [&str; 0] = [];

    /// What was kept, after asserting that the same was passed on.
    fn run(values: &[impl AsRef<[u8]>], cap: u64, pieces: &[&[u8]]) -> Captured {
        let mut capture = Capture::new(&mask(values), Bytes::new(cap));
        let mut live = Vec::new();
        for piece in pieces {
            live.extend_from_slice(capture.push(piece));
        }
        let (captured, last) = capture.finish(Tail::Whole);
        live.extend(last);
        assert!(live.starts_with(&captured.bytes) && live.len() - captured.bytes.len() < 4, "{live:x?} {captured:x?}");
        captured
    }

    #[test]
    fn the_cap_is_exact_and_told_at_once() {
        let mut capture = Capture::new(&mask(&NONE), Bytes::new(4));
        assert_eq!((capture.push(b"abcd").to_vec(), capture.is_truncated()), (b"abcd".to_vec(), false));
        assert_eq!((capture.push(b"").to_vec(), capture.is_truncated()), (vec![], false));
        assert_eq!((capture.push(b"e").to_vec(), capture.is_truncated()), (vec![], true));
        assert!(capture.push(b"f").is_empty());
        let (captured, last) = capture.finish(Tail::Whole);
        assert_eq!((captured, last), (Captured { bytes: b"abcd".to_vec(), truncated: true }, vec![]));
    }

    #[test]
    fn any_cap_and_split_keep_the_beginning_of_the_masked_whole() {
        let mut random = Random(2);
        for _ in 0..20_000 {
            let length = 1 + random.below(6);
            let values = [random.bytes(b"ab", length), b"ba".to_vec()];
            let length = random.below(40);
            let data = random.bytes(b"aabbc", length);
            let whole = naive(&values, &data);
            let cap = random.below(40);
            let captured = run(&values, cap as u64, &random.split(&data));
            assert_eq!(captured.bytes, whole[..cap.min(whole.len())], "{values:x?} {data:x?} {cap}");
            assert_eq!(captured.truncated, whole.len() > cap);
        }
    }

    #[test]
    fn no_cut_shows_the_beginning_of_a_secret() {
        let text = b"x hunter2 x hunter2 x";
        for cap in 0..=text.len() {
            for at in 0..=text.len() {
                let kept = run(&["hunter2"], cap as u64, &[&text[..at], &text[at..]]).bytes;
                assert!(kept.iter().all(|b| b"x *".contains(b)), "{cap} {at}");
            }
        }
    }

    #[test]
    fn text_that_was_cut_stays_text() {
        for (text, cap, kept) in [("aé", 2, "a"), ("aé€", 3, "aé"), ("🧪", 3, ""), ("aé", 3, "aé")] {
            let captured = run(&NONE, cap, &[text.as_bytes()]);
            assert_eq!((captured.bytes, captured.truncated), (kept.into(), kept != text), "{text} {cap}");
        }
        assert_eq!(run(&NONE, 9, &[b"a\xc3"]).bytes, b"a\xc3", "what the program cut is its own");
    }
}
