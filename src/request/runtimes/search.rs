//! The host's directories of programs.
//!
//! A program is taken only from where a sandbox has it at the same path: a link that leads elsewhere
//! (say, to a toolchain under someone's home) would be found here and missing there.

use std::{
    cell::OnceCell,
    ffi::OsString,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

/// The directories of the host where programs may be, and the trees a sandbox sees.
#[derive(Debug)]
pub struct SearchPath {
    /// Globs, in order.
    pub(super) dirs: Vec<String>,
    /// What `dirs` stand for after the plain ones; rarely needed.
    expanded: OnceCell<Vec<PathBuf>>,
    roots: Vec<PathBuf>,
    /// The caller's own `$PATH`, to explain a program that is there but not visible.
    pub(super) callers: Option<OsString>,
}

impl SearchPath {
    /// The host's `/usr` and `/opt`.
    #[must_use]
    pub fn host() -> Self {
        let dirs = ["/usr/local/bin", "/usr/bin", "/usr/local/*/bin", "/opt/*/bin", "/usr/lib/go-*/bin"];
        Self { callers: std::env::var_os("PATH"), ..Self::new(&dirs, &["/usr", "/opt"]) }
    }

    pub(super) fn new(dirs: &[&str], roots: &[&str]) -> Self {
        Self {
            dirs: dirs.iter().map(|dir| (*dir).to_owned()).collect(),
            expanded: OnceCell::new(),
            roots: roots.iter().map(PathBuf::from).collect(),
            callers: None,
        }
    }

    /// The first directory's executable `name`; one that a sandbox cannot see is passed over.
    pub fn find(&self, name: &str) -> Option<String> {
        let plain = self.dirs.iter().filter(|dir| !is_glob(dir)).map(PathBuf::from);
        let visible = |dir: &Path| {
            let path = dir.join(name);
            let real = executable(&path)?;
            self.roots.iter().any(|root| real.starts_with(root)).then(|| path.into_os_string().into_string().ok())?
        };
        plain.into_iter().find_map(|dir| visible(&dir)).or_else(|| {
            let globs = || self.dirs.iter().filter(|dir| is_glob(dir)).flat_map(|dir| expand(dir)).collect();
            self.expanded.get_or_init(globs).iter().find_map(|dir| visible(dir))
        })
    }

    /// Every executable `name` in the search path or the caller's that a sandbox cannot see.
    pub(super) fn outside(&self, name: &str) -> Vec<(PathBuf, PathBuf)> {
        let own = self.dirs.iter().flat_map(|dir| expand(dir));
        let callers = self.callers.iter().flat_map(std::env::split_paths).filter(|dir| dir.is_absolute());
        let mut found: Vec<_> = own
            .chain(callers)
            .filter_map(|dir| executable(&dir.join(name)).map(|real| (dir.join(name), real)))
            .filter(|(_, real)| !self.roots.iter().any(|root| real.starts_with(root)))
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

/// Where the executable at `path` really is.
fn executable(path: &Path) -> Option<PathBuf> {
    let meta = path.metadata().ok()?;
    let can_run = meta.is_file() && meta.permissions().mode() & 0o111 != 0;
    can_run.then(|| path.canonicalize().ok())?
}

fn is_glob(path: &str) -> bool {
    path.contains('*')
}

/// The paths an absolute glob stands for, sorted; one without a `*` stands for itself. `*` matches
/// within one component.
pub(super) fn expand(glob: &str) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/")];
    for part in Path::new(glob).components() {
        let Component::Normal(part) = part else { continue };
        match part.to_str().filter(|part| is_glob(part)) {
            None => paths.iter_mut().for_each(|path| path.push(part)),
            Some(pattern) => {
                let entries = paths.iter().filter_map(|path| path.read_dir().ok()).flatten().flatten();
                paths = entries
                    .filter(|entry| fast_glob::glob_match(pattern, entry.file_name().as_encoded_bytes()))
                    .map(|entry| entry.path())
                    .collect();
                paths.sort();
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_stand_for_what_exists() {
        let dir = tempfile::tempdir().unwrap();
        let path = |path: &str| dir.path().join(path).to_str().unwrap().to_owned();
        for dir in ["php/8.2/cli", "php/8.2/fpm", "php/7.4/cli"] {
            std::fs::create_dir_all(path(dir)).unwrap();
        }
        assert_eq!(expand(&path("php/*/cli")), ["php/7.4/cli", "php/8.2/cli"].map(|dir| PathBuf::from(path(dir))));
        assert_eq!(expand(&path("none/*/x")), Vec::<PathBuf>::new());
    }
}
