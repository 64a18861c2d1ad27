//! The process of a container is what its specification says.

use crate::both;
use serde_json::json;

use crate::{bundle::Container, common::Who};

both! {
    fn it_has_the_environment_directory_and_limits_of_its_specification(who: Who) {
        let Some(container) = Container::new("environment", who) else { return };
        let container = container
            .set("/process/env", json!(["PATH=/bin", "A=b c"]))
            .set("/process/cwd", json!("/home/u"))
            .set("/process/user/umask", json!(0o027))
            .shell(r#"pwd; echo "$A"; echo "$HOME"; umask; ulimit -n; hostname; ls -l /proc/self/fd | wc -l"#);
        // 0, 1, 2, the directory that ls reads, and the line with the total.
        assert_eq!(container.run().ok(), "/home/u\nb c\n/root\n0027\n512\nbox\n5\n");
    }

    fn an_empty_home_is_none_and_of_each_variable_the_last_counts(who: Who) {
        let Some(container) = Container::new("home", who) else { return };
        let container = container
            .set("/process/env", json!(["PATH=/bin", "A=1", "HOME=", "A=2"]))
            .shell(r#"echo "$HOME"; env | grep -c ^A=; echo "$A""#);
        assert_eq!(container.run().ok(), "/root\n1\n2\n");
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.start();
        let command = container.command("exec", &["--env", "HOME=", &container.id, "sh", "-c", r#"echo "$HOME""#]);
        assert_eq!(container.output(command).ok(), "/root\n");
    }

    fn it_is_on_every_processor_wherever_its_runtime_was(who: Who) {
        let Some(container) = Container::new("affinity", who) else { return };
        let allowed = |text: &str| text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t").map(str::to_owned));
        let line = "grep Cpus_allowed_list: /proc/self/status";
        let container = container.args(&["sleep", "100"]);
        let every = allowed(&std::fs::read_to_string("/proc/self/status").unwrap()).unwrap();
        // Of this thread, and of what it starts.
        let here = nix::unistd::Pid::from_raw(0);
        let before = nix::sched::sched_getaffinity(here).unwrap();
        let first = (0..nix::sched::CpuSet::count()).find(|number| before.is_set(*number).unwrap()).unwrap();
        let mut one = nix::sched::CpuSet::new();
        one.set(first).unwrap();
        nix::sched::sched_setaffinity(here, &one).unwrap();
        container.create();
        container.start();
        let exec = container.call_on("exec", &["sh", "-c", line]);
        let pinned = json!({ "args": ["sh", "-c", line], "env": ["PATH=/bin"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
            "execCPUAffinity": { "final": first.to_string() } });
        let path = container.place.write("process.json", pinned.to_string());
        let pinned = container.output(container.command("exec", &["--process", path.to_str().unwrap(), &container.id]));
        nix::sched::sched_setaffinity(here, &before).unwrap();
        let init = std::fs::read_to_string(format!("/proc/{}/status", container.place.read("pid"))).unwrap();
        assert_eq!(allowed(&init), Some(every.clone()));
        assert_eq!(allowed(&exec.ok()), Some(every));
        assert_eq!(allowed(&pinned.ok()), Some(first.to_string()));
    }

    fn what_is_masked_is_covered_once(who: Who) {
        let Some(container) = Container::new("masks", who) else { return };
        for dir in ["one", "two"] {
            container.place.write(format!("bundle/rootfs/{dir}/secret"), "secret");
        }
        container.place.write("bundle/rootfs/etc/secret", "secret");
        let container = container
            .set("/linux/maskedPaths", json!(["/one", "/one/", "/two", "/x/../two", "/etc/secret", "/etc/passwd", "/etc/secret"]))
            .shell("ls -A /one /two; cat /etc/secret /etc/passwd; touch /one/x; touch /two/x; \
                    grep -cE ' /(one|two|etc/secret|etc/passwd) ' /proc/self/mountinfo");
        let said = container.run();
        assert_eq!(said.out, "/one:\n\n/two:\n4\n", "{said:?}");
        assert_eq!(said.err.matches("Read-only file system").count(), 2, "{said:?}");
    }

    fn its_program_is_found_without_an_environment(who: Who) {
        let Some(container) = Container::new("no-environment", who) else { return };
        let mut container = container.args(&["echo", "found"]);
        container.config["process"].as_object_mut().unwrap().remove("env");
        assert_eq!(container.run().ok(), "found\n");
        // A PATH that is empty is one: of the working directory alone.
        container.set("/process/env", json!(["PATH="])).run().fails("not found in $PATH");
    }

    fn it_has_only_the_capabilities_it_is_given(who: Who) {
        let Some(container) = Container::new("capabilities", who) else { return };
        let container = container.shell("grep -E '^(Cap|NoNewPrivs)' /proc/self/status");
        let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000000000eb\nCapEff:\t00000000000000eb\n\
                        CapBnd:\t00000000000000eb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";
        assert_eq!(container.run().ok(), expected);
        let container = container
            .set("/process/capabilities/inheritable", json!(["CAP_KILL"]))
            .set("/process/capabilities/ambient", json!(["CAP_KILL"]))
            .set("/process/noNewPrivileges", json!(false));
        let expected = "CapInh:\t0000000000000020\nCapPrm:\t00000000000000eb\nCapEff:\t00000000000000eb\n\
                        CapBnd:\t00000000000000eb\nCapAmb:\t0000000000000020\nNoNewPrivs:\t0\n";
        assert_eq!(container.run().ok(), expected);
    }

    fn a_missing_working_directory_is_made_and_one_outside_is_refused(who: Who) {
        let Some(container) = Container::new("cwd", who) else { return };
        let container = container.set("/process/cwd", json!("/made/for/it")).shell("pwd");
        assert_eq!(container.run().ok(), "/made/for/it\n");
        for number in 3..20 {
            // CVE-2024-21626
            let cwd = format!("/proc/self/fd/{number}");
            let said = container_at(&container, &cwd);
            assert_ne!(said.code, 0, "{cwd}: {said:?}");
        }
    }

    fn the_root_inside_is_the_bundles(who: Who) {
        let Some(container) = Container::new("root", who) else { return };
        let container = container.shell("ls /; ls /dev; cat /proc/1/comm; touch /proc/sys/x 2>&1; touch /w && echo written");
        let out = container.run().ok();
        for expected in ["proc\n", "null\n", "ptmx\n", "written\n"] {
            assert!(out.contains(expected), "no {expected:?} in {out}");
        }
        let container = container.set("/root/readonly", json!(true)).shell("touch /w");
        container.run().fails("Read-only file system");
    }

    fn the_same_limit_twice_is_an_error_that_names_it(who: Who) {
        let Some(container) = Container::new("rlimits", who) else { return };
        let limit = json!({ "type": "RLIMIT_CORE", "soft": 1, "hard": 1 });
        let container = container.set("/process/rlimits", json!([limit, limit]));
        container.run().fails("process.rlimits[1]");
    }
}

fn container_at(container: &Container, cwd: &str) -> crate::bundle::Said {
    let mut config = container.config.clone();
    config["process"]["cwd"] = json!(cwd);
    let path = container.place.write("other/config.json", serde_json::to_vec(&config).unwrap());
    let _ = path;
    std::fs::remove_dir_all(container.place.join("other/rootfs")).ok();
    let command = container.command("run", &[&container.id]);
    std::fs::write(container.bundle().join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    container.output(command)
}

#[test]
fn a_user_is_one_of_the_containers_own() {
    let Some(who) = Who::Root.find("user") else { return };
    let Some(container) = Container::new("user", who) else { return };
    let container = container
        .set("/process/user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6] }))
        .shell(r#"id -u; id -G; echo "$HOME"; grep CapEff /proc/self/status"#);
    // No ambient ones: execve takes the rest from a user that is not root.
    assert_eq!(container.run().ok(), "1000\n1001 5 6\n/home/u\nCapEff:\t0000000000000000\n");
}
