//! Images out of the store, in the forms that other tools read: an OCI layout, in a directory or an archive, and
//! Docker's archive.
//!
//! The OCI forms hold the very bytes of the store, so the image keeps its digest. Every blob is hashed once more on its
//! way out: a damaged one is not passed on.

mod sink;

use std::{
    fs::File,
    io::{BufReader, Read, Seek, Write},
};

use oci_spec::image::MediaType;
use serde_json::json;

use super::{
    ImageError,
    digest::{Algorithm, Digest, Hasher, Hashing},
    kept::Image,
    manifest,
    reference::Reference,
    store::{Store, StoreError},
    unpack,
};
pub use sink::Sink;

type Result<T = ()> = std::result::Result<T, ImageError>;

/// As an OCI layout (image-spec `image-layout.md`).
pub fn layout(store: &Store, image: &Image, name: Option<&Reference>, mut to: Sink<impl Write>) -> Result {
    let kind = image.manifest.media_type().clone().unwrap_or(MediaType::ImageManifest);
    let bytes = store.read_document(&image.digest)?;
    let mut entry = json!({ "mediaType": kind, "digest": image.digest, "size": bytes.len() });
    if let Some(name) = name {
        let name = name.to_string();
        // The first is what engines look at, the second what the specification has.
        entry["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name });
    }
    let index = json!({ "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": [entry] });
    // Readers that are not root fail on directories that have no entry of their own.
    to.entry_for_directory("blobs/")?;
    let parts = image.manifest.layers().iter().chain([image.manifest.config()]);
    let mut digests = parts.map(|part| digest_of(image, part)).collect::<Result<Vec<_>>>()?;
    digests.push(image.digest.clone());
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        if digests.iter().any(|digest| digest.algorithm() == algorithm) {
            to.entry_for_directory(&format!("blobs/{}/", algorithm.name()))?;
        }
    }
    to.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    to.document("index.json", index.to_string().as_bytes())?;
    to.document(&blob(&image.digest), &bytes)?;
    let mut done = vec![image.digest.clone()];
    for part in [image.manifest.config()].into_iter().chain(image.manifest.layers()) {
        let digest = digest_of(image, part)?;
        if done.contains(&digest) {
            continue;
        }
        let (file, size) = store.open_blob(&digest)?;
        let mut hashing = Hashing { from: BufReader::with_capacity(BUFFER, file), hasher: digest.hasher() };
        to.file(&blob(&digest), &mut hashing, size)?;
        check(&digest, hashing.hasher)?;
        done.push(digest);
    }
    to.finish()
}

/// As `docker save` writes it: layers are unpacked, and the manifest of the registry is not in it.
pub fn docker(store: &Store, image: &Image, name: Option<&Reference>, mut to: Sink<impl Write>) -> Result {
    let config = digest_of(image, image.manifest.config())?;
    let config_name = format!("{}.json", config.hex());
    let layers: Vec<String> = image.diff_ids.iter().map(|diff_id| format!("{}.tar", diff_id.hex())).collect();
    let tags: Vec<String> = name.filter(|name| name.tag().is_some()).map(Reference::to_string).into_iter().collect();
    let saved = json!([{ "Config": config_name, "RepoTags": tags, "Layers": layers }]);
    to.document(&config_name, &store.read_document(&config)?)?;
    for (at, (layer, diff_id)) in image.layers(store)?.into_iter().zip(&image.diff_ids).enumerate() {
        if image.diff_ids[..at].contains(diff_id) {
            continue;
        }
        // How long it is must be known before it is written.
        let mut plain = store.scratch()?;
        let size = unpacked(layer.file, diff_id, &mut plain)?;
        plain.rewind().map_err(ImageError::io("read", layers[at].as_str()))?;
        to.file(&layers[at], &mut plain, size)?;
    }
    to.document("manifest.json", saved.to_string().as_bytes())?;
    to.finish()
}

const BUFFER: usize = 256 << 10;

/// Unpacks a layer, if it is what the image says; how long it is.
fn unpacked(packed: File, diff_id: &Digest, to: &mut File) -> Result<u64> {
    let failed = || ImageError::io("unpack", diff_id.to_string());
    let most = packed.metadata().map_err(failed())?.len().saturating_mul(unpack::Limits::default().ratio);
    let content = unpack::open_packed(BufReader::with_capacity(BUFFER, packed))
        .map_err(|source| ImageError::Archive { what: diff_id.to_string(), source })?;
    let mut hashing = Hashing { from: content.take(most.max(unpack::RATIO_FROM)), hasher: diff_id.hasher() };
    std::io::copy(&mut hashing, to).map_err(failed())?;
    let size = hashing.hasher.count();
    check(diff_id, hashing.hasher)?;
    Ok(size)
}

fn check(wanted: &Digest, hasher: Hasher) -> Result {
    match hasher.finish() {
        found if found == *wanted => Ok(()),
        found => Err(StoreError::WrongContent { wanted: wanted.clone(), found }.into()),
    }
}

fn digest_of(image: &Image, part: &oci_spec::image::Descriptor) -> Result<Digest> {
    manifest::digest_of(part).map_err(|source| ImageError::Manifest { digest: image.digest.clone(), source })
}

fn blob(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}
