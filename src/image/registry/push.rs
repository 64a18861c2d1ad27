//! From the store to a registry: what it lacks of the image, then the manifest, which makes it one.

use std::fs::File;

use serde_json::Value;
use ureq::http::header;

use super::{
    Access, Step,
    answer::header as text_of,
    client::{Endpoint, Payload},
    error::RegistryError,
    patience::patiently,
};
use crate::image::{
    Image, ImageError,
    digest::Digest,
    manifest,
    reference::Reference,
    store::{Store, StoreError},
};

type Result<T> = std::result::Result<T, ImageError>;

#[expect(missing_debug_implementations, reason = "whom progress is told has none")]
pub struct Push<'a> {
    pub image: &'a Image,
    /// Where to, and what it is called there.
    pub reference: &'a Reference,
    pub access: &'a Access,
    pub progress: &'a (dyn Fn(Step) + Sync),
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pushed {
    pub name: String,
    pub digest: Digest,
    pub layers: usize,
    /// Of layers and the configuration; the others were there, or in another repository of the registry.
    pub sent_bytes: u64,
}

pub fn push(store: &Store, push: &Push<'_>) -> Result<Pushed> {
    let (reference, image) = (push.reference, push.image);
    let endpoint =
        Endpoint::new(reference.registry(), reference.host(), reference.repository(), "pull,push", push.access)?;
    if let Some(digest) = reference.digest().filter(|digest| *digest != image.digest) {
        let why = format!("the image is {}", image.digest);
        return Err(endpoint.wrong(&format!("name {digest}"), why).into());
    }
    let broken = |source| ImageError::Manifest { digest: image.digest.clone(), source };
    let mut parts: Vec<(Digest, File, u64)> = Vec::new();
    for part in image.manifest.layers().iter().chain([image.manifest.config()]) {
        let digest = manifest::digest_of(part).map_err(broken)?;
        if parts.iter().any(|(known, ..)| *known == digest) {
            continue;
        }
        let (file, found) = store.open_blob(&digest)?;
        if found != part.size() {
            return Err(StoreError::WrongSize { digest, wanted: part.size(), found }.into());
        }
        parts.push((digest, file, found));
    }
    let pushing = Pushing { push, endpoint, elsewhere: elsewhere(store, reference)? };
    (push.progress)(Step::Total(parts.iter().map(|(_, _, size)| size).sum()));
    let mut sent_bytes = 0;
    for (digest, file, size) in &parts {
        let sent = patiently(push.access.retries, || pushing.blob(digest, file, *size))?;
        sent_bytes += if sent { *size } else { 0 };
        (push.progress)(Step::Bytes(*size));
    }
    let bytes = store.read_document(&image.digest)?;
    patiently(push.access.retries, || pushing.manifest(&bytes))?;
    let name = reference.to_string();
    Ok(Pushed { name, digest: image.digest.clone(), layers: image.manifest.layers().len(), sent_bytes })
}

/// Other repositories of the registry that our images are named by, and what is in them.
fn elsewhere(store: &Store, reference: &Reference) -> Result<Vec<(String, Vec<Digest>)>> {
    let mut found = Vec::new();
    for named in store.names()? {
        let Ok(other) = named.name.parse::<Reference>() else { continue };
        if other.registry() != reference.registry() || other.repository() == reference.repository() {
            continue;
        }
        // One that cannot be read is nowhere.
        if let Ok(image) = Image::load(store, &named.manifest) {
            let parts = image.manifest.layers().iter().chain([image.manifest.config()]);
            let parts = parts.filter_map(|part| manifest::digest_of(part).ok());
            found.push((other.repository().to_owned(), parts.collect()));
        }
    }
    Ok(found)
}

struct Pushing<'a> {
    push: &'a Push<'a>,
    endpoint: Endpoint,
    elsewhere: Vec<(String, Vec<Digest>)>,
}

impl Pushing<'_> {
    /// Whether it had to be sent.
    fn blob(&self, digest: &Digest, file: &File, size: u64) -> Result<bool> {
        let endpoint = &self.endpoint;
        let what = format!("layer {}", digest.short());
        let url = endpoint.url(&format!("blobs/{digest}"))?;
        let response = endpoint.send("HEAD", &url, &[], Payload::None)?;
        match response.status().as_u16() {
            200 => return Ok(false),
            // One that does not say may still take it.
            404 | 405 => {}
            _ => return Err(endpoint.error(&format!("the question for {what}"), response).into()),
        }
        let mut url = endpoint.url("blobs/uploads/")?;
        if let Some((from, _)) = self.elsewhere.iter().find(|(_, parts)| parts.contains(digest)) {
            endpoint.also(format!("repository:{from}:pull"));
            url = url.with("mount", &digest.to_string()).with("from", from);
        }
        let response = endpoint.send("POST", &url, &[], Payload::Bytes(&[]))?;
        let place = match response.status().as_u16() {
            201 => return Ok(false),
            202 => endpoint.place(&url, &text_of(response.headers(), header::LOCATION.as_str()))?,
            _ => return Err(endpoint.error(&format!("the start of {what}"), response).into()),
        };
        let kind = [("content-type", "application/octet-stream".to_owned())];
        let place = place.with("digest", &digest.to_string());
        let response = endpoint.send("PUT", &place, &kind, Payload::File(file, size))?;
        if response.status().as_u16() != 201 {
            return Err(endpoint.error(&what, response).into());
        }
        self.check(&what, digest, &text_of(response.headers(), "docker-content-digest"))?;
        Ok(true)
    }

    fn manifest(&self, bytes: &[u8]) -> Result<()> {
        let (endpoint, image) = (&self.endpoint, self.push.image);
        let what = format!("manifest {}", image.digest.short());
        let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let kind = value.get("mediaType").and_then(Value::as_str).unwrap_or(manifest::OCI_MANIFEST);
        let by = match (self.push.reference.tag(), self.push.reference.digest()) {
            (Some(tag), _) => tag.to_owned(),
            (None, _) => image.digest.to_string(),
        };
        let url = endpoint.url(&format!("manifests/{by}"))?;
        let response = endpoint.send("PUT", &url, &[("content-type", kind.to_owned())], Payload::Bytes(bytes))?;
        if !matches!(response.status().as_u16(), 200..=202) {
            return Err(endpoint.error(&what, response).into());
        }
        Ok(self.check(&what, &image.digest, &text_of(response.headers(), "docker-content-digest"))?)
    }

    /// What the registry says that it has is what it was given.
    fn check(&self, what: &str, sent: &Digest, said: &str) -> std::result::Result<(), RegistryError> {
        // It may know it by another kind of digest, and need not say anything.
        match said.parse::<Digest>() {
            Ok(said) if said.algorithm() == sent.algorithm() && said != *sent => {
                Err(self.endpoint.wrong(what, format!("it was sent as {sent} and is kept as {said}")))
            }
            _ => Ok(()),
        }
    }
}
