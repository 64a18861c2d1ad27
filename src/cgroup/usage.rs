//! What a leaf's counters say, and the formats the kernel says it in.

use std::time::Duration;

use crate::request::limits::Bytes;

/// How often limits were hit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Events {
    /// Processes killed because the memory limit was reached. Where the kernel kills all of them (v2), it counts the one
    /// that it chose first twice.
    pub oom_kills: u64,
    /// New processes or threads refused because of the pids limit.
    pub pids_max_hits: u64,
}

/// Whose limit of memory it was that a process was killed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// The leaf's own.
    Own,
    /// That of the [cohort](super::Cohort) that the leaf is in.
    Cohort { most: Bytes },
    /// That of a group above, or all that the host has.
    Above,
}

/// What the processes of a leaf used together, those that ended included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Most memory at any time.
    pub peak_memory: Option<Bytes>,
    /// User and system time.
    pub cpu_time: Option<Duration>,
}

/// The value of `key` in a "flat keyed" file, `KEY VALUE\n…` (kernel, cgroup-v2.rst). A key that is
/// not there counts nothing: 0.
pub(super) fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| number(value))
        .unwrap_or(0)
}

pub(super) fn number(text: &str) -> Option<u64> {
    text.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_keyed_files() {
        let events = "low 0\nhigh 0\nmax 48\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(keyed(events, "oom_kill"), 2);
        assert_eq!(keyed(events, "oom"), 3);
        assert_eq!(keyed(events, "absent"), 0);
        assert_eq!(keyed("oom_kill x\n", "oom_kill"), 0);
        assert_eq!(keyed("", "max"), 0);
        assert_eq!((number("12\n"), number("max\n")), (Some(12), None));
    }
}
