//! `image history`.

use std::{path::Path, process::ExitCode};

use fumehood::{Result, error::Hint, image::Image};
use serde::Serialize;

use super::{
    super::message,
    table::{self, Align},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name, or a digest or as much of it as no other begins with
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    /// None for a step that made no layer.
    packed_bytes: Option<u64>,
}

/// Of a line: what does not fit is in the JSON.
const COMMAND: usize = 70;

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let store = super::open(store)?;
    let image = Image::find(&store, &args.image).map_err(Hint::into_error)?;
    let mut layers = image.manifest.layers().iter();
    let mut rows = Vec::new();
    for step in image.config.history().iter().flatten() {
        let empty = step.empty_layer().unwrap_or(false);
        let layer = if empty { None } else { layers.next() };
        rows.push(Row {
            created: step.created().clone(),
            created_by: step.created_by().clone(),
            comment: step.comment().clone().filter(|comment| !comment.is_empty()),
            packed_bytes: layer.map(|layer| layer.size()),
        });
    }
    let untold = |layer: &oci_spec::image::Descriptor| Row {
        created: None,
        created_by: None,
        comment: None,
        packed_bytes: Some(layer.size()),
    };
    rows.extend(layers.map(untold));
    rows.reverse();
    if args.json {
        return Ok(message::print_json(&rows));
    }
    let head = [("CREATED", Align::Left), ("PACKED", Align::Right), ("BY", Align::Left)];
    let line = |row: &Row| {
        let by = row.created_by.as_deref().or(row.comment.as_deref()).unwrap_or("-");
        let by: String = by.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).take(COMMAND).collect();
        [
            row.created.as_deref().and_then(|time| time.get(..19)).unwrap_or("-").to_owned(),
            row.packed_bytes.map_or_else(|| "-".to_owned(), super::size),
            message::plain(&by),
        ]
    };
    Ok(message::print(&table::text(head, rows.iter().map(line))))
}
