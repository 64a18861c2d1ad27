//! The limits that nothing reports by itself: deadlines, and what has to be measured to be known.

use std::{os::fd::AsFd, time::Duration};

use super::{super::watch::Watch, Supervisor};
use crate::report::{Means, Reason};

/// How often usage is looked at that nothing reports by itself.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);
/// A sandbox takes about a millisecond; only a dead network file system takes this long.
const SETUP_TIME: Duration = Duration::from_secs(60);

impl Supervisor<'_> {
    /// Until when nothing needs to be looked at.
    pub(super) fn next_look(&self) -> Option<Duration> {
        let left = match self.started {
            None => Some(SETUP_TIME.saturating_sub(self.extras.began.elapsed())),
            Some(started) => self.timeout().map(|timeout| timeout.saturating_sub(started.elapsed())),
        };
        let watching = self.watch.is_some() || self.plan.limits.cpu_time.is_some();
        match left {
            Some(left) if watching => Some(left.min(WATCH_INTERVAL)),
            None if watching => Some(WATCH_INTERVAL),
            left => left,
        }
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.plan.steps[self.step].limits.timeout.or(self.plan.limits.timeout)
    }

    /// Kills the sandbox if it is over a limit.
    pub(super) fn look(&mut self) {
        let Some(started) = self.started else {
            if self.extras.began.elapsed() > SETUP_TIME {
                self.kill(Reason::Timeout);
            }
            return;
        };
        if self.ended.is_none() && self.timeout().is_some_and(|timeout| started.elapsed() >= timeout) {
            self.kill(Reason::Timeout);
        }
        let counted =
            self.leaf.as_ref().filter(|_| self.plan.limits.cpu_time.is_some()).and_then(|leaf| leaf.usage().cpu_time);
        let before = self.counted_before.1.cpu_time.unwrap_or_default();
        if self.plan.limits.cpu_time.zip(counted).is_some_and(|(limit, used)| used.saturating_sub(before) >= limit) {
            self.kill(Reason::CpuTime);
        }
        let root = self.root.as_ref().map(AsFd::as_fd);
        let memory = self.watch.as_mut().map(|watch| watch.look(root));
        if memory.is_some_and(|memory| memory > self.memory_limit()) {
            self.kill(Reason::Memory);
        }
    }

    fn memory_limit(&self) -> u64 {
        self.plan.memory(&self.plan.steps[self.step].limits).get()
    }

    /// Without a cgroup nobody counts refused forks; that the limit was reached is what can be seen.
    pub(super) fn watched_pids_full(&self) -> bool {
        let pids = self.plan.pids(&self.plan.steps[self.step].limits);
        self.holds.pids == Means::Rlimit
            && self.watch.as_ref().map(Watch::most_threads).is_some_and(|most| most >= u64::from(pids))
    }
}
