//! Calls that a sandbox must be denied, made by the program that tries them (`selftest`).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::{Result, check};

/// Any socket (socket(2)), of families that nobody has a type for too.
pub fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) }.into())?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A ring for one call (io_uring_setup(2)), by which sockets are made unseen.
pub fn ring() -> Result<OwnedFd> {
    // struct io_uring_params
    let mut parameters = [0_u64; 15];
    // SAFETY: the structure is as long as the kernel's, and valid for the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// An option of a socket, as bytes (setsockopt(2)).
pub fn set_option(socket: impl AsFd, level: i32, name: i32, value: &[u8]) -> Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `value` is valid for its length.
    check(unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as libc::socklen_t) }.into())
        .map(drop)
}
