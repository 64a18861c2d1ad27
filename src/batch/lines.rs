//! Cuts a stream of bytes into lines, or into the rows of a table, which may have line ends in quotes. What it holds is
//! bounded: of a line that is too long only the hash is kept.

use sha2::{Digest, Sha256};

/// Longer lines are no jobs.
pub(super) const LONGEST: usize = 8 << 20;

/// One line as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    /// Where it begins, from 1.
    pub(super) line: u64,
    /// Without its end; empty if it was too long.
    pub(super) bytes: Vec<u8>,
    pub(super) sha256: [u8; 32],
    pub(super) too_long: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    /// The beginning of a field.
    Start,
    Plain,
    Quoted,
    /// After a quote in quotes: the end, or half of an escaped one.
    Quote,
}

#[derive(Debug)]
pub(super) struct Lines {
    table: bool,
    buffer: Vec<u8>,
    /// Where the next line begins in it.
    begin: usize,
    /// Up to where it has been looked at.
    seen: usize,
    state: In,
    /// Of the line that is being read: where it begins, and how many line ends it has.
    line: u64,
    ends: u64,
    longest: usize,
    /// Of one that is too long, what has gone by.
    gone: Option<Sha256>,
}

impl Lines {
    pub(super) fn new(table: bool) -> Self {
        Self {
            table,
            buffer: Vec::new(),
            begin: 0,
            seen: 0,
            state: In::Start,
            line: 1,
            ends: 0,
            longest: LONGEST,
            gone: None,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.begin > 0 && self.begin >= self.buffer.len() / 2 {
            self.buffer.drain(..self.begin);
            self.seen -= self.begin;
            self.begin = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line that says something.
    pub(super) fn next(&mut self) -> Option<Raw> {
        while let Some(end) = self.find_end() {
            if self.gone.is_none() && self.buffer[self.begin..end].trim_ascii().is_empty() {
                self.pass(end, 1);
                continue;
            }
            return Some(self.cut(end, 1));
        }
        if self.buffer.len() - self.begin > self.longest {
            let gone = self.gone.get_or_insert_default();
            gone.update(&self.buffer[self.begin..]);
            self.buffer.clear();
            (self.begin, self.seen) = (0, 0);
        }
        None
    }

    /// What is left when there will be no more.
    pub(super) fn last(&mut self) -> Option<Raw> {
        let raw = self.cut(self.buffer.len(), 0);
        (raw.too_long || !raw.bytes.trim_ascii().is_empty()).then_some(raw)
    }

    fn find_end(&mut self) -> Option<usize> {
        while let Some(byte) = self.buffer.get(self.seen) {
            let at = self.seen;
            self.seen += 1;
            if *byte == b'\n' {
                self.ends += 1;
                if !self.table || self.state != In::Quoted {
                    return Some(at);
                }
            }
            self.state = match (self.state, byte) {
                (In::Start, b'"') | (In::Quote, b'"') => In::Quoted,
                (In::Quoted, b'"') => In::Quote,
                (In::Quoted, _) => In::Quoted,
                (_, b',') => In::Start,
                _ => In::Plain,
            };
        }
        None
    }

    fn cut(&mut self, end: usize, skip: usize) -> Raw {
        let bytes = &self.buffer[self.begin..end];
        let mut hash = self.gone.take();
        let too_long = hash.is_some() || bytes.len() > self.longest;
        let sha256 = match &mut hash {
            Some(gone) => {
                gone.update(bytes);
                std::mem::take(gone).finalize().into()
            }
            None => Sha256::digest(bytes).into(),
        };
        let raw = Raw { line: self.line, bytes: if too_long { Vec::new() } else { bytes.to_vec() }, sha256, too_long };
        self.pass(end, skip);
        raw
    }

    fn pass(&mut self, end: usize, skip: usize) {
        self.begin = end + skip;
        self.line += self.ends;
        (self.ends, self.state) = (0, In::Start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(table: bool, text: &[u8], step: usize, longest: usize) -> Vec<(u64, String)> {
        let mut lines = Lines::new(table);
        lines.longest = longest;
        let mut found = Vec::new();
        for chunk in text.chunks(step) {
            lines.push(chunk);
            while let Some(raw) = lines.next() {
                found.push(raw);
            }
        }
        found.extend(lines.last());
        found
            .iter()
            .for_each(|raw| assert!(raw.too_long || raw.sha256 == <[u8; 32]>::from(Sha256::digest(&raw.bytes))));
        let shown =
            |raw: &Raw| if raw.too_long { "…".into() } else { String::from_utf8_lossy(&raw.bytes).into_owned() };
        found.iter().map(|raw| (raw.line, shown(raw))).collect()
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let text = b"one\n\n  \nfour\r\nfive";
        for step in 1..text.len() {
            let found = all(false, text, step, 100);
            assert_eq!(found, [(1, "one".into()), (4, "four\r".into()), (5, "five".into())], "{step}");
        }
    }

    #[test]
    fn rows_have_line_ends_in_quotes() {
        let text = b"a,b\n\"1\n\"\"2\"\",\",x\ny \"z\n\"q\"";
        for step in 1..text.len() {
            let found = all(true, text, step, 100);
            let wanted = [(1, "a,b"), (2, "\"1\n\"\"2\"\",\",x"), (4, "y \"z"), (5, "\"q\"")];
            assert_eq!(found, wanted.map(|(line, text)| (line, text.to_owned())), "{step}");
        }
    }

    #[test]
    fn what_is_too_long_is_passed_over() {
        let text = [&b"a\n"[..], &[b'x'; 500], b"\nb\n"].concat();
        let mut hashes = Vec::new();
        for step in [1, 7, 64, 1000] {
            assert_eq!(all(false, &text, step, 64), [(1, "a".into()), (2, "…".into()), (3, "b".into())], "{step}");
            let mut lines = Lines::new(false);
            lines.longest = 64;
            text.chunks(step).for_each(|chunk| {
                lines.push(chunk);
                while let Some(raw) = lines.next() {
                    hashes.extend(raw.too_long.then_some(raw.sha256));
                }
            });
        }
        assert!(hashes.iter().all(|hash| *hash == <[u8; 32]>::from(Sha256::digest([b'x'; 500]))));
    }
}
