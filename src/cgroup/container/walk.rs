//! Through the groups nested in a container's: those it made itself, however many and however deep.
//!
//! By descriptor and by `..`, two open at a time, without recursion: what is nested is the container's doing, and its
//! paths may be longer than the kernel takes and its depth greater than there are descriptors or stack. The walk
//! never leaves the top: cgroups cannot be moved, and the way up is as long as the way down was.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

use super::super::group::slurp;

const DIR: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Visits `top` and every group below it, parents first. What goes away meanwhile is passed over.
pub(super) fn each_below(
    top: BorrowedFd<'_>,
    mut visit: impl FnMut(BorrowedFd<'_>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut here = openat(top, c".", DIR, Mode::empty())?;
    visit(here.as_fd())?;
    // The children still to be visited, of each group from the top down to here.
    let mut left = vec![children(here.as_fd())?];
    while let Some(names) = left.last_mut() {
        let Some(name) = names.pop() else {
            left.pop();
            if !left.is_empty() {
                here = openat(&here, c"..", DIR, Mode::empty())?;
            }
            continue;
        };
        match openat(&here, name.as_c_str(), DIR, Mode::empty()) {
            Ok(child) => {
                visit(child.as_fd())?;
                left.push(children(child.as_fd())?);
                here = child;
            }
            Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Removes every group below `top`, deepest first; stops at the first that cannot go.
pub(super) fn remove_below(top: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut here = openat(top, c".", DIR, Mode::empty())?;
    let mut way: Vec<CString> = Vec::new();
    loop {
        // Only one is needed at a time: those with none below them go at once.
        if let Some(name) = children(here.as_fd())?.pop() {
            match openat(&here, name.as_c_str(), DIR, Mode::empty()) {
                Ok(child) => {
                    here = child;
                    way.push(name);
                }
                Err(Errno::ENOENT | Errno::ENODEV) => {}
                Err(errno) => return Err(errno),
            }
            continue;
        }
        let Some(name) = way.pop() else { return Ok(()) };
        here = openat(&here, c"..", DIR, Mode::empty())?;
        match unlinkat(&here, name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The names of the groups directly below.
fn children(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    let mut dir: Dir = Dir::from_fd(again(dir)?)?;
    for entry in dir.iter() {
        let entry = match entry {
            Ok(entry) => entry,
            // A group that was removed while open.
            Err(Errno::ENOENT | Errno::ENODEV) => break,
            Err(errno) => return Err(errno),
        };
        let name = entry.file_name();
        if entry.file_type() == Some(Type::Directory) && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// A descriptor with an offset of its own.
fn again(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    openat(dir, c".", DIR, Mode::empty())
}

pub(super) fn read(dir: BorrowedFd<'_>, name: &CStr) -> Result<String, Errno> {
    slurp(openat(dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
}
