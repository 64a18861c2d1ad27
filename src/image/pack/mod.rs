//! From a tree to a layer: the other way round than [`unpack`](super::unpack).
//!
//! The tree is what a program was free to fill, so its names, contents and attributes are hostile. It is read by
//! descriptor, no link is followed, and nothing may write to it meanwhile: what is seen to have changed is an error, and
//! so is what a layer cannot tell. The same tree gives the same bytes: entries come in the order of their names, and
//! nothing of the machine, the user or the moment is in them.

mod error;
mod inside;
mod keep;
mod tar;
#[cfg(test)]
mod tests;
mod walk;

use std::{io::Write, os::fd::BorrowedFd, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::unpack::Limits;
pub use error::PackError;
pub use inside::pack_inside;
pub use keep::{Compression, KeepError, NewLayer, keep};

/// How what was removed is told in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The upper directory of an overlay: by whiteouts, which become those of a layer.
    Overlay,
    /// A tree of its own: nothing was.
    Tree,
}

/// How a tree is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub source: Source,
    /// No file is newer than this, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub newest: Option<i64>,
    /// Directories whose content is left out, relative to the root and without a slash at their ends.
    pub without: Vec<Vec<u8>>,
    /// What the tree was over, where owners mean nothing since there is one id for all: what was there already is root's,
    /// as most of an image is, and not whoever's the program was.
    pub over: Option<PathBuf>,
    pub limits: Limits,
}

impl Options {
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self { source, newest: None, without: Vec::new(), over: None, limits: Limits::default() }
    }
}

/// What there was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// Of the archive, the root's own among them.
    pub entries: u64,
    /// Of files, holes included.
    pub bytes: u64,
    pub whiteouts: u64,
    pub sockets_left_out: u64,
    /// Extended attributes that are none of an image's business.
    pub attributes_left_out: u64,
}

/// Writes the tree at `root` as a tar archive. Owners are as this process sees them.
pub fn pack<W: Write>(root: BorrowedFd<'_>, options: &Options, to: W) -> Result<(Notes, W), PackError> {
    walk::Walk::new(options, to).run(root)
}
