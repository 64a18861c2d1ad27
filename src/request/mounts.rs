//! `--mount SRC:DST[:ro|rw]`: host paths shown inside, read-only unless asked.

use std::path::{Component, Path, PathBuf};

/// A host directory or file and where it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute, with no link on the way; checked again when it is opened.
    pub source: PathBuf,
    pub is_dir: bool,
    /// Owner on the host, so that a writable mount can be written by the program.
    pub owner: (u32, u32),
    /// Absolute, without `.` and `..`.
    pub target: PathBuf,
    pub writable: bool,
    /// Whether the program is its owner inside, and whoever keeps others out lets it in: of what it may write to, and of
    /// what was made for it.
    pub given: bool,
}

impl Mount {
    pub fn parse(text: &str) -> Result<Self, MountError> {
        let bad = |why| MountError::Syntax { text: text.to_owned(), why };
        let mut parts = text.split(':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
            return Err(bad("a mount is SRC:DST or SRC:DST:rw"));
        };
        let writable = match (parts.next(), parts.next()) {
            (None | Some("ro"), None) => false,
            (Some("rw"), None) => true,
            _ => return Err(bad("the only modes are ro and rw")),
        };
        Self::new(Path::new(source), Path::new(target), writable)
    }

    /// Looks `source` up on the host. A link as its last part is refused: what it names can change.
    pub fn new(source: &Path, target: &Path, writable: bool) -> Result<Self, MountError> {
        use std::os::unix::fs::MetadataExt;
        let target = inside_path(target).ok_or_else(|| MountError::Target { target: target.to_owned() })?;
        if target == Path::new("/") || ["/proc", "/dev"].iter().any(|reserved| target.starts_with(reserved)) {
            return Err(MountError::Reserved { target });
        }
        let missing = |cause| MountError::Source { path: source.to_owned(), source: cause };
        // Its parents may be links, it may not: with a slash behind it, or swapped for one later, neither.
        let source: &Path = &source.components().collect::<PathBuf>();
        let source = match (source.parent(), source.file_name()) {
            (Some(parent), Some(name)) => {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                &std::fs::canonicalize(parent).map_err(missing)?.join(name)
            }
            _ => &std::fs::canonicalize(source).map_err(missing)?,
        };
        let found = std::fs::symlink_metadata(source).map_err(missing)?;
        if found.is_symlink() {
            let to = std::fs::read_link(source).map_err(missing)?;
            return Err(MountError::Link { path: source.to_owned(), to });
        }
        if !found.is_dir() && !found.is_file() {
            return Err(MountError::Special { path: source.to_owned() });
        }
        Ok(Self {
            source: source.clone(),
            is_dir: found.is_dir(),
            owner: (found.uid(), found.gid()),
            target,
            writable,
            given: writable,
        })
    }
}

impl Mount {
    /// Read-only, also of a directory that is the caller's alone.
    #[must_use]
    pub fn given(self) -> Self {
        Self { given: true, ..self }
    }
}

/// An absolute path inside the sandbox in its plainest form; `None` if it is relative, has `..`, or a NUL.
#[must_use]
pub fn inside_path(path: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) {
        return None;
    }
    path.components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        .then(|| path.components().collect())
}

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("mount source `{}` is a symlink to `{}`", path.display(), to.display())]
    Link { path: PathBuf, to: PathBuf },
    #[error("mount target `{}` is reserved", target.display())]
    Reserved { target: PathBuf },
    #[error("mount source `{}`: {source}", path.display())]
    Source { path: PathBuf, source: std::io::Error },
    #[error("mount source `{}` is neither a file nor a directory", path.display())]
    Special { path: PathBuf },
    #[error("mount `{text}`: {why}")]
    Syntax { text: String, why: &'static str },
    #[error("mount target `{}` is not an absolute path without `..`", target.display())]
    Target { target: PathBuf },
}

impl crate::error::Hint for MountError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Link { to, .. } => Some(format!("name what it points to: --mount {}:…", to.display())),
            Self::Reserved { .. } => Some("/, /proc and /dev are fumehood's own; choose another place".to_owned()),
            Self::Special { .. } => Some("sockets, pipes and devices are not passed in".to_owned()),
            Self::Source { .. } | Self::Syntax { .. } | Self::Target { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_only_unless_asked() {
        assert!(!Mount::parse("/usr:/data").unwrap().writable);
        assert!(Mount::parse("/usr:/data:rw").unwrap().writable);
    }

    #[test]
    fn what_makes_no_mount() {
        for bad in [
            "",
            "/usr",
            "/usr:",
            "/usr:data",
            "/usr:/a/../b",
            "/usr:/",
            "/usr:/proc/x",
            "/usr:/dev",
            "/usr:/x:rx",
            "/usr:/x:ro:z",
            "/no/such:/x",
            "/dev/null:/x",
        ] {
            assert!(Mount::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_symlink_is_refused_with_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/usr", &link).unwrap();
        assert!(matches!(Mount::new(&link, Path::new("/x"), false), Err(MountError::Link { .. })));
    }
}
