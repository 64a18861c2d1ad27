//! What reads a registry's and other programs' bytes, for the fuzz targets.

use super::{answer, challenge, credentials, pull, url::Url};

/// A `WWW-Authenticate` header and where it leads; whether it leads anywhere.
pub fn challenge(base: &str, header: &str) -> bool {
    let Some(challenge) = challenge::choose([header]) else { return false };
    match challenge {
        challenge::Challenge::Basic => true,
        challenge::Challenge::Bearer { realm, .. } => {
            assert!(!realm.is_empty());
            Url::parse(base).and_then(|base| base.join(&realm)).is_some()
        }
    }
}

/// A place that an answer names: read back as it is printed, and never with a user in it.
pub fn place(base: &str, location: &str) {
    let Some(url) = Url::parse(base).and_then(|base| base.join(location)) else { return };
    assert_eq!(Url::parse(&url.to_string()), Some(url.clone()));
    assert!(!url.authority().contains(['@', '/', '?', '#', ' ']));
}

/// A file of credentials: none of a host's is another's.
pub fn credentials(bytes: &[u8]) {
    _ = credentials::read(bytes, "a.example", "b/c");
    _ = credentials::read(bytes, "docker.io", "library/python");
}

/// What goes with an answer.
pub fn answer(text: &str) {
    if let Some(said) = answer::said(text.as_bytes()) {
        assert!(!said.contains('\n') && !said.is_empty());
    }
    assert!(!pull::continues(text, 5, 10) || text.starts_with("bytes "));
}
