//! What of the host a sandbox must leave as it was.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{LONGEST, Place};

/// The variable that marks what was started by a test.
pub const TAG: &str = "FUMEHOOD_TEST_TAG";

/// The host's state that no run may change.
#[derive(Debug, PartialEq, Eq)]
pub struct Look {
    mounts: String,
    hostname: String,
    core_pattern: String,
}

impl Look {
    pub fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            mounts: read("/proc/self/mountinfo"),
            hostname: read("/proc/sys/kernel/hostname"),
            core_pattern: read("/proc/sys/kernel/core_pattern"),
        }
    }

    #[track_caller]
    pub fn assert_unchanged(&self) {
        assert_eq!(*self, Self::now(), "the host is not as it was");
    }
}

/// All that is left of a sandbox called `name`: processes, cgroups, records.
pub fn left_of(name: &str, place: &Place) -> Vec<String> {
    let mut left = processes(name);
    left.extend(cgroups(name).iter().map(|path| format!("cgroup {}", path.display())));
    for dir in [PathBuf::from("/run/fumehood"), place.join("runtime-dir/fumehood")] {
        let names = fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
        left.extend(names.filter(|path| path.to_string_lossy().contains(name)).map(|path| path.display().to_string()));
    }
    left
}

/// Processes that have `name` in their command line or environment. The init has both of the supervisor, whose fork
/// it is; a program has what `--env` gave it.
pub fn processes(name: &str) -> Vec<String> {
    let me = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == me || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let has = |bytes: &[u8]| bytes.windows(name.len()).any(|window| window == name.as_bytes());
        let command = read("cmdline");
        if has(&command) || has(&read("environ")) {
            found.push(format!("process {pid}: {}", String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

/// Cgroups that have `name` in theirs, in all hierarchies.
pub fn cgroups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect_cgroups(Path::new("/sys/fs/cgroup"), name, 0, &mut found);
    found
}

fn collect_cgroups(dir: &Path, name: &str, depth: u32, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if depth < 8 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().contains(name) {
                found.push(entry.path());
            }
            collect_cgroups(&entry.path(), name, depth + 1, found);
        }
    }
}

/// Waits until `done` is true; whether it came to be. For what the kernel does in its own time after a kill.
pub fn eventually(mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + LONGEST;
    while !done() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}
