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
    /// Its group of resctrl's, if it has one.
    #[serde(default)]
    pub resctrl: Option<crate::cgroup::container::resctrl::Place>,
    /// Who filters its network, if somebody does.
    #[serde(default)]
    pub egress: Option<Egress>,
    /// Whether killing its init kills all of it.
    pub pid_namespace_own: bool,
    pub user_namespace: bool,
    /// Whether it was made with `--rootless`, or by a user without privilege.
    #[serde(default)]
    pub rootless: bool,
    /// Whether its processes get a session keyring of their own.
    #[serde(default)]
    pub keyring: bool,
    /// What runsc knows it by, if its kernel is gVisor's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gvisor: Option<String>,
}

/// The container's first process as the host numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    pub pid: i32,
    /// Clock ticks after boot at which it started (proc_pid_stat(5), starttime).
    pub start_time: u64,
}

/// The process beside a container whose network is filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    pub proxy: Init,
    /// Device and inode of the network namespace that the engine knows as the container's, in which no process of it may
    /// ever be.
    pub engine: (u64, u64),
}

impl Egress {
    /// Whether it is gone within `time`.
    #[must_use]
    pub fn ends_within(&self, time: Duration) -> bool {
        match process::open(self.proxy.pid, self.proxy.start_time) {
            Ok(None) => true,
            Ok(Some(proxy)) => process::dies(&proxy, time).unwrap_or(false),
            Err(_) => false,
        }
    }

    pub fn kill(&self) {
        if let Ok(Some(proxy)) = process::open(self.proxy.pid, self.proxy.start_time) {
            _ = crate::sys::process::signal(std::os::fd::AsFd::as_fd(&proxy), libc::SIGKILL);
        }
    }
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

#[cfg(test)]
pub(super) mod tests {
    use std::{
        path::Path,
        process::{Command, Stdio},
    };

    use super::*;

    pub(in crate::state) fn record(id: &str) -> Record {
        Record {
            oci_version: "1.2.0".to_owned(),
            id: id.to_owned(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: now(),
            owner: 0,
            annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            init: None,
            started: false,
            cgroup: None,
            resctrl: None,
            egress: None,
            pid_namespace_own: true,
            user_namespace: false,
            rootless: false,
            keyring: true,
            gvisor: None,
        }
    }

    #[test]
    fn the_status_follows_the_process() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut record = record("a");
        assert_eq!(record.status(), Status::Creating);
        record.init = Some(Init::of(child.id() as i32).unwrap());
        assert_eq!(record.status(), Status::Created);
        assert!(record.init_pidfd().is_some());
        assert!(!record.ends_within(Duration::ZERO).unwrap());
        record.started = true;
        assert_eq!(record.status(), Status::Running);
        let other = record.init.map(|init| Init { start_time: init.start_time + 1, ..init });
        let stranger = Record { init: other, ..record.clone() };
        assert_eq!(stranger.status(), Status::Stopped, "the number was given to another");
        drop(child.stdin.take());
        assert!(record.ends_within(Duration::from_secs(10)).unwrap());
        // Nobody has waited for it yet.
        assert_eq!(record.status(), Status::Stopped);
        child.wait().unwrap();
        assert_eq!(record.status(), Status::Stopped);
        assert!(record.ends_within(Duration::ZERO).unwrap());
        assert!(Init::of(child.id() as i32).is_err());
    }

    #[test]
    fn the_state_is_the_specifications() {
        let record = Record { init: Some(Init { pid: 12, start_time: 0 }), ..record("a") };
        let json = |status| serde_json::to_value(record.oci_state(status)).unwrap();
        let running = serde_json::json!({
            "ociVersion": "1.3.0", "id": "a", "pid": 12, "status": "running", "bundle": "/b", "annotations": { "a": "b" }
        });
        assert_eq!(json(Status::Running), running);
        assert_eq!((&json(Status::Stopped)["pid"], &json(Status::Stopped)["status"]), (&0.into(), &"stopped".into()));
        assert_eq!(record.oci_state(Status::Created).bundle, Path::new("/b"));
    }

    #[test]
    fn the_time_is_as_go_reads_it() {
        let text = now();
        assert!(text.ends_with('Z') && text.len() == "2026-01-02T03:04:05.123456789Z".len(), "{text}");
        humantime::parse_rfc3339(&text).unwrap();
    }

    #[test]
    fn a_record_of_a_later_version_is_still_read() {
        let mut value = serde_json::to_value(record("a")).unwrap();
        value["something"] = true.into();
        let read: Record = serde_json::from_value(value).unwrap();
        assert_eq!(read.id, "a");
    }
}
