//! `--console-socket`: whoever wants the terminal of a container waits at a socket for its master.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::Path,
};

use crate::sys::{Errno, fs, mount};

/// Connects by way of the socket's directory: its own path may be longer than a socket's address (unix(7), 108 bytes).
pub fn connect(path: &Path) -> std::io::Result<OwnedFd> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::NotFound.into());
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let dir = CString::new(dir.as_os_str().as_bytes())?;
    let dir = fs::open_in(fs::cwd(), &dir, libc::O_PATH | libc::O_DIRECTORY, 0, 0)?;
    let near = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    UnixStream::connect(near).map(OwnedFd::from)
}

/// Puts the terminal at `/dev/console`, by descriptor: what is at its name may be a link of the image's
/// (CVE-2025-52565).
pub fn place(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    let found = fs::stat(terminal)?;
    let number = libc::major(found.st_rdev);
    // Unix98 terminals (linux, Documentation/admin-guide/devices.txt).
    if found.st_mode & libc::S_IFMT != libc::S_IFCHR || !(136..=143).contains(&number) {
        return Err(Errno::ENOTTY);
    }
    let dev = fs::open_in(fs::cwd(), c"/dev", libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0, fs::NO_LINKS)?;
    match fs::make_file(dev.as_fd(), c"console", 0o600) {
        Ok(()) | Err(Errno::EEXIST | Errno::EROFS) => {}
        Err(errno) => return Err(errno),
    }
    let target = fs::open_in(dev.as_fd(), c"console", libc::O_PATH | libc::O_NOFOLLOW, 0, fs::BENEATH)?;
    let node = mount::clone_tree(terminal, c"", false)?;
    mount::attach(node.as_fd(), target.as_fd())
}
