//! The directory that a root file system is unpacked into, and the only way to anything in it.
//!
//! What a layer has brought is hostile: a link in it may lead anywhere. So every path is looked up by the kernel with
//! this directory as its root (openat2(2), RESOLVE_IN_ROOT), and what is done is done by descriptor, to the last
//! component of a name and never through it. Nobody else has access to the tree while it is made.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::{
        stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, ftruncate, linkat, unlinkat},
};

use super::archive::Time;
use crate::sys::fs;

type Result<T = ()> = std::result::Result<T, Errno>;

const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
const PARENT: i32 = libc::O_PATH | libc::O_DIRECTORY;
/// While it is filled. What it is to be comes at the end.
const FILLING: u32 = 0o700;
/// As the kernel has it (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Owner, rights and time, as an archive gives them.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
}

#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// Owners can be given.
    privileged: bool,
    /// Whose the files are that nothing is done about.
    own: (u32, u32),
    /// Where the last entry was: the next is nearly always beside it.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// What directories are to be once nothing is put into them any more, by inode.
    directories: HashMap<u64, (Vec<u8>, u32, Time)>,
}

/// A directory of the tree and a name in it, which may or may not be there.
#[derive(Debug)]
pub struct Place<'a> {
    pub parent: BorrowedFd<'a>,
    pub name: CString,
}

impl Tree {
    pub fn new(root: OwnedFd) -> Self {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Self { root, privileged: uid == 0, own: (uid, gid), parent: None, directories: HashMap::new() }
    }

    pub fn is_privileged(&self) -> bool {
        self.privileged
    }

    /// The place of a cleaned path (no `.`, no `..`, no empty component); the directories above it are made where
    /// they are missing, if `make`.
    pub fn place(&mut self, path: &[u8], make: bool) -> Result<Place<'_>> {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        if self.parent.as_ref().is_none_or(|(known, _)| known != above) {
            let fd = match self.open(above, PARENT) {
                Err(Errno::ENOENT) if make => self.make_deep(above)?,
                fd => fd?,
            };
            self.parent = Some((above.to_vec(), fd));
        }
        let Some((_, parent)) = &self.parent else { return Err(Errno::ENOENT) };
        Ok(Place { parent: parent.as_fd(), name: c_string(name)? })
    }

    fn open(&self, path: &[u8], flags: i32) -> Result<OwnedFd> {
        let path = if path.is_empty() { c".".to_owned() } else { c_string(path)? };
        fs::open_in(self.root.as_fd(), &path, flags, 0, fs::LINKS_IN_ROOT)
    }

    /// Makes the directories of the path that are missing, those that links in it lead to as well.
    fn make_deep(&self, path: &[u8]) -> Result<OwnedFd> {
        let mut path = path.to_vec();
        let mut links = 0;
        let mut end = 0;
        let mut at = self.open(b"", PARENT)?;
        while end < path.len() {
            let start = end;
            end = path[start + 1..].iter().position(|byte| *byte == b'/').map_or(path.len(), |next| start + 1 + next);
            match self.open(&path[..end], PARENT) {
                Ok(fd) => {
                    at = fd;
                    continue;
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
            let name = c_string(path[start..end].strip_prefix(b"/").unwrap_or(&path[start..end]))?;
            match fs::make_dir(at.as_fd(), &name, 0o755) {
                Ok(()) => at = self.open(&path[..end], PARENT)?,
                // A link to something that is not there: that is made first.
                Err(Errno::EEXIST) if links < MOST_LINKS => {
                    links += 1;
                    let link = fs::open_in(at.as_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0, fs::IN_ROOT)?;
                    let mut buffer = [0; libc::PATH_MAX as usize];
                    let target = fs::read_link(link.as_fd(), &mut buffer)?;
                    let from = if target.starts_with(b"/") { &path[..0] } else { &path[..start] };
                    path = clean(&[from, b"/", target, &path[end..]].concat());
                    (end, at) = (0, self.open(b"", PARENT)?);
                }
                Err(Errno::EEXIST) => return Err(Errno::ELOOP),
                Err(errno) => return Err(errno),
            }
        }
        Ok(at)
    }

    /// What is at the place itself, links not followed.
    pub fn look(place: &Place<'_>) -> Result<Option<FileStat>> {
        match fstatat(place.parent, place.name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// A new file, with nothing in it; what was in its place is gone.
    pub fn create_file(&mut self, path: &[u8], mode: u32) -> Result<OwnedFd> {
        const NEW: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        self.replacing(path, |place| fs::open_in(place.parent, &place.name, NEW, mode & 0o777, fs::BENEATH))
    }

    /// Makes something where nothing may be.
    pub fn replacing<T>(&mut self, path: &[u8], make: impl Fn(&Place<'_>) -> Result<T>) -> Result<T> {
        let place = self.place(path, true)?;
        match make(&place) {
            Err(Errno::EEXIST) => {
                remove(&place)?;
                // It may have been the directory that is known, or a link to it.
                self.parent = None;
                make(&self.place(path, true)?)
            }
            made => made,
        }
    }

    /// The directory at the path, made if there is none; its inode.
    pub fn directory(&mut self, path: &[u8], attributes: Attributes) -> Result<(OwnedFd, u64, bool)> {
        let (fd, new) = if path.is_empty() {
            (self.open(b"", DIRECTORY)?, false)
        } else {
            let place = self.place(path, true)?;
            let new = match Self::look(&place)?.map(|found| kind(&found)) {
                Some(SFlag::S_IFDIR) => false,
                Some(_) => {
                    self.replacing(path, |place| fs::make_dir(place.parent, &place.name, FILLING))?;
                    true
                }
                None => {
                    fs::make_dir(place.parent, &place.name, FILLING)?;
                    true
                }
            };
            let place = self.place(path, true)?;
            (fs::open_in(place.parent, &place.name, DIRECTORY, 0, fs::BENEATH)?, new)
        };
        self.give(fd.as_fd(), attributes)?;
        let inode = fstat(&fd)?.st_ino;
        self.directories.insert(inode, (path.to_vec(), attributes.mode, attributes.mtime));
        Ok((fd, inode, new))
    }

    fn give(&self, fd: BorrowedFd<'_>, attributes: Attributes) -> Result {
        if self.privileged && (attributes.uid, attributes.gid) != self.own {
            fchown(fd, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))?;
        }
        Ok(())
    }

    /// A file that is complete.
    pub fn finish_file(&self, fd: BorrowedFd<'_>, attributes: Attributes) -> Result {
        self.give(fd, attributes)?;
        // What the kernel takes away when the owner changes and when a file is written to. Rights without these were
        // given when it was made.
        if attributes.mode & 0o7000 != 0 {
            fchmod(fd, Mode::from_bits_truncate(attributes.mode))?;
        }
        let time = timespec(attributes.mtime);
        futimens(fd, &time, &time)
    }

    /// What is neither a file nor a directory.
    pub fn finish_other(&mut self, path: &[u8], attributes: Attributes, link: bool) -> Result<u64> {
        let (privileged, own) = (self.privileged, self.own);
        let place = self.place(path, false)?;
        let name = place.name.as_c_str();
        if privileged && (attributes.uid, attributes.gid) != own {
            let (uid, gid) = (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)));
            fchownat(place.parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        if !link && attributes.mode & 0o7000 != 0 {
            // By descriptor: there is no fchmodat that does not follow before Linux 6.6.
            let fd = fs::open_in(place.parent, name, libc::O_PATH | libc::O_NOFOLLOW, 0, fs::BENEATH)?;
            fs::change_mode(fd.as_fd(), attributes.mode)?;
        }
        let time = timespec(attributes.mtime);
        utimensat(place.parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Self::look(&place)?.map(|found| found.st_ino).ok_or(Errno::ENOENT)
    }

    /// One more name for what is at `target`; no link is followed to it at the end.
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result<u64> {
        let above = target.iter().rposition(|byte| *byte == b'/').map_or(&target[..0], |slash| &target[..slash]);
        let from = self.open(above, PARENT)?;
        let name = c_string(target.rsplit(|byte| *byte == b'/').next().unwrap_or_default())?;
        let found = fstatat(&from, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if kind(&found) == SFlag::S_IFDIR {
            return Err(Errno::EISDIR);
        }
        let there = Self::look(&self.place(path, true)?)?;
        // Already the same: making it anew would remove what it leads to.
        if there.is_none_or(|there| there.st_ino != found.st_ino) {
            self.replacing(path, |place| {
                linkat(&from, name.as_c_str(), place.parent, place.name.as_c_str(), LinkatFlags::empty())
            })?;
        }
        Ok(found.st_ino)
    }

    /// Removes what is at the path and was not made by `keep`; a directory with all that is in it.
    pub fn white_out(&mut self, path: &[u8], keep: &dyn Fn(u64) -> bool) -> Result {
        let place = match self.place(path, false) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            place => place?,
        };
        let Some(found) = Self::look(&place)? else { return Ok(()) };
        if !keep(found.st_ino) {
            match kind(&found) {
                SFlag::S_IFDIR => {
                    purge(&place, keep)?;
                    match unlinkat(place.parent, place.name.as_c_str(), UnlinkatFlags::RemoveDir) {
                        Ok(()) | Err(Errno::ENOTEMPTY) => {}
                        Err(errno) => return Err(errno),
                    }
                }
                _ => unlinkat(place.parent, place.name.as_c_str(), UnlinkatFlags::NoRemoveDir)?,
            }
        }
        self.parent = None;
        Ok(())
    }

    /// Empties the directory at the path of all that was not made by `keep`.
    pub fn make_opaque(&mut self, path: &[u8], keep: &dyn Fn(u64) -> bool) -> Result {
        let fd = match self.open(path, libc::O_RDONLY | libc::O_DIRECTORY) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            fd => fd?,
        };
        self.parent = None;
        purge_open(fd, keep)
    }

    /// Gives the directories what could not be theirs while they were filled. Those above come last: theirs may keep
    /// us out.
    pub fn finish(mut self) -> Result {
        let mut all: Vec<_> = self.directories.drain().collect();
        all.sort_unstable_by(|(_, (one, ..)), (_, (other, ..))| other.cmp(one));
        for (inode, (path, mode, mtime)) in all {
            let fd = match self.open(&path, libc::O_RDONLY | libc::O_DIRECTORY) {
                // A later layer has put something else there.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                fd => fd?,
            };
            if fstat(&fd)?.st_ino == inode {
                fchmod(&fd, Mode::from_bits_truncate(mode))?;
                let time = timespec(mtime);
                futimens(&fd, &time, &time)?;
            }
        }
        Ok(())
    }
}

/// Makes a file as long as it is to be, for what is written into it in places.
pub fn stretch(fd: BorrowedFd<'_>, size: u64) -> Result {
    ftruncate(fd, size.try_into().map_err(|_| Errno::EFBIG)?)
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & libc::S_IFMT)
}

fn remove(place: &Place<'_>) -> Result {
    match unlinkat(place.parent, place.name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) => {
            purge(place, &|_| false)?;
            unlinkat(place.parent, place.name.as_c_str(), UnlinkatFlags::RemoveDir)
        }
        other => other,
    }
}

fn purge(place: &Place<'_>, keep: &dyn Fn(u64) -> bool) -> Result {
    purge_open(fs::open_in(place.parent, &place.name, DIRECTORY, 0, fs::BENEATH)?, keep)
}

/// Empties a directory, deepest first, without recursion: how deep it is, is the layer's to say. Two descriptors at a
/// time.
fn purge_open(top: OwnedFd, keep: &dyn Fn(u64) -> bool) -> Result {
    let mut here = top;
    // What is still to be removed, of each directory from the top down to here; and its own name.
    let mut way: Vec<(CString, Vec<(CString, bool)>)> = vec![(CString::default(), children(here.as_fd(), keep)?)];
    while let Some((_, left)) = way.last_mut() {
        match left.pop() {
            Some((name, false)) => unlinkat(&here, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?,
            Some((name, true)) => {
                let child = fs::open_in(here.as_fd(), &name, DIRECTORY, 0, fs::BENEATH)?;
                let inside = children(child.as_fd(), keep)?;
                here = child;
                way.push((name, inside));
            }
            None => {
                let Some((name, _)) = way.pop().filter(|_| !way.is_empty()) else { return Ok(()) };
                here = nix::fcntl::openat(&here, c"..", OFlag::from_bits_truncate(DIRECTORY), Mode::empty())?;
                match unlinkat(&here, name.as_c_str(), UnlinkatFlags::RemoveDir) {
                    // Something in it is kept.
                    Ok(()) | Err(Errno::ENOTEMPTY) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
    }
    Ok(())
}

/// The names in a directory that are not kept, and whether each is a directory.
fn children(dir: BorrowedFd<'_>, keep: &dyn Fn(u64) -> bool) -> Result<Vec<(CString, bool)>> {
    let mut names = Vec::new();
    let mut dir = Dir::from_fd(fs::open_in(dir, c".", DIRECTORY, 0, 0)?)?;
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." || keep(entry.ino()) {
            continue;
        }
        names.push((name.to_owned(), entry.file_type() == Some(nix::dir::Type::Directory)));
    }
    Ok(names)
}

fn timespec(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, time.nanos)
}

pub fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

/// Without `.`, `..` and empty components: `..` at the top stays there.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    kept.join(&b'/')
}

/// Sets an extended attribute of what is at the place itself; `false` where the file system knows none of its kind.
pub fn set_attribute(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<bool> {
    match fs::set_attribute(file, name, value) {
        Ok(()) => Ok(true),
        Err(Errno::EOPNOTSUPP | Errno::EPERM) => Ok(false),
        Err(errno) => Err(errno),
    }
}
