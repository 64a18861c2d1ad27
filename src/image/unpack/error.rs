//! What is wrong with an archive or a layer, and what stood in the way of unpacking it.

use std::{io, path::PathBuf};

use crate::{error::Hint, sys::Errno};

/// The archive itself.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("it is no tar archive")]
    NotTar,
    #[error("it ends in the middle")]
    Truncated,
    #[error("cannot be read")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Layer(#[from] Box<LayerError>),
}

/// What an entry asks for.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("entry `{path}`: {why}")]
    Refused { path: String, why: &'static str },
    #[error("entry `{path}`: {action}")]
    Io {
        action: &'static str,
        path: String,
        #[source]
        source: Errno,
    },
    #[error("more than {most} {what}")]
    Beyond { what: &'static str, most: u64 },
    #[error("{path}: {action}")]
    Tree {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: Errno,
    },
}

impl LayerError {
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } | Self::Tree { source, .. } => Some(*source),
            _ => None,
        }
    }
}

impl From<LayerError> for ArchiveError {
    fn from(error: LayerError) -> Self {
        Self::Layer(Box::new(error))
    }
}

impl Hint for ArchiveError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Layer(error) if error.errno() == Some(Errno::ENOSPC) => Some(crate::image::store::FULL.to_owned()),
            _ => None,
        }
    }
}
