//! Root file systems, unpacked once for all images that have the same layers.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Freed, Result, Store, StoreError, outage::Mark};
use crate::{
    image::{
        digest::Digest,
        unpack::{self, Layer, Limits},
    },
    sys,
};

/// What is known of an unpacked root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeInfo {
    pub entries: u64,
    pub bytes: u64,
    /// Device files that only root can make.
    pub devices_left_out: u64,
}

/// What is kept beside a tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    #[serde(flatten)]
    info: TreeInfo,
    mark: Option<Mark>,
}

/// An unpacked root file system; nobody removes it as long as this lives.
#[derive(Debug)]
pub struct Tree {
    pub root: PathBuf,
    pub info: TreeInfo,
    _lock: File,
}

impl Store {
    fn tree_path(&self, chain: &Digest) -> PathBuf {
        self.path.join("trees").join(chain.hex())
    }

    /// The tree that these layers make, if it was unpacked and is whole.
    pub fn tree(&self, chain: &Digest) -> Result<Option<Tree>> {
        let path = self.tree_path(chain);
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            lock => lock.map_err(StoreError::io("open", path.clone()))?,
        };
        sys::fs::lock_shared(lock.as_fd()).map_err(|errno| StoreError::io("lock", path.clone())(errno.into()))?;
        let about = path.join("about.json");
        let bytes = match fs::read(&about) {
            // Removed while we waited for the lock.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(StoreError::io("read", about.clone()))?,
        };
        let root = path.join("root");
        // Emptied by a power cut, it says nothing.
        let Ok(found) = serde_json::from_slice::<About>(&bytes) else {
            drop(lock);
            return self.remove_tree(chain.hex()).map(|_| None);
        };
        match &found.mark {
            Some(mark) if !mark.is_of_now() => match mark.renewed(&root) {
                Some(mark) => self.renew(&about, About { mark: Some(mark), ..found.clone() })?,
                None => {
                    drop(lock);
                    return self.remove_tree(chain.hex()).map(|_| None);
                }
            },
            _ => {}
        }
        Ok(Some(Tree { root, info: found.info, _lock: lock }))
    }

    /// Others may read it meanwhile.
    fn renew(&self, path: &Path, about: About) -> Result {
        let making = self.making()?;
        let unseen = making.path.join("about");
        let written = write_about(&unseen, &about).and_then(|()| fs::rename(&unseen, path));
        written.map_err(StoreError::io("write", path.to_owned()))
    }

    /// As [`Store::tree`], unpacked now if it was not. Two who do so at once both succeed.
    pub fn unpacked(
        &self,
        chain: &Digest,
        limits: Limits,
        layers: impl FnOnce() -> Result<Vec<Layer>>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Tree> {
        if let Some(tree) = self.tree(chain)? {
            return Ok(tree);
        }
        // One does it; the others wait for that one, and find it done.
        let waiting = self.path.join("making").join(format!("tree-{}", chain.hex()));
        let turn = File::options().create(true).truncate(false).write(true).open(&waiting);
        let turn = turn.map_err(StoreError::io("open", waiting.clone()))?;
        sys::fs::lock(turn.as_fd()).map_err(|errno| StoreError::io("lock", waiting.clone())(errno.into()))?;
        if let Some(tree) = self.tree(chain)? {
            return Ok(tree);
        }
        let making = self.making()?;
        let whole = making.path.join("tree");
        let root = whole.join("root");
        let make = |path: &Path, mode| {
            DirBuilder::new().mode(mode).create(path).map_err(StoreError::io("make", path.to_owned()))
        };
        make(&whole, 0o700)?;
        make(&root, 0o755)?;
        let into = File::open(&root).map_err(StoreError::io("open", root.clone()))?;
        let notes = unpack::unpack(layers()?, into.into(), limits, progress)?;
        let info = TreeInfo { entries: notes.entries, bytes: notes.bytes, devices_left_out: notes.devices_left_out };
        let about = whole.join("about.json");
        let written = write_about(&about, &About { info, mark: Mark::of(&root) });
        written.map_err(StoreError::io("write", about))?;
        let path = self.tree_path(chain);
        match fs::rename(&whole, &path) {
            // Somebody was as fast, and theirs is the same; or one that is not whole was in use a moment ago.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                if self.tree(chain)?.is_none() {
                    fs::rename(&whole, &path).map_err(StoreError::io("keep", path.clone()))?;
                }
            }
            kept => kept.map_err(StoreError::io("keep", path.clone()))?,
        }
        _ = fs::remove_file(&waiting);
        self.tree(chain)?.ok_or_else(|| StoreError::Missing { digest: chain.clone() })
    }

    /// Removes a tree that nobody uses.
    pub(super) fn remove_tree(&self, hex: &str) -> Result<Freed> {
        let path = self.path.join("trees").join(hex);
        let Ok(lock) = File::open(&path) else { return Ok(Freed::default()) };
        if sys::fs::try_lock(lock.as_fd()).is_err() {
            return Ok(Freed::default());
        }
        let bytes = size_of(&path);
        // Out of sight at once: half a tree is none.
        let making = self.making()?;
        let gone = making.path.join("tree");
        fs::rename(&path, &gone).map_err(StoreError::io("remove", path))?;
        super::remove(&gone)?;
        Ok(Freed { trees: 1, bytes, ..Freed::default() })
    }

    pub(super) fn all_trees(&self) -> Result<Vec<String>> {
        let dir = self.path.join("trees");
        let entries = fs::read_dir(&dir).map_err(StoreError::io("read", dir))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }
}

fn write_about(path: &Path, about: &About) -> io::Result<()> {
    let bytes = serde_json::to_vec(about)?;
    File::create_new(path)?.write_all(&bytes)
}

/// Bytes on the disk, roughly: links count once each.
pub(super) fn size_of(path: &Path) -> u64 {
    let mut sum = 0;
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                left.push(entry.path());
            }
            sum += found.blocks() * 512;
        }
    }
    sum
}
