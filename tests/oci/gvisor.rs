//! Containers on gVisor's kernel: every verb of an engine's, what that kernel cannot hold, and what is left when any of
//! it is killed.

use std::{fs, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    both,
    bundle::Container,
    common::{
        Who, granted_ids,
        host::{self, eventually},
        skip,
        terminal::Session,
    },
};

/// `None`, said aloud, where there can be none.
fn gvisor(test: &str, who: Who) -> Option<Container> {
    if !std::path::Path::new("/usr/bin/runsc").exists() {
        skip(test, "runsc is not installed: apt install runsc");
        return None;
    }
    let container = Container::new(test, who)?.set("/annotations", json!({ "io.fumehood.isolation": "gvisor" }));
    if who == Who::Root {
        return Some(container);
    }
    // gVisor's kernel becomes nobody, which takes more ids than one.
    let granted = granted_ids(who, test)?;
    let (uid, gid) = who.ids().unwrap_or_else(|| (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()));
    let map = |own: u32, (start, count): (u32, u32)| {
        json!([
            { "containerID": 0, "hostID": own, "size": 1 },
            { "containerID": 1, "hostID": start, "size": count },
        ])
    };
    Some(container.set("/linux/uidMappings", map(uid, granted[0])).set("/linux/gidMappings", map(gid, granted[1])))
}

both! {
    fn a_container_on_gvisor_lives_as_any_other(who: Who) {
        let Some(container) = gvisor("gvisor lifecycle", who) else { return };
        let container = container.shell("trap 'echo term; exit 5' TERM; echo ran > /tmp/ran; cat /proc/version; while :; do sleep 0.1; done");
        // gVisor has a /tmp of its own where there is nothing in it.
        container.place.write("bundle/rootfs/tmp/there", "");
        container.create();
        assert_eq!(container.status(), "created");
        let marker = container.place.join("bundle/rootfs/tmp/ran");
        assert!(!marker.exists(), "the program ran before start");
        container.call_on("exec", &["true"]).fails("has not been started");
        container.start();
        assert_eq!(container.status(), "running");
        assert!(eventually(|| marker.exists()));
        container.call("start", &[]).fails("cannot start an already running container");
        container.call("delete", &[]).fails("is not stopped");

        // A program more.
        let said = container.call_on("exec", &["sh", "-c", "cat /proc/version; echo err >&2; exit 3"]);
        assert!(said.out.contains("gVisor") || said.out.contains("2016"), "{said:?}");
        assert_eq!((said.code, said.err.as_str()), (3, "err\n"));
        let said = container.call_on("exec", &["hostname"]);
        assert_eq!(said.ok(), "box\n");
        container.call_on("exec", &["nope"]).fails("executable file not found in $PATH");
        container.call_on("exec", &["/etc/passwd"]).fails("permission denied");

        // Its processes: the host's, and gVisor's own.
        let pids: Vec<i32> = serde_json::from_str(&container.call("ps", &["--format", "json"]).ok()).unwrap();
        assert!(pids.len() > 2, "{pids:?}");
        let table = container.call("ps", &[]).ok();
        assert!(table.starts_with("UID") && table.contains("sh"), "{table}");
        let listed = container.output(container.command("list", &["--quiet"])).ok();
        assert!(listed.contains(&container.id), "{listed}");

        container.call_on("kill", &["--all", "WINCH"]).ok();
        container.call_on("kill", &["TERM"]).ok();
        container.becomes("stopped");
        container.call_on("kill", &["TERM"]).fails("container not running");
        container.call("delete", &[]).ok();
        container.call("state", &[]).fails("does not exist");
        container.call("delete", &["--force"]).ok();
    }

    fn run_on_gvisor_has_the_programs_status_and_output(who: Who) {
        let Some(mut container) = gvisor("gvisor run", who) else { return };
        for (line, code, out) in [
            ("echo out; exit 7", 7, "out\n"),
            ("id -u; pwd; echo $TERM", 0, "0\n/\nxterm\n"),
            ("grep -c 2016 /proc/version", 0, "1\n"),
            ("test -e /sys && test -e /dev/null && echo x > /written && cat /written", 0, "x\n"),
            ("ls /runsc /bundle /rootfs 2>/dev/null; echo none", 0, "none\n"),
            ("sh -c 'kill -9 $$'; echo $?", 0, "137\n"),
        ] {
            container = container.shell(line);
            let said = container.run();
            assert_eq!((said.code, said.out.as_str()), (code, out), "{line}: {said:?}");
        }
        let said = container.args(&["nope"]).run();
        said.fails("executable file not found in $PATH");
    }

    fn what_is_asked_of_it_is_held_by_gvisor_or_by_the_tree(who: Who) {
        let Some(container) = gvisor("gvisor controls", who) else { return };
        container.place.mkdir("volume");
        container.place.write("volume/in", "hello");
        container.place.write("file", "file");
        let volume = container.place.text("volume");
        let mut container = container
            .mount(json!({ "destination": "/ro", "type": "bind", "source": volume, "options": ["rbind", "ro"] }))
            .mount(json!({ "destination": "/rw", "type": "bind", "source": volume, "options": ["rbind", "rw"] }))
            .mount(json!({ "destination": "/noexec", "type": "bind", "source": "rootfs/bin", "options": ["rbind", "noexec"] }))
            .mount(json!({ "destination": "/etc/given", "type": "bind", "source": "../file", "options": ["bind"] }))
            .mount(json!({ "destination": "/small", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"] }))
            .set("/process/user", json!({ "uid": 0, "gid": 0, "umask": 63 }))
            .set("/linux/seccomp", json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }],
            }));
        for (line, out) in [
            ("cat /ro/in /etc/given", "hellofile"),
            ("touch /ro/x 2>/dev/null; echo $?", "1\n"),
            ("echo out > /rw/out; echo $?", "0\n"),
            ("/noexec/busybox true 2>/dev/null; echo $?", "126\n"),
            ("dd if=/dev/zero of=/small/x bs=1k count=200 2>/dev/null; echo $?", "1\n"),
            ("mkdir /made 2>/dev/null; echo $?", "1\n"),
            ("df /dev/shm >/dev/null; echo $?; ulimit -n", "0\n512\n"),
            ("grep CapEff /proc/self/status", "CapEff:\t00000000000000eb\n"),
        ] {
            container = container.shell(line);
            let said = container.run();
            assert_eq!(said.out, out, "{line}: {said:?}");
        }
        assert_eq!(container.place.read("volume/out"), "out\n");
        let mut container = container.set("/root/readonly", json!(true));
        container = container.shell("touch /x 2>/dev/null || touch /rw/x && echo no");
        assert_eq!(container.run().out, "no\n");
    }

    fn what_gvisor_cannot_hold_is_refused_by_name(who: Who) {
        let mut kinds = vec!["mount", "uts", "ipc", "network"];
        kinds.extend((who == Who::User).then_some("user"));
        let namespaces: Vec<_> = kinds.iter().map(|kind| json!({ "type": kind })).collect();
        let cases = [
            ("/linux/namespaces", json!(namespaces), "linux.namespaces"),
            ("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }), "linux.sysctl.net.ipv4.ip_forward"),
            ("/linux/devices", json!([{ "path": "/dev/sda", "type": "b", "major": 8, "minor": 0 }]), "linux.devices[0]"),
            ("/linux/rootfsPropagation", json!("shared"), "linux.rootfsPropagation"),
            ("/hooks", json!({ "startContainer": [{ "path": "/bin/true" }] }), "hooks.startContainer"),
            ("/annotations/io.fumehood.profile", json!("strict"), "annotations.io.fumehood.profile"),
            ("/annotations/io.fumehood.landlock", json!("tcp = false"), "annotations.io.fumehood.landlock"),
            ("/annotations/io.fumehood.isolation", json!("vm"), "`vm` is not known"),
        ];
        for (pointer, value, words) in cases {
            let Some(container) = gvisor("gvisor refusals", who) else { return };
            let container = container.set(pointer, value);
            container.call("create", &[]).fails(words);
            container.call("state", &[]).fails("does not exist");
        }
        let Some(container) = gvisor("gvisor descriptors", who) else { return };
        container.call("create", &["--preserve-fds", "1"]).fails("--preserve-fds does not hold");
    }

    fn a_terminal_is_gvisors_and_the_engines(who: Who) {
        let Some(container) = gvisor("gvisor terminal", who) else { return };
        let container = container.args(&["sh"]).set("/process/terminal", json!(true));
        let mut session = Session::around(container.command("run", &[&container.id]));
        session.type_in("tty; echo is-$((40 + 2))\n");
        session.expect("is-42");
        session.type_in("while [ \"$(stty size)\" != '33 111' ]; do sleep 0.05; done; echo sized-$((1 + 1))\n");
        session.expect("sized-2");
        session.type_in("sh -c 'echo ready-$((1 + 2)); exec sleep 1000'\n");
        session.expect("ready-3");
        session.type_in("\x03");
        session.type_in("echo after-$?\n");
        session.expect("after-130");
        let mut second = Session::around(container.command("exec", &["--tty", &container.id, "sh"]));
        second.type_in("echo second-$((1 + 1)); exit 4\n");
        second.expect("second-2");
        assert_eq!(second.end(), 4, "{}", second.text());
        session.type_in("exit 5\n");
        assert_eq!(session.end(), 5, "{}", session.text());
    }

    fn a_container_on_gvisor_is_saved_and_brought_back(who: Who) {
        let Some(container) = gvisor("gvisor checkpoint", who) else { return };
        let line = "echo at > /state/log; for i in 1 2 3 4 5 6 7 8 9; do echo $i >> /state/log; while [ ! -e /state/go$i ]; do sleep 0.05; done; done; exit 9";
        container.place.mkdir("volume");
        let volume = container.place.text("volume");
        let container = container
            .mount(json!({ "destination": "/state", "type": "bind", "source": volume, "options": ["rbind", "rw"] }))
            .shell(line);
        container.create();
        container.start();
        let said = |text: &str| eventually(|| fs::read_to_string(container.place.join("volume/log")).unwrap_or_default() == text);
        assert!(said("at\n1\n"));
        let images = container.place.text("images");
        container.call("checkpoint", &["--image-path", &images, "--leave-running"]).fails("--leave-running does not hold");
        let saved = container.call("checkpoint", &["--image-path", &images]);
        if who == Who::User {
            // The images are the caller's alone, and gVisor's kernel, which writes them, is root of another user namespace.
            _ = saved;
            return;
        }
        saved.ok();
        container.call("state", &[]).fails("does not exist");
        assert!(container.place.join("images/checkpoint.img").exists());
        container.place.write("volume/go1", "");
        let bundle = container.bundle();
        container.call("restore", &["--detach", "--bundle", bundle.to_str().unwrap(), "--image-path", &images]).ok();
        assert_eq!(container.status(), "running");
        assert!(said("at\n1\n2\n"), "it does not go on: {}", container.place.read("volume/log"));
        container.call_on("exec", &["true"]).ok();
        container.call_on("kill", &["KILL"]).ok();
        container.becomes("stopped");
    }

    fn who_is_killed_while_it_saves_leaves_no_init_that_stands_still(who: Who) {
        let Some(container) = gvisor("gvisor killed while it saves", who) else { return };
        let container = container.args(&["sleep", "1000"]);
        for (round, delay) in [0, 10, 25, 50, 100, 200].into_iter().enumerate() {
            container.create();
            container.start();
            let images = container.place.text(&format!("images-{round}"));
            let mut save = container.command("checkpoint", &["--image-path", &images, &container.id]);
            let mut saving = save.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(delay));
            _ = kill(Pid::from_raw(saving.id() as i32), Signal::SIGKILL);
            saving.wait().unwrap();
            let init = container.place.read("pid");
            let still = || fs::read_to_string(format!("/proc/{init}/stat")).is_ok_and(|stat| stat.contains(") T "));
            assert!(eventually(|| !still()), "round {round}: {:?}", container.call("state", &[]));
            container.call("delete", &["--force"]).ok();
            assert!(eventually(|| host::left_of(&container.id, &container.place).is_empty()));
        }
    }

    fn whatever_of_a_container_on_gvisor_is_killed_nothing_is_left(who: Who) {
        let rounds = if std::env::var_os("FUMEHOOD_LONG").is_some() { 200 } else { 20 };
        let mut struck = 0;
        for round in 0..rounds {
            let Some(container) = gvisor("gvisor killed", who) else { return };
            let container = container.args(&["sleep", "1000"]);
            container.create();
            // While runsc starts, and when it runs.
            let mut start = container.command("start", &[&container.id]);
            let (out, err) = (container.place.join("start-out"), container.place.join("start-err"));
            start.stdout(fs::File::create(out).unwrap()).stderr(fs::File::create(err).unwrap());
            let mut starting = start.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(round % 20 * 25));
            let init: i32 = container.place.read("pid").parse().unwrap();
            let victim = match round % 4 {
                0 => find("runsc-sandbox", &container.id),
                1 => find("runsc-gofer", init.to_string().as_str()).or_else(|| child_of(init, "runsc-gofer")),
                2 => Some(starting.id() as i32),
                _ => Some(init),
            };
            if let Some(victim) = victim {
                struck += 1;
                _ = kill(Pid::from_raw(victim), Signal::SIGKILL);
            }
            starting.wait().unwrap();
            if victim.is_some() && round % 4 != 2 {
                container.becomes("stopped");
            }
            container.call("delete", &["--force"]).ok();
            let left = host::left_of(&container.id, &container.place);
            assert!(left.is_empty(), "round {round}: {left:?}");
            assert!(eventually(|| members(init).is_empty()), "round {round}: {:?}", members(init));
        }
        assert!(struck > rounds / 2, "only {struck} processes were there to be killed");
    }
}

/// The process of that command which has `word` on its command line.
fn find(command: &str, word: &str) -> Option<i32> {
    let found = host::processes(word);
    let line = found.iter().find(|line| line.contains(command))?;
    line.strip_prefix("process ")?.split(':').next()?.parse().ok()
}

fn child_of(init: i32, command: &str) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).ok()?;
    let named =
        |pid: &&str| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(command));
    children.split_ascii_whitespace().find(named)?.parse().ok()
}

/// Whoever is in the pid namespace of that process, be it dead: a namespace lives as long as one of its processes.
fn members(init: i32) -> Vec<String> {
    let Ok(own) = fs::read_link(format!("/proc/{init}/ns/pid")) else { return Vec::new() };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let inside = |path: &std::path::PathBuf| fs::read_link(path.join("ns/pid")).is_ok_and(|other| other == own);
    entries.map(|entry| entry.path()).filter(inside).map(|path| path.display().to_string()).collect()
}

#[test]
fn limits_and_pauses_are_the_groups() {
    let Some(container) = gvisor("gvisor groups", Who::Root) else { return };
    let container =
        container.shell("trap 'exit 5' TERM; i=0; while :; do i=$((i + 1)); echo $i > /count; sleep 0.05; done");
    container.create();
    container.start();
    let count = || fs::read_to_string(container.rootfs("count")).unwrap_or_default();
    assert!(eventually(|| !count().is_empty()));
    container.call("pause", &[]).ok();
    assert_eq!(container.status(), "paused");
    container.call_on("exec", &["true"]).fails("paused");
    let before = count();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(count(), before);
    container.call("resume", &[]).ok();
    assert!(eventually(|| count() != before));
    let stats: serde_json::Value = serde_json::from_str(&container.call("events", &["--stats"]).ok()).unwrap();
    assert!(stats["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 1 << 20, "{stats}");
    assert!(stats["data"]["pids"]["current"].as_u64().unwrap() > 2, "{stats}");
    container.call("update", &["--memory", "300m"]).ok();
    container.call_on("kill", &["TERM"]).ok();
    container.becomes("stopped");
}

#[test]
fn called_by_its_name_every_container_is_on_gvisor() {
    let Some(container) = gvisor("fumehood-gvisor", Who::Root) else { return };
    let container = container.set("/annotations", json!({})).shell("grep -c 2016 /proc/version");
    let mut command = container.command("run", &[&container.id]);
    std::os::unix::process::CommandExt::arg0(&mut command, "/usr/local/bin/fumehood-gvisor");
    assert_eq!(container.output(command).ok(), "1\n");
    let container = container.set("/annotations", json!({ "io.fumehood.isolation": "native" }));
    let mut command = container.command("run", &[&container.id]);
    std::os::unix::process::CommandExt::arg0(&mut command, "fumehood-gvisor");
    container.output(command).fails("io.fumehood.isolation");
    let container =
        container.set("/annotations", json!({ "dev.gvisor.flag.network": "host", "dev.gvisor.spec.x": "y" }));
    let mut command = container.command("run", &[&container.id]);
    std::os::unix::process::CommandExt::arg0(&mut command, "fumehood-gvisor");
    assert_eq!(container.output(command).ok(), "1\n", "an annotation of an image's reaches runsc");
}
