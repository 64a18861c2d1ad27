//! Containers in scopes of the real systemd (`--systemd-cgroup`): of the host's as root, of the user's own as an
//! ordinary user. What the spec asks for is both in systemd's words and in the kernel's files, and stays there.

use std::process::Command;

use serde_json::json;

use crate::{
    both,
    bundle::Container,
    common::{
        Who,
        host::eventually,
        unified::{Group, systemd_here},
    },
};

const MIB: u64 = 1 << 20;

fn container(test: &str, who: Who) -> Option<Container> {
    if !systemd_here(test, who) {
        return None;
    }
    let container = Container::new(test, who)?.systemd();
    let path = format!("fumehoodtest.slice:box:{}", container.id);
    Some(container.set("/linux/cgroupsPath", json!(path)).args(&["sleep", "1000"]))
}

fn unit(container: &Container) -> String {
    format!("box-{}.scope", container.id)
}

#[track_caller]
fn systemctl(who: Who, args: &[&str]) -> String {
    let mut command = Command::new("systemctl");
    if who == Who::User {
        command.arg("--user");
    }
    let output = command.args(args).output().unwrap();
    assert!(output.status.success(), "systemctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What systemd says of the unit.
#[track_caller]
fn properties(container: &Container) -> Vec<(String, String)> {
    let text = systemctl(container.who, &["show", &unit(container)]);
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[track_caller]
fn assert_properties(container: &Container, expected: &[(&str, &str)]) {
    let all = properties(container);
    for (name, value) in expected {
        let found = all.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(found, Some(*value), "{name}");
    }
}

#[track_caller]
fn assert_files(group: &Group, files: &[(&str, &str)]) {
    for (file, value) in files {
        assert_eq!(group.read(file), *value, "{file}");
    }
}

#[track_caller]
fn assert_gone(container: &Container) {
    assert_properties(container, &[("LoadState", "not-found"), ("ActiveState", "inactive")]);
}

both! {
    fn its_scope_has_what_the_spec_asks_for(who: Who) {
        let Some(container) = container("its_scope_has_what_the_spec_asks_for", who) else { return };
        let container = container
            .set("/linux/resources/memory", json!({ "limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB }))
            .set("/linux/resources/cpu", json!({ "shares": 512, "quota": 30000, "period": 60000 }))
            .set("/linux/resources/pids", json!({ "limit": 30 }))
            .set("/linux/resources/unified", json!({ "memory.high": "50331648" }))
            .set("/annotations", json!({ "org.systemd.property.TimeoutStopUSec": "uint64 7000000" }));
        assert_gone(&container);
        container.create();
        let group = container.group();
        let path = group.0.to_str().unwrap().strip_prefix("/sys/fs/cgroup").unwrap();
        assert!(path.ends_with(&format!("/fumehoodtest.slice/{}", unit(&container))), "{path}");
        let description = format!("fumehood container {}", unit(&container));
        assert_properties(&container, &[
            ("LoadState", "loaded"), ("ActiveState", "active"), ("SubState", "running"), ("Transient", "yes"),
            ("Slice", "fumehoodtest.slice"), ("ControlGroup", path), ("Description", &description), ("Delegate", "yes"),
            ("MemoryMax", "67108864"), ("MemoryLow", "33554432"), ("MemorySwapMax", "33554432"),
            ("MemoryHigh", "50331648"), ("CPUWeight", "59"), ("CPUQuotaPerSecUSec", "500ms"),
            ("CPUQuotaPeriodUSec", "60ms"), ("TasksMax", "30"), ("TimeoutStopUSec", "7s"),
        ]);
        let files = [
            ("memory.max", "67108864"), ("memory.low", "33554432"), ("memory.swap.max", "33554432"),
            ("memory.high", "50331648"), ("cpu.weight", "59"), ("cpu.max", "30000 60000"), ("pids.max", "30"),
        ];
        assert_files(&group, &files);
        container.start();
        assert_eq!(group.pids(), [container.place.read("pid").parse::<i32>().unwrap()]);

        let limits = ["--memory", "80m", "--memory-swap", "100m", "--pids-limit", "20"];
        container.call("update", &limits).ok();
        let cpu = ["--cpu-quota", "20000", "--cpu-period", "50000", "--cpu-share", "2048"];
        container.call("update", &cpu).ok();
        assert_properties(&container, &[
            ("MemoryMax", "83886080"), ("MemorySwapMax", "20971520"), ("MemoryLow", "33554432"), ("TasksMax", "20"),
            ("CPUQuotaPerSecUSec", "400ms"), ("CPUQuotaPeriodUSec", "50ms"), ("CPUWeight", "174"),
        ]);
        let files = [
            ("memory.max", "83886080"), ("memory.swap.max", "20971520"), ("memory.low", "33554432"), ("pids.max", "20"),
            ("cpu.max", "20000 50000"), ("cpu.weight", "174"), ("memory.high", "50331648"),
        ];
        assert_files(&group, &files);
        // systemd writes its own again.
        systemctl(who, &["daemon-reload"]);
        systemctl(who, &["set-property", "--runtime", &unit(&container), "IOWeight=100"]);
        assert_files(&group, &files);

        container.call("update", &["--memory", "-1", "--memory-swap", "-1", "--pids-limit", "-1"]).ok();
        let none = [("MemoryMax", "infinity"), ("MemorySwapMax", "infinity"), ("TasksMax", "infinity")];
        assert_properties(&container, &none);
        assert_files(&group, &[("memory.max", "max"), ("memory.swap.max", "max"), ("pids.max", "max")]);
        container.call_on("kill", &["KILL"]).ok();
        container.becomes("stopped");
        container.call("delete", &[]).ok();
        assert!(!group.0.exists());
        assert_gone(&container);
    }

    fn without_a_path_it_is_in_the_usual_slice(who: Who) {
        let Some(container) = container("without_a_path_it_is_in_the_usual_slice", who) else { return };
        let container = container.set("/linux/cgroupsPath", json!(null));
        container.create();
        let group = container.group();
        let slice = if who == Who::Root { "system.slice" } else { "user.slice" };
        let end = format!("/{slice}/fumehood-{}.scope", container.id);
        assert!(group.0.to_str().unwrap().ends_with(&end), "{}", group.0.display());
        container.start();
        // One more is in it, and all are paused together.
        container.output(container.command("exec", &["--detach", &container.id, "sleep", "1000"])).ok();
        assert_eq!(group.pids().len(), 2);
        container.call("pause", &[]).ok();
        assert_eq!((group.read("cgroup.freeze"), group.count("cgroup.events", "frozen")), ("1".to_owned(), 1));
        assert_eq!(container.status(), "paused");
        container.call("resume", &[]).ok();
        container.call("delete", &["--force"]).ok();
        assert!(!group.0.exists());
    }

    /// systemd lets go of a scope that is empty, and of one that it is told to stop.
    fn one_that_has_ended_is_deleted(who: Who) {
        let Some(container) = container("one_that_has_ended_is_deleted", who) else { return };
        container.create();
        let group = container.group();
        container.start();
        container.call_on("kill", &["KILL"]).ok();
        container.becomes("stopped");
        assert!(eventually(|| !group.0.exists()), "systemd keeps it");
        container.call("delete", &[]).ok();
        assert_gone(&container);

        let container = container.shell("trap exit TERM; sleep 1000 & wait");
        container.create();
        container.start();
        systemctl(who, &["stop", &unit(&container)]);
        container.becomes("stopped");
        container.call("delete", &[]).ok();
        assert_gone(&container);
    }

    fn what_cannot_be_leaves_no_scope(who: Who) {
        let Some(container) = container("what_cannot_be_leaves_no_scope", who) else { return };
        let text = |path: &str| path.replace("ID", &container.id);
        for (path, why) in [
            ("/fumehood-test/ID", "slice:prefix:name"),
            ("a.scope:box:ID", "invalid slice name"),
            ("a--b.slice:box:ID", "invalid slice name"),
            ("a.slice:../box:ID", "it names no unit"),
        ] {
            let path = text(path);
            let refused = Container::new("refused", who).unwrap().systemd().set("/linux/cgroupsPath", json!(path));
            refused.run().fails(why);
        }
        // After the scope is there.
        let container = container.set("/linux/resources/unified", json!({ "memory.lots": "1" }));
        container.run().fails("memory.lots");
        assert_gone(&container);
        let container = container.set("/linux/resources/unified", json!({})).set("/annotations", json!({ "org.systemd.property.NoSuch": "'x'" }));
        container.run().fails("NoSuch");
        assert_gone(&container);
    }
}

/// Devices, which an ordinary user has no say over, and what is not delegated to one.
#[test]
fn devices_processors_and_disks_of_a_scope() {
    let Some(who) = Who::Root.find("devices_processors_and_disks_of_a_scope") else { return };
    let Some(container) = container("devices_processors_and_disks_of_a_scope", who) else { return };
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" });
    let container = container
        .capabilities(&["CAP_MKNOD", "CAP_SYSLOG"])
        .set("/linux/resources/cpu", json!({ "cpus": "1", "mems": "0" }))
        .set("/linux/resources/blockIO", json!({ "weight": 500 }))
        .set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }, rule]));
    container.place.symlink("busybox", "bundle/rootfs/bin/mknod");
    container.create();
    container.start();
    let group = container.group();
    assert_properties(&container, &[("AllowedCPUs", "1"), ("AllowedMemoryNodes", "0"), ("DevicePolicy", "strict")]);
    assert_properties(&container, &[("IOWeight", "4950")]);
    assert_files(&group, &[("cpuset.cpus", "1"), ("cpuset.cpus.effective", "1")]);
    let all = properties(&container);
    let allowed: Vec<_> = all.iter().filter(|(key, _)| key == "DeviceAllow").map(|(_, value)| value.as_str()).collect();
    assert!(
        ["/dev/char/1:11 r", "/dev/char/1:3 rwm", "char-* m"].iter().all(|one| allowed.contains(one)),
        "{allowed:?}"
    );
    container.call_on("exec", &["mknod", "/tmp/kmsg", "c", "1", "11"]).ok();
    let tried = || {
        let line = "(: < /tmp/kmsg) && echo read; (: >> /tmp/kmsg) && echo write; (: > /dev/null) && echo null";
        container.call_on("exec", &["sh", "-c", line]).out
    };
    assert_eq!(tried(), "read\nnull\n");
    let weight = || group.read("io.weight");
    assert_eq!(weight(), "default 4950");
    systemctl(who, &["daemon-reload"]);
    // Whereupon it writes the weights anew.
    systemctl(who, &["set-property", "--runtime", &unit(&container), "IOAccounting=no"]);
    assert_eq!(tried(), "read\nnull\n");
    assert!(weight().starts_with("default 4950"), "{}", weight());
    container.place.write("resources.json", r#"{"devices":[{"allow":false,"access":"rwm"}],"cpu":{"cpus":"0"}}"#);
    container.call("update", &["--resources", &container.place.text("resources.json")]).ok();
    assert_eq!(tried(), "null\n");
    assert_properties(&container, &[("AllowedCPUs", "0")]);
    assert_eq!(group.read("cpuset.cpus.effective"), "0");
    container.call("delete", &["--force"]).ok();
    assert_gone(&container);
}
