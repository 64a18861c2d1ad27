//! Mounts by descriptor: the new mount API (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)),
//! Linux 5.12 and later.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::{Errno, Result, check};

pub const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub const NO_DEV: u64 = libc::MOUNT_ATTR_NODEV;
pub const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

const FSOPEN_CLOEXEC: u32 = 1;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const AT_RECURSIVE: u32 = 0x8000;

fn new_fd(result: libc::c_long) -> Result<OwnedFd> {
    // SAFETY: on success these calls return a new descriptor that nobody else owns.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A file system being configured.
pub fn open_filesystem(kind: &CStr) -> Result<OwnedFd> {
    // SAFETY: the name is valid for the call.
    new_fd(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

pub fn configure(context: BorrowedFd<'_>, key: &CStr, value: &CStr) -> Result<()> {
    // SAFETY: both strings are valid for the call.
    check(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0)
    })
    .map(drop)
}

pub fn configure_flag(context: BorrowedFd<'_>, key: &CStr) -> Result<()> {
    // SAFETY: the string is valid for the call; a flag has no value.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_SET_FLAG,
            key.as_ptr(),
            std::ptr::null::<libc::c_char>(),
            0,
        )
    })
    .map(drop)
}

/// Makes the configured file system and returns it mounted nowhere yet.
pub fn create(context: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: the command takes neither key nor value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) })?;
    // SAFETY: takes no pointer.
    new_fd(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}

/// The file system mounted at `tree`, to be configured anew.
pub fn pick_filesystem(tree: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
    // SAFETY: the path is valid for the call.
    new_fd(unsafe { libc::syscall(libc::SYS_fspick, tree.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Makes a picked file system what it was configured to be.
pub fn reconfigure(context: BorrowedFd<'_>) -> Result<()> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: the command takes neither key nor value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_RECONFIGURE, null, null, 0) })
        .map(drop)
}

/// mount(2): for what fsconfig(2) cannot be told. `target` is mounted on itself, through the runtime's own /proc.
pub fn mount_by_flags(source: &CStr, target: BorrowedFd<'_>, kind: &CStr, flags: u64, data: &CStr) -> Result<()> {
    let mut path = *b"/proc/self/fd/..........\0";
    let mut digits = [0u8; 10];
    let (mut number, mut first) = (target.as_raw_fd().unsigned_abs(), digits.len());
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let (start, count) = (b"/proc/self/fd/".len(), digits.len() - first);
    path[start..start + count].copy_from_slice(&digits[first..]);
    path[start + count] = 0;
    // SAFETY: all are strings that end with a NUL byte and are valid for the call.
    check(
        unsafe { libc::mount(source.as_ptr(), path.as_ptr().cast(), kind.as_ptr(), flags, data.as_ptr().cast()) }
            .into(),
    )
    .map(drop)
}

/// A detached copy of the mount at `path`: with all mounts below it if `recursive`.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: the path is valid for the call.
    new_fd(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// Sets attributes on the mount behind `tree`, and on all below it if `recursive`.
pub fn set_attributes(tree: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<()> {
    mount_setattr(tree, libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 }, recursive)
}

/// Sets and clears attributes of the mount behind `tree`, and of all below it if `recursive`.
pub fn change_attributes(tree: BorrowedFd<'_>, set: u64, clear: u64, recursive: bool) -> Result<()> {
    mount_setattr(tree, libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 }, recursive)
}

/// Sets how the mount behind `tree` spreads, and of all below it if `recursive`: one of `MS_SHARED`, `MS_SLAVE`,
/// `MS_PRIVATE`, `MS_UNBINDABLE`.
pub fn set_propagation(tree: BorrowedFd<'_>, propagation: u64, recursive: bool) -> Result<()> {
    mount_setattr(tree, libc::mount_attr { attr_set: 0, attr_clr: 0, propagation, userns_fd: 0 }, recursive)
}

/// Maps the owners of files on the detached mount `tree` through the user namespace behind `user_namespace`
/// (mount_setattr(2), MOUNT_ATTR_IDMAP).
pub fn map_ids(tree: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd() as u64,
    };
    mount_setattr(tree, attributes, recursive)
}

/// Cuts the mount behind `tree` and all below it off from what the host mounts later.
pub fn make_private(tree: BorrowedFd<'_>) -> Result<()> {
    let attributes = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    mount_setattr(tree, attributes, true)
}

fn mount_setattr(tree: BorrowedFd<'_>, attributes: libc::mount_attr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH as u32 | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path and `attributes` are valid for the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Attaches a detached mount on `name` in `dir`: one name, and if that is a link, on the link itself.
pub fn attach_at(tree: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let (from, to) = (tree.as_raw_fd(), dir.as_raw_fd());
    let flags = MOVE_MOUNT_F_EMPTY_PATH;
    // SAFETY: the paths are valid for the call.
    check(unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, name.as_ptr(), flags) }).map(drop)
}

/// Attaches a detached mount on the very file or directory behind `target`.
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let (from, to) = (tree.as_raw_fd(), target.as_raw_fd());
    // SAFETY: the empty paths are valid for the call.
    check(unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags) }).map(drop)
}

/// Takes the mount that is the working directory off the tree again.
pub fn detach_here() -> Result<()> {
    // SAFETY: the path is valid for the call.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into()).map(drop)
}

/// As [`enter_root_here`], where mounts may be shared with the host: letting go of them must not reach it.
pub fn enter_shared_root_here() -> Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let old = super::fs::open_in(super::fs::cwd(), c"/", flags, 0, super::fs::NO_LINKS)?;
    // SAFETY: the paths are valid for the call.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    super::fs::change_dir(old.as_fd())?;
    set_propagation(old.as_fd(), libc::MS_SLAVE, true)?;
    drop(old);
    detach_here()?;
    // SAFETY: the path is valid for the call.
    check(unsafe { libc::chdir(c"/".as_ptr()) }.into())?;
    if mount_id(c"/")? == mount_id(c"/..")? { Ok(()) } else { Err(Errno::EXDEV) }
}

/// Makes `root` the process's root, and nothing else: no mount changes.
pub fn change_root(root: BorrowedFd<'_>) -> Result<()> {
    super::fs::change_dir(root)?;
    // SAFETY: the paths are valid for the calls.
    unsafe {
        check(libc::chroot(c".".as_ptr()).into())?;
        check(libc::chdir(c"/".as_ptr()).into()).map(drop)
    }
}

/// Moves the mounted `root` over the process's root, and makes it that (as switch_root(8)): where the root is a
/// ramfs, which cannot be pivoted away from.
pub fn enter_moved_root(root: BorrowedFd<'_>) -> Result<()> {
    super::fs::change_dir(root)?;
    let flags = MOVE_MOUNT_F_EMPTY_PATH;
    // SAFETY: the paths are valid for the calls.
    unsafe {
        check(libc::syscall(
            libc::SYS_move_mount,
            root.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            c"/".as_ptr(),
            flags,
        ))?;
        check(libc::chroot(c".".as_ptr()).into())?;
        check(libc::chdir(c"/".as_ptr()).into()).map(drop)
    }
}

/// Lets go of what is mounted at `path`, which is followed through no link at its end.
pub fn detach(path: &CStr) -> Result<()> {
    // SAFETY: the path is valid for the call.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }.into()).map(drop)
}

/// Makes the mount that is the working directory the root, and lets go of the old root and all its mounts
/// (pivot_root(2), `pivot_root(".", ".")`). If anything of it were left, `/..` would lead there: that is looked at,
/// and is EXDEV.
pub fn enter_root_here() -> Result<()> {
    // SAFETY: the paths are valid for the calls.
    unsafe {
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        detach_here()?;
        check(libc::chdir(c"/".as_ptr()).into())?;
    }
    if mount_id(c"/")? == mount_id(c"/..")? { Ok(()) } else { Err(Errno::EXDEV) }
}

/// The mount that `path` is on (statx(2), STATX_MNT_ID, since 5.8).
fn mount_id(path: &CStr) -> Result<u64> {
    const STATX_MNT_ID: u32 = 0x1000;
    /// Where `stx_mnt_id` is in a `struct statx`, in words.
    const MOUNT_ID: usize = 0x90 / 8;
    let mut found = [0u64; 32];
    // SAFETY: a `struct statx` has 256 bytes.
    check(unsafe {
        libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), 0, STATX_MNT_ID, found.as_mut_ptr())
    })?;
    Ok(found[MOUNT_ID])
}
