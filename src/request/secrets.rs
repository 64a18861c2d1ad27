//! Secrets: environment variables whose values must not come back in what a sandbox prints.
//!
//! A value that exists is not empty and holds no NUL. It has no way into a log: `Debug` hides it, it
//! is not `Serialize`, no error quotes it, and its memory is overwritten when it is dropped.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use crate::error::Hint;

/// One variable of the payload's environment, masked in its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    name: String,
    value: SecretValue,
}

impl Secret {
    /// Fails when `name` is no environment variable name, or `value` is empty or holds a NUL.
    pub fn new(name: &str, value: impl Into<Vec<u8>>) -> Result<Self, SecretError> {
        let value = SecretValue(value.into());
        check_name(name.as_bytes())?;
        let name = name.to_owned();
        match value.as_bytes() {
            [] => Err(SecretError::Empty { name }),
            bytes if bytes.contains(&0) => Err(SecretError::Nul { name }),
            _ => Ok(Self { name, value }),
        }
    }

    /// `NAME=VALUE`, or `NAME` alone for the value that `env` (as a rule [`std::env::var_os`]) has for it.
    pub fn parse(text: &OsStr, env: impl FnOnce(&str) -> Option<OsString>) -> Result<Self, SecretError> {
        let mut parts = text.as_bytes().splitn(2, |b| *b == b'=');
        let name = check_name(parts.next().unwrap_or_default())?;
        let value = match parts.next() {
            Some(value) => value.to_vec(),
            None => env(name).ok_or_else(|| SecretError::Unset { name: name.to_owned() })?.into_vec(),
        };
        Self::new(name, value)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn value(&self) -> &SecretValue {
        &self.value
    }
}

/// The bytes of a secret: at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for SecretValue {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for SecretValue {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without an observer the compiler may leave out writes to memory about to be freed.
        std::hint::black_box(&self.0);
    }
}

/// POSIX's portable names (XBD 8.1), which every shell can set: `[A-Za-z_][A-Za-z0-9_]*`.
fn check_name(name: &[u8]) -> Result<&str, SecretError> {
    let valid = name.first().is_some_and(|b| !b.is_ascii_digit())
        && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    std::str::from_utf8(name).ok().filter(|_| valid).ok_or(SecretError::Name)
}

/// A secret that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not quoted: who forgets the name and passes the bare value must not find it in a log.
    #[error("a secret has no valid name: letters, digits and _ are allowed, and no digit comes first")]
    Name,
    #[error("secret {name}: it is not set in the environment")]
    Unset { name: String },
    #[error("secret {name}: its value is empty")]
    Empty { name: String },
    #[error("secret {name}: its value holds a NUL byte")]
    Nul { name: String },
}

impl Hint for SecretError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Name => Some("--secret NAME=VALUE, or --secret NAME to pass on a variable of your own".to_owned()),
            Self::Unset { name } => Some(format!("export {name}=…, or --secret {name}=VALUE")),
            Self::Empty { name } => Some(format!("an empty value has nothing to hide: --env {name}=")),
            Self::Nul { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Secret, SecretError> {
        Secret::parse(OsStr::from_bytes(text), |name| match name {
            "TOKEN" => Some("hunter2".into()),
            "BLANK" => Some("".into()),
            _ => None,
        })
    }

    #[test]
    fn a_value_comes_from_the_argument_or_the_environment() {
        for (text, name, value) in [
            (&b"KEY=abc"[..], "KEY", &b"abc"[..]),
            (b"_k1=a=b=", "_k1", b"a=b="),
            (b"KEY=\xff\xfe", "KEY", b"\xff\xfe"),
            (b"TOKEN", "TOKEN", b"hunter2"),
        ] {
            let secret = parse(text).unwrap();
            assert_eq!((secret.name(), secret.value().as_bytes()), (name, value));
        }
    }

    #[test]
    fn what_is_no_secret_is_an_error() {
        for text in [&b""[..], b"=x", b"1K=x", b"A-B=x", b"A B=x", b"\xc3\xa9=x", b"\xff"] {
            assert_eq!(parse(text), Err(SecretError::Name), "{text:?}");
        }
        assert_eq!(parse(b"MISSING"), Err(SecretError::Unset { name: "MISSING".into() }));
        assert_eq!(parse(b"KEY="), Err(SecretError::Empty { name: "KEY".into() }));
        assert_eq!(parse(b"BLANK"), Err(SecretError::Empty { name: "BLANK".into() }));
        assert_eq!(Secret::new("KEY", "a\0b"), Err(SecretError::Nul { name: "KEY".into() }));
    }

    #[test]
    fn neither_debug_nor_an_error_shows_the_value() {
        assert!(!format!("{:?}", parse(b"KEY=hunter2").unwrap()).contains("hunter2"));
        for text in [&b"sk-hunter2"[..], b"1=hunter2", b"hunter2/==", b"KEY=hunter2\0"] {
            let error = parse(text).unwrap_err();
            assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("hunter2"), "{text:?}");
        }
    }
}
