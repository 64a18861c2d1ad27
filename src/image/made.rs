//! Manifests of our own making: of what is imported without one, and of what is built or committed.

use oci_spec::image::{Descriptor, ImageManifestBuilder, MediaType};

use super::{ImageError, digest::Digest, store::Store};

type Result<T> = std::result::Result<T, ImageError>;

/// A manifest, kept.
pub(super) fn put_manifest(store: &Store, config: Descriptor, layers: Vec<Descriptor>) -> Result<Digest> {
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build();
    let bytes = manifest
        .map_err(|error| error.to_string())
        .and_then(|manifest| serde_json::to_vec(&manifest).map_err(|error| error.to_string()));
    let bytes = bytes.map_err(|why| ImageError::Import { what: "manifest".to_owned(), why })?;
    Ok(store.put(&bytes)?)
}

pub(super) fn descriptor(kind: MediaType, size: u64, digest: &Digest) -> Result<Descriptor> {
    let digest: oci_spec::image::Digest = digest.to_string().parse().map_err(|error: oci_spec::OciSpecError| {
        ImageError::Import { what: digest.to_string(), why: error.to_string() }
    })?;
    Ok(Descriptor::new(kind, size, digest))
}
