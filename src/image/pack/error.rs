//! Why a tree cannot be a layer.

use std::io;

use crate::error::Hint;

#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("cannot {action} `{path}`")]
    Read {
        action: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` cannot be in a layer: {why}")]
    Untold { path: String, why: &'static str },
    #[error("`{path}` was changed while it was read")]
    Changed { path: String },
    #[error("more than {most} {what}, at `{path}`")]
    Beyond { what: &'static str, most: u64, path: String },
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
    /// Said by another process.
    #[error("{what}")]
    Elsewhere { what: String, hint: Option<String> },
}

impl Hint for PackError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Write(error) if error.kind() == io::ErrorKind::StorageFull => {
                Some("the disk is full; `fumehood image prune` frees what no image needs".to_owned())
            }
            Self::Beyond { what: "bytes of files", .. } => Some("holes of sparse files count as well".to_owned()),
            Self::Elsewhere { hint, .. } => hint.clone(),
            Self::Changed { .. } => Some("nothing may write to it meanwhile".to_owned()),
            _ => None,
        }
    }
}
