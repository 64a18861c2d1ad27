//! Runs that were kept: one small file each, by the run's name. What they changed is a blob.

use std::{
    ffi::CString,
    fs,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
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

impl Store {
    fn run_path(&self, name: &SandboxId) -> PathBuf {
        self.path.join("runs").join(name.as_str())
    }

    /// Keeps it; whether its name was free.
    pub fn add_run(&self, name: &SandboxId, run: &Run) -> Result<bool> {
        let path = self.run_path(name);
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
        for entry in fs::read_dir(&dir).map_err(StoreError::io("read", dir.clone()))?.flatten() {
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
