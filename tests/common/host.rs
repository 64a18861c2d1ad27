//! What of the host a sandbox must leave as it was.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::Place;

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
    cgroups(Path::new("/sys/fs/cgroup"), name, 0, &mut left);
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

fn cgroups(dir: &Path, name: &str, depth: u32, left: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if depth < 6 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().contains(name) {
                left.push(format!("cgroup {}", entry.path().display()));
            }
            cgroups(&entry.path(), name, depth + 1, left);
        }
    }
}

/// Waits until `done` is true; whether it came to be. For what the kernel does in its own time after a kill.
pub fn eventually(mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}
