//! Measures a sandbox that no cgroup measures: by looking at all its processes, again and again.
//!
//! All of them descend from the init, since orphans are given to it. What is looked at is the host's own
//! /proc; of the sandbox nothing is believed.

use std::{
    collections::BTreeMap,
    ffi::CStr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
};

use crate::{
    plan::setup::SetupOp,
    sys::{Errno, fs, process},
};

#[derive(Debug)]
pub(super) struct Watch<'a> {
    init: i32,
    /// Where the sandbox has memory with names.
    disks: Vec<(&'a CStr, i64)>,
    peak: u64,
    most_threads: u64,
}

impl<'a> Watch<'a> {
    pub(super) fn new(init: i32, setup: &'a [SetupOp]) -> Self {
        let disks = setup.iter().filter_map(|operation| match operation {
            SetupOp::RootTmpfs { .. } => Some((c".", libc::TMPFS_MAGIC)),
            // It tells of its upper layer. What is read-only tells of the host's disk.
            SetupOp::RootOverlay { writable_bytes: Some(_), on_disk: None, .. } => {
                Some((c".", libc::OVERLAYFS_SUPER_MAGIC))
            }
            SetupOp::Tmpfs { path, .. } => Some((path.full(), libc::TMPFS_MAGIC)),
            _ => None,
        });
        Self { init, disks: disks.collect(), peak: 0, most_threads: 0 }
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
            let threads = match std::fs::read_dir(format!("/proc/{pid}/task")) {
                // Who cannot look must not find that there is nothing.
                Err(error) if blinds(&error) => return u64::MAX,
                threads => threads.into_iter().flatten().flatten(),
            };
            let mut measured = false;
            for thread in threads {
                let thread = thread.path();
                alive += 1;
                let children = std::fs::read_to_string(thread.join("children")).unwrap_or_default();
                pending.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
                // A thread that has ended before the others, as the first one may, shows nothing any more. The init's
                // memory is shut even to us, and is a few pages.
                if !measured && let Ok(text) = std::fs::read_to_string(thread.join("smaps_rollup")) {
                    measured = true;
                    memory += proportional(&text);
                    unnamed.extend(unnamed_files(&thread));
                }
            }
        }
        memory += unnamed.values().sum::<u64>();
        memory += root.map_or(0, |root| self.disks.iter().map(|(path, kind)| in_use(root, path, *kind)).sum());
        self.most_threads = self.most_threads.max(alive);
        self.peak = self.peak.max(memory);
        memory
    }
}

/// Whether it is we who lack something, and not the process that is gone.
fn blinds(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

fn in_use(root: BorrowedFd<'_>, path: &CStr, kind: i64) -> u64 {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    // When the sandbox ends its mounts go, and the directories that they were on are of other kinds.
    fs::open_in(root, path, flags, 0, fs::IN_ROOT).map_or(0, |dir| fs::used(dir.as_fd(), kind))
}

/// The memfds that a thread has open, by inode.
fn unnamed_files(thread: &Path) -> Vec<(u64, u64)> {
    match std::fs::read_dir(thread.join("fd")) {
        Ok(open) => open.flatten().filter_map(|fd| unnamed_file(&fd.path())).collect(),
        // It has another id than we, or made itself undumpable (prctl(2)).
        Err(_) => copied_unnamed_files(thread).unwrap_or_default(),
    }
}

fn unnamed_file(fd: &Path) -> Option<(u64, u64)> {
    std::fs::read_link(fd).ok().filter(|link| link.as_os_str().as_bytes().starts_with(b"/memfd:"))?;
    let found = std::fs::metadata(fd).ok()?;
    Some((found.ino(), found.blocks() * 512))
}

/// The same where its directory cannot be listed: the owner of its user namespace may still copy what it has open.
fn copied_unnamed_files(thread: &Path) -> Option<Vec<(u64, u64)>> {
    let number = thread.file_name()?.to_str()?.parse().ok()?;
    let status = std::fs::read_to_string(thread.join("status")).ok()?;
    let most: i32 = status.lines().find_map(|line| line.strip_prefix("FDSize:"))?.trim().parse().ok()?;
    let thread = process::open_process(number).or_else(|_| process::open_thread(number)).ok()?;
    let mut found = Vec::new();
    for fd in 0..most {
        match process::copy_descriptor(thread.as_fd(), fd) {
            Ok(copy) => found.extend(unnamed_file(Path::new(&format!("/proc/self/fd/{}", copy.as_raw_fd())))),
            Err(Errno::EBADF) => {}
            Err(_) => break,
        }
    }
    Some(found)
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
    fn unnamed_files_are_found_either_way() {
        let memfd = nix::sys::memfd::memfd_create(c"here", nix::sys::memfd::MFdFlags::empty()).unwrap();
        fs::write_all(memfd.as_fd(), &[1; 5000]).unwrap();
        let inode = nix::sys::stat::fstat(&memfd).unwrap().st_ino;
        let me = Path::new("/proc/self/task").join(std::process::id().to_string());
        for found in [unnamed_files(&me), copied_unnamed_files(&me).unwrap()] {
            assert!(found.contains(&(inode, 8192)), "{found:?}");
        }
    }

    #[test]
    fn it_sees_this_very_process() {
        let mut watch = Watch::new(std::process::id() as i32, &[]);
        assert!(watch.look(None) > 0);
        assert!(watch.peak_memory() > 0);
    }
}
