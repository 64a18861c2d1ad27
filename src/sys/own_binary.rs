//! The runtime's own binary, out of reach of a container that is root on the host.
//!
//! A process on its way into a container is a copy of ours, and `/proc/PID/exe` leads from inside to our file: held
//! open, it can be written once we are gone (CVE-2019-5736). So before we enter a container whose root is the
//! host's, we execute ourselves again from a mount of the one file that is read-only and in no namespace: what
//! leads to it cannot be opened for writing, and nobody can remount what is mounted nowhere.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, AsRawFd},
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
    let view = mount::clone_tree(ours.as_fd(), c"", false)?;
    mount::set_attributes(view.as_fd(), mount::READ_ONLY, false)?;
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
