//! The one error of this room.

use std::path::PathBuf;

use super::Manager;
use crate::{
    Error,
    error::Hint,
    image::{ImageError, store::StoreError},
    net::policy::RuleError,
    request::{mounts::MountError, runtimes::RuntimeError},
};

#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    #[error("{manager} could not install {packages}: {why}", manager = manager.name())]
    Failed { manager: Manager, packages: String, why: String },
    #[error("no {} on this host", manager.name())]
    NoManager { manager: Manager },
    #[error("{what}")]
    NoLanguage { what: &'static str },
    #[error("`{text}` names no package")]
    NoPackage { text: String },
    #[error("{what} has no packages that fumehood installs")]
    NoRuntime { what: String },
    #[error("no {package} in {}", dir.display())]
    NotThere { package: String, dir: PathBuf },
    #[error("index `{text}` is neither a URL nor a directory")]
    Index { text: String },
    #[error("the index has a user or a password in its URL, which what a package runs could read")]
    IndexUser,
    #[error("where packages come from: {source}")]
    Place { source: RuleError },
    #[error("`{name}` has a user or a password in it that cannot be told from the rest")]
    Credentials { name: String },
    #[error("{message}")]
    Setup { message: String, hint: Option<String> },
    #[error("{0}")]
    Sandbox(Error),
    #[error(transparent)]
    Runtime(Box<RuntimeError>),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Image(Box<ImageError>),
    #[error("cannot make {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl Hint for PackagesError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoManager { manager } => Some(manager.needs().to_owned()),
            Self::NoRuntime { .. } => Some("--install is for python, node and ruby".to_owned()),
            Self::NotThere { .. } => Some("it has files as `npm pack` writes them: NAME-VERSION.tgz".to_owned()),
            Self::Index { .. } => Some("write https://… or the path of a directory with packages".to_owned()),
            Self::IndexUser => {
                Some("fetch the packages into a directory, as with pip download, and name that".to_owned())
            }
            Self::Credentials { .. } => Some("write an @ that is none of a user's as %40".to_owned()),
            Self::Setup { hint, .. } => hint.clone(),
            Self::Place { source } => source.hint(),
            Self::Sandbox(error) => error.hint().map(str::to_owned),
            Self::Runtime(error) => error.hint(),
            Self::Mount(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Image(error) => error.hint(),
            Self::NoLanguage { .. } => Some("build it on one that has, or install it with packages.apt".to_owned()),
            Self::Failed { .. } | Self::NoPackage { .. } | Self::Io { .. } => None,
        }
    }
}
