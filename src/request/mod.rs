//! What was asked for, typed and checked: the first stage.
//!
//! A [`Request`] that exists makes sense in itself: sizes are in range, files have been read, the interpreter
//! has been found. Later stages decide how, and never whether.

pub mod files;
pub mod gvisor;
pub mod hostname;
pub mod id;
pub mod limits;
pub mod mounts;
pub mod runtimes;
pub mod secrets;
pub mod user;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use files::{Fetch, Fetched, Placed};
pub use gvisor::Gvisor;
pub use hostname::Hostname;
pub use id::SandboxId;
pub use limits::{Bytes, Limits};
pub use mounts::Mount;
pub use secrets::Secret;
pub use user::User;

use crate::{
    image::Ready,
    net::{
        policy::{Policy, RuleError},
        publish::Publish,
    },
    plan::seccomp::Profile as SeccompProfile,
};

/// One run, as asked for. What the caller keeps for the next run is borrowed.
#[derive(Debug)]
pub struct Request<'a> {
    pub id: SandboxId,
    pub work: Work,
    pub rootfs: &'a Rootfs,
    /// Files and directories written into the sandbox before the program starts, parents first.
    pub placed: Vec<Placed>,
    pub mounts: &'a [Mount],
    /// Paths inside that must not be seen, wherever they come from.
    pub hidden: &'a [PathBuf],
    pub writable_root: bool,
    pub limits: Limits,
    pub env: &'a [(OsString, OsString)],
    pub secrets: &'a [Secret],
    pub user: User,
    pub workdir: Option<&'a Path>,
    pub hostname: &'a Hostname,
    pub network: Network,
    /// What is reached until the setup has ended; with a gateway alone.
    pub setup_policy: Option<Box<Policy>>,
    /// Ports of it that are opened on the host.
    pub publish: &'a [Publish],
    pub profile: Profile,
    pub terminal: bool,
    /// gVisor's kernel instead of this one's.
    pub gvisor: Option<&'a Gvisor>,
    /// What is to be read out of the sandbox after the run.
    pub fetch: &'a [Fetch],
    /// Whether what is written to the root is wanted after the run.
    pub keeps: bool,
    /// Where on the disk what is written to the root is, instead of in memory: empty, and nobody else's.
    pub on_disk: Option<&'a Path>,
    /// Whether the program installs a system's packages, as root: it keeps what capabilities that takes.
    pub installs: bool,
}

/// What runs: at most three programs one after another in the same sandbox.
#[derive(Debug)]
pub struct Work {
    /// The runtime's name, for the report; `None` when a command was given.
    pub runtime: Option<String>,
    /// Before all else, with a network of its own.
    pub setup: Option<Step>,
    pub compile: Option<Step>,
    pub run: Step,
    /// Configuration directories under /etc that the runtime reads, bound read-only.
    pub etc: Vec<PathBuf>,
    pub env: Vec<(String, String)>,
}

/// One program and the limits that hold while it runs.
#[derive(Debug, Clone)]
pub struct Step {
    /// Empty only for a bundle, whose config.json names the program.
    pub argv: Vec<OsString>,
    pub limits: StepLimits,
}

/// Limits that a step has for itself; `None` is the sandbox's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepLimits {
    pub memory: Option<Bytes>,
    pub pids: Option<u32>,
    pub timeout: Option<std::time::Duration>,
}

/// Where `/` comes from (DESIGN.md §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rootfs {
    /// The host's /usr and a synthetic rest.
    Host,
    /// A directory with a whole tree, whose contents are hostile.
    Dir(PathBuf),
    /// An OCI bundle: its config.json is trusted, its root file system is not.
    Bundle(PathBuf),
    /// An OCI image, unpacked: nothing of it is trusted.
    Image(Arc<Ready>),
}

/// How much network there is inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// A loopback device of its own and nothing else.
    None,
    /// A way out through a gateway of fumehood's, to what the policy allows.
    Gateway(Box<Policy>),
    /// The host's own network: no isolation at all.
    Host,
}

impl Network {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gateway(policy) => policy.mode().as_str(),
            Self::Host => "host",
        }
    }
}

/// The system calls and files that are open to the program, on top of namespaces and mounts.
#[derive(Debug)]
pub struct Profile {
    /// `default`, `strict`, `dev`.
    pub name: &'static crate::plan::profile::Builtin,
    /// A filter of the caller's in place of the profile's.
    pub seccomp: Option<SeccompProfile>,
    /// More Landlock rules of the caller's, on top of the profile's: they can only tighten.
    pub landlock: Option<crate::plan::landlock::Policy>,
}

/// A request that makes no sense, or names what is not there.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the image names no program")]
    NoProgram,
    #[error("nothing says what to run")]
    NothingSaid,
    #[error(transparent)]
    Quantity(#[from] limits::QuantityError),
    #[error(transparent)]
    Id(#[from] id::IdError),
    #[error(transparent)]
    File(#[from] files::FileError),
    #[error(transparent)]
    Gvisor(#[from] gvisor::GvisorError),
    #[error(transparent)]
    Mount(#[from] mounts::MountError),
    #[error(transparent)]
    Runtime(#[from] runtimes::RuntimeError),
    #[error(transparent)]
    Secret(#[from] secrets::SecretError),
    #[error("what is written to / cannot be {what}: {why}")]
    NotKept { what: &'static str, why: &'static str },
    #[error("a setup has a network of its own, and the program would have the host's")]
    NoSetup,
    #[error("port {} cannot be published: the program has the host's own network", .0.port)]
    NoPublish(Publish),
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error("no random sandbox id: {0}")]
    Random(std::io::Error),
    #[error(transparent)]
    User(#[from] user::UserError),
}

impl crate::error::Hint for RequestError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Gvisor(error) => error.hint(),
            Self::Mount(error) => error.hint(),
            Self::Runtime(error) => error.hint(),
            Self::Secret(error) => error.hint(),
            Self::Rule(error) => error.hint(),
            Self::NoSetup => Some("leave --setup out, or --net host".to_owned()),
            Self::NoPublish(_) => Some("leave -p out, or --net host".to_owned()),
            Self::NoProgram => Some("name one: fumehood run --image IMAGE -- COMMAND".to_owned()),
            Self::NothingSaid => {
                Some("a job has `code`, `file`, `argv` or `cmd`, or an image that names a program".to_owned())
            }
            Self::NotKept { .. } => Some("it takes --image IMAGE, or --rootfs DIR --writable".to_owned()),
            Self::Quantity(_) | Self::Id(_) | Self::Random(_) | Self::User(_) => None,
        }
    }
}
