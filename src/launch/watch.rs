//! Measures a sandbox that no cgroup measures: by looking at all its processes, again and again.
//!
//! All of them descend from the init, since orphans are given to it. What is looked at is the host's own
//! /proc; of the sandbox nothing is believed.

#[derive(Debug)]
pub(super) struct Watch {
    init: i32,
    peak: u64,
    most_threads: u64,
}

impl Watch {
    pub(super) const fn new(init: i32) -> Self {
        Self { init, peak: 0, most_threads: 0 }
    }

    /// The most that was seen at once, in bytes.
    pub(super) const fn peak_memory(&self) -> u64 {
        self.peak
    }

    /// Processes and threads at once, but for the init.
    pub(super) const fn most_threads(&self) -> u64 {
        self.most_threads.saturating_sub(1)
    }

    /// The bytes of memory that all processes have now, but for files: each shared page counts once, divided
    /// among those who share it. What is in no process's map (a file in a tmpfs, a pipe) is not seen; the tmpfs
    /// have sizes of their own.
    pub(super) fn look(&mut self) -> u64 {
        let (mut memory, mut alive) = (0, 0);
        let mut pending = vec![self.init];
        while let Some(pid) = pending.pop() {
            // The init's is shut even to us, and is a few pages.
            memory +=
                std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_or(0, |text| proportional(&text));
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            for thread in threads {
                alive += 1;
                let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                pending.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
        }
        self.most_threads = self.most_threads.max(alive);
        self.peak = self.peak.max(memory);
        memory
    }
}

/// /proc/PID/smaps_rollup: `Pss_Anon` and `Pss_Shmem`, in bytes.
fn proportional(rollup: &str) -> u64 {
    let value = |line: &str| line.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    let counted = rollup.lines().filter(|line| line.starts_with("Pss_Anon:") || line.starts_with("Pss_Shmem:"));
    counted.filter_map(value).sum::<u64>() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_counts_and_nonsense_does_not() {
        assert_eq!(proportional("Rss: 9 kB\nPss_Anon:   100 kB\nPss_File: 7 kB\nPss_Shmem: 28 kB\n"), 128 << 10);
        assert_eq!(proportional("Pss_Anon: x\nPss_Shmem:\n"), 0);
    }

    #[test]
    fn it_sees_this_very_process() {
        let mut watch = Watch::new(std::process::id() as i32);
        assert!(watch.look() > 0);
        assert!(watch.peak_memory() > 0);
    }
}
