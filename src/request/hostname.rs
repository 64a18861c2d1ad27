//! What the program takes the host's name for: it goes to sethostname(2) and into /etc/hosts, so it can be no more
//! than one word.

use std::fmt;

/// 1 to 64 letters, digits and `-._`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostname(String);

/// HOST_NAME_MAX, in bytes: __NEW_UTS_LEN of the kernel.
const MOST: usize = 64;

impl Default for Hostname {
    fn default() -> Self {
        Self("sandbox".to_owned())
    }
}

impl Hostname {
    /// The empty name is the default one, as docker-run(1) has it. Docker leaves all else to the kernel, which takes
    /// any bytes: a newline would add a line to /etc/hosts.
    pub fn parse(text: &str) -> Result<Self, HostnameError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > MOST {
            return Err(HostnameError::Long(text.len()));
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-._".contains(*c))) {
            Some(character) => Err(HostnameError::Character { text: text.to_owned(), character }),
            None => Ok(Self(text.to_owned())),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    #[error("a host name of {0} bytes is too long: Linux takes at most {MOST} (HOST_NAME_MAX)")]
    Long(usize),
    #[error("`{}` is no host name: it has {character:?}", text.escape_debug())]
    Character { text: String, character: char },
}

impl crate::error::Hint for HostnameError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Long(_) => "any shorter name will do: it is known inside only".to_owned(),
            Self::Character { .. } => "letters, digits and - . _ are allowed".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_that_the_kernel_takes() {
        for good in ["a", "0", "web-1.example.org", "a_b", &"h".repeat(64)] {
            assert_eq!(Hostname::parse(good).map(|name| name.to_string()).as_deref(), Ok(good));
        }
        assert_eq!(Hostname::parse(""), Ok(Hostname::default()));
        assert_eq!(Hostname::parse(&"h".repeat(65)), Err(HostnameError::Long(65)));
        for bad in ["a b", "a/b", "a\0", "a\n127.0.0.1 b", "a#", "é", " "] {
            assert!(matches!(Hostname::parse(bad), Err(HostnameError::Character { .. })), "{bad:?}");
        }
    }
}
