//! `image inspect`.

use std::{path::Path, process::ExitCode};

use fumehood::{Result, error::Hint, image::Image};
use serde_json::json;

use super::super::message;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name, or a digest or as much of it as no other begins with
    #[arg(value_name = "IMAGE")]
    image: String,
}

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let store = super::open(store)?;
    let image = Image::find(&store, &args.image).map_err(Hint::into_error)?;
    let names = store.names().map_err(Hint::into_error)?;
    let names: Vec<_> =
        names.into_iter().filter(|named| named.manifest == image.digest).map(|named| named.name).collect();
    let tree = store.tree(&image.chain_id()).map_err(Hint::into_error)?;
    let layers = image.manifest.layers().iter().zip(&image.diff_ids);
    let layers: Vec<_> = layers
        .map(|(layer, diff_id)| {
            json!({
                "digest": layer.digest(), "diff_id": diff_id,
                "media_type": layer.media_type(), "packed_bytes": layer.size(),
            })
        })
        .collect();
    Ok(message::print_json(&json!({
        "digest": image.digest,
        "names": names,
        "platform": image.platform().to_string(),
        "created": image.config.created(),
        "layers": layers,
        "chain_id": image.chain_id(),
        "packed_bytes": image.packed_bytes(),
        "unpacked": tree.map(|tree| tree.info),
        "config": image.config.config(),
    })))
}
