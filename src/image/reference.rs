//! What people and manifests call images: `python:3.12`, `ghcr.io/owner/name@sha256:…` (distribution-spec, "Pulling
//! manifests"; Docker's rules for what may be left out).

use std::{fmt, str::FromStr};

use super::digest::Digest;

/// Where an image is or would be, whole: registry, repository, and a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

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
/// What older clients called it.
const DEFAULT_REGISTRY_ONCE: &str = "index.docker.io";
const DEFAULT_TAG: &str = "latest";
const OFFICIAL: &str = "library/";
const LONGEST: usize = 512;
const LONGEST_REPOSITORY: usize = 255;
const LONGEST_TAG: usize = 128;

impl Reference {
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
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
        &self.repository
    }

    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest.clone()
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
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => {
                let digest = digest.parse().map_err(|_| bad("its digest is of a kind that is not known"))?;
                (named, Some(digest))
            }
            None => (text, None),
        };
        // A colon before a slash is of the host.
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (named, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("its tag is none"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) || has_upper(host) => (host, rest),
            _ => (DEFAULT_REGISTRY, name),
        };
        if !is_host(registry) {
            return Err(bad("its registry is none"));
        }
        if has_upper(repository) {
            return Err(bad("it is not in lower case"));
        }
        if repository.len() > LONGEST_REPOSITORY || !repository.split('/').all(is_component) {
            return Err(bad("that is no name of an image"));
        }
        let registry = if registry == DEFAULT_REGISTRY_ONCE { DEFAULT_REGISTRY } else { registry };
        let official = if registry == DEFAULT_REGISTRY && !repository.contains('/') { OFFICIAL } else { "" };
        Ok(Self {
            registry: registry.to_owned(),
            repository: format!("{official}{repository}"),
            tag: tag.or(digest.is_none().then_some(DEFAULT_TAG)).map(str::to_owned),
            digest,
        })
    }
}

fn has_upper(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// `HOST` or `HOST:PORT`, each of the host's parts of letters, digits and dashes between them.
fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, "1"), |(host, port)| (host, port));
    let part = |part: &str| {
        let fine = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        fine && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
    };
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && host.split('.').all(part)
}

/// Lower case and digits, with `.`, `_`, `__` or dashes between them.
fn is_component(text: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = text.as_bytes().first().is_some_and(inner) && text.as_bytes().last().is_some_and(inner);
    let between = |part: &str| matches!(part, "" | "." | "_" | "__") || part.bytes().all(|byte| byte == b'-');
    ends && text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(between)
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = text.bytes();
    text.len() <= LONGEST_TAG
        && bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
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
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("Host/a--b__c.d/e_f:_1", "Host/a--b__c.d/e_f:_1", "Host/a--b__c.d/e_f:_1"),
            ("index.docker.io/python", "docker.io/library/python:latest", "python:latest"),
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
        for text in [
            "a_-b", "a..b", "a___b", "-a", "a-", "a.b:/c", "a.b:x/c", "-a.b/c", "a:-1", "a:b:c", "a:\u{e4}", "a/", "/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        for text in ["", "Python", "a b", "../x", "a//b", ":", "a:", "@", "a@sha256:00", "a@md5:0", "a\0b", &long] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
