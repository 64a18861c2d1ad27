//! The one error of this room.

use std::{io, path::PathBuf};

use super::{
    digest::Digest, manifest::ManifestError, pack::KeepError, reference::ReferenceError, store::StoreError,
    unpack::ArchiveError,
};
use crate::error::Hint;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Registry(Box<super::registry::RegistryError>),
    #[error("image {}", digest.short())]
    Manifest {
        digest: Digest,
        #[source]
        source: ManifestError,
    },
    #[error("{} is an index of several images and no image", digest.short())]
    IsIndex { digest: Digest },
    #[error("no image called `{name}`")]
    Unknown { name: String },
    #[error("`{text}` is the beginning of several images: {one}, {other}")]
    Ambiguous { text: String, one: String, other: String },
    #[error("{what}: {why}")]
    Import { what: String, why: String },
    #[error("user `{text}` of the image: {why}")]
    User { text: String, why: String },
    #[error("{path} is there and is not empty", path = path.display())]
    NotEmpty { path: PathBuf },
    #[error("{what}")]
    Archive {
        what: String,
        #[source]
        source: ArchiveError,
    },
    #[error("{what}")]
    Document {
        what: String,
        #[source]
        source: ManifestError,
    },
    #[error("what run `{name}` wrote is not kept")]
    Keep {
        name: String,
        #[source]
        source: KeepError,
    },
    #[error("no kept run called `{name}`")]
    UnknownRun { name: String },
    #[error("run `{name}` has changed more than can be listed")]
    TooManyChanges { name: String },
    #[error("a kept run is called `{name}` already")]
    RunTaken { name: String },
    #[error("run `{name}` stood on {path} and on no image, so no image can stand on that", path = path.display())]
    NoImageBelow { name: String, path: PathBuf },
    #[error("--change `{text}`: {why}")]
    Change { text: String, why: String },
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl Hint for ImageError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some(super::store::FULL.to_owned())
            }
            Self::Reference(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Manifest { source, .. } | Self::Document { source, .. } => source.hint(),
            Self::Archive { source, .. } => source.hint(),
            Self::Unknown { name } => Some(format!(
                "`fumehood image list` shows what is here; `fumehood image pull {name}` fetches it, `fumehood image import` \
                 takes it from a file"
            )),
            Self::User { .. } => Some("choose another with --user UID:GID".to_owned()),
            Self::NotEmpty { .. } => Some("name a directory that is not there yet".to_owned()),
            Self::Keep { source, .. } => source.hint(),
            Self::UnknownRun { name } => Some(format!(
                "`fumehood ps --all` lists them; `fumehood run --keep --name {name} …` makes one, when it has ended"
            )),
            Self::TooManyChanges { name } => Some(format!(
                "`fumehood commit {name} IMAGE` and `fumehood image export` give its layer to other programs"
            )),
            Self::RunTaken { name } => Some(format!("choose another --name, or remove that one: fumehood rm {name}")),
            Self::NoImageBelow { .. } => Some("run it with --image instead of --rootfs".to_owned()),
            Self::Ambiguous { .. } => Some("give more of it".to_owned()),
            _ => None,
        }
    }
}
