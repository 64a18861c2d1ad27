//! Where images are kept: blobs by their digests, unpacked root file systems by what they are made of, and names.
//!
//! ```text
//! blobs/sha256/HEX   manifests, configurations, packed layers; whole, or not there
//! trees/HEX/root     a root file system, by the chain id of its layers (image-spec `config.md`); whole, or not there
//! runs/NAME          one file a run that was kept: what it changed, and of which image
//! names/HEX          one file a name: what it is, and which manifest it stands for
//! builds/HEX         one file a layer that a recipe made: by all that went into it, which blob it is
//! packages/HEX       a directory of packages of `run --install`, by all that they depend on; whole, or not there
//! making/            what is being made, each locked by who makes it
//! ```
//!
//! What has its name is whole: it is made in `making` and renamed. So no lock is needed to read, and a maker that was
//! killed leaves nothing but what [`Store::sweep`] removes. Only removing is kept from meeting using, by a lock that
//! all share and `prune` has alone. All of it is the owner's alone: what has set-id bits in a tree must not be reached
//! by others (CVE-2021-41103).

mod blobs;
mod builds;
mod error;
mod names;
mod outage;
mod packages;
mod runs;
mod trees;

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{image::digest::Digest, sys};
pub use blobs::{Incoming, Partial};
pub use error::{FULL, StoreError};
pub use names::Named;
pub use packages::Installed;
pub use runs::{Pin, Run, RunBase};
pub use trees::{Tree, TreeInfo};

type Result<T = (), E = StoreError> = std::result::Result<T, E>;

/// For how long what a killed download has left is kept, to be gone on with.
const PARTIAL_KEPT: Duration = Duration::from_secs(24 * 3600);

/// The images of one user. Nobody removes anything as long as it lives, if it is [`Store::open`].
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    lock: File,
}

/// What [`Store::sweep`] and `prune` removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Freed {
    pub blobs: u64,
    pub trees: u64,
    pub bytes: u64,
}

impl Freed {
    pub fn add(&mut self, other: Self) {
        self.blobs += other.blobs;
        self.trees += other.trees;
        self.bytes += other.bytes;
    }
}

impl Store {
    /// `path`, or this user's: `$FUMEHOOD_STORE`; else `/var/lib/fumehood` for root, `$XDG_DATA_HOME/fumehood`,
    /// `~/.local/share/fumehood`.
    pub fn default_path() -> Result<PathBuf> {
        let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if let Some(path) = named("FUMEHOOD_STORE") {
            return Ok(path);
        }
        if nix::unistd::geteuid().is_root() && crate::host::in_initial_user_namespace() {
            return Ok("/var/lib/fumehood".into());
        }
        let data = named("XDG_DATA_HOME").or_else(|| Some(named("HOME")?.join(".local/share")));
        data.map(|dir| dir.join("fumehood")).ok_or(StoreError::NoPlace)
    }

    /// For use: shared with all others who use it. Waits while somebody prunes.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        Self::locked(path, false)
    }

    /// For removing: alone. Waits until nobody uses it.
    pub fn open_alone(path: Option<&Path>) -> Result<Self> {
        Self::locked(path, true)
    }

    /// The same store, alone, if nobody else uses it now.
    pub fn try_alone(self) -> Result<Option<Self>> {
        match sys::fs::try_lock(self.lock.as_fd()) {
            Ok(()) => Ok(Some(self)),
            Err(sys::Errno::EWOULDBLOCK) => Ok(None),
            Err(errno) => Err(StoreError::io("lock", self.path.join("lock"))(errno.into())),
        }
    }

    fn locked(path: Option<&Path>, alone: bool) -> Result<Self> {
        let path = match path {
            Some(path) => {
                std::path::absolute(path).map_err(|source| StoreError::io("find", path.to_owned())(source))?
            }
            None => Self::default_path()?,
        };
        let make = |dir: &Path| {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(StoreError::io("make", dir.to_owned()))
        };
        make(&path)?;
        let found = fs::metadata(&path).map_err(StoreError::io("look at", path.clone()))?;
        if found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o077 != 0 {
            return Err(StoreError::NotOurs { path });
        }
        for dir in ["blobs/sha256", "blobs/sha512", "trees", "names", "making"] {
            make(&path.join(dir))?;
        }
        let at = path.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&at);
        let lock = lock.map_err(StoreError::io("open", at.clone()))?;
        let taken = if alone { sys::fs::lock(lock.as_fd()) } else { sys::fs::lock_shared(lock.as_fd()) };
        taken.map_err(|errno| StoreError::io("lock", at)(errno.into()))?;
        Ok(Self { path, lock })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file that nobody sees, for what has to be put by; it is gone when it is closed.
    pub fn scratch(&self) -> Result<File> {
        let dir = self.path.join("making");
        let flags = libc::O_TMPFILE;
        File::options()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .mode(0o600)
            .open(&dir)
            .map_err(StoreError::io("write in", dir))
    }

    /// Removes what is not to be kept, from a store that nobody else uses.
    pub fn remove_all_but(&self, blobs: &HashSet<Digest>, trees: &HashSet<String>) -> Result<Freed> {
        let mut freed = Freed::default();
        for digest in self.all_blobs()?.iter().filter(|digest| !blobs.contains(digest)) {
            freed.bytes += self.remove_blob(digest)?;
            freed.blobs += 1;
        }
        for hex in self.all_trees()?.iter().filter(|hex| !trees.contains(*hex)) {
            freed.add(self.remove_tree(hex)?);
        }
        freed.add(self.remove_packages()?);
        self.forget_builds()?;
        Ok(freed)
    }

    /// Removes what makers that are gone have left. Downloads are kept for a day.
    pub fn sweep(&self) -> Result<Freed> {
        let (mut freed, mut failed) = (Freed::default(), None);
        let dir = self.path.join("making");
        for entry in fs::read_dir(&dir).map_err(StoreError::io("read", dir.clone()))?.flatten() {
            let path = entry.path();
            let Ok(file) = File::open(&path) else { continue };
            // Somebody makes it still.
            if sys::fs::try_lock(file.as_fd()).is_err() {
                continue;
            }
            let Ok(found) = file.metadata() else { continue };
            let age = found.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if found.is_file() && age.is_none_or(|age| age < PARTIAL_KEPT) {
                continue;
            }
            freed.bytes += if found.is_dir() { trees::size_of(&path) } else { found.len() };
            // One that stays keeps nobody from removing the others.
            failed = remove(&path).err().or(failed);
        }
        failed.map_or(Ok(freed), Err)
    }

    /// A directory to work in, of one's own.
    pub fn workshop(&self) -> Result<Workshop> {
        self.making().map(Workshop)
    }

    /// A new directory in `making`, locked.
    fn making(&self) -> Result<Making> {
        for _ in 0..64 {
            let name =
                crate::request::SandboxId::random().map_err(StoreError::io("name something in", self.path.clone()))?;
            let path = self.path.join("making").join(name.as_str());
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(StoreError::io("make", path.clone()))?,
            }
            // A sweeper may be between any two of these: what nobody has locked, nobody makes.
            let dir = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                dir => dir.map_err(StoreError::io("open", path.clone()))?,
            };
            sys::fs::lock(dir.as_fd()).map_err(|errno| StoreError::io("lock", path.clone())(errno.into()))?;
            if path.exists() {
                return Ok(Making { path, _lock: dir });
            }
        }
        Err(StoreError::io("make", self.path.join("making"))(io::ErrorKind::AlreadyExists.into()))
    }
}

/// Removed with all that is in it when it is dropped.
#[derive(Debug)]
pub struct Workshop(Making);

impl Workshop {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

/// Something on its way; removed when dropped, unless it was renamed.
#[derive(Debug)]
struct Making {
    path: PathBuf,
    _lock: File,
}

impl Drop for Making {
    fn drop(&mut self) {
        _ = remove(&self.path);
    }
}

/// Removes a file or a directory with all that is in it, also what its own rights keep its owner from.
pub(super) fn remove(path: &Path) -> Result {
    let failed = StoreError::io("remove", path.to_owned());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.is_dir() => return fs::remove_file(path).map_err(failed),
        Ok(_) => {}
    }
    let mine = !nix::unistd::geteuid().is_root();
    if mine {
        // What keeps its owner out is told by what comes next.
        _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    }
    let emptied = File::open(path).and_then(|dir| match sys::remove::remove_all(dir.as_fd(), mine) {
        // What a build that was killed has left may belong to ids that its user has by grant.
        Err(sys::Errno::EACCES | sys::Errno::EPERM) if mine => {
            crate::launch::remove_granted(dir.as_fd()).map_err(io::Error::other)
        }
        emptied => Ok(emptied?),
    });
    match emptied.and_then(|()| fs::remove_dir(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed),
    }
}
