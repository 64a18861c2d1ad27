//! `image prune`.

use std::{path::Path, process::ExitCode};

use fumehood::{
    Result,
    error::Hint,
    image::{self, Store},
};

use super::super::message;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Says why nothing was removed, if so.
pub(super) fn tell_unreadable(store: &Store) -> Result<()> {
    for name in image::unreadable(store).map_err(Hint::into_error)? {
        message::note(&format!(
            "{name} cannot be read, so what it needs is not known and no blob was removed: pull it again, or \
             `fumehood image rm {name}`"
        ));
    }
    Ok(())
}

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let store = super::open_alone(store)?;
    let freed = image::prune(&store).map_err(Hint::into_error)?;
    tell_unreadable(&store)?;
    if args.json {
        return Ok(message::print_json(&freed));
    }
    Ok(message::print(&format!("freed {} ({} blobs, {} trees)\n", super::size(freed.bytes), freed.blobs, freed.trees)))
}
