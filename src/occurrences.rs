//! Finding values in a stream, however the stream is cut into chunks.
//!
//! What could still become one with the bytes to come is held back until it is decided, so no chunk boundary shows half
//! of one. What becomes of the bytes is for the caller to say.

use zeroize::Zeroizing;

/// What is looked for.
#[derive(Debug)]
pub(crate) struct Values<V> {
    /// Longest first, so the first that fits is the longest that fits. None is empty.
    values: Vec<V>,
    /// Whether one begins with this byte.
    begins: [bool; 256],
}

/// What comes after the bytes that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    More,
    /// More, but not soon.
    Pause,
    Nothing,
}

enum Match {
    None,
    Value(usize),
    Undecided,
}

impl<V: AsRef<[u8]>> Values<V> {
    pub fn new(mut values: Vec<V>) -> Self {
        values.retain(|value| !value.as_ref().is_empty());
        values.sort_by_key(|value| std::cmp::Reverse(value.as_ref().len()));
        let mut begins = [false; 256];
        for value in &values {
            begins[usize::from(value.as_ref()[0])] = true;
        }
        Self { values, begins }
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn longest(&self) -> usize {
        self.values.first().map_or(0, |value| value.as_ref().len())
    }

    /// The longest value at the start of `rest`. With more to come, a longer one that `rest` only begins goes first.
    fn at(&self, rest: &[u8], next: Next) -> Match {
        for value in self.values.iter().map(AsRef::as_ref) {
            if rest.starts_with(value) {
                return Match::Value(value.len());
            }
            let waited_for = match next {
                Next::More => true,
                Next::Pause => 2 * rest.len() > value.len(),
                Next::Nothing => false,
            };
            if waited_for && value.starts_with(rest) {
                return Match::Undecided;
            }
        }
        Match::None
    }
}

/// A piece of the stream, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Clear(&'a [u8]),
    /// So many bytes of a value. `begins`: no value before it overlaps it.
    Found {
        length: usize,
        begins: bool,
    },
}

/// What is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// What begins a value.
    Beginnings,
    /// As much as could begin one, whether it does or not: who says what the stream says, and sees how much of it is held
    /// back, learns nothing from that.
    Always,
}

/// The search through one stream.
#[derive(Debug)]
pub(crate) struct Search {
    hold: Hold,
    /// The end of the stream; shorter than the longest value.
    held: Zeroizing<Vec<u8>>,
    /// How many bytes of `held` the caller was told of.
    told: usize,
}

impl Search {
    pub fn new(hold: Hold) -> Self {
        Self { hold, held: Zeroizing::default(), told: 0 }
    }

    /// Hands `tell` what is decided of the stream with `chunk`.
    pub fn push<V: AsRef<[u8]>>(&mut self, values: &Values<V>, chunk: &[u8], tell: impl FnMut(Piece<'_>)) {
        if self.held.is_empty() {
            let decided = self.scan(values, chunk, Next::More, tell);
            self.held.extend_from_slice(&chunk[decided..]);
        } else {
            let mut data = std::mem::take(&mut self.held);
            data.extend_from_slice(chunk);
            let decided = self.scan(values, &data, Next::More, tell);
            data.drain(..decided);
            self.held = data;
        }
    }

    /// Hands out what was held back, since nothing comes for a while; of a value that may have begun, half at most. It is
    /// remembered: what completes one is found all the same.
    pub fn pause<V: AsRef<[u8]>>(&mut self, values: &Values<V>, tell: impl FnMut(Piece<'_>)) {
        let held = std::mem::take(&mut self.held);
        let decided = self.scan(values, &held, Next::Pause, tell);
        self.told += decided;
        self.held = held;
    }

    /// Hands out what was held back: nothing more comes.
    pub fn finish<V: AsRef<[u8]>>(&mut self, values: &Values<V>, tell: impl FnMut(Piece<'_>)) {
        let held = std::mem::take(&mut self.held);
        self.scan(values, &held, Next::Nothing, tell);
        self.told = 0;
    }

    /// Whether something is held back that nobody was told of.
    pub fn is_holding(&self) -> bool {
        self.told < self.held.len()
    }

    /// Forgets what is held back. Whether any of it was not told.
    pub fn forget(&mut self) -> bool {
        let holding = self.is_holding() && self.told == 0;
        self.held = Zeroizing::default();
        self.told = 0;
        holding
    }

    /// Decides `data` up to the first byte that needs more; returns its place.
    fn scan<V: AsRef<[u8]>>(
        &mut self,
        values: &Values<V>,
        data: &[u8],
        next: Next,
        mut tell: impl FnMut(Piece<'_>),
    ) -> usize {
        let mut told = std::mem::take(&mut self.told);
        let mut end = match (self.hold, next) {
            (Hold::Always, Next::More) => data.len().saturating_sub(values.longest().saturating_sub(1)),
            _ => data.len(),
        };
        let mut at = 0;
        while let Some(step) = data[at..end].iter().position(|byte| values.begins[usize::from(*byte)]) {
            at += step;
            match values.at(&data[at..], next) {
                Match::Value(length) => {
                    let begins = at >= told;
                    if begins {
                        tell(Piece::Clear(&data[told..at]));
                        told = at;
                    }
                    if let Some(length) = (at + length).checked_sub(told).filter(|length| *length > 0) {
                        tell(Piece::Found { length, begins });
                        told += length;
                    }
                }
                Match::Undecided => {
                    end = at;
                    break;
                }
                Match::None => {}
            }
            at += 1;
        }
        if let Some(clear) = data.get(told..end) {
            tell(Piece::Clear(clear));
        }
        self.told = told.max(end) - end;
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(search: &mut Search, act: impl FnOnce(&mut Search, &mut dyn FnMut(Piece<'_>))) -> String {
        let mut out = String::new();
        act(search, &mut |piece| match piece {
            Piece::Clear(bytes) => out.push_str(std::str::from_utf8(bytes).unwrap()),
            Piece::Found { length, .. } => out.push_str(&"*".repeat(length)),
        });
        out
    }

    #[test]
    fn what_is_always_held_says_nothing_about_the_values() {
        let values = Values::new(vec!["hunter2", "abc"]);
        for text in ["hunter", "xunter", "abxabx", "______"] {
            let mut search = Search::new(Hold::Always);
            for byte in text.as_bytes() {
                assert_eq!(told(&mut search, |search, tell| search.push(&values, &[*byte], tell)), "", "{text}");
            }
            assert!(search.is_holding());
        }
        let mut search = Search::new(Hold::Always);
        assert_eq!(told(&mut search, |search, tell| search.push(&values, b"-abc-hunter2-", tell)), "-***-*******");
        assert_eq!(told(&mut search, |search, tell| search.finish(&values, tell)), "-");
    }

    #[test]
    fn a_pause_gives_out_what_is_held_but_no_more_than_half_of_a_value() {
        let values = Values::new(vec!["hunter22", "ab"]);
        for (before, paused, after, rest) in [
            ("data: x", "data: x", "y", "y"),
            ("hun", "hun", "ter22", "*****"),
            ("hun", "hun", "gry", "gry"),
            ("hunte", "", "r22", "********"),
            ("hunte", "", "d", "hunted"),
            ("-ab", "-**", "c", "c"),
            ("a", "a", "b", "*"),
        ] {
            let mut search = Search::new(Hold::Always);
            assert_eq!(told(&mut search, |search, tell| search.push(&values, before.as_bytes(), tell)), "", "{before}");
            assert_eq!(told(&mut search, |search, tell| search.pause(&values, tell)), paused, "{before}");
            // Another one has nothing to add.
            assert_eq!(told(&mut search, |search, tell| search.pause(&values, tell)), "", "{before}");
            let mut then = told(&mut search, |search, tell| search.push(&values, after.as_bytes(), tell));
            then += &told(&mut search, |search, tell| search.finish(&values, tell));
            assert_eq!(then, rest, "{before} {after}");
        }
    }
}
