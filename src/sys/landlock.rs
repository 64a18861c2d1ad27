//! Landlock by its three calls (landlock(7)). The `landlock` crate allocates and opens on its own, which a
//! child of a multi-threaded process must not, so only its numbers are repeated here.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Result, check};

pub const EXECUTE: u64 = 1;
pub const WRITE_FILE: u64 = 1 << 1;
pub const READ_FILE: u64 = 1 << 2;
pub const READ_DIR: u64 = 1 << 3;
pub const TRUNCATE: u64 = 1 << 14;
pub const IOCTL_DEV: u64 = 1 << 15;
/// The rights that make sense on what is no directory; others would be EINVAL.
pub const FILE_RIGHTS: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
/// REMOVE_DIR up to MAKE_SYM, and REFER.
pub const CHANGE_DIR: u64 = 0x3ff0;
pub const BIND_TCP: u64 = 1;
pub const CONNECT_TCP: u64 = 1 << 1;
pub const SCOPE_ABSTRACT_UNIX: u64 = 1;
pub const SCOPE_SIGNAL: u64 = 1 << 1;

/// The file rights that an ABI can handle: rights it does not know would be EINVAL.
#[must_use]
pub const fn file_rights(abi: u32) -> u64 {
    match abi {
        0 => 0,
        1 => 0x1fff,
        2 => 0x3fff,
        3 | 4 => 0x7fff,
        _ => 0xffff,
    }
}

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// The ABI that this kernel offers; 0 when Landlock is absent or switched off.
#[must_use]
pub fn abi() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: asking for the version takes no attribute.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    u32::try_from(abi).unwrap_or(0)
}

/// A rule set that denies every handled right which no rule gives. What `abi` does not know is left out.
pub fn create_ruleset(abi: u32, fs: u64, net: u64, scoped: u64) -> Result<OwnedFd> {
    let attr = RulesetAttr { handled_access_fs: fs, handled_access_net: net, scoped };
    let size = match abi {
        0..=3 => 8,
        4 | 5 => 16,
        _ => size_of::<RulesetAttr>(),
    };
    // SAFETY: `attr` is valid for `size` bytes.
    let fd = check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Gives `rights` on the file behind `path`, and on all below it if it is a directory.
pub fn allow_path(ruleset: BorrowedFd<'_>, path: BorrowedFd<'_>, rights: u64) -> Result<()> {
    const PATH_BENEATH: u32 = 1;
    let attr = PathBeneathAttr { allowed_access: rights, parent_fd: path.as_raw_fd() };
    // SAFETY: `attr` is valid for the call.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const attr, 0) })
        .map(drop)
}

/// Binds the calling thread and its future children. Needs no_new_privs.
pub fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}
