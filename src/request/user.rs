//! Who the program is inside: numbers only, since a name would have to be looked up in hostile files.

use serde::Serialize;

/// A user and group id inside the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Asked for by name with `--user`.
    #[serde(skip)]
    pub asked: bool,
}

impl Default for User {
    /// `sandbox`, never root.
    fn default() -> Self {
        Self { uid: 1000, gid: 1000, asked: false }
    }
}

/// Ids above this are not in the 65,536 that a sandbox has.
pub(crate) const LAST_ID: u32 = 65_534;

impl User {
    /// `UID[:GID]`; the names `root` and `sandbox` are known too. A group left out equals the user.
    /// Everything else is refused: `exec -u 1` read as root was CVE-2026-30892, a wrapped number CVE-2024-40635.
    pub fn parse(text: &str) -> Result<Self, UserError> {
        let number = |part: &str| match part {
            "root" => Ok(0),
            "sandbox" => Ok(1000),
            _ => match super::limits::parse_count(part, 0, u64::from(LAST_ID)) {
                Ok(id) => Ok(id as u32),
                Err(_) => Err(UserError { text: text.to_owned() }),
            },
        };
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (number(user)?, number(group)?),
            None => (number(text)?, number(text)?),
        };
        Ok(Self { uid: user, gid: group, asked: true })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no user: give UID or UID:GID, each 0 to 65534")]
pub struct UserError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2026_30892_and_2024_40635_only_plain_ids_pass() {
        let ids = |text| User::parse(text).map(|u| (u.uid, u.gid));
        assert_eq!(ids("1"), Ok((1, 1)));
        assert_eq!(ids("1:2"), Ok((1, 2)));
        assert_eq!(ids("root"), Ok((0, 0)));
        for bad in [
            "",
            ":",
            ":5",
            "5:",
            "-1",
            "+1",
            "4294967296",
            "4294967295",
            "65535",
            "1:4294967297",
            "name",
            "1:2:3",
            " 1",
            "0x1",
        ] {
            assert!(ids(bad).is_err(), "{bad:?}");
        }
    }
}
