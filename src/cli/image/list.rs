//! `image list`.

use std::{path::Path, process::ExitCode};

use fumehood::{
    Result,
    error::Hint,
    image::{Image, Reference},
};
use serde::Serialize;

use super::{
    super::message,
    table::{self, Align},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print only the names
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    digest: String,
    platform: String,
    layers: usize,
    packed_bytes: u64,
    /// None where it was not unpacked yet.
    unpacked_bytes: Option<u64>,
    since_ms: u64,
}

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let store = super::open(store)?;
    let names = store.names().map_err(Hint::into_error)?;
    if args.quiet {
        return Ok(message::print(&names.iter().map(|named| format!("{}\n", short(&named.name))).collect::<String>()));
    }
    let mut rows = Vec::new();
    for named in names {
        let image = match Image::load(&store, &named.manifest) {
            Ok(image) => image,
            // The others are still to be seen.
            Err(error) => {
                message::note(&format!("{}: {}", named.name, error.into_error()));
                continue;
            }
        };
        let tree = store.tree(&image.chain_id()).map_err(Hint::into_error)?;
        rows.push(Row {
            name: named.name,
            digest: named.manifest.to_string(),
            platform: image.platform().to_string(),
            layers: image.diff_ids.len(),
            packed_bytes: image.packed_bytes(),
            unpacked_bytes: tree.map(|tree| tree.info.bytes),
            since_ms: named.since_ms,
        });
    }
    if args.json {
        return Ok(message::print_json(&rows));
    }
    let head = [
        ("NAME", Align::Left),
        ("DIGEST", Align::Left),
        ("PLATFORM", Align::Left),
        ("LAYERS", Align::Right),
        ("PACKED", Align::Right),
        ("UNPACKED", Align::Right),
    ];
    let line = |row: &Row| {
        [
            short(&row.name),
            row.digest.split(':').nth(1).unwrap_or_default()[..12].to_owned(),
            row.platform.clone(),
            row.layers.to_string(),
            super::size(row.packed_bytes),
            row.unpacked_bytes.map_or_else(|| "-".to_owned(), super::size),
        ]
    };
    Ok(message::print(&table::text(head, rows.iter().map(line))))
}

fn short(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.short())
}
