//! What a layer is going to be: entries by their paths, gathered from the host, and written out so that the same
//! entries are the same bytes.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use super::{BuildError, Result};
use crate::image::{
    Ready,
    digest::{Algorithm, Digest, Hasher, Hashing},
};

/// Paths are without a slash at their beginning. Parents come before what is in them: paths are ordered by their parts.
#[derive(Debug, Default)]
pub struct Contents(BTreeMap<PathBuf, Node>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub mode: u32,
    pub owner: (u32, u32),
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Dir,
    Link(PathBuf),
    Bytes(Vec<u8>),
    /// A file of the host, as it was when it was looked at.
    Host {
        path: PathBuf,
        size: u64,
        digest: Digest,
    },
}

/// How what is taken from the host is changed.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Of files; else what they are executable for decides.
    pub mode: Option<u32>,
    pub owner: (u32, u32),
    /// Leaves out what is made anew at every use.
    pub clean: bool,
}

impl Taken {
    pub const AS_USUAL: Self = Self { mode: None, owner: (0, 0), clean: false };
    pub const CLEAN: Self = Self { mode: None, owner: (0, 0), clean: true };

    fn mode_of(&self, found: &Metadata) -> u32 {
        match self.mode {
            Some(mode) if !found.is_dir() => mode,
            // Not a file's own: a umask or a checkout would show in the digest.
            _ if found.is_dir() || found.mode() & 0o111 != 0 => 0o755,
            _ => 0o644,
        }
    }
}

/// Compiled Python depends on when its source was written.
const MADE_ANEW: [&str; 2] = ["__pycache__", ".pytest_cache"];

impl Contents {
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        self.0.contains_key(relative(path))
    }

    /// Over what was there; two directories are one.
    pub fn add(&mut self, path: &Path, node: Node) {
        let path = relative(path);
        if !path.as_os_str().is_empty() {
            self.0.insert(path.to_owned(), node);
        }
    }

    pub fn add_dir(&mut self, path: &Path, mode: u32) {
        self.add(path, Node { mode, owner: (0, 0), kind: Kind::Dir });
    }

    /// Directories above `path` that are not in here, and of which `there` says that nothing below has them.
    pub fn add_parents(&mut self, path: &Path, there: impl Fn(&Path) -> bool) {
        for above in relative(path).ancestors().skip(1) {
            if !self.has(above) && !above.as_os_str().is_empty() && !there(&Path::new("/").join(above)) {
                self.add_dir(above, 0o755);
            }
        }
    }

    /// A file, a link, or a directory with all that is in it. Nothing is followed.
    pub fn take(&mut self, host: &Path, to: &Path, taken: Taken) -> Result {
        let found = fs::symlink_metadata(host).map_err(BuildError::io("look at", host))?;
        let link = found.is_symlink().then(|| fs::read_link(host)).transpose().map_err(BuildError::io("read", host))?;
        let kind = match link {
            Some(link) => Kind::Link(link),
            None if found.is_dir() => Kind::Dir,
            None if found.is_file() => look_at(host)?,
            None => return Err(BuildError::Special { path: host.to_owned() }),
        };
        let mode = if found.is_symlink() { 0o777 } else { taken.mode_of(&found) };
        self.add(to, Node { mode, owner: taken.owner, kind });
        if found.is_dir() { self.take_entries(host, to, taken) } else { Ok(()) }
    }

    /// What is in a directory, to be below `/`.
    pub fn take_inside(&mut self, host: &Path, taken: Taken) -> Result {
        self.take_entries(host, Path::new(""), taken)
    }

    fn take_entries(&mut self, host: &Path, to: &Path, taken: Taken) -> Result {
        for entry in fs::read_dir(host).map_err(BuildError::io("read", host))? {
            let name = entry.map_err(BuildError::io("read", host))?.file_name();
            if !(taken.clean && MADE_ANEW.iter().any(|known| name == *known)) {
                self.take(&host.join(&name), &to.join(&name), taken)?;
            }
        }
        Ok(())
    }

    /// Adds others where they come to lie in `root`: below where links of it lead, and with directories that it has as it
    /// has them, unless they are `described`.
    pub fn settle(&mut self, others: Self, root: Option<&Ready>, described: bool) -> Result {
        for (path, node) in others.0 {
            let path = Path::new("/").join(path);
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let path = match root {
                Some(root) => root.resolve(above)?.join(name),
                None => path,
            };
            let there = |path: &Path| root.is_some_and(|root| root.has(path));
            self.add_parents(&path, there);
            let known = node.kind == Kind::Dir && (self.has(&path) || there(&path));
            if !known || described {
                self.add(&path, node);
            }
        }
        Ok(())
    }

    /// Every file of the host's that is in here.
    #[must_use]
    pub fn host_files(&self) -> Vec<PathBuf> {
        let files = self.0.values().filter_map(|node| match &node.kind {
            Kind::Host { path, .. } => Some(path.clone()),
            _ => None,
        });
        files.collect()
    }

    /// Of everything that makes the layer what it is.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for (path, node) in &self.0 {
            let (kind, content) = match &node.kind {
                Kind::Dir => ("dir", Vec::new()),
                Kind::Link(to) => ("link", to.as_os_str().as_bytes().to_vec()),
                Kind::Bytes(bytes) => ("file", Digest::of(bytes).to_string().into_bytes()),
                Kind::Host { digest, .. } => ("file", digest.to_string().into_bytes()),
            };
            let head = format!("{kind} {:o} {} {} ", node.mode, node.owner.0, node.owner.1);
            for part in [head.as_bytes(), path.as_os_str().as_bytes(), &content] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        hasher.finish()
    }

    /// The layer's archive; all of it has the one time.
    pub fn write(&self, to: impl Write, epoch: u64) -> Result {
        let mut archive = tar::Builder::new(to);
        for (path, node) in &self.0 {
            let failed = BuildError::io("pack", path);
            let mut header = tar::Header::new_gnu();
            header.set_mode(node.mode);
            header.set_uid(node.owner.0.into());
            header.set_gid(node.owner.1.into());
            header.set_mtime(epoch);
            header.set_size(0);
            let done = match &node.kind {
                Kind::Dir => {
                    header.set_entry_type(tar::EntryType::Directory);
                    archive.append_data(&mut header, path, io::empty())
                }
                Kind::Link(link) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    archive.append_link(&mut header, path, link)
                }
                Kind::Bytes(bytes) => {
                    header.set_size(bytes.len() as u64);
                    archive.append_data(&mut header, path, bytes.as_slice())
                }
                Kind::Host { path: host, size, digest } => {
                    header.set_size(*size);
                    let file = open(host)?;
                    let mut hashing = Hashing { from: file.take(*size), hasher: digest.hasher() };
                    let done = archive.append_data(&mut header, path, &mut hashing);
                    if done.is_ok() && hashing.hasher.finish() != *digest {
                        return Err(BuildError::Changed { path: host.clone() });
                    }
                    done
                }
            };
            done.map_err(failed)?;
        }
        archive.finish().map_err(BuildError::io("pack", "layer"))
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Not through a link, and not waiting for the other end of a pipe.
fn open(path: &Path) -> Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    File::options().read(true).custom_flags(flags).open(path).map_err(BuildError::io("open", path))
}

fn look_at(path: &Path) -> Result<Kind> {
    let mut hashing = Hashing { from: open(path)?, hasher: Hasher::new(Algorithm::Sha256) };
    io::copy(&mut hashing, &mut io::sink()).map_err(BuildError::io("read", path))?;
    let size = hashing.hasher.count();
    Ok(Kind::Host { path: path.to_owned(), size, digest: hashing.hasher.finish() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn written(contents: &Contents) -> Vec<u8> {
        let mut bytes = Vec::new();
        contents.write(&mut bytes, 1000).unwrap();
        bytes
    }

    #[test]
    fn the_same_entries_are_the_same_bytes() {
        let make = |umask: u32| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("d/__pycache__")).unwrap();
            fs::write(dir.path().join("d/__pycache__/x.pyc"), umask.to_string()).unwrap();
            fs::write(dir.path().join("d/run"), "#!/bin/sh\n").unwrap();
            fs::set_permissions(dir.path().join("d/run"), fs::Permissions::from_mode(0o777 & !umask)).unwrap();
            fs::write(dir.path().join(format!("d/{}", "n".repeat(200))), "long").unwrap();
            symlink("/away", dir.path().join("d/link")).unwrap();
            let mut contents = Contents::default();
            contents.add_parents(Path::new("/opt/d"), |_| false);
            contents.take(&dir.path().join("d"), Path::new("/opt/d"), Taken::CLEAN).unwrap();
            (contents.digest(), written(&contents))
        };
        let (one, other) = (make(0o022), make(0o077));
        assert_eq!(one.0, other.0);
        assert!(one.1 == other.1);
        let mut archive = tar::Archive::new(one.1.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.path().unwrap().display().to_string();
                (name, entry.header().mode().unwrap(), entry.header().mtime().unwrap())
            })
            .collect();
        assert_eq!(entries[0], ("opt".to_owned(), 0o755, 1000));
        assert_eq!(entries[2], ("opt/d/link".to_owned(), 0o777, 1000));
        assert_eq!(entries[4], ("opt/d/run".to_owned(), 0o755, 1000));
        assert_eq!(entries.len(), 5);
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "one").unwrap();
        let mut contents = Contents::default();
        contents.take(&path, Path::new("f"), Taken::AS_USUAL).unwrap();
        fs::write(&path, "two").unwrap();
        assert!(matches!(contents.write(io::sink(), 0), Err(BuildError::Changed { .. })));
        fs::write(&path, "1").unwrap();
        assert!(contents.write(io::sink(), 0).is_err());
    }
}
