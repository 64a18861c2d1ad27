//! Measures a sandbox that no cgroup measures: by looking at all its processes, again and again.
//!
//! All of them descend from the init, since orphans are given to it. What is looked at is the host's own
//! /proc; of the sandbox nothing is believed.

use std::time::Duration;

/// What all processes of a sandbox use at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    /// Bytes resident and not shared with files.
    pub(super) memory: u64,
    /// CPU time of those that live and those they waited for.
    pub(super) cpu: Duration,
}

#[derive(Debug)]
pub(super) struct Watch {
    init: i32,
    page: u64,
    tick: f64,
    peak: u64,
    most_threads: u64,
}

impl Watch {
    pub(super) fn new(init: i32) -> Self {
        let number = |name| nix::unistd::sysconf(name).ok().flatten().unwrap_or(0);
        Self {
            init,
            page: u64::try_from(number(nix::unistd::SysconfVar::PAGE_SIZE)).unwrap_or(4096),
            tick: number(nix::unistd::SysconfVar::CLK_TCK).max(1) as f64,
            peak: 0,
            most_threads: 0,
        }
    }

    pub(super) fn peak_memory(&self) -> u64 {
        self.peak
    }

    /// Processes and threads at once, but for the init.
    pub(super) fn most_threads(&self) -> u64 {
        self.most_threads.saturating_sub(1)
    }

    pub(super) fn sample(&mut self) -> Sample {
        let mut sample = Sample::default();
        let mut pending = vec![self.init];
        let mut alive = 0;
        while let Some(pid) = pending.pop() {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let (resident, shared) = resident(&read("statm"));
            sample.memory += resident.saturating_sub(shared) * self.page;
            sample.cpu += Duration::from_secs_f64(ticks(&read("stat")) as f64 / self.tick);
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            for thread in threads {
                alive += 1;
                let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                pending.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
        }
        self.most_threads = self.most_threads.max(alive);
        self.peak = self.peak.max(sample.memory);
        sample
    }
}

/// proc_pid_statm(5): the second and third numbers, in pages.
fn resident(statm: &str) -> (u64, u64) {
    let mut numbers = statm.split_ascii_whitespace().skip(1).map(|word| word.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// proc_pid_stat(5): utime, stime, cutime, cstime. The name before them may hold anything, `)` included.
fn ticks(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_ascii_whitespace().skip(11).take(4).filter_map(|word| word.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_shift_the_numbers() {
        let stat = "7 (a) 9 9 (b)) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 0";
        assert_eq!(ticks(stat), 127);
        assert_eq!(ticks(""), 0);
        assert_eq!(resident("10 5 2 1"), (5, 2));
        assert_eq!(resident("x"), (0, 0));
    }

    #[test]
    fn it_sees_this_very_process() {
        let mut watch = Watch::new(std::process::id() as i32);
        assert!(watch.sample().memory > 0);
        assert!(watch.peak_memory() > 0);
    }
}
