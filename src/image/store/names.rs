//! Names of images: one small file each, replaced whole. One that a power cut has emptied is not there.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{Result, Store, StoreError};
use crate::image::digest::Digest;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// `docker.io/library/python:3.12`: whole, as it is pulled.
    pub name: String,
    /// The manifest, of one platform.
    pub manifest: Digest,
    /// Milliseconds since 1970.
    pub since_ms: u64,
}

impl Store {
    fn name_path(&self, name: &str) -> PathBuf {
        self.path.join("names").join(Digest::of(name.as_bytes()).hex())
    }

    /// Gives the name to an image that is in the store; it may have been another's.
    pub fn set_name(&self, name: &str, manifest: &Digest) -> Result {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let named = Named { name: name.to_owned(), manifest: manifest.clone(), since_ms: since.as_millis() as u64 };
        let path = self.name_path(name);
        let making = self.making()?;
        let unseen = making.path.join("name");
        let written = serde_json::to_vec(&named).map_err(io::Error::from).and_then(|bytes| {
            fs::File::options().write(true).create_new(true).mode(0o600).open(&unseen)?.write_all(&bytes)?;
            fs::rename(&unseen, &path)
        });
        written.map_err(StoreError::io("write", path))
    }

    pub fn name(&self, name: &str) -> Result<Option<Named>> {
        let path = self.name_path(name);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::io("read", path)(source)),
            Ok(bytes) if bytes.is_empty() => Ok(None),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| StoreError::Broken { path, why: error.to_string() }),
        }
    }

    /// All names, in their order.
    pub fn names(&self) -> Result<Vec<Named>> {
        let dir = self.path.join("names");
        let mut all = Vec::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("read", dir.clone()))?.flatten() {
            let path = entry.path();
            let bytes = match fs::read(&path) {
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.map_err(StoreError::io("read", path.clone()))?,
            };
            if bytes.is_empty() {
                continue;
            }
            let named = serde_json::from_slice(&bytes);
            all.push(named.map_err(|error| StoreError::Broken { path, why: error.to_string() })?);
        }
        all.sort_by(|one: &Named, other: &Named| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Whether there was such a name.
    pub fn remove_name(&self, name: &str) -> Result<bool> {
        let path = self.name_path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true).map_err(StoreError::io("remove", path)),
        }
    }
}
