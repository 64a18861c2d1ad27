//! The one error of building.

use std::{io, path::PathBuf};

use super::recipe::RecipeError;
use crate::{
    error::Hint,
    image::{ImageError, pack::KeepError, store::StoreError, unpack::LayerError},
    packages::PackagesError,
};

pub type Result<T = ()> = std::result::Result<T, BuildError>;

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error(transparent)]
    Image(Box<ImageError>),
    #[error(transparent)]
    Packages(Box<PackagesError>),
    #[error("no recipe called `{name}`")]
    Unknown { name: String, nearest: Option<String>, names: Vec<String> },
    #[error("the recipe gives no name")]
    Nameless,
    #[error("`{}` is neither a file, nor a directory, nor a link", path.display())]
    Special { path: PathBuf },
    #[error("`{}` has a name that would remove another file where the image is unpacked", path.display())]
    Whiteout { path: PathBuf },
    #[error("`{}` is too much for an image", path.display())]
    TooMuch {
        path: PathBuf,
        #[source]
        source: LayerError,
    },
    #[error("`{}` leads out of the recipe's directory `{}`", path.display(), dir.display())]
    Outside { path: PathBuf, dir: PathBuf },
    #[error("`{}` changed while it was read", path.display())]
    Changed { path: PathBuf },
    #[error("`{word}` of `host` is neither the name of a program nor an absolute path without `..`")]
    HostPath { word: String },
    #[error("no program called `{word}` on this host{}", by(wanted_by.as_ref()))]
    NoProgram { word: String, wanted_by: Option<PathBuf> },
    #[error("no library called `{name}` on this host{}", by(Some(wanted_by)))]
    NoLibrary { name: String, wanted_by: PathBuf },
    #[error("`{}` is a broken program: {why}", path.display())]
    Elf { path: PathBuf, why: String },
    #[error("a recipe that is built in has no files beside it, and `{}` is one", path.display())]
    NoFiles { path: PathBuf },
    #[error("mmdebstrap: {why}")]
    Debian { why: String, hint: Option<&'static str> },
    #[error("a setup script needs something that can run it, and there is nothing yet")]
    NothingToSetUp,
    #[error("{what}: {why}")]
    Setup { what: &'static str, why: String, hint: Option<String> },
    #[error("the base has no apt-get, which is to install {packages}")]
    NoApt { packages: String },
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn by(path: Option<&PathBuf>) -> String {
    path.map_or_else(String::new, |path| format!(", which `{}` needs", path.display()))
}

impl BuildError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl From<ImageError> for BuildError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

impl From<StoreError> for BuildError {
    fn from(error: StoreError) -> Self {
        Self::Image(Box::new(error.into()))
    }
}

impl From<PackagesError> for BuildError {
    fn from(error: PackagesError) -> Self {
        Self::Packages(Box::new(error))
    }
}

impl Hint for BuildError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Image(error) => error.hint(),
            Self::Packages(error) => error.hint(),
            Self::Keep(error) => error.hint(),
            Self::Unknown { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::Unknown { names, .. } => {
                Some(format!("a file is named with its path, as ./recipe.toml; built in are {}", names.join(", ")))
            }
            Self::Nameless => Some("write name = \"…\" in it, or give --tag NAME".to_owned()),
            Self::NoFiles { .. } => Some("copy it to a file of your own".to_owned()),
            Self::Whiteout { .. } => Some("no name in an image begins with .wh.: that is a mark of layers".to_owned()),
            Self::Outside { .. } => Some(
                "`from` is a path below it, without links that lead elsewhere: copy the file there, or keep the recipe above it"
                    .to_owned(),
            ),
            Self::NothingToSetUp => Some("take a base, or a shell of this host with host = [\"sh\"]".to_owned()),
            Self::Setup { hint, .. } => hint.clone(),
            Self::NoApt { .. } => Some(
                "take base = \"debian:bookworm\" or an image of Debian's that has apt, or install them with `setup`"
                    .to_owned(),
            ),
            Self::Debian { hint, .. } => hint.map(str::to_owned),
            _ => None,
        }
    }
}
