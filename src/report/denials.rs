//! What the program was refused: at most [`Denials::MOST`] distinct ones, whatever it tries.
//!
//! A payload chooses the targets and can make millions of them, so memory is bounded in number and in
//! length, a repeat costs no allocation, and what did not fit is counted.

use serde::Serialize;

/// One thing refused, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    pub kind: DenialKind,
    /// A system call's name, `host:port`, or a path.
    pub target: String,
    /// The rule that refused it.
    pub rule: String,
    /// What would allow it.
    pub hint: Option<String>,
    pub count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialKind {
    Syscall,
    Network,
    File,
}

/// The distinct denials of one run, in the order they first came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denials {
    seen: Vec<Denial>,
    left_out: u64,
}

impl Denials {
    /// Distinct denials kept.
    pub const MOST: usize = 64;
    /// Bytes kept of a target.
    pub const TARGET_BYTES: usize = 1024;

    /// Counts one denial; `hint` is asked only when it is new. Returns the denial when it is new and
    /// kept, which is when it is worth an event.
    pub fn record(
        &mut self,
        kind: DenialKind,
        target: &str,
        rule: &str,
        hint: impl FnOnce() -> Option<String>,
    ) -> Option<&Denial> {
        let target = prefix(target, Self::TARGET_BYTES);
        let same = |d: &&mut Denial| d.kind == kind && d.target == target && d.rule == rule;
        if let Some(denial) = self.seen.iter_mut().find(same) {
            denial.count = denial.count.saturating_add(1);
            return None;
        }
        if self.seen.len() == Self::MOST {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.seen.push(Denial { kind, target: target.to_owned(), rule: rule.to_owned(), hint: hint(), count: 1 });
        self.seen.last()
    }

    #[must_use]
    pub fn as_slice(&self) -> &[Denial] {
        &self.seen
    }

    /// How many times something was refused that is not in the list.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// At most `bytes` of `text`, cut before a character.
fn prefix(text: &str, bytes: usize) -> &str {
    let cut = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..cut]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(denials: &mut Denials, target: &str) -> bool {
        denials.record(DenialKind::Network, target, "default deny", || None).is_some()
    }

    #[test]
    fn repeats_are_counted_not_kept() {
        let mut denials = Denials::default();
        assert!(network(&mut denials, "a:1"));
        assert!(!network(&mut denials, "a:1"));
        assert!(denials.record(DenialKind::File, "a:1", "default deny", || Some("h".into())).is_some());
        assert!(denials.record(DenialKind::File, "a:1", "other rule", || None).is_some());
        assert!(denials.record(DenialKind::File, "a:1", "default deny", || panic!("not new")).is_none());
        let counts: Vec<_> = denials.as_slice().iter().map(|d| (d.kind, d.hint.as_deref(), d.count)).collect();
        assert_eq!(
            counts,
            [(DenialKind::Network, None, 2), (DenialKind::File, Some("h"), 2), (DenialKind::File, None, 1)]
        );
        assert_eq!(denials.left_out(), 0);
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let mut denials = Denials::default();
        let new = (0..10_000).filter(|n| network(&mut denials, &format!("{n}.example:443"))).count();
        assert_eq!((new, denials.as_slice().len(), denials.left_out()), (64, 64, 10_000 - 64));
        assert!(!network(&mut denials, "0.example:443"), "a known one is still counted");
        assert_eq!((denials.as_slice()[0].count, denials.left_out()), (2, 10_000 - 64));
    }

    #[test]
    fn a_long_target_is_cut_before_a_character() {
        let mut denials = Denials::default();
        network(&mut denials, &"é".repeat(5000));
        network(&mut denials, &format!("x{}", "é".repeat(5000)));
        let lengths: Vec<_> = denials.as_slice().iter().map(|d| d.target.len()).collect();
        assert_eq!(lengths, [1024, 1023]);
    }
}
