//! Where Debian's packages come from. To mmdebstrap and apt a word in its place may be an option that runs a command, a
//! file, or a line of sources.list: here it is the URL of a web server, and nothing else can be built.

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::error::Hint;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mirror `{text}` {why}")]
pub struct MirrorError {
    text: String,
    why: &'static str,
}

impl Hint for MirrorError {
    fn hint(&self) -> Option<String> {
        Some("such as http://deb.debian.org/debian".to_owned())
    }
}

impl Mirror {
    pub fn parse(text: &str) -> Result<Self, MirrorError> {
        let bad = |why| Err(MirrorError { text: text.to_owned(), why });
        let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
            return bad("is no http:// or https:// URL");
        };
        // `#` begins a comment of sources.list, and what is quoted there is one word.
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/%+=,@[]".contains(&byte);
        if !rest.bytes().all(fine) {
            return bad("has characters that a mirror's URL does not have");
        }
        let host = rest.split('/').next().unwrap_or_default();
        if !host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') {
            return bad("names no host");
        }
        if host.contains('@') {
            return bad("has a user in it, which every package that is installed could read");
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Mirror {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_a_url_and_nothing_else() {
        for fine in ["http://deb.debian.org/debian", "https://[::1]:8080/d/", "http://m/debian/%7Ea+b"] {
            assert_eq!(Mirror::parse(fine).unwrap().as_str(), fine);
        }
        for bad in [
            "--setup-hook=id",
            "--setup-hook=id http://m/",
            "",
            "http://",
            "http:///x",
            "http://-x/",
            "file:///srv",
            "copy:/srv",
            "deb http://m/ x main",
            "/etc/passwd",
            "http://m/ x",
            "http://m/\nx",
            "http://m/#x",
            "http://u:p@m/",
            " http://m/",
            "http://m/'x",
        ] {
            assert!(Mirror::parse(bad).is_err(), "{bad:?}");
        }
    }
}
