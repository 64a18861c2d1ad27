//! Containers on a host whose whole cgroup tree is v2: what a config.json asks for is read back from the kernel's own
//! files, the kernel acts on it, `update` changes it, and `delete` leaves nothing.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    both,
    bundle::{Container, Said},
    common::{
        Who,
        host::{cgroups, eventually},
        unified::{Group, here, promised},
    },
};

const MIB: u64 = 1 << 20;

/// One whose group is stated, so that not getting it is an error for an ordinary user, too.
fn container(test: &str, who: Who) -> Option<Container> {
    if !here(test, who) {
        return None;
    }
    let container = Container::new(test, who)?;
    let path = if who == Who::Root { format!("/fumehood-test/{}", container.id) } else { container.id.clone() };
    Some(container.set("/linux/cgroupsPath", json!(path)).args(&["sleep", "1000"]))
}

#[track_caller]
fn started(container: &Container) -> Group {
    container.create();
    container.start();
    container.group()
}

#[track_caller]
fn assert_files(group: &Group, files: &[(&str, &str)]) {
    for (file, value) in files {
        assert_eq!(group.read(file), *value, "{file}");
    }
}

#[track_caller]
fn update(container: &Container, resources: Value) -> Said {
    container.place.write("resources.json", resources.to_string());
    container.call("update", &["--resources", &container.place.text("resources.json")])
}

#[track_caller]
fn stats(container: &Container) -> Value {
    let said = container.call("events", &["--stats"]).ok();
    serde_json::from_str::<Value>(&said).unwrap()["data"].take()
}

/// The calls that a verb of the runtime makes, by strace.
#[track_caller]
fn trace(container: &Container, calls: &str, verb: &str, args: &[&str]) -> String {
    let runtime = container.command(verb, args);
    let trace = container.place.text("trace");
    let mut command = Command::new("strace");
    command.args(["-e", &format!("trace={calls}"), "-o", &trace]).arg(runtime.get_program()).arg("oci");
    command.args(runtime.get_args()).current_dir(runtime.get_current_dir().unwrap());
    command.env_clear().envs(runtime.get_envs().filter_map(|(name, value)| Some((name, value?))));
    container.output(command).ok();
    container.place.read("trace")
}

/// What the program wrote to `/tmp/said`.
fn said(container: &Container) -> String {
    fs::read_to_string(container.rootfs("tmp/said")).unwrap_or_default()
}

#[track_caller]
fn end(container: &Container, group: &Group) {
    container.call_on("kill", &["KILL"]).ok();
    container.becomes("stopped");
    container.call("delete", &[]).ok();
    assert!(!group.0.exists(), "{group:?}");
}

both! {
    fn its_limits_are_the_kernels(who: Who) {
        let Some(container) = container("its_limits_are_the_kernels", who) else { return };
        let container = container
            .set("/linux/resources/memory", json!({ "limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB }))
            .set("/linux/resources/cpu", json!({ "shares": 512, "quota": 30000, "period": 60000, "burst": 10000 }))
            .set("/linux/resources/pids", json!({ "limit": 30 }));
        container.create();
        // Before the program runs.
        let group = container.group();
        let first = [
            ("memory.max", "67108864"), ("memory.low", "33554432"), ("memory.swap.max", "33554432"),
            ("cpu.weight", "59"), ("cpu.max", "30000 60000"), ("cpu.max.burst", "10000"), ("pids.max", "30"),
        ];
        assert_files(&group, &first);
        container.start();
        assert_files(&group, &first);

        container.call("update", &["--pids-limit", "20"]).ok();
        container.call("update", &["--memory", "80m", "--memory-swap", "100m"]).ok();
        let second = [
            ("memory.max", "83886080"), ("memory.low", "33554432"), ("memory.swap.max", "20971520"),
            ("cpu.weight", "59"), ("cpu.max", "30000 60000"), ("cpu.max.burst", "10000"), ("pids.max", "20"),
        ];
        assert_files(&group, &second);
        let cpu = ["--cpu-share", "2048", "--cpu-quota", "20000", "--cpu-period", "50000", "--cpu-burst", "0"];
        container.call("update", &cpu).ok();
        container.call("update", &["--memory-reservation", "16m"]).ok();
        let third = [
            ("memory.max", "83886080"), ("memory.low", "16777216"), ("memory.swap.max", "20971520"),
            ("cpu.weight", "174"), ("cpu.max", "20000 50000"), ("cpu.max.burst", "0"), ("pids.max", "20"),
        ];
        assert_files(&group, &third);
        let told = stats(&container);
        assert_eq!((&told["memory"]["usage"]["limit"], &told["pids"]["limit"]), (&json!(80 * MIB), &json!(20)), "{told}");
        assert_eq!(told["pids"]["current"], 1, "{told}");

        let none = ["--memory", "-1", "--memory-swap", "-1", "--pids-limit", "-1", "--cpu-quota", "-1"];
        container.call("update", &none).ok();
        let fourth = [
            ("memory.max", "max"), ("memory.swap.max", "max"), ("cpu.max", "max 100000"), ("pids.max", "max"),
        ];
        assert_files(&group, &fourth);
        container.call("update", &["--cpu-idle", "1"]).ok();
        assert_eq!(group.read("cpu.idle"), "1");
        end(&container, &group);
    }

    fn the_kernels_files_by_name(who: Who) {
        let Some(container) = container("the_kernels_files_by_name", who) else { return };
        let unified = json!({
            "memory.high": "50331648", "memory.min": "1048576", "memory.oom.group": "1", "pids.max": "12",
            "cpu.weight": "33", "cpu.max": "5000 50000", "cgroup.max.descendants": "3",
        });
        // The file has the last word.
        let container = container.set("/linux/resources/pids", json!({ "limit": 40 })).set("/linux/resources/unified", unified);
        let group = started(&container);
        let files = [
            ("memory.high", "50331648"), ("memory.min", "1048576"), ("memory.oom.group", "1"), ("pids.max", "12"),
            ("cpu.weight", "33"), ("cpu.max", "5000 50000"), ("cgroup.max.descendants", "3"),
        ];
        assert_files(&group, &files);
        update(&container, json!({ "unified": { "memory.high": "max", "cpu.weight.nice": "5" } })).ok();
        assert_files(&group, &[("memory.high", "max"), ("cpu.weight.nice", "5"), ("memory.min", "1048576")]);
        end(&container, &group);

        for (unified, why) in [
            (json!({ "memory.lots": "1" }), "memory.lots"),
            (json!({ "memory.max": "plenty" }), "memory.max"),
            (json!({ "warp.max": "1" }), r#"controller "warp" not available"#),
            (json!({ "../pids.max": "1" }), "no file of a control group"),
            (json!({ "pids": "1" }), "CONTROLLER.PARAMETER"),
        ] {
            let mut refused = Container::new("unified", who).unwrap().args(&["true"]);
            refused.config["linux"]["cgroupsPath"] = container.config["linux"]["cgroupsPath"].clone();
            refused.set("/linux/resources/unified", unified).run().fails(why);
            assert_eq!(cgroups(&container.id), Vec::<PathBuf>::new(), "{why}");
        }
    }

    fn out_of_memory_is_counted_and_told(who: Who) {
        let Some(container) = container("out_of_memory_is_counted_and_told", who) else { return };
        let line = "while [ ! -e /tmp/go ]; do sleep 0.05; done; probe memory private 100; sleep 1000";
        let container = container
            .helpers()
            .shell(line)
            .set("/linux/resources/memory", json!({ "limit": 24 * MIB, "swap": 24 * MIB }));
        let group = started(&container);
        assert_files(&group, &[("memory.max", "25165824"), ("memory.swap.max", "0")]);
        let mut events = container.command("events", &["--interval=50ms", &container.id]);
        let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
        let mut next = || serde_json::from_str::<Value>(&lines.next().expect("no oom event").unwrap()).unwrap();
        assert_eq!(next()["type"], "stats");
        assert_eq!(group.count("memory.events", "oom_kill"), 0);
        container.place.write("bundle/rootfs/tmp/go", "");
        while next()["type"] != "oom" {}
        assert_eq!(group.count("memory.events", "oom_kill"), 1);
        assert!(group.count("memory.events", "max") > 0 && group.number("memory.peak") <= 24 * MIB);
        // The others live.
        assert_eq!(container.status(), "running");
        end(&container, &group);
        assert!(lines.all(|line| line.unwrap().contains("stats")) && events.wait().unwrap().success());
    }

    fn more_processes_are_refused_and_counted(who: Who) {
        let Some(container) = container("more_processes_are_refused_and_counted", who) else { return };
        let container = container
            .helpers()
            .shell("probe forks 50 > /tmp/said; sleep 1000")
            .set("/linux/resources/pids", json!({ "limit": 8 }));
        let group = started(&container);
        assert!(eventually(|| said(&container).contains("errno 11")));
        assert!(group.count("pids.events", "max") > 0);
        assert_eq!(group.number("pids.peak"), 8);
        end(&container, &group);
    }

    fn throttling_is_counted_and_told(who: Who) {
        let Some(container) = container("throttling_is_counted_and_told", who) else { return };
        let container = container
            .shell("while :; do :; done")
            .set("/linux/resources/cpu", json!({ "quota": 20_000, "period": 100_000 }));
        let group = started(&container);
        assert!(eventually(|| group.count("cpu.stat", "nr_throttled") > 2), "{}", group.read("cpu.stat"));
        let told = &stats(&container)["cpu"]["throttling"];
        assert!(told["throttledPeriods"].as_u64().is_some_and(|periods| periods > 2), "{told}");
        assert!(told["throttledTime"].as_u64().is_some_and(|time| time > 0), "{told}");
        container.call("update", &["--cpu-quota", "-1"]).ok();
        assert_eq!(group.read("cpu.max"), "max 100000");
        end(&container, &group);
    }

    fn it_is_frozen_by_the_kernel(who: Who) {
        let Some(container) = container("it_is_frozen_by_the_kernel", who) else { return };
        let group = started(&container);
        let frozen = || (group.read("cgroup.freeze"), group.count("cgroup.events", "frozen"));
        assert_eq!(frozen(), ("0".to_owned(), 0));
        container.call("pause", &[]).ok();
        assert_eq!(frozen(), ("1".to_owned(), 1), "it returns when all stand still");
        assert_eq!(container.status(), "paused");
        container.call("resume", &[]).ok();
        assert_eq!(frozen(), ("0".to_owned(), 0));
        container.call("pause", &[]).ok();
        end(&container, &group);
    }

    /// There is no moment in which it is outside its limits.
    fn it_is_cloned_into_its_group(who: Who) {
        let Some(container) = container("it_is_cloned_into_its_group", who) else { return };
        let pid = container.place.text("pid");
        let trace = trace(&container, "clone3,openat,openat2", "create", &["--pid-file", &pid, &container.id]);
        let clone = trace.lines().find(|line| line.contains("CLONE_NEWPID")).unwrap_or_else(|| panic!("{trace}"));
        assert!(clone.contains("CLONE_INTO_CGROUP") && clone.contains("cgroup="), "{clone}");
        assert!(!trace.contains("cgroup.procs") && !trace.contains("\"tasks\""), "it was moved: {trace}");
        container.start();
        let group = container.group();
        assert_eq!(group.0.file_name().unwrap().to_str().unwrap(), container.id);
        // From inside, its own group is all there is.
        assert_eq!(container.call_on("exec", &["cat", "/proc/self/cgroup"]).ok(), "0::/\n");
        container.output(container.command("exec", &["--detach", &container.id, "sleep", "1000"])).ok();
        assert_eq!(group.pids().len(), 2);
        end(&container, &group);
    }

    fn all_are_killed_at_once(who: Who) {
        let Some(container) = container("all_are_killed_at_once", who) else { return };
        let container = container.shell("sleep 1000 & (sleep 1000 & sleep 1000; :) & sleep 1000");
        let group = started(&container);
        assert!(eventually(|| group.pids().len() >= 4), "{:?}", group.pids());
        let said = trace(&container, "openat,pidfd_send_signal,kill", "kill", &["--all", &container.id, "KILL"]);
        assert!(said.lines().any(|line| line.contains("\"cgroup.kill\"")), "{said}");
        assert!(!said.contains("pidfd_send_signal") && !said.contains("kill("), "one by one: {said}");
        assert_eq!((group.pids(), group.count("cgroup.events", "populated")), (vec![], 0));
        container.becomes("stopped");

        container.call("delete", &[]).ok();
        let group = started(&container);
        assert!(eventually(|| group.pids().len() >= 4), "{:?}", group.pids());
        let said = trace(&container, "openat", "delete", &["--force", &container.id]);
        assert!(said.contains("\"cgroup.kill\"") && !group.0.exists(), "{said}");
    }
}

/// A disk, as the kernel numbers it, and its directory.
fn disk() -> (u64, u64, PathBuf) {
    let all = fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path());
    // Not one that is made up of others.
    let dir = all.filter(|dir| dir.join("device").exists()).min().expect("no disk");
    let text = fs::read_to_string(dir.join("dev")).unwrap();
    let (major, minor) = text.trim().split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap(), dir)
}

fn as_root(test: &str) -> Option<Container> {
    Who::Root.find(test).and_then(|who| container(test, who))
}

#[test]
fn processors_and_memory_nodes_are_the_kernels() {
    let Some(container) = as_root("processors_and_memory_nodes_are_the_kernels") else { return };
    let container = container.set("/linux/resources/cpu", json!({ "cpus": "1", "mems": "0" }));
    let group = started(&container);
    assert_files(&group, &[("cpuset.cpus", "1"), ("cpuset.cpus.effective", "1"), ("cpuset.mems", "0")]);
    let allowed = || container.call_on("exec", &["grep", "Cpus_allowed_list", "/proc/1/status"]).ok();
    assert_eq!(allowed(), "Cpus_allowed_list:\t1\n");
    container.call("update", &["--cpuset-cpus", "0"]).ok();
    assert_files(&group, &[("cpuset.cpus.effective", "0"), ("cpuset.mems", "0")]);
    assert_eq!(allowed(), "Cpus_allowed_list:\t0\n");
    container.call("update", &["--cpuset-cpus", "0,4000"]).fails("cpuset.cpus");
    end(&container, &group);
}

#[test]
fn huge_pages_are_the_kernels() {
    let Some(container) = as_root("huge_pages_are_the_kernels") else { return };
    let limits = json!([{ "pageSize": "2MB", "limit": 4 * MIB }, { "pageSize": "1GB", "limit": 0 }]);
    let container = container.set("/linux/resources/hugepageLimits", limits);
    let group = started(&container);
    assert_files(&group, &[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")]);
    assert_files(&group, &[("hugetlb.1GB.max", "0"), ("hugetlb.1GB.rsvd.max", "0")]);
    update(&container, json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 2 * MIB }] })).ok();
    assert_eq!(group.read("hugetlb.2MB.max"), "2097152");
    assert_eq!(stats(&container)["hugetlb"]["2MB"]["failcnt"], 0);
    update(&container, json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] })).fails("hugetlb.3MB.max");
    end(&container, &group);
}

#[test]
fn the_disk_is_shared_as_the_kernel_has_it() {
    let Some(container) = as_root("the_disk_is_shared_as_the_kernel_has_it") else { return };
    let (major, minor, sys) = disk();
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let io = json!({
        "weight": 500,
        "throttleReadBpsDevice": rate(10 * MIB), "throttleWriteBpsDevice": rate(20 * MIB),
        "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(400),
    });
    let container = container.set("/linux/resources/blockIO", io);
    let group = started(&container);
    let bfq = || group.0.join("io.bfq.weight").exists();
    let weight = if bfq() { ("io.bfq.weight", "default 500") } else { ("io.weight", "default 4950") };
    assert_files(&group, &[weight]);
    assert_eq!(group.read("io.max"), format!("{major}:{minor} rbps=10485760 wbps=20971520 riops=300 wiops=400"));
    update(&container, json!({ "blockIO": { "throttleReadBpsDevice": rate(0), "throttleReadIOPSDevice": rate(9) } }))
        .ok();
    assert_eq!(group.read("io.max"), format!("{major}:{minor} rbps=max wbps=20971520 riops=9 wiops=400"));
    assert_files(&group, &[weight]);
    container.call("update", &["--blkio-weight", "1000"]).ok();
    assert!(
        group.read(weight.0).ends_with(if bfq() { "default 1000" } else { "default 10000" }),
        "{}",
        group.read(weight.0)
    );
    let nowhere = json!([{ "major": 4000, "minor": 7, "rate": 1 }]);
    update(&container, json!({ "blockIO": { "throttleReadBpsDevice": nowhere } })).fails("io.max");
    end(&container, &group);

    // The scheduler of another weight is a module: only where the machine is forgotten may it be brought in.
    if !promised() {
        return;
    }
    assert!(Command::new("modprobe").arg("bfq").status().unwrap().success());
    fs::write(sys.join("queue/scheduler"), "bfq").unwrap();
    let weights = json!([{ "major": major, "minor": minor, "weight": 300 }]);
    let container = container.set("/linux/resources/blockIO", json!({ "weight": 700, "weightDevice": weights }));
    let group = started(&container);
    assert_eq!(group.read("io.bfq.weight"), format!("default 700\n{major}:{minor} 300"));
    end(&container, &group);
}

/// Without such a device there is nothing to limit, and to say nothing would be to let it go.
#[test]
fn what_has_no_device_is_no_limit() {
    let Some(container) = as_root("what_has_no_device_is_no_limit") else { return };
    let container = container.set("/linux/resources/rdma", json!({ "mlx5_none": { "hcaHandles": 3 } }));
    container.run().fails("rdma.max");
    assert_eq!(cgroups(&container.id), Vec::<PathBuf>::new());
}

#[test]
fn devices_are_what_the_rules_say() {
    let Some(container) = as_root("devices_are_what_the_rules_say") else { return };
    let rule = |allow: bool, minor: u32, access: &str| json!({ "allow": allow, "type": "c", "major": 1, "minor": minor, "access": access });
    let nothing = || json!({ "allow": false, "access": "rwm" });
    let (major, minor, _) = disk();
    let tries = format!(
        "cd /tmp; for n in 3 11; do mknod d$n c 1 $n; done; \
        t() {{ if \"$@\" 2>/dev/null; then echo yes; else echo no; fi; }}; \
        t sh -c ': < d3'; t sh -c ': < d11'; t sh -c ': >> d11'; t mknod b b {major} {minor}; t sh -c ': < b'; rm -f d3 d11 b"
    );
    let mut container = container
        .capabilities(&["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYSLOG"])
        .set("/linux/resources/devices", json!([nothing(), rule(true, 11, "r")]));
    for applet in ["mknod", "rm"] {
        container.place.symlink("busybox", format!("bundle/rootfs/bin/{applet}"));
    }
    let group = started(&container);
    let tried = || {
        let process = container.call_on("exec", &["sh", "-c", &tries]).ok();
        process.split_whitespace().map(|word| word == "yes").collect::<Vec<_>>()
    };
    // /dev/null; /dev/kmsg for reading, not for writing; any node may be made, and the disk's not opened.
    assert_eq!(tried(), [true, true, false, true, false]);
    update(&container, json!({ "devices": [nothing(), rule(true, 11, "rw")] })).ok();
    assert_eq!(tried(), [true, true, true, true, false]);
    update(&container, json!({ "devices": [nothing()] })).ok();
    assert_eq!(tried(), [true, false, false, true, false]);
    // Limits of another kind leave them as they are.
    container.call("update", &["--pids-limit", "50"]).ok();
    assert_eq!(tried(), [true, false, false, true, false]);
    end(&container, &group);
    container =
        container.set("/linux/resources/devices", json!([{ "allow": true, "access": "rwm" }, rule(false, 11, "w")]));
    let group = started(&container);
    let said = container.call_on("exec", &["sh", "-c", &tries]).ok();
    assert!(said.starts_with("yes\nyes\nno\nyes\n"), "{said}");
    end(&container, &group);
}

/// The runtime-spec's "Cgroup ownership".
#[test]
fn its_group_is_given_to_its_user() {
    let Some(container) = as_root("its_group_is_given_to_its_user") else { return };
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let tree = |access: &str| {
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", access] })
    };
    let mut namespaces = container.config["linux"]["namespaces"].as_array().unwrap().clone();
    namespaces.push(json!({ "type": "user" }));
    let line = "cd /sys/fs/cgroup; mkdir nest && echo $$ > nest/cgroup.procs && echo +pids > cgroup.subtree_control && \
        echo 5 > nest/pids.max && cat nest/pids.max > /tmp/said; echo 9 > pids.max || echo kept >> /tmp/said; sleep 1000";
    let container = container
        .shell(line)
        .set("/linux/namespaces", json!(namespaces))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/linux/resources/pids", json!({ "limit": 40 }))
        .mount(tree("rw"));
    fs::set_permissions(container.rootfs("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    container.create();
    let group = container.group();
    let owner = |file: &str| fs::metadata(group.0.join(file)).unwrap().uid();
    let given = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap();
    let given: Vec<_> = given.lines().collect();
    assert!(given.contains(&"cgroup.procs"), "{given:?}");
    for entry in fs::read_dir(&group.0).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        assert_eq!(owner(&name), if given.contains(&name.as_str()) { 100_000 } else { 0 }, "{name}");
    }
    assert_eq!(owner("."), 100_000);
    container.start();
    assert!(eventually(|| said(&container) == "5\nkept\n"));
    assert_eq!(group.read("pids.max"), "40");
    // It lies a level deeper now, and so does whoever joins it.
    assert_eq!(container.call_on("exec", &["cat", "/proc/self/cgroup"]).ok(), "0::/nest\n");
    end(&container, &group);

    // Where it cannot write, nothing is given.
    let mut container = container;
    container.config["mounts"].as_array_mut().unwrap().pop();
    let container = container.mount(tree("ro")).args(&["sleep", "1000"]);
    let group = started(&container);
    assert_eq!(fs::metadata(&group.0).unwrap().uid(), 0);
    assert_eq!(fs::metadata(group.0.join("cgroup.procs")).unwrap().uid(), 0);
    end(&container, &group);
}

/// What shares the host's pid namespace does not die with its init.
#[test]
fn without_a_pid_namespace_all_are_killed() {
    let Some(container) = as_root("without_a_pid_namespace_all_are_killed") else { return };
    let mut namespaces = container.config["linux"]["namespaces"].as_array().unwrap().clone();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let container = container
        .shell("sleep 1000 & (sleep 1000 & sleep 1000; :) & sleep 1000")
        .set("/linux/namespaces", json!(namespaces));
    let group = started(&container);
    assert!(eventually(|| group.pids().len() >= 3), "{:?}", group.pids());
    end(&container, &group);
}
