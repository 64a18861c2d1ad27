//! Wrapped system calls: the only `unsafe` in fumehood.
//!
//! Each wrapper makes one call, checks its result, and allocates nothing, so that all of them may be
//! used between `clone3` and `execve` in a child of a multi-threaded process (signal-safety(7)).
//! Errors are [`Errno`]s; the caller knows the object and says so.

pub mod aside;
pub mod attributes;
pub mod bpf;
pub mod clone;
pub mod fs;
pub mod heap;
pub mod landlock;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod own_binary;
pub mod probe;
pub mod process;
pub mod remove;
pub mod seccomp;
pub mod shared;
pub mod socket;
pub mod starter;
pub mod trial;
pub mod tty;

pub use nix::errno::Errno;

pub type Result<T> = std::result::Result<T, Errno>;

/// Turns the kernel's -1 into the errno of this thread.
fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result == -1 { Err(Errno::last()) } else { Ok(result) }
}
