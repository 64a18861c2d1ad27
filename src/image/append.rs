//! A new image from one that is there: one layer more, or other words in its configuration.

use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Map, Value, json};

use super::{
    ImageError,
    kept::Image,
    made::{descriptor, put_manifest},
    manifest::{self, Wanted},
    pack::NewLayer,
    store::Store,
};

type Result<T> = std::result::Result<T, ImageError>;

/// What the new image stands on.
#[derive(Debug, Clone)]
pub enum Base<'a> {
    Image(&'a Image),
    /// Nothing, for this platform.
    Scratch(Wanted),
}

/// What the configuration is to say instead. What is not named here stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Each replaces the one of its name.
    pub env: Vec<(String, String)>,
    /// The arguments that an entrypoint had are not those of another: without `cmd` there are none then.
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub labels: Vec<(String, String)>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<String>,
    pub stop_signal: Option<String>,
}

/// What is told of how it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Story {
    /// Seconds since 1970.
    pub created: i64,
    /// The command that made it.
    pub by: String,
    pub comment: Option<String>,
    pub author: Option<String>,
}

/// Makes the image and keeps it. It has no name yet.
pub fn append(
    store: &Store,
    base: &Base<'_>,
    layer: Option<&NewLayer>,
    changes: &Changes,
    story: &Story,
) -> Result<Image> {
    let (mut config, mut layers) = match base {
        Base::Image(image) => {
            let broken = |source| ImageError::Manifest { digest: image.digest.clone(), source };
            let bytes = store.read_document(&manifest::digest_of(image.manifest.config()).map_err(broken)?)?;
            let config = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
            (config, image.manifest.layers().iter().map(in_oci_words).collect::<Vec<_>>())
        }
        Base::Scratch(platform) => (scratch(platform), Vec::new()),
    };
    let top = config.as_object_mut().ok_or_else(|| malformed("it is no object".to_owned()))?;
    let created = rfc3339(story.created);
    top.insert("created".to_owned(), created.clone().into());
    if let Some(author) = &story.author {
        top.insert("author".to_owned(), author.clone().into());
    }
    let history = array(top, "history")?;
    // One that does not tell of all layers is taken for damaged by some.
    let told = history.iter().filter(|entry| entry.get("empty_layer") != Some(&Value::Bool(true))).count();
    history.extend((told..layers.len()).map(|_| json!({ "comment": "of an image without a history" })));
    let mut entry = json!({ "created": created, "created_by": story.by });
    for (key, value) in [("comment", &story.comment), ("author", &story.author)] {
        if let Some(value) = value {
            entry[key] = value.clone().into();
        }
    }
    if layer.is_none() {
        entry["empty_layer"] = true.into();
    }
    history.push(entry);
    if let Some(layer) = layer {
        let rootfs = object(top, "rootfs")?;
        rootfs.entry("type").or_insert_with(|| "layers".into());
        array(rootfs, "diff_ids")?.push(layer.diff_id.to_string().into());
        layers.push(descriptor(layer.media_type.as_str().into(), layer.size, &layer.digest)?);
    }
    changes.carry_out(object(top, "config")?)?;
    let bytes = config.to_string().into_bytes();
    let config = descriptor(MediaType::ImageConfig, bytes.len() as u64, &store.put(&bytes)?)?;
    Image::load(store, &put_manifest(store, config, layers)?)
}

impl Changes {
    fn carry_out(&self, config: &mut Map<String, Value>) -> Result<()> {
        if !self.env.is_empty() {
            let env = array(config, "Env")?;
            for (name, value) in &self.env {
                let assignment: Value = format!("{name}={value}").into();
                let is_it =
                    |one: &Value| one.as_str().and_then(|one| one.split_once('=')).is_some_and(|(one, _)| one == name);
                match env.iter_mut().find(|one| is_it(one)) {
                    Some(one) => *one = assignment,
                    None => env.push(assignment),
                }
            }
        }
        if let Some(entrypoint) = &self.entrypoint {
            config.insert("Entrypoint".to_owned(), json!(entrypoint));
            config.remove("Cmd");
        }
        if let Some(cmd) = &self.cmd {
            config.insert("Cmd".to_owned(), json!(cmd));
        }
        for (key, value) in [("WorkingDir", &self.workdir), ("User", &self.user), ("StopSignal", &self.stop_signal)] {
            if let Some(value) = value {
                config.insert(key.to_owned(), value.clone().into());
            }
        }
        for (name, value) in &self.labels {
            object(config, "Labels")?.insert(name.clone(), value.clone().into());
        }
        for (key, names) in [("ExposedPorts", &self.exposed_ports), ("Volumes", &self.volumes)] {
            for name in names {
                object(config, key)?.insert(name.clone(), json!({}));
            }
        }
        Ok(())
    }
}

/// `created`, as configurations have it.
#[must_use]
pub fn rfc3339(seconds: i64) -> String {
    let since = std::time::Duration::from_secs(seconds.max(0).unsigned_abs());
    // The last second that the format can tell.
    let since = since.min(std::time::Duration::from_secs(253_402_300_799));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}

fn scratch(platform: &Wanted) -> Value {
    let mut config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    if let Some(variant) = &platform.variant {
        config["variant"] = variant.clone().into();
    }
    config
}

/// A manifest is of one kind: Docker's words for what its layers are become OCI's.
fn in_oci_words(layer: &Descriptor) -> Descriptor {
    let mut layer = layer.clone();
    let kind = match layer.media_type().to_string().as_str() {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => MediaType::ImageLayerGzip,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => MediaType::ImageLayerZstd,
        "application/vnd.docker.image.rootfs.diff.tar" => MediaType::ImageLayer,
        _ => return layer,
    };
    layer.set_media_type(kind);
    layer
}

fn malformed(why: String) -> ImageError {
    ImageError::Import { what: "configuration".to_owned(), why }
}

/// What is at the key, made if it is not there, or null as some write it.
fn object<'a>(of: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Map<String, Value>> {
    let value = of.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut().ok_or_else(|| malformed(format!("{key} is no object")))
}

fn array<'a>(of: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>> {
    let value = of.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().ok_or_else(|| malformed(format!("{key} is no list")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::digest::Digest;
    use crate::image::pack::{Compression, KeepError, keep};

    fn store() -> (tempfile::TempDir, Store) {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let store = Store::open(Some(place.path())).unwrap();
        (place, store)
    }

    fn layer(store: &Store, bytes: &[u8]) -> NewLayer {
        keep(store, Compression::Gzip, |to| {
            std::io::Write::write_all(to, bytes)
                .map_err(|error| KeepError::Pack(super::super::pack::PackError::Write(error)))
        })
        .unwrap()
        .0
    }

    #[test]
    fn layers_and_words_are_added_to_what_was_there() {
        let (_place, store) = store();
        let story = Story { created: 1_700_000_000, by: "make".to_owned(), ..Story::default() };
        let changes = Changes {
            env: vec![("PATH".to_owned(), "/bin".to_owned()), ("A".to_owned(), "1".to_owned())],
            entrypoint: Some(vec!["sh".to_owned()]),
            cmd: Some(vec!["-c".to_owned()]),
            labels: vec![("l".to_owned(), "x".to_owned())],
            exposed_ports: vec!["80/tcp".to_owned()],
            ..Changes::default()
        };
        let base =
            append(&store, &Base::Scratch(Wanted::here()), Some(&layer(&store, b"1")), &changes, &story).unwrap();
        let changes = Changes {
            env: vec![("PATH".to_owned(), "/usr/bin".to_owned())],
            entrypoint: Some(vec!["bash".to_owned()]),
            user: Some("7:8".to_owned()),
            volumes: vec!["/data".to_owned()],
            stop_signal: Some("SIGINT".to_owned()),
            ..Changes::default()
        };
        let told = Story { comment: Some("why".to_owned()), author: Some("me".to_owned()), ..story.clone() };
        let (image, again) = (
            append(&store, &Base::Image(&base), Some(&layer(&store, b"2")), &changes, &told).unwrap(),
            append(&store, &Base::Image(&base), Some(&layer(&store, b"2")), &changes, &told).unwrap(),
        );
        assert_eq!(image.digest, again.digest);
        assert_eq!(image.diff_ids, [Digest::of(b"1"), Digest::of(b"2")]);
        assert_eq!(image.manifest.layers().len(), 2);
        let config = image.config.config().clone().unwrap();
        assert_eq!(config.env().clone().unwrap(), ["PATH=/usr/bin", "A=1"]);
        assert_eq!((config.entrypoint().clone().unwrap(), config.cmd()), (vec!["bash".to_owned()], &None));
        assert_eq!(config.labels().clone().unwrap()["l"], "x");
        assert_eq!((config.user().as_deref(), config.stop_signal().as_deref()), (Some("7:8"), Some("SIGINT")));
        assert_eq!(config.exposed_ports().clone().unwrap(), ["80/tcp"]);
        assert_eq!(config.volumes().clone().unwrap(), ["/data"]);
        let history = image.config.history().clone().unwrap();
        assert_eq!((history.len(), history[1].comment().as_deref()), (2, Some("why")));
        assert_eq!(image.config.created().as_deref(), Some("2023-11-14T22:13:20Z"));
        assert_eq!(image.config.author().as_deref(), Some("me"));
        // Words alone are no layer.
        let words = append(&store, &Base::Image(&image), None, &Changes::default(), &story).unwrap();
        assert_eq!(words.diff_ids, image.diff_ids);
        assert_eq!(words.config.history().clone().unwrap()[2].empty_layer(), Some(true));
    }

    #[test]
    fn what_is_not_understood_stays_and_what_is_missing_is_made_up_for() {
        let (_place, store) = store();
        let first = layer(&store, b"1");
        let config = json!({
            "architecture": "amd64", "os": "linux", "OnlyWeKnow": { "x": 1 },
            "config": { "Healthcheck": { "Test": ["NONE"] }, "Env": null },
            "rootfs": { "type": "layers", "diff_ids": [first.diff_id] },
        })
        .to_string();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest::DOCKER_MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(),
                "digest": store.put(config.as_bytes()).unwrap(),
            },
            "layers": [{
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": first.size, "digest": first.digest,
            }],
        });
        let base = Image::load(&store, &store.put(manifest.to_string().as_bytes()).unwrap()).unwrap();
        let changes = Changes { env: vec![("A".to_owned(), "=".to_owned())], ..Changes::default() };
        let image =
            append(&store, &Base::Image(&base), Some(&layer(&store, b"2")), &changes, &Story::default()).unwrap();
        let bytes = store.read_document(&manifest::digest_of(image.manifest.config()).unwrap()).unwrap();
        let config: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&config["OnlyWeKnow"]["x"], &config["config"]["Env"]), (&json!(1), &json!(["A=="])));
        assert_eq!(config["config"]["Healthcheck"]["Test"], json!(["NONE"]));
        assert_eq!(config["history"].as_array().unwrap().len(), 2);
        assert!(image.manifest.layers().iter().all(|layer| *layer.media_type() == MediaType::ImageLayerGzip));
    }
}
