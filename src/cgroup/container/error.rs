//! Why a container's cgroup could not be had or changed.

use std::path::PathBuf;

use nix::errno::Errno;

use super::super::CgroupError;
use crate::error::Hint;

/// Some sentences are runc's word for word: engines and their test suites look for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContainerCgroupError {
    #[error("no cgroup for the container: {why}")]
    Absent { why: String },
    #[error("cgroupsPath `{path}`: {why}")]
    BadPath { path: String, why: &'static str },
    #[error("container's cgroup is not empty: {count} process(es) found in {path}")]
    NotEmpty { path: PathBuf, count: usize },
    #[error("container's cgroup unexpectedly frozen: {path}")]
    Frozen { path: PathBuf },
    #[error("cannot set {setting}: the {controller} cgroup controller is not available")]
    NoController { setting: String, controller: String },
    #[error("cannot set {controller} limit: container could not join or create cgroup")]
    NotJoined { controller: &'static str },
    #[error(
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups: cannot {action} {path}"
    )]
    RootlessLimits { action: &'static str, path: PathBuf, source: Errno },
    #[error("{setting}: {why}")]
    Value { setting: String, why: String },
    #[error("cannot write `{value}` to {path}")]
    Write { value: String, path: PathBuf, source: Errno },
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: Errno },
    #[error("{path} stays in the state {state}")]
    Stuck { path: PathBuf, state: String },
    #[error("device rules of {path}: {action} failed")]
    Filter { action: &'static str, path: PathBuf, source: Errno },
    #[error("systemd: {what}")]
    Systemd { what: String },
}

impl ContainerCgroupError {
    pub(super) fn value(setting: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Value { setting: setting.into(), why: why.into() }
    }

    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Write { source, .. } | Self::Io { source, .. } | Self::Filter { source, .. } => Some(*source),
            _ => None,
        }
    }

    /// What a rootless caller may meet in a tree that nobody gave it (EROFS in a container).
    pub(super) fn is_permission(&self) -> bool {
        matches!(self.errno(), Some(Errno::EPERM | Errno::EACCES | Errno::EROFS))
    }
}

impl From<CgroupError> for ContainerCgroupError {
    fn from(error: CgroupError) -> Self {
        match error {
            CgroupError::Io { action, path, source } => Self::Io { action, path, source },
            other => Self::Absent { why: other.to_string() },
        }
    }
}

impl Hint for ContainerCgroupError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotEmpty { .. } => "is another container using this cgroupsPath? See its cgroup.procs",
            Self::Frozen { .. } => "thaw it (`echo THAWED > freezer.state`, `echo 0 > cgroup.freeze`) or remove it",
            Self::NotJoined { .. } | Self::RootlessLimits { .. } => {
                "leave the limits out, or have a cgroup delegated: `systemd-run --user --scope -p Delegate=yes …`"
            }
            Self::Io { action: "remove", source: Errno::EBUSY, .. } => "a process is still in it; see its cgroup.procs",
            Self::Write { source: Errno::EBUSY, .. } => "more than that is in use",
            Self::Systemd { .. } => "without systemd, use the cgroupfs driver",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
