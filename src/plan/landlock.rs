//! Landlock: what the mounts allow, said a second time in a way that holds even if a mount slips.

use std::{
    collections::BTreeMap,
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::sys::landlock as kernel;

/// One layer: all handled rights are denied but where a rule gives them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layer {
    pub abi: u32,
    pub handled_files: u64,
    pub handled_tcp: u64,
    pub scoped: u64,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    #[serde(serialize_with = "lossy")]
    pub path: CString,
    pub access: Access,
    /// The bits of `access` that this ABI knows.
    pub rights: u64,
}

/// What may be done below a path, in the letters of `ls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    #[serde(rename = "r")]
    Read,
    #[serde(rename = "rx")]
    ReadExecute,
    #[serde(rename = "rw")]
    ReadWrite,
    #[serde(rename = "rwx")]
    ReadWriteExecute,
    /// Device files: read, write and control, and nothing made or removed.
    #[serde(rename = "dev")]
    Device,
}

impl Access {
    const fn rights(self) -> u64 {
        const READ: u64 = kernel::READ_FILE | kernel::READ_DIR;
        const WRITE: u64 = kernel::WRITE_FILE | kernel::TRUNCATE | kernel::CHANGE_DIR;
        match self {
            Self::Read => READ,
            Self::ReadExecute => READ | kernel::EXECUTE,
            Self::ReadWrite => READ | WRITE,
            Self::ReadWriteExecute => READ | WRITE | kernel::EXECUTE,
            Self::Device => READ | kernel::WRITE_FILE | kernel::TRUNCATE | kernel::IOCTL_DEV,
        }
    }
}

/// A policy as written in `profiles/landlock/*.toml` or given with `--landlock FILE`.
///
/// ```toml
/// tcp = false            # no TCP at all; left out: as the network mode has it
/// minimum_abi = 3        # an older kernel is an error
/// [paths]
/// "/" = "rx"
/// "/sandbox" = "rwx"
/// ```
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub tcp: Option<bool>,
    #[serde(default)]
    pub minimum_abi: u32,
    /// Empty: every path stays as the mounts have it.
    #[serde(default)]
    pub paths: BTreeMap<PathBuf, Access>,
}

impl Policy {
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            PolicyError::Syntax { line, why: error.message().replace('\n', " ") }
        })?;
        match policy.paths.keys().find(|path| crate::request::mounts::inside_path(path).is_none()) {
            Some(path) => Err(PolicyError::Path(path.clone())),
            None => Ok(policy),
        }
    }

    /// This policy as one more layer; `None` when it says nothing that `abi` could hold.
    pub fn layer(&self, abi: u32) -> Result<Option<Layer>, PolicyError> {
        if abi < self.minimum_abi {
            return Err(PolicyError::Abi { wanted: self.minimum_abi, found: abi });
        }
        let no_tcp = self.tcp == Some(false);
        if no_tcp && abi < 4 {
            return Err(PolicyError::Abi { wanted: 4, found: abi });
        }
        if !self.paths.is_empty() && abi == 0 {
            return Err(PolicyError::Abi { wanted: 1, found: 0 });
        }
        if self.paths.is_empty() && !no_tcp {
            return Ok(None);
        }
        let handled_files = if self.paths.is_empty() { 0 } else { kernel::file_rights(abi) };
        let mut layer = Layer {
            abi,
            handled_files,
            handled_tcp: if no_tcp { kernel::BIND_TCP | kernel::CONNECT_TCP } else { 0 },
            scoped: 0,
            rules: Vec::new(),
        };
        for (path, access) in &self.paths {
            layer.allow(path, *access)?;
        }
        Ok(Some(layer))
    }
}

impl Layer {
    /// The layer that every sandbox has where the kernel knows Landlock: no rule yet.
    #[must_use]
    pub fn for_mounts(abi: u32) -> Self {
        let scoped = if abi >= 6 { kernel::SCOPE_ABSTRACT_UNIX | kernel::SCOPE_SIGNAL } else { 0 };
        Self { abi, handled_files: kernel::file_rights(abi), handled_tcp: 0, scoped, rules: Vec::new() }
    }

    pub fn allow(&mut self, path: &Path, access: Access) -> Result<(), PolicyError> {
        let rights = access.rights() & self.handled_files;
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| PolicyError::Path(path.to_owned()))?;
        self.rules.push(Rule { path, access, rights });
        Ok(())
    }
}

fn lossy<S: serde::Serializer>(text: &CString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text.to_string_lossy())
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("this kernel has Landlock ABI {found}, and the policy needs {wanted}")]
    Abi { wanted: u32, found: u32 },
    #[error("`{}` in the Landlock policy is not an absolute path without `..`", .0.display())]
    Path(PathBuf),
    #[error("Landlock policy, line {line}: {why}")]
    Syntax { line: usize, why: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_of_a_newer_abi_are_left_out() {
        let mut layer = Layer::for_mounts(1);
        layer.allow(Path::new("/dev"), Access::Device).unwrap();
        assert_eq!(layer.rules[0].rights & (kernel::IOCTL_DEV | kernel::TRUNCATE), 0);
        assert_eq!(layer.scoped, 0);
    }

    #[test]
    fn a_policy_that_cannot_be_held_is_an_error() {
        let policy = Policy::parse("tcp = false\n[paths]\n\"/\" = \"rx\"").unwrap();
        assert!(policy.layer(0).is_err());
        assert!(policy.layer(3).is_err());
        let layer = policy.layer(7).unwrap().unwrap();
        assert_eq!(layer.handled_tcp, 3);
        assert!(Policy::parse("minimum_abi = 9").unwrap().layer(7).is_err());
        assert!(Policy::parse("").unwrap().layer(0).unwrap().is_none());
    }

    #[test]
    fn typos_are_told() {
        for bad in [
            "tpc = true",
            "[paths]\n\"relative\" = \"r\"",
            "[paths]\n\"/a\" = \"q\"",
            "[paths]\n\"/a/../b\" = \"r\"",
            "\0",
        ] {
            assert!(Policy::parse(bad).is_err(), "{bad}");
        }
    }
}
