//! Where packages come from, instead of where the host's own configuration says.

use std::path::{Path, PathBuf};

use super::{PackagesError, Result, bare::bare};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Index {
    Url(String),
    /// Wheels, gems, or what `npm pack` writes; with it, no network is needed.
    Dir(PathBuf),
}

impl Index {
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || PackagesError::Index { text: text.to_owned() };
        if text.starts_with("https://") || text.starts_with("http://") {
            if bare(text).as_deref() != Some(text) {
                return Err(PackagesError::IndexUser);
            }
            let plain = !text.contains(|c: char| c.is_control() || c.is_whitespace());
            return plain.then(|| Self::Url(text.to_owned())).ok_or_else(bad);
        }
        // A mount is of what it is, and not of a link to it.
        let dir = std::fs::canonicalize(text).map_err(|_| bad())?;
        if dir.is_dir() { Ok(Self::Dir(dir)) } else { Err(bad()) }
    }
}

/// The file of `NAME`, `NAME@VERSION` or `@SCOPE/NAME@VERSION`; of several versions the last by its name.
pub fn tarball(dir: &Path, package: &str) -> Result<String> {
    let (scope, rest) = match package.strip_prefix('@').and_then(|package| package.split_once('/')) {
        Some((scope, rest)) => (format!("{scope}-"), rest),
        None => (String::new(), package),
    };
    let (name, version) = rest.split_once('@').unwrap_or((rest, ""));
    let before = format!("{scope}{name}-");
    let fits = |file: &str| {
        let found = file.strip_prefix(&before).and_then(|rest| rest.strip_suffix(".tgz"));
        found.is_some_and(|found| {
            found.starts_with(|c: char| c.is_ascii_digit()) && (version.is_empty() || found == version)
        })
    };
    let missing = || PackagesError::NotThere { package: package.to_owned(), dir: dir.to_owned() };
    let entries = std::fs::read_dir(dir).map_err(|_| missing())?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|file| fits(file)).max().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_or_a_url() {
        assert_eq!(
            Index::parse("http://127.0.0.1:1/simple").unwrap(),
            Index::Url("http://127.0.0.1:1/simple".to_owned())
        );
        assert_eq!(Index::parse("/usr/.").unwrap(), Index::Dir("/usr".into()));
        for bad in ["https://u:p@h/", "https://token@h/simple", "https://u:p/w@h/"] {
            assert!(matches!(Index::parse(bad), Err(PackagesError::IndexUser)), "{bad}");
        }
        for bad in ["", "/nonexistent", "/etc/passwd", "ftp://x", "https://a b"] {
            assert!(Index::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_package_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a-1.0.0.tgz", "a-1.2.0.tgz", "a-b-3.0.0.tgz", "s-c-1.0.0.tgz", "a-2.0.0.zip"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found = |package| tarball(dir.path(), package).ok();
        assert_eq!(found("a").as_deref(), Some("a-1.2.0.tgz"));
        assert_eq!(found("a@1.0.0").as_deref(), Some("a-1.0.0.tgz"));
        assert_eq!(found("@s/c").as_deref(), Some("s-c-1.0.0.tgz"));
        assert_eq!((found("b"), found("a@9.0.0")), (None, None));
    }
}
