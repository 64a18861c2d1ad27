//! `--user UID[:GID]`, read strictly: a name that is taken for 0 makes somebody root (CVE-2026-30892).

use fumehood::{Error, Result};

/// -1 is nobody's id.
const LAST: u32 = u32::MAX - 1;

/// The user, and the group if one is given.
pub fn parse(text: &str) -> Result<(u32, Option<u32>)> {
    let bad = |what: &str, part: &str| {
        Error::new(format!("--user {text:?}: bad {what}: {part:?} is not a number from 0 to {LAST}"))
            .with_hint("--user UID or --user UID:GID")
    };
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let gid = gid.map(|gid| id(gid).ok_or_else(|| bad("gid", gid))).transpose()?;
    Ok((id(uid).ok_or_else(|| bad("uid", uid))?, gid))
}

/// Digits and nothing else: no sign, no space.
pub fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|id| *id <= LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2026_30892_only_numbers_are_users() {
        for (text, user) in [
            ("0", (0, None)),
            ("1", (1, None)),
            ("1:2", (1, Some(2))),
            ("0:0", (0, Some(0))),
            ("4294967294:4294967294", (LAST, Some(LAST))),
        ] {
            assert_eq!(parse(text).unwrap(), user, "{text}");
        }
        for text in [
            "",
            "name",
            ":5",
            "1:",
            ":",
            "-1",
            "+1",
            "1:-1",
            "4294967295",
            "4294967296",
            "1:4294967296",
            " 1",
            "1 ",
            "1:2:3",
            "1.5",
            "0x1",
            "1name",
            "99999999999999999999",
            "\u{661}",
        ] {
            assert!(parse(text).is_err(), "{text:?} is taken for {:?}", parse(text));
        }
    }
}
