//! What people and manifests call images: `python:3.12`, `ghcr.io/owner/name@sha256:…` (distribution-spec, "Pulling
//! manifests"; Docker's rules for what may be left out).

use std::{fmt, str::FromStr};

use oci_spec::distribution::Reference as Parsed;

use super::digest::Digest;

/// Where an image is or would be, whole: registry, repository, and a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(Parsed);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no image: {why}")]
pub struct ReferenceError {
    text: String,
    why: String,
}

impl crate::error::Hint for ReferenceError {
    fn hint(&self) -> Option<String> {
        Some("write it as NAME, NAME:TAG, HOST/NAME:TAG or NAME@sha256:DIGEST; names are in lower case".to_owned())
    }
}

const DEFAULT_REGISTRY: &str = "docker.io";
const OFFICIAL: &str = "library/";
const LONGEST: usize = 512;

impl Reference {
    #[must_use]
    pub fn registry(&self) -> &str {
        self.0.registry()
    }

    /// Where requests go: docker.io's registry has another name.
    #[must_use]
    pub fn host(&self) -> &str {
        match self.registry() {
            DEFAULT_REGISTRY => "registry-1.docker.io",
            other => other,
        }
    }

    #[must_use]
    pub fn repository(&self) -> &str {
        self.0.repository()
    }

    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.0.tag()
    }

    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.0.digest().and_then(|digest| digest.parse().ok())
    }

    /// As people write it: without what is always the same.
    #[must_use]
    pub fn short(&self) -> String {
        let whole = self.to_string();
        let short = whole.strip_prefix("docker.io/").unwrap_or(&whole);
        short.strip_prefix(OFFICIAL).unwrap_or(short).to_owned()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let shown: String = text.chars().take(100).flat_map(char::escape_debug).collect();
        let bad = |why: &str| ReferenceError { text: shown.clone(), why: why.to_owned() };
        if text.len() > LONGEST {
            return Err(bad("it is too long"));
        }
        let parsed: Parsed =
            text.parse().map_err(|error: oci_spec::distribution::ParseError| bad(&error.to_string()))?;
        if parsed.digest().is_some_and(|digest| digest.parse::<Digest>().is_err()) {
            return Err(bad("its digest is of a kind that is not known"));
        }
        Ok(Self(parsed))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.registry(), self.0.repository())?;
        if let Some(tag) = self.0.tag() {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = self.0.digest() {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_dockers() {
        for (text, whole, short) in [
            ("python", "docker.io/library/python:latest", "python:latest"),
            ("python:3.12-slim", "docker.io/library/python:3.12-slim", "python:3.12-slim"),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest", "ghcr.io/a/b:latest"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!((reference.to_string().as_str(), reference.short().as_str()), (whole, short));
            assert_eq!(whole.parse::<Reference>().unwrap(), reference);
        }
        let digest = Digest::of(b"").to_string();
        let pinned: Reference = format!("python@{digest}").parse().unwrap();
        assert_eq!((pinned.tag(), pinned.digest()), (None, Some(Digest::of(b""))));
    }

    #[test]
    fn nonsense_is_refused() {
        let long = "x".repeat(600);
        for text in ["", "Python", "a b", "../x", "a//b", ":", "a:", "@", "a@sha256:00", "a@md5:0", "a\0b", &long] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
