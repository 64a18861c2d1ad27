//! Paths as the kernel takes them, split where the launcher needs them split.

use std::{
    ffi::{CStr, CString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

/// A path of the host: absolute, and resolved before, so that it is opened without following any link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPath(CString);

impl HostPath {
    pub fn new(path: &Path) -> Result<Self, PathError> {
        let refuse = |why| PathError { path: path.to_owned(), why };
        if !path.is_absolute() {
            return Err(refuse("it is not absolute"));
        }
        CString::new(path.as_os_str().as_bytes()).map(Self).map_err(|_| refuse("it has a NUL byte"))
    }

    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

/// A path inside the sandbox, held relative to its root: `/a/b` is parent `a`, name `b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxPath {
    full: CString,
    parent: CString,
    name: CString,
}

impl BoxPath {
    pub fn new(path: &Path) -> Result<Self, PathError> {
        let refuse = |why| PathError { path: path.to_owned(), why };
        let Some(path) = crate::request::mounts::inside_path(path) else {
            return Err(refuse("it is not an absolute path without `..`"));
        };
        let text = |part: &Path| {
            let relative = part.strip_prefix("/").unwrap_or(part).as_os_str().as_bytes();
            CString::new(if relative.is_empty() { b"." } else { relative }).map_err(|_| refuse("it has a NUL byte"))
        };
        let name = path.file_name().map_or(Path::new("/"), Path::new);
        Ok(Self { full: text(&path)?, parent: text(path.parent().unwrap_or(&path))?, name: text(name)? })
    }

    /// Relative to the root; `.` is the root itself.
    #[must_use]
    pub fn full(&self) -> &CStr {
        &self.full
    }

    #[must_use]
    pub fn parent(&self) -> &CStr {
        &self.parent
    }

    #[must_use]
    pub fn name(&self) -> &CStr {
        &self.name
    }

    /// As a person writes it.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.full.to_string_lossy() {
            root if root == "." => "/".to_owned(),
            relative => format!("/{relative}"),
        }
    }
}

impl Serialize for HostPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_string_lossy())
    }
}

impl Serialize for BoxPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("path `{}`: {why}", path.display())]
pub struct PathError {
    path: PathBuf,
    why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_paths_split_into_parent_and_name() {
        let split = |path: &str| {
            let path = BoxPath::new(Path::new(path)).unwrap();
            (path.parent().to_str().unwrap().to_owned(), path.name().to_str().unwrap().to_owned(), path.shown())
        };
        assert_eq!(split("/a/b//c/"), ("a/b".into(), "c".into(), "/a/b/c".into()));
        assert_eq!(split("/a"), (".".into(), "a".into(), "/a".into()));
        assert_eq!(split("/"), (".".into(), ".".into(), "/".into()));
        assert!(["a", "/a/../b", ""].iter().all(|bad| BoxPath::new(Path::new(bad)).is_err()));
    }
}
