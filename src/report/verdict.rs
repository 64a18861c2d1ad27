//! One word for how a run ended, judged from facts alone.
//!
//! What ended the program decides, not what else went wrong on the way: a program that met a limit and
//! still exited 0 is `ok`. The facts come from outside the sandbox (wait status, cgroup counters, the
//! supervisor's own acts), so a payload can't forge a verdict other than by really ending that way.

use std::fmt;

use serde::{Serialize, Serializer};

const SIGSYS: u8 = libc::SIGSYS as u8;

/// How a run ended. The list is closed: callers match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Exit code 0.
    Ok,
    /// Any other exit code.
    Failed,
    /// A signal: its own, another process's, or the caller's.
    Signaled,
    /// Over the wall time.
    Timeout,
    /// Over the CPU time.
    CpuTimeout,
    /// Over the memory.
    Oom,
    /// Wrote more than the limit for a stream.
    OutputLimit,
    /// Failed with a writable file system full.
    DiskLimit,
    /// Failed with no process or thread left to make.
    PidsLimit,
    /// Killed for a forbidden system call.
    Denied,
    /// The program was never started.
    SetupError,
}

impl Verdict {
    /// Never [`Verdict::SetupError`]: where there is an ending, there was a program.
    #[must_use]
    pub fn judge(ending: &Ending) -> Self {
        match ending.killed_by {
            Some(Reason::Timeout) => return Self::Timeout,
            Some(Reason::CpuTime) => return Self::CpuTimeout,
            Some(Reason::Output) => return Self::OutputLimit,
            Some(Reason::Memory) => return Self::Oom,
            Some(Reason::Cancelled(_)) => return Self::Signaled,
            None => {}
        }
        match ending.status {
            WaitStatus::Exited(0) => Self::Ok,
            // The kernel may have killed a child, and the program failed for it: any failing end counts.
            _ if ending.oom_kills > 0 => Self::Oom,
            WaitStatus::Signaled(SIGSYS) => Self::Denied,
            _ if ending.pids_max_hits > 0 => Self::PidsLimit,
            _ if ending.disk_full => Self::DiskLimit,
            WaitStatus::Exited(_) => Self::Failed,
            WaitStatus::Signaled(_) => Self::Signaled,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Signaled => "signaled",
            Self::Timeout => "timeout",
            Self::CpuTimeout => "cpu_timeout",
            Self::Oom => "oom",
            Self::OutputLimit => "output_limit",
            Self::DiskLimit => "disk_limit",
            Self::PidsLimit => "pids_limit",
            Self::Denied => "denied",
            Self::SetupError => "setup_error",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The facts about a program's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    pub status: WaitStatus,
    /// Why the supervisor killed it, if it did.
    pub killed_by: Option<Reason>,
    /// `oom_kill` of `memory.events`, or of v1's `memory.oom_control`.
    pub oom_kills: u64,
    /// `max` of `pids.events`.
    pub pids_max_hits: u64,
    /// A writable file system of the sandbox had no block or no inode left at the end.
    pub disk_full: bool,
}

impl Ending {
    /// The program's exit code; none when a signal ended it.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        match (self.killed_by, self.status) {
            (Some(Reason::Cancelled(_)), _) | (_, WaitStatus::Signaled(_)) => None,
            (_, WaitStatus::Exited(code)) => Some(code),
        }
    }

    /// The signal that ended the program. For a cancelled run it is the one the caller got: that the
    /// sandbox was then torn down by SIGKILL says nothing.
    #[must_use]
    pub fn signal(&self) -> Option<u8> {
        match (self.killed_by, self.status) {
            (Some(Reason::Cancelled(signal)), _) | (_, WaitStatus::Signaled(signal)) => Some(signal),
            (_, WaitStatus::Exited(_)) => None,
        }
    }
}

/// waitpid(2)'s two ways for a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStatus {
    Exited(u8),
    Signaled(u8),
}

/// Why the supervisor killed a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Timeout,
    CpuTime,
    Output,
    /// Over its memory where no cgroup holds it and the supervisor watches.
    Memory,
    /// The caller gave up: the signal it got.
    Cancelled(u8),
}

#[cfg(test)]
mod tests {
    use super::WaitStatus::{Exited, Signaled};
    use super::*;

    fn ending(status: WaitStatus) -> Ending {
        Ending { status, killed_by: None, oom_kills: 0, pids_max_hits: 0, disk_full: false }
    }

    #[test]
    fn each_fact_alone() {
        let (ok, failed, killed) = (ending(Exited(0)), ending(Exited(1)), ending(Signaled(9)));
        let by = |reason| Ending { killed_by: Some(reason), ..killed };
        for (facts, verdict) in [
            (ok, "ok"),
            (failed, "failed"),
            (ending(Exited(137)), "failed"),
            (killed, "signaled"),
            (ending(Signaled(11)), "signaled"),
            (by(Reason::Timeout), "timeout"),
            (by(Reason::CpuTime), "cpu_timeout"),
            (by(Reason::Output), "output_limit"),
            (by(Reason::Memory), "oom"),
            (by(Reason::Cancelled(15)), "signaled"),
            (Ending { oom_kills: 1, ..killed }, "oom"),
            (Ending { oom_kills: 1, ..ending(Exited(137)) }, "oom"),
            (Ending { oom_kills: 1, ..failed }, "oom"),
            (ending(Signaled(31)), "denied"),
            (ending(Exited(159)), "failed"),
            (Ending { pids_max_hits: 3, ..failed }, "pids_limit"),
            (Ending { disk_full: true, ..failed }, "disk_limit"),
            (Ending { disk_full: true, ..ending(Signaled(6)) }, "disk_limit"),
        ] {
            assert_eq!(Verdict::judge(&facts).as_str(), verdict, "{facts:?}");
        }
    }

    #[test]
    fn what_ended_it_goes_first() {
        let all = Ending { oom_kills: 1, pids_max_hits: 1, disk_full: true, ..ending(Signaled(31)) };
        for (facts, verdict) in [
            (Ending { status: Exited(0), ..all }, "ok"),
            (Ending { killed_by: Some(Reason::Timeout), ..all }, "timeout"),
            (Ending { killed_by: Some(Reason::Timeout), status: Exited(0), ..all }, "timeout"),
            (all, "oom"),
            (Ending { oom_kills: 0, ..all }, "denied"),
            (Ending { oom_kills: 0, status: Exited(1), ..all }, "pids_limit"),
            (Ending { oom_kills: 0, pids_max_hits: 0, status: Exited(1), ..all }, "disk_limit"),
        ] {
            assert_eq!(Verdict::judge(&facts).as_str(), verdict, "{facts:?}");
        }
    }

    #[test]
    fn an_end_has_a_code_or_a_signal() {
        let cancelled = |status| Ending { killed_by: Some(Reason::Cancelled(15)), ..ending(status) };
        for (facts, code, signal) in [
            (ending(Exited(3)), Some(3), None),
            (ending(Signaled(11)), None, Some(11)),
            (Ending { killed_by: Some(Reason::Timeout), ..ending(Signaled(9)) }, None, Some(9)),
            (cancelled(Signaled(9)), None, Some(15)),
            (cancelled(Exited(0)), None, Some(15)),
        ] {
            assert_eq!((facts.exit_code(), facts.signal()), (code, signal), "{facts:?}");
        }
    }
}
