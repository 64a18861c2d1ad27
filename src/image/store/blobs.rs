//! Blobs: whole and what their name says, or not there.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
};

use super::{Making, Result, Store, StoreError};
use crate::{
    image::digest::{Algorithm, Digest, Hasher},
    sys,
};

/// Of a document that is read into memory: manifests and configurations. Registries take no larger ones.
pub const LARGEST_DOCUMENT: u64 = 4 << 20;

impl Store {
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    #[must_use]
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// As [`Self::has_blob`], and of this size: one that a crash of the machine has emptied is fetched again.
    #[must_use]
    pub fn has_whole_blob(&self, digest: &Digest, size: u64) -> bool {
        self.blob_path(digest).metadata().is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// The blob and its size.
    pub fn open_blob(&self, digest: &Digest) -> Result<(File, u64)> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Missing { digest: digest.clone() })
            }
            Err(source) => Err(StoreError::io("open", path)(source)),
            Ok(file) => {
                let size = file.metadata().map_err(StoreError::io("look at", path))?.len();
                Ok((file, size))
            }
        }
    }

    /// A document, checked once more: a disk may have changed it.
    pub fn read_document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let (file, size) = self.open_blob(digest)?;
        let path = self.blob_path(digest);
        if size > LARGEST_DOCUMENT {
            return Err(StoreError::Broken { path, why: format!("a document of {size} bytes is none") });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(LARGEST_DOCUMENT).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
        let mut hasher = digest.hasher();
        hasher.update(&bytes);
        match hasher.finish() {
            found if found == *digest => Ok(bytes),
            found => Err(StoreError::WrongContent { wanted: digest.clone(), found }),
        }
    }

    /// Keeps bytes that are in memory.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let mut incoming = self.receive(Algorithm::Sha256)?;
        incoming.write_all(bytes).map_err(|source| incoming.failed(source))?;
        Ok(incoming.keep()?.0)
    }

    /// A blob whose name is known when it is here.
    pub fn receive(&self, algorithm: Algorithm) -> Result<Incoming<'_>> {
        let making = self.making()?;
        let path = making.path.join("blob");
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(StoreError::io("make", path))?;
        Ok(Incoming { store: self, file, hasher: Hasher::new(algorithm), making })
    }

    /// A blob whose name is known and that comes in pieces, perhaps of more than one attempt: it is waited for while
    /// somebody else fetches it. `None` when it is there.
    pub fn receive_known(&self, digest: &Digest, size: u64) -> Result<Option<Partial<'_>>> {
        loop {
            if self.has_whole_blob(digest, size) {
                return Ok(None);
            }
            let path = self.path.join("making").join(format!("{}-{}", digest.algorithm().name(), digest.hex()));
            let failed = |action| StoreError::io(action, path.clone());
            let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = file.map_err(failed("open"))?;
            sys::fs::lock(file.as_fd()).map_err(|errno| failed("lock")(errno.into()))?;
            // Whoever had it may have finished it, and it has another name then.
            let is_it = |found: fs::Metadata| {
                use std::os::unix::fs::MetadataExt;
                file.metadata().is_ok_and(|ours| (ours.ino(), ours.dev()) == (found.ino(), found.dev()))
            };
            if fs::symlink_metadata(&path).is_ok_and(is_it) {
                let mut partial =
                    Partial { store: self, file, path, digest: digest.clone(), size, hasher: digest.hasher() };
                partial.take_up()?;
                return Ok(Some(partial));
            }
        }
    }

    /// Removes a blob; how large it was.
    pub(super) fn remove_blob(&self, digest: &Digest) -> Result<u64> {
        let path = self.blob_path(digest);
        let size = fs::metadata(&path).map_or(0, |found| found.len());
        super::remove(&path).map(|()| size)
    }

    pub(super) fn all_blobs(&self) -> Result<Vec<Digest>> {
        let mut all = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.path.join("blobs").join(algorithm.name());
            for entry in fs::read_dir(&dir).map_err(StoreError::io("read", dir.clone()))?.flatten() {
                let name = entry.file_name();
                all.extend(format!("{}:{}", algorithm.name(), name.to_string_lossy()).parse::<Digest>());
            }
        }
        Ok(all)
    }

    fn keep_as(&self, path: &PathBuf, digest: &Digest) -> Result {
        let to = self.blob_path(digest);
        fs::rename(path, &to).map_err(StoreError::io("keep", to))
    }
}

/// A blob on its way in; gone if it is not kept.
#[derive(Debug)]
pub struct Incoming<'a> {
    store: &'a Store,
    making: Making,
    file: File,
    hasher: Hasher,
}

impl Incoming<'_> {
    pub fn failed(&self, source: io::Error) -> StoreError {
        StoreError::io("write", self.making.path.join("blob"))(source)
    }

    /// How many bytes have come.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.hasher.count()
    }

    /// Its digest and size.
    pub fn keep(self) -> Result<(Digest, u64)> {
        let size = self.hasher.count();
        let digest = self.hasher.finish();
        self.store.keep_as(&self.making.path.join("blob"), &digest)?;
        Ok((digest, size))
    }

    /// As [`Self::keep`], if it is what it was said to be.
    pub fn keep_checked(self, wanted: &Digest, size: u64) -> Result {
        let found = self.hasher.count();
        if found != size {
            return Err(StoreError::WrongSize { digest: wanted.clone(), wanted: size, found });
        }
        match self.hasher.clone().finish() {
            found if found == *wanted => self.keep().map(drop),
            found => Err(StoreError::WrongContent { wanted: wanted.clone(), found }),
        }
    }
}

impl Write for Incoming<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob of which a part may be here already. It stays when it is dropped, for the next attempt.
#[derive(Debug)]
pub struct Partial<'a> {
    store: &'a Store,
    file: File,
    path: PathBuf,
    digest: Digest,
    size: u64,
    hasher: Hasher,
}

impl Partial<'_> {
    /// How many bytes are here.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.hasher.count()
    }

    fn take_up(&mut self) -> Result {
        let failed = |path: &PathBuf| StoreError::io("read", path.clone());
        let length = self.file.metadata().map_err(failed(&self.path))?.len();
        if length > self.size {
            return self.start_over();
        }
        let mut buffer = vec![0; 256 << 10];
        loop {
            match self.file.read(&mut buffer).map_err(failed(&self.path))? {
                0 => return Ok(()),
                read => self.hasher.update(&buffer[..read]),
            }
        }
    }

    /// Forgets what is here.
    pub fn start_over(&mut self) -> Result {
        self.hasher = self.digest.hasher();
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(StoreError::io("empty", self.path.clone()))
    }

    /// More than it may have is an error at once: who sends it may never end.
    pub fn add(&mut self, bytes: &[u8]) -> Result {
        let found = self.length() + bytes.len() as u64;
        if found > self.size {
            self.start_over()?;
            return Err(StoreError::WrongSize { digest: self.digest.clone(), wanted: self.size, found });
        }
        self.file.write_all(bytes).map_err(StoreError::io("write", self.path.clone()))?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Keeps it, if it is what it was said to be; else all of it is forgotten.
    pub fn keep(mut self) -> Result {
        let found = self.length();
        if found != self.size {
            return Err(StoreError::WrongSize { digest: self.digest.clone(), wanted: self.size, found });
        }
        match self.hasher.clone().finish() {
            found if found == self.digest => self.store.keep_as(&self.path, &self.digest),
            found => {
                self.start_over()?;
                Err(StoreError::WrongContent { wanted: self.digest.clone(), found })
            }
        }
    }
}
