//! Runs that were kept: `run --keep`, `diff`, `commit`, `rm`.

mod commit;
mod diff;
mod remove;

use std::path::{Path, PathBuf};

use fumehood::{
    Error, Result,
    error::Hint,
    image::{
        Image, ImageError, Store, epoch, runs,
        store::{Run, RunBase},
    },
    launch::Upper,
    report::Kept,
};

use super::{low::Low, ps, usage::nearest};

pub use commit::{Args as CommitArgs, run as commit};
pub use diff::{Args as DiffArgs, run as diff};
pub use remove::{Args as RemoveArgs, run as remove};

/// Where a run that is going on will be kept. Nobody prunes the image that it stands on, which [`Low::pin`] holds.
#[derive(Debug)]
pub struct Keeping {
    store: PathBuf,
    image: Option<String>,
    most: u64,
}

impl Keeping {
    /// Before the program runs: what cannot be kept then is not to be done in vain.
    pub fn prepare(low: &Low) -> Result<Self> {
        let store = open(low.store.as_deref())?;
        if let Some(name) = &low.id
            && store.run(name).map_err(Hint::into_error)?.is_some()
        {
            return Err(ImageError::RunTaken { name: name.to_string() }.into_error());
        }
        // One that is no number is told now.
        epoch::source_date_epoch().map_err(Hint::into_error)?;
        let path = store.path().to_owned();
        Ok(Self { store: path, image: low.image.clone(), most: low.limits.sandbox.get() })
    }

    pub fn keep(&self, upper: &Upper<'_>) -> Result<Kept> {
        let store = open(Some(&self.store))?;
        let name = upper.id();
        let base = match (upper.image().and_then(|digest| digest.parse().ok()), upper.below()) {
            (Some(manifest), _) => {
                // Somebody may have taken it away by hand.
                Image::load(&store, &manifest).map_err(Hint::into_error)?;
                RunBase::Image { manifest, name: self.image.clone().unwrap_or_default() }
            }
            (None, Some(dir)) => RunBase::Directory(dir.to_owned()),
            (None, None) => return Err(Error::new(format!("run `{name}` stands on nothing"))),
        };
        let command = upper.command().to_vec();
        let ended = runs::Ended { name: name.clone(), base, command, most: self.most };
        let kept = runs::keep(&store, ended, |options, to| upper.pack(options, to)).map_err(Hint::into_error)?;
        Ok(Kept { name: kept.name, layer: kept.layer.digest.to_string(), packed_bytes: kept.layer.size })
    }
}

fn open(store: Option<&Path>) -> Result<Store> {
    Store::open(store).map_err(Hint::into_error)
}

/// The run of this name, or of the one name that begins so.
fn find(store: &Store, name: &str) -> Result<Run> {
    let error = match runs::find(store, name) {
        Ok(run) => return Ok(run),
        Err(error @ ImageError::UnknownRun { .. }) => error.into_error(),
        Err(error) => return Err(error.into_error()),
    };
    let (all, _) = store.runs().map_err(Hint::into_error)?;
    let mut beginning = all.iter().filter(|run| !name.is_empty() && run.name.starts_with(name));
    match (beginning.next(), beginning.next()) {
        (Some(run), None) => return Ok(run.clone()),
        (Some(one), Some(other)) => {
            return Err(Error::new(format!("`{name}` is the beginning of several runs"))
                .with_hint(format!("give more of it: {}, {}", one.name, other.name)));
        }
        (None, _) => {}
    }
    if ps::running()?.iter().any(|record| record.id == name) {
        return Err(Error::new(format!("run `{name}` is still running"))
            .with_hint("what it has changed is known when it has ended, if it was started with --keep"));
    }
    Err(match nearest(name, all.iter().map(|run| run.name.as_str())) {
        Some(near) => Error::new(error.message()).with_hint(format!("did you mean `{near}`?")),
        None => error,
    })
}
