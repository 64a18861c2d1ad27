//! Docker's archives: what `docker save` and `podman save` write.

use oci_spec::image::{Descriptor, MediaType};
use serde::Deserialize;

use super::{Import, Imported, Result, name, source::Source};
use crate::image::{
    ImageError,
    digest::{Algorithm, Digest},
    made::{descriptor, put_manifest},
    manifest,
    store::{Store, StoreError},
    unpack,
};

/// One image of manifest.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

const MOST_IMAGES: usize = 1000;

pub fn import(store: &Store, source: &Source, import: &Import<'_>) -> Result<Vec<Imported>> {
    let bad = |why: String| ImageError::Import { what: "manifest.json".to_owned(), why };
    let saved: Vec<Saved> =
        serde_json::from_slice(&source.document("manifest.json")?).map_err(|error| bad(error.to_string()))?;
    if saved.is_empty() || saved.len() > MOST_IMAGES {
        return Err(bad(format!("it names {} images", saved.len())));
    }
    if import.name.is_some() && saved.len() > 1 {
        return Err(bad(format!("it has {} images, and one name was given", saved.len())));
    }
    saved.iter().map(|one| take_image(store, source, one, import)).collect()
}

fn take_image(store: &Store, source: &Source, saved: &Saved, import: &Import<'_>) -> Result<Imported> {
    let document = |source| ImageError::Document { what: saved.config.clone(), source };
    let bytes = source.document(&saved.config)?;
    // Most call the configuration by its digest.
    let stem = saved.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if let Ok(wanted) = format!("sha256:{stem}").parse::<Digest>()
        && wanted != Digest::of(&bytes)
    {
        return Err(StoreError::WrongContent { wanted, found: Digest::of(&bytes) }.into());
    }
    let files = saved.layers.as_deref().unwrap_or_default();
    let (_, diff_ids) = manifest::read_config(&bytes, files.len()).map_err(document)?;
    let config = store.put(&bytes)?;
    let mut layers = Vec::new();
    for (file, diff_id) in files.iter().zip(&diff_ids) {
        layers.push(take_layer(store, source, file, diff_id, import)?);
    }
    let config = descriptor(MediaType::ImageConfig, bytes.len() as u64, &config)?;
    let digest = put_manifest(store, config, layers)?;
    name(store, &digest, saved.repo_tags.as_deref().unwrap_or_default(), import)
}

/// As it is, packed or not. A plain one must be what the configuration says now; a packed one is looked at when it is
/// unpacked.
fn take_layer(store: &Store, source: &Source, file: &str, diff_id: &Digest, import: &Import<'_>) -> Result<Descriptor> {
    let (mut from, size) = source.open(file)?;
    let mut head = [0; 6];
    let mut length = 0;
    while length < head.len() {
        match std::io::Read::read(&mut from, &mut head[length..]).map_err(ImageError::io("read", file))? {
            0 => break,
            read => length += read,
        }
    }
    let packing =
        unpack::packing(&head[..length]).map_err(|source| ImageError::Archive { what: file.to_owned(), source })?;
    let (kind, algorithm) = match packing {
        unpack::Packing::Plain => (MediaType::ImageLayer, diff_id.algorithm()),
        unpack::Packing::Gzip => (MediaType::ImageLayerGzip, Algorithm::Sha256),
        unpack::Packing::Zstd => (MediaType::ImageLayerZstd, Algorithm::Sha256),
    };
    if packing == unpack::Packing::Plain && store.has_whole_blob(diff_id, size) {
        return descriptor(kind, size, diff_id);
    }
    let mut incoming = store.receive(algorithm)?;
    let mut from = std::io::Read::chain(&head[..length], from);
    super::copy(&mut from, &mut incoming, import.progress).map_err(|error| incoming.failed(error))?;
    if packing == unpack::Packing::Plain {
        incoming.keep_checked(diff_id, size)?;
        return descriptor(kind, size, diff_id);
    }
    let (digest, size) = incoming.keep()?;
    descriptor(kind, size, &digest)
}
