//! What a layer is going to be: entries by their paths, gathered from the host, and written out so that the same
//! entries are the same bytes.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::CString,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use super::{BuildError, Result};
use crate::{
    image::{
        Ready,
        digest::{Algorithm, Digest, Hasher, Hashing},
        unpack::Budget,
    },
    sys,
};

/// Paths are without a slash at their beginning. Parents come before what is in them: paths are ordered by their parts.
#[derive(Debug, Default)]
pub struct Contents {
    nodes: BTreeMap<PathBuf, Node>,
    /// What may still be taken: what cannot be unpacked is not packed.
    budget: Budget,
    /// Files with several names, by device and inode: each is read once.
    read: HashMap<(u64, u64), Kind>,
}

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
/// In a layer a name that begins so removes another (image-spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

impl Contents {
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        self.nodes.contains_key(relative(path))
    }

    /// Over what was there; two directories are one.
    pub fn add(&mut self, path: &Path, node: Node) -> Result {
        let path = relative(path);
        if path.iter().any(|part| part.as_bytes().starts_with(WHITEOUT)) {
            return Err(BuildError::Whiteout { path: path.to_owned() });
        }
        if !path.as_os_str().is_empty() {
            self.nodes.insert(path.to_owned(), node);
        }
        Ok(())
    }

    pub fn add_dir(&mut self, path: &Path, mode: u32) -> Result {
        self.add(path, Node { mode, owner: (0, 0), kind: Kind::Dir })
    }

    /// Directories above `path` that are not in here, and of which `there` says that nothing below has them.
    pub fn add_parents(&mut self, path: &Path, there: impl Fn(&Path) -> bool) -> Result {
        for above in relative(path).ancestors().skip(1) {
            if !self.has(above) && !above.as_os_str().is_empty() && !there(&Path::new("/").join(above)) {
                self.add_dir(above, 0o755)?;
            }
        }
        Ok(())
    }

    /// A file, a link, or a directory with all that is in it. Nothing is followed.
    pub fn take(&mut self, host: &Path, to: &Path, taken: Taken) -> Result {
        let opened = open(host, libc::O_PATH | libc::O_NOFOLLOW)?;
        let found = opened.metadata().map_err(BuildError::io("look at", host))?;
        self.count(host, to, &found)?;
        let link = found.is_symlink().then(|| nix::fcntl::readlinkat(&opened, c"")).transpose();
        let kind = match link.map_err(|errno| BuildError::io("read", host)(errno.into()))? {
            Some(link) => Kind::Link(link.into()),
            None if found.is_dir() => Kind::Dir,
            None if found.is_file() => self.read(host, &found)?,
            None => return Err(BuildError::Special { path: host.to_owned() }),
        };
        let mode = if found.is_symlink() { 0o777 } else { taken.mode_of(&found) };
        self.add(to, Node { mode, owner: taken.owner, kind })?;
        drop(opened);
        if found.is_dir() { self.take_entries(host, to, taken) } else { Ok(()) }
    }

    /// Of a file with several names each counts: the layer has it as often. Holes count, too.
    fn count(&mut self, host: &Path, to: &Path, found: &Metadata) -> Result {
        let counted = self.budget.entry(to.as_os_str().len()).and_then(|()| {
            let bytes = if found.is_file() { found.len() } else { 0 };
            self.budget.bytes(bytes)
        });
        counted.map_err(|source| BuildError::TooMuch { path: host.to_owned(), source })
    }

    fn read(&mut self, host: &Path, found: &Metadata) -> Result<Kind> {
        let file = (found.dev(), found.ino());
        if let Some(Kind::Host { size, digest, .. }) = self.read.get(&file) {
            return Ok(Kind::Host { path: host.to_owned(), size: *size, digest: digest.clone() });
        }
        let kind = look_at(host, found.len())?;
        if found.nlink() > 1 {
            self.read.insert(file, kind.clone());
        }
        Ok(kind)
    }

    /// What is in a directory, to be below `/`.
    pub fn take_inside(&mut self, host: &Path, taken: Taken) -> Result {
        // Where the store lies may be through links.
        let host = fs::canonicalize(host).map_err(BuildError::io("find", host))?;
        self.take_entries(&host, Path::new(""), taken)
    }

    fn take_entries(&mut self, host: &Path, to: &Path, taken: Taken) -> Result {
        // All names at once: no directory is held open while those below it are read.
        let opened = open(host, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let entries = fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        let names =
            entries.and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>());
        for name in names.map_err(BuildError::io("read", host))? {
            if !(taken.clean && MADE_ANEW.iter().any(|known| name == *known)) {
                self.take(&host.join(&name), &to.join(&name), taken)?;
            }
        }
        Ok(())
    }

    /// Adds others where they come to lie in `root`: below where links of it lead, and with directories that it has as it
    /// has them, unless they are `described`.
    pub fn settle(&mut self, others: Self, root: Option<&Ready>, described: bool) -> Result {
        for (path, node) in others.nodes {
            let path = Path::new("/").join(path);
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let path = match root {
                Some(root) => root.resolve(above)?.join(name),
                None => path,
            };
            let there = |path: &Path| root.is_some_and(|root| root.has(path));
            self.add_parents(&path, there)?;
            let known = node.kind == Kind::Dir && (self.has(&path) || there(&path));
            if !known || described {
                self.add(&path, node)?;
            }
        }
        Ok(())
    }

    /// Every file of the host's that is in here.
    #[must_use]
    pub fn host_files(&self) -> Vec<PathBuf> {
        let files = self.nodes.values().filter_map(|node| match &node.kind {
            Kind::Host { path, .. } => Some(path.clone()),
            _ => None,
        });
        files.collect()
    }

    /// Of everything that makes the layer what it is.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for (path, node) in &self.nodes {
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
        for (path, node) in &self.nodes {
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
                    let file = open(host, libc::O_RDONLY | libc::O_NONBLOCK)?;
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

/// Through no link, not even one that a directory on the way has become meanwhile.
fn open(path: &Path, flags: i32) -> Result<File> {
    let named =
        CString::new(path.as_os_str().as_bytes()).map_err(|error| BuildError::io("open", path)(error.into()))?;
    let opened = sys::fs::open_in(sys::fs::cwd(), &named, flags, 0, sys::fs::NO_LINKS);
    opened.map(File::from).map_err(|errno| BuildError::io("open", path)(errno.into()))
}

fn look_at(path: &Path, size: u64) -> Result<Kind> {
    // It grows no longer than it was counted.
    // And nobody waits for the other end of what has become a pipe.
    let from = open(path, libc::O_RDONLY | libc::O_NONBLOCK)?.take(size.saturating_add(1));
    let mut hashing = Hashing { from, hasher: Hasher::new(Algorithm::Sha256) };
    io::copy(&mut hashing, &mut io::sink()).map_err(BuildError::io("read", path))?;
    if hashing.hasher.count() != size {
        return Err(BuildError::Changed { path: path.to_owned() });
    }
    Ok(Kind::Host { path: path.to_owned(), size, digest: hashing.hasher.finish() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::image::unpack::Limits;

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
            contents.add_parents(Path::new("/opt/d"), |_| false).unwrap();
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
    fn no_name_removes_another() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".wh.d")).unwrap();
        let taken = Contents::default().take_inside(dir.path(), Taken::CLEAN);
        assert!(matches!(taken, Err(BuildError::Whiteout { path }) if path == Path::new(".wh.d")));
        let mut contents = Contents::default();
        for bad in ["/.wh.x", "/a/.wh..wh..opq", "/a/.wh.x/b"] {
            assert!(matches!(contents.add_dir(Path::new(bad), 0o755), Err(BuildError::Whiteout { .. })), "{bad}");
        }
        contents.add_dir(Path::new("/a.wh./wh.x/.whx"), 0o755).unwrap();
    }

    #[test]
    fn what_cannot_be_unpacked_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let mut contents = Contents::default();
        assert!(matches!(contents.take_inside(dir.path(), Taken::CLEAN), Err(BuildError::TooMuch { .. })));
        // Each name of a file is a file of the layer.
        File::create(&path).unwrap().set_len(600).unwrap();
        fs::hard_link(&path, dir.path().join("again")).unwrap();
        let limits = |entries, bytes| Limits { entries, bytes, ..Limits::default() };
        for (limits, fits) in [(limits(2, 1200), true), (limits(2, 1199), false), (limits(1, 1200), false)] {
            let mut contents = Contents { budget: Budget::new(limits), ..Contents::default() };
            assert_eq!(contents.take_inside(dir.path(), Taken::CLEAN).is_ok(), fits, "{limits:?}");
        }
        let mut contents = Contents::default();
        contents.take_inside(dir.path(), Taken::CLEAN).unwrap();
        assert_eq!(contents.host_files().len(), 2);
        assert_eq!(tar::Archive::new(written(&contents).as_slice()).entries().unwrap().count(), 2);
    }

    #[test]
    fn a_directory_that_became_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let place = fs::canonicalize(dir.path()).unwrap();
        for name in ["d", "away"] {
            fs::create_dir(place.join(name)).unwrap();
            fs::write(place.join(name).join("f"), "the same").unwrap();
        }
        let mut contents = Contents::default();
        contents.take(&place.join("d"), Path::new("d"), Taken::AS_USUAL).unwrap();
        fs::remove_dir_all(place.join("d")).unwrap();
        symlink("away", place.join("d")).unwrap();
        assert!(contents.write(io::sink(), 0).is_err());
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
