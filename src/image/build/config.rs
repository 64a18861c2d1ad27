//! What a built image says of itself: what its base says, and the recipe over it.

use std::{collections::BTreeMap, time::Duration};

use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Map, Value, json};

use super::{BuildError, Result, recipe::Recipe};
use crate::image::{
    Image,
    digest::Digest,
    import::{descriptor, put_manifest},
    manifest::{self, Wanted},
    store::{Built, Store},
};

/// An image as far as it is made.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The configuration's document.
    config: Value,
    layers: Vec<Descriptor>,
    epoch: u64,
}

impl Stage {
    /// Nothing yet.
    pub fn scratch(platform: &Wanted, epoch: u64) -> Self {
        let mut config = json!({"architecture": platform.architecture, "os": platform.os, "config": {},
            "rootfs": {"type": "layers", "diff_ids": []}, "history": []});
        if let Some(variant) = &platform.variant {
            config["variant"] = variant.clone().into();
        }
        Self { config, layers: Vec::new(), epoch }
    }

    pub fn of(store: &Store, base: &Image, epoch: u64) -> Result<Self> {
        let broken = |source| crate::image::ImageError::Manifest { digest: base.digest.clone(), source };
        let bytes = store.read_document(&manifest::digest_of(base.manifest.config()).map_err(broken)?)?;
        // Whole, with what nobody here has a name for.
        let config = serde_json::from_slice(&bytes).map_err(|error| BuildError::Config(error.to_string()))?;
        Ok(Self { config, layers: base.manifest.layers().clone(), epoch })
    }

    pub fn has_layers(&self) -> bool {
        !self.layers.is_empty()
    }

    pub fn push(&mut self, layer: &Built, by: &str) -> Result {
        self.layers.push(descriptor(MediaType::ImageLayerGzip, layer.size, &layer.digest)?);
        list(&mut self.config["rootfs"], "diff_ids").push(layer.diff_id.to_string().into());
        let history = json!({"created": self.created(), "created_by": format!("fumehood: {by}")});
        list(&mut self.config, "history").push(history);
        Ok(())
    }

    fn created(&self) -> String {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(self.epoch);
        humantime::format_rfc3339_seconds(time).to_string()
    }

    /// What the recipe says of how it is run.
    pub fn configure(&mut self, recipe: &Recipe) {
        self.config["created"] = self.created().into();
        let own = object(&mut self.config, "config");
        if !recipe.env.is_empty() {
            let mut env = own.get("Env").and_then(Value::as_array).cloned().unwrap_or_default();
            for (name, value) in &recipe.env {
                let prefix = format!("{}=", name.0);
                env.retain(|known| !known.as_str().is_some_and(|known| known.starts_with(&prefix)));
                env.push(format!("{prefix}{}", value.0).into());
            }
            own.insert("Env".to_owned(), env.into());
        }
        let mut set = |key: &str, value: Option<Value>| value.map(|value| own.insert(key.to_owned(), value));
        set("Entrypoint", recipe.entrypoint.clone().map(Value::from));
        // As engines do: the base's arguments were for the base's program.
        let cmd = recipe.cmd.clone().or_else(|| recipe.entrypoint.is_some().then(Vec::new));
        set("Cmd", cmd.map(Value::from));
        set("WorkingDir", recipe.workdir.as_ref().map(|dir| dir.0.display().to_string().into()));
        set("User", recipe.user.as_ref().map(|user| user.0.clone().into()));
        set("StopSignal", recipe.stop_signal.as_ref().map(|signal| signal.0.clone().into()));
        let volumes = recipe.volumes.iter().map(|volume| volume.0.display().to_string());
        let ports = recipe.expose.iter().map(|port| port.0.clone());
        add(own, "Volumes", volumes.map(|volume| (volume, json!({}))));
        add(own, "ExposedPorts", ports.map(|port| (port, json!({}))));
        let labels: BTreeMap<_, _> =
            recipe.labels.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
        add(own, "Labels", labels.into_iter());
    }

    /// Keeps it as an image without a name.
    pub fn keep(&self, store: &Store) -> Result<Digest> {
        // Its keys are in their order: the same configuration is the same bytes.
        let bytes = self.config.to_string().into_bytes();
        let config = descriptor(MediaType::ImageConfig, bytes.len() as u64, &store.put(&bytes)?)?;
        Ok(put_manifest(store, config, self.layers.clone())?)
    }
}

fn add(to: &mut Map<String, Value>, key: &str, entries: impl Iterator<Item = (String, Value)>) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return;
    }
    let mut all = to.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    all.extend(entries);
    to.insert(key.to_owned(), all.into());
}

/// Images may leave it out, or have null there.
fn object<'a>(of: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let slot = &mut of[key];
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("it was made one"),
    }
}

fn list<'a>(of: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    let slot = &mut of[key];
    if !slot.is_array() {
        *slot = json!([]);
    }
    match slot {
        Value::Array(list) => list,
        _ => unreachable!("it was made one"),
    }
}
