//! What is done to a container that is there: signals, pausing, limits, and looking at it.

use std::os::fd::AsFd;

use oci_spec::runtime as oci;

use super::{failed, group_of};
use crate::{
    Error, Result,
    cgroup::container::{Group, OomWatch, Stats},
    error::Hint,
    state::{
        container::{Record, Status},
        root::{ContainerId, StateRoot},
    },
    sys::{Errno, process},
};

/// Engines take a container for gone by these words.
pub const NOT_RUNNING: &str = "container not running";
const NOT_PAUSED: &str = "container not paused";

/// What is known of a container.
pub fn record(root: &StateRoot, id: &ContainerId) -> Result<Record> {
    // Without the lock: a long `create` is to be seen as such.
    root.open(id).and_then(|dir| dir.load()).map_err(Hint::into_error)
}

fn no_group(id: &str) -> Error {
    failed(format!("container {id} has no control group"))
        .with_hint("one that a user without a delegated group made has none; see `--cgroup-manager`")
}

fn group(record: &Record) -> Result<Group> {
    group_of(record)?.filter(Group::exists).ok_or_else(|| no_group(&record.id))
}

/// Sends a signal to the container's init; to all processes with `all`, or where killing the init would leave some.
pub fn kill(root: &StateRoot, id: &ContainerId, signal: i32, all: bool) -> Result<()> {
    let record = record(root, id)?;
    let init = record.init_pidfd();
    // Which of them it is for is for gVisor's kernel to say: on this one they are all its own.
    if record.gvisor.is_some() && init.is_some() && signal != libc::SIGKILL && (all || signal == libc::SIGSTOP) {
        return super::guest::signal(root, id, signal, all);
    }
    let every = all || (signal == libc::SIGKILL && !record.pid_namespace_own);
    if every && let Some(group) = group_of(&record)?.filter(Group::exists) {
        if init.is_none() && !all && group.pids().map_err(Hint::into_error)?.is_empty() {
            return Err(failed(NOT_RUNNING));
        }
        return group.kill_all(signal).map_err(Hint::into_error);
    }
    let Some(init) = init else {
        // Whoever wants all of them dead has what they want (runc, too).
        return if all { Ok(()) } else { Err(failed(NOT_RUNNING)) };
    };
    match process::signal(init.as_fd(), signal) {
        Err(Errno::ESRCH) => return Err(failed(NOT_RUNNING)),
        other => other.map_err(|errno| failed(format!("unable to signal init of {id}: {}", errno.desc())))?,
    }
    // A frozen group of v1 does not die before it is thawed.
    if signal == libc::SIGKILL && record.cgroup.as_ref().is_some_and(|group| group.is_frozen()) {
        _ = group(&record)?.thaw();
    }
    Ok(())
}

/// Stops all processes where they are.
pub fn pause(root: &StateRoot, id: &ContainerId) -> Result<()> {
    let record = record(root, id)?;
    match record.status() {
        Status::Running | Status::Created => group(&record)?.freeze().map_err(Hint::into_error),
        status => Err(failed(format!("{NOT_RUNNING}: {id} is {status}"))),
    }
}

pub fn resume(root: &StateRoot, id: &ContainerId) -> Result<()> {
    let record = record(root, id)?;
    match record.status() {
        Status::Paused => group(&record)?.thaw().map_err(Hint::into_error),
        status => Err(failed(format!("{NOT_PAUSED}: {id} is {status}"))),
    }
}

/// The container's processes, as the caller's pid namespace numbers them.
pub fn processes(root: &StateRoot, id: &ContainerId) -> Result<Vec<i32>> {
    let record = record(root, id)?;
    if let Some(group) = group_of(&record)?.filter(Group::exists) {
        let mut pids = group.pids().map_err(Hint::into_error)?;
        pids.sort_unstable();
        return Ok(pids);
    }
    match record.init.filter(|_| record.status() != Status::Stopped) {
        None => Ok(Vec::new()),
        // Whoever shares its pid namespace is one of its processes, if nobody else made that.
        Some(init) if record.pid_namespace_own => Ok(namespace_members(init.pid)),
        Some(_) => Err(no_group(&record.id)),
    }
}

fn namespace_members(init: i32) -> Vec<i32> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(init) else { return Vec::new() };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<i32> = pids.filter(|pid| namespace(*pid).as_ref() == Some(&own)).collect();
    pids.sort_unstable();
    pids
}

/// Changes what `resources` speaks of, and leaves the other limits.
pub fn update(root: &StateRoot, id: &ContainerId, resources: &oci::LinuxResources) -> Result<()> {
    let dir = root.open(id).map_err(Hint::into_error)?;
    let _lock = dir.lock().map_err(Hint::into_error)?;
    let record = dir.load().map_err(Hint::into_error)?;
    match record.status() {
        Status::Stopped | Status::Creating => Err(failed(format!("{NOT_RUNNING}: {id} is {}", record.status()))),
        _ => group(&record)?.update(resources).map_err(Hint::into_error),
    }
}

/// What the container uses now, and when it runs out of memory.
#[derive(Debug)]
pub struct Usage {
    group: Group,
    record: Record,
}

impl Usage {
    pub fn of(root: &StateRoot, id: &ContainerId) -> Result<Self> {
        let record = record(root, id)?;
        if record.status() == Status::Stopped {
            return Err(failed(format!("container with id {id} is not running")));
        }
        Ok(Self { group: group(&record)?, record })
    }

    pub fn stats(&self) -> Result<Stats> {
        self.group.stats().map_err(Hint::into_error)
    }

    pub fn watch_oom(&self) -> Result<OomWatch> {
        self.group.watch_oom().map_err(Hint::into_error)
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.record.status() == Status::Stopped
    }
}
