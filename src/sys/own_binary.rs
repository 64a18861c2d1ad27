//! The runtime's own binary, out of reach of a container that is root on the host.
//!
//! A process on its way into a container is a copy of ours, and `/proc/PID/exe` leads from inside to our file: held
//! open, it can be written once we are gone (CVE-2019-5736). So before we enter a container whose root is the
//! host's, or the owner of our file, we execute ourselves again from a mount of the one file that is read-only and in no namespace: what
//! leads to it cannot be opened for writing, and nobody can remount what is mounted nowhere.

use std::{
    ffi::{CStr, CString},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
};

use super::{Errno, Result, check, fs, mount, process::StringVector};

/// Returns when the binary is out of reach. Until then the process starts again from the top.
pub fn put_out_of_reach() -> Result<()> {
    let ours = fs::open_in(fs::cwd(), c"/proc/self/exe", libc::O_PATH, 0, 0)?;
    if fs::is_read_only(ours.as_fd()) {
        return Ok(());
    }
    // Opened for reading: a sealed copy of ours tells so, and nothing else has seals.
    let file = fs::open_in(fs::cwd(), c"/proc/self/exe", libc::O_RDONLY, 0, 0)?;
    if is_sealed(file.as_fd()) {
        return Ok(());
    }
    let view = match read_only_view(ours.as_fd()) {
        Ok(view) => view,
        // Only who may mount can have one.
        Err(Errno::EPERM) => sealed_copy(file)?,
        Err(errno) => return Err(errno),
    };
    let strings = |list: Vec<std::ffi::OsString>| {
        let strings: Option<Vec<_>> = list.into_iter().map(|text| CString::new(text.into_vec()).ok()).collect();
        strings.map(StringVector::new).ok_or(Errno::EINVAL)
    };
    let arguments = strings(std::env::args_os().collect())?;
    let environment = strings(
        std::env::vars_os()
            .map(|(name, value)| {
                let mut entry = name;
                entry.push("=");
                entry.push(value);
                entry
            })
            .collect(),
    )?;
    // SAFETY: all strings are null-terminated and alive; it returns only on failure.
    check(unsafe {
        libc::syscall(
            libc::SYS_execveat,
            view.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Whether [`put_out_of_reach`] started this process: the kernel's name of what is executed by descriptor (execveat(2)).
#[must_use]
pub fn is_second_start() -> bool {
    // SAFETY: takes no pointer; the string of AT_EXECFN lies at the end of the stack as long as the process runs.
    let name = unsafe {
        match libc::getauxval(libc::AT_EXECFN) {
            0 => return false,
            at => CStr::from_ptr(at as *const libc::c_char),
        }
    };
    name.to_bytes().starts_with(b"/dev/fd/")
}

fn read_only_view(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    let view = mount::clone_tree(file, c"", false)?;
    mount::set_attributes(view.as_fd(), mount::READ_ONLY, false)?;
    Ok(view)
}

const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

fn is_sealed(file: BorrowedFd<'_>) -> bool {
    // SAFETY: takes no pointer.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals != -1 && seals & SEALS == SEALS
}

/// A copy in memory that nobody can write to any more (memfd_create(2)).
fn sealed_copy(file: OwnedFd) -> Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is valid for the call; the result is a new descriptor that nobody else owns.
    let copy = unsafe {
        let made = match check(libc::memfd_create(c"fumehood".as_ptr(), flags | libc::MFD_EXEC).into()) {
            // Before 6.3 there is no such flag, and all of them can be executed.
            Err(Errno::EINVAL) => check(libc::memfd_create(c"fumehood".as_ptr(), flags).into()),
            made => made,
        };
        OwnedFd::from_raw_fd(made? as i32)
    };
    let (mut from, mut to) = (std::fs::File::from(file), std::fs::File::from(copy));
    std::io::copy(&mut from, &mut to).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    // SAFETY: takes no pointer.
    check(unsafe { libc::fcntl(to.as_raw_fd(), libc::F_ADD_SEALS, SEALS) }.into())?;
    Ok(to.into())
}
