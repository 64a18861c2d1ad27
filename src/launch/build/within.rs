//! Finding and making places in a root that others fill, maybe at this moment.
//!
//! A link is followed, since a root may well be one in which `/var/run` is a link, but never out of the root; where
//! something is missing it is made right in the directory that was found, and looked at again. Whatever is exchanged
//! meanwhile, nothing is made or found outside (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579).

use std::{
    collections::VecDeque,
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{
    plan::setup::Kind,
    sys::{self, Errno, fs},
};

/// As many links as the kernel itself follows.
const LINKS: usize = 40;
/// Names looked up; only a tree that changes all the time can take more.
const STEPS: usize = 8192;
const LONGEST_LINK: usize = libc::PATH_MAX as usize;

/// What is at a path.
#[derive(Debug)]
pub struct Found {
    pub place: OwnedFd,
    pub made: bool,
}

/// Finds what is at `path`; if there is nothing it is made, as `kind`, and the directories above it.
pub fn make(root: BorrowedFd<'_>, path: &CStr, kind: Kind) -> sys::Result<Found> {
    match fs::open_in(root, path, libc::O_PATH, 0, fs::LINKS_IN_ROOT) {
        Ok(place) => Ok(Found { place, made: false }),
        Err(Errno::ENOENT) => walk(root, path, kind),
        Err(errno) => Err(errno),
    }
}

/// As [`make`] for a directory, but its last name is no link: ENOTDIR.
pub fn make_exact(root: BorrowedFd<'_>, parent: &CStr, name: &CStr) -> sys::Result<Found> {
    let parent = make(root, parent, Kind::Dir)?.place;
    let made = match fs::make_dir(parent.as_fd(), name, 0o755) {
        Ok(()) => true,
        Err(Errno::EEXIST | Errno::EROFS | Errno::EACCES) => false,
        Err(errno) => return Err(errno),
    };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    match fs::open_in(parent.as_fd(), name, flags, 0, fs::BENEATH) {
        Err(Errno::ELOOP) => Err(Errno::ENOTDIR),
        found => found.map(|place| Found { place, made }),
    }
}

/// The directory that something is to be made in. `/dev` itself is no link: what the runtime makes there is made
/// with its rights.
pub fn parent(root: BorrowedFd<'_>, parent: &CStr) -> sys::Result<OwnedFd> {
    if parent.to_bytes() == b"dev" || parent.to_bytes().starts_with(b"dev/") {
        make_exact(root, c".", c"dev")?;
    }
    let found = make(root, parent, Kind::Dir)?.place;
    if fs::stat(found.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFDIR { Ok(found) } else { Err(Errno::ENOTDIR) }
}

fn walk(root: BorrowedFd<'_>, path: &CStr, kind: Kind) -> sys::Result<Found> {
    let mut above: Vec<OwnedFd> = Vec::new();
    let mut names = VecDeque::new();
    prepend(&mut names, path.to_bytes());
    let (mut links, mut made) = (0, false);
    for _ in 0..STEPS {
        let Some(name) = names.pop_front() else {
            let place = above.pop().map_or_else(|| fs::open_in(root, c".", libc::O_PATH, 0, fs::BENEATH), Ok)?;
            return Ok(Found { place, made });
        };
        if name.as_bytes() == b".." {
            // To where we came from: never above the root.
            above.pop();
            continue;
        }
        let here = above.last().map_or(root, AsFd::as_fd);
        let found = match fs::open_in(here, &name, libc::O_PATH | libc::O_NOFOLLOW, 0, fs::BENEATH) {
            Ok(found) => found,
            Err(Errno::ENOENT) => {
                let last = names.is_empty();
                let result = match kind {
                    Kind::File if last => fs::make_file(here, &name, 0o644),
                    _ => fs::make_dir(here, &name, 0o755),
                };
                match result {
                    Ok(()) => made = last,
                    // Somebody was faster. What it is, is seen when it is looked at.
                    Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
                names.push_front(name);
                continue;
            }
            Err(errno) => return Err(errno),
        };
        match fs::stat(found.as_fd())?.st_mode & libc::S_IFMT {
            libc::S_IFLNK => {
                links += 1;
                // Those of procfs lead where their text does not say.
                if links > LINKS || fs::is_proc(found.as_fd()) {
                    return Err(Errno::ELOOP);
                }
                let mut buffer = [0; LONGEST_LINK];
                let to = fs::read_link(found.as_fd(), &mut buffer)?;
                if to.first() == Some(&b'/') {
                    above.clear();
                }
                prepend(&mut names, to);
            }
            libc::S_IFDIR => above.push(found),
            _ if names.is_empty() => return Ok(Found { place: found, made }),
            _ => return Err(Errno::ENOTDIR),
        }
    }
    Err(Errno::EAGAIN)
}

fn prepend(names: &mut VecDeque<CString>, path: &[u8]) {
    for name in path.rsplit(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        // A path of the kernel's or of a C string has no NUL byte.
        if let Ok(name) = CString::new(name) {
            names.push_front(name);
        }
    }
}
