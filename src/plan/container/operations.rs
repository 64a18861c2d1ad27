//! What the operations of a container's tree carry: as data, with no decision left in them.

use std::{ffi::CString, fmt};

use serde::{Serialize, Serializer};

use crate::plan::{
    ids::Map,
    path::{BoxPath, HostPath},
};

/// One mount.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mount {
    pub path: BoxPath,
    /// The destination must be a directory itself, not a link to one: whoever can say where `/proc` is can read what
    /// is written there.
    pub exact: bool,
    pub from: From,
    pub attributes: Attributes,
    /// For this mount and all below it.
    pub recursive: Attributes,
    pub propagation: Vec<Propagation>,
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.shown();
        match &self.from {
            From::Bind { source, .. } => write!(f, "mount {} {path}", source.as_c_str().to_string_lossy())?,
            From::New(system) => {
                write!(f, "mount {} {path}", system.name.to_string_lossy())?;
                system.parameters.iter().try_for_each(|parameter| write!(f, " {}", parameter.shown()))?;
            }
            From::CgroupsV1 { .. } => write!(f, "mount cgroup {path}")?,
            From::Remount { .. } => write!(f, "remount {path}")?,
        }
        let recursive = self.recursive.shown().into_iter().map(|word| word + " recursively");
        self.attributes.shown().into_iter().chain(recursive).try_for_each(|word| write!(f, " {word}"))
    }
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum From {
    /// A part of the host's tree.
    Bind {
        source: HostPath,
        recursive: bool,
        /// The process that builds the tree cannot make it: it could not reach the source, or has not the privilege
        /// to map ids.
        handed: bool,
        mapped: Option<IdMapping>,
    },
    New(FileSystem),
    /// All v1 cgroup hierarchies of the host, each where the host has it, at the container's own group.
    CgroupsV1 {
        own_namespace: bool,
    },
    /// What is mounted there already, changed.
    Remount {
        /// The mount alone, not the file system.
        bind: bool,
        parameters: Vec<Parameter>,
    },
}

/// A file system to be mounted anew.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileSystem {
    #[serde(serialize_with = "lossy")]
    pub name: CString,
    #[serde(serialize_with = "lossy")]
    pub source: CString,
    pub parameters: Vec<Parameter>,
    /// What is shown instead, with all below it, where the kernel does not let the container have its own.
    pub instead: Option<Instead>,
    /// A tmpfs starts with what is there.
    pub copy_up: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Instead {
    pub source: HostPath,
    pub read_only: bool,
}

/// How files' owners are shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IdMapping {
    /// Also on the mounts below.
    pub recursive: bool,
    /// `None`: as in the container's user namespace.
    pub own: Option<Box<(Vec<Map>, Vec<Map>)>>,
}

/// A parameter of a file system: of its own, or one that all have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub key: CString,
    pub value: Option<CString>,
}

impl Serialize for Parameter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

impl Parameter {
    #[must_use]
    pub fn shown(&self) -> String {
        let key = self.key.to_string_lossy();
        self.value.as_ref().map_or_else(|| key.to_string(), |value| format!("{key}={}", value.to_string_lossy()))
    }
}

/// Changes of a mount's attributes: `MOUNT_ATTR_*` (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    /// Of `clear`, what was asked for by name: the rest stays where the kernel has it locked.
    pub must_clear: u64,
}

const NAMES: [(u64, &str); 6] = [
    (libc::MOUNT_ATTR_RDONLY, "ro"),
    (libc::MOUNT_ATTR_NOSUID, "nosuid"),
    (libc::MOUNT_ATTR_NODEV, "nodev"),
    (libc::MOUNT_ATTR_NOEXEC, "noexec"),
    (libc::MOUNT_ATTR_NODIRATIME, "nodiratime"),
    (libc::MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"),
];

impl Attributes {
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0
    }

    #[must_use]
    pub const fn read_only(&self) -> bool {
        self.set & libc::MOUNT_ATTR_RDONLY != 0
    }

    /// The same, but what is mounted may be written to.
    #[must_use]
    pub const fn writable(self) -> Self {
        Self { set: self.set & !libc::MOUNT_ATTR_RDONLY, ..self }
    }

    /// As options: `+` what is set, `-` what is cleared by name.
    #[must_use]
    pub fn shown(&self) -> Vec<String> {
        let named = |bits: u64, sign: &'static str| {
            NAMES.iter().filter(move |(bit, _)| bits & bit != 0).map(move |(_, name)| format!("{sign}{name}"))
        };
        let mut shown: Vec<String> = named(self.set, "+").chain(named(self.must_clear, "-")).collect();
        if (self.clear | self.set) & libc::MOUNT_ATTR__ATIME != 0 {
            shown.push(match self.set & libc::MOUNT_ATTR__ATIME {
                libc::MOUNT_ATTR_NOATIME => "+noatime".to_owned(),
                libc::MOUNT_ATTR_STRICTATIME => "+strictatime".to_owned(),
                _ => "+relatime".to_owned(),
            });
        }
        if self.clear & !self.must_clear & libc::MOUNT_ATTR_RDONLY != 0 {
            shown.push("-others".to_owned());
        }
        shown
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.shown())
    }
}

/// How mounts and unmounts spread (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`.
    pub kind: u64,
    pub recursive: bool,
}

const PROPAGATIONS: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

impl Propagation {
    pub const RECURSIVE_SLAVE: Self = Self { kind: libc::MS_SLAVE, recursive: true };

    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let named = |word: &str| PROPAGATIONS.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
        let of = |kind, recursive| Self { kind, recursive };
        named(word)
            .map(|kind| of(kind, false))
            .or_else(|| word.strip_prefix('r').and_then(named).map(|kind| of(kind, true)))
    }

    #[must_use]
    pub const fn is_private(&self) -> bool {
        self.kind == libc::MS_PRIVATE
    }

    #[must_use]
    pub fn shown(&self) -> String {
        let name = PROPAGATIONS.iter().find(|(_, kind)| *kind == self.kind).map_or("", |(name, _)| name);
        format!("{}{name}", if self.recursive { "r" } else { "" })
    }
}

impl Serialize for Propagation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

/// A device, or a pipe.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    pub path: BoxPath,
    #[serde(rename = "type")]
    pub kind: NodeKind,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// The host's own, for where none can be made.
    pub host: HostPath,
    /// None can be made: there is a user namespace.
    pub bind: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    Block,
    Character,
    Pipe,
}

impl NodeKind {
    /// As in a file's mode.
    #[must_use]
    pub const fn mode(self) -> u32 {
        match self {
            Self::Block => libc::S_IFBLK,
            Self::Character => libc::S_IFCHR,
            Self::Pipe => libc::S_IFIFO,
        }
    }
}

fn lossy<S: Serializer>(text: &CString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text.to_string_lossy())
}
