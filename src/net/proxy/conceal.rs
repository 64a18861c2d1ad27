//! Secrets that a server sends back, made unreadable on their way to the client.
//!
//! Each byte of one becomes a `*`, so that what is said about lengths stays true. As many bytes as could begin one are held
//! back whatever they are, until more come or none do for a moment: a client that has a server send back what it says
//! does not see in what is held that it has guessed a beginning.

use zeroize::Zeroizing;

use crate::occurrences::{Hold, Piece, Search, Values};

pub(super) type Secrets = Values<Zeroizing<Vec<u8>>>;

pub(super) struct Conceal<'a> {
    secrets: &'a Secrets,
    search: Search,
}

impl<'a> Conceal<'a> {
    pub fn new(secrets: &'a Secrets) -> Self {
        Self { secrets, search: Search::new(Hold::Always) }
    }

    pub fn is_needed(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Whether there is something that [`Self::pause`] would give out, perhaps.
    pub fn is_holding(&self) -> bool {
        self.search.is_holding()
    }

    /// Appends to `out` what is decided with `bytes`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.is_needed() {
            self.search.push(self.secrets, bytes, |piece| write(piece, out));
        } else {
            out.extend_from_slice(bytes);
        }
    }

    /// Appends what was held back: nothing comes for a while. More than half of a secret is held all the same.
    pub fn pause(&mut self, out: &mut Vec<u8>) {
        self.search.pause(self.secrets, |piece| write(piece, out));
    }

    /// Appends what was held back: nothing more comes.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.search.finish(self.secrets, |piece| write(piece, out));
    }
}

fn write(piece: Piece<'_>, out: &mut Vec<u8>) {
    match piece {
        Piece::Clear(bytes) => out.extend_from_slice(bytes),
        Piece::Found { length, .. } => out.resize(out.len() + length, b'*'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(secrets: &[&str]) -> Secrets {
        Values::new(secrets.iter().map(|secret| Zeroizing::new(secret.as_bytes().to_vec())).collect())
    }

    fn concealed(secrets: &[&str], pieces: &[&[u8]]) -> String {
        let secrets = values(secrets);
        let mut conceal = Conceal::new(&secrets);
        let mut out = Vec::new();
        pieces.iter().for_each(|piece| conceal.push(piece, &mut out));
        conceal.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bypass_26_a_secret_is_found_wherever_it_is_cut() {
        let text = b"a hunter2hunter2 hunhunter2 hunter";
        for size in 1..=text.len() {
            let pieces: Vec<_> = text.chunks(size).collect();
            assert_eq!(concealed(&["hunter2"], &pieces), "a ************** hun******* hunter", "{size}");
        }
    }

    #[test]
    fn secrets_that_overlap_are_covered_whole() {
        for size in 1..=9 {
            let pieces: Vec<_> = b"xabcdefgy".chunks(size).collect();
            assert_eq!(concealed(&["abcd", "cdefg"], &pieces), "x*******y");
            assert_eq!(concealed(&["abcdefg", "cd"], &pieces), "x*******y");
            assert_eq!(concealed(&["abcdefgz", "cd"], &pieces), "xab**efgy");
        }
    }

    #[test]
    fn bypass_26_what_is_held_does_not_tell_a_guess_from_another() {
        let secrets = values(&["sk-hunter2-hunter2"]);
        let mut seen = Vec::new();
        for guess in [&b"sk-h"[..], b"sk-x", b"....", b"sk-hunter"] {
            let (mut conceal, mut out) = (Conceal::new(&secrets), Vec::new());
            conceal.push(guess, &mut out);
            let before = out.len();
            conceal.pause(&mut out);
            seen.push((before, out == guess, conceal.is_holding()));
        }
        assert_eq!(seen, [(0, true, false); 4]);
    }

    #[test]
    fn a_secret_that_comes_in_two_is_not_shown_whole() {
        let secrets = values(&["hunter2hunter2"]);
        for cut in 1..14 {
            let (mut conceal, mut out) = (Conceal::new(&secrets), Vec::new());
            conceal.push(&b"hunter2hunter2"[..cut], &mut out);
            conceal.pause(&mut out);
            conceal.push(&b"hunter2hunter2"[cut..], &mut out);
            conceal.finish(&mut out);
            assert_eq!(out.len(), 14);
            assert!(out.iter().filter(|byte| **byte != b'*').count() <= 7, "{cut}");
        }
    }
}
