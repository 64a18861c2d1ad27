//! Runs that were kept: what they changed is a layer, which can be looked at and become an image's.

use std::io::Write;

use super::{
    ImageError,
    append::{self, Base, Changes, Story},
    epoch,
    kept::Image,
    pack::{self, Compression, KeepError, Notes, Options, PackError, Source},
    store::{Run, RunBase, Store},
    unpack::Limits,
};
use crate::request::SandboxId;

type Result<T> = std::result::Result<T, ImageError>;

/// What is known of a run before what it wrote is.
#[derive(Debug, Clone)]
pub struct Ended {
    pub name: SandboxId,
    pub base: RunBase,
    pub command: Vec<String>,
    /// The most bytes that its files may have, holes included.
    pub most: u64,
}

/// Keeps what `pack` writes as what the run has changed.
pub fn keep(
    store: &Store,
    ended: Ended,
    pack: impl FnOnce(&Options, &mut dyn Write) -> std::result::Result<Notes, PackError>,
) -> Result<Run> {
    let options = Options {
        newest: epoch::source_date_epoch()?,
        limits: Limits { bytes: ended.most, ..Limits::default() },
        ..Options::new(Source::Overlay)
    };
    let packed = pack::keep(store, Compression::Gzip, |to| pack(&options, to).map_err(KeepError::from));
    let (layer, notes) = packed.map_err(|source| ImageError::Keep { name: ended.name.to_string(), source })?;
    let run = Run {
        name: ended.name.to_string(),
        base: ended.base,
        layer,
        entries: notes.entries,
        bytes: notes.bytes,
        command: ended.command,
        kept_ms: u64::try_from(epoch::now()).unwrap_or(0) * 1000,
    };
    match store.add_run(&ended.name, &run)? {
        true => Ok(run),
        false => Err(ImageError::RunTaken { name: run.name }),
    }
}

/// The run of this name.
pub fn find(store: &Store, name: &str) -> Result<Run> {
    let unknown = || ImageError::UnknownRun { name: name.to_owned() };
    let id = SandboxId::parse(name).map_err(|_| unknown())?;
    store.run(&id)?.ok_or_else(unknown)
}

/// Makes an image of what the run stood on and what it changed. It has no name yet.
pub fn commit(
    store: &Store,
    run: &Run,
    changes: &Changes,
    message: Option<String>,
    author: Option<String>,
) -> Result<Image> {
    let base = match &run.base {
        RunBase::Image { manifest, .. } => Image::load(store, manifest)?,
        RunBase::Directory(path) => {
            return Err(ImageError::NoImageBelow { name: run.name.clone(), path: path.clone() });
        }
    };
    let created = epoch::source_date_epoch()?.unwrap_or_else(epoch::now);
    let story = Story { created, by: run.command.join(" "), comment: message, author };
    append::append(store, &Base::Image(&base), Some(&run.layer), changes, &story)
}
