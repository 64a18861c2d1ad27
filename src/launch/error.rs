//! Why a sandbox could not be made, in words that name the object.

use crate::{
    cgroup::CgroupError,
    error::{Error, Hint},
    host::{explain_launch_errno, explain_refused_ids},
    plan::{Plan, PlanError},
    state::StateError,
    sys::Errno,
};

use super::{
    ids::IdsError,
    protocol::{Failure, Stage},
};

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Cgroup(CgroupError),
    #[error("cannot clone into new namespaces: {}", .0.desc())]
    Clone(Errno),
    #[error(transparent)]
    Ids(#[from] IdsError),
    #[error("cannot fetch `{}`: {why}", path.display())]
    Fetch { path: std::path::PathBuf, why: String },
    #[error("the sandbox's init ended before the program was started")]
    Lost,
    #[error("cannot give the program `{path}` to write: {}", errno.desc())]
    MappedMount { path: String, errno: Errno },
    #[error(transparent)]
    Plan(PlanError),
    #[error("{what}: {}", errno.desc())]
    Setup { stage: &'static str, what: String, errno: Errno },
    #[error("standard input, output or error is closed")]
    StandardStreamsClosed,
    #[error(transparent)]
    State(StateError),
    #[error("cannot {what}: {}", errno.desc())]
    System { what: &'static str, errno: Errno },
    #[error("{flag} cannot be held on this host: {why}")]
    Unheld { flag: &'static str, why: String },
}

impl LaunchError {
    /// The words for a place in the plan.
    pub(super) fn at(plan: &Plan, step: usize, failure: Failure) -> Self {
        let index = usize::from(failure.index);
        let (stage, what) = match failure.stage {
            Stage::Setup => ("mount", plan.setup.get(index).map_or_else(|| "setup".to_owned(), ToString::to_string)),
            Stage::ResourceLimit => (
                "rlimit",
                plan.rlimits.get(index).map_or_else(String::new, |limit| format!("set limit {}", limit.name)),
            ),
            Stage::WorkingDirectory => (
                "chdir",
                plan.steps.get(step).map_or_else(String::new, |step| format!("change to directory {}", step.cwd)),
            ),
            Stage::Descriptors => ("descriptors", "close inherited descriptors".to_owned()),
            Stage::Identity => ("identity", "take on the sandbox's identity".to_owned()),
            Stage::Session => ("session", "make a session and keyring of its own".to_owned()),
            Stage::Network => ("clone", "make a network namespace".to_owned()),
            Stage::Terminal => ("terminal", "open a terminal inside".to_owned()),
            Stage::ProgramIo => ("io", "set up the program's standard streams".to_owned()),
            Stage::Landlock => ("landlock", "restrict the program with Landlock".to_owned()),
            Stage::Capabilities => ("capabilities", "drop all capabilities".to_owned()),
            Stage::ProgramIdentity => ("identity", "take on the program's identity".to_owned()),
            Stage::NoNewPrivileges => ("no_new_privs", "set no_new_privs".to_owned()),
            Stage::Seccomp => ("seccomp", "load the seccomp filter".to_owned()),
            Stage::Spawn => ("spawn", "start the program's process".to_owned()),
            Stage::Exec => ("exec", "execute the program".to_owned()),
        };
        Self::Setup { stage, what, errno: failure.errno }
    }

    /// As the caller sees it, with what the host at this moment says about the cause.
    #[must_use]
    pub fn explain(self) -> Error {
        let found = match &self {
            Self::Clone(errno) => explain_launch_errno("clone", "namespaces", *errno as i32),
            Self::Ids(IdsError::Write { file, source }) => {
                source.raw_os_error().and_then(|errno| explain_launch_errno("ids", file, errno))
            }
            Self::Ids(IdsError::Refused { powerless, .. }) => explain_refused_ids(*powerless),
            Self::Setup { stage, what, errno } => explain_launch_errno(stage, what, *errno as i32),
            _ => None,
        };
        let error = self.into_error();
        match (error.hint(), found) {
            (None, Some(hint)) => error.with_hint(hint),
            _ => error,
        }
    }
}

impl Hint for LaunchError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Cgroup(error) => error.hint(),
            Self::Ids(error) => error.hint(),
            Self::Plan(error) => error.hint(),
            Self::State(error) => error.hint(),
            Self::Unheld { flag, .. } => Some(format!(
                "leave {flag} out, or run as root or with a delegated cgroup; `fumehood doctor` tells more"
            )),
            Self::MappedMount { .. } => {
                Some("its file system cannot map owners; mount it read-only, or run as its owner".to_owned())
            }
            Self::StandardStreamsClosed => Some("redirect them to /dev/null instead".to_owned()),
            _ => None,
        }
    }
}

/// Why execve failed, in a shell's words.
pub(super) fn not_executed(program: &str, errno: Errno) -> Error {
    match errno {
        Errno::ENOENT if program.contains('/') => {
            Error::new(format!("`{program}`: no such file or directory inside the sandbox"))
                .with_hint("paths are those inside; if it is a script, its `#!` interpreter may be what is missing")
        }
        Errno::ENOENT => Error::new(format!("`{program}`: executable file not found in the sandbox's PATH"))
            .with_hint("programs are looked for under /usr and /opt of the host; --mount shows more"),
        Errno::E2BIG => Error::new(format!("cannot execute `{program}`: arguments and environment are too long"))
            .with_hint("pass large data with --stdin or --file"),
        _ => Error::new(format!("cannot execute `{program}`: {}", errno.desc())),
    }
}
