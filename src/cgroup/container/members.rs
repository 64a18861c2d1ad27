//! The processes of a container: listing them, signalling them all, and waiting for the last to go.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use nix::{errno::Errno, fcntl::OFlag};

use super::{
    super::group::{Group, pids},
    ContainerCgroupError, freeze,
    slots::Slots,
    walk,
};
use crate::sys::process;

type Result<T = ()> = std::result::Result<T, ContainerCgroupError>;

/// What processes that were killed are given to be gone: unmapping a great deal of memory takes a while.
const PATIENCE: Duration = Duration::from_secs(10);

/// All processes of the group and of those nested in it, as pids of the caller's pid namespace.
pub(super) fn list(group: &Group) -> Result<Vec<i32>> {
    let mut all = Vec::new();
    let walked = walk::each_below(group.dir(), |dir| {
        match walk::read(dir, c"cgroup.procs") {
            Ok(text) => all.extend(pids(&text)),
            // A threaded group: its processes are listed by the domain above it. Or it has just gone.
            Err(Errno::EOPNOTSUPP | Errno::ENOENT | Errno::ENODEV) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    });
    match walked {
        Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(all),
        Err(source) => Err(ContainerCgroupError::Io { action: "read", path: group.path("cgroup.procs"), source }),
    }
}

/// Sends the signal to every process. SIGKILL is sent until there is none, others once, to those there are.
pub(super) fn signal(slots: &Slots, signal: i32) -> Result {
    let Some(main) = slots.main() else { return Ok(()) };
    if signal != libc::SIGKILL {
        return standing_still(slots, |processes| send(processes, signal), main);
    }
    let end = Instant::now() + PATIENCE;
    let mut wait = Duration::from_micros(200);
    // The kernel kills all at once, those being forked too (Linux 5.14), frozen or not. On a hybrid host some may
    // have left the group that this can be said of, so whoever is there after a while is killed one by one.
    let at_once = slots.v2().is_some_and(|group| group.write("cgroup.kill", "1").is_ok());
    let mut one_by_one = !at_once;
    loop {
        let processes = list(main)?;
        if processes.is_empty() {
            return Ok(());
        }
        if one_by_one {
            standing_still(slots, |processes| send(processes, signal), main)?;
        }
        one_by_one |= wait > Duration::from_millis(5);
        if Instant::now() > end {
            let state = format!("populated after {} s, by {processes:?}", PATIENCE.as_secs());
            return Err(ContainerCgroupError::Stuck { path: main.own_path().to_owned(), state });
        }
        // A process that v1 has frozen dies when it is thawed.
        if let Some(freezer) = slots.v1("freezer") {
            let _ = freeze::thaw(freezer);
        }
        thread::sleep(wait);
        wait = (wait * 2).min(Duration::from_millis(20));
    }
}

/// Has all processes frozen meanwhile, so that none forks past it; one that cannot be frozen is no reason not to.
fn standing_still(slots: &Slots, act: impl Fn(Vec<(i32, OwnedFd)>) -> Result, main: &Group) -> Result {
    let target = freeze::target(slots).filter(|group| !freeze::is_frozen(group));
    let frozen = target.filter(|group| freeze::freeze(group).is_ok());
    let result = held(main).and_then(act);
    match frozen {
        Some(group) => result.and(freeze::thaw(group)),
        None => result,
    }
}

/// The processes, each with a descriptor that stays its own: those that are in the group after it was opened cannot
/// be others of the same number.
fn held(group: &Group) -> Result<Vec<(i32, OwnedFd)>> {
    let open = |pid| process::open_process(pid).ok().map(|fd| (pid, fd));
    let mut processes: Vec<_> = list(group)?.into_iter().filter_map(open).collect();
    let still = list(group)?;
    processes.retain(|(pid, _)| still.contains(pid));
    Ok(processes)
}

fn send(processes: Vec<(i32, OwnedFd)>, signal: i32) -> Result {
    for (pid, process) in processes {
        match process::signal(process.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(source) => {
                let path = format!("/proc/{pid}").into();
                return Err(ContainerCgroupError::Io { action: "signal", path, source });
            }
        }
    }
    Ok(())
}

/// Puts a process into the group, all its threads.
pub(super) fn admit(group: &Group, pid: i32) -> Result {
    const FILE: &str = "cgroup.procs";
    let failed = |source| ContainerCgroupError::Write { value: pid.to_string(), path: group.path(FILE), source };
    let mut file = File::from(group.open_file(FILE, OFlag::O_WRONLY).map_err(failed)?);
    let mut turn = 0;
    loop {
        let Err(error) = file.write_all(pid.to_string().as_bytes()) else { return Ok(()) };
        match error.raw_os_error().map_or(Errno::EIO, Errno::from_raw) {
            // It is only being born.
            Errno::EINVAL if turn < 5 => thread::sleep(Duration::from_millis(30)),
            errno => return Err(failed(errno)),
        }
        turn += 1;
    }
}

/// Removes the group with what is nested in it, waiting for processes that are just dying.
pub(super) fn remove(group: &Group) -> Result {
    let end = Instant::now() + PATIENCE;
    let mut wait = Duration::from_micros(100);
    let path = group.own_path();
    loop {
        let errno = match std::fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) => super::super::group::errno(&error),
        };
        match errno {
            Errno::ENOENT => return Ok(()),
            Errno::EBUSY | Errno::ENOTEMPTY if Instant::now() < end => {}
            source => return Err(ContainerCgroupError::Io { action: "remove", path: path.to_owned(), source }),
        }
        // What cannot go shows again as EBUSY of the group itself.
        if walk::remove_below(group.dir()).is_err() || wait > Duration::from_micros(100) {
            thread::sleep(wait);
        }
        wait = (wait * 2).min(Duration::from_millis(20));
    }
}
