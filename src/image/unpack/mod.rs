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
pub(super) use layer::shown;
pub(super) use limits::Budget;
pub use limits::{Limits, RATIO_FROM};
use packed::Chunks;
pub use packed::{Packing, open as open_packed, packing};
use tree::Tree;
pub(super) use tree::clean;

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
    #[error("begin in its directory: {0}")]
    Begin(#[source] crate::sys::Errno),
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
/// Of each: what it may be ahead by. With [`packed::ZSTD_WINDOW`] it is what bounds our memory to 64 MiB.
const CHUNKS: usize = 12;
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
    let work = move || {
        // With a umask of its own, files are made with the rights that they are to have.
        let exact = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).is_ok();
        if exact {
            nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        }
        carry_out(layers, into, limits, exact, progress)
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("unpack".to_owned()).spawn_scoped(scope, work);
        let thread = thread.map_err(|source| UnpackError::Thread { name: "all".to_owned(), source })?;
        thread.join().unwrap_or(Err(UnpackError::Finish(crate::sys::Errno::EFAULT)))
    })
}

fn carry_out(
    layers: Vec<Layer>,
    into: OwnedFd,
    limits: Limits,
    exact: bool,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Notes, UnpackError> {
    let mut budget = Budget::new(limits);
    let mut total = Notes::default();
    let mut tree = Tree::new(into, exact).map_err(UnpackError::Begin)?;
    thread::scope(|scope| {
        let mut waiting = layers.into_iter().peekable();
        let mut ahead = VecDeque::new();
        loop {
            while ahead.len() < AHEAD
                && let Some(layer) = waiting.next_if(|layer| ahead.is_empty() || !packed::is_large(&layer.file))
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
                    (Some(wanted), Some(found)) if wanted == found => notes,
                    (None, Some(_)) => notes,
                    (Some(wanted), Some(found)) => return Err(UnpackError::Content { name, found, wanted }),
                    // Not all of it came through, so nobody knows what it was.
                    (_, None) => return Err(failed(ArchiveError::Truncated)),
                },
            };
            total.add(notes);
        }
        Ok(())
    })?;
    tree.finish().map_err(UnpackError::Finish)?;
    Ok(total)
}
