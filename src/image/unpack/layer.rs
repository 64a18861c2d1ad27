//! One layer put onto the tree that those below it have made (image-spec `layer.md`).
//!
//! Entries are carried out in their order, as tar does. Whiteouts take away what lower layers brought and nothing of
//! this one, wherever in the archive they stand.

use std::{
    io::BufRead,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
};

use nix::errno::Errno;

use super::{
    archive::{Archive, Entry, Kind},
    error::{ArchiveError, LayerError},
    limits::Budget,
    tree::{self, Attributes, Tree},
};

type Result<T = ()> = std::result::Result<T, ArchiveError>;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept for itself: `.wh..wh.plnk` and the like.
const RESERVED: &[u8] = b".wh..wh.";

/// What was done, beside what was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    pub entries: u64,
    pub bytes: u64,
    /// Device files that only root can make.
    pub devices_left_out: u64,
    /// Extended attributes that are none of an image's business, or that the file system does not take.
    pub attributes_left_out: u64,
}

impl Notes {
    pub(super) fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.devices_left_out += other.devices_left_out;
        self.attributes_left_out += other.attributes_left_out;
    }
}

/// Carries out every entry of the archive.
pub fn apply(tree: &mut Tree, from: impl BufRead, budget: &mut Budget) -> Result<Notes> {
    tree.next_layer();
    let mut layer = Layer { archive: Archive::new(from), tree, budget, notes: Notes::default() };
    while let Some(entry) = layer.archive.next_entry()? {
        layer.entry(&entry)?;
    }
    layer.archive.drain()?;
    Ok(layer.notes)
}

struct Layer<'a, R> {
    archive: Archive<R>,
    tree: &'a mut Tree,
    budget: &'a mut Budget,
    notes: Notes,
}

impl<R: BufRead> Layer<'_, R> {
    fn entry(&mut self, entry: &Entry) -> Result {
        self.budget.entry(entry.path.len().max(entry.link.len()))?;
        self.notes.entries += 1;
        let refused = |why| Err(LayerError::Refused { path: shown(&entry.path), why }.into());
        let Some(path) = cleaned(&entry.path) else { return refused("its path has `..` in it") };
        if path.is_empty() {
            return match entry.kind {
                Kind::Directory => self.directory(&path, entry),
                // It would stand in the place of the root itself (CVE-2021-29136).
                _ => refused("it is the root and no directory"),
            };
        }
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], &path[..]),
        };
        if above.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT)) {
            return refused("it is below a whiteout");
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.white_out(above, name, hidden, entry);
        }
        match entry.kind {
            Kind::File => self.file(&path, entry),
            Kind::Directory => self.directory(&path, entry),
            Kind::Symlink => self.symlink(&path, entry),
            Kind::Hardlink => self.hardlink(&path, entry),
            Kind::Char(..) | Kind::Block(..) | Kind::Fifo => self.node(&path, entry),
        }
    }

    fn white_out(&mut self, above: &[u8], name: &[u8], hidden: &[u8], entry: &Entry) -> Result {
        let done = match name {
            OPAQUE => self.tree.make_opaque(above),
            _ if name.starts_with(RESERVED) => Ok(()),
            _ if matches!(hidden, b"" | b"." | b"..") => {
                return Err(LayerError::Refused { path: shown(&entry.path), why: "it is a whiteout of nothing" }.into());
            }
            _ if above.is_empty() => self.tree.white_out(hidden),
            _ => self.tree.white_out(&[above, b"/", hidden].concat()),
        };
        done.map_err(io("remove what it hides", entry))
    }

    fn file(&mut self, path: &[u8], entry: &Entry) -> Result {
        self.budget.bytes(entry.size)?;
        self.notes.bytes += entry.size;
        // Nobody but root sets attributes of a file that its rights do not let them write to.
        let plain = entry.xattrs.is_empty();
        let mode = if plain { entry.mode } else { 0o600 };
        let file = self.tree.create_file(path, mode).map_err(io("create", entry))?;
        let file = std::fs::File::from(file);
        let failed = |error: std::io::Error| -> ArchiveError {
            io("write", entry)(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
        };
        match &entry.pieces {
            None => {
                let mut at = 0;
                let had = self.archive.data(u64::MAX, |chunk| {
                    file.write_all_at(chunk, at).map_err(failed)?;
                    at += chunk.len() as u64;
                    Ok(())
                })?;
                debug_assert_eq!(had, entry.size);
            }
            Some(pieces) => {
                tree::stretch(file.as_fd(), entry.size).map_err(io("make as long as it is", entry))?;
                for (offset, length) in pieces {
                    let mut at = *offset;
                    self.archive.data(*length, |chunk| {
                        file.write_all_at(chunk, at).map_err(failed)?;
                        at += chunk.len() as u64;
                        Ok(())
                    })?;
                }
            }
        }
        // A new owner takes the file's capabilities away.
        let first = self.tree.is_privileged();
        if !first {
            self.extended_attributes(file.as_fd(), entry)?;
        }
        self.tree.finish_file(file.as_fd(), attributes(entry), plain).map_err(io("finish", entry))?;
        if first { self.extended_attributes(file.as_fd(), entry) } else { Ok(()) }
    }

    fn directory(&mut self, path: &[u8], entry: &Entry) -> Result {
        self.budget.directory(path.len())?;
        let directory = self.tree.directory(path, attributes(entry)).map_err(io("make", entry))?;
        self.extended_attributes(directory.as_fd(), entry)
    }

    fn symlink(&mut self, path: &[u8], entry: &Entry) -> Result {
        let target = tree::c_string(&entry.link).map_err(io("make the link", entry))?;
        self.tree.symlink(path, &target, attributes(entry)).map_err(io("make the link", entry))
    }

    fn hardlink(&mut self, path: &[u8], entry: &Entry) -> Result {
        let Some(target) = cleaned(&entry.link).filter(|target| !target.is_empty()) else {
            let why = "it is a hard link to a path with `..` in it, or to the root";
            return Err(LayerError::Refused { path: shown(&entry.path), why }.into());
        };
        match self.tree.link(path, &target) {
            Ok(()) => Ok(()),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EISDIR | Errno::ELOOP) => {
                let why = "it is a hard link to what is no file of the image";
                Err(LayerError::Refused { path: shown(&entry.path), why }.into())
            }
            Err(errno) => Err(io("link", entry)(errno)),
        }
    }

    fn node(&mut self, path: &[u8], entry: &Entry) -> Result {
        let (kind, device) = match entry.kind {
            Kind::Char(major, minor) => (libc::S_IFCHR, libc::makedev(major, minor)),
            Kind::Block(major, minor) => (libc::S_IFBLK, libc::makedev(major, minor)),
            _ => (libc::S_IFIFO, 0),
        };
        if kind != libc::S_IFIFO && !self.tree.is_privileged() {
            self.notes.devices_left_out += 1;
            return Ok(());
        }
        self.tree.node(path, kind, device, attributes(entry)).map_err(io("make the node", entry))
    }

    fn extended_attributes(&mut self, file: BorrowedFd<'_>, entry: &Entry) -> Result {
        for (name, value) in &entry.xattrs {
            let taken = match wanted(name, self.tree.is_privileged()) {
                true => {
                    let name = tree::c_string(name).map_err(io("set an extended attribute", entry))?;
                    tree::set_attribute(file, &name, value).map_err(io("set an extended attribute", entry))?
                }
                false => false,
            };
            self.notes.attributes_left_out += u64::from(!taken);
        }
        Ok(())
    }
}

/// What programs set for themselves, and capabilities of files. Not what overlayfs or a security module of the host
/// believes: an image has no say over these.
fn wanted(name: &[u8], privileged: bool) -> bool {
    match name {
        b"security.capability" => privileged,
        _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
    }
}

fn attributes(entry: &Entry) -> Attributes {
    Attributes { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime }
}

/// Relative to the root, without `.` and empty components; `None` with `..` in it.
fn cleaned(path: &[u8]) -> Option<Vec<u8>> {
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    Some(clean)
}

/// A path as it is told: names of an image are anybody's.
pub fn shown(path: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(path);
    let text: String = text.chars().flat_map(char::escape_debug).take(MOST).collect();
    text
}

fn io<'a>(action: &'static str, entry: &'a Entry) -> impl Fn(Errno) -> ArchiveError + 'a {
    move |source| LayerError::Io { action, path: shown(&entry.path), source }.into()
}
