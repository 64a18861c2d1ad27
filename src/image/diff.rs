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

/// All changes, as the tree that they are: a program can make a million paths of four thousand bytes each, which have most
/// of those bytes in common.
#[derive(Debug, Default)]
pub struct Changes {
    root: Node,
    /// What it takes of memory, about.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Node {
    kind: Option<Kind>,
    below: BTreeMap<Box<[u8]>, Self>,
}

/// More than any run of a person's has changed.
const MOST_BYTES: usize = 512 << 20;
/// A map's first name makes room for this many.
const ROOM: usize = 11;
/// Of a map with a name or more: room for [`ROOM`] of them, each behind a pointer, and what the map has beside.
const MAP_BYTES: usize = ROOM * (size_of::<Box<[u8]>>() + size_of::<Node>()) + 32;
/// Of a map that has no more room: another as large, and one to lead to both.
const SPLIT_BYTES: usize = 2 * MAP_BYTES + 96;
/// Of each further name: five at least share what was made for eleven, and what leads there.
const FURTHER_BYTES: usize = MAP_BYTES / 4;

/// Of a name, or a path: what is asked of the allocator for it, and what that adds.
const fn held(length: usize) -> usize {
    (length + 8).next_multiple_of(16) + 16
}

/// Of a path in a list that grows, besides its own bytes: the list is copied into one twice as long.
const PATH_BYTES: usize = 3 * size_of::<Vec<u8>>();

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Changes {
    /// `false`: there is no more room.
    #[must_use]
    fn set(&mut self, path: &[u8], kind: Kind) -> bool {
        let mut node = &mut self.root;
        for name in names(path) {
            if !node.below.contains_key(name) {
                self.bytes += held(name.len())
                    + match node.below.len() {
                        0 => MAP_BYTES,
                        1..ROOM => 0,
                        ROOM => SPLIT_BYTES,
                        _ => FURTHER_BYTES,
                    };
                node.below.insert(name.into(), Node::default());
            }
            let Some(below) = node.below.get_mut(name) else { return false };
            node = below;
        }
        node.kind = Some(kind);
        self.has_room(0)
    }

    /// Besides what else is held.
    fn has_room(&self, besides: usize) -> bool {
        self.bytes.saturating_add(besides) <= MOST_BYTES
    }

    fn get(&self, path: &[u8]) -> Option<Kind> {
        names(path).try_fold(&self.root, |node, name| node.below.get(name))?.kind
    }

    /// Tells each with its absolute path, a directory before what is in it.
    pub fn each<E>(
        &self,
        tell: &mut impl FnMut(Kind, &[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        if let Some(kind) = self.root.kind {
            tell(kind, b"/")?;
        }
        let mut path = Vec::new();
        // Not by calling itself: a path is as deep as a program likes.
        let mut open = vec![(self.root.below.iter(), 0)];
        while let Some((entries, length)) = open.last_mut() {
            path.truncate(*length);
            let Some((name, node)) = entries.next() else {
                open.pop();
                continue;
            };
            path.push(b'/');
            path.extend_from_slice(name);
            if let Some(kind) = node.kind {
                tell(kind, &path)?;
            }
            open.push((node.below.iter(), path.len()));
        }
        Ok(())
    }
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

pub fn diff(store: &Store, run: &Run) -> Result<Changes> {
    let below = Below::open(store, run)?;
    let (file, _) = store.open_blob(&run.layer.digest)?;
    let broken = |source| ImageError::Archive { what: format!("layer {}", run.layer.digest.short()), source };
    let content = unpack::open_packed(BufReader::new(file)).map_err(broken)?;
    let mut entries = Archive::new(BufReader::with_capacity(256 << 10, content));
    let mut found = Changes::default();
    let too_many = |fits: bool| match fits {
        true => Ok(()),
        false => Err(ImageError::TooManyChanges { name: run.name.clone() }),
    };
    let mut opaque = Vec::new();
    while let Some(entry) = entries.next_entry().map_err(broken)? {
        let path = clean(&entry.path);
        if path.is_empty() {
            // What is in it says whether it changed, but for its rights.
            if below.mode(&path)?.is_some_and(|mode| mode != entry.mode) {
                too_many(found.set(&path, Kind::Changed))?;
            }
            continue;
        }
        let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (above, name) = path.split_at(name);
        if name == OPAQUE {
            // Only where there was something is there anything to be replaced.
            let dir = above.strip_suffix(b"/").unwrap_or(above);
            if below.mode(dir)?.is_some() {
                found.bytes += PATH_BYTES + held(dir.len());
                too_many(found.has_room(0))?;
                opaque.push(dir.to_vec());
            }
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            too_many(found.set(&[above, hidden].concat(), Kind::Deleted))?;
        } else {
            let kind = if below.mode(&path)?.is_some() { Kind::Changed } else { Kind::Added };
            too_many(found.set(&path, kind))?;
        }
    }
    for dir in opaque {
        below.replaced(dir, &mut found, &too_many)?;
    }
    Ok(found)
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
    fn replaced(&self, dir: Vec<u8>, found: &mut Changes, fits: &impl Fn(bool) -> Result<()>) -> Result<()> {
        let mut left = vec![dir];
        let mut left_bytes = 0_usize;
        while let Some(dir) = left.pop() {
            left_bytes = left_bytes.saturating_sub(held(dir.len()));
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
                    None => fits(found.set(&path, Kind::Deleted))?,
                    Some(Kind::Deleted) => {}
                    Some(_) => {
                        left_bytes += held(path.len());
                        // The list itself does not shrink.
                        fits(found.has_room(left_bytes + PATH_BYTES * left.capacity()))?;
                        left.push(path);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(changes: &Changes) -> Vec<String> {
        let mut all = Vec::new();
        let mut tell = |kind: Kind, path: &[u8]| -> std::result::Result<(), ()> {
            all.push(format!("{} {}", kind.letter(), String::from_utf8_lossy(path)));
            Ok(())
        };
        changes.each(&mut tell).unwrap();
        all
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut changes = Changes::default();
        for (path, kind) in [("a/b/c", Kind::Added), ("a", Kind::Changed), ("a-b", Kind::Deleted), ("", Kind::Changed)]
        {
            assert!(changes.set(path.as_bytes(), kind));
        }
        assert_eq!(told(&changes), ["C /", "C /a", "A /a/b/c", "D /a-b"]);
        assert_eq!((changes.get(b"a/b"), changes.get(b"a/b/c")), (None, Some(Kind::Added)));
    }

    #[test]
    fn long_paths_take_what_they_do_not_share() {
        let mut changes = Changes::default();
        let deep = format!("{}/", "d".repeat(190)).repeat(20);
        for number in 0..30_000 {
            assert!(changes.set(format!("{deep}{number}").as_bytes(), Kind::Added));
        }
        assert!(changes.bytes < 8 << 20, "{}", changes.bytes);
        assert_eq!(told(&changes).len(), 30_000);
    }

    #[test]
    fn there_is_an_end_to_them() {
        let mut changes = Changes { bytes: MOST_BYTES - MAP_BYTES, ..Changes::default() };
        assert!(!changes.set(b"a", Kind::Added));
    }

    #[test]
    fn what_they_take_is_counted_whatever_their_shape() {
        let deep: Vec<_> = (0..2000).map(|n| (0..20).map(|m| format!("{n}-{m}/")).collect::<String>()).collect();
        let wide: Vec<_> = (0..40_000).map(|n| n.to_string()).collect();
        let twelve: Vec<_> = (0..36_000).map(|n| format!("{}/{}", n / 12, n % 12)).collect();
        for paths in [deep, wide, twelve] {
            let mut changes = Changes::default();
            for path in &paths {
                assert!(changes.set(path.as_bytes(), Kind::Added));
            }
            let real = real(&changes.root);
            assert!(changes.bytes >= real && changes.bytes < 4 * real, "{} of {real}", changes.bytes);
        }
    }

    /// What a map's nodes take at least: each but the first is half full.
    fn real(node: &Node) -> usize {
        let full = node.below.len().div_ceil(ROOM) * MAP_BYTES;
        full + node.below.iter().map(|(name, node)| name.len().next_multiple_of(16) + real(node)).sum::<usize>()
    }
}
