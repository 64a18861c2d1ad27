//! Why a sandbox could not be made, in words that name the object.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use crate::{
    cgroup::CgroupError,
    error::{Error, Hint},
    host::{closed_to_others, explain_launch_errno, explain_refused_ids},
    net::{NetError, gateway::Step},
    plan::{
        Plan, PlanError,
        ids::IdsKind,
        seccomp::KernelVersion,
        setup::{OnDisk, SetupOp},
    },
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
    Fetch { path: PathBuf, why: String },
    #[error("{what} `{}`: the sandbox's ids may not enter `{}`", path.display(), dir.display())]
    Closed { what: &'static str, path: PathBuf, dir: PathBuf },
    #[error(transparent)]
    Egress(NetError),
    #[error("cannot {}: {}", step.what(), errno.desc())]
    Gateway { step: Step, errno: Errno },
    #[error("gVisor did not run the program: {why}")]
    Gvisor { why: String, log: Option<PathBuf> },
    #[error("the sandbox's init ended before the program was started")]
    Lost,
    #[error("cannot give the program `{path}` to write: {}", errno.desc())]
    MappedMount { path: String, errno: Errno },
    #[error("cannot show the files of the image in `{path}` as their owners': {}", errno.desc())]
    MappedImage { path: String, errno: Errno },
    #[error("cannot have what is written to / in `{path}`: {}", errno.desc())]
    OnDisk { path: String, errno: Errno },
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
    #[error("{by}: `{path}`: {}", no_directory(*errno))]
    WorkingDirectory { by: &'static str, path: String, errno: Errno },
    #[error("{flag} cannot be held on this host: {why}")]
    Unheld { flag: &'static str, why: String },
}

impl LaunchError {
    pub(super) fn on_disk(at: &OnDisk, errno: Errno) -> Self {
        Self::OnDisk { path: at.path.as_c_str().to_string_lossy().into_owned(), errno }
    }

    /// The words for a place in the plan.
    pub(super) fn at(plan: &Plan, step: usize, failure: Failure) -> Self {
        let index = usize::from(failure.index);
        if (failure.stage, failure.errno) == (Stage::Setup, Errno::EACCES)
            && let Some(closed) = Self::closed(plan, index)
        {
            return closed;
        }
        let (stage, what) = match failure.stage {
            Stage::Setup => ("mount", plan.setup.get(index).map_or_else(|| "setup".to_owned(), ToString::to_string)),
            Stage::ResourceLimit => (
                "rlimit",
                plan.rlimits.get(index).map_or_else(String::new, |limit| format!("set limit {}", limit.name)),
            ),
            Stage::WorkingDirectory => {
                let path = plan.steps.get(step).map_or_else(String::new, |step| step.cwd.clone());
                return Self::WorkingDirectory { by: plan.workdir_by, path, errno: failure.errno };
            }
            Stage::Descriptors => ("descriptors", "close inherited descriptors".to_owned()),
            Stage::Identity => ("identity", "take on the sandbox's identity".to_owned()),
            Stage::Session => ("session", "make a session and keyring of its own".to_owned()),
            Stage::Network if index == 1 => ("network", "give the link to the gateway its address again".to_owned()),
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

    /// An operation was refused: by a directory of the host that the ids of a sandbox of root's may not enter?
    fn closed(plan: &Plan, operation: usize) -> Option<Self> {
        if plan.ids.kind != IdsKind::Range {
            return None;
        }
        let root = plan.setup.iter().find_map(|op| match op {
            SetupOp::RootBind { source, mapped: false } | SetupOp::RootOverlay { source, mapped: false, .. } => {
                Some(source)
            }
            _ => None,
        });
        let (what, source) = match plan.setup.get(operation)? {
            SetupOp::Bind { source, mapped: None, .. } => ("mount source", source),
            // What fails within a root may do so at its very door.
            _ => ("root file system", root?),
        };
        let path = PathBuf::from(OsStr::from_bytes(source.as_c_str().to_bytes()));
        let dir = closed_to_others(&path)?;
        Some(Self::Closed { what, path, dir })
    }

    /// As the caller sees it, with what the host at this moment says about the cause.
    #[must_use]
    pub fn explain(self) -> Error {
        let found = match &self {
            Self::Clone(errno) | Self::Gateway { step: Step::Namespace, errno } => {
                explain_launch_errno("clone", "namespaces", *errno as i32)
            }
            Self::Ids(IdsError::Write { file, source }) => {
                source.raw_os_error().and_then(|errno| explain_launch_errno("ids", file, errno))
            }
            Self::Ids(IdsError::Refused { powerless, .. }) => explain_refused_ids(*powerless),
            Self::Setup { what, errno: Errno::EINVAL, .. } if what.starts_with("mount overlay of") => {
                unmapped_layers(&crate::sys::probe::kernel_release().unwrap_or_default())
            }
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
            Self::Egress(error) => error.hint(),
            Self::Gvisor { log, .. } => log.as_ref().map(|log| format!("runsc's log is in {}", log.display())),
            Self::Gateway { step, errno } => {
                let told = step.hint(*errno);
                // What forbids namespaces is found out by who explains.
                told.or_else(|| (*step != Step::Namespace).then(|| "`fumehood doctor` tells what is missing".to_owned()))
            }
            Self::Ids(error) => error.hint(),
            Self::Plan(error) => error.hint(),
            Self::State(error) => error.hint(),
            Self::Unheld { flag, .. } => Some(format!(
                "leave {flag} out, or run as root or with a delegated cgroup; `fumehood doctor` tells more"
            )),
            Self::MappedMount { .. } => {
                Some("its file system cannot map owners; mount it read-only, or run as its owner".to_owned())
            }
            Self::MappedImage { .. } => Some(
                "its file system must take id-mapped mounts (ext4, xfs, btrfs; tmpfs since Linux 6.3): name another place \
                 with --store or FUMEHOOD_STORE, or run as an ordinary user"
                    .to_owned(),
            ),
            Self::WorkingDirectory { errno: Errno::ENOENT | Errno::ENOTDIR, .. } => Some(
                "it is there only if the root has it or --file, --dir or --mount brings it; /sandbox always is"
                    .to_owned(),
            ),
            Self::Closed { dir, .. } => Some(format!(
                "as root a sandbox has ids that are nobody's: chmod o+x {}, or use a place that all may enter",
                dir.display()
            )),
            Self::StandardStreamsClosed => Some("redirect them to /dev/null instead".to_owned()),
            _ => None,
        }
    }
}

/// Of overlayfs that refuses a tree whose owners are mapped, as it does on a kernel that is too old.
fn unmapped_layers(release: &str) -> Option<String> {
    KernelVersion::parse(release).filter(|version| *version < KernelVersion(5, 19)).map(|_| {
        format!(
            "overlayfs takes the tree of an image with its owners mapped since Linux 5.19, and this is {release}: add \
             --read-only, or run as an ordinary user"
        )
    })
}

fn no_directory(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => "no such directory inside the sandbox",
        Errno::ENOTDIR => "it is no directory inside the sandbox",
        errno => errno.desc(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_cannot_be_made_says_what_is_missing() {
        let hint = |step, errno| LaunchError::Gateway { step, errno }.explain().hint().unwrap_or_default().to_owned();
        for errno in [Errno::ENOENT, Errno::EOPNOTSUPP] {
            assert!(hint(Step::Rules, errno).contains("modprobe -a veth nf_tables"), "{errno}");
            assert!(hint(Step::Link, errno).contains("modprobe -a veth nf_tables"), "{errno}");
        }
        assert!(hint(Step::Link, Errno::EPERM).contains("fumehood doctor"));
        let error = LaunchError::Gateway { step: Step::Rules, errno: Errno::ENOENT }.explain();
        assert!(error.message().starts_with("cannot load the gateway's packet filter: "), "{error}");
    }

    #[test]
    fn kernels_that_cannot_map_layers_are_told_so() {
        assert!(unmapped_layers("5.15.0-91-generic").unwrap().contains("this is 5.15.0-91-generic: add --read-only"));
        assert!(unmapped_layers("5.19.0").is_none() && unmapped_layers("6.1.0-18-amd64").is_none());
    }
}
