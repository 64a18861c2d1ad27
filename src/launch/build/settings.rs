//! Kernel settings of a container's own namespaces.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{Builder, SAFE, Supply};
use crate::sys::{self, Errno, fs, mount};

/// The root of every procfs.
const PROC_ROOT: u64 = 1;

impl<S: Supply> Builder<'_, S> {
    /// Through a procfs that is mounted nowhere: neither a link nor a mount can make it another file
    /// (CVE-2025-52881, CVE-2019-16884).
    pub(super) fn sysctl(&mut self, key: &CStr, value: &CStr) -> sys::Result<()> {
        if self.procfs.is_none() {
            self.procfs = Some(private_procfs()?);
        }
        set(self.procfs.as_ref().map(AsFd::as_fd).ok_or(Errno::EBADF)?, key, value)
    }
}

/// In the namespaces that we are in. `procfs` is the root of one.
pub fn set(procfs: BorrowedFd<'_>, key: &CStr, value: &CStr) -> sys::Result<()> {
    let mut path = b"sys/".to_vec();
    path.extend_from_slice(key.to_bytes());
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let file = fs::open_in(procfs, &path, libc::O_WRONLY, 0, fs::ONE_MOUNT)?;
    if !fs::is_of_kind(file.as_fd(), libc::PROC_SUPER_MAGIC) {
        return Err(Errno::EXDEV);
    }
    // At once: a setting takes each write as a value of its own.
    let bytes = value.to_bytes();
    if fs::write(file.as_fd(), bytes)? == bytes.len() { Ok(()) } else { Err(Errno::EIO) }
}

fn private_procfs() -> sys::Result<OwnedFd> {
    let made =
        mount::open_filesystem(c"proc").and_then(|context| mount::create(context.as_fd(), SAFE | mount::NO_EXEC));
    match made {
        // A user namespace gets none where the host's is partly covered. Then the host's must do: it is one, at its
        // root, and what covers a part of it is not entered.
        Err(Errno::EPERM) => {
            let procfs = fs::open_in(fs::cwd(), c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0, fs::NO_LINKS)?;
            let of_kernel = fs::is_of_kind(procfs.as_fd(), libc::PROC_SUPER_MAGIC);
            if of_kernel && fs::stat(procfs.as_fd())?.st_ino == PROC_ROOT { Ok(procfs) } else { Err(Errno::EPERM) }
        }
        made => made,
    }
}
