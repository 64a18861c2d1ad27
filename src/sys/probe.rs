//! Questions to the kernel: who am I, what is built in, what would be allowed. Nothing here changes the
//! calling process but [`install_filter`], which belongs in a child.

use std::{
    ffi::CStr,
    os::fd::{FromRawFd, OwnedFd},
};

use super::{Errno, Result, check};

pub const CAP_SETGID: u32 = 6;
pub const CAP_SETUID: u32 = 7;
pub const CAP_SYS_ADMIN: u32 = 21;
pub const CAP_SETFCAP: u32 = 31;

/// seccomp(2)'s answers to a call, and the flags of a filter.
pub const ACTIONS: [(&str, u32); 4] = [
    ("errno", libc::SECCOMP_RET_ERRNO),
    ("kill_process", libc::SECCOMP_RET_KILL_PROCESS),
    ("log", libc::SECCOMP_RET_LOG),
    ("user_notif", libc::SECCOMP_RET_USER_NOTIF),
];
pub const FILTER_LOG: u64 = libc::SECCOMP_FILTER_FLAG_LOG;
pub const FILTER_NEW_LISTENER: u64 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
pub const FILTER_WAIT_KILLABLE: u64 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

/// What `install_filter`'s filter makes getpriority(2) answer: no errno that call has of its own.
pub const FILTERED: Errno = Errno::ENODATA;

/// Kernel release as uname(2) gives it, e.g. `6.8.0-45-generic`.
pub fn kernel_release() -> Result<String> {
    // SAFETY: plain data for which all zeroes is valid.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is valid for the call.
    check(unsafe { libc::uname(&raw mut name) }.into())?;
    // SAFETY: the kernel ends the string with a zero within the array.
    Ok(unsafe { CStr::from_ptr(name.release.as_ptr()) }.to_string_lossy().into_owned())
}

/// The effective capabilities of this process, a bit each (capget(2)).
pub fn effective_capabilities() -> Result<u64> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut sets = [0u32; 6];
    // SAFETY: a version 3 header fills two sets of three words: effective, permitted, inheritable.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) })?;
    Ok(u64::from(sets[0]) | u64::from(sets[3]) << 32)
}

/// Why there is no Landlock: ENOSYS when it is not built in, EOPNOTSUPP when it is not switched on.
pub fn landlock_version() -> Result<u32> {
    const VERSION: u32 = 1;
    // SAFETY: asking for the version takes no attribute.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) })
        .map(|abi| abi as u32)
}

/// Whether filters may answer with `action` (SECCOMP_GET_ACTION_AVAIL, since 4.14).
#[must_use]
pub fn knows_action(action: u32) -> bool {
    // SAFETY: `action` is valid for the call.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// Installs a filter that lets everything pass but getpriority(2), which it fails with [`FILTERED`]. Returns
/// the listener if `flags` ask for one. Needs no_new_privs; cannot be undone.
pub fn install_filter(flags: u64) -> Result<Option<OwnedFd>> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        op(LOAD_WORD, 0, 0, 0),
        op(JUMP_EQUAL, 0, 1, libc::SYS_getpriority as u32),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | FILTERED as u32),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` and the program it leads to are valid for the call.
    let fd =
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) })?;
    // SAFETY: a listener is a new descriptor that nobody else owns.
    Ok((flags & FILTER_NEW_LISTENER != 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// The call that [`install_filter`] bends.
pub fn filtered_call() -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) }).map(drop)
}

/// fork(2) by the C library, whose handlers leave the child a usable allocator even if other threads of
/// the parent were allocating. `None` in the child, which must end by [`super::process::exit_now`].
pub fn fork() -> Result<Option<libc::pid_t>> {
    // SAFETY: no lock but the allocator's, which is handled, is taken by the child's code.
    let pid = check(unsafe { libc::fork() }.into())? as libc::pid_t;
    Ok((pid != 0).then_some(pid))
}

/// Asks for SIGKILL when the parent thread ends, so that no probe outlives its doctor.
pub fn die_with_parent() -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into()).map(drop)
}
