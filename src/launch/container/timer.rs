//! `io.fumehood.timeout`: nobody of ours stays with a container, so one that may only run for so long has a process
//! beside it that does nothing but wait.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use super::program::{self, failed};
use crate::{
    cgroup::container::Group,
    sys::{
        clone::{self, Cloned},
        process,
    },
};

/// Ends the container behind `init` once it has run for `timeout`; `group` opens the group of all its processes.
pub fn end_after(timeout: Duration, init: BorrowedFd<'_>, group: impl FnOnce() -> Option<Group>) -> Result<(), String> {
    let Cloned::Child = clone::clone_process(0, None).map_err(failed("start the timer"))? else { return Ok(()) };
    // Whoever called us must not wait for what we hold open, locks among it.
    _ = process::close_range(0, 2);
    _ = program::close_all_but(vec![init], 0);
    _ = process::new_session();
    process::set_name(c"fumehood-timer");
    process::reset_signals();
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [libc::pollfd { fd: init.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        match process::poll(&mut fds, Some(left)) {
            Ok(0) if left.is_zero() => break,
            Ok(0) => {}
            // It has ended by itself.
            _ => process::exit_now(0),
        }
    }
    _ = process::signal(init.as_fd(), libc::SIGKILL);
    if let Some(group) = group() {
        _ = group.thaw();
        _ = group.kill_all(libc::SIGKILL);
    }
    process::exit_now(0)
}
