//! The result of one run: what DESIGN.md §4 shows, as a type.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use serde::Serialize;

use super::{controls::Controls, denials::Denials, stream::Captured, verdict::Verdict};
use crate::{
    error::Error,
    net::publish::Publish,
    request::{id::SandboxId, limits::Limits},
};

/// What happened to one program. As JSON: an object whose keys are always all there, but for
/// `stdout_base64` and `stderr_base64`, which come only with a stream that is not UTF-8.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub id: SandboxId,
    /// The runtime's name; none for a plain command.
    pub runtime: Option<String>,
    pub isolation: Isolation,
    pub verdict: Verdict,
    pub exit_code: Option<u8>,
    pub signal: Option<u8>,
    pub stdout: Captured,
    pub stderr: Captured,
    /// From the program's start to its end.
    pub duration: Duration,
    /// From the request to the program's start.
    pub setup: Duration,
    pub usage: Usage,
    pub limits: Limits,
    /// None where no sandbox stood.
    pub controls: Option<Controls>,
    pub denials: Denials,
    pub files: Vec<ProducedFile>,
    /// Why the program could not be run, or what else kept it from its end and was not its own doing.
    pub error: Option<Failure>,
    /// What ran before all else, where that was asked for.
    pub prepared: Option<Compile>,
    /// The compiler's run, where the runtime has one.
    pub compile: Option<Compile>,
    /// What was kept of what the program wrote to its root.
    pub kept: Option<Kept>,
    /// The ports that were open on the host.
    pub ports: Vec<Publish>,
}

/// What a program has changed of its root, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// What it is known by from now on.
    pub name: String,
    /// The digest of the layer, packed.
    pub layer: String,
    pub packed_bytes: u64,
}

impl Outcome {
    /// Nothing ran: the result of a sandbox that could not be set up.
    #[must_use]
    pub fn setup_error(
        id: SandboxId,
        runtime: Option<String>,
        isolation: Isolation,
        limits: Limits,
        error: Failure,
    ) -> Self {
        Self {
            id,
            runtime,
            isolation,
            verdict: Verdict::SetupError,
            exit_code: None,
            signal: None,
            stdout: Captured::default(),
            stderr: Captured::default(),
            duration: Duration::ZERO,
            setup: Duration::ZERO,
            usage: Usage::default(),
            limits,
            controls: None,
            denials: Denials::default(),
            files: Vec::new(),
            error: Some(error),
            prepared: None,
            compile: None,
            kept: None,
            ports: Vec::new(),
        }
    }

    /// What a shell sees, after timeout(1), env(1) and POSIX (XCU 2.8.2): the program's own, 128+n for
    /// signal n, 124 out of time, 137 killed for a limit, 127 not found, 126 cannot run, 125 for an
    /// error of fumehood's own.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self.verdict {
            Verdict::Timeout | Verdict::CpuTimeout => 124,
            Verdict::Oom | Verdict::OutputLimit => 137,
            Verdict::SetupError => self.error.as_ref().map_or(125, |error| error.kind.exit_status()),
            Verdict::Ok if self.error.is_some() => 125,
            Verdict::Ok
            | Verdict::Failed
            | Verdict::Signaled
            | Verdict::DiskLimit
            | Verdict::PidsLimit
            | Verdict::Denied => match (self.exit_code, self.signal) {
                (Some(code), _) => code,
                (None, Some(signal)) => 128u8.saturating_add(signal),
                (None, None) => 125,
            },
        }
    }
}

/// The backend that ran it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    Native,
    Gvisor,
}

/// What a program used, all its processes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu: Duration,
    /// As the cgroup counted it. Without one, the most that was seen at once, or the largest resident set of one of
    /// the processes (getrusage(2)), which has its files too. None when nothing measured it.
    pub peak_memory_bytes: Option<u64>,
}

/// A file that the program left behind and the caller gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducedFile {
    /// Relative to `/sandbox`.
    pub path: PathBuf,
    pub bytes: u64,
    pub sha256: [u8; 32],
    /// Where it was asked for ([`crate::request::Fetched::Held`]).
    pub content: Option<Arc<[u8]>>,
}

/// The run of a compiler, or of a setup, in the sandbox too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compile {
    pub verdict: Verdict,
    pub exit_code: Option<u8>,
    pub signal: Option<u8>,
    pub stdout: Captured,
    pub stderr: Captured,
    pub duration: Duration,
}

/// Why a program could not be run, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    /// The sandbox could not be made.
    #[must_use]
    pub fn setup(error: &Error) -> Self {
        Self::new(FailureKind::Setup, error)
    }

    /// The sandbox was made, and execve(2) failed with `cause`. As in env(1), only ENOENT is "not
    /// found", be it the program or its interpreter.
    #[must_use]
    pub fn exec(error: &Error, cause: &io::Error) -> Self {
        let kind = match cause.raw_os_error() {
            Some(libc::ENOENT) => FailureKind::NotFound,
            _ => FailureKind::CannotRun,
        };
        Self::new(kind, error)
    }

    /// The program ran, and then one of its files could not be had.
    #[must_use]
    pub fn fetch(error: &Error) -> Self {
        Self::new(FailureKind::Fetch, error)
    }

    /// The program ran, and then what it wrote could not be kept.
    #[must_use]
    pub fn keep(error: &Error) -> Self {
        Self::new(FailureKind::Keep, error)
    }

    /// The program was killed for want of memory, and not of its own.
    #[must_use]
    pub fn memory(error: &Error) -> Self {
        Self::new(FailureKind::Memory, error)
    }

    fn new(kind: FailureKind, error: &Error) -> Self {
        Self { kind, message: error.message().to_owned(), hint: error.hint().map(str::to_owned) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    Setup,
    CannotRun,
    NotFound,
    /// The program ran; a file that was wanted of it was not to be had.
    Fetch,
    /// The program ran; what it wrote was to be kept and is not.
    Keep,
    /// The program ran within its limit of memory, and was killed for one that it shares with others.
    Memory,
}

impl FailureKind {
    fn exit_status(self) -> u8 {
        match self {
            Self::Setup | Self::Fetch | Self::Keep => 125,
            Self::CannotRun => 126,
            Self::NotFound => 127,
            Self::Memory => 137,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::{
        Ending, Reason,
        WaitStatus::{self, Exited, Signaled},
    };
    use super::*;

    fn failed(failure: Failure) -> Outcome {
        let id = SandboxId::parse("t").unwrap();
        Outcome::setup_error(id, None, Isolation::Native, Limits::default(), failure)
    }

    fn ended(status: WaitStatus, change: impl FnOnce(&mut Ending)) -> Outcome {
        let mut ending = Ending { status, killed_by: None, oom_kills: 0, pids_max_hits: 0, disk_full: false };
        change(&mut ending);
        Outcome {
            verdict: Verdict::judge(&ending),
            exit_code: ending.exit_code(),
            signal: ending.signal(),
            error: None,
            ..failed(Failure::setup(&Error::new("-")))
        }
    }

    fn killed(reason: Reason) -> Outcome {
        ended(Signaled(9), |e| e.killed_by = Some(reason))
    }

    #[test]
    fn exit_statuses() {
        for (outcome, status) in [
            (ended(Exited(0), |_| ()), 0),
            (ended(Exited(3), |_| ()), 3),
            (ended(Exited(255), |_| ()), 255),
            (ended(Signaled(11), |_| ()), 139),
            (ended(Signaled(64), |_| ()), 192),
            (ended(Signaled(31), |_| ()), 159),
            (ended(Exited(1), |e| e.pids_max_hits = 1), 1),
            (ended(Exited(28), |e| e.disk_full = true), 28),
            (ended(Signaled(6), |e| e.disk_full = true), 134),
            (ended(Exited(1), |e| e.oom_kills = 1), 137),
            (killed(Reason::Memory), 137),
            (killed(Reason::Output), 137),
            (killed(Reason::Timeout), 124),
            (killed(Reason::CpuTime), 124),
            (ended(Exited(0), |e| e.killed_by = Some(Reason::Timeout)), 124),
            (killed(Reason::Cancelled(2)), 130),
            (killed(Reason::Cancelled(15)), 143),
        ] {
            assert_eq!(outcome.exit_status(), status, "{:?}", (outcome.verdict, outcome.exit_code, outcome.signal));
        }
    }

    #[test]
    fn exit_statuses_of_what_never_ran() {
        let error = Error::new("x").with_hint("y");
        let exec = |errno| failed(Failure::exec(&error, &io::Error::from_raw_os_error(errno))).exit_status();
        assert_eq!(failed(Failure::setup(&error)).exit_status(), 125);
        assert_eq!(failed(Failure::memory(&error)).exit_status(), 137);
        assert_eq!(exec(libc::ENOENT), 127);
        for errno in [libc::EACCES, libc::ENOEXEC, libc::ENOTDIR, libc::ELOOP, libc::E2BIG, libc::ENOMEM] {
            assert_eq!(exec(errno), 126, "{errno}");
        }
    }
}
