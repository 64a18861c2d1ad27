//! `delete`: the end of a container's record, whatever state it or its runtime was left in.

use std::time::Duration;

use super::{failed, group_of};
use oci_spec::runtime as oci;

use crate::{
    Result,
    cgroup::container::Group,
    error::Hint,
    launch::container::{EGRESS_GRACE, hooks},
    spec::container as spec,
    state::{
        StateError,
        container::{Record, Status},
        root::{ContainerId, Dir, StateRoot},
    },
    sys::process,
};

/// How long a killed container may take to be gone: its memory has to be freed.
const DYING: Duration = Duration::from_secs(10);

/// Removes what is left of a container that has stopped or never ran; `force` ends it first, and is content when
/// there is none. `warn` is told what goes wrong and stops nothing.
pub fn delete(root: &StateRoot, id: &ContainerId, force: bool, warn: fn(&str)) -> Result<()> {
    match root.open(id).and_then(|dir| Ok((dir.lock()?, dir))) {
        // Whoever was before us may have done it, while we waited.
        Err(StateError::ContainerMissing(_)) if force => Ok(()),
        Err(error) => Err(error.into_error()),
        Ok((_lock, dir)) => locked(dir, id, force, warn),
    }
}

fn locked(dir: Dir, id: &ContainerId, force: bool, warn: fn(&str)) -> Result<()> {
    let record = match dir.load() {
        Ok(record) => record,
        // Its maker was killed before it made anything else. It is no container, and its name is free again.
        Err(error @ StateError::ContainerMissing(_)) => {
            dir.remove().map_err(Hint::into_error)?;
            return if force { Ok(()) } else { Err(error.into_error()) };
        }
        // Nothing can be found by it any more.
        Err(StateError::Broken { why, .. }) if force => {
            warn(&format!("container {id}: its state cannot be read, and is removed: {why}"));
            return dir.remove().map_err(Hint::into_error);
        }
        Err(error) => return Err(error.into_error()),
    };
    let status = record.status();
    if matches!(status, Status::Running | Status::Paused) && !force {
        return Err(failed(format!("cannot delete container {id} that is not stopped: {status}"))
            .with_hint(format!("`kill {id} KILL` ends it, or `delete --force {id}`")));
    }
    if let Some(init) = record.init_pidfd() {
        // ESRCH: gone already.
        _ = process::signal(std::os::fd::AsFd::as_fd(&init), libc::SIGKILL);
    }
    let group = group_of(&record)?;
    if let Some(group) = &group {
        // Those of a pid namespace die with its init. A frozen one dies when it is thawed (v1).
        if status != Status::Stopped {
            _ = group.thaw();
        }
        if force || !record.pid_namespace_own || status == Status::Creating {
            _ = group.kill_all(libc::SIGKILL);
        }
    }
    if !record.ends_within(DYING).map_err(Hint::into_error)? {
        return Err(failed(format!("container init still running: {id} was killed and does not die")));
    }
    end_proxy(&record, force)?;
    if let Some(group) = group {
        group.remove().map_err(Hint::into_error)?;
    }
    let spec = dir.read_config().ok().and_then(|bytes| spec::parse(bytes.into()).ok());
    forget(dir, &record, spec.as_ref().and_then(|found| found.spec.hooks().as_ref()), warn)
}

/// As [`delete`], of a container whose init the caller has seen end, and of which it knows all that is on record.
pub(super) fn ended(dir: Dir, record: &Record, hooks: Option<&oci::Hooks>, warn: fn(&str)) -> Result<()> {
    let _lock = match dir.lock() {
        Err(StateError::ContainerMissing(_)) => return Ok(()),
        lock => lock.map_err(Hint::into_error)?,
    };
    if let Some(place) = &record.cgroup
        && !Group::remove_empty(place)
        && let Some(group) = group_of(record)?
    {
        group.kill_all(libc::SIGKILL).and_then(|()| group.remove()).map_err(Hint::into_error)?;
    }
    end_proxy(record, false)?;
    forget(dir, record, hooks, warn)
}

/// Of a container that has ended: its proxy does so, too, when what was sent last is through.
fn end_proxy(record: &Record, now: bool) -> Result<()> {
    let Some(egress) = &record.egress else { return Ok(()) };
    if now || !egress.ends_within(EGRESS_GRACE) {
        egress.kill();
    }
    match egress.ends_within(DYING) {
        true => Ok(()),
        false => {
            Err(failed(format!("the process that filters the network of {} was killed and does not die", record.id)))
        }
    }
}

/// The last of it: the hooks that are due, and the directory.
fn forget(dir: Dir, record: &Record, hooks: Option<&oci::Hooks>, warn: fn(&str)) -> Result<()> {
    if let Some(place) = &record.resctrl {
        place.remove().map_err(Hint::into_error)?;
    }
    // The specification: what they fail at is said, and all goes on. Before the directory is gone, so that those of a
    // runtime that was killed here are run by the next.
    let poststop = hooks.and_then(|hooks| hooks.poststop().as_ref());
    if let Err(why) = hooks::run("poststop", poststop, &hooks::state(record, Status::Stopped, 0)) {
        warn(&why);
    }
    dir.remove().map_err(Hint::into_error)
}
