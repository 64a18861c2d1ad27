//! What a process can do to itself and to one other: identity, limits, signals, waiting, exec.

use std::{
    ffi::{CStr, c_char},
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{Errno, Result, check};

/// Fills `buffer` from the kernel's generator.
pub fn random(buffer: &mut [u8]) -> std::io::Result<()> {
    // SAFETY: the slice is valid for its length.
    let got = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    if got == buffer.len() as isize { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Sets a variable of this process's environment; EBUSY if it has other threads, which could be reading it.
pub fn set_variable(name: &str, value: impl AsRef<std::ffi::OsStr>) -> Result<()> {
    let threads =
        std::fs::read_dir("/proc/self/task").map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    if threads.count() != 1 {
        return Err(Errno::EBUSY);
    }
    // SAFETY: there is no other thread, and nothing here makes one.
    unsafe { std::env::set_var(name, value) };
    Ok(())
}

/// Ends the process at once, running nothing.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(status) }
}

/// Does nothing until it is killed, or `parent` ends, whose child this is.
pub fn wait_to_be_killed(parent: i32) -> ! {
    loop {
        // SAFETY: takes no pointer.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // One that ended before is not told of.
            if libc::getppid() != parent {
                libc::_exit(1);
            }
            libc::pause();
        }
    }
}

/// Has this process sent `signal` when its parent ends, whose number is `parent`; `false`: it has ended already.
pub fn hear_of_end(parent: i32, signal: i32) -> Result<bool> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) }.into())?;
    // SAFETY: takes nothing and cannot fail.
    Ok(unsafe { libc::getppid() } == parent)
}

/// As [`close_range`], for all descriptors above 2 but `keep`, which is in order.
pub fn close_others(keep: &[i32]) -> Result<()> {
    let mut next = 3;
    for fd in keep.iter().map(|fd| *fd as u32) {
        if next < fd {
            close_range(next, fd - 1)?;
        }
        next = next.max(fd + 1);
    }
    close_range(next, u32::MAX)
}

pub fn new_session() -> Result<()> {
    // SAFETY: takes no argument.
    check(unsafe { libc::setsid() }.into()).map(drop)
}

/// A session keyring of its own, so that none of the caller's keys can be reached (keyctl(2)).
/// A kernel without keyrings has none to reach.
pub fn new_keyring() -> Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: no name means an anonymous keyring.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<c_char>()) }) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Enters the namespace behind `namespace`, or those of `kinds` (CLONE_NEW*) of the process behind a pidfd (setns(2)).
pub fn join_namespace(namespace: BorrowedFd<'_>, kinds: i32) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kinds) }.into()).map(drop)
}

pub fn set_hostname(name: &CStr) -> Result<()> {
    // SAFETY: the string is valid for its length.
    check(unsafe { libc::sethostname(name.as_ptr(), name.count_bytes()) }.into()).map(drop)
}

/// The name shown by `ps`, at most 15 bytes.
pub fn set_name(name: &CStr) {
    // SAFETY: the string is valid; the call cannot fail for one.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Shuts /proc/PID of this process (exe, fd, mem, environ) to everyone without privilege over it.
pub fn set_undumpable() -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into()).map(drop)
}

/// Gives back what [`set_undumpable`] took: to whoever has the same identity, files of it in /proc, and the right to trace it.
pub fn set_dumpable() -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }.into()).map(drop)
}

pub fn set_no_new_privileges() -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

/// Empties the bounding and ambient sets: nothing executed later can gain a capability (capabilities(7)).
pub fn drop_bounding_capabilities() -> Result<()> {
    for capability in 0..64 {
        // SAFETY: takes no pointer. EINVAL: past the last capability of this kernel.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into()) {
            Err(Errno::EINVAL) => break,
            other => other?,
        };
    }
    // SAFETY: takes no pointer.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into()).map(drop)
}

/// Empties the effective, permitted and inheritable sets.
pub fn drop_capabilities() -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: a version 3 header takes two sets of three words.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) }).map(drop)
}

/// Real, effective and saved group and user. By number straight to the kernel: the C library's would
/// signal other threads, of which there are none. Groups are emptied first where the kernel lets us.
pub fn become_user(uid: u32, gid: u32, clear_groups: bool) -> Result<()> {
    // SAFETY: numbers only; no group list is read when its length is 0.
    unsafe {
        if clear_groups {
            check(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()))?;
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// A soft and hard limit (setrlimit(2)).
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is valid for the call.
    check(unsafe { libc::setrlimit(resource as _, &raw const limit) }.into()).map(drop)
}

/// Makes `fd` the process's descriptor `number`, open across exec.
pub fn install_fd(fd: BorrowedFd<'_>, number: i32) -> Result<()> {
    if fd.as_raw_fd() == number {
        // SAFETY: takes no pointer.
        return check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: takes no pointer; whatever `number` was is closed, as intended.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// A copy of `fd` that is closed by exec, numbered `least` or more.
pub fn copy_above(fd: BorrowedFd<'_>, least: i32) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: takes no pointer; the result is a new descriptor that nobody else owns.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) }.into())
        .map(|fd| unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) })
}

/// Marks every descriptor from `first` on as closed by exec (close_range(2), since 5.11).
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes the descriptors `first..=last`, which the caller must not own any more.
pub fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: used in a fresh child, where the Rust owners of these descriptors never run again.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// A null-terminated vector of strings for execve.
#[derive(Debug)]
pub struct StringVector {
    pointers: Vec<*const c_char>,
    _strings: Vec<std::ffi::CString>,
}

impl StringVector {
    #[must_use]
    pub fn new(strings: Vec<std::ffi::CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }

    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    #[must_use]
    pub fn as_strings(&self) -> Strings<'_> {
        Strings(&self.pointers)
    }
}

/// A null-terminated vector of strings that somebody else owns.
#[derive(Debug, Clone, Copy)]
pub struct Strings<'a>(&'a [*const c_char]);

impl<'a> Strings<'a> {
    /// Strings that lie one after the other, each with its NUL, with `room` for pointers to them, of which what is not
    /// needed is given back. Allocates nothing. `None`: there is not enough room, or the last has no NUL.
    pub fn lay_out(text: &'a [u8], room: &'a mut [*const c_char]) -> Option<(Self, &'a mut [*const c_char])> {
        if text.last().is_some_and(|last| *last != 0) {
            return None;
        }
        let mut count = 0;
        for string in text.split_inclusive(|byte| *byte == 0) {
            *room.get_mut(count)? = string.as_ptr().cast();
            count += 1;
        }
        *room.get_mut(count)? = std::ptr::null();
        let (used, left) = room.split_at_mut(count + 1);
        Some((Self(used), left))
    }

    pub fn iter(self) -> impl Iterator<Item = &'a CStr> {
        let strings = self.0.split_last().map_or(&[][..], |(_, strings)| strings);
        // SAFETY: each leads to a string with a NUL that lives as long as `'a`: both constructors saw to that.
        strings.iter().map(|string| unsafe { CStr::from_ptr(*string) })
    }
}

// SAFETY: the pointers lead into `_strings`, which is owned, never changed, and heap-allocated.
unsafe impl Send for StringVector {}
// SAFETY: as above; nothing is ever written through the pointers.
unsafe impl Sync for StringVector {}

/// Replaces the process; returns only on failure.
pub fn exec(path: &CStr, arguments: &StringVector, environment: &StringVector) -> Errno {
    exec_strings(path, arguments.as_strings(), environment.as_strings())
}

/// As [`exec`].
pub fn exec_strings(path: &CStr, arguments: Strings<'_>, environment: Strings<'_>) -> Errno {
    // SAFETY: both vectors are null-terminated and their strings alive.
    unsafe { libc::execve(path.as_ptr(), arguments.0.as_ptr(), environment.0.as_ptr()) };
    Errno::last()
}

pub fn set_file_mask(mask: u32) {
    // SAFETY: takes no pointer and cannot fail.
    unsafe { libc::umask(mask) };
}

/// The CPU time that all threads of another process have used, by its number.
pub fn cpu_time(pid: i32) -> Result<std::time::Duration> {
    // The kernel's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), which is what clock_getcpuclockid(3) makes.
    let clock = (!pid << 3) | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) }.into())?;
    Ok(std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Signals the process behind a pidfd: never another that got its number.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no siginfo means the kernel fills it in as for kill(2).
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) }).map(drop)
}

/// A descriptor for a process by number (pidfd_open(2)).
pub fn open_process(pid: i32) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: takes no pointer; the result is a new descriptor that nobody else owns.
    check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
        .map(|fd| unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) })
}

/// The same for one thread of several (PIDFD_THREAD, since 6.9).
pub fn open_thread(tid: i32) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    const THREAD: i32 = libc::O_EXCL;
    // SAFETY: takes no pointer; the result is a new descriptor that nobody else owns.
    check(unsafe { libc::syscall(libc::SYS_pidfd_open, tid, THREAD) })
        .map(|fd| unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) })
}

/// A copy of a descriptor of another process, whom this one may trace (pidfd_getfd(2), since 5.6).
pub fn copy_descriptor(process: BorrowedFd<'_>, number: i32) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: takes no pointer; the result is a new descriptor that nobody else owns.
    check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
        .map(|fd| unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) })
}

/// Kills every process this one can see but itself: all of a pid namespace, when called by its init.
pub fn kill_all() {
    // SAFETY: takes no pointer; only ever called by a pid namespace's init. ESRCH: there is none.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// How a process ended, and what it and the children it waited for used.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub pid: libc::pid_t,
    /// As waitpid(2) gives it.
    pub status: i32,
    pub cpu: std::time::Duration,
    /// Peak resident set of the largest single process, in bytes.
    pub peak_resident: u64,
}

/// Waits for a child of either kind (`__WALL`); `None` when none has ended and `block` is false.
pub fn wait(pid: libc::pid_t, block: bool) -> Result<Option<Ended>> {
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    // SAFETY: `rusage` is plain data for which all zeroes is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    loop {
        // SAFETY: both pointers are valid for the call.
        match check(unsafe { libc::wait4(pid, &raw mut status, flags, &raw mut usage) }.into()) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(0) => return Ok(None),
            Ok(pid) => {
                return Ok(Some(Ended {
                    pid: pid as libc::pid_t,
                    status,
                    cpu: cpu_of(&usage),
                    peak_resident: usage.ru_maxrss as u64 * 1024,
                }));
            }
        }
    }
}

fn cpu_of(usage: &libc::rusage) -> std::time::Duration {
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    std::time::Duration::from_micros(micros(usage.ru_utime) + micros(usage.ru_stime))
}

/// What the children that were waited for used, and theirs (getrusage(2)).
pub fn cpu_of_children() -> std::time::Duration {
    // SAFETY: `rusage` is plain data for which all zeroes is valid, and is what getrusage writes.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    cpu_of(&usage)
}

/// Blocks `signals` in this thread and returns a descriptor that reads them instead. Those that whoever started
/// us had ignored stay so, as nohup(1) and a shell's background jobs want it; blocked, they would be queued.
pub fn take_signals(signals: &[i32]) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: `set` is initialised by sigemptyset; the pointers are valid for the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            let mut now: libc::sigaction = std::mem::zeroed();
            let ignored =
                libc::sigaction(*signal, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN;
            if !ignored {
                libc::sigaddset(&raw mut set, *signal);
            }
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
        let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())?;
        Ok(std::os::fd::OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Reads one signal number off a descriptor made by [`take_signals`].
pub fn read_signal(fd: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: plain data for which all zeroes is valid.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is valid for its size.
    let got = unsafe { libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size_of_val(&info)) };
    (got == size_of_val(&info) as isize).then_some(info.ssi_signo as i32)
}

/// Default action and no blocking for every signal: what a fresh program expects.
pub fn reset_signals() {
    // SAFETY: `set` is initialised by sigemptyset. SIGKILL, SIGSTOP and the C library's own refuse: as wanted.
    unsafe {
        for signal in 1..32 {
            let mut old: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut old) == 0 && old.sa_sigaction != libc::SIG_DFL {
                old.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const old, std::ptr::null_mut());
            }
        }
    }
    unblock_signals();
}

/// Also what is executed next ignores it.
pub fn ignore_signal(signal: i32) {
    // SAFETY: plain data for which all zeroes is valid, and an action that calls nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_IGN;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
}

/// No signal is blocked any more.
pub fn unblock_signals() {
    // SAFETY: `set` is initialised by sigemptyset.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Waits until one of `fds` is ready or `timeout` (rounded up to a millisecond) has passed.
pub fn poll(fds: &mut [libc::pollfd], timeout: Option<std::time::Duration>) -> Result<usize> {
    let timeout = timeout.map_or(-1, |t| t.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32);
    // SAFETY: the slice is valid for its length.
    match check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as _, timeout) }.into()) {
        Err(Errno::EINTR) => Ok(0),
        other => other.map(|n| n as usize),
    }
}

/// Ends at once, as if it had been killed from outside.
pub fn kill_self() {
    // SAFETY: takes no pointer.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

/// This process's number, in its own pid namespace. Asked of the kernel, as after a clone no cache knows.
#[must_use]
pub fn id() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_getpid) as i32 }
}
