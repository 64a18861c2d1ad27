//! Packages for one run: installed into a directory of the store when the first run wants them, and shown read-only to
//! all that want the same.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;

use super::{Index, Job, Manager, PackagesError, Result, Shape};
use crate::{
    image::{
        Ready,
        digest::Digest,
        store::{Installed, Store},
    },
    request::Mount,
};

/// Changed when the same packages would be installed otherwise.
const FORMAT: u32 = 1;
const PACKAGES: &str = "/fumehood/packages";
/// Where Node.js looks for modules from any directory, whichever way they are imported; NODE_PATH is for the older way
/// alone.
const NODE_MODULES: &str = "/node_modules";

/// What is to be installed, and for whom.
#[derive(Debug)]
pub struct Install<'a> {
    pub manager: Manager,
    /// The language's program, as it is called in the sandbox.
    pub program: &'a OsStr,
    pub packages: &'a [String],
    pub index: Option<&'a Index>,
    /// None: for this host.
    pub image: Option<Arc<Ready>>,
}

impl Install<'_> {
    /// Those that were installed before.
    pub fn find(&self, store: &Store) -> Result<Option<Installed>> {
        Ok(store.installed(&self.key())?)
    }

    /// Installs them now.
    pub fn install(&self, store: &Store, tell: &mut dyn FnMut(&str)) -> Result<Installed> {
        // What one that was killed has left is in nobody's way but the disk's.
        store.sweep()?;
        store.install(&self.key(), |place| {
            let dir = |name: &str| {
                let path = place.join(name);
                fs::create_dir(&path).map_err(|source| PackagesError::Io { path: path.clone(), source }).map(|()| path)
            };
            let (into, scratch) = (dir("packages")?, dir("scratch")?);
            self.job(&into, &scratch).run(tell)
        })
    }

    fn job<'b>(&'b self, into: &'b Path, scratch: &'b Path) -> Job<'b> {
        Job {
            manager: self.manager,
            program: self.program.to_str().filter(|_| self.manager == Manager::Pip),
            packages: self.packages,
            index: self.index,
            image: self.image.clone(),
            shape: Shape::Apart,
            into,
            scratch,
        }
    }

    /// All that they depend on.
    fn key(&self) -> Digest {
        let whose = match &self.image {
            Some(image) => image.digest().to_string(),
            None => as_it_is(&fs::canonicalize(self.program).unwrap_or_else(|_| PathBuf::from(self.program))),
        };
        let from = match self.index {
            None => super::settings::named_index(self.manager),
            Some(Index::Url(url)) => vec![url.clone()],
            Some(Index::Dir(dir)) => {
                let mut files: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
                files.sort_unstable();
                files.iter().map(|file| as_it_is(file)).collect()
            }
        };
        let mut packages = self.packages.to_vec();
        packages.sort_unstable();
        packages.dedup();
        let program = self.program.to_string_lossy();
        Digest::of(json!([FORMAT, self.manager, program, whose, from, packages]).to_string().as_bytes())
    }
}

/// A file that was replaced or written to is another.
fn as_it_is(path: &Path) -> String {
    let found = fs::metadata(path).map(|found| (found.ino(), found.size(), found.mtime(), found.mtime_nsec()));
    format!("{} {:?}", path.display(), found.ok())
}

/// How a run is shown them: what is mounted, and the variable that leads there.
pub fn shown(manager: Manager, installed: &Installed) -> Result<(Mount, &'static str, OsString)> {
    let (source, target, variable) = match manager {
        Manager::Pip => (installed.path.clone(), PACKAGES, "PYTHONPATH"),
        Manager::Npm => (installed.path.join("node_modules"), NODE_MODULES, "NODE_PATH"),
        Manager::Gem => (installed.path.clone(), PACKAGES, "GEM_PATH"),
    };
    Ok((Mount::new(&source, Path::new(target), false)?.given(), variable, target.into()))
}
