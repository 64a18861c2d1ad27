//! Making processes: `clone3` for the sandbox's init, a `vfork`-like clone for its payload.

use std::{
    mem::MaybeUninit,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use super::{Errno, Result, check};

/// Over 32 bits, which the `libc` crate's constant is not.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which of the two processes this is after [`clone_process`].
#[derive(Debug)]
pub enum Cloned {
    Child,
    Parent { pid: libc::pid_t, pidfd: OwnedFd },
}

/// Forks into the namespaces of `flags` (CLONE_NEW*), straight into the v2 cgroup behind `cgroup`
/// (clone3(2), CLONE_INTO_CGROUP since 5.7). The child sends no signal when it ends: it is waited for
/// by name, so that a host program's `waitpid(-1)` cannot steal it.
///
/// The child has a copy of the caller's memory and one thread; until it calls `execve` it must use
/// async-signal-safe calls only, as after any fork of a multi-threaded process.
pub fn clone_process(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    use std::os::fd::AsRawFd;
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` is plain data for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no stack, so both sides return from this call as from fork(2); `args`
    // and `pidfd` outlive it.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel stored a new descriptor that nobody else owns.
    Ok(Cloned::Parent { pid: pid as libc::pid_t, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Runs `body(argument)` in a new process that shares this one's memory and descriptors, and waits until it
/// has called `execve`, which parts them, or ended. Returns its pid. `body`'s result is its exit status.
///
/// `stack` is the child's: the caller's own cannot be shared, since both return through it.
pub fn spawn_sharing_memory<T>(
    stack: &mut [MaybeUninit<u8>],
    body: fn(&T) -> i32,
    argument: &T,
) -> Result<libc::pid_t> {
    call_on(stack, libc::CLONE_VM | libc::CLONE_FILES | libc::SIGCHLD, body, argument)
}

/// Runs `body(argument)` on another thread of this process, and returns only if that thread has ended alone, with the error
/// if there is none. The caller's thread stands still meanwhile; if the other one executes a program, the process
/// goes on as that, under its own number, and the caller's thread is gone with its namespaces and identity.
///
/// The other thread has a working directory, a root and a umask of its own. It uses what is the caller's of the C library,
/// and so `body` must make no other thread.
pub fn go_on_in_thread<T>(stack: &mut [MaybeUninit<u8>], body: fn(&T) -> i32, argument: &T) -> Result<()> {
    let shared = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD | libc::CLONE_SYSVSEM;
    // Of the two only one ever runs, so they may share what the C library keeps for a thread.
    call_on(stack, shared, body, argument).map(|_| ())
}

/// Has `body(argument)` run on this stack by what `flags` make, and stands still until that has executed a program or ended.
fn call_on<T>(
    stack: &mut [MaybeUninit<u8>],
    flags: libc::c_int,
    body: fn(&T) -> i32,
    argument: &T,
) -> Result<libc::pid_t> {
    struct Call<'a, T> {
        body: fn(&T) -> i32,
        argument: &'a T,
    }
    extern "C" fn enter<T>(call: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `call` is the `Call` below; its owner is suspended until we exec or end.
        let call = unsafe { &*call.cast::<Call<'_, T>>() };
        (call.body)(call.argument)
    }
    let call = Call { body, argument };
    let top = stack.as_mut_ptr_range().end;
    let top = top.wrapping_sub(top as usize % 16);
    // SAFETY: the stack is exclusively the other's while the caller is suspended by CLONE_VFORK, and `call` and what it
    // points to live on the caller's stack for as long.
    let made =
        unsafe { libc::clone(enter::<T>, top.cast(), flags | libc::CLONE_VFORK, (&raw const call).cast_mut().cast()) };
    if made == -1 { Err(Errno::last()) } else { Ok(made) }
}

/// Forks as the C library does it, which sees to its allocator: the child may allocate, whatever other threads the caller
/// has, but must take no lock that one of them may hold. It has one thread. `None` in the child.
pub fn fork() -> Result<Option<libc::pid_t>> {
    // SAFETY: both sides return from this call; what the child may do is said above.
    let pid = check(unsafe { libc::fork() }.into())? as libc::pid_t;
    Ok((pid != 0).then_some(pid))
}

/// Leaves for a new cgroup namespace rooted where this process now is.
pub fn unshare_cgroup_namespace() -> Result<()> {
    // SAFETY: affects this process only and takes no pointer.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into()).map(drop)
}

/// Enters a user namespace that the caller made, where it then has every capability. It must have no other thread.
pub fn enter_user_namespace(namespace: BorrowedFd<'_>) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: affects this process only and takes no pointer.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWUSER) }.into()).map(drop)
}
