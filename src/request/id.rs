//! The name of one sandbox: part of paths, so its alphabet is closed.

use std::fmt;

use serde::Serialize;

/// `[A-Za-z0-9_+.-]`, 1 to 128 bytes, not starting with a dot or a dash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct SandboxId(String);

impl SandboxId {
    /// Twelve random hex digits from the kernel.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0u8; 6];
        crate::sys::process::random(&mut bytes)?;
        Ok(Self(bytes.iter().map(|b| format!("{b:02x}")).collect()))
    }

    pub fn parse(text: &str) -> Result<Self, IdError> {
        let bad = |why| Err(IdError { text: text.to_owned(), why });
        if text.is_empty() || text.len() > 128 {
            return bad("it must be 1 to 128 characters");
        }
        if text.starts_with(['.', '-']) {
            return bad("it must not start with a dot or a dash");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+.-".contains(&b)) {
            return bad("only letters, digits and _ + . - are allowed");
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no sandbox id: {why}")]
pub struct IdError {
    text: String,
    why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_their_directory() {
        for bad in ["", ".", "..", ".x", "-x", "a/b", "a b", "a\0b", "é", &"x".repeat(129)] {
            assert!(SandboxId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(SandboxId::parse("job-1_a+b.c").is_ok());
    }
}
