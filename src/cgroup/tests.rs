//! Real groups, real processes. Each test works in a group of its own below the caller's, so that it
//! shares nothing with sandboxes of this machine. Without a writable cgroup they say so and skip.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::fd::{AsRawFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    unistd::{dup, getuid},
};

use super::*;

/// A hierarchy whose base is a group made for one test.
struct Nest {
    hierarchy: Hierarchy,
    paths: Vec<PathBuf>,
}

impl Nest {
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fumehood-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        match Hierarchy::detect() {
            Hierarchy::None { why } => {
                assert_ne!(promised(), Some("v2".into()), "{why}");
                eprintln!("skipped: {why}");
                None
            }
            Hierarchy::V1(tree) => {
                assert_ne!(promised(), Some("v2".into()));
                let paths: Vec<_> = tree.paths(&name).collect();
                paths.iter().for_each(|path| fs::create_dir(path).unwrap());
                Some(Self { hierarchy: at_v1(&name), paths })
            }
            Hierarchy::V2(tree) => {
                for controller in ["memory", "pids", "cpu"] {
                    let _ = fs::write(tree.path("cgroup.subtree_control"), format!("+{controller}"));
                }
                fs::create_dir(tree.path(&name)).unwrap();
                let paths = vec![tree.path(&name)];
                Some(Self { hierarchy: Hierarchy::at_v2(&paths[0]), paths })
            }
        }
    }

    /// Its hierarchy once more, as another process has it.
    fn again(&self) -> Hierarchy {
        match &self.hierarchy {
            Hierarchy::V1(_) => at_v1(self.paths[0].file_name().unwrap().to_str().unwrap()),
            _ => Hierarchy::at_v2(&self.paths[0]),
        }
    }

    /// A cohort, and where its leaves are made.
    fn cohort(&self, caps: &Caps) -> (Cohort, Hierarchy) {
        let cohort = self.hierarchy.cohort(caps, Bytes::new(0)).unwrap();
        let within = self.again().within(Some(cohort.place()));
        (cohort, within)
    }

    /// The file of this name in v1 or v2 terms, in whichever tree has it.
    fn read(&self, group: &str, v1: &str, v2: &str) -> String {
        let file = if self.hierarchy.kind() == "v1" { v1 } else { v2 };
        let found = self.paths.iter().find_map(|path| fs::read_to_string(path.join(group).join(file)).ok());
        found.unwrap_or_else(|| panic!("no {file}")).trim_end().to_owned()
    }

    /// What lies in the parent group, in all trees.
    fn leaves(&self) -> Vec<PathBuf> {
        let entries = self.paths.iter().filter_map(|path| fs::read_dir(path.join(PARENT)).ok()).flatten();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }
}

/// The trees of v1, below the caller's own groups.
fn at_v1(name: &str) -> Hierarchy {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own: String = own.lines().map(|line| format!("{}/{name}\n", line.trim_end_matches('/'))).collect();
    Hierarchy::V1(Arc::new(detect::detect_v1(&own).unwrap()))
}

impl Drop for Nest {
    fn drop(&mut self) {
        self.paths.iter().for_each(|path| _ = group::remove_tree(path));
    }
}

/// What scripts/vm says that there is.
fn promised() -> Option<std::ffi::OsString> {
    std::env::var_os("FUMEHOOD_TEST_CGROUP")
}

fn id(name: &str) -> SandboxId {
    SandboxId::parse(name).unwrap()
}

fn caps() -> Caps {
    Caps { memory: Some(Bytes::mib(64)), pids: Some(16), cpu: Some(CpuBandwidth::cpus(0.5)), count_cpu_time: true }
}

/// Forks as the launcher does, straight into the leaf, and runs `code` there.
const LAUNCHER: &str = r"
import ctypes, os, struct, sys
into, joins, code = int(sys.argv[1]), sys.argv[2].split(), sys.argv[3]
if into >= 0:
    clone3, CLONE_INTO_CGROUP, SIGCHLD = 435, 1 << 33, 17
    args = struct.pack('11Q', CLONE_INTO_CGROUP, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, into)
    pid = ctypes.CDLL(None).syscall(clone3, args, len(args))
else:
    pid = os.fork()
if pid < 0:
    sys.exit('clone3 failed')
if pid > 0:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.exit(128 - status if status < 0 else status)
try:
    for fd in joins:
        os.write(int(fd), b'0')
    exec(code)
except BaseException as error:
    print(repr(error), file=sys.stderr, flush=True)
    os._exit(1)
os._exit(0)
";

fn inside(leaf: &Leaf, code: &str) -> Child {
    inside_of(leaf.clone_into(), leaf.join_fds(), code)
}

pub(super) fn inside_of<'a>(
    into: Option<BorrowedFd<'_>>,
    joins: impl Iterator<Item = BorrowedFd<'a>>,
    code: &str,
) -> Child {
    // Without close-on-exec, to be passed on.
    let into: Option<OwnedFd> = into.map(|fd| dup(fd).unwrap());
    let joins: Vec<OwnedFd> = joins.map(|fd| dup(fd).unwrap()).collect();
    let into = into.as_ref().map_or(-1, AsRawFd::as_raw_fd).to_string();
    let joined: Vec<_> = joins.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let mut python = Command::new("python3");
    python.args(["-c", LAUNCHER, &into, &joined.join(" "), code]);
    python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

pub(super) fn line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn limits_are_what_the_kernel_says_they_are() {
    let Some(nest) = Nest::new() else { return };
    let leaf = nest.hierarchy.create(&id("job"), &caps()).unwrap();
    let read = |v1, v2| nest.read("fumehood/job", v1, v2);
    assert_eq!(read("memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(read("pids.max", "pids.max"), "16");
    assert_eq!(read("cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("50000"));

    // Up and down again: on v1 the order of the two memory files depends on the direction.
    for mib in [128, 32] {
        leaf.set_memory(Bytes::mib(mib)).unwrap();
        assert_eq!(read("memory.limit_in_bytes", "memory.max"), (mib << 20).to_string());
        if nest.hierarchy.kind() == "v2" {
            assert_eq!(read("", "memory.swap.max"), "0");
        } else if nest.paths.iter().any(|path| path.join("memory.memsw.limit_in_bytes").exists()) {
            assert_eq!(read("memory.memsw.limit_in_bytes", ""), (mib << 20).to_string());
        } else {
            assert_eq!(read("memory.swappiness", ""), "0");
        }
    }
    leaf.set_pids(7).unwrap();
    assert_eq!(read("pids.max", "pids.max"), "7");
    leaf.set_cpu(CpuBandwidth::new(20_000, 50_000)).unwrap();
    assert_eq!(read("cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("20000"));
    assert_eq!(read("cpu.cfs_period_us", "cpu.max").split(' ').next_back(), Some("50000"));

    leaf.remove().unwrap();
    assert_eq!(nest.leaves(), Vec::<PathBuf>::new());
}

#[test]
fn running_out_of_memory_kills_and_is_told() {
    let Some(nest) = Nest::new() else { return };
    let leaf = nest.hierarchy.create(&id("job"), &caps()).unwrap();
    assert_eq!(leaf.events().unwrap(), Events::default());
    let watch = leaf.watch_oom().unwrap();
    let mut child = inside(&leaf, "x = b'x' * (256 << 20)");
    if let Some(watch) = &watch {
        assert_eq!(poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20_000_u16)), Ok(1));
        assert!(watch.struck());
    }
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    // v2, which kills the whole leaf, counts the process that it chose first twice.
    assert!(leaf.events().unwrap().oom_kills >= 1);
    assert!(leaf.usage().peak_memory.is_none_or(|peak| peak > Bytes::mib(32) && peak <= Bytes::mib(65)));
    leaf.remove().unwrap();
}

/// The kernel notifies every group below the one that ran out.
#[test]
fn a_cohort_running_out_does_not_accuse_the_neighbours() {
    let Some(nest) = Nest::new() else { return };
    let (cohort, within) = nest.cohort(&Caps { memory: Some(Bytes::mib(48)), ..Caps::default() });
    assert_eq!(nest.read(&cohort.place().name, "memory.limit_in_bytes", "memory.max"), (48 << 20).to_string());
    let guilty = within.create(&id("guilty"), &caps()).unwrap();
    let neighbour = within.create(&id("neighbour"), &caps()).unwrap();
    let watches = (guilty.watch_oom().unwrap(), neighbour.watch_oom().unwrap());
    assert_eq!(inside(&guilty, "x = b'x' * (60 << 20)").wait().unwrap().code(), Some(128 + 9));
    assert!(guilty.events().unwrap().oom_kills >= 1);
    assert_eq!(guilty.shortage(), Shortage::Cohort { most: Bytes::mib(48) });
    assert_eq!(neighbour.events().unwrap().oom_kills, 0);
    if let (Some(guilty), Some(neighbour)) = watches {
        assert!(guilty.struck() && !neighbour.struck());
    }
    // One that has less than all together is short of its own, whoever was short before.
    let small = within.create(&id("small"), &Caps { memory: Some(Bytes::mib(16)), ..caps() }).unwrap();
    assert_eq!(inside(&small, "x = b'x' * (60 << 20)").wait().unwrap().code(), Some(128 + 9));
    assert_eq!(small.shortage(), Shortage::Own);
}

/// Each is within its limit, and one of them has to go.
#[test]
fn those_of_a_cohort_have_no_more_together() {
    let Some(nest) = Nest::new() else { return };
    let (_cohort, within) = nest.cohort(&Caps { memory: Some(Bytes::mib(80)), ..Caps::default() });
    let leaves = ["first", "second"].map(|name| within.create(&id(name), &caps()).unwrap());
    let mut first = inside(&leaves[0], "x = b'x' * (40 << 20); print('has it', flush=True); sys.stdin.read(1)");
    assert_eq!(line(&mut first), "has it");
    let second = inside(&leaves[1], "x = b'x' * (50 << 20)").wait().unwrap();
    drop(first.stdin.take());
    let first = first.wait().unwrap();
    let killed: Vec<_> = leaves.iter().filter(|leaf| leaf.events().unwrap().oom_kills > 0).collect();
    assert_eq!(killed.len(), 1, "{first:?} {second:?}");
    assert_eq!(killed[0].shortage(), Shortage::Cohort { most: Bytes::mib(80) });
    assert_eq!([first, second].iter().filter(|status| status.code() == Some(128 + 9)).count(), 1);
}

/// A group above that is no cohort, as that of a container.
#[test]
fn a_shortage_above_is_told_from_ones_own() {
    let Some(nest) = Nest::new() else { return };
    let leaf = nest.hierarchy.create(&id("job"), &caps()).unwrap();
    let limit = [("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"), ("memory.max", "memory.swap.max")];
    let (file, swap) = limit[usize::from(nest.hierarchy.kind() == "v2")];
    let parent = nest.paths.iter().map(|path| path.join(PARENT)).find(|path| path.join(file).exists()).unwrap();
    fs::write(parent.join(file), (32 << 20).to_string()).unwrap();
    _ = fs::write(parent.join(swap), if swap == "memory.swap.max" { "0".to_owned() } else { (32 << 20).to_string() });
    assert_eq!(inside(&leaf, "x = b'x' * (60 << 20)").wait().unwrap().code(), Some(128 + 9));
    assert!(leaf.events().unwrap().oom_kills >= 1);
    assert_eq!(leaf.shortage(), Shortage::Above);
}

/// As in a container: the group that we are in has less than the host.
#[test]
fn the_room_is_what_the_groups_above_leave() {
    let Some(nest) = Nest::new() else { return };
    let before = nest.hierarchy.room();
    let file = if nest.hierarchy.kind() == "v2" { "memory.max" } else { "memory.limit_in_bytes" };
    let base = nest.paths.iter().find(|path| path.join(file).exists()).unwrap();
    fs::write(base.join(file), (100 << 20).to_string()).unwrap();
    let room = nest.hierarchy.room().unwrap();
    assert!(room > Bytes::mib(80) && room <= Bytes::mib(100), "{room}");
    assert!(before.is_none_or(|before| before > room), "{before:?}");
}

#[test]
fn forks_beyond_the_limit_are_refused_and_told() {
    let Some(nest) = Nest::new() else { return };
    let leaf = nest.hierarchy.create(&id("job"), &Caps { pids: Some(4), ..Caps::default() }).unwrap();
    let code = "
import signal
made = []
try:
    while len(made) < 50:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        made.append(pid)
except BlockingIOError:
    pass
print(len(made), flush=True)
for pid in made:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
";
    let mut child = inside(&leaf, code);
    assert_eq!(line(&mut child), "3");
    assert!(child.wait().unwrap().success());
    assert!(leaf.events().unwrap().pids_max_hits >= 1);
    assert_eq!(leaf.events().unwrap().oom_kills, 0);
}

#[test]
fn cpu_time_is_counted_and_processes_are_listed() {
    let Some(nest) = Nest::new() else { return };
    let leaf = nest.hierarchy.create(&id("job"), &caps()).unwrap();
    let code = "
import time
while time.process_time() < 0.05: pass
print('burnt', flush=True)
sys.stdin.read(1)
";
    let mut child = inside(&leaf, code);
    assert_eq!(line(&mut child), "burnt");
    assert_eq!(leaf.pids().len(), 1);
    assert!(leaf.usage().cpu_time.unwrap() >= Duration::from_millis(20));

    let lost = nest.hierarchy.leftovers(Duration::ZERO);
    assert!(lost.iter().all(|leftover| leftover.name() != "job"), "{lost:?}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(leaf.pids(), Vec::<i32>::new());
    leaf.remove().unwrap();
    assert_eq!(nest.leaves(), Vec::<PathBuf>::new());
}

#[test]
fn a_leaf_in_use_is_not_removed() {
    let Some(nest) = Nest::new() else { return };
    let leaf = nest.hierarchy.create(&id("job"), &caps()).unwrap();
    let mut child = inside(&leaf, "print('in', flush=True); sys.stdin.read(1)");
    assert_eq!(line(&mut child), "in");
    let error = leaf.remove().unwrap_err();
    assert!(matches!(error, CgroupError::Io { source: Errno::EBUSY, .. }), "{error:?}");
    assert!(error.hint().is_some());
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn two_hundred_leaves_leave_nothing() {
    let Some(nest) = Nest::new() else { return };
    for number in 0..200 {
        nest.hierarchy.create(&id(&format!("job{number}")), &caps()).unwrap().remove().unwrap();
    }
    // Dropping does the same.
    (0..50).for_each(|_| drop(nest.hierarchy.create(&id("again"), &caps()).unwrap()));
    assert_eq!(nest.leaves(), Vec::<PathBuf>::new());
}

#[test]
fn creation_is_all_or_nothing() {
    let Some(nest) = Nest::new() else { return };
    let first = nest.hierarchy.create(&id("job"), &caps()).unwrap();
    assert!(matches!(nest.hierarchy.create(&id("job"), &caps()), Err(CgroupError::Exists { .. })));
    // The loser of that did not take the winner's group with it.
    assert_eq!(nest.leaves().len(), nest.paths.len());
    first.remove().unwrap();

    // In one tree only, the last, so that on v1 the others have been made when it fails.
    let obstacle = nest.paths.last().unwrap().join(PARENT).join("job");
    fs::create_dir(&obstacle).unwrap();
    assert!(matches!(nest.hierarchy.create(&id("job"), &caps()), Err(CgroupError::Exists { .. })));
    assert_eq!(nest.leaves(), [obstacle]);
}

#[test]
fn leftovers_are_found_and_removed_with_what_is_nested() {
    let Some(nest) = Nest::new() else { return };
    std::mem::forget(nest.hierarchy.create(&id("lost"), &caps()).unwrap());
    fs::create_dir_all(nest.paths[0].join("fumehood/lost/nested/deeper")).unwrap();
    assert!(nest.hierarchy.leftovers(Duration::from_secs(3600)).is_empty());
    let found = nest.hierarchy.leftovers(Duration::ZERO);
    assert_eq!(found.len(), nest.paths.len());
    for leftover in found {
        assert_eq!(leftover.name(), "lost");
        leftover.remove().unwrap();
    }
    assert_eq!(nest.leaves(), Vec::<PathBuf>::new());
}

#[test]
fn creators_and_cleaners_do_not_disturb_each_other() {
    let Some(nest) = Nest::new() else { return };
    let (cohort, within) = nest.cohort(&Caps { pids: Some(500), ..Caps::default() });
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let hierarchy = if thread % 2 == 0 { &nest.hierarchy } else { &within };
            scope.spawn(move || {
                for number in 0..25 {
                    let leaf = hierarchy.create(&id(&format!("job-{thread}-{number}")), &caps());
                    leaf.unwrap().remove().unwrap();
                    hierarchy.remove_parent();
                }
            });
        }
    });
    // What caps them stays while its owner does, and goes with it.
    assert_eq!(nest.read(&cohort.place().name, "pids.max", "pids.max"), "500");
    assert_eq!(nest.leaves().len(), nest.paths.len());
    assert!(nest.hierarchy.leftovers(Duration::ZERO).is_empty());
    drop(cohort);
    assert_eq!(nest.leaves(), Vec::<PathBuf>::new());
    let gone = within.create(&id("late"), &caps()).unwrap_err();
    assert!(matches!(gone, CgroupError::Io { source: Errno::ENOENT, .. }) && gone.hint().is_some(), "{gone:?}");
}

#[test]
fn a_tighter_group_above_is_no_obstacle() {
    let Some(nest) = Nest::new() else { return };
    let (cohort, within) = nest.cohort(&Caps { cpu: Some(CpuBandwidth::cpus(0.2)), ..Caps::default() });
    let _leaf = within.create(&id("job"), &caps()).unwrap();
    assert_eq!(nest.read(&cohort.place().name, "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("20000"));
}

#[test]
fn a_leaf_without_caps_has_what_it_needs_only() {
    let Some(nest) = Nest::new() else { return };
    let leaf = nest.hierarchy.create(&id("job"), &Caps::default()).unwrap();
    assert_eq!(leaf.events().unwrap(), Events::default());
    assert!(leaf.watch_oom().unwrap().is_none());
    if nest.hierarchy.kind() == "v1" {
        assert_eq!((nest.leaves().len(), leaf.join_fds().count()), (0, 0));
        let error = leaf.set_pids(1).unwrap_err();
        assert_eq!(error, CgroupError::NoController { controller: Controller::Pids });
    }
}

/// The mechanics of v2, on whatever host: a v2 tree can be mounted even if all controllers are in v1.
#[test]
fn v2_starts_processes_in_the_leaf_and_kills_them() {
    if !getuid().is_root() {
        eprintln!("skipped: mounting a cgroup2 takes root");
        return;
    }
    // A thread of its own, for a mount namespace of its own.
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let mount = tempfile::tempdir().unwrap();
        let run = |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
        run(&["--make-rprivate", "/"]);
        let path = mount.path().to_str().unwrap();
        run(&["-t", "cgroup2", "none", path]);
        let base = mount.path().join(format!("fumehood-test-v2-{}", std::process::id()));
        fs::create_dir(&base).unwrap();

        let hierarchy = Hierarchy::at_v2(&base);
        assert_eq!(hierarchy.kind(), "v2", "{hierarchy:?}");
        let leaf = hierarchy.create(&id("job"), &Caps { count_cpu_time: true, ..Caps::default() }).unwrap();
        assert_eq!(leaf.join_fds().count(), 0);
        let code = "print(open('/proc/self/cgroup').read().split('0::')[1].strip(), flush=True); sys.stdin.read(1)";
        let mut child = inside(&leaf, code);
        assert!(line(&mut child).ends_with("/fumehood/job"));
        assert_eq!(leaf.pids().len(), 1);
        assert!(leaf.kill().unwrap());
        assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
        assert_eq!(leaf.events().unwrap(), Events::default());
        assert!(leaf.usage().cpu_time.is_some());
        leaf.remove().unwrap();
        assert!(!base.join("fumehood/job").exists());

        if !hierarchy.can(Controller::Memory) {
            let missing = CgroupError::NoController { controller: Controller::Memory };
            assert_eq!(hierarchy.create(&id("job"), &caps()).unwrap_err(), missing);
        }

        // A group with processes cannot be a base; the nearest one above it can.
        let busy = base.join("fumehood/busy");
        fs::create_dir(&busy).unwrap();
        let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
        fs::write(busy.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
        assert!(matches!(Hierarchy::at_v2(&busy), Hierarchy::None { why } if why.contains("processes of its own")));
        assert_eq!(v2::Tree::above(&busy).unwrap().path(""), base.join(PARENT).join(""));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();

        run(&["-o", "bind", path, path]);
        run(&["-o", "remount,bind,ro", path]);
        assert!(matches!(Hierarchy::at_v2(&base), Hierarchy::None { why } if why.contains("Read-only")));
        // What another test forks at this moment has our descriptors for as long as it has not executed anything.
        let leave = || assert!(Command::new("umount").args(["--lazy", path]).status().unwrap().success());
        leave();
        group::remove_tree(&base).unwrap();
        drop(hierarchy);
        leave();
    })
    .join()
    .unwrap();
}

#[test]
fn without_a_hierarchy_nothing_is_promised() {
    let none = Hierarchy::at_v2("/nowhere");
    assert_eq!(none.kind(), "none");
    assert!(Controller::ALL.into_iter().all(|controller| !none.can(controller)));
    let error = none.create(&id("job"), &Caps::default()).unwrap_err();
    assert!(error.to_string().contains("/nowhere") && error.hint().is_some());
    assert!(none.cohort(&Caps::default(), Bytes::new(0)).is_err());
    // A directory is no cgroup because it is where one could be.
    assert!(matches!(Hierarchy::at_v2("/"), Hierarchy::None { .. }));
}

#[test]
fn bandwidth_is_in_the_kernels_range() {
    assert_eq!(CpuBandwidth::cpus(0.5), CpuBandwidth { quota_us: 50_000, period_us: 100_000 });
    for cpus in [0.0, -1.0, f64::NAN, 0.001] {
        assert_eq!(CpuBandwidth::cpus(cpus).quota_us, 1_000);
    }
    assert_eq!(CpuBandwidth::new(u64::MAX, 1), CpuBandwidth { quota_us: 1 << 40, period_us: 1_000 });
}

/// v1: what one has done to it does not show to the next.
#[test]
fn a_leaf_that_is_kept_is_as_good_as_new() {
    let Some(nest) = Nest::new() else { return };
    let paths = nest.paths.clone();
    let keeping = match &nest.hierarchy {
        Hierarchy::V1(_) => nest.again().keeping(),
        _ => return eprintln!("skipped: only leaves of v1 are kept"),
    };
    let name = |leaf: &Leaf| match &leaf.0 {
        Kind::V1(leaf) => leaf.name().to_owned(),
        Kind::V2(_) => unreachable!("a leaf of v1"),
    };
    let settled = || {
        let usage = nest.leaves().iter().find_map(|path| fs::read_to_string(path.join("memory.usage_in_bytes")).ok());
        usage.is_some_and(|usage| usage.trim().parse::<u64>().unwrap() <= 512 << 10)
    };
    let wait = || {
        (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            settled()
        })
    };
    let caps = Caps { cpu: Some(CpuBandwidth::cpus(0.2)), ..caps() };

    let leaf = keeping.create(&id("first"), &caps).unwrap();
    assert_eq!(name(&leaf), "fumehood/first");
    // More than a period's time, and memory.
    let code = "
import time
x = b'x' * (32 << 20)
while time.process_time() < 0.03: pass
";
    assert!(inside(&leaf, code).wait().unwrap().success());
    assert!(leaf.usage().peak_memory.unwrap() > Bytes::mib(32));
    leaf.remove().unwrap();
    let kept = nest.leaves();
    assert_eq!(kept.len(), paths.len(), "{kept:?}");
    // Whoever cleans up sees whose it is.
    assert!(keeping.leftovers(Duration::ZERO).is_empty());

    assert!(wait());
    let again = keeping.create(&id("second"), &caps).unwrap();
    assert_eq!(nest.leaves(), kept);
    assert!(again.usage().peak_memory.unwrap() <= Bytes::new(512 << 10), "{:?}", again.usage());
    assert!(again.usage().cpu_time.unwrap() < Duration::from_millis(1), "{:?}", again.usage());
    assert_eq!(again.events().unwrap(), Events::default());
    // It is not lent twice, and another limit is another leaf.
    let other = keeping.create(&id("other"), &caps).unwrap();
    assert_eq!(name(&other), "fumehood/other");
    again.remove().unwrap();
    let larger = Caps { memory: Some(Bytes::mib(96)), ..caps };
    let larger = keeping.create(&id("larger"), &larger).unwrap();
    assert_eq!(name(&larger), "fumehood/larger");

    // One whose limits were hit or changed is not used again.
    larger.set_pids(3).unwrap();
    larger.remove().unwrap();
    assert_eq!(inside(&other, "x = b'x' * (256 << 20)").wait().unwrap().code(), Some(128 + 9));
    other.remove().unwrap();
    assert_eq!(nest.leaves(), kept);
    // One that cannot be removed is told of, and nobody gets it.
    let busy = keeping.create(&id("busy"), &Caps { pids: Some(9), ..caps }).unwrap();
    let mut child = inside(&busy, "print('in', flush=True); sys.stdin.read(1)");
    assert_eq!(line(&mut child), "in");
    assert!(matches!(busy.remove().unwrap_err(), CgroupError::Io { source: Errno::EBUSY, .. }));
    drop(child.stdin.take());
    child.wait().unwrap();

    drop(keeping);
    let left = nest.leaves();
    assert!(left.iter().all(|path| path.ends_with("busy")), "{left:?}");
}

/// A cohort goes when its owner is dead, with what is in it; what runs in it is nobody's to remove.
#[test]
fn the_cohorts_of_the_dead_are_left_over() {
    let Some(nest) = Nest::new() else { return };
    let (cohort, _) = nest.cohort(&caps());
    let own = cohort.place().name.clone();
    let dead = |start: u64| {
        let mut parts: Vec<_> = own.split('-').map(str::to_owned).collect();
        parts[3] = start.to_string();
        Place { name: parts.join("-"), memory: None }
    };
    let all = |place: &Place| {
        nest.paths.iter().for_each(|path| fs::create_dir_all(path.join(&place.name)).unwrap());
        nest.again().within(Some(place))
    };
    std::mem::forget(all(&dead(1)).create(&id("lost"), &caps()).unwrap());
    let busy = all(&dead(2)).create(&id("busy"), &caps()).unwrap();
    let mut child = inside(&busy, "print('in', flush=True); sys.stdin.read(1)");
    assert_eq!(line(&mut child), "in");

    let found = nest.hierarchy.leftovers(Duration::from_secs(3600));
    let mut names: Vec<_> = found.iter().map(|leftover| format!("{PARENT}/{}", leftover.name())).collect();
    names.sort();
    names.dedup();
    assert_eq!(names, [dead(1).name, format!("{PARENT}/lost")]);
    found.into_iter().for_each(|leftover| leftover.remove().unwrap());
    let mut left = nest.leaves();
    left.retain(|path| !path.ends_with(Path::new(&own).file_name().unwrap()));
    assert_eq!(left.len(), nest.paths.len(), "{left:?}");
    assert!(left.iter().all(|path| path.ends_with(Path::new(&dead(2).name).file_name().unwrap())));

    drop(child.stdin.take());
    child.wait().unwrap();
    busy.remove().unwrap();
    nest.hierarchy.leftovers(Duration::ZERO).into_iter().for_each(|leftover| leftover.remove().unwrap());
    drop(cohort);
    assert_eq!(nest.leaves(), Vec::<PathBuf>::new());
}

/// What a process that is dead has kept is found, however young it is.
#[test]
fn what_the_dead_have_kept_is_left_over() {
    let Some(nest) = Nest::new() else { return };
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    let namespace: String = namespace.to_str().unwrap().chars().filter(char::is_ascii_digit).collect();
    let dead = format!("kept-{namespace}-{}-1-0", std::process::id());
    std::mem::forget(nest.hierarchy.create(&id(&dead), &caps()).unwrap());
    let elsewhere = format!("kept-1-{}-1-0", std::process::id());
    let elsewhere = nest.hierarchy.create(&id(&elsewhere), &caps()).unwrap();
    let found = nest.hierarchy.leftovers(Duration::from_secs(3600));
    assert_eq!(found.len(), nest.paths.len(), "{found:?}");
    assert!(found.iter().all(|leftover| leftover.name() == dead));
    assert_eq!(nest.hierarchy.kept_by(std::process::id() as i32), [id(&dead)]);
    found.into_iter().for_each(|leftover| leftover.remove().unwrap());
    elsewhere.remove().unwrap();
}
