//! What a tmpfs with `tmpcopyup` starts with: what was in the directory that it covers.

use std::{
    ffi::CString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::dir::Dir;

use crate::sys::{self, Errno, fs};

/// Deeper than this nothing sensible is.
const DEEPEST: usize = 256;
const LONGEST_LINK: usize = libc::PATH_MAX as usize;

/// Copies everything in `from` into `to`, by descriptor and following no link, and gives `to` its owner and mode.
pub fn contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> sys::Result<()> {
    if fs::is_proc(from) {
        return Err(Errno::EINVAL);
    }
    let from = open(from, c".", libc::O_DIRECTORY)?;
    let to = open(to, c".", libc::O_DIRECTORY)?;
    directory(from, to.as_fd(), 0)
}

fn open(dir: BorrowedFd<'_>, name: &std::ffi::CStr, flags: i32) -> sys::Result<OwnedFd> {
    fs::open_in(dir, name, libc::O_RDONLY | libc::O_NOFOLLOW | flags, 0, fs::BENEATH)
}

fn directory(from: OwnedFd, to: BorrowedFd<'_>, depth: usize) -> sys::Result<()> {
    if depth > DEEPEST {
        return Err(Errno::ELOOP);
    }
    let names: Vec<CString> = {
        let mut dir = Dir::from_fd(open(from.as_fd(), c".", libc::O_DIRECTORY)?)?;
        dir.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned())).collect::<Result<_, _>>()?
    };
    for name in names.iter().filter(|name| !matches!(name.as_bytes(), b"." | b"..")) {
        let found = fs::open_in(from.as_fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0, fs::BENEATH)?;
        let stat = fs::stat(found.as_fd())?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                fs::make_dir(to, name, 0o700)?;
                let copy = open(to, name, libc::O_DIRECTORY)?;
                directory(open(from.as_fd(), name, libc::O_DIRECTORY)?, copy.as_fd(), depth + 1)?;
            }
            libc::S_IFREG => {
                // What is no regular file any more would keep us waiting, or be a device of the host's.
                let source = open(from.as_fd(), name, libc::O_NONBLOCK)?;
                if fs::stat(source.as_fd())?.st_mode & libc::S_IFMT != libc::S_IFREG {
                    return Err(Errno::EAGAIN);
                }
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
                let copy = fs::open_in(to, name, flags, 0o600, fs::BENEATH)?;
                bytes(source.as_fd(), copy.as_fd())?;
                own(copy.as_fd(), &stat)?;
            }
            libc::S_IFLNK => {
                let mut buffer = [0; LONGEST_LINK];
                let leads = fs::read_link(found.as_fd(), &mut buffer)?;
                let leads = CString::new(leads).map_err(|_| Errno::EINVAL)?;
                fs::make_symlink(&leads, to, name)?;
                fs::change_owner(to, name, stat.st_uid, stat.st_gid)?;
            }
            _ => {
                fs::make_node(to, name, stat.st_mode, stat.st_rdev)?;
                fs::change_owner(to, name, stat.st_uid, stat.st_gid)?;
            }
        }
    }
    own(to, &fs::stat(from.as_fd())?)
}

/// Owner first: changing it takes set-id bits away.
fn own(copy: BorrowedFd<'_>, stat: &libc::stat) -> sys::Result<()> {
    fs::change_owner(copy, c"", stat.st_uid, stat.st_gid)?;
    fs::change_mode(copy, stat.st_mode & 0o7777)
}

fn bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> sys::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match fs::read(from, &mut buffer)? {
            0 => return Ok(()),
            length => fs::write_all(to, &buffer[..length])?,
        }
    }
}
