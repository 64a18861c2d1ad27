//! Real groups and real processes, as root. Those of v1 are on a host that has v1 trees; those of v2 are in a v2 tree
//! of the test's own mounting, which has the controllers that no v1 tree has, possibly none.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::getuid,
};
use oci_spec::runtime as oci;

use super::{
    super::tests::{inside_of, line},
    *,
};

/// A place of one test's own, at the root of every tree.
struct Nest {
    layout: Layout,
    top: String,
}

impl Nest {
    fn v1() -> Option<Self> {
        let layout = Layout::detect();
        if !getuid().is_root() || !layout.is_v1() {
            eprintln!("skipped: needs root and a host with v1 trees");
            return None;
        }
        Some(Self::of(layout))
    }

    fn of(layout: Layout) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let top = format!("fumehood-test-oci-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { layout, top }
    }

    fn place(&self, name: &str) -> Place {
        let path = format!("/{}/{name}", self.top);
        Place::decide(&self.layout, Driver::Cgroupfs, Some(Path::new(&path)), "id", false).unwrap()
    }

    fn create(&self, name: &str, json: &str) -> Result<Group> {
        create(&self.place(name), json)
    }

    fn trees(&self) -> Vec<PathBuf> {
        match &self.layout.kind {
            layout::Kind::V1(trees) => trees.iter().map(|tree| tree.point.clone()).collect(),
            layout::Kind::V2(tree) => vec![tree.point.clone()],
            layout::Kind::None { .. } => Vec::new(),
        }
    }

    /// What there is of the test's groups, in all trees.
    fn left(&self) -> Vec<PathBuf> {
        self.trees().into_iter().map(|tree| tree.join(&self.top)).filter(|path| path.exists()).collect()
    }

    fn read(&self, controller: &str, name: &str, file: &str) -> String {
        let layout::Kind::V1(trees) = &self.layout.kind else { panic!("no v1") };
        let tree = trees.iter().find(|tree| tree.names.iter().any(|name| name == controller)).unwrap();
        let path = tree.point.join(&self.top).join(name).join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim_end().to_owned()
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        for path in self.left() {
            let _ = super::super::group::remove_tree(&path);
        }
    }
}

fn resources(json: &str) -> oci::LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn create(place: &Place, json: &str) -> Result<Group> {
    let resources = resources(json);
    Group::create(place, &Want { resources: Some(&resources), ..Want::default() })
}

fn inside(group: &Group, code: &str) -> Child {
    inside_of(group.clone_into(), group.join_fds().unwrap(), code)
}

const WAITING: &str = "print('in', flush=True); sys.stdin.read(1)";

fn waiting(group: &Group) -> Child {
    let mut child = inside(group, WAITING);
    assert_eq!(line(&mut child), "in");
    child
}

/// The launcher's child, which it waits for and ends like.
fn killed(mut child: Child) -> bool {
    child.wait().unwrap().code() == Some(128 + 9)
}

#[test]
fn every_setting_of_v1_is_what_the_kernel_says_it_is() {
    let Some(nest) = Nest::v1() else { return };
    let group = nest
        .create(
            "c",
            r#"{"memory": {"limit": 67108864, "swap": 134217728, "reservation": 33554432, "swappiness": 7,
                    "kernelTCP": 16777216, "disableOOMKiller": true, "checkBeforeUpdate": true},
                "cpu": {"shares": 512, "quota": 25000, "period": 50000, "burst": 10000, "cpus": "0", "mems": "0"},
                "pids": {"limit": 17},
                "hugepageLimits": [], "unified": {},
                "network": {}}"#,
        )
        .unwrap();
    let read = |controller, file| nest.read(controller, "c", file);
    assert_eq!(read("memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(read("memory", "memory.memsw.limit_in_bytes"), "134217728");
    assert_eq!(read("memory", "memory.soft_limit_in_bytes"), "33554432");
    assert_eq!(read("memory", "memory.swappiness"), "7");
    assert_eq!(read("memory", "memory.kmem.tcp.limit_in_bytes"), "16777216");
    assert!(read("memory", "memory.oom_control").contains("oom_kill_disable 1"));
    assert_eq!(read("cpu", "cpu.shares"), "512");
    assert_eq!(read("cpu", "cpu.cfs_quota_us"), "25000");
    assert_eq!(read("cpu", "cpu.cfs_period_us"), "50000");
    assert_eq!(read("cpu", "cpu.cfs_burst_us"), "10000");
    assert_eq!(read("cpuset", "cpuset.cpus"), "0");
    assert_eq!(read("cpuset", "cpuset.mems"), "0");
    assert_eq!(read("pids", "pids.max"), "17");

    // Up, down, and without bounds: the order of the two memory files depends on the direction.
    let update = |json: &str| group.update(&resources(json)).unwrap();
    update(r#"{"memory": {"limit": 268435456, "swap": 536870912}}"#);
    assert_eq!(read("memory", "memory.memsw.limit_in_bytes"), "536870912");
    update(r#"{"memory": {"limit": 33554432, "swap": 33554432}, "pids": {"limit": 0}}"#);
    assert_eq!(read("memory", "memory.limit_in_bytes"), "33554432");
    assert_eq!(read("memory", "memory.memsw.limit_in_bytes"), "33554432");
    assert_eq!(read("pids", "pids.max"), "1");
    update(r#"{"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}}"#);
    assert!(read("memory", "memory.memsw.limit_in_bytes").parse::<u64>().unwrap() > 1 << 60);
    assert_eq!(read("pids", "pids.max"), "max");
    assert_eq!(read("cpu", "cpu.cfs_quota_us"), "-1");
    // A period that its old quota would not allow, with its new one.
    update(r#"{"cpu": {"quota": 1000, "period": 1000, "burst": 500}}"#);
    assert_eq!((read("cpu", "cpu.cfs_period_us"), read("cpu", "cpu.cfs_burst_us")), ("1000".into(), "500".into()));
    // 0 is what engines send for what they do not mean.
    update(r#"{"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": ""}}"#);
    assert_eq!((read("cpu", "cpu.shares"), read("cpu", "cpu.cfs_quota_us")), ("512".into(), "1000".into()));
    update(r#"{"cpu": {"idle": 1}}"#);
    assert_eq!(read("cpu", "cpu.idle"), "1");

    group.remove().unwrap();
    assert!(!nest.left().iter().any(|top| top.join("c").exists()));
}

#[test]
fn block_devices_are_throttled_on_v1() {
    let Some(nest) = Nest::v1() else { return };
    let disk = fs::read_dir("/sys/block").unwrap().flatten().find_map(|entry| {
        let number = fs::read_to_string(entry.path().join("dev")).ok()?;
        (!entry.file_name().to_string_lossy().starts_with("zram")).then_some(number.trim_end().to_owned())
    });
    let Some(disk) = disk else {
        eprintln!("skipped: no block device");
        return;
    };
    let (major, minor) = disk.split_once(':').unwrap();
    let rate = |rate| format!(r#"[{{"major": {major}, "minor": {minor}, "rate": {rate}}}]"#);
    let json = format!(
        r#"{{"blockIO": {{"throttleReadBpsDevice": {}, "throttleWriteBpsDevice": {}, "throttleReadIOPSDevice": {},
            "throttleWriteIOPSDevice": {}}}}}"#,
        rate(1_048_576),
        rate(2_097_152),
        rate(100),
        rate(200)
    );
    let group = nest.create("c", &json).unwrap();
    for (file, value) in [
        ("blkio.throttle.read_bps_device", "1048576"),
        ("blkio.throttle.write_bps_device", "2097152"),
        ("blkio.throttle.read_iops_device", "100"),
        ("blkio.throttle.write_iops_device", "200"),
    ] {
        assert_eq!(nest.read("blkio", "c", file), format!("{disk} {value}"));
    }
    group.remove().unwrap();
}

#[test]
fn what_v1_cannot_hold_is_an_error_and_leaves_nothing() {
    let Some(nest) = Nest::v1() else { return };
    let refused = |json: &str| {
        let error = nest.create("a/b/c", json).unwrap_err();
        assert_eq!(nest.left(), Vec::<PathBuf>::new(), "{json}");
        error.to_string()
    };
    assert!(refused(r#"{"unified": {"memory.max": "1"}}"#).contains("cannot use unified on cgroup v1"));
    assert!(refused(r#"{"memory": {"swappiness": 101}}"#).contains("valid range is 0-100"));
    assert!(refused(r#"{"cpu": {"shares": 300000}}"#).contains("the maximum allowed cpu-shares is 262144"));
    assert!(refused(r#"{"cpu": {"shares": 1}}"#).contains("the minimum allowed cpu-shares is 2"));
    assert!(refused(r#"{"cpu": {"cpus": "4000"}}"#).contains("cpuset.cpus"));
    assert!(refused(r#"{"rdma": {"mlx5_1": {"hcaHandles": 3}}}"#).contains("rdma"));
    assert!(refused(r#"{"hugepageLimits": [{"pageSize": "2MB/../../x", "limit": 1}]}"#).contains("huge"));
    assert!(
        refused(r#"{"pids": {"limit": 5}, "devices": [{"allow": true, "type": "p", "access": "r"}]}"#).contains("FIFO")
    );
}

#[test]
fn the_process_is_in_every_tree() {
    let Some(nest) = Nest::v1() else { return };
    let group = nest.create("deep/er/c", "{}").unwrap();
    let mut child =
        inside(&group, "print(open('/proc/self/cgroup').read().replace('\\n', ' '), flush=True); sys.stdin.read(1)");
    let text = line(&mut child);
    let lines: Vec<_> = text.split_ascii_whitespace().collect();
    assert_eq!(lines.len(), nest.trees().len(), "{text}");
    assert!(lines.iter().all(|line| line.ends_with(&format!(":/{}/deep/er/c", nest.top))), "{text}");
    // A cpuset is of no use until it has CPUs, nor is one below it.
    assert!(!nest.read("cpuset", "deep", "cpuset.cpus").is_empty());
    assert!(!nest.read("cpuset", "deep/er/c", "cpuset.mems").is_empty());

    let stats = group.stats().unwrap();
    assert_eq!(stats.pids.current, 1);
    assert!(stats.memory.usage.usage > 0 && stats.memory.usage.limit > 0);
    assert!(stats.cpu.usage.total > 0 && !stats.cpu.usage.percpu.is_empty() && !stats.cpuset.cpus.is_empty());
    assert!(stats.memory.raw.contains_key("rss"));

    // From outside, too.
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let mut again = Group::open(group.record()).unwrap();
    again.adopt(other.id().cast_signed()).unwrap();
    assert_eq!(group.pids().unwrap().len(), 2);

    // In its place there is no other.
    let taken = nest.create("deep/er/c", "{}").unwrap_err();
    assert!(taken.to_string().starts_with("container's cgroup is not empty: 2 process(es) found"), "{taken}");

    group.kill_all(libc::SIGTERM).unwrap();
    assert!(!child.wait().unwrap().success() && !other.wait().unwrap().success());
    group.remove().unwrap();
}

#[test]
fn an_empty_group_is_taken_and_a_frozen_one_is_not() {
    let Some(nest) = Nest::v1() else { return };
    let place = nest.place("c");
    let first = create(&place, r#"{"pids": {"limit": 5}}"#).unwrap();
    let second = create(&place, r#"{"pids": {"limit": 6}}"#).unwrap();
    assert_eq!(nest.read("pids", "c", "pids.max"), "6");
    first.freeze().unwrap();
    assert!(matches!(create(&place, "{}"), Err(ContainerCgroupError::Frozen { .. })));
    // What was there before stays.
    assert!(second.exists() && nest.left().iter().all(|top| top.join("c").exists()));
    second.thaw().unwrap();
    second.remove().unwrap();
    // Removing what is gone is no error.
    Group::open(place.record()).unwrap().remove().unwrap();
    first.remove().unwrap();
}

#[test]
fn the_frozen_stand_still_and_can_be_killed() {
    let Some(nest) = Nest::v1() else { return };
    let group = nest.create("c", "{}").unwrap();
    let mut child = waiting(&group);
    group.freeze().unwrap();
    assert!(group.is_frozen() && group.record().is_frozen());
    assert_eq!(nest.read("freezer", "c", "freezer.state"), "FROZEN");
    // A signal to all does not thaw it.
    group.kill_all(libc::SIGUSR1).unwrap();
    assert!(group.is_frozen());
    assert!(child.try_wait().unwrap().is_none());
    group.thaw().unwrap();
    assert!(!group.is_frozen() && !group.record().is_frozen());
    assert_eq!(child.wait().unwrap().code(), Some(128 + libc::SIGUSR1));

    let child = waiting(&group);
    group.freeze().unwrap();
    group.kill_all(libc::SIGKILL).unwrap();
    assert!(killed(child));
    assert_eq!(group.pids().unwrap(), Vec::<i32>::new());
    group.remove().unwrap();
}

/// Faster than a list of them can be read.
#[test]
fn a_fork_bomb_is_killed() {
    let Some(nest) = Nest::v1() else { return };
    let group = nest.create("c", r#"{"pids": {"limit": 64}}"#).unwrap();
    let code = "
print('in', flush=True)
while True:
    try:
        if os.fork() and os.getpid() % 3 == 0:
            os._exit(0)
    except BlockingIOError:
        pass
";
    let mut child = inside(&group, code);
    assert_eq!(line(&mut child), "in");
    group.kill_all(libc::SIGKILL).unwrap();
    assert_eq!(group.pids().unwrap(), Vec::<i32>::new());
    child.wait().unwrap();
    group.remove().unwrap();
}

#[test]
fn devices_are_forbidden_but_for_the_rules_on_v1() {
    let Some(nest) = Nest::v1() else { return };
    let node = tempfile::tempdir().unwrap().keep().join("disk");
    assert!(Command::new("mknod").arg(&node).args(["b", "7", "0"]).status().unwrap().success());
    let code = format!(
        "
for path in ['/dev/null', '/dev/kmsg', '{}']:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        print('open', end=' ')
    except OSError as error:
        print(error.errno, end=' ')
print(flush=True)
",
        node.display()
    );
    let tried = |group: &Group| {
        let mut child = inside(group, &code);
        let text = line(&mut child);
        child.wait().unwrap();
        text
    };
    let group = nest.create("c", "{}").unwrap();
    assert_eq!(tried(&group), "open 1 1");
    let list = nest.read("devices", "c", "devices.list");
    assert_eq!(list.lines().count(), 11, "{list}");
    assert!(list.lines().any(|line| line == "c 1:3 rwm") && list.lines().any(|line| line == "b *:* m"));

    // An update that says nothing of devices leaves them; one that does says all.
    group.update(&resources(r#"{"pids": {"limit": 9}}"#)).unwrap();
    assert_eq!(tried(&group), "open 1 1");
    let allow = r#"{"devices": [{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]}"#;
    group.update(&resources(allow)).unwrap();
    assert_eq!(tried(&group), "open open 1");
    group.update(&resources(r#"{"devices": []}"#)).unwrap();
    assert_eq!(nest.read("devices", "c", "devices.list").lines().count(), 11);
    group.update(&resources(r#"{"devices": [{"allow": true, "access": "rwm"}]}"#)).unwrap();
    assert!(tried(&group).starts_with("open open"));
    group.remove().unwrap();
    // Put off they would be changed under a process that opens its terminal.
    let later = Group::create(&nest.place("d"), &Want { devices_later: true, ..Want::default() }).unwrap();
    assert_eq!(nest.read("devices", "d", "devices.list").lines().count(), 11);
    later.remove().unwrap();
    fs::remove_dir_all(node.parent().unwrap()).unwrap();
}

#[test]
fn running_out_of_memory_is_told() {
    let Some(nest) = Nest::v1() else { return };
    let group = nest.create("c", r#"{"memory": {"limit": 67108864, "swap": 67108864}}"#).unwrap();
    let mut watch = group.watch_oom().unwrap();
    assert_eq!(watch.wait(Duration::ZERO).unwrap(), OomEvent::TimedOut);
    assert!(killed(inside(&group, "x = b'x' * (256 << 20)")));
    assert_eq!(watch.wait(Duration::from_secs(20)).unwrap(), OomEvent::Oom);
    assert_eq!(watch.wait(Duration::ZERO).unwrap(), OomEvent::TimedOut);
    assert!(group.stats().unwrap().memory.usage.max > 32 << 20);
    group.remove().unwrap();
    assert_eq!(watch.wait(Duration::from_secs(20)).unwrap(), OomEvent::Gone);
}

/// Killed between any two steps, a runtime leaves what the record finds.
#[test]
fn a_record_finds_what_was_half_made() {
    let Some(nest) = Nest::v1() else { return };
    let place = nest.place("c");
    let text = serde_json::to_string(place.record()).unwrap();
    for made in 0..=place.spots.len() {
        for spot in &place.spots[..made] {
            fs::create_dir_all(&spot.path).unwrap();
        }
        let record: Record = serde_json::from_str(&text).unwrap();
        let group = Group::open(&record).unwrap();
        assert_eq!(group.exists(), made > 0);
        group.kill_all(libc::SIGKILL).unwrap();
        group.remove().unwrap();
        assert!(place.spots.iter().all(|spot| !spot.path.exists()));
    }
}

#[test]
fn creators_that_fail_do_not_disturb_others() {
    let Some(nest) = Nest::v1() else { return };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let nest = &nest;
            scope.spawn(move || {
                for turn in 0..10 {
                    let name = format!("parent/{thread}-{turn}");
                    if turn % 2 == 0 {
                        nest.create(&name, r#"{"cpu": {"cpus": "4000"}}"#).unwrap_err();
                    } else {
                        nest.create(&name, "{}").unwrap().remove().unwrap();
                    }
                }
            });
        }
    });
    assert!(nest.left().iter().all(|top| {
        fs::read_dir(top.join("parent")).map_or(true, |dir| dir.flatten().all(|entry| !entry.path().is_dir()))
    }));
}

/// A container that may write to its group can nest more of them than a path or a stack is long.
#[test]
fn what_is_nested_goes_however_deep() {
    let Some(nest) = Nest::v1() else { return };
    let group = nest.create("c", "{}").unwrap();
    let top = group.record().path("freezer").unwrap();
    let dig = "
import os, sys
os.chdir(sys.argv[1])
for _ in range(1500):
    os.mkdir('nested')
    os.mkdir('beside')
    os.chdir('nested')
";
    assert!(Command::new("python3").args(["-c", dig, top.to_str().unwrap()]).status().unwrap().success());
    assert_eq!(group.pids().unwrap(), Vec::<i32>::new());
    let top = top.to_owned();
    group.remove().unwrap();
    assert!(!top.exists());
}

#[test]
fn a_path_is_absolute_or_below_the_callers_own() {
    let Some(nest) = Nest::v1() else { return };
    let decide = |path: Option<&str>| {
        Place::decide(&nest.layout, Driver::Cgroupfs, path.map(Path::new), "some-id", false).unwrap().record
    };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.split_once(":memory:")).unwrap().1.trim_matches('/').to_owned();
    let root = Path::new("/sys/fs/cgroup/memory");
    let below: PathBuf = root.join(own).components().collect();
    assert_eq!(decide(Some("/docker/x")).path("memory"), Some(root.join("docker/x").as_path()));
    assert_eq!(decide(Some("a/../b/x")).path("memory"), Some(below.join("b/x").as_path()));
    assert_eq!(decide(None).path("memory"), Some(below.join("some-id").as_path()));
    assert_eq!(decide(Some("")).path("memory"), Some(below.join("some-id").as_path()));
    // exec's groups lie below the container's, of all controllers or of some.
    let record = decide(Some("/docker/x"));
    assert_eq!(record.below(None, "/y/z").unwrap().path("pids"), Some(Path::new("/sys/fs/cgroup/pids/docker/x/y/z")));
    let some = record.below(Some("memory,pids"), "y").unwrap();
    assert_eq!(some.path("memory"), Some(root.join("docker/x/y").as_path()));
    assert_eq!(some.path("cpu"), record.path("cpu"));
    assert!(record.below(None, "../y").is_err() && record.below(Some("nonsense"), "y").is_err());
}

/// In a thread with a mount namespace of its own, which nothing escapes.
fn apart(test: impl FnOnce() + Send + 'static) {
    if !getuid().is_root() {
        eprintln!("skipped: mounting a cgroup2 takes root");
        return;
    }
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(&["--make-rprivate", "/"]);
        test();
    });
    thread.join().unwrap();
}

fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().unwrap().success());
}

/// With a v2 tree mounted for it.
fn on_v2(test: impl FnOnce(&Nest, &Path) + Send + 'static) {
    apart(|| {
        let point = tempfile::tempdir().unwrap();
        mount(&["-t", "cgroup2", "none", point.path().to_str().unwrap()]);
        let nest = Nest::of(Layout::v2_at(point.path(), "/"));
        test(&nest, &point.path().join(&nest.top));
        drop(nest);
        assert!(Command::new("umount").arg(point.path()).status().unwrap().success());
    });
}

#[test]
fn v2_freezes_kills_and_removes() {
    on_v2(|nest, top| {
        let group = nest.create("a/c", "{}").unwrap();
        assert_eq!(group.join_fds().unwrap().count(), 0);
        let child = waiting(&group);
        assert_eq!(group.pids().unwrap().len(), 1);
        assert!(matches!(nest.create("a/c", "{}"), Err(ContainerCgroupError::NotEmpty { count: 1, .. })));
        group.freeze().unwrap();
        assert!(group.is_frozen() && group.record().is_frozen());
        assert!(fs::read_to_string(top.join("a/c/cgroup.events")).unwrap().contains("frozen 1"));
        group.kill_all(libc::SIGKILL).unwrap();
        assert!(killed(child));
        assert!(matches!(nest.create("a/c", "{}"), Err(ContainerCgroupError::Frozen { .. })));
        group.thaw().unwrap();
        assert!(!group.is_frozen());
        let stats = group.stats().unwrap();
        assert!(stats.cpu.usage.total > 0 && stats.pids.current == 0);

        // Those in nested groups are the container's, too.
        fs::create_dir(top.join("a/c/nested")).unwrap();
        let nested = Group::open(&group.record().below(None, "nested").unwrap()).unwrap();
        let mut child = waiting(&nested);
        let pids = group.pids().unwrap();
        assert_eq!(pids.len(), 1);
        // Where a container's first process has gone, exec can follow it.
        let followed = group.record().of_process(pids[0]).unwrap();
        assert_eq!(followed.path(""), nested.record().path(""));
        group.kill_all(libc::SIGTERM).unwrap();
        child.wait().unwrap();
        group.remove().unwrap();
        assert!(!top.join("a/c").exists());
    });
}

#[test]
fn v2_hands_down_what_controllers_there_are() {
    on_v2(|nest, top| {
        let there = fs::read_to_string(top.parent().unwrap().join("cgroup.controllers")).unwrap();
        let group = nest.create("a/c", "{}").unwrap();
        assert_eq!(fs::read_to_string(top.join("a/c/cgroup.controllers")).unwrap(), there);
        group.remove().unwrap();

        let refused = |json: &str| {
            let error = nest.create("x/c", json).unwrap_err();
            assert!(!top.join("x").exists(), "{json}");
            error.to_string()
        };
        let has = |controller: &str| there.split_ascii_whitespace().any(|name| name == controller);
        if !has("memory") {
            let error = refused(r#"{"memory": {"limit": 1000000}}"#);
            assert_eq!(error, "cannot set memory.max: the memory cgroup controller is not available");
            let error = refused(r#"{"unified": {"memory.high": "1000000"}}"#);
            assert_eq!(error, r#"unified resource "memory.high": can't be set: controller "memory" not available"#);
        }
        if has("hugetlb") && Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
            let json = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
                "unified": {"hugetlb.1GB.max": "1073741824", "cgroup.max.depth": "5"}}"#;
            let group = nest.create("h/c", json).unwrap();
            let read = |file: &str| fs::read_to_string(top.join("h/c").join(file)).unwrap_or_default();
            assert_eq!(
                (read("hugetlb.2MB.max"), read("hugetlb.2MB.rsvd.max")),
                ("4194304\n".into(), "4194304\n".into())
            );
            assert_eq!(read("cgroup.max.depth"), "5\n");
            assert!(group.stats().unwrap().hugetlb.contains_key("2MB"));
            group.remove().unwrap();
        }
        assert!(refused(r#"{"unified": {"../cgroup.procs": "0"}}"#).contains("no slashes"));
        assert!(refused(r#"{"unified": {"..": "0"}}"#).contains("no slashes"));
        assert!(refused(r#"{"unified": {"memory": "0"}}"#).contains("CONTROLLER.PARAMETER"));
        assert!(refused(r#"{"memory": {"swappiness": 5}}"#).contains("no such thing on cgroup v2"));
        assert!(refused(r#"{"memory": {"disableOOMKiller": true}}"#).contains("no such thing on cgroup v2"));
        assert!(refused(r#"{"cpu": {"realtimePeriod": 5}}"#).contains("no such thing on cgroup v2"));
        assert!(refused(r#"{"network": {"classID": 5}}"#).contains("no such thing on cgroup v2"));
    });
}

#[test]
fn v2_devices_are_forbidden_but_for_the_rules() {
    on_v2(|nest, _| {
        let group = nest.create("c", "{}").unwrap();
        let code = "
for path in ['/dev/null', '/dev/kmsg']:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        print('open', end=' ')
    except OSError as error:
        print(error.errno, end=' ')
print(flush=True)
";
        let tried = || {
            let mut child = inside(&group, code);
            let text = line(&mut child);
            child.wait().unwrap();
            text
        };
        assert_eq!(tried(), "open 1");
        group.update(&resources(r#"{"devices": [{"allow": true, "type": "c", "major": 1, "access": "r"}]}"#)).unwrap();
        assert_eq!(tried(), "open open");
        let json = r#"{"devices": [{"allow": true, "access": "rwm"},
            {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rw"}]}"#;
        group.update(&resources(json)).unwrap();
        assert_eq!(tried(), "open 1");
        // Each took the place of the one before.
        let dir = fs::File::open(group.record().path("").unwrap()).unwrap();
        assert_eq!(crate::sys::bpf::device_programs(dir.as_fd()).unwrap().len(), 1);
        group.remove().unwrap();
    });
}

#[test]
fn v2_is_given_to_the_containers_user() {
    use std::os::unix::fs::MetadataExt;
    on_v2(|nest, top| {
        let want = Want { owner: Some(100_000), ..Want::default() };
        let group = Group::create(&nest.place("c"), &want).unwrap();
        let owner = |file: &str| {
            let meta = fs::metadata(top.join("c").join(file)).unwrap();
            (meta.uid(), meta.gid())
        };
        for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
            assert_eq!(owner(file), (100_000, 0), "{file}");
        }
        for file in ["cgroup.freeze", "cgroup.kill", "cgroup.max.depth"] {
            assert_eq!(owner(file), (0, 0), "{file}");
        }
        group.remove().unwrap();
    });
}

/// EROFS counts as no permission, so that these rules can be tried as root.
#[test]
fn without_permission_only_what_was_not_asked_is_left_out() {
    apart(|| {
        let point = tempfile::tempdir().unwrap();
        let path = point.path().to_str().unwrap();
        mount(&["-t", "cgroup2", "none", path]);
        mount(&["-o", "bind", path, path]);
        mount(&["-o", "remount,bind,ro", path]);
        let layout = Layout::v2_at(point.path(), "/");
        let place = |path: Option<&str>, rootless| {
            Place::decide(&layout, Driver::Cgroupfs, path.map(Path::new), "id", rootless).unwrap()
        };
        let devices = r#"{"devices": [{"allow": false, "access": "rwm"}]}"#;
        let group = create(&place(None, true), devices).unwrap();
        assert!(!group.exists() && group.clone_into().is_none());
        assert_eq!(group.pids().unwrap(), Vec::<i32>::new());
        let error = create(&place(None, true), r#"{"pids": {"limit": 5}}"#).unwrap_err();
        assert!(error.to_string().contains("rootless needs no limits + no cgrouppath"), "{error}");
        for place in [place(Some("/a"), true), place(None, false)] {
            assert_eq!(create(&place, "{}").unwrap_err().errno(), Some(Errno::EROFS));
        }
        assert!(Command::new("umount").args([path, path]).status().unwrap().success());
    });
}

#[test]
fn without_permission_in_one_tree_of_v1() {
    if Nest::v1().is_none() {
        return;
    }
    apart(|| {
        mount(&["-o", "remount,bind,ro", "/sys/fs/cgroup/pids"]);
        let layout = Layout::detect();
        let id = format!("fumehood-test-oci-rootless-{}", std::process::id());
        let place = |rootless| Place::decide(&layout, Driver::Cgroupfs, None, &id, rootless).unwrap();
        let group = create(&place(true), "{}").unwrap();
        assert!(group.exists() && group.record().path("memory").is_some_and(Path::exists));
        group.remove().unwrap();
        let error = create(&place(true), r#"{"pids": {"limit": 5}}"#).unwrap_err();
        assert_eq!(error.to_string(), "cannot set pids limit: container could not join or create cgroup");
        assert!(!place(true).record.path("memory").unwrap().exists());
        assert_eq!(create(&place(false), "{}").unwrap_err().errno(), Some(Errno::EROFS));
    });
}

#[test]
fn without_cgroups_nothing_is_limited() {
    let layout = Layout::v2_at(Path::new("/nowhere"), "/");
    let place = Place::decide(&layout, Driver::Disabled, None, "id", false).unwrap();
    assert!(!create(&place, "{}").unwrap().exists());
    let limits = r#"{"pids": {"limit": 5}}"#;
    let without = |error: ContainerCgroupError| error.to_string().contains("cannot set limits without cgroups");
    assert!(without(create(&place, limits).unwrap_err()));
    // Nor in a group that is out of sight, or gone.
    let hidden = Layout::v2_at(Path::new("/nowhere"), "/../other");
    let place = Place::decide(&hidden, Driver::Cgroupfs, None, "id", true).unwrap();
    let group = create(&place, "{}").unwrap();
    assert!(!group.exists());
    assert!(without(group.update(&resources(limits)).unwrap_err()));
    assert!(without(create(&place, limits).unwrap_err()));
    assert!(Place::decide(&hidden, Driver::Cgroupfs, None, "id", false).is_err());
}
