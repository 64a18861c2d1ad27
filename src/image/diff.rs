//! What a run has changed, path by path, as `docker diff` tells it.
//!
//! The layer tells what was written and what was removed; whether something was there before, the tree below it does. Its
//! paths are looked up there by descriptor and through no link.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::File,
    io::BufReader,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::dir::Dir;

use super::{
    ImageError,
    kept::Image,
    store::{Run, RunBase, Store, Tree},
    unpack::{self, Archive, clean},
};
use crate::sys::{Errno, fs};

type Result<T> = std::result::Result<T, ImageError>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Kind {
    #[serde(rename = "A")]
    Added,
    #[serde(rename = "C")]
    Changed,
    #[serde(rename = "D")]
    Deleted,
}

impl Kind {
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// One path, absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: Kind,
    pub path: Vec<u8>,
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// All changes, by their paths.
pub fn diff(store: &Store, run: &Run) -> Result<Vec<Change>> {
    let below = Below::open(store, run)?;
    let (file, _) = store.open_blob(&run.layer.digest)?;
    let broken = |source| ImageError::Archive { what: format!("layer {}", run.layer.digest.short()), source };
    let content = unpack::open_packed(BufReader::new(file)).map_err(broken)?;
    let mut entries = Archive::new(BufReader::with_capacity(256 << 10, content));
    let mut found: BTreeMap<Vec<u8>, Kind> = BTreeMap::new();
    let mut opaque = Vec::new();
    while let Some(entry) = entries.next_entry().map_err(broken)? {
        let path = clean(&entry.path);
        if path.is_empty() {
            // What is in it says whether it changed, but for its rights.
            if below.mode(&path)?.is_some_and(|mode| mode != entry.mode) {
                found.insert(path, Kind::Changed);
            }
            continue;
        }
        let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (above, name) = path.split_at(name);
        if name == OPAQUE {
            opaque.push(above.strip_suffix(b"/").unwrap_or(above).to_vec());
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            found.insert([above, hidden].concat(), Kind::Deleted);
        } else {
            let kind = if below.mode(&path)?.is_some() { Kind::Changed } else { Kind::Added };
            found.insert(path, kind);
        }
    }
    for dir in opaque {
        below.replaced(dir, &mut found)?;
    }
    let absolute = |(path, kind): (Vec<u8>, Kind)| Change { kind, path: [&b"/"[..], &path[..]].concat() };
    Ok(found.into_iter().map(absolute).collect())
}

/// The tree that the run stood on.
struct Below {
    root: OwnedFd,
    path: PathBuf,
    /// Nobody removes it meanwhile.
    _tree: Option<Tree>,
}

impl Below {
    fn open(store: &Store, run: &Run) -> Result<Self> {
        let (path, tree) = match &run.base {
            RunBase::Image { manifest, .. } => {
                let tree = Image::load(store, manifest)?.tree(store, &|_| {})?;
                (tree.root.clone(), Some(tree))
            }
            RunBase::Directory(path) => (path.clone(), None),
        };
        let root = File::open(&path).map_err(ImageError::io("open", &path))?;
        Ok(Self { root: root.into(), path, _tree: tree })
    }

    fn open_at(&self, path: &[u8], flags: i32) -> Result<Option<OwnedFd>> {
        let failed = |errno: Errno| {
            ImageError::io("look at", self.path.join(Path::new(std::ffi::OsStr::from_bytes(path))))(errno.into())
        };
        let name = CString::new(if path.is_empty() { b"." } else { path }).map_err(|_| failed(Errno::EINVAL))?;
        match fs::open_in(self.root.as_fd(), &name, flags, 0, fs::IN_ROOT) {
            Ok(fd) => Ok(Some(fd)),
            // Through a link it is something else.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// The rights of what was there.
    fn mode(&self, path: &[u8]) -> Result<Option<u32>> {
        let Some(found) = self.open_at(path, libc::O_PATH | libc::O_NOFOLLOW)? else { return Ok(None) };
        let stat = fs::stat(found.as_fd()).map_err(|errno| ImageError::io("look at", &self.path)(errno.into()))?;
        Ok(Some(stat.st_mode & 0o7777))
    }

    /// A directory that stands in the place of what was there: what is not in it is gone.
    fn replaced(&self, dir: Vec<u8>, found: &mut BTreeMap<Vec<u8>, Kind>) -> Result<()> {
        let mut left = vec![dir];
        while let Some(dir) = left.pop() {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let Some(opened) = self.open_at(&dir, flags)? else { continue };
            let failed = |errno: Errno| ImageError::io("list", &self.path)(errno.into());
            for entry in Dir::from_fd(opened).map_err(failed)?.iter() {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let path = if dir.is_empty() { name.to_vec() } else { [&dir[..], b"/", name].concat() };
                match found.get(&path) {
                    None => _ = found.insert(path, Kind::Deleted),
                    Some(Kind::Deleted) => {}
                    Some(_) => left.push(path),
                }
            }
        }
        Ok(())
    }
}
