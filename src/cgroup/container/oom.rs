//! Telling that a container ran out of memory.

use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::FileExt},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    super::{group::Group, usage::keyed, v1},
    ContainerCgroupError,
    place::Version,
    slots::Slots,
};

type Result<T = ()> = std::result::Result<T, ContainerCgroupError>;

/// What [`OomWatch::wait`] returned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomEvent {
    /// A process was killed, one or more since the last time.
    Oom,
    /// The container has no process any more, or no group.
    Gone,
    TimedOut,
}

/// Counts the kills in a container's group.
#[derive(Debug)]
pub struct OomWatch {
    /// v1's notice; it comes just before the kill, when the group goes away, and when a group above it runs out.
    notice: Option<v1::OomWatch>,
    /// `memory.oom_control` or `memory.events`, with the counter.
    counter: File,
    /// v2's `cgroup.events`, since nothing is told of a group's going.
    events: Option<File>,
    seen: u64,
}

pub(super) fn watch(slots: &Slots, version: Version) -> Result<OomWatch> {
    let absent = || ContainerCgroupError::NoController {
        setting: "a watch for want of memory".to_owned(),
        controller: "memory".to_owned(),
    };
    let open = |group: &Group, file: &str| {
        let failed = |source| ContainerCgroupError::Io { action: "watch", path: group.path(file), source };
        group.open_file(file, OFlag::O_RDONLY).map(File::from).map_err(failed)
    };
    let mut watch = if version == Version::V1 {
        let group = slots.v1("memory").ok_or_else(absent)?;
        let notice = v1::OomWatch::on(group, ".")?;
        OomWatch { notice: Some(notice), counter: open(group, "memory.oom_control")?, events: None, seen: 0 }
    } else {
        let group = slots.v2().filter(|group| group.has("memory.events")).ok_or_else(absent)?;
        let events = Some(open(group, "cgroup.events")?);
        OomWatch { notice: None, counter: open(group, "memory.events")?, events, seen: 0 }
    };
    watch.seen = watch.count().unwrap_or(0);
    Ok(watch)
}

impl OomWatch {
    /// # Errors
    /// When waiting itself fails.
    pub fn wait(&mut self, timeout: Duration) -> Result<OomEvent> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(event) = self.look() {
                return Ok(event);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(OomEvent::TimedOut);
            }
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds: Vec<_> = self.poll_fds().collect();
            match poll(&mut fds, wait) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(source) => {
                    return Err(ContainerCgroupError::Io { action: "wait for", path: "memory.events".into(), source });
                }
            }
        }
    }

    /// What to poll for, with what; then [`Self::look`].
    pub fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let notice = self.notice.as_ref().map(|notice| PollFd::new(notice.as_fd(), PollFlags::POLLIN));
        let counter = self.events.as_ref().map(|_| PollFd::new(self.counter.as_fd(), PollFlags::POLLPRI));
        let events = self.events.as_ref().map(|events| PollFd::new(events.as_fd(), PollFlags::POLLPRI));
        notice.into_iter().chain(counter).chain(events)
    }

    /// What has happened since the last time, without waiting.
    pub fn look(&mut self) -> Option<OomEvent> {
        if let Some(notice) = &self.notice {
            // The notice is taken; the counter follows it at once, or never.
            notice.settle(|| self.count().is_none_or(|count| count > self.seen));
        }
        let Some(count) = self.count() else { return Some(OomEvent::Gone) };
        if count > self.seen {
            self.seen = count;
            return Some(OomEvent::Oom);
        }
        match self.events.as_ref().map(text_of) {
            Some(None) => Some(OomEvent::Gone),
            Some(Some(text)) if keyed(&text, "populated") == 0 => Some(OomEvent::Gone),
            _ => None,
        }
    }

    /// `None` when the group is gone.
    fn count(&self) -> Option<u64> {
        text_of(&self.counter).map(|text| keyed(&text, "oom_kill"))
    }
}

fn text_of(file: &File) -> Option<String> {
    let mut text = [0; 512];
    let length = file.read_at(&mut text, 0).ok()?;
    Some(String::from_utf8_lossy(&text[..length]).into_owned())
}
