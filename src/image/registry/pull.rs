//! From a registry into the store. The image gets its name when all of it is there and checked; what was fetched of
//! one that was not finished is gone on with the next time.

use std::{
    collections::HashMap,
    io::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use oci_spec::image::{Descriptor, ImageManifest};
use ureq::http::header;

use super::{
    Access, Step,
    answer::header as text_of,
    client::{Endpoint, Payload},
    error::RegistryError,
    patience::{Patience, patiently},
};
use crate::image::{
    Image, ImageError,
    digest::Digest,
    manifest::{self, Document, ManifestError, Wanted},
    reference::Reference,
    store::{Partial, Store, StoreError},
};

type Result<T> = std::result::Result<T, ImageError>;

/// What documents may have: registries take no larger ones (distribution-spec, "Pushing manifests").
const LARGEST_DOCUMENT: u64 = 4 << 20;
const AT_ONCE: usize = 3;
/// An index in an index in an index is somebody's joke.
const DEEPEST: usize = 4;
/// With so much more of a layer, the tries begin anew: a registry that sends a byte at a time is not for ever.
const HEADWAY: u64 = 256 << 10;
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const ACCEPT: [&str; 4] =
    [manifest::OCI_INDEX, manifest::OCI_MANIFEST, manifest::DOCKER_LIST, manifest::DOCKER_MANIFEST];

#[expect(missing_debug_implementations, reason = "whom progress is told has none")]
pub struct Pull<'a> {
    pub reference: &'a Reference,
    /// This machine's, if none is asked for.
    pub platform: Option<Wanted>,
    pub access: &'a Access,
    pub progress: &'a (dyn Fn(Step) + Sync),
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pulled {
    pub name: String,
    pub digest: Digest,
    pub layers: usize,
    /// Of layers; the others were there.
    pub fetched_bytes: u64,
}

pub fn pull(store: &Store, pull: &Pull<'_>) -> Result<Pulled> {
    let pulling = Pulling { store, pull, endpoints: endpoints(pull)?, fetched: AtomicU64::new(0) };
    let name = pull.reference.to_string();
    let (digest, manifest) = pulling.manifest(&name)?;
    let layers = pulling.parts(&manifest)?;
    // It is an image only if it can be read as one.
    let image = Image::load(store, &digest)?;
    pulling.check_platform(&image)?;
    if store.name(&name)?.is_none_or(|named| named.manifest != digest) {
        store.set_name(&name, &digest)?;
    }
    Ok(Pulled { name, digest, layers, fetched_bytes: pulling.fetched.into_inner() })
}

/// The mirrors first, where there are any, and the registry itself.
fn endpoints(pull: &Pull<'_>) -> Result<Vec<Endpoint>> {
    let reference = pull.reference;
    let mut all = Vec::new();
    if reference.registry() == "docker.io" {
        for mirror in &pull.access.mirrors {
            all.push(Endpoint::new(mirror, mirror, reference.repository(), "pull", pull.access)?);
        }
    }
    let (registry, host) = (reference.registry(), reference.host());
    all.push(Endpoint::new(registry, host, reference.repository(), "pull", pull.access)?);
    Ok(all)
}

struct Pulling<'a> {
    store: &'a Store,
    pull: &'a Pull<'a>,
    endpoints: Vec<Endpoint>,
    fetched: AtomicU64,
}

/// A blob on its way.
struct Blob<'a, 's> {
    partial: &'a mut Partial<'s>,
    digest: &'a Digest,
    size: u64,
    /// Another has failed, so that this one is not wanted any more.
    stop: &'a AtomicBool,
}

/// A manifest or an index as it came.
struct Got {
    bytes: Vec<u8>,
    digest: Digest,
    document: Document,
}

impl Pulling<'_> {
    /// From the first that has it; the last one's error is the registry's own.
    fn at_any<T>(&self, mut work: impl FnMut(&Endpoint) -> Result<T>) -> Result<T> {
        let (last, before) = self.endpoints.split_last().ok_or(RegistryError::Stopped)?;
        for endpoint in before {
            match work(endpoint) {
                // What is wrong here is wrong everywhere.
                Err(error @ ImageError::Store(StoreError::Io { .. })) => return Err(error),
                Err(_) => {}
                done => return done,
            }
        }
        work(last)
    }

    /// The manifest of the image that is meant, with the documents on the way to it in the store.
    fn manifest(&self, name: &str) -> Result<(Digest, Box<ImageManifest>)> {
        let reference = self.pull.reference;
        let tag = reference.tag().unwrap_or("latest");
        let mut got = match reference.digest() {
            Some(digest) => self.document(&digest.to_string(), Some(&digest), None)?,
            None => {
                // Asking what it is costs less than asking for it, and registries count that.
                let known = if self.store.name(name)?.is_some() { self.current(tag) } else { None };
                let known = known.filter(|digest| self.store.has_blob(digest));
                self.document(tag, known.as_ref(), None)?
            }
        };
        for _ in 0..DEEPEST {
            let index = match got.document {
                Document::Manifest(manifest) => return Ok((got.digest, manifest)),
                Document::Index(index) => index,
            };
            let wanted = self.pull.platform.clone().unwrap_or_else(Wanted::here);
            let broken = |source| ImageError::Document { what: self.pull.reference.to_string(), source };
            let entry = manifest::choose(&index, &wanted).map_err(broken)?;
            let digest = manifest::digest_of(entry).map_err(broken)?;
            got = self.document(&digest.to_string(), Some(&digest), Some(entry))?;
        }
        let why = ManifestError::Unsupported("indexes too deep in others".to_owned());
        Err(ImageError::Document { what: self.pull.reference.to_string(), source: why })
    }

    /// What the tag stands for now, if the registry says so.
    fn current(&self, tag: &str) -> Option<Digest> {
        let ask = |endpoint: &Endpoint| -> Result<Option<Digest>> {
            let url = endpoint.url(&format!("manifests/{tag}"))?;
            let response = endpoint.send("HEAD", &url, &[("accept", ACCEPT.join(", "))], Payload::None)?;
            let digest = text_of(response.headers(), "docker-content-digest").parse().ok();
            match digest {
                Some(digest) if response.status().is_success() => Ok(Some(digest)),
                _ => Err(endpoint.error("the question for it", response).into()),
            }
        };
        self.at_any(ask).ok().flatten()
    }

    /// A manifest or an index, from the store or the registry.
    fn document(&self, by: &str, wanted: Option<&Digest>, said: Option<&Descriptor>) -> Result<Got> {
        if let Some(wanted) = wanted
            && self.store.has_blob(wanted)
        {
            // What the disk has made of it, the registry can mend.
            if let Ok(bytes) = self.store.read_document(wanted)
                && said.is_none_or(|said| said.size() == bytes.len() as u64)
            {
                let kind = said.map(|said| said.media_type().to_string());
                let document = manifest::read(&bytes, kind.as_deref())
                    .map_err(|source| ImageError::Document { what: wanted.to_string(), source })?;
                return Ok(Got { bytes, digest: wanted.clone(), document });
            }
        }
        let retries = self.pull.access.retries;
        let got = self.at_any(|endpoint| patiently(retries, || fetch_document(endpoint, by, wanted, said)))?;
        let mut incoming = self.store.receive(got.digest.algorithm())?;
        incoming.write_all(&got.bytes).map_err(|error| incoming.failed(error))?;
        incoming.keep_checked(&got.digest, got.bytes.len() as u64)?;
        Ok(got)
    }

    /// The configuration and all layers; how many layers.
    fn parts(&self, manifest: &ImageManifest) -> Result<usize> {
        let broken = |source| ImageError::Document { what: self.pull.reference.to_string(), source };
        let config = manifest.config();
        let kind = config.media_type().to_string();
        if !CONFIGS.contains(&kind.as_str()) {
            let kind = kind.escape_debug().take(100).collect::<String>();
            return Err(broken(ManifestError::Unsupported(format!("it is no image but {kind}"))));
        }
        if config.size() > LARGEST_DOCUMENT {
            return Err(broken(ManifestError::Unsupported(format!("a configuration of {} bytes", config.size()))));
        }
        // One that is there twice is fetched once.
        let mut sizes = HashMap::new();
        let mut missing = Vec::new();
        for part in [config].into_iter().chain(manifest.layers()) {
            let digest = manifest::digest_of(part).map_err(broken)?;
            let there = match self.store.open_blob(&digest) {
                Ok((_, size)) => Some(size),
                Err(StoreError::Missing { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            let before = sizes.insert(digest.clone(), part.size());
            if let Some(found) = there.or(before).filter(|found| *found != part.size()) {
                return Err(StoreError::WrongSize { digest, wanted: part.size(), found }.into());
            }
            if there.is_none() && before.is_none() {
                missing.push((digest, part.size()));
            }
        }
        (self.pull.progress)(Step::Total(missing.iter().map(|(_, size)| size).sum()));
        // The configuration is small and says whether the rest is worth fetching.
        let config_digest = manifest::digest_of(config).map_err(broken)?;
        if let Some(at) = missing.iter().position(|(digest, _)| *digest == config_digest) {
            let (digest, size) = missing.remove(at);
            self.blob(&digest, size, &AtomicBool::new(false))?;
        }
        let read = self.store.read_document(&config_digest)?;
        manifest::read_config(&read, manifest.layers().len()).map_err(broken)?;
        self.layers(&missing)?;
        Ok(manifest.layers().len())
    }

    /// Some at a time. The first that fails ends all.
    fn layers(&self, missing: &[(Digest, u64)]) -> Result<()> {
        let (next, stop, failed) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
        let work = || {
            while let Some((digest, size)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = self.blob(digest, *size, &stop) {
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    // Those that are stopped by the first say nothing new.
                    if !stop.swap(true, Ordering::Relaxed) {
                        *failed = Some(error);
                    }
                    return;
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..missing.len().min(AT_ONCE) {
                scope.spawn(work);
            }
            work();
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// A blob into the store; gone on with, if a part of it is there.
    fn blob(&self, digest: &Digest, size: u64, stop: &AtomicBool) -> Result<()> {
        // What an earlier attempt left may be wrong, and is not this registry's fault.
        for first in [true, false] {
            let Some(mut partial) = self.store.receive_known(digest, size)? else {
                (self.pull.progress)(Step::Bytes(size));
                return Ok(());
            };
            let resumed = partial.length() > 0;
            (self.pull.progress)(Step::Bytes(partial.length()));
            if partial.length() < size {
                let mut blob = Blob { partial: &mut partial, digest, size, stop };
                self.at_any(|endpoint| self.at_one(endpoint, &mut blob))?;
            }
            match partial.keep() {
                Err(StoreError::WrongContent { .. }) if resumed && first => continue,
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(()),
            }
        }
        Ok(())
    }

    fn at_one(&self, endpoint: &Endpoint, blob: &mut Blob<'_, '_>) -> Result<()> {
        let mut patience = Patience::new(self.pull.access.retries);
        let mut before = blob.partial.length();
        loop {
            let Err(error) = self.attempt(endpoint, blob) else { return Ok(()) };
            if blob.partial.length() > before + HEADWAY {
                patience.renew();
            }
            before = blob.partial.length();
            if blob.stop.load(Ordering::Relaxed) {
                return Err(error);
            }
            patience.wait(error)?;
        }
    }

    /// One request for what is missing of it.
    fn attempt(&self, endpoint: &Endpoint, blob: &mut Blob<'_, '_>) -> Result<()> {
        let Blob { partial, digest, size, stop } = blob;
        let (size, stop) = (*size, *stop);
        let what = format!("layer {}", digest.short());
        let start = partial.length();
        let url = endpoint.url(&format!("blobs/{digest}"))?;
        let range = (start > 0).then(|| ("range", format!("bytes={start}-")));
        let response = endpoint.send("GET", &url, range.as_slice(), Payload::None)?;
        let offered = match response.status().as_u16() {
            200 => {
                if start > 0 {
                    partial.start_over()?;
                }
                size
            }
            206 if start > 0 => {
                let range = text_of(response.headers(), header::CONTENT_RANGE.as_str());
                if !continues(&range, start, size) {
                    partial.start_over()?;
                    let range: String = range.escape_debug().take(60).collect();
                    return Err(endpoint
                        .wrong(&what, format!("asked from byte {start} on, it sends `{range}`"))
                        .into());
                }
                size - start
            }
            // It knows of no such place in it: what is here may be of another.
            416 if start > 0 => {
                partial.start_over()?;
                return Err(RegistryError::Network {
                    host: endpoint.registry.clone(),
                    why: "it does not go on with a layer".to_owned(),
                    refused: false,
                }
                .into());
            }
            _ => return Err(endpoint.error(&format!("the request for {what}"), response).into()),
        };
        let encoding = text_of(response.headers(), header::CONTENT_ENCODING.as_str());
        if !matches!(encoding.as_str(), "" | "identity") {
            return Err(endpoint.wrong(&what, "it comes encoded, though that was not asked for").into());
        }
        let length = text_of(response.headers(), header::CONTENT_LENGTH.as_str()).parse::<u64>().ok();
        if let Some(length) = length.filter(|length| *length != offered) {
            let why = format!("it has {offered} bytes to come by its manifest, and the registry sends {length}");
            return Err(endpoint.wrong(&what, why).into());
        }
        endpoint.read::<ImageError>(response, |bytes| {
            if stop.load(Ordering::Relaxed) {
                return Err(RegistryError::Stopped.into());
            }
            partial.add(bytes).map_err(ImageError::from)?;
            self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            (self.pull.progress)(Step::Bytes(bytes.len() as u64));
            Ok(())
        })?;
        if partial.length() < size {
            let why = format!("{what} ended after {} of {size} bytes", partial.length());
            return Err(RegistryError::Network { host: endpoint.registry.clone(), why, refused: false }.into());
        }
        Ok(())
    }

    /// One that was asked for by name must be it; an image without an index is what it is.
    fn check_platform(&self, image: &Image) -> Result<()> {
        let Some(wanted) = &self.pull.platform else { return Ok(()) };
        let there = image.platform();
        let same = (&wanted.os, &wanted.architecture) == (&there.os, &there.architecture)
            && (wanted.variant.is_none() || there.variant.is_none() || wanted.variant == there.variant);
        if same {
            return Ok(());
        }
        let source = ManifestError::NoPlatform { wanted: wanted.to_string(), there: there.to_string() };
        Err(ImageError::Document { what: self.pull.reference.to_string(), source })
    }
}

fn fetch_document(endpoint: &Endpoint, by: &str, wanted: Option<&Digest>, said: Option<&Descriptor>) -> Result<Got> {
    let what = format!("manifest {}", wanted.map_or(by, Digest::short));
    // By digest, if that is known: a tag may move between two questions.
    let by = wanted.map_or_else(|| by.to_owned(), Digest::to_string);
    let url = endpoint.url(&format!("manifests/{by}"))?;
    let response = endpoint.send("GET", &url, &[("accept", ACCEPT.join(", "))], Payload::None)?;
    if response.status().as_u16() != 200 {
        return Err(endpoint.error(&format!("the request for {what}"), response).into());
    }
    let kind = text_of(response.headers(), header::CONTENT_TYPE.as_str());
    let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
    let claimed: Option<Digest> = text_of(response.headers(), "docker-content-digest").parse().ok();
    let mut bytes = Vec::new();
    let too_large = || endpoint.wrong(&what, format!("it has more than {LARGEST_DOCUMENT} bytes"));
    let length = text_of(response.headers(), header::CONTENT_LENGTH.as_str()).parse::<u64>().ok();
    if length.is_some_and(|length| length > LARGEST_DOCUMENT) {
        return Err(too_large().into());
    }
    endpoint.read(response, |part| {
        if (bytes.len() + part.len()) as u64 > LARGEST_DOCUMENT {
            return Err(too_large());
        }
        bytes.extend_from_slice(part);
        Ok(())
    })?;
    if kind == "text/html" {
        return Err(RegistryError::NoRegistry {
            registry: endpoint.registry.clone(),
            repository: endpoint.repository.clone(),
            what: format!("the request for {what}"),
            status: 200,
            kind: "a web page".to_owned(),
        }
        .into());
    }
    let of = |digest: &Digest| {
        let mut hasher = digest.hasher();
        hasher.update(&bytes);
        hasher.finish()
    };
    for promised in [wanted, claimed.as_ref()].into_iter().flatten() {
        let found = of(promised);
        if found != *promised {
            return Err(endpoint.wrong(&what, format!("its digest is to be {promised} and is {found}")).into());
        }
    }
    if let Some(said) = said.filter(|said| said.size() != bytes.len() as u64) {
        let why = format!("it has {} bytes by its index, and {} came", said.size(), bytes.len());
        return Err(endpoint.wrong(&what, why).into());
    }
    let unreadable = |source: ManifestError| match source {
        ManifestError::Malformed { .. } => endpoint.wrong(&what, format!("{source}")).into(),
        source => ImageError::Document { what: format!("{}: {what}", endpoint.repository), source },
    };
    let digest = wanted.cloned().or(claimed).unwrap_or_else(|| Digest::of(&bytes));
    let document = manifest::read(&bytes, Some(&kind)).map_err(unreadable)?;
    if let Some(said) = said {
        manifest::read(&bytes, Some(said.media_type().as_ref())).map_err(unreadable)?;
    }
    Ok(Got { bytes, digest, document })
}

/// Whether it is the rest from `start` on of something of this size: `bytes START-LAST/SIZE`.
pub(super) fn continues(range: &str, start: u64, size: u64) -> bool {
    let parsed = || {
        let (range, whole) = range.strip_prefix("bytes ")?.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let whole = if whole == "*" { Some(size) } else { whole.parse::<u64>().ok() };
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, whole?))
    };
    parsed().is_some_and(|(first, last, whole)| first == start && last.checked_add(1) == Some(size) && whole == size)
}

#[cfg(test)]
mod tests {
    use super::continues;

    #[test]
    fn a_range_is_the_rest_or_wrong() {
        assert!(continues("bytes 5-9/10", 5, 10) && continues("bytes 5-9/*", 5, 10));
        for range in
            ["", "bytes", "bytes 4-9/10", "bytes 5-8/10", "bytes 5-9/11", "5-9/10", "bytes 5-/10", "bytes */10"]
        {
            assert!(!continues(range, 5, 10), "{range}");
        }
        assert!(!continues("bytes 5-18446744073709551615/0", 5, 0));
    }
}
