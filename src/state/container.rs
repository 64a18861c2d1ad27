//! What is known of one container between two calls of the runtime.
//!
//! Its status is never written down: it follows from the record and from what the kernel says of its process, so that
//! no killed runtime can leave a wrong one.

use std::{
    collections::BTreeMap,
    fmt, io,
    os::fd::OwnedFd,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{StateError, process};

/// The version of the runtime specification that the state follows.
pub const OCI_VERSION: &str = "1.3.0";

/// A container as the next call has to know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// As config.json has it.
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// The user who made it.
    pub owner: u32,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// None while it is being made.
    pub init: Option<Init>,
    /// Whether the program was let go.
    pub started: bool,
    /// Where its control group is.
    #[serde(default)]
    pub cgroup: Option<crate::cgroup::container::Record>,
    /// Whether killing its init kills all of it.
    pub pid_namespace_own: bool,
    pub user_namespace: bool,
    /// Whether it was made with `--rootless`, or by a user without privilege.
    #[serde(default)]
    pub rootless: bool,
    /// Whether its processes get a session keyring of their own.
    #[serde(default)]
    pub keyring: bool,
}

/// The container's first process as the host numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    pub pid: i32,
    /// Clock ticks after boot at which it started (proc_pid_stat(5), starttime).
    pub start_time: u64,
}

impl Init {
    /// Of a process that is a child of ours and so cannot be replaced meanwhile.
    pub fn of(pid: i32) -> io::Result<Self> {
        match process::start_time(pid) {
            Some(start_time) => Ok(Self { pid, start_time }),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

impl Record {
    /// Derived from what is there now.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.init {
            None => Status::Creating,
            Some(_) if self.init_pidfd().is_none() => Status::Stopped,
            Some(_) if self.cgroup.as_ref().is_some_and(|group| group.is_frozen()) => Status::Paused,
            Some(_) if self.started => Status::Running,
            Some(_) => Status::Created,
        }
    }

    /// The init, unless it is dead or its number is another's by now. One that cannot be looked at is not ours.
    #[must_use]
    pub fn init_pidfd(&self) -> Option<OwnedFd> {
        let init = self.init?;
        process::open(init.pid, init.start_time).ok().flatten()
    }

    /// Whether it is dead within `time`; true at once when it was before.
    pub fn ends_within(&self, time: Duration) -> Result<bool, StateError> {
        let failed = |errno: crate::sys::Errno| StateError::Kill { id: self.id.clone(), source: errno.into() };
        match self.init_pidfd() {
            None => Ok(true),
            Some(init) => process::dies(&init, time).map_err(failed),
        }
    }

    /// What hooks and the receivers of seccomp notifications are told (runtime.md, "State").
    #[must_use]
    pub fn oci_state(&self, status: Status) -> State<'_> {
        let pid = self.init.filter(|_| status != Status::Stopped).map_or(0, |init| init.pid);
        State {
            oci_version: OCI_VERSION,
            id: &self.id,
            pid,
            status,
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }
}

/// The state of a container as the specification has it.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    pub oci_version: &'static str,
    pub id: &'a str,
    /// 0 when it has stopped.
    pub pid: i32,
    pub status: Status,
    pub bundle: &'a std::path::Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

/// The time, as [`Record::created`] has it.
#[must_use]
pub fn now() -> String {
    humantime::format_rfc3339_nanos(SystemTime::now()).to_string()
}
