//! Measures a sandbox that no cgroup measures: by looking at all its processes, again and again.
//!
//! All of them descend from the init, since orphans are given to it. What is looked at is the host's own
//! /proc; of the sandbox nothing is believed.

use std::{
    collections::BTreeMap,
    ffi::CStr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
};

use crate::sys::fs;

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
    /// among those who share it. Files in the sandbox's tmpfs and memfds count too, and twice where they are
    /// mapped. System V segments that nobody has attached, and pipes, are not seen.
    pub(super) fn look(&mut self, root: Option<BorrowedFd<'_>>) -> u64 {
        let (mut memory, mut alive) = (0, 0);
        let mut unnamed = BTreeMap::new();
        let mut pending = vec![self.init];
        while let Some(pid) = pending.pop() {
            // The init's is shut even to us, and is a few pages.
            memory +=
                std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_or(0, |text| proportional(&text));
            for (inode, bytes) in unnamed_files(pid) {
                unnamed.insert(inode, bytes);
            }
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            for thread in threads {
                alive += 1;
                let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                pending.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
        }
        memory += unnamed.values().sum::<u64>();
        memory += root.map_or(0, |root| TMPFS.iter().map(|path| in_use(root, path)).sum());
        self.most_threads = self.most_threads.max(alive);
        self.peak = self.peak.max(memory);
        memory
    }
}

/// Where a sandbox has memory with names.
const TMPFS: [&CStr; 3] = [c"sandbox", c"tmp", c"dev/shm"];

fn in_use(root: BorrowedFd<'_>, path: &CStr) -> u64 {
    fs::open_in(root, path, libc::O_PATH | libc::O_DIRECTORY, 0, fs::IN_ROOT).map_or(0, |dir| fs::used(dir.as_fd()))
}

/// The memfds that a process has open, by inode.
fn unnamed_files(pid: i32) -> Vec<(u64, u64)> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let memfds = open.filter(|fd| {
        std::fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str().as_bytes().starts_with(b"/memfd:"))
    });
    memfds.filter_map(|fd| std::fs::metadata(fd.path()).ok()).map(|found| (found.ino(), found.blocks() * 512)).collect()
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
        assert!(watch.look(None) > 0);
        assert!(watch.peak_memory() > 0);
    }
}
