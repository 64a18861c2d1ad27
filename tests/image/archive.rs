//! Images made by hand, byte by byte.

mod entries;

pub use entries::*;
use fumehood::image::digest::Digest;
use serde_json::json;
use tar::Header;

/// Docker's archive of an image of these layers, plain ones.
pub fn image(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    image_with(name, layers, json!({ "Cmd": ["/bin/true"] }))
}

pub fn image_with(name: &str, layers: &[Vec<u8>], config: serde_json::Value) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string();
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let mut names = Vec::new();
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    };
    for layer in layers {
        let name = format!("{}.tar", Digest::of(layer).hex());
        if !names.contains(&name) {
            add(&name, layer);
        }
        names.push(name);
    }
    add(&config_name, config.as_bytes());
    let saved = json!([{ "Config": config_name, "RepoTags": [name], "Layers": names }]);
    add("manifest.json", saved.to_string().as_bytes());
    archive.into_inner().unwrap()
}
