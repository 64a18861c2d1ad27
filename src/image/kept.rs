//! An image that is in the store: its manifest and configuration, read and checked, and what is done with it.

use std::collections::HashSet;

use oci_spec::image::{ImageConfiguration, ImageManifest};

use super::{
    ImageError,
    digest::Digest,
    manifest::{self, Document, Wanted},
    reference::Reference,
    store::{Freed, RunBase, Store, Tree},
    unpack::{Layer, Limits},
};

type Result<T> = std::result::Result<T, ImageError>;

#[derive(Debug, Clone)]
pub struct Image {
    /// Of the manifest: what the image is known by.
    pub digest: Digest,
    pub manifest: Box<ImageManifest>,
    pub config: ImageConfiguration,
    /// Of the unpacked layers, the lowest first.
    pub diff_ids: Vec<Digest>,
}

impl Image {
    /// Reads what the store has. Its layers are looked for when they are needed.
    pub fn load(store: &Store, digest: &Digest) -> Result<Self> {
        let broken = |source| ImageError::Manifest { digest: digest.clone(), source };
        let bytes = store.read_document(digest)?;
        let manifest = match manifest::read(&bytes, None).map_err(broken)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => return Err(ImageError::IsIndex { digest: digest.clone() }),
        };
        let config = store.read_document(&manifest::digest_of(manifest.config()).map_err(broken)?)?;
        let (config, diff_ids) = manifest::read_config(&config, manifest.layers().len()).map_err(broken)?;
        Ok(Self { digest: digest.clone(), manifest, config, diff_ids })
    }

    /// The image of this name, or of this digest, or of the one digest that begins so.
    pub fn find(store: &Store, text: &str) -> Result<Self> {
        let missing = || ImageError::Unknown { name: text.to_owned() };
        // Reading references takes longer than all the rest of a launch.
        if let Some(named) = store.name(&usual(text))? {
            return Self::load(store, &named.manifest);
        }
        if let Ok(reference) = text.parse::<Reference>() {
            if let Some(named) = store.name(&reference.to_string())? {
                return Self::load(store, &named.manifest);
            }
            if let Some(digest) = reference.digest().filter(|digest| store.has_blob(digest)) {
                return Self::load(store, &digest);
            }
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() < 4 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut found: Vec<Digest> = store.names()?.into_iter().map(|named| named.manifest).collect();
        found.retain(|digest| digest.hex().starts_with(hex));
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [one] => Self::load(store, one),
            [] => Err(missing()),
            [one, other, ..] => Err(ImageError::Ambiguous {
                text: text.to_owned(),
                one: one.short().to_owned(),
                other: other.short().to_owned(),
            }),
        }
    }

    /// The layers' packed sizes together.
    #[must_use]
    pub fn packed_bytes(&self) -> u64 {
        self.manifest.layers().iter().map(|layer| layer.size()).sum()
    }

    #[must_use]
    pub fn chain_id(&self) -> Digest {
        manifest::chain_id(&self.diff_ids)
    }

    #[must_use]
    pub fn platform(&self) -> Wanted {
        Wanted {
            os: self.config.os().to_string(),
            architecture: self.config.architecture().to_string(),
            variant: self.config.variant().clone(),
        }
    }

    /// The layers as they lie in the store, to be unpacked.
    pub fn layers(&self, store: &Store) -> Result<Vec<Layer>> {
        let broken = |source| ImageError::Manifest { digest: self.digest.clone(), source };
        let mut layers = Vec::with_capacity(self.diff_ids.len());
        for (descriptor, diff_id) in self.manifest.layers().iter().zip(&self.diff_ids) {
            let digest = manifest::digest_of(descriptor).map_err(broken)?;
            let (file, _) = store.open_blob(&digest)?;
            layers.push(Layer { name: digest.short().to_owned(), file, diff_id: Some(diff_id.clone()) });
        }
        Ok(layers)
    }

    /// Its root file system, unpacked now if it was not.
    pub fn tree(&self, store: &Store, progress: &(dyn Fn(u64) + Sync)) -> Result<Tree> {
        if let Some(tree) = store.tree(&self.chain_id())? {
            return Ok(tree);
        }
        let layers = self.layers(store)?;
        Ok(store.unpacked(&self.chain_id(), Limits::default(), move || Ok(layers), progress)?)
    }

    fn blobs(&self) -> impl Iterator<Item = Digest> {
        let descriptors = self.manifest.layers().iter().chain([self.manifest.config()]);
        descriptors.filter_map(|one| manifest::digest_of(one).ok()).chain([self.digest.clone()])
    }
}

/// What a plain name stands for. It need not be one: it is only looked up among those that are.
fn usual(text: &str) -> String {
    let registry = |first: &str| first == "localhost" || first.contains(['.', ':']);
    let whole = match text.split_once('/') {
        Some((first, _)) if registry(first) => text.to_owned(),
        Some(_) => format!("docker.io/{text}"),
        None => format!("docker.io/library/{text}"),
    };
    let tagged = whole.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    if tagged { whole } else { format!("{whole}:latest") }
}

/// Removes what no named image and no kept run needs, from a store that nobody else uses; nothing but leftovers while one
/// of the images is [`unreadable`].
pub fn prune(store: &Store) -> Result<Freed> {
    let mut freed = store.sweep()?;
    let (mut blobs, mut trees) = (HashSet::new(), HashSet::new());
    for named in store.names()? {
        match Image::load(store, &named.manifest) {
            Ok(image) => {
                trees.insert(image.chain_id().hex().to_owned());
                blobs.extend(image.blobs());
            }
            // What it needs is not known, so anything may be: a pull that mends it finds all that is here.
            Err(_) => return Ok(freed),
        }
    }
    // What a run wrote is a person's work, and of no use without what it stands on.
    for run in store.runs()?.0 {
        blobs.insert(run.layer.digest);
        if let RunBase::Image { manifest, .. } = &run.base
            && let Ok(image) = Image::load(store, manifest)
        {
            trees.insert(image.chain_id().hex().to_owned());
            blobs.extend(image.blobs());
        }
    }
    freed.add(store.remove_all_but(&blobs, &trees)?);
    Ok(freed)
}

/// The names of images that cannot be read. As long as there are any, nothing is pruned.
pub fn unreadable(store: &Store) -> Result<Vec<String>> {
    let mut names = store.names()?;
    names.retain(|named| Image::load(store, &named.manifest).is_err());
    Ok(names.into_iter().map(|named| named.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_is_what_the_reference_is() {
        for text in
            ["a", "a:1", "a/b", "a/b:1", "localhost/a", "localhost:5000/a/b:2", "x.org/a", "docker.io/library/a"]
        {
            assert_eq!(usual(text), text.parse::<Reference>().unwrap().to_string());
        }
    }
}
