//! From packed layers to a root file system: decompressed and hashed in threads of their own, several layers ahead,
//! and carried out one after the other, as their order means it.
//!
//! Nothing else runs for it: no decompressor of the host's, and nothing of the image's (GHSA-x86f-5xw2-fm2r). The tree
//! is whole, and what the image's configuration says it is, or there is an error.

mod archive;
mod error;
mod layer;
mod limits;
mod packed;
mod tree;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fs::File, os::fd::OwnedFd, sync::mpsc::sync_channel, thread};

use super::digest::{Algorithm, Digest};
pub use archive::{Archive, Kind};
pub use error::{ArchiveError, LayerError};
pub use layer::Notes;
use limits::Budget;
pub use limits::Limits;
use packed::Chunks;
pub use packed::{Packing, open as open_packed, packing};
use tree::Tree;

/// A layer where it lies.
#[derive(Debug)]
pub struct Layer {
    /// What it is called in errors.
    pub name: String,
    pub file: File,
    /// Of the layer when it is unpacked, as the image's configuration has it.
    pub diff_id: Option<Digest>,
}

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("layer {name}")]
    Layer {
        name: String,
        #[source]
        source: ArchiveError,
    },
    #[error("layer {name}: its content is {found}, and the image wants {wanted}")]
    Content { name: String, found: Digest, wanted: Digest },
    #[error("layer {name}: a thread for it: {source}")]
    Thread {
        name: String,
        #[source]
        source: std::io::Error,
    },
    #[error("finish the directories: {0}")]
    Finish(#[source] crate::sys::Errno),
}

impl crate::error::Hint for UnpackError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Layer { source, .. } => source.hint(),
            Self::Content { .. } => {
                Some("the image is damaged, or is not what it says it is: pull it again".to_owned())
            }
            _ => None,
        }
    }
}

/// How many layers are decompressed ahead of the one that is carried out.
const AHEAD: usize = 3;
/// Of each: what it may be ahead by.
const CHUNKS: usize = 16;
const CHUNK: usize = 256 << 10;

/// Unpacks the layers, the lowest first, into an empty directory of which nobody else has the use.
///
/// `progress` is told how many packed bytes have been read since it was last told.
pub fn unpack(
    layers: Vec<Layer>,
    into: OwnedFd,
    limits: Limits,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Notes, UnpackError> {
    let mut budget = Budget::new(limits);
    let mut total = Notes::default();
    let mut tree = Tree::new(into);
    thread::scope(|scope| {
        let mut waiting = layers.into_iter();
        let mut ahead = VecDeque::new();
        loop {
            while ahead.len() < AHEAD
                && let Some(layer) = waiting.next()
            {
                let (send, chunks) = sync_channel(CHUNKS);
                let (give_back, empty) = sync_channel(CHUNKS + 2);
                let Layer { name, file, diff_id } = layer;
                let algorithm = diff_id.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
                let work = move || packed::decompress(file, algorithm, limits, &send, &empty, progress);
                let thread = thread::Builder::new().name("layer".to_owned()).spawn_scoped(scope, work);
                let thread = thread.map_err(|source| UnpackError::Thread { name: name.clone(), source })?;
                ahead.push_back((name, diff_id, Chunks::new(chunks, give_back), thread));
            }
            let Some((name, wanted, mut chunks, thread)) = ahead.pop_front() else { break };
            let applied = layer::apply(&mut tree, &mut chunks, &mut budget);
            // A thread that has more than is wanted must not wait for ever.
            drop(chunks);
            let failed = |source| UnpackError::Layer { name: name.clone(), source };
            let decompressed = thread.join().unwrap_or(Err(ArchiveError::Malformed("its thread panicked")));
            let notes = match (applied, decompressed) {
                // What could not be decompressed is why it could not be read on.
                (Ok(_) | Err(ArchiveError::Truncated), Err(error)) | (Err(error), _) => return Err(failed(error)),
                (Ok(notes), Ok(found)) => match (wanted, found) {
                    (Some(wanted), Some(found)) if wanted != found => {
                        return Err(UnpackError::Content { name, found, wanted });
                    }
                    _ => notes,
                },
            };
            total.add(notes);
        }
        Ok(())
    })?;
    tree.finish().map_err(UnpackError::Finish)?;
    Ok(total)
}
