//! `--console-socket`: whoever wants the terminal of a container waits at a socket for its master.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::Path,
};

use crate::{
    plan::container::process::Process,
    sys::{Errno, fs, socket, tty},
};

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

/// Sends a new terminal's master to the engine; the terminal is the program's by then, and has its size.
pub fn send(
    process: &Process,
    master: OwnedFd,
    terminal: BorrowedFd<'_>,
    console: BorrowedFd<'_>,
) -> Result<(), Errno> {
    if let Some((rows, columns)) = process.console_size {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tty::set_window_size(master.as_fd(), size)?;
    }
    fs::change_owner(terminal, c"", process.user.uid, fs::stat(terminal)?.st_gid)?;
    socket::send(console, b"/dev/ptmx", Some(master.as_fd()))
}
