//! What the sandbox's init does to build its world, in order, as plain data.
//!
//! [`crate::launch::build`] carries these out one by one; `fumehood explain` prints them. There is no
//! decision left in them: whoever reads the list knows every effect.

use std::{ffi::CString, fmt, sync::Arc};

use serde::Serialize;

use super::{
    container::operations::{Mount, Node, Propagation},
    gvisor::Enclosure,
    path::{BoxPath, HostPath},
};

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum SetupOp {
    /// Cut all mounts of the new namespace off from the host's.
    Private,
    Hostname {
        #[serde(serialize_with = "lossy")]
        name: CString,
    },
    /// Enter a network namespace of its own, in which only the loopback device is up. It is made aside, from
    /// the start on: nothing else needs it.
    Network,
    /// Enter the sandbox's cgroup, and make that the root of the cgroup tree as seen inside.
    Cgroup,
    RootTmpfs {
        bytes: u64,
        owner: Owner,
    },
    /// The root is this directory, read-only.
    RootBind {
        source: HostPath,
        /// As below.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        mapped: bool,
    },
    /// The root is this directory with empty mount points added, and a writable layer in memory if asked.
    RootOverlay {
        source: HostPath,
        skeleton: Vec<Skeleton>,
        writable_bytes: Option<u64>,
        /// Whose the writable root directory is; one that is the setup's is as the directory's own.
        #[serde(skip)]
        owner: Owner,
        /// Its owners are those that the ids inside say (mount_setattr(2), MOUNT_ATTR_IDMAP): the supervisor makes
        /// that view of it, which takes the host's rights.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        mapped: bool,
        /// Where the writable layer is, if it is not in memory.
        #[serde(skip_serializing_if = "Option::is_none")]
        on_disk: Option<OnDisk>,
        /// What was written is wanted when the sandbox has ended.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        kept: bool,
    },
    Dir {
        path: BoxPath,
        mode: u32,
        owner: Owner,
    },
    Symlink {
        path: BoxPath,
        #[serde(serialize_with = "lossy")]
        to: CString,
    },
    File {
        path: BoxPath,
        mode: u32,
        owner: Owner,
        content: Content,
    },
    /// A read-only file of our own, mounted over what is there.
    Over {
        path: BoxPath,
        content: Content,
    },
    Bind {
        source: HostPath,
        path: BoxPath,
        kind: Kind,
        writable: bool,
        /// The host's user and group whose files are the program's own inside: the mount maps them
        /// (mount_setattr(2), MOUNT_ATTR_IDMAP). Only root can have that made; else they are its own anyway.
        mapped: Option<(u32, u32)>,
    },
    Device {
        source: HostPath,
        path: BoxPath,
    },
    Tmpfs {
        path: BoxPath,
        bytes: u64,
        executable: bool,
        mode: u32,
        owner: Owner,
    },
    /// A procfs of the new pid namespace: read-only, and without the processes that the program may not inspect.
    Proc {
        path: BoxPath,
    },
    /// Pseudo-terminals of its own.
    Terminals {
        path: BoxPath,
    },
    /// Nothing to be seen here: an empty file or directory, read-only, over what is there.
    Mask {
        path: BoxPath,
        /// Whether it must be there: what a person asked to be hidden must not turn up later.
        required: bool,
    },
    /// Read-only over what is there.
    ReadOnly {
        path: BoxPath,
    },
    /// No writes to the file system mounted here any more; what is mounted below it stays as it is.
    Seal {
        path: BoxPath,
    },
    /// One more root is put around the new one.
    Enclose(Box<Enclosure>),
    /// The new root becomes the root, and the host's is let go of.
    Enter,
    /// A container's root is this directory. `propagation` is what the host's mounts are set to before.
    ContainerRoot {
        source: HostPath,
        propagation: Propagation,
    },
    /// As that, where the host's mounts are the container's: nothing is mounted.
    ContainerDir {
        source: HostPath,
    },
    Mount(Box<Mount>),
    Node(Box<Node>),
    /// A link where nothing is, or in place of what is there.
    Link {
        path: BoxPath,
        #[serde(serialize_with = "lossy")]
        to: CString,
        replace: bool,
    },
    /// A directory, with those above it.
    Dirs {
        path: BoxPath,
    },
    /// A setting of the container's namespaces, by its path below /proc/sys.
    Sysctl {
        #[serde(serialize_with = "lossy")]
        key: CString,
        #[serde(serialize_with = "lossy")]
        value: CString,
    },
    /// The container's terminal on /dev/console.
    Console,
    /// [`Self::ContainerDir`] becomes the root.
    ChangeRoot,
    /// As `Enter`, when mounts may be shared with the host; without a pivot the new root is moved over the host's.
    EnterContainer {
        pivot: bool,
    },
    RootPropagation {
        propagation: Propagation,
    },
}

/// A directory of the host that a writable layer is in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OnDisk {
    pub path: HostPath,
    /// Only the supervisor may enter it, so it is given to the sandbox's root and handed in.
    #[serde(skip)]
    pub handed: bool,
}

/// Something that must exist before it can be mounted on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Skeleton {
    pub path: BoxPath,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Dir,
    File,
}

/// Who owns what is made: the identity that builds the sandbox, or the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    Setup,
    Program,
}

/// Bytes of a file, printed as their number.
#[derive(Clone, PartialEq)]
pub struct Content(pub Arc<[u8]>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Content {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{self:?}"))
    }
}

fn lossy<S: serde::Serializer>(text: &CString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text.to_string_lossy())
}

impl fmt::Display for SetupOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |path: &HostPath| path.as_c_str().to_string_lossy().into_owned();
        match self {
            Self::Private => write!(f, "make every mount private"),
            Self::Hostname { name } => write!(f, "hostname {}", name.to_string_lossy()),
            Self::Network => write!(f, "enter the network namespace, its loopback device up"),
            Self::Cgroup => write!(f, "enter the cgroup and a cgroup namespace rooted there"),
            Self::RootTmpfs { bytes, .. } => write!(f, "mount tmpfs / size {bytes}"),
            Self::RootBind { source, .. } => write!(f, "mount {} /", host(source)),
            Self::RootOverlay { source, on_disk, kept, .. } => {
                write!(f, "mount overlay of {} /", host(source))?;
                on_disk.as_ref().map_or(Ok(()), |disk| write!(f, ", written in {}", host(&disk.path)))?;
                if *kept { f.write_str(", and what is written is kept") } else { Ok(()) }
            }
            Self::Dir { path, mode, .. } => write!(f, "make directory {} mode {mode:o}", path.shown()),
            Self::Symlink { path, to } => write!(f, "make link {} -> {}", path.shown(), to.to_string_lossy()),
            Self::File { path, content, .. } => write!(f, "write {} ({content:?})", path.shown()),
            Self::Over { path, content } => write!(f, "mount a file over {} ({content:?})", path.shown()),
            Self::Bind { source, path, writable, .. } => {
                write!(f, "mount {} {} {}", host(source), path.shown(), if *writable { "rw" } else { "ro" })
            }
            Self::Device { source, path } => write!(f, "mount {} {}", host(source), path.shown()),
            Self::Tmpfs { path, bytes, executable, .. } => {
                write!(f, "mount tmpfs {} size {bytes}{}", path.shown(), if *executable { "" } else { " noexec" })
            }
            Self::Proc { path } => write!(f, "mount proc {} ro hidepid", path.shown()),
            Self::Terminals { path } => write!(f, "mount devpts {}", path.shown()),
            Self::Mask { path, .. } => write!(f, "mask {}", path.shown()),
            Self::ReadOnly { path } => write!(f, "make {} read-only", path.shown()),
            Self::Seal { path } => write!(f, "make the file system of {} read-only", path.shown()),
            Self::Enter | Self::EnterContainer { pivot: true } => {
                write!(f, "enter the new root and let go of the host's")
            }
            Self::Enclose(enclosure) => write!(f, "put a root with {} around it", host(&enclosure.runsc)),
            Self::ContainerRoot { source, .. } => write!(f, "mount {} /", host(source)),
            Self::ContainerDir { source } => write!(f, "take {} for /", host(source)),
            Self::ChangeRoot => write!(f, "change the root"),
            Self::Mount(mount) => write!(f, "{mount}"),
            Self::Node(node) => write!(f, "make device {}", node.path.shown()),
            Self::Link { path, to, .. } => write!(f, "make link {} -> {}", path.shown(), to.to_string_lossy()),
            Self::Dirs { path } => write!(f, "make directory {}", path.shown()),
            Self::Sysctl { key, value } => {
                write!(f, "write sysctl {}: {}", key.to_string_lossy(), value.to_string_lossy())
            }
            Self::Console => write!(f, "mount the terminal /dev/console"),
            Self::EnterContainer { pivot: false } => write!(f, "move the new root over the host's and enter it"),
            Self::RootPropagation { propagation } => write!(f, "make / {}", propagation.shown()),
        }
    }
}

impl SetupOp {
    /// Why this is done, in a person's words.
    #[must_use]
    pub const fn why(&self) -> &'static str {
        match self {
            Self::Private => "nothing mounted later, outside or inside, shows on the other side",
            Self::Hostname { .. } => "the host's name is not told",
            Self::Network => "localhost works, and reaches nobody else's localhost",
            Self::Cgroup => "its limits hold from here on; its place in the host's tree is not shown",
            Self::RootTmpfs { .. }
            | Self::RootBind { .. }
            | Self::RootOverlay { .. }
            | Self::ContainerRoot { .. }
            | Self::ContainerDir { .. } => "a root of its own",
            Self::Dir { .. } | Self::Symlink { .. } | Self::Link { .. } | Self::Dirs { .. } => "a place in the tree",
            Self::File { .. } => "given to the program, or a synthetic stand-in for the host's",
            Self::Over { .. } => "of ours, and the one that was there stays as it was",
            Self::Bind { .. } => "a part of the host that the program may see",
            Self::Device { .. } => "one of the few devices that are safe to have",
            Self::Tmpfs { .. } => "writable memory that ends with the sandbox",
            Self::Proc { .. } => "its own processes only; kernel settings cannot be written",
            Self::Terminals { .. } => "terminals that are no terminal of the host",
            Self::Mask { .. } => "tells too much about the host, or was asked to be hidden",
            Self::ReadOnly { .. } => "may be seen, not changed",
            Self::Seal { .. } => "only the writable places are writable",
            Self::Enclose(_) => "what runs gVisor and what it keeps is not in the program's tree",
            Self::Enter | Self::EnterContainer { .. } | Self::ChangeRoot => "from here on no host path can be named",
            Self::Mount(_) => "asked for by the spec",
            Self::Node(_) => "every container's, or asked for by the spec",
            Self::Sysctl { .. } => "a setting of its own namespaces",
            Self::Console => "a terminal of its own",
            Self::RootPropagation { .. } => "what is mounted here shows where the spec wants it",
        }
    }
}
