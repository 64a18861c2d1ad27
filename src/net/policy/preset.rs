//! Lists of rules that come with fumehood: readable files, in the binary.

use std::sync::OnceLock;

use super::rule::{Rule, RuleError};

/// What [`Mode::Packages`](super::Mode::Packages) allows.
pub const PACKAGES: &str = include_str!("../../../profiles/egress/packages");

/// Read once in a process.
pub(super) fn packages() -> Result<&'static [Rule], RuleError> {
    static RULES: OnceLock<Result<Vec<Rule>, RuleError>> = OnceLock::new();
    RULES.get_or_init(|| Rule::list(PACKAGES)).as_deref().map_err(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_rules_each_once() {
        let rules = packages().unwrap();
        assert!(rules.len() > 40);
        for (index, rule) in rules.iter().enumerate() {
            assert_eq!(rule.check_allow(), Ok(()), "{rule}");
            assert!(!rules[..index].contains(rule), "{rule} is there twice");
        }
    }
}
