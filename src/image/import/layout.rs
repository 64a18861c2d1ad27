//! OCI image layouts (image-spec `image-layout.md`).

use std::io;

use oci_spec::image::{Descriptor, ImageIndex};

use super::{Import, Imported, Result, name, source::Source};
use crate::image::{
    ImageError,
    digest::Digest,
    manifest::{self, Document},
    store::{Store, StoreError},
};

/// What tools write the image's name into.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// An index in an index in an index is somebody's joke.
const DEEPEST: usize = 4;

pub fn import(store: &Store, source: &Source, import: &Import<'_>) -> Result<Vec<Imported>> {
    let document = |source| ImageError::Document { what: "index.json".to_owned(), source };
    let index = match manifest::read(&source.document("index.json")?, None).map_err(document)? {
        Document::Index(index) => index,
        Document::Manifest(_) => {
            return Err(ImageError::Import { what: "index.json".to_owned(), why: "it is no index".to_owned() });
        }
    };
    let mut done: Vec<Imported> = Vec::new();
    let named = index.manifests().iter().any(|entry| brought(entry).is_some());
    if !named || import.name.is_some() {
        // One image for several platforms, or a choice that a name of the caller's would not settle.
        let chosen = choose(&index, import)?;
        let digest = take_image(store, source, chosen, import, 0)?;
        let names: Vec<String> = brought(chosen).into_iter().collect();
        return Ok(vec![name(store, &digest, &names, import)?]);
    }
    for entry in index.manifests() {
        let Some(name_of) = brought(entry) else { continue };
        // One name for the images of several platforms: the one that fits has it.
        let same = |other: &&Descriptor| brought(other).as_ref() == Some(&name_of);
        if index.manifests().iter().filter(same).count() > 1 {
            let mut group = index.as_ref().clone();
            group.set_manifests(index.manifests().iter().filter(same).cloned().collect());
            if choose(&group, import)? != entry {
                continue;
            }
        }
        let digest = take_image(store, source, entry, import, 0)?;
        let names: Vec<String> = brought(entry).into_iter().collect();
        match done.iter_mut().find(|image| image.digest == digest) {
            Some(image) => image.names.extend(name(store, &digest, &names, import)?.names),
            None => done.push(name(store, &digest, &names, import)?),
        }
    }
    Ok(done)
}

fn choose<'a>(index: &'a ImageIndex, import: &Import<'_>) -> Result<&'a Descriptor> {
    let document = |source| ImageError::Document { what: "index.json".to_owned(), source };
    manifest::choose(index, &import.platform).map_err(document)
}

fn brought(entry: &Descriptor) -> Option<String> {
    let annotations = entry.annotations().as_ref()?;
    NAMES.iter().find_map(|name| annotations.get(*name)).cloned()
}

/// Takes the image that the descriptor stands for, with all its blobs; the digest of its manifest.
fn take_image(store: &Store, source: &Source, entry: &Descriptor, import: &Import<'_>, depth: usize) -> Result<Digest> {
    let digest = digest_of(entry)?;
    let document = |source| ImageError::Document { what: digest.to_string(), source };
    let bytes = source.document(&blob(&digest))?;
    let found = {
        let mut hasher = digest.hasher();
        hasher.update(&bytes);
        hasher.finish()
    };
    if found != digest {
        return Err(StoreError::WrongContent { wanted: digest, found }.into());
    }
    if bytes.len() as u64 != entry.size() {
        return Err(StoreError::WrongSize { digest, wanted: entry.size(), found: bytes.len() as u64 }.into());
    }
    match manifest::read(&bytes, Some(entry.media_type().as_ref())).map_err(document)? {
        Document::Index(_) if depth == DEEPEST => {
            Err(ImageError::Import { what: digest.to_string(), why: "it is an index, too deep in others".to_owned() })
        }
        Document::Index(index) => take_image(store, source, choose(&index, import)?, import, depth + 1),
        Document::Manifest(manifest) => {
            for part in [manifest.config()].into_iter().chain(manifest.layers()) {
                take_blob(store, source, part, import)?;
            }
            let mut incoming = store.receive(digest.algorithm())?;
            io::Write::write_all(&mut incoming, &bytes).map_err(|error| incoming.failed(error))?;
            incoming.keep_checked(&digest, entry.size())?;
            // It is an image only if it can be read as one.
            crate::image::Image::load(store, &digest)?;
            Ok(digest)
        }
    }
}

fn take_blob(store: &Store, source: &Source, part: &Descriptor, import: &Import<'_>) -> Result<()> {
    let digest = digest_of(part)?;
    if store.has_whole_blob(&digest, part.size()) {
        return Ok(());
    }
    let (mut from, _) = source.open(&blob(&digest))?;
    let mut incoming = store.receive(digest.algorithm())?;
    let copied = super::copy(&mut from, &mut incoming, import.progress);
    copied.map_err(|error| incoming.failed(error))?;
    Ok(incoming.keep_checked(&digest, part.size())?)
}

fn digest_of(entry: &Descriptor) -> Result<Digest> {
    manifest::digest_of(entry).map_err(|source| ImageError::Document { what: "index.json".to_owned(), source })
}

fn blob(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}
