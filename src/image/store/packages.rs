//! Packages that `run --install` put in directories, by all that they depend on: installed once for all runs that want
//! the same, whole, or not there.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use super::{Freed, Result, Store, StoreError, trees};
use crate::{image::digest::Digest, sys};

/// Nobody removes them as long as this lives.
#[derive(Debug)]
pub struct Installed {
    pub path: PathBuf,
    _lock: File,
}

impl Store {
    fn packages(&self) -> PathBuf {
        self.path.join("packages")
    }

    /// What was installed for this.
    pub fn installed(&self, key: &Digest) -> Result<Option<Installed>> {
        let path = self.packages().join(key.hex());
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            lock => lock.map_err(StoreError::io("open", path.clone()))?,
        };
        sys::fs::lock_shared(lock.as_fd()).map_err(|errno| StoreError::io("lock", path.clone())(errno.into()))?;
        // It may have been removed while we waited for the lock.
        Ok(path.exists().then_some(Installed { path, _lock: lock }))
    }

    /// As that, installed now by `install` if it was not. Of several who want the same, one does it.
    pub fn install<E: From<StoreError>>(
        &self,
        key: &Digest,
        install: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Installed, E> {
        let dir = self.packages();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(StoreError::io("make", dir.clone()))?;
        let waiting = self.path.join("making").join(format!("packages-{}", key.hex()));
        let turn = File::options().create(true).truncate(false).write(true).open(&waiting);
        let turn = turn.map_err(StoreError::io("open", waiting.clone()))?;
        sys::fs::lock(turn.as_fd()).map_err(|errno| StoreError::io("lock", waiting.clone())(errno.into()))?;
        if let Some(installed) = self.installed(key)? {
            return Ok(installed);
        }
        let making = self.making()?;
        install(&making.path)?;
        let whole = making.path.join("packages");
        let path = dir.join(key.hex());
        match fs::rename(&whole, &path) {
            // Somebody was as fast: theirs is as good.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
            kept => kept.map_err(StoreError::io("keep", path))?,
        }
        _ = fs::remove_file(&waiting);
        self.installed(key)?.ok_or_else(|| StoreError::Missing { digest: key.clone() }.into())
    }

    /// Removes all that nobody uses.
    pub(super) fn remove_packages(&self) -> Result<Freed> {
        let mut freed = Freed::default();
        let dir = self.packages();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(lock) = File::open(&path) else { continue };
            if sys::fs::try_lock(lock.as_fd()).is_err() {
                continue;
            }
            freed.bytes += trees::size_of(&path);
            let making = self.making()?;
            let gone = making.path.join("packages");
            fs::rename(&path, &gone).map_err(StoreError::io("remove", path))?;
            super::remove(&gone)?;
        }
        Ok(freed)
    }
}
