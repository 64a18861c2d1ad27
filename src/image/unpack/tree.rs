//! The directory that a root file system is unpacked into, and the only way to anything in it.
//!
//! What a layer has brought is hostile: a link in it may lead anywhere. So every path is looked up by the kernel with
//! this directory as its root (openat2(2), RESOLVE_IN_ROOT), and what is done is done by descriptor, to the last
//! component of a name and never through it. Nobody else has access to the tree while it is made.

use std::{
    collections::{HashMap, HashSet},
    ffi::{CStr, CString},
    hash::{BuildHasher, RandomState},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
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
/// Of those that no layer has an entry for.
const UNNAMED: u32 = 0o755;
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

/// A directory of the tree that is open.
#[derive(Debug)]
pub struct Parent {
    fd: OwnedFd,
    inode: u64,
}

impl AsFd for Parent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A directory of the tree and a name in it, which may or may not be there.
#[derive(Debug)]
pub struct Place {
    parent: Rc<Parent>,
    name: CString,
}

#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// Owners can be given away, and devices made.
    privileged: bool,
    /// Whose everything is that is made.
    own: (u32, u32),
    /// What is made has the rights that it is made with: there is no umask.
    exact: bool,
    /// Where the last entry was: the next is nearly always beside it.
    parent: Option<(Vec<u8>, Rc<Parent>)>,
    /// What directories are to be once nothing is put into them any more, by inode.
    directories: HashMap<u64, (Vec<u8>, u32, Time)>,
    /// The names that this layer has put into directories, each with its directory's inode, as hashes: of an image of
    /// a million files the names themselves would be too much to remember. The hasher's key is random.
    made: HashSet<u64>,
    hasher: RandomState,
}

impl Tree {
    /// `exact`: the thread has no umask.
    pub fn new(root: OwnedFd, exact: bool) -> Result<Self> {
        let found = fstat(&root)?;
        // What it has of the directory it was made in would go on to all that is made in it.
        fs::remove_attribute(root.as_fd(), c"system.posix_acl_default")?;
        if found.st_mode & libc::S_ISGID != 0 {
            fchmod(&root, Mode::from_bits_truncate(found.st_mode & 0o777))?;
        }
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Ok(Self {
            root,
            privileged: uid == 0,
            own: (uid, gid),
            exact,
            parent: None,
            directories: HashMap::new(),
            made: HashSet::new(),
            hasher: RandomState::new(),
        })
    }

    pub fn is_privileged(&self) -> bool {
        self.privileged
    }

    /// What is there now is of the layers below.
    pub fn next_layer(&mut self) {
        self.made.clear();
    }

    fn key(&self, directory: u64, name: &CStr) -> u64 {
        self.hasher.hash_one((directory, name))
    }

    /// The place of a cleaned path (no `.`, no `..`, no empty component); the directories above it are made where
    /// they are missing, if `make`.
    pub fn place(&mut self, path: &[u8], make: bool) -> Result<Place> {
        let (above, name) = split(path);
        if let Some((known, parent)) = &self.parent
            && known == above
        {
            return Ok(Place { parent: Rc::clone(parent), name: c_string(name)? });
        }
        let fd = match self.open(above, PARENT) {
            Err(Errno::ENOENT) if make => self.make_deep(above)?,
            fd => fd?,
        };
        let parent = Rc::new(Parent { inode: fstat(&fd)?.st_ino, fd });
        if make {
            self.parent = Some((above.to_vec(), Rc::clone(&parent)));
        }
        Ok(Place { parent, name: c_string(name)? })
    }

    fn open(&self, path: &[u8], flags: i32) -> Result<OwnedFd> {
        let path = if path.is_empty() { c".".to_owned() } else { c_string(path)? };
        fs::open_in(self.root.as_fd(), &path, flags, 0, fs::LINKS_IN_ROOT)
    }

    /// Makes the directories of the path that are missing, those that links in it lead to as well.
    fn make_deep(&mut self, path: &[u8]) -> Result<OwnedFd> {
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
            match fs::make_dir(at.as_fd(), &name, UNNAMED) {
                Ok(()) => {
                    at = self.open(&path[..end], PARENT)?;
                    // Its inode may have been one's that is gone, and what that was to be is not for this one.
                    self.directories.remove(&fstat(&at)?.st_ino);
                }
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

    /// Makes something in its place, from which whatever was there is removed.
    pub fn make<T>(&mut self, place: &Place, make: impl Fn(BorrowedFd<'_>, &CStr) -> Result<T>) -> Result<T> {
        let made = match make(place.parent.as_fd(), &place.name) {
            Err(Errno::EEXIST) => {
                self.remove(place)?;
                // In the same directory still: whatever was removed, that one is above it.
                make(place.parent.as_fd(), &place.name)?
            }
            made => made?,
        };
        self.made.insert(self.key(place.parent.inode, &place.name));
        Ok(made)
    }

    /// A new file, with nothing in it.
    pub fn create_file(&mut self, path: &[u8], mode: u32) -> Result<OwnedFd> {
        const NEW: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let place = self.place(path, true)?;
        self.make(&place, |parent, name| fs::open_in(parent, name, NEW, mode & 0o777, fs::BENEATH))
    }

    /// The directory at the path, made if there is none.
    pub fn directory(&mut self, path: &[u8], attributes: Attributes) -> Result<Rc<Parent>> {
        let (fd, new) = if path.is_empty() {
            (self.open(b"", DIRECTORY)?, false)
        } else {
            let place = self.place(path, true)?;
            let made = fs::make_dir(place.parent.as_fd(), &place.name, FILLING);
            let new = match made {
                Err(Errno::EEXIST) if look(&place)?.is_some_and(|found| kind(&found) == SFlag::S_IFDIR) => false,
                Err(Errno::EEXIST) => {
                    self.make(&place, |parent, name| fs::make_dir(parent, name, FILLING))?;
                    true
                }
                made => made.map(|()| true)?,
            };
            self.made.insert(self.key(place.parent.inode, &place.name));
            (fs::open_in(place.parent.as_fd(), &place.name, DIRECTORY, 0, fs::BENEATH)?, new)
        };
        if !new {
            // Those of the layers below are replaced, like everything else that is said of it.
            for name in fs::attributes(fd.as_fd())? {
                if name.to_bytes().starts_with(b"user.") {
                    fs::remove_attribute(fd.as_fd(), &name)?;
                }
            }
        }
        self.give(fd.as_fd(), attributes, new)?;
        let inode = fstat(&fd)?.st_ino;
        self.directories.insert(inode, (path.to_vec(), attributes.mode, attributes.mtime));
        let directory = Rc::new(Parent { fd, inode });
        self.parent = Some((path.to_vec(), Rc::clone(&directory)));
        Ok(directory)
    }

    fn give(&self, fd: BorrowedFd<'_>, attributes: Attributes, new: bool) -> Result {
        if self.privileged && !(new && (attributes.uid, attributes.gid) == self.own) {
            fchown(fd, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))?;
        }
        Ok(())
    }

    /// A file that is complete. `made_so`: with the rights that it is to have.
    pub fn finish_file(&self, fd: BorrowedFd<'_>, attributes: Attributes, made_so: bool) -> Result {
        self.give(fd, attributes, true)?;
        // What the kernel takes away when the owner changes and when a file is written to. Rights without these were
        // given when it was made.
        if !(made_so && self.exact) || attributes.mode & 0o7000 != 0 {
            fchmod(fd, Mode::from_bits_truncate(attributes.mode))?;
        }
        let time = timespec(attributes.mtime);
        futimens(fd, &time, &time)
    }

    /// A link to what the text says.
    pub fn symlink(&mut self, path: &[u8], target: &CStr, attributes: Attributes) -> Result {
        let place = self.place(path, true)?;
        self.make(&place, |parent, name| fs::make_symlink(target, parent, name))?;
        self.finish_other(&place, attributes)
    }

    /// What is no file, directory or link: its mode is with its kind.
    pub fn node(&mut self, path: &[u8], kind: u32, device: libc::dev_t, attributes: Attributes) -> Result {
        let place = self.place(path, true)?;
        let mode = kind | attributes.mode & 0o777;
        self.make(&place, |parent, name| fs::make_node(parent, name, mode, device))?;
        if !self.exact || attributes.mode & 0o7000 != 0 {
            // By descriptor: there is no fchmodat that does not follow before Linux 6.6.
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            let fd = fs::open_in(place.parent.as_fd(), &place.name, flags, 0, fs::BENEATH)?;
            fs::change_mode(fd.as_fd(), attributes.mode)?;
        }
        self.finish_other(&place, attributes)
    }

    fn finish_other(&self, place: &Place, attributes: Attributes) -> Result {
        let name = place.name.as_c_str();
        if self.privileged && (attributes.uid, attributes.gid) != self.own {
            let (uid, gid) = (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)));
            fchownat(&place.parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        let time = timespec(attributes.mtime);
        utimensat(&place.parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
    }

    /// One more name for what is at `target`; no link is followed to it at the end.
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result {
        let from = self.place(target, false)?;
        let found = look(&from)?.ok_or(Errno::ENOENT)?;
        if kind(&found) == SFlag::S_IFDIR {
            return Err(Errno::EISDIR);
        }
        let place = self.place(path, true)?;
        let link = |parent: BorrowedFd<'_>, name: &CStr| {
            linkat(&from.parent, from.name.as_c_str(), parent, name, LinkatFlags::empty())
        };
        match link(place.parent.as_fd(), &place.name) {
            // Already the same: making it anew would remove what it leads to.
            Err(Errno::EEXIST) if look(&place)?.is_some_and(|there| there.st_ino == found.st_ino) => {}
            Err(Errno::EEXIST) => return self.make(&place, link),
            linked => linked?,
        }
        self.made.insert(self.key(place.parent.inode, &place.name));
        Ok(())
    }

    /// Removes what the layers below have put at the path; of a directory, all that they have put into it.
    pub fn white_out(&mut self, path: &[u8]) -> Result {
        let place = match self.place(path, false) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            place => place?,
        };
        let Some(found) = look(&place)? else { return Ok(()) };
        let keep = |directory: u64, name: &CStr| self.made.contains(&self.key(directory, name));
        let kept = keep(place.parent.inode, &place.name);
        match kind(&found) {
            SFlag::S_IFDIR => {
                purge(&place, &keep)?;
                if !kept {
                    remove_empty(place.parent.as_fd(), &place.name)?;
                }
            }
            _ if kept => {}
            _ => unlinkat(&place.parent, place.name.as_c_str(), UnlinkatFlags::NoRemoveDir)?,
        }
        self.parent = None;
        Ok(())
    }

    /// Empties the directory at the path of all that the layers below have put into it.
    pub fn make_opaque(&mut self, path: &[u8]) -> Result {
        let fd = match self.open(path, libc::O_RDONLY | libc::O_DIRECTORY) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            fd => fd?,
        };
        purge_open(fd, &|directory, name| self.made.contains(&self.key(directory, name)))?;
        self.parent = None;
        Ok(())
    }

    fn remove(&mut self, place: &Place) -> Result {
        // It may have been the directory that is known, or a link to it.
        self.parent = None;
        match unlinkat(&place.parent, place.name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR | Errno::EPERM) => {
                purge(place, &|_, _| false)?;
                unlinkat(&place.parent, place.name.as_c_str(), UnlinkatFlags::RemoveDir)
            }
            other => other,
        }
    }

    /// Gives the directories what could not be theirs while they were filled. Those that would keep us out of what is
    /// in them come last, the deepest first.
    pub fn finish(mut self) -> Result {
        let mut shut = Vec::new();
        for (inode, (path, mode, mtime)) in std::mem::take(&mut self.directories) {
            let fd = match self.open(&path, libc::O_RDONLY | libc::O_DIRECTORY) {
                // A later layer has put something else there.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                fd => fd?,
            };
            if fstat(&fd)?.st_ino != inode {
                continue;
            }
            let time = timespec(mtime);
            futimens(&fd, &time, &time)?;
            if self.privileged || mode & FILLING == FILLING {
                fchmod(&fd, Mode::from_bits_truncate(mode))?;
            } else {
                shut.push((real_path(&fd)?, mode));
            }
        }
        shut.sort_unstable_by(|one, other| other.cmp(one));
        let top = real_path(&self.root)?;
        for (path, mode) in shut {
            let path = path.strip_prefix(top.as_slice()).ok_or(Errno::ENOENT)?;
            let path = path.strip_prefix(b"/").unwrap_or(path);
            fchmod(self.open(path, libc::O_RDONLY | libc::O_DIRECTORY)?, Mode::from_bits_truncate(mode))?;
        }
        Ok(())
    }
}

/// Where the kernel says that it is, without links.
fn real_path(fd: &OwnedFd) -> Result<Vec<u8>> {
    use std::os::{fd::AsRawFd, unix::ffi::OsStringExt};
    let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let path = path.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(path.into_os_string().into_vec())
}

/// What is above a path's last component, and that.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    }
}

/// What is at the place itself, links not followed.
fn look(place: &Place) -> Result<Option<FileStat>> {
    match fstatat(&place.parent, place.name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Makes a file as long as it is to be, for what is written into it in places.
pub fn stretch(fd: BorrowedFd<'_>, size: u64) -> Result {
    ftruncate(fd, size.try_into().map_err(|_| Errno::EFBIG)?)
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & libc::S_IFMT)
}

fn remove_empty(parent: BorrowedFd<'_>, name: &CStr) -> Result {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        // Something in it is kept.
        Ok(()) | Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Whether the name in the directory of that inode stays.
type Keep<'a> = dyn Fn(u64, &CStr) -> bool + 'a;

fn purge(place: &Place, keep: &Keep<'_>) -> Result {
    purge_open(fs::open_in(place.parent.as_fd(), &place.name, DIRECTORY, 0, fs::BENEATH)?, keep)
}

/// Empties a directory, deepest first, without recursion: how deep it is, is the layer's to say. Two descriptors at a
/// time. Directories are gone through even if they are kept, for what others have put into them.
fn purge_open(top: OwnedFd, keep: &Keep<'_>) -> Result {
    let mut here = top;
    // The directories still to be gone through, of each from the top down to here; its own name, and whether it stays.
    let mut way = vec![((CString::default(), true), empty(here.as_fd(), keep)?)];
    while let Some((_, left)) = way.last_mut() {
        if let Some(next) = left.pop() {
            here = fs::open_in(here.as_fd(), &next.0, DIRECTORY, 0, fs::BENEATH)?;
            let inside = empty(here.as_fd(), keep)?;
            way.push((next, inside));
            continue;
        }
        let Some(((name, kept), _)) = way.pop().filter(|_| !way.is_empty()) else { return Ok(()) };
        here = nix::fcntl::openat(&here, c"..", OFlag::from_bits_truncate(DIRECTORY), Mode::empty())?;
        if !kept {
            remove_empty(here.as_fd(), &name)?;
        }
    }
    Ok(())
}

/// Removes what is not kept and no directory; the directories, and whether each is kept.
fn empty(dir: BorrowedFd<'_>, keep: &Keep<'_>) -> Result<Vec<(CString, bool)>> {
    let inode = fstat(dir)?.st_ino;
    let mut directories = Vec::new();
    let mut listed = Dir::from_fd(fs::open_in(dir, c".", DIRECTORY, 0, 0)?)?;
    for entry in listed.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kept = keep(inode, name);
        if entry.file_type() == Some(nix::dir::Type::Directory) {
            directories.push((name.to_owned(), kept));
        } else if !kept {
            match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
                // The file system does not tell the kinds in its lists.
                Err(Errno::EISDIR | Errno::EPERM) => directories.push((name.to_owned(), false)),
                other => other?,
            }
        }
    }
    Ok(directories)
}

fn timespec(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, time.nanos)
}

pub fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

/// Without `.`, `..` and empty components: `..` at the top stays there.
pub fn clean(path: &[u8]) -> Vec<u8> {
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
