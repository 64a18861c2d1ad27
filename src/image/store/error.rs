//! What goes wrong with the place that images are kept in.

use std::{io, path::PathBuf};

use crate::{error::Hint, image::digest::Digest};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no place for images: neither $FUMEHOOD_STORE nor $XDG_DATA_HOME nor $HOME says where")]
    NoPlace,
    #[error("{path} is not yours alone, so images in it could be changed or their set-id programs be run")]
    NotOurs { path: PathBuf },
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{digest} is not in the store")]
    Missing { digest: Digest },
    #[error("what came for {wanted} is {found}")]
    WrongContent { wanted: Digest, found: Digest },
    #[error("what came for {digest} has {found} bytes, and was said to have {wanted}")]
    WrongSize { digest: Digest, wanted: u64, found: u64 },
    #[error("{path}: {why}", path = path.display())]
    Broken { path: PathBuf, why: String },
    #[error("run `{name}`: {why}")]
    BrokenRun { name: String, why: String },
    #[error(transparent)]
    Unpack(#[from] crate::image::unpack::UnpackError),
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path, source }
    }
}

/// What to do about a full disk.
pub const FULL: &str = "the disk is full; `fumehood image prune` frees what no image needs";

impl Hint for StoreError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoPlace => Some("set HOME, or FUMEHOOD_STORE to an absolute path".to_owned()),
            Self::NotOurs { path } => {
                Some(format!("chmod 700 {} if it is yours, or name another with --store", path.display()))
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Some(FULL.to_owned()),
            Self::Missing { .. } => Some("pull or import the image again".to_owned()),
            Self::WrongContent { .. } | Self::WrongSize { .. } => {
                Some("the sender or the way from it changed it; nothing of it was kept".to_owned())
            }
            Self::Broken { .. } => Some("`fumehood image rm` removes it".to_owned()),
            Self::BrokenRun { name, .. } => Some(format!("`fumehood rm {name}` removes it")),
            Self::Unpack(error) => error.hint(),
            Self::Io { .. } => None,
        }
    }
}
