//! Layers that were made from a recipe, by all that went into them: made once, as long as the layer is there.

use std::{
    fs::{self, DirBuilder},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
};

use super::{Result, Store, StoreError};
use crate::image::{digest::Digest, pack::NewLayer};

impl Store {
    fn builds(&self) -> PathBuf {
        self.path.join("builds")
    }

    /// The layer that was made of this, if it is still here.
    pub fn built(&self, key: &Digest) -> Result<Option<NewLayer>> {
        let path = self.builds().join(key.hex());
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(StoreError::io("read", path.clone()))?,
        };
        let built = serde_json::from_slice(&bytes);
        let built: NewLayer = built.map_err(|error| StoreError::Broken { path, why: error.to_string() })?;
        Ok(Some(built).filter(|built| self.has_whole_blob(&built.digest, built.size)))
    }

    /// Remembers of what it was made.
    pub fn set_built(&self, key: &Digest, built: &NewLayer) -> Result {
        let dir = self.builds();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(StoreError::io("make", dir.clone()))?;
        let (making, path) = (self.making()?, dir.join(key.hex()));
        let unseen = making.path.join("built");
        let written = serde_json::to_vec(built).map_err(io::Error::from).and_then(|bytes| {
            fs::File::options().write(true).create_new(true).mode(0o600).open(&unseen)?.write_all(&bytes)?;
            fs::rename(&unseen, &path)
        });
        written.map_err(StoreError::io("write", path))
    }

    /// Forgets those of which the layer is gone.
    pub(super) fn forget_builds(&self) -> Result {
        let dir = self.builds();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(StoreError::io("read", dir))?,
        };
        for entry in entries.flatten() {
            let key = format!("sha256:{}", entry.file_name().to_string_lossy()).parse::<Digest>();
            if !key.is_ok_and(|key| matches!(self.built(&key), Ok(Some(_)))) {
                super::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}
