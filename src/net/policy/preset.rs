//! Lists of rules that come with fumehood: readable files, in the binary.

use std::sync::OnceLock;

use super::rule::{Rule, RuleError};

/// What [`Mode::Packages`](super::Mode::Packages) allows.
pub const PACKAGES: &str = include_str!("../../../profiles/egress/packages");

/// By name.
pub const LISTS: [(&str, &str); 1] = [("packages", PACKAGES)];

/// Read once in a process.
pub(super) fn packages() -> Result<&'static [Rule], RuleError> {
    static RULES: OnceLock<Result<Vec<Rule>, RuleError>> = OnceLock::new();
    RULES.get_or_init(|| Rule::list(PACKAGES)).as_deref().map_err(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 25 of the list of bypasses, as much of it as names can do: no host where anybody has a place of his own to
    /// send to, and no wildcard behind which there could be one.
    #[test]
    fn bypass_25_the_lists_name_single_hosts_that_are_read_from() {
        for rule in packages().unwrap() {
            assert!(rule.text().parse::<crate::net::policy::Name>().is_ok(), "{rule}");
        }
        let names = |name: &str| packages().unwrap().iter().any(|rule| rule.is_about(&name.parse().unwrap()));
        for none in [
            "gist.github.com",
            "gist.githubusercontent.com",
            "uploads.github.com",
            "upload.pypi.org",
            "ghcr.io",
            "storage.googleapis.com",
            "s3.amazonaws.com",
            "evil.s3.amazonaws.com",
            "evil.github.io",
            "ftp.debian.org",
        ] {
            assert!(!names(none), "{none}");
        }
    }

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
