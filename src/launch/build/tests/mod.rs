//! Containers' trees, built for real: as root, in a thread that leaves for namespaces of its own, where nothing
//! that it mounts outlives it.

mod flags;
mod links;
mod mounted;
mod races;
mod user;

use std::{
    ffi::CString,
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::sched::CloneFlags;
use oci_spec::runtime as oci;
use serde_json::{Value, json};

pub use super::within::make as within_made;
use super::{Builder, Supply};
use crate::{
    plan::{
        container::{self, CgroupTree, Facts},
        setup::SetupOp,
    },
    sys::{self, Errno, fs as descriptors, mount},
};

/// Whether this test can run; said aloud if not, and in CI a failure.
pub fn root(name: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        use std::io::Write;
        _ = writeln!(std::io::stderr(), "SKIP {name}: the tests do not run as root");
        assert!(std::env::var_os("CI").is_none(), "SKIP {name}: nothing may be skipped in CI");
    }
    root
}

/// Nothing is handed over, or what was made before.
#[derive(Debug, Default)]
pub struct Hand(pub std::cell::RefCell<std::collections::VecDeque<OwnedFd>>);

impl Supply for Hand {
    fn keep(&self, _upper: std::os::fd::BorrowedFd<'_>) -> sys::Result<()> {
        Err(Errno::ENOSYS)
    }

    fn next_mount(&self) -> sys::Result<OwnedFd> {
        self.0.borrow_mut().pop_front().ok_or(Errno::EPIPE)
    }
}

/// A bundle in a directory of its own, with a marker outside of it.
pub struct Bundle {
    place: tempfile::TempDir,
    pub spec: Value,
}

impl Bundle {
    pub fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        for dir in ["rootfs", "outside", "data"] {
            fs::create_dir(place.path().join(dir)).unwrap();
        }
        let spec = json!({
            "ociVersion": "1.2.0", "root": {"path": "rootfs"}, "mounts": [], "linux": {},
            "process": {"args": ["/a"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        });
        Self { place, spec }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn link(&self, name: &str, to: impl AsRef<Path>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, path).unwrap();
    }

    pub fn mount(mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        let source = source.replace("$", self.place.path().to_str().unwrap());
        let mount = json!({"destination": destination, "type": kind, "source": source, "options": options});
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    pub fn proc(self) -> Self {
        self.mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])
    }

    pub fn dev(self) -> Self {
        self.mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]).mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )
    }

    pub fn oci(&self) -> oci::Spec {
        serde_json::from_value(self.spec.clone()).unwrap()
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts {
            bundle: self.place.path(),
            own_mount_namespace: true,
            own_user_namespace: false,
            own_network_namespace: true,
            own_ipc_namespace: true,
            own_uts_namespace: true,
            own_pid_namespace: true,
            cgroup_namespace: true,
            rootless: false,
            cgroup: cgroup_tree(),
            selinux: false,
        }
    }

    pub fn plan(&self) -> Vec<SetupOp> {
        let mut setup = Vec::new();
        container::plan(&self.oci(), &self.facts(), true, &mut setup).unwrap();
        setup
    }

    /// Builds the tree, and looks at it from inside.
    #[track_caller]
    pub fn inside<T: Send>(&self, look: impl FnOnce() -> T + Send) -> T {
        let setup = self.plan();
        apart(move || {
            build(&setup).unwrap();
            look()
        })
    }

    /// What building comes to: why it failed.
    #[track_caller]
    pub fn refused(&self) -> String {
        let before = host_mounts();
        let setup = self.plan();
        let failure = apart(move || build(&setup).expect_err("it was built"));
        assert_eq!(before, host_mounts(), "the host's mounts are not as they were");
        failure
    }

    /// Puts places outside that whoever is led astray would find.
    pub fn bait(&self, names: &[&str]) {
        for name in names {
            self.write(&format!("outside/{name}/x/bait"), "");
        }
    }

    /// Outside there is nothing but bait, and nobody took it.
    #[track_caller]
    pub fn assert_outside_untouched(&self) {
        let outside = self.path("outside");
        let mut todo = vec![outside.clone()];
        while let Some(dir) = todo.pop() {
            for path in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
                let below = path.strip_prefix(&outside).unwrap();
                let first = below.components().next().unwrap();
                let bait = Path::new(&first).join("x/bait");
                assert!(bait.starts_with(below) && outside.join(&bait).is_file(), "made outside of the root: {path:?}");
                if path.is_dir() {
                    todo.push(path);
                }
            }
        }
    }
}

pub fn cgroup_tree() -> CgroupTree {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { CgroupTree::V2 } else { CgroupTree::V1 }
}

pub fn host_mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

pub fn build(setup: &[SetupOp]) -> Result<(), String> {
    let mut builder = Builder::for_container(Hand::default());
    for operation in setup {
        builder
            .carry_out(operation)
            .map_err(|errno| format!("{operation}: {}: {}", errno.desc(), builder.detail().unwrap_or_default()))?;
    }
    Ok(())
}

pub const ALL: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// Runs in a thread with namespaces of its own. Whatever goes wrong in there, the host's mounts do not notice.
#[track_caller]
pub fn apart<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    apart_in(ALL, || {
        let host = descriptors::open_in(descriptors::cwd(), c"/", libc::O_PATH, 0, 0).unwrap();
        mount::set_propagation(host.as_fd(), libc::MS_SLAVE, true).unwrap();
        body()
    })
}

#[track_caller]
pub fn apart_in<T: Send>(namespaces: CloneFlags, body: impl FnOnce() -> T + Send) -> T {
    let result = std::thread::scope(|scope| {
        let body = || {
            nix::sched::unshare(namespaces).unwrap();
            body()
        };
        scope.spawn(body).join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// Nothing that this thread mounts shows on the host.
pub fn private() {
    let host = descriptors::open_in(descriptors::cwd(), c"/", libc::O_PATH, 0, 0).unwrap();
    mount::make_private(host.as_fd()).unwrap();
}

/// A detached copy of what is at `path`.
pub fn copy(path: &Path) -> OwnedFd {
    mount::clone_tree(descriptors::cwd(), &text(path), true).unwrap()
}

pub fn put(tree: &OwnedFd, path: &Path) {
    let target = descriptors::open_in(descriptors::cwd(), &text(path), libc::O_PATH, 0, 0).unwrap();
    mount::attach(tree.as_fd(), target.as_fd()).unwrap();
}

pub fn errno<T>(result: std::io::Result<T>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

/// The last mount on `target`, as options, file system, and the file system's options.
pub fn mounted(target: &str) -> Option<(String, String, String)> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some(target))?.to_owned();
    let (mount, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    let optional: Vec<_> = mount.split(' ').skip(5).collect();
    Some((optional.join(" "), system.next()?.to_owned(), system.nth(1)?.to_owned()))
}

#[track_caller]
pub fn assert_flags(target: &str, there: &[&str], not_there: &[&str]) {
    let (flags, ..) = mounted(target).unwrap_or_else(|| panic!("nothing is mounted on {target}"));
    let has = |word: &&&str| flags.split([',', ' ']).any(|flag| flag.starts_with(**word));
    assert!(there.iter().all(|word| has(&word)), "{target}: {flags}, wanted {there:?}");
    assert!(!not_there.iter().any(|word| has(&word)), "{target}: {flags}, unwanted {not_there:?}");
}
