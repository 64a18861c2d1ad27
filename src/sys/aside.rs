//! A network namespace made aside, while the caller does something else.
//!
//! Making one takes the kernel a third of a millisecond, most of it waiting for locks that nothing else in a
//! launch wants. A process that shares the caller's memory and descriptors makes it, brings its loopback
//! device up, leaves its descriptor, and is gone.
//!
//! The two run at once on one thread-local block, so the other one must not touch `errno`: its few calls go
//! straight to the kernel.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicI32, Ordering::SeqCst},
};

use super::{Errno, Result, check, process};

/// Nobody made one.
const NONE: i32 = -libc::ESRCH;
const STACK: usize = 4 << 10;
const SIOCGSKNS: usize = 0x894c;

/// A namespace in the making.
#[derive(Debug)]
pub struct Network {
    /// The namespace's descriptor, or a negated errno.
    result: AtomicI32,
    maker: libc::pid_t,
    stack: [MaybeUninit<u8>; STACK],
}

impl Network {
    #[must_use]
    pub const fn new() -> Self {
        Self { result: AtomicI32::new(NONE), maker: 0, stack: [const { MaybeUninit::uninit() }; STACK] }
    }

    /// Starts making it. `self` must stay where it is until [`Self::join`] has returned.
    pub fn start(&mut self) -> Result<()> {
        extern "C" fn body(result: *mut libc::c_void) -> libc::c_int {
            // SAFETY: `result` is the field below, whose owner waits for this process to end.
            let result = unsafe { &*result.cast::<AtomicI32>() };
            result.store(make(), SeqCst);
            0
        }
        let top = self.stack.as_mut_ptr_range().end;
        let top = top.wrapping_sub(top as usize % 16);
        let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_FS;
        // SAFETY: the stack is the new process's alone, and both it and `result` outlive it by the promise above.
        let pid = unsafe { libc::clone(body, top.cast(), flags, (&raw const self.result).cast_mut().cast()) };
        if pid == -1 {
            return Err(Errno::last());
        }
        self.maker = pid;
        Ok(())
    }

    /// Waits until it is made, and enters it. Its maker is gone by then: RLIMIT_NPROC would count it among the sandbox's
    /// processes.
    pub fn join(&mut self) -> Result<()> {
        process::wait(self.maker, true)?;
        let made = self.result.load(SeqCst);
        if made < 0 {
            return Err(Errno::from_raw(-made));
        }
        // SAFETY: the other process made it for us in the table that we share.
        let namespace = unsafe { OwnedFd::from_raw_fd(made) };
        // SAFETY: takes no pointer.
        check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }.into()).map(drop)
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// The namespace's descriptor, or a negated errno.
fn make() -> i32 {
    // SAFETY: `ifreq` is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: numbers only, but for `request`, which is valid for the call.
    unsafe {
        let made = raw(libc::SYS_unshare, libc::CLONE_NEWNET as usize, 0, 0, 0);
        if made < 0 {
            return made as i32;
        }
        let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as usize;
        let socket = raw(libc::SYS_socket, libc::AF_INET as usize, kind, 0, 0);
        if socket < 0 {
            return socket as i32;
        }
        let up = raw(libc::SYS_ioctl, socket as usize, libc::SIOCSIFFLAGS as usize, &raw const request as usize, 0);
        let namespace = if up < 0 { up } else { raw(libc::SYS_ioctl, socket as usize, SIOCGSKNS, 0, 0) };
        raw(libc::SYS_close, socket as usize, 0, 0, 0);
        namespace as i32
    }
}

/// A system call that leaves `errno` alone: the kernel's own result.
///
/// # Safety
/// As the call's.
unsafe fn raw(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the kernel's calling convention; it clobbers only what is named.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number as isize,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d,
            options(nostack)
        );
    }
    result
}
