//! Files by descriptor: every lookup below a directory that may be hostile goes through `openat2`.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use super::{Errno, Result, check};

/// Never follow a link, never leave the tree (openat2(2), since 5.6).
pub const BENEATH: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
/// Never leave the tree; links that stay in it are followed, those of procfs never.
pub const LINKS_BENEATH: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
/// `/` and `..` stop at the directory; a link on the way is an error, not a detour.
pub const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
/// `/` and `..` stop at the directory; links are followed within it, those of procfs never.
pub const LINKS_IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// Within one mount, through no link.
pub const ONE_MOUNT: u64 = BENEATH | libc::RESOLVE_NO_XDEV;
/// Any path of the host, but no link on the way: for paths that were resolved before.
pub const NO_LINKS: u64 = libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

/// For how long a lookup is tried again while somebody renames what it passes.
const PATIENCE: Duration = Duration::from_secs(1);

/// The process's own working directory as a descriptor argument.
pub fn cwd() -> BorrowedFd<'static> {
    // SAFETY: AT_FDCWD is not a descriptor that can be closed.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
}

pub fn open_in(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    // SAFETY: `open_how` is plain data for which all zeroes is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve;
    let mut deadline = None;
    loop {
        // SAFETY: path and `how` are valid for the call.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        });
        match fd {
            // The tree was renamed under us while `..` or IN_ROOT was checked: the kernel asks to retry. Whoever
            // renames all the time must not keep us here.
            Err(nix::errno::Errno::EAGAIN) => {
                let now = Instant::now();
                if now > *deadline.get_or_insert(now + PATIENCE) {
                    return Err(nix::errno::Errno::EAGAIN);
                }
            }
            // SAFETY: a new descriptor that nobody else owns.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            Err(errno) => return Err(errno),
        }
    }
}

pub fn make_dir(dir: BorrowedFd<'_>, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: path is valid for the call.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), path.as_ptr(), mode) }.into()).map(drop)
}

/// An empty regular file, as a place to mount a file on.
pub fn make_file(dir: BorrowedFd<'_>, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: path is valid for the call.
    check(unsafe { libc::mknodat(dir.as_raw_fd(), path.as_ptr(), libc::S_IFREG | mode, 0) }.into()).map(drop)
}

/// A named pipe.
pub fn make_pipe(dir: BorrowedFd<'_>, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: path is valid for the call.
    check(unsafe { libc::mkfifoat(dir.as_raw_fd(), path.as_ptr(), mode) }.into()).map(drop)
}

pub fn make_symlink(target: &CStr, dir: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    // SAFETY: both paths are valid for the call.
    check(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), path.as_ptr()) }.into()).map(drop)
}

/// Changes the owner of what `path` names below `dir`, never of what it links to.
pub fn change_owner(dir: BorrowedFd<'_>, path: &CStr, uid: u32, gid: u32) -> Result<()> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    // SAFETY: path is valid for the call.
    check(unsafe { libc::fchownat(dir.as_raw_fd(), path.as_ptr(), uid, gid, flags) }.into()).map(drop)
}

/// A device or a pipe; `mode` has its type.
pub fn make_node(dir: BorrowedFd<'_>, path: &CStr, mode: u32, device: libc::dev_t) -> Result<()> {
    // SAFETY: path is valid for the call.
    check(unsafe { libc::mknodat(dir.as_raw_fd(), path.as_ptr(), mode, device) }.into()).map(drop)
}

/// Where the link behind `link` leads; at most `buffer` of it.
pub fn read_link<'a>(link: BorrowedFd<'_>, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    // SAFETY: path and buffer are valid for the call.
    let read = unsafe { libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    check(read as libc::c_long).map(|length| &buffer[..length as usize])
}

/// Changes the mode of an open file, which must not be O_PATH.
pub fn change_mode(file: BorrowedFd<'_>, mode: u32) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::fchmod(file.as_raw_fd(), mode) }.into()).map(drop)
}

/// Writes all of `bytes`.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the slice is valid for its length.
        match check(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) } as libc::c_long) {
            Ok(written) => bytes = &bytes[written as usize..],
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Reads once; 0 is the end.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the slice is valid for its length.
    check(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } as libc::c_long)
        .map(|n| n as usize)
}

/// Reads once into the room that `buffer` has left; 0 is the end.
pub fn read_more(fd: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> Result<usize> {
    let room = buffer.spare_capacity_mut();
    // SAFETY: the room is valid for its length.
    let read = unsafe { libc::read(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
    let read = check(read as libc::c_long)? as usize;
    // SAFETY: the kernel has just written that many bytes.
    unsafe { buffer.set_len(buffer.len() + read) };
    Ok(read)
}

/// Writes once, without raising SIGPIPE's alternative: the caller sees EPIPE or EAGAIN.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the slice is valid for its length.
    check(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) } as libc::c_long)
        .map(|n| n as usize)
}

pub fn change_dir(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::fchdir(fd.as_raw_fd()) }.into()).map(drop)
}

/// Device, inode, mode and size of an open file.
pub fn stat(fd: BorrowedFd<'_>) -> Result<libc::stat> {
    // SAFETY: `stat` is plain data for which all zeroes is valid.
    let mut stat = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is valid for the call.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) }.into())?;
    Ok(stat)
}

fn filesystem(fd: BorrowedFd<'_>) -> Option<libc::statfs> {
    // SAFETY: `statfs` is plain data for which all zeroes is valid.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is valid for the call.
    (unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut stat) } == 0).then_some(stat)
}

/// Which kind it is; unsigned with musl.
#[allow(clippy::unnecessary_cast)]
const fn magic(stat: &libc::statfs) -> i64 {
    stat.f_type as i64
}

/// True when the file system behind `fd` has no free block or no free inode left.
pub fn is_full(fd: BorrowedFd<'_>) -> bool {
    filesystem(fd)
        .is_some_and(|stat| (stat.f_blocks > 0 && stat.f_bfree == 0) || (stat.f_files > 0 && stat.f_ffree == 0))
}

/// Whether the file system behind `fd` is mounted noexec.
pub fn forbids_programs(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: `statvfs` is plain data for which all zeroes is valid.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is valid for the call.
    (unsafe { libc::fstatvfs(fd.as_raw_fd(), &raw mut stat) }) == 0 && stat.f_flag & libc::ST_NOEXEC != 0
}

/// Bytes in use in the file system behind `fd`, if it is of this kind (`*_MAGIC`, statfs(2)).
pub fn used(fd: BorrowedFd<'_>, kind: i64) -> u64 {
    let tmpfs = filesystem(fd).filter(|stat| magic(stat) == kind);
    tmpfs.map_or(0, |stat| (stat.f_blocks - stat.f_bfree) * stat.f_bsize as u64)
}

/// Whether `fd` is of a file system of this kind (`*_MAGIC`, statfs(2)).
pub fn is_of_kind(fd: BorrowedFd<'_>, kind: i64) -> bool {
    filesystem(fd).is_some_and(|stat| magic(&stat) == kind)
}

/// Whether `fd` is of a procfs, or cannot be told.
pub fn is_proc(fd: BorrowedFd<'_>) -> bool {
    filesystem(fd).is_none_or(|stat| magic(&stat) == libc::PROC_SUPER_MAGIC)
}

/// Whether nothing on the mount behind `fd` can be written.
pub fn is_read_only(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: `statvfs` is plain data for which all zeroes is valid.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the buffer is valid for the call.
    (unsafe { libc::fstatvfs(fd.as_raw_fd(), &raw mut stat) } == 0) && stat.f_flag & libc::ST_RDONLY != 0
}

/// A pipe; both ends close on exec.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors, which are then owned here alone.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    // SAFETY: both are new.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Undoes O_NONBLOCK.
pub fn set_blocking(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointer.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }.into())?;
    // SAFETY: takes no pointer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags as i32 & !libc::O_NONBLOCK) }.into()).map(drop)
}

pub fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointer.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }.into())?;
    // SAFETY: takes no pointer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags as i32 | libc::O_NONBLOCK) }.into()).map(drop)
}

/// Renames a file to a name that nothing has yet (renameat2(2), RENAME_NOREPLACE).
pub fn rename_new(from: &CStr, to: &CStr) -> Result<()> {
    rename(cwd(), from, to, libc::RENAME_NOREPLACE)
}

/// Renames within a directory, over what has the new name, be it a link.
pub fn rename_over(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Result<()> {
    rename(dir, from, to, 0)
}

fn rename(dir: BorrowedFd<'_>, from: &CStr, to: &CStr, flags: u32) -> Result<()> {
    let dir = dir.as_raw_fd();
    // SAFETY: both paths are valid for the call.
    check(unsafe { libc::syscall(libc::SYS_renameat2, dir, from.as_ptr(), dir, to.as_ptr(), flags) }).map(drop)
}

pub fn remove_file(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: the path is valid for the call.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) }.into()).map(drop)
}

pub fn remove_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: the path is valid for the call.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) }.into()).map(drop)
}

/// Sets an extended attribute of an open file or directory.
pub fn set_attribute(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: name and value are valid for the call.
    check(unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) }.into())
        .map(drop)
}

/// The names of an open file's extended attributes; none where the file system knows of none.
pub fn attributes(file: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut names: Vec<u8> = Vec::new();
    loop {
        let buffer = if names.is_empty() { std::ptr::null_mut() } else { names.as_mut_ptr().cast() };
        // SAFETY: the buffer is as long as is said; without one, the length is asked for.
        let length = check(unsafe { libc::flistxattr(file.as_raw_fd(), buffer, names.len()) } as i64);
        match length {
            Err(Errno::EOPNOTSUPP) | Ok(0) => return Ok(Vec::new()),
            // There are more by now.
            Err(Errno::ERANGE) => names.clear(),
            Err(errno) => return Err(errno),
            Ok(length) if names.is_empty() => names.resize(length as usize, 0),
            Ok(length) => {
                names.truncate(length as usize);
                let each = names.split_inclusive(|byte| *byte == 0);
                return Ok(each.filter_map(|name| CString::from_vec_with_nul(name.to_vec()).ok()).collect());
            }
        }
    }
}

/// The value of an open file's extended attribute.
pub fn attribute(file: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>> {
    let mut value: Vec<u8> = Vec::new();
    loop {
        let buffer = if value.is_empty() { std::ptr::null_mut() } else { value.as_mut_ptr().cast() };
        // SAFETY: the buffer is as long as is said; without one, the length is asked for.
        let length = check(unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), buffer, value.len()) } as i64);
        match length {
            Ok(0) => return Ok(Vec::new()),
            // It is longer by now.
            Err(Errno::ERANGE) => value.clear(),
            Err(errno) => return Err(errno),
            Ok(length) if value.is_empty() => value.resize(length as usize, 0),
            Ok(length) => {
                value.truncate(length as usize);
                return Ok(value);
            }
        }
    }
}

/// Removes an extended attribute of an open file or directory, if it has it.
pub fn remove_attribute(file: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: the name is valid for the call.
    match check(unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) }.into()) {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
        other => other.map(drop),
    }
}

/// Takes an exclusive lock on an open file.
pub fn lock(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX) }.into()).map(drop)
}

/// Takes a lock on an open file that others may share.
pub fn lock_shared(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_SH) }.into()).map(drop)
}

/// Takes an exclusive lock on an open file, without waiting.
pub fn try_lock(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }.into()).map(drop)
}

/// Gives a lock up, for all who share the open file. There is nothing to be done when it fails.
pub fn unlock(fd: BorrowedFd<'_>) {
    // SAFETY: takes no pointer.
    unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) };
}
