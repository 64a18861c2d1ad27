//! A host's name in its one canonical spelling.
//!
//! Rules, DNS, TLS, HTTP and SOCKS all bring names, and every trick with them lives on two places reading one name
//! differently. So a name is read once: what is no [`Name`] reaches neither a rule nor a resolver.

use std::{fmt, str::FromStr};

const LONGEST: usize = 253;
const LONGEST_LABEL: usize = 63;

/// Lower case, without a trailing dot, labels of letters, digits, `-` and `_`, and never an address in any spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no host name: {why}", text.escape_debug())]
pub struct NameError {
    text: String,
    why: &'static str,
}

impl crate::error::Hint for NameError {
    fn hint(&self) -> Option<String> {
        Some("write a name as example.com, an address as 203.0.113.5 or 203.0.113.0/24".to_owned())
    }
}

impl Name {
    /// What a program sent: ASCII alone, since a second spelling of a name is an attempt at something.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, NameError> {
        let wrong = |why| NameError { text: String::from_utf8_lossy(bytes).chars().take(LONGEST).collect(), why };
        let text = bytes.strip_suffix(b".").unwrap_or(bytes);
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if text.len() > LONGEST {
            return Err(wrong("it is longer than 253 characters"));
        }
        for label in text.split(|&byte| byte == b'.') {
            if label.is_empty() {
                return Err(wrong("there is nothing between two dots"));
            }
            if label.len() > LONGEST_LABEL {
                return Err(wrong("a part of it is longer than 63 characters"));
            }
            if !label.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
                return Err(wrong("a name has letters, digits, `-` and `_`"));
            }
            if label.starts_with(b"-") || label.ends_with(b"-") {
                return Err(wrong("a part of it begins or ends with `-`"));
            }
        }
        // What resolvers take for an address (`127.1`, `0x7f.1`, `2130706433`, `0177.0.0.1`) ends in a number, and no
        // top-level domain does (URL standard, "ends in a number").
        let last = text.rsplit(|&byte| byte == b'.').next().unwrap_or_default();
        let hexadecimal = last.strip_prefix(b"0x").or_else(|| last.strip_prefix(b"0X"));
        if last.iter().all(u8::is_ascii_digit) || hexadecimal.is_some_and(|rest| rest.iter().all(u8::is_ascii_hexdigit))
        {
            return Err(wrong("it ends in a number, which resolvers take for an address"));
        }
        let text = std::str::from_utf8(text).map_err(|_| wrong("it is no text"))?;
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lies below `parent`: at a dot, and not `parent` itself.
    #[must_use]
    pub fn is_below(&self, parent: &Self) -> bool {
        self.0.strip_suffix(&*parent.0).is_some_and(|before| before.ends_with('.'))
    }

    /// Whether anybody may register names right below it (`com`, `co.uk`, `github.io`).
    #[must_use]
    pub fn is_public_suffix(&self) -> bool {
        psl::suffix_str(&self.0) == Some(&*self.0)
    }
}

/// What a person writes: also with letters beyond ASCII.
impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = |why| NameError { text: text.chars().take(LONGEST).collect(), why };
        if text.is_ascii() {
            return Self::from_wire(text.as_bytes());
        }
        let ascii = idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::URL)
            .map_err(|_| wrong("its letters are none of an international domain name"))?;
        Self::from_wire(ascii.as_bytes())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// Row 7 of the list of bypasses.
    #[test]
    fn bypass_07_every_spelling_is_one_name_or_none() {
        for same in ["example.com", "EXAMPLE.com", "eXample.Com."] {
            assert_eq!(Name::from_wire(same.as_bytes()).unwrap().as_str(), "example.com", "{same}");
        }
        let label = "a".repeat(64);
        let long = ["a".repeat(60).as_str(); 5].join(".");
        for none in [
            "",
            ".",
            "example.com..",
            ".example.com",
            "a..b",
            "example.com\0",
            "a\0.example.com",
            " example.com",
            "example.com ",
            "exa mple.com",
            "example.com\n",
            "example%2ecom",
            "ex\u{e4}mple.com",
            "example\u{3002}com",
            "-a.com",
            "a-.com",
            "a.com:80",
            "user@a.com",
            "[a]",
            "*.a.com",
            "a/b",
            &label,
            &long,
        ] {
            assert!(Name::from_wire(none.as_bytes()).is_err(), "{none:?}");
        }
        assert!(Name::from_wire(b"\xff.com").is_err());
        assert!(Name::from_wire(b"_dmarc.a-b.example.com").is_ok());
        assert!(Name::from_wire(b"localhost").is_ok());
    }

    /// Row 9 of the list of bypasses, the names' half.
    #[test]
    fn bypass_09_a_number_is_never_a_name() {
        for none in [
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "1.2.3.4.",
            "0X7F.0.0.0x1",
            "0x",
            "a.0x",
            "example.1",
            "[::1]",
            "::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(Name::from_wire(none.as_bytes()).is_err(), "{none:?}");
            assert!(none.parse::<Name>().is_err(), "{none:?}");
        }
        assert!("1.2.3.4.nip.io".parse::<Name>().is_ok());
        assert!("0x1.example".parse::<Name>().is_ok());
    }

    #[test]
    fn a_person_may_write_letters_beyond_ascii() {
        assert_eq!(name("Bücher.example").as_str(), "xn--bcher-kva.example");
        assert_eq!(name("bu\u{308}cher.example"), name("b\u{fc}cher.example"));
        // Full-width digits are digits.
        assert!("\u{ff11}27.0.0.1".parse::<Name>().is_err());
        assert!("exa\u{200b}\u{0}mple.com".parse::<Name>().is_err());
    }

    /// Row 8 of the list of bypasses, the labels' half.
    #[test]
    fn bypass_08_below_is_at_a_dot() {
        let parent = name("x.com");
        assert!(name("a.x.com").is_below(&parent));
        assert!(name("a.b.x.com").is_below(&parent));
        assert!(!name("evilx.com").is_below(&parent));
        assert!(!name("x.com").is_below(&parent));
        assert!(!name("x.com.evil.org").is_below(&parent));
    }

    #[test]
    fn suffixes_that_anybody_registers_below_are_known() {
        for suffix in ["com", "co.uk", "github.io", "internal", "xn--p1ai"] {
            assert!(name(suffix).is_public_suffix(), "{suffix}");
        }
        for own in ["example.com", "bbc.co.uk", "a.github.io", "corp.internal"] {
            assert!(!name(own).is_public_suffix(), "{own}");
        }
    }
}
