//! `image prune`.

use std::{path::Path, process::ExitCode};

use fumehood::{Result, error::Hint, image};

use super::super::message;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let store = super::open_alone(store)?;
    let freed = image::prune(&store).map_err(Hint::into_error)?;
    if args.json {
        return Ok(message::print_json(&freed));
    }
    Ok(message::print(&format!("freed {} ({} blobs, {} trees)\n", super::size(freed.bytes), freed.blobs, freed.trees)))
}
