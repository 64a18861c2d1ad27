//! Secrets that a server sends back, made unreadable on their way to the client.
//!
//! Each byte of one becomes a `*`, so that what is said about lengths stays true. What may become a secret with the next
//! bytes is held back until they come: no boundary between two reads shows half of one.

use zeroize::Zeroizing;

pub(super) struct Conceal<'a> {
    secrets: &'a [Zeroizing<Vec<u8>>],
    held: Zeroizing<Vec<u8>>,
    /// How many bytes of `held` belong to a secret that began before.
    hidden: usize,
}

impl<'a> Conceal<'a> {
    pub fn new(secrets: &'a [Zeroizing<Vec<u8>>]) -> Self {
        Self { secrets, held: Zeroizing::default(), hidden: 0 }
    }

    pub fn is_needed(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Appends to `out` what is decided with `bytes`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.held.is_empty() {
            let decided = self.pass(bytes, true, out);
            self.held.extend_from_slice(&bytes[decided..]);
        } else {
            let mut all = std::mem::take(&mut self.held);
            all.extend_from_slice(bytes);
            let decided = self.pass(&all, true, out);
            all.drain(..decided);
            self.held = all;
        }
    }

    /// Appends what was held back: nothing more comes.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        self.pass(&held, false, out);
    }

    fn pass(&mut self, bytes: &[u8], more: bool, out: &mut Vec<u8>) -> usize {
        let mut hidden = std::mem::take(&mut self.hidden);
        for at in 0..bytes.len() {
            let rest = &bytes[at..];
            for secret in self.secrets {
                if rest.starts_with(secret) {
                    hidden = hidden.max(at + secret.len());
                } else if more && rest.len() < secret.len() && secret.starts_with(rest) {
                    self.hidden = hidden.saturating_sub(at);
                    return at;
                }
            }
            out.push(if at < hidden { b'*' } else { bytes[at] });
        }
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concealed(secrets: &[&str], pieces: &[&[u8]]) -> String {
        let secrets: Vec<_> = secrets.iter().map(|secret| Zeroizing::new(secret.as_bytes().to_vec())).collect();
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
    fn what_cannot_become_a_secret_is_not_held() {
        let secrets = [Zeroizing::new(b"hunter2".to_vec())];
        let mut conceal = Conceal::new(&secrets);
        let mut out = Vec::new();
        conceal.push(b"data: x\n\n", &mut out);
        assert_eq!(out, b"data: x\n\n");
        conceal.push(b"hunt", &mut out);
        assert_eq!(out, b"data: x\n\n");
    }
}
