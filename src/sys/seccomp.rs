//! seccomp(2): installing a filter, and answering what it reports. [seccomp_unotify(2)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use crate::plan::seccomp::Insn;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` (5.0): return a descriptor that reports arrive on.
pub const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` (5.19): only a fatal signal interrupts a call once it is received.
pub const WAIT_KILLABLE_RECV: u32 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32;

const _: () = assert!(size_of::<Insn>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Insn>() == align_of::<libc::sock_filter>());
const _: () = assert!(std::mem::offset_of!(Insn, k) == std::mem::offset_of!(libc::sock_filter, k));

/// Puts the calling thread, and all that it will ever create, under `program`.
///
/// Returns the listener if `flags` has [`NEW_LISTENER`]; it is close-on-exec. Allocates nothing and takes
/// no lock, so it may run between fork and exec.
///
/// # Errors
/// EACCES without no_new_privs or CAP_SYS_ADMIN; EINVAL for a program or flag that the kernel doesn't
/// take; EBUSY if there is a listener already.
pub fn install(program: &[Insn], flags: u32) -> io::Result<Option<OwnedFd>> {
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: `program` describes `len` instructions of the kernel's layout, which the kernel only reads.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, ptr::from_ref(&program)) };
    match answer {
        -1 => Err(io::Error::last_os_error()),
        _ if flags & NEW_LISTENER == 0 => {
            // With TSYNC a positive answer is the thread that could not be put under the filter.
            if answer == 0 { Ok(None) } else { Err(io::ErrorKind::ResourceBusy.into()) }
        }
        // SAFETY: the kernel made this descriptor for us just now.
        fd => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })),
    }
}

/// Whether the kernel knows all of `flags`. Changes nothing.
#[must_use]
pub fn knows_flags(flags: u32) -> bool {
    // SAFETY: a null program is read before anything is changed, and refused with EFAULT; flags that the
    // kernel doesn't know are refused with EINVAL before that.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, ptr::null::<libc::sock_fprog>())
    };
    answer == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// Names the call until it is answered.
    pub id: u64,
    /// The calling thread, in the listener's pid namespace; 0 if it isn't there.
    pub pid: u32,
    pub number: u32,
    pub args: [u64; 6],
}

/// Takes the next report from `listener`, waiting for one. `None` if its caller was killed meanwhile.
pub fn recv(listener: BorrowedFd<'_>) -> io::Result<Option<Notification>> {
    // SAFETY: plain integers, for which zero is a value; the kernel wants them zero.
    let mut report: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `seccomp_notif`.
    match unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut report) } {
        0 => Ok(Some(Notification {
            id: report.id,
            pid: report.pid,
            number: report.data.nr as u32,
            args: report.data.args,
        })),
        _ => gone(io::Error::last_os_error()).map(|()| None),
    }
}

/// Makes the call `id` fail with `errno`. A caller that was killed or interrupted meanwhile is no error.
pub fn reply_errno(listener: BorrowedFd<'_>, id: u64, errno: u16) -> io::Result<()> {
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: -i32::from(errno), flags: 0 };
    // SAFETY: the kernel reads one `seccomp_notif_resp`.
    match unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) } {
        0 => Ok(()),
        _ => gone(io::Error::last_os_error()),
    }
}

/// Whether the call `id` still waits: what was read from its process's memory or /proc entry before a
/// `true` was that process's, and not a later one's with the same pid.
#[must_use]
pub fn id_valid(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one u64.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// ENOENT says that the call no longer waits.
fn gone(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(libc::ENOENT) { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::plan::seccomp::builtin;

    /// Runs `check` in a child under no_new_privs; returns the child's wait status.
    fn in_child(check: impl FnOnce() -> bool) -> i32 {
        // SAFETY: the child only makes system calls and leaves by _exit.
        match unsafe { libc::fork() } {
            -1 => panic!("fork: {}", io::Error::last_os_error()),
            0 => {
                // SAFETY: plain calls on this process.
                unsafe {
                    libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                    libc::_exit(if check() { 0 } else { 1 });
                }
            }
            child => wait(child),
        }
    }

    fn wait(child: i32) -> i32 {
        let mut status = 0;
        // SAFETY: `status` is ours.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        status
    }

    /// The errno of a raw call, 0 for success.
    fn errno_of(number: i64, args: [u64; 3]) -> i32 {
        // SAFETY: every call made here is harmless whether the filter works or not.
        let answer = unsafe { libc::syscall(number, args[0], args[1], args[2]) };
        if answer == -1 { io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
    }

    #[test]
    fn the_kernel_enforces_the_default_filter() {
        let filter = &builtin("default").expect("built in").filter;
        let status = in_child(|| {
            matches!(install(filter.quiet(), filter.flags()), Ok(None))
                && errno_of(libc::SYS_getppid, [0; 3]) == 0
                && errno_of(libc::SYS_unshare, [libc::CLONE_NEWUSER as u64, 0, 0]) == libc::EPERM
                && errno_of(libc::SYS_clone3, [0; 3]) == libc::ENOSYS
                && errno_of(libc::SYS_io_uring_setup, [0; 3]) == libc::ENOSYS
                && errno_of(libc::SYS_socket, [17, 3, 0]) == libc::EAFNOSUPPORT
                && errno_of(libc::SYS_socket, [2, 3, 0]) == libc::EPERM
                && errno_of(libc::SYS_socket, [1, 1, 0]) == 0
                && errno_of(libc::SYS_ioctl, [u64::MAX, 0x5412 | 1 << 32, 0]) == libc::EPERM
                && errno_of(libc::SYS_ioctl, [u64::MAX, 0x5413, 0]) == libc::EBADF
                && errno_of(100_000, [0; 3]) == libc::ENOSYS
        });
        assert_eq!(status, 0);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_kernel_kills_for_an_x32_call() {
        let filter = &builtin("default").expect("built in").filter;
        let status = in_child(|| {
            let installed = install(filter.quiet(), 0).is_ok();
            installed && errno_of(0x4000_0000 + libc::SYS_getppid, [0; 3]) == 0
        });
        assert_eq!(libc::WTERMSIG(status), libc::SIGSYS);
    }

    #[test]
    fn a_supervisor_sees_refused_calls_and_answers_them() {
        let filter = &builtin("default").expect("built in").filter;
        let status = in_child(|| {
            let Ok(Some(listener)) = install(filter.reporting().unwrap_or_default(), NEW_LISTENER) else {
                return false;
            };
            // SAFETY: the child only makes system calls and leaves by _exit.
            let caller = unsafe { libc::fork() };
            if caller == 0 {
                // Else it would wait for its own answers if the supervisor ended early.
                drop(listener);
                let refused = errno_of(libc::SYS_socket, [17, 3, 5]) == libc::EAFNOSUPPORT
                    && errno_of(libc::SYS_clone3, [0; 3]) == libc::ENOSYS
                    && errno_of(libc::SYS_unshare, [0; 3]) == libc::EPERM;
                // SAFETY: leaves at once.
                unsafe { libc::_exit(i32::from(!refused)) };
            }
            let seen = [(libc::SYS_socket, 17), (libc::SYS_unshare, 0)].into_iter().all(|(number, first)| {
                let Ok(Some(report)) = recv(listener.as_fd()) else { return false };
                let errno = filter.errno(report.number, &report.args);
                (report.pid, i64::from(report.number), report.args[0]) == (caller as u32, number, first)
                    && id_valid(listener.as_fd(), report.id)
                    && reply_errno(listener.as_fd(), report.id, errno).is_ok()
                    && !id_valid(listener.as_fd(), report.id)
            });
            seen && wait(caller) == 0
        });
        assert_eq!(status, 0);
    }

    #[test]
    fn what_the_kernel_does_not_take_is_an_error() {
        let status = in_child(|| {
            install(&[], 0).is_err() && install(&[Insn::new(6, 0, 0, 0); 4097], 0).is_err() && !knows_flags(1 << 31)
        });
        assert_eq!(status, 0);
        assert!(knows_flags(0) && knows_flags(NEW_LISTENER));
    }
}
