//! The second stage: an OCI runtime spec, always, and beside it what OCI has no words for.
//!
//! [`build`] turns a [`Request`](crate::request::Request) into one; [`load`] reads one from a bundle. The next
//! stage, [`crate::plan`], reads nothing else.

pub mod build;
pub mod container;
pub mod load;
mod root;
mod trust;

use std::{io::ErrorKind, path::PathBuf};

use oci_spec::runtime as oci;

use crate::{
    host::closed_to_us,
    image::ImageError,
    net::{NetError, Policy, publish::Publish},
    plan::{landlock, profile, seccomp, setup::Kind},
    request::{Gvisor, Limits, Network, Placed, SandboxId, StepLimits, User},
};

/// The program's working directory and the one place it can write, by default.
pub const WORKDIR: &str = "/sandbox";

/// What is to be run, whole.
#[derive(Debug)]
pub struct Spec {
    pub oci: oci::Spec,
    pub own: Own,
}

/// What fumehood knows about a run beyond OCI.
#[derive(Debug)]
pub struct Own {
    pub id: SandboxId,
    pub base: Base,
    pub placed: Vec<Placed>,
    /// Absolute paths inside that are masked.
    pub hidden: Vec<PathBuf>,
    /// Runs before all else, in the same sandbox.
    pub setup: Option<(Vec<String>, StepLimits)>,
    /// What is reached until it has ended.
    pub setup_policy: Option<Box<Policy>>,
    /// Runs before the spec's own process, in the same sandbox.
    pub compile: Option<(Vec<String>, StepLimits)>,
    pub run_limits: StepLimits,
    pub limits: Limits,
    pub user: User,
    /// The other groups that the image has its user in.
    pub groups: Vec<u32>,
    /// What names the working directory, for errors.
    pub workdir_by: &'static str,
    pub network: Network,
    pub publish: Vec<Publish>,
    pub gvisor: Option<Gvisor>,
    pub profile: &'static profile::Builtin,
    pub seccomp: Option<seccomp::Profile>,
    pub landlock: Option<landlock::Policy>,
    /// The targets of mounts that are the program's own, and the host's owner of each.
    pub given_mounts: Vec<(PathBuf, (u32, u32))>,
    /// Whether files are to be read out of the sandbox after the run.
    pub fetches: bool,
    /// Whether what is written to the root is wanted after the run.
    pub keeps: bool,
    /// Where on the disk what is written to the root is, instead of in memory.
    pub on_disk: Option<PathBuf>,
    /// The digest of the image that is run.
    pub image: Option<String>,
    /// What a bundle or an image wants that fumehood does not give, told by `explain`.
    pub left_out: Vec<String>,
}

/// What the root is made of.
#[derive(Debug)]
pub enum Base {
    /// A fresh tmpfs; the spec's mounts bring the host's /usr.
    Host { links: Vec<(String, String)> },
    /// A directory of which nothing is known: `skeleton` must be added before it can be mounted on. The files of an
    /// image belong inside to whom it says.
    Dir { path: PathBuf, skeleton: Vec<(PathBuf, Kind)>, image: bool },
}

#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("`{}` in the bundle: {source}", path.display())]
    Bundle { path: PathBuf, source: std::io::Error },
    #[error("`{}`: {why}", path.display())]
    Config { path: PathBuf, why: String },
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("{what}")]
    ImageUser { what: String },
    #[error("`{path}` in `{}` is {what}", root.display())]
    Hostile { root: PathBuf, path: String, what: &'static str },
    #[error("`{}` is not shown inside, so it cannot be excluded", path.display())]
    NothingToHide { path: PathBuf },
    #[error("spec: {0}")]
    Oci(#[from] oci_spec::OciSpecError),
    #[error("root file system `{}`: {source}", path.display())]
    Root { path: PathBuf, source: std::io::Error },
    #[error("{what} is not UTF-8: `{text}`")]
    Text { what: &'static str, text: String },
    #[error("config.json asks for {what}, which `fumehood run` does not do")]
    Unsupported { what: String },
}

impl crate::error::Hint for SpecError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Bundle { .. } => Some(
                "a bundle is a directory with config.json and a root file system; `runc spec` writes one".to_owned(),
            ),
            Self::Image(error) => error.hint(),
            Self::Net(error) => error.hint(),
            Self::ImageUser { .. } => Some("choose another with --user UID:GID".to_owned()),
            Self::Hostile { .. } => {
                Some("a root file system that redirects its mount points is not mounted on".to_owned())
            }
            Self::NothingToHide { .. } => Some("--exclude takes a host path below /usr, /opt or a --mount".to_owned()),
            Self::Root { path, source } if source.kind() == ErrorKind::PermissionDenied => {
                closed_to_us(path).map(|dir| format!("you may not enter `{}`; use a place that you may", dir.display()))
            }
            Self::Root { .. } => Some("--rootfs takes `host` or a directory with a whole system tree".to_owned()),
            Self::Config { .. } | Self::Oci(_) | Self::Text { .. } | Self::Unsupported { .. } => None,
        }
    }
}

/// OCI and Linux strings are UTF-8 and bytes; a spec can only hold the first.
fn text(what: &'static str, value: &std::ffi::OsStr) -> Result<String, SpecError> {
    match value.to_str() {
        Some(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(SpecError::Text { what, text: value.to_string_lossy().replace('\0', "\\0") }),
    }
}
