//! Small images, made here.

use std::{collections::BTreeMap, fs, path::Path};

use fumehood::image::{
    digest::Digest,
    manifest::{OCI_INDEX, OCI_MANIFEST},
};
use serde_json::{Value, json};

/// An image: what its digests stand for, and the one of its manifest or index.
#[derive(Debug, Clone, Default)]
pub struct Made {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub root: String,
    pub kind: &'static str,
    /// Digests, the lowest layer first.
    pub layers: Vec<String>,
}

/// Bytes that no two seeds share, and no compressor shortens.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

impl Made {
    /// Layers of one file each.
    pub fn image(seed: u64, sizes: &[usize]) -> Self {
        Self::of("amd64", seed, sizes)
    }

    fn of(architecture: &str, seed: u64, sizes: &[usize]) -> Self {
        let mut made = Self { kind: OCI_MANIFEST, ..Self::default() };
        let mut layers = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            let content = noise(seed * 1000 + number as u64, *size);
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            let mut tar = tar::Builder::new(Vec::new());
            tar.append_data(&mut header, format!("file-{number}"), content.as_slice()).unwrap();
            let bytes = tar.into_inner().unwrap();
            let size = bytes.len();
            let digest = made.put(bytes);
            made.layers.push(digest.clone());
            layers.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size,
            }));
        }
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": made.layers },
        });
        let config = config.to_string().into_bytes();
        let size = config.len();
        let config = made.put(config);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size },
            "layers": layers,
        });
        made.root = made.put(manifest.to_string().into_bytes());
        made
    }

    /// An index of the image for amd64 and one for arm64.
    pub fn index(seed: u64) -> (Self, [Self; 2]) {
        let images = [Self::of("amd64", seed, &[1000]), Self::of("arm64", seed + 1, &[1000])];
        let entry = |image: &Self, architecture| {
            json!({
                "mediaType": OCI_MANIFEST, "digest": image.root, "size": image.blobs[&image.root].len(),
                "platform": { "os": "linux", "architecture": architecture },
            })
        };
        let entries = [entry(&images[0], "amd64"), entry(&images[1], "arm64")];
        let mut made = Self { kind: OCI_INDEX, ..Self::default() };
        made.blobs.extend(images.iter().flat_map(|image| image.blobs.clone()));
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
        made.root = made.put(index.to_string().into_bytes());
        (made, images)
    }

    pub fn put(&mut self, bytes: Vec<u8>) -> String {
        let digest = Digest::of(&bytes).to_string();
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    /// The same with another manifest.
    pub fn with_manifest(&self, change: impl Fn(&mut Value)) -> Self {
        let mut made = self.clone();
        let mut manifest: Value = serde_json::from_slice(&made.blobs[&made.root]).unwrap();
        change(&mut manifest);
        made.root = made.put(manifest.to_string().into_bytes());
        made
    }

    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| self.blobs[layer].len() as u64).sum()
    }

    /// As an OCI layout that skopeo reads, called `it`.
    pub fn write(&self, dir: &Path) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(digest.strip_prefix("sha256:").unwrap()), bytes).unwrap();
        }
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        let entry = json!({
            "mediaType": self.kind, "digest": self.root, "size": self.blobs[&self.root].len(),
            "annotations": { "org.opencontainers.image.ref.name": "it" },
        });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        fs::write(dir.join("index.json"), index.to_string()).unwrap();
    }
}
