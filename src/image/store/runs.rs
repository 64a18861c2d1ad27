//! Runs that were kept: one small file each, by the run's name. What they changed is a blob.

use std::{
    ffi::CString,
    fs,
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Result, Store, StoreError};
use crate::{
    image::{digest::Digest, pack::NewLayer},
    request::SandboxId,
    sys,
};

/// What a run has changed, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub name: String,
    #[serde(flatten)]
    pub base: RunBase,
    pub layer: NewLayer,
    /// Of the layer: what was written, and removed, with the directories on the way there.
    pub entries: u64,
    /// Of the files that were written, whole.
    pub bytes: u64,
    pub command: Vec<String>,
    /// When it ended, in milliseconds since 1970.
    pub kept_ms: u64,
}

/// What a run stood on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunBase {
    Image {
        manifest: Digest,
        /// As it was asked for.
        name: String,
    },
    Directory(PathBuf),
}

/// As long as it lives, `prune` leaves an image what it is made of.
#[derive(Debug)]
pub struct Pin {
    path: PathBuf,
    _lock: fs::File,
}

impl Drop for Pin {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.path);
    }
}

const PIN: &str = "pin-";

impl Store {
    /// For what will stand on the image of this manifest, and has no name to say so yet.
    pub fn pin(&self, manifest: &Digest) -> Result<Pin> {
        let name = SandboxId::random().map_err(StoreError::io("name something in", self.path.clone()))?;
        let path = self.path.join("making").join(format!("{PIN}{name}"));
        let failed = |action| StoreError::io(action, path.clone());
        let file = fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.map_err(failed("make"))?;
        sys::fs::lock(file.as_fd()).map_err(|errno| failed("lock")(errno.into()))?;
        file.write_all(manifest.to_string().as_bytes()).map_err(failed("write"))?;
        Ok(Pin { path, _lock: file })
    }

    /// The manifests that somebody holds, in a store that nobody else uses.
    pub(in crate::image) fn pins(&self) -> Result<Vec<Digest>> {
        let dir = self.path.join("making");
        let mut all = Vec::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("read", dir.clone()))?.flatten() {
            let path = entry.path();
            if !entry.file_name().to_string_lossy().starts_with(PIN) {
                continue;
            }
            let Ok(file) = fs::File::open(&path) else { continue };
            match sys::fs::try_lock(file.as_fd()) {
                Err(_) => all.extend(fs::read_to_string(&path).ok().and_then(|text| text.parse::<Digest>().ok())),
                // Of one that was killed.
                Ok(()) => _ = fs::remove_file(&path),
            }
        }
        Ok(all)
    }

    fn run_path(&self, name: &SandboxId) -> PathBuf {
        self.path.join("runs").join(name.as_str())
    }

    /// Keeps it; whether its name was free.
    pub fn add_run(&self, name: &SandboxId, run: &Run) -> Result<bool> {
        let path = self.run_path(name);
        // Made when it is needed: a store is opened on the way to every run of an image.
        let dir = self.path.join("runs");
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::io("make", dir)(error));
            }
            _ => {}
        }
        let making = self.making()?;
        let unseen = making.path.join("run");
        let written = serde_json::to_vec(run).map_err(io::Error::from).and_then(|bytes| {
            fs::File::options().write(true).create_new(true).mode(0o600).open(&unseen)?.write_all(&bytes)?;
            rename_new(&unseen, &path)
        });
        match written {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            written => written.map(|()| true).map_err(StoreError::io("write", path)),
        }
    }

    pub fn run(&self, name: &SandboxId) -> Result<Option<Run>> {
        let path = self.run_path(name);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::io("read", path)(source)),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| StoreError::BrokenRun { name: name.to_string(), why: error.to_string() }),
        }
    }

    /// All that can be read, the oldest first, and the names of those that cannot.
    pub fn runs(&self) -> Result<(Vec<Run>, Vec<SandboxId>)> {
        let dir = self.path.join("runs");
        let (mut all, mut broken) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((all, broken)),
            entries => entries.map_err(StoreError::io("read", dir))?,
        };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().and_then(|name| SandboxId::parse(name).ok()) else { continue };
            match self.run(&name) {
                Ok(run) => all.extend(run),
                Err(StoreError::BrokenRun { .. }) => broken.push(name),
                Err(error) => return Err(error),
            }
        }
        all.sort_by(|one: &Run, other: &Run| (one.kept_ms, &one.name).cmp(&(other.kept_ms, &other.name)));
        Ok((all, broken))
    }

    /// Whether there was such a run.
    pub fn remove_run(&self, name: &SandboxId) -> Result<bool> {
        let path = self.run_path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true).map_err(StoreError::io("remove", path)),
        }
    }
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
    sys::fs::rename_new(&text(from)?, &text(to)?).map_err(io::Error::from)
}
