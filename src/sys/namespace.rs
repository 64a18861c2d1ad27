//! Namespaces that are there already, or are made without a new process.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Result, check};

/// Enters the namespaces of `flags` (CLONE_NEW*) behind a namespace's descriptor or a pidfd (setns(2); pidfds
/// since 5.8). Of a pid or time namespace it is the children that enter.
pub fn enter(namespace: BorrowedFd<'_>, flags: i32) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::setns(namespace.as_raw_fd(), flags) }.into()).map(drop)
}

/// Which CLONE_NEW* a namespace is (ioctl_ns(2), since 4.11).
pub fn kind(namespace: BorrowedFd<'_>) -> Result<i32> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: takes no argument.
    check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE as _) }.into()).map(|kind| kind as i32)
}

/// Leaves for new namespaces (unshare(2)). Of a pid or time namespace it is the children that are in it.
pub fn leave(flags: i32) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// Brings the loopback device of this network namespace up.
pub fn raise_loopback() -> Result<()> {
    // SAFETY: `ifreq` is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: numbers only, but for `request`, which is valid for the call; the socket is closed here.
    unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into())? as i32;
        let up = check(libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request).into());
        libc::close(socket);
        up.map(drop)
    }
}
