//! Documents and flags that other runtimes read wrongly.

use crate::both;
use std::fs;

use serde_json::{Value, json};

use crate::{
    bundle::Container,
    common::{Who, host},
};

both! {
    fn cve_2022_0811_a_setting_smuggles_no_second_one(who: Who) {
        let Some(container) = Container::new("settings", who) else { return };
        for (key, value) in [
            ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/bin/evil"),
            ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/bin/evil"),
            ("kernel.core_pattern", "|/bin/evil"),
            ("net.ipv4.../../kernel/core_pattern", "|/bin/evil"),
            ("net/../kernel/core_pattern", "|/bin/evil"),
            ("net.ipv4.ip_default_ttl/../../../kernel/core_pattern", "|/bin/evil"),
            ("kernel/shm_rmid_forced\n", "1"),
            ("vm.swappiness", "1"),
            ("kernel.hostname", "other"),
        ] {
            let mut config = container.config.clone();
            config["linux"]["sysctl"] = json!({ key: value });
            let said = run(&container, &config);
            assert_ne!(said.code, 0, "{key} = {value}: {said:?}");
            assert!(said.err.contains("sysctl"), "{said:?}");
        }
    }

    fn cve_2021_43784_maps_larger_than_any_field_are_refused_or_whole(who: Who) {
        let Some(container) = Container::new("large maps", who) else { return };
        for count in [341_u32, 70_000] {
            let maps: Vec<Value> =
                (0..count).map(|n| json!({ "containerID": n * 2, "hostID": 100_000 + n * 2, "size": 1 })).collect();
            let mut config = container.config.clone();
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            if who == Who::Root {
                namespaces.push(json!({ "type": "user" }));
            }
            config["linux"]["uidMappings"] = json!(maps);
            config["linux"]["gidMappings"] = json!(maps);
            let said = run(&container, &config);
            assert_ne!(said.code, 0, "{said:?}");
            assert!(!said.err.contains("panicked"), "{said:?}");
            container.call("state", &[]).fails("does not exist");
        }
    }

    fn long_words_pass_whole_or_are_refused(who: Who) {
        let Some(container) = Container::new("long words", who) else { return };
        // One less and one more than what 16 bits count.
        for length in [65_535, 65_536, 65_537, 100_000] {
            let long = "x".repeat(length);
            let mut config = container.config.clone();
            config["process"]["args"] = json!(["sh", "-c", r#"echo "${#0} ${#A}""#, long]);
            config["process"]["env"] = json!(["PATH=/bin", format!("A={long}")]);
            assert_eq!(run(&container, &config).ok(), format!("{length} {length}\n"));
        }
        let mut config = container.config.clone();
        config["process"]["args"] = json!(["/".to_owned() + &"n".repeat(70_000)]);
        let said = run(&container, &config);
        assert!(said.code != 0 && said.err.contains("exec"), "{}", said.code);
    }

    fn cve_2024_40635_ids_too_large_are_refused(who: Who) {
        let Some(container) = Container::new("large ids", who) else { return };
        for id in [json!(-1), json!(4_294_967_295_u64), json!(4_294_967_296_u64), json!(1e30), json!("0"), json!(0.5)] {
            for key in ["uid", "gid"] {
                let mut config = container.config.clone();
                config["process"]["args"] = json!(["id"]);
                config["process"]["user"][key] = id.clone();
                let said = run(&container, &config);
                assert!(said.code != 0 && said.out.is_empty(), "{key} {id}: {said:?}");
            }
            let mut config = container.config.clone();
            config["process"]["args"] = json!(["id"]);
            config["process"]["user"]["additionalGids"] = json!([id]);
            let said = run(&container, &config);
            assert!(said.code != 0 && said.out.is_empty(), "{id}: {said:?}");
        }
    }

    fn a_cgroups_path_does_not_lead_elsewhere(who: Who) {
        let Some(container) = Container::new("cgroups path", who) else { return };
        let elsewhere = format!("/tmp/{}", container.id);
        for path in [&format!("/../../..{elsewhere}"), "../../..", "/a/../../../../b", "/fumehood-test/../.."] {
            let mut config = container.config.clone();
            config["linux"]["cgroupsPath"] = json!(path);
            let command = container.command("create", &[&container.id]);
            fs::write(container.bundle().join("config.json"), config.to_string()).unwrap();
            // Refused, or taken as what it means below the hierarchy's root.
            _ = container.output(command);
            assert!(!std::path::Path::new(&elsewhere).exists(), "{path}");
            container.call("delete", &["--force"]).ok();
        }
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.start();
        for path in ["../..", "a/../../..", "/../x"] {
            let said = container.output(container.command("exec", &["--cgroup", path, &container.id, "true"]));
            assert!(said.code != 0 || who == Who::User, "{path}: {said:?}");
        }
    }

    fn cve_2023_25809_control_groups_of_the_host_are_not_to_be_written(who: Who) {
        let Some(container) = Container::new("cgroup tree", who) else { return };
        let mut namespaces = container.config["linux"]["namespaces"].as_array().unwrap().clone();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        // Without a namespace of its own, and as all engines mount it.
        let container = container
            .set("/linux/namespaces", json!(namespaces))
            .mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                           "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }))
            .shell(
                "find() { for file in $1/* ; do test -L $file && continue; test -d $file && find $file; \
                 test -w $file && test -f $file && echo 1 2>/dev/null > $file && echo wrote $file; done; }; \
                 ls /sys/fs/cgroup >/dev/null; \
                 for file in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/*/release_agent \
                 /sys/fs/cgroup/cgroup.subtree_control /sys/fs/cgroup/*/notify_on_release; do \
                 test -e $file && (echo 0 > $file) 2>/dev/null && echo wrote $file; done; \
                 mkdir /sys/fs/cgroup/made /sys/fs/cgroup/*/made 2>/dev/null && echo made; true",
            );
        let said = container.run();
        assert!(said.code != 0 || said.out.is_empty(), "{said:?}");
    }

    fn cve_2022_0492_and_2022_0185_our_own_filter_leaves_no_way_to_new_rights(who: Who) {
        let Some(container) = Container::new("new rights", who) else { return };
        let container = container.helpers().set("/annotations", json!({ "io.fumehood.profile": "default" })).args(&[
            "probe",
            "calls",
            "unshare:272,0x10000000",
            "clone:56,0x10000000",
            "clone3:435,&,88",
            "fsopen:430,@ext4,0",
            "fsconfig:431,0,0,@a,@b,0",
            "mount:165,@a,@/tmp,@cgroup,0,0",
            "setns:308,0,0",
        ]);
        let out = container.run().ok();
        for line in out.lines() {
            let (name, answer) = line.split_once(' ').unwrap();
            let expected = if name == "clone3" { "errno 38" } else { "errno 1" };
            assert_eq!(answer, expected, "{name} in {out}");
        }
        assert_eq!(out.lines().count(), 7, "{out}");
    }

    fn cve_2020_15257_a_container_with_its_own_network_reaches_no_abstract_socket(who: Who) {
        use std::os::{linux::net::SocketAddrExt, unix::net};
        let Some(container) = Container::new("abstract sockets", who) else { return };
        let name = format!("fumehood-{}", container.id);
        let address = net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = net::UnixListener::bind_addr(&address).unwrap();
        net::UnixStream::connect_addr(&address).unwrap();
        let container = container.args(&["cat", "/proc/net/unix"]);
        let out = container.run().ok();
        assert!(!out.contains(&name), "{out}");
        drop(listener);
    }

    fn a_mount_of_the_specification_keeps_its_propagation(who: Who) {
        let Some(container) = Container::new("propagation", who) else { return };
        container.place.mkdir("source/inner");
        let source = container.place.text("source");
        let container = container
            .mount(json!({ "destination": "/tmp", "type": "bind", "source": source, "options": ["rbind", "rprivate"] }))
            .capabilities(&["CAP_SYS_ADMIN"])
            .shell("mount -t tmpfs none /tmp/inner && touch /tmp/inner/made && grep ' /tmp ' /proc/self/mountinfo");
        let before = host::Look::now();
        let out = container.run().ok();
        assert!(!out.contains("shared:") && !out.contains("master:"), "{out}");
        assert!(!container.place.join("source/inner/made").exists());
        before.assert_unchanged();
    }

    fn cve_2025_23266_hooks_have_a_working_directory_of_the_hosts(who: Who) {
        let Some(container) = Container::new("hook directory", who) else { return };
        let log = container.place.text("cwd.log");
        // Whatever lies about in the root is not found by a relative name.
        container.place.write_executable("bundle/rootfs/evil.so", "");
        let write = |name: &str| {
            let script = format!("echo {name} $(pwd) $LD_PRELOAD >> {log}");
            json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["ONLY=this"] }])
        };
        let container = container
            .set("/process/env", json!(["PATH=/bin", "LD_PRELOAD=./evil.so"]))
            .set("/hooks", json!({ "prestart": write("prestart"), "createRuntime": write("createRuntime"),
                                   "createContainer": write("createContainer"), "poststart": write("poststart") }))
            .args(&["sleep", "100"]);
        container.create();
        container.start();
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        let rootfs = container.rootfs("").to_str().unwrap().trim_end_matches('/').to_owned();
        for line in text.lines() {
            assert!(!line.contains("evil") && !line.contains(&rootfs), "{text}");
        }
    }
}

fn run(container: &Container, config: &Value) -> crate::bundle::Said {
    let command = container.command("run", &[&container.id]);
    fs::write(container.bundle().join("config.json"), config.to_string()).unwrap();
    container.output(command)
}

#[test]
fn a_working_directory_that_only_root_may_enter_is_no_obstacle() {
    let Some(who) = Who::Root.find("root's directory") else { return };
    let Some(container) = Container::new("root's directory", who) else { return };
    container.place.mkdir("bundle/rootfs/closed");
    fs::set_permissions(container.rootfs("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let container = container
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .set("/process/cwd", json!("/closed"))
        .shell("readlink /proc/self/cwd; ls . 2>/dev/null; id -u");
    assert_eq!(container.run().ok(), "/closed\n1000\n");
    let container = container.args(&["sleep", "100"]);
    container.create();
    container.start();
    assert_eq!(container.call_on("exec", &["sh", "-c", "readlink /proc/self/cwd; id -u"]).ok(), "/closed\n1000\n");
}
