//! A process by its number and the time it started at: a number that was given to another is not it.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use crate::sys::{Errno, process};

/// The process as a pidfd, unless it is dead or its number is another's by now.
pub(crate) fn open(pid: i32, started: u64) -> Result<Option<OwnedFd>, Errno> {
    if pid <= 0 {
        return Ok(None);
    }
    let process = match process::open_process(pid) {
        Err(Errno::ESRCH) => return Ok(None),
        other => other?,
    };
    // Asked after the pidfd was had: from here on the number cannot become another's. One that nobody
    // has waited for is dead all the same.
    let ours = start_time(pid) == Some(started);
    Ok((ours && !dies(&process, Duration::ZERO)?).then_some(process))
}

/// Whether the process is dead within `time`.
pub(super) fn dies(process: &OwnedFd, time: Duration) -> Result<bool, Errno> {
    let mut dead = [libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    process::poll(&mut dead, Some(time)).map(|ready| ready > 0)
}

/// Field 22 of /proc/PID/stat; the name before it may hold anything.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let mut stat = [0; 512];
    let length = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut stat)).ok()?;
    let stat = String::from_utf8_lossy(&stat[..length]);
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}
