//! Stopping all processes of a container, for `pause` and while they are counted.

use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::FileExt},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    super::{
        group::{Group, errno},
        usage::keyed,
    },
    ContainerCgroupError,
    slots::{Slots, put, read},
};

type Result<T = ()> = std::result::Result<T, ContainerCgroupError>;

const STATE: &str = "freezer.state";
const FREEZE: &str = "cgroup.freeze";
/// As long as runc waits. Processes in uninterruptible sleep do not freeze.
const PATIENCE: Duration = Duration::from_secs(10);

/// The group to freeze, v1's freezer or a v2 one.
pub(super) fn target(slots: &Slots) -> Option<&Group> {
    slots.v1("freezer").or_else(|| slots.v2().filter(|group| group.has(FREEZE)))
}

/// Returns when all processes stand still. When they do not, it thaws them.
pub(super) fn freeze(group: &Group) -> Result {
    let result = if group.has(FREEZE) { freeze_v2(group) } else { freeze_v1(group) };
    if result.is_err() {
        // A container that is half frozen would be of no use and could not be killed.
        let _ = thaw(group);
    }
    result
}

pub(super) fn thaw(group: &Group) -> Result {
    if group.has(FREEZE) { put(group, FREEZE, 0) } else { put(group, STATE, "THAWED") }
}

/// Whether it was frozen itself; a group above it that is frozen does not count.
pub(super) fn is_frozen(group: &Group) -> bool {
    if let Ok(text) = group.read(FREEZE) {
        return text.trim_end() == "1";
    }
    // FREEZING may last: then, too, somebody has asked for it.
    let asked = group.read(STATE).is_ok_and(|state| state.trim_end() != "THAWED");
    asked && group.read("freezer.self_freezing").map_or(true, |own| own.trim_end() == "1")
}

/// v1 may miss processes that are forked meanwhile, and has to be asked again until it has caught all.
fn freeze_v1(group: &Group) -> Result {
    let end = Instant::now() + PATIENCE;
    let mut wait = Duration::from_micros(20);
    for turn in 1_u32.. {
        if turn.is_multiple_of(50) {
            // What forks faster than this can be caught is given a moment to get somewhere else.
            put(group, STATE, "THAWED")?;
            thread::sleep(Duration::from_millis(10));
        }
        put(group, STATE, "FROZEN")?;
        let state = read(group, STATE)?;
        if state.trim_end() == "FROZEN" {
            break;
        }
        if Instant::now() > end {
            let state = state.trim_end().to_owned();
            return Err(ContainerCgroupError::Stuck { path: group.own_path().to_owned(), state });
        }
        thread::sleep(wait);
        wait = (wait * 2).min(Duration::from_millis(5));
    }
    Ok(())
}

fn freeze_v2(group: &Group) -> Result {
    const EVENTS: &str = "cgroup.events";
    let io = |action| move |source| ContainerCgroupError::Io { action, path: group.path(EVENTS), source };
    let events = File::from(group.open_file(EVENTS, OFlag::O_RDONLY).map_err(io("open"))?);
    put(group, FREEZE, 1)?;
    let end = Instant::now() + PATIENCE;
    loop {
        let mut text = [0; 128];
        let length = events.read_at(&mut text, 0).map_err(|error| io("read")(errno(&error)))?;
        if keyed(&String::from_utf8_lossy(&text[..length]), "frozen") == 1 {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let state = "freezing".to_owned();
            return Err(ContainerCgroupError::Stuck { path: group.own_path().to_owned(), state });
        }
        // The kernel tells of any change since this descriptor was last read (POLLPRI).
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(io("watch")(errno)),
        }
    }
}
