//! Manifests, indexes and configurations, as they are read from bytes nobody vouches for (image-spec 1.1; Docker's
//! "Image Manifest V 2, Schema 2").
//!
//! A document is what its descriptor says it is: one that could be read as a manifest and as an index is refused
//! (CVE-2021-41190).

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Platform};
use serde_json::Value;

use super::digest::Digest;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Layers beyond any image there is: overlayfs and Docker stop at 127.
const MOST_LAYERS: usize = 512;

#[derive(Debug, Clone)]
pub enum Document {
    Manifest(Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("{what}: {why}")]
    Malformed { what: &'static str, why: String },
    #[error("it is said to be `{said}` and says it is `{found}`")]
    MediaType { said: String, found: String },
    #[error("it has layers like a manifest and manifests like an index, so it could be read as either")]
    Both,
    #[error("it is an image of a kind that is not supported: {0}")]
    Unsupported(String),
    #[error("it has no image for {wanted}; there are: {there}")]
    NoPlatform { wanted: String, there: String },
}

impl crate::error::Hint for ManifestError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoPlatform { .. } => Some("choose one of them with --platform".to_owned()),
            _ => None,
        }
    }
}

type Result<T> = std::result::Result<T, ManifestError>;

fn bad(what: &'static str, why: impl ToString) -> ManifestError {
    ManifestError::Malformed { what, why: why.to_string() }
}

/// Reads a manifest or an index. `said` is the media type that a descriptor or a registry gave it.
pub fn read(bytes: &[u8], said: Option<&str>) -> Result<Document> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| bad("manifest", error))?;
    let has = |key: &str| value.get(key).is_some();
    if has("manifests") && (has("layers") || has("config") || has("fsLayers")) {
        return Err(ManifestError::Both);
    }
    let own = value.get("mediaType").map(|kind| kind.as_str().ok_or_else(|| bad("manifest", "mediaType is no text")));
    let own = own.transpose()?;
    let said = said.map(|text| text.split(';').next().unwrap_or_default().trim());
    // What a registry that does not know better says.
    let said =
        said.filter(|said| !matches!(*said, "" | "application/json" | "application/octet-stream" | "text/plain"));
    if let (Some(said), Some(found)) = (said, own)
        && said != found
    {
        return Err(ManifestError::MediaType { said: said.to_owned(), found: found.to_owned() });
    }
    let kind = match said.or(own) {
        Some(kind) => kind.to_owned(),
        None if has("manifests") => OCI_INDEX.to_owned(),
        None => OCI_MANIFEST.to_owned(),
    };
    if value.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        return Err(ManifestError::Unsupported("its schemaVersion is not 2".to_owned()));
    }
    match kind.as_str() {
        OCI_INDEX | DOCKER_LIST => {
            let index = serde_json::from_value(value).map_err(|error| bad("index", error))?;
            Ok(Document::Index(index))
        }
        OCI_MANIFEST | DOCKER_MANIFEST => {
            let manifest: Box<ImageManifest> = serde_json::from_value(value).map_err(|error| bad("manifest", error))?;
            check_manifest(&manifest)?;
            Ok(Document::Manifest(manifest))
        }
        other => Err(ManifestError::Unsupported(other.escape_debug().take(100).collect())),
    }
}

fn check_manifest(manifest: &ImageManifest) -> Result<()> {
    if manifest.layers().len() > MOST_LAYERS {
        return Err(bad("manifest", format!("more than {MOST_LAYERS} layers")));
    }
    digest_of(manifest.config())?;
    for layer in manifest.layers() {
        digest_of(layer)?;
        let kind = layer.media_type().to_string();
        let known = kind.contains(".tar") || kind.ends_with(".layer.v1.tar");
        if !known || kind.contains("encrypted") {
            return Err(ManifestError::Unsupported(format!("a layer of the type {kind}")));
        }
    }
    Ok(())
}

/// A descriptor's digest, of a kind that is known.
pub fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    descriptor.digest().to_string().parse().map_err(|error| bad("descriptor", error))
}

/// A configuration, and the digest that each of its layers must have when unpacked.
pub fn read_config(bytes: &[u8], layers: usize) -> Result<(ImageConfiguration, Vec<Digest>)> {
    let config: ImageConfiguration = serde_json::from_slice(bytes).map_err(|error| bad("configuration", error))?;
    let diff_ids: std::result::Result<Vec<Digest>, _> =
        config.rootfs().diff_ids().iter().map(|digest| digest.parse()).collect();
    let diff_ids = diff_ids.map_err(|error| bad("configuration: rootfs.diff_ids", error))?;
    if diff_ids.len() != layers {
        let why = format!("{} are named, and the manifest has {layers} layers", diff_ids.len());
        return Err(bad("configuration: rootfs.diff_ids", why));
    }
    Ok((config, diff_ids))
}

/// What a stack of layers is called (image-spec `config.md`, "Layer ChainID"). No layers make an empty tree.
#[must_use]
pub fn chain_id(diff_ids: &[Digest]) -> Digest {
    let mut ids = diff_ids.iter();
    let first = ids.next().cloned().unwrap_or_else(|| Digest::of(b""));
    ids.fold(first, |chain, next| Digest::of(format!("{chain} {next}").as_bytes()))
}

/// `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Wanted {
    /// Of this machine.
    #[must_use]
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// `OS/ARCHITECTURE[/VARIANT]`, or the architecture alone.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let fine =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !parts.iter().all(|part| fine(part)) {
            return None;
        }
        let (os, architecture, variant) = match parts.as_slice() {
            [architecture] => ("linux", *architecture, None),
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some((*variant).to_owned())),
            _ => return None,
        };
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Some(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }

    fn fits(&self, platform: &Platform) -> bool {
        platform.os().to_string() == self.os
            && platform.architecture().to_string() == self.architecture
            && self.variant.as_ref().is_none_or(|wanted| platform.variant().as_ref() == Some(wanted))
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// The image of an index that is for the platform: the first that fits, as all engines choose. One that names no
/// platform is for any.
pub fn choose<'a>(index: &'a ImageIndex, wanted: &Wanted) -> Result<&'a Descriptor> {
    let images = || index.manifests().iter().filter(|entry| is_image(entry));
    let fitting = images().find(|entry| entry.platform().as_ref().is_some_and(|platform| wanted.fits(platform)));
    let any = || images().find(|entry| entry.platform().is_none());
    fitting.or_else(any).ok_or_else(|| {
        let there = images().filter_map(|entry| entry.platform().as_ref()).map(|platform| {
            let variant = platform.variant().as_ref().map_or_else(String::new, |variant| format!("/{variant}"));
            format!("{}/{}{variant}", platform.os(), platform.architecture())
        });
        let there = there.take(20).collect::<Vec<_>>().join(", ");
        ManifestError::NoPlatform {
            wanted: wanted.to_string(),
            there: if there.is_empty() { "none".to_owned() } else { there },
        }
    })
}

/// Not an attestation that is kept beside images (BuildKit's are for the platform `unknown/unknown`).
fn is_image(entry: &Descriptor) -> bool {
    let kind = entry.media_type().to_string();
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].contains(&kind.as_str())
        && entry.platform().as_ref().is_none_or(|platform| platform.os().to_string() != "unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(more: &str) -> String {
        let config =
            format!(r#"{{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "{DIGEST}", "size": 0}}"#);
        format!(r#"{{"schemaVersion": 2, "config": {config}, "layers": []{more}}}"#)
    }

    #[test]
    fn a_document_is_one_thing() {
        assert!(matches!(read(manifest("").as_bytes(), None), Ok(Document::Manifest(_))));
        assert!(matches!(read(br#"{"schemaVersion": 2, "manifests": []}"#, None), Ok(Document::Index(_))));
        assert_eq!(read(manifest(r#", "manifests": []"#).as_bytes(), None).unwrap_err(), ManifestError::Both);
        let typed = manifest(&format!(r#", "mediaType": "{OCI_INDEX}""#));
        assert!(matches!(read(typed.as_bytes(), Some(OCI_MANIFEST)), Err(ManifestError::MediaType { .. })));
        assert!(read(typed.as_bytes(), Some(OCI_INDEX)).is_err());
        for text in ["", "[]", "{}", "null", r#"{"schemaVersion": 1, "layers": []}"#, r#"{"schemaVersion": 2}"#] {
            assert!(read(text.as_bytes(), None).is_err(), "{text}");
        }
        assert!(read(manifest("").as_bytes(), Some("text/html")).is_err());
    }

    #[test]
    fn layers_are_of_a_kind_that_can_be_unpacked() {
        let with = |kind: &str, digest: &str| {
            let layers = format!(r#""layers": [{{"mediaType": "{kind}", "digest": "{digest}", "size": 1}}]"#);
            read(manifest("").replace(r#""layers": []"#, &layers).as_bytes(), None)
        };
        assert!(with("application/vnd.oci.image.layer.v1.tar+zstd", DIGEST).is_ok());
        assert!(with("application/vnd.docker.image.rootfs.diff.tar.gzip", DIGEST).is_ok());
        assert!(with("application/vnd.oci.image.layer.v1.tar+encrypted", DIGEST).is_err());
        assert!(with("application/octet-stream", DIGEST).is_err());
        assert!(with("application/vnd.oci.image.layer.v1.tar", "sha256:../../x").is_err());
    }

    #[test]
    fn the_platform_is_chosen() {
        let entry = |platform: &str| {
            format!(r#"{{"mediaType": "{OCI_MANIFEST}", "digest": "{DIGEST}", "size": 1, "platform": {platform}}}"#)
        };
        let entries = [
            entry(r#"{"os": "unknown", "architecture": "unknown"}"#),
            entry(r#"{"os": "linux", "architecture": "arm", "variant": "v7"}"#),
            entry(r#"{"os": "linux", "architecture": "amd64"}"#),
        ];
        let text = format!(r#"{{"schemaVersion": 2, "manifests": [{}]}}"#, entries.join(","));
        let Ok(Document::Index(index)) = read(text.as_bytes(), None) else { panic!("{text}") };
        let chosen = |text| choose(&index, &Wanted::parse(text).unwrap());
        assert_eq!(chosen("linux/amd64").unwrap(), &index.manifests()[2]);
        assert_eq!(chosen("arm").unwrap(), &index.manifests()[1]);
        assert_eq!(chosen("linux/arm/v7").unwrap(), &index.manifests()[1]);
        let error = chosen("linux/arm/v6").unwrap_err().to_string();
        assert!(
            error.contains("linux/amd64") && error.contains("linux/arm/v7") && !error.contains("unknown"),
            "{error}"
        );
        assert!(Wanted::parse("linux//x").is_none() && Wanted::parse("a/b/c/d").is_none());
    }

    #[test]
    fn the_chain_is_the_specifications() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        assert_eq!(chain_id(std::slice::from_ref(&one)), one);
        assert_eq!(chain_id(&[one.clone(), two.clone()]), Digest::of(format!("{one} {two}").as_bytes()));
    }
}
