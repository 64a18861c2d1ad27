//! An engine that is apart from the rest of the host, and what may be left of it: nothing.
//!
//! A test and all that it starts are in a mount and a network namespace of their own. So bridges, addresses and firewall
//! rules of engines never are the host's, what others mount meanwhile is not seen, and every mount that is there in the
//! end and was not in the beginning is the engine's or the runtime's, wherever it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::common::{
    Place,
    host::{self, eventually},
};

/// podman makes this a mount of its own once, and leaves it so, with every runtime.
const NETNS: &str = "/run/netns";

pub struct Apart {
    mounts: Vec<String>,
    processes: Vec<String>,
    hostname: String,
}

impl Apart {
    /// For the calling thread, and the threads and processes that it will start. Whom the kernel does not allow that
    /// stays where they are.
    pub fn new() -> Self {
        if nix::unistd::geteuid().is_root() {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            // podman's locks are there, the same for all stores: the first call for a new store frees those of all others.
            mount(Some("none"), "/dev/shm", Some("tmpfs"), MsFlags::empty(), Some("mode=1777")).unwrap();
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
            assert!(up.expect("apt install iproute2").success());
        }
        Self { mounts: mounts(), processes: Vec::new(), hostname: hostname() }
    }

    /// What was mounted for the test itself is not what is looked for, and neither are its servers, which see that.
    pub fn look_again(&mut self, place: &Place) {
        self.mounts = mounts();
        self.processes = processes_of(&name(place));
    }

    /// Holds the host to what it was: no process, no cgroup, no record, no mount, and so no namespace that one of them
    /// would hold. `ids` are those of containers.
    #[track_caller]
    pub fn assert_nothing_left(&self, place: &Place, ids: &[String]) {
        let name = name(place);
        let mut left = Vec::new();
        let gone = eventually(|| {
            left = processes_of(&name);
            left.retain(|process| !self.processes.contains(process));
            left.extend(ids.iter().flat_map(|id| host::cgroups(id)).map(|path| format!("cgroup {}", path.display())));
            left.extend(records(place, ids).iter().map(|path| format!("record {}", path.display())));
            let new = mounts().into_iter().filter(|line| !self.mounts.contains(line));
            // Without a namespace of its own, only what is surely the test's.
            let ours = |line: &String| nix::unistd::geteuid().is_root() || line.contains(&name);
            left.extend(new.filter(ours).map(|line| format!("mount {line}")));
            left.is_empty()
        });
        assert!(gone, "left behind: {left:#?}");
        assert_eq!(place.read("marker"), "untouched");
        assert_eq!(hostname(), self.hostname);
    }
}

fn name(place: &Place) -> String {
    place.path().file_name().unwrap().to_string_lossy().into_owned()
}

/// Everything mounted that this thread sees: the process as a whole may be elsewhere.
fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let point = |line: &str| line.split(' ').nth(4) == Some(NETNS);
    text.lines().filter(|line| !point(line)).map(str::to_owned).collect()
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap()
}

/// Processes that have `name` on their command line, or see a mount of it: engines have the first, and every process
/// in a container the second, since its root is below the place.
fn processes_of(name: &str) -> Vec<String> {
    let mut found = host::processes(name);
    let me = std::process::id().to_string();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let number = pid.bytes().all(|byte| byte.is_ascii_digit());
        if number
            && pid != me
            && fs::read_to_string(entry.path().join("mountinfo")).is_ok_and(|text| text.contains(name))
        {
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " ");
            found.push(format!("process {pid}: {command}"));
        }
    }
    found
}

/// What the runtime remembers of containers, below the roots it has by itself and those that engines give it.
fn records(place: &Place, ids: &[String]) -> Vec<PathBuf> {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_container = |path: &PathBuf| ids.iter().any(|id| path.to_string_lossy().contains(id.as_str()));
    let mut found: Vec<_> = entries(Path::new("/run/fumehood-oci")).filter(of_container).collect();
    for dir in ["runtime-dir/fumehood-oci", "exec/runtime-fumehood/moby", "state/runc/default"] {
        found.extend(entries(&place.join(dir)));
    }
    found
}
