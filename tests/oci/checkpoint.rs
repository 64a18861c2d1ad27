//! Containers that are saved with CRIU and brought back: a real criu, of which scripts/criu says where it is.

use std::{
    fs,
    io::{BufRead, BufReader, PipeReader, Read, Write, pipe},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{PermissionsExt, symlink},
            net::UnixStream,
        },
    },
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    bundle::{Container, Said},
    common::{Who, criu, host},
    cve_terminals::Engine,
};

/// A container that counts in memory, on its standard output, and in a file that it keeps open; with a child.
fn counting(test: &str) -> Option<Container> {
    let who = Who::Root.find(test)?;
    let criu = criu(test)?;
    let mut container = Container::new(test, who)?;
    container.globals = ["--criu".to_owned(), criu.display().to_string()].into();
    container.place.mkdir("shared");
    container.place.write("shared/file", "shared");
    container.place.mkdir("bundle/rootfs/shared");
    let (shared, file) = (container.place.text("shared"), container.place.text("shared/file"));
    let script = "sleep 1000 & c=$!; exec 9>/tmp/held; i=0; while [ ! -e /tmp/end ]; do i=$((i+1)); \
                  kill -0 $c && echo $i $$ $c && echo $i >&9; sleep 0.02; done; exit 7";
    Some(
        container
            .shell(script)
            .mount(json!({ "destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "ro"] }))
            .mount(json!({ "destination": "/etc/one", "type": "bind", "source": file, "options": ["bind"] }))
            .mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                           "options": ["ro", "nosuid", "noexec", "nodev"] }))
            .set("/process/terminal", json!(false)),
    )
}

/// What the container says, line by line: its number, its pid, its child's.
struct Lines {
    out: BufReader<PipeReader>,
    /// Kept open: who writes there is not to be ended.
    _errors: PipeReader,
}

impl Lines {
    fn next(&mut self) -> Option<Vec<u64>> {
        let mut line = String::new();
        let read = self.out.read_line(&mut line).unwrap();
        let words = line.split_whitespace().map(|word| word.parse().unwrap_or_else(|_| panic!("{line:?}"))).collect();
        (read > 0).then_some(words)
    }

    fn last(mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.next()).last().unwrap()
    }
}

/// Has the runtime do something with its streams on pipes, as an engine does; it must go well.
#[track_caller]
fn piped(container: &Container, verb: &str, args: &[&str]) -> Lines {
    let mut all = args.to_vec();
    all.push(&container.id);
    let (reader, writer) = pipe().unwrap();
    let (mut errors, errors_in) = pipe().unwrap();
    let mut command = container.command(verb, &all);
    command.stdin(Stdio::null()).stdout(writer).stderr(errors_in);
    let status = command.status().unwrap();
    drop(command);
    if !status.success() {
        let mut why = String::new();
        errors.read_to_string(&mut why).unwrap();
        panic!("{verb}: {why}");
    }
    Lines { out: BufReader::new(reader), _errors: errors }
}

#[track_caller]
fn run(container: &Container) -> Lines {
    let mut lines = piped(container, "run", &["--detach"]);
    for _ in 0..3 {
        lines.next().unwrap();
    }
    lines
}

fn checkpoint(container: &Container, image: &str, more: &[&str]) -> Said {
    let image = container.place.text(image);
    container.call("checkpoint", &[&["--image-path", &image], more].concat())
}

#[track_caller]
fn restore(container: &Container, image: &str, more: &[&str]) -> Lines {
    let (image, pid) = (container.place.text(image), container.place.text("pid"));
    piped(container, "restore", &[&["--detach", "--image-path", &image, "--pid-file", &pid], more].concat())
}

#[test]
fn a_saved_container_is_gone_and_goes_on_where_it_was() {
    let Some(container) = counting("checkpoint") else { return };
    let lines = run(&container);
    checkpoint(&container, "image", &[]).ok();
    container.call("state", &[]).fails("does not exist");
    let left = host::left_of(&container.id, &container.place);
    assert!(left.is_empty(), "{left:?}");
    let before = lines.last();
    let held = fs::read_to_string(container.rootfs("tmp/held")).unwrap();

    let mut lines = restore(&container, "image", &[]);
    let after = lines.next().unwrap();
    assert_eq!(after, [before[0] + 1, 1, before[2]], "after {before:?}");
    lines.next().unwrap();
    assert_eq!(container.status(), "running");
    let state: Value = serde_json::from_str(&container.call("state", &[]).ok()).unwrap();
    assert_eq!(state["pid"].to_string(), container.place.read("pid"));
    let now = fs::read_to_string(container.rootfs("tmp/held")).unwrap();
    assert!(now.starts_with(&held) && now.len() > held.len());
    let numbers: Vec<u64> = now.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");

    // All of it is as it was: what is masked, what is read-only, what was mounted from outside, the network.
    let exec = |line: &str| container.call_on("exec", &["sh", "-c", line]);
    assert_eq!(exec("cat /shared/file /etc/one").ok(), "sharedshared");
    exec("echo x > /shared/new").fails("Read-only file system");
    assert_eq!(exec("head -c 1 /proc/keys | wc -c").ok().trim(), "0");
    exec("echo 1 > /proc/sys/kernel/panic").fails("Read-only file system");
    assert!(exec("ip addr show lo").ok().contains("LOOPBACK,UP"));
    assert_eq!(exec("hostname").ok(), "box\n");
    assert_eq!(
        exec("ls /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | head -n 1 | wc -l").ok(),
        "1\n"
    );
    let pids = container.call("ps", &["--format", "json"]).ok();
    let pids: Vec<u64> = serde_json::from_str(&pids).unwrap();
    assert!(pids.len() >= 2 && pids.contains(&state["pid"].as_u64().unwrap()), "the shell and its child: {pids:?}");
    container.call("pause", &[]).ok();
    container.becomes("paused");
    container.call("resume", &[]).ok();

    // And a second time, from what was restored.
    checkpoint(&container, "image.2", &["--work-path", &container.place.text("work")]).ok();
    assert!(container.place.join("work/dump.log").exists());
    let before = lines.last();
    let mut lines = restore(&container, "image.2", &["--work-path", &container.place.text("work")]);
    assert_eq!(lines.next().unwrap(), [before[0] + 1, 1, before[2]]);
    assert!(container.place.join("work/restore.log").exists());
    container.call_on("kill", &["KILL"]).ok();
    container.becomes("stopped");
    container.call("delete", &[]).ok();
}

#[test]
fn one_that_is_left_running_goes_on_and_its_name_is_taken() {
    let Some(container) = counting("checkpoint --leave-running") else { return };
    let mut lines = run(&container);
    checkpoint(&container, "image", &["--leave-running"]).ok();
    let first = lines.next().unwrap();
    while lines.next().unwrap()[0] < first[0] + 5 {}
    assert_eq!(container.status(), "running");
    let image = container.place.text("image");
    container.call("restore", &["--detach", "--image-path", &image]).fails("already exist");
    assert_eq!(container.status(), "running");
}

#[test]
fn memory_is_saved_before_and_then_what_has_changed() {
    let Some(container) = counting("checkpoint --pre-dump") else { return };
    let mut lines = run(&container);
    let tracks = Command::new(&container.globals[1]).args(["check", "--feature", "mem_dirty_track"]).output().unwrap();
    if !tracks.status.success() {
        // This kernel cannot tell what has changed (CONFIG_MEM_SOFT_DIRTY).
        for more in [&["--pre-dump"][..], &["--parent-path", "."]] {
            checkpoint(&container, "first", more).fails("have no tracking of memory");
        }
        assert_eq!(container.status(), "running");
        return;
    }
    checkpoint(&container, "first", &["--pre-dump"]).ok();
    lines.next().unwrap();
    assert_eq!(container.status(), "running");
    checkpoint(&container, "second", &["--parent-path", "/first"]).fails("--parent-path must be relative");
    checkpoint(&container, "second", &["--parent-path", "../none"]).fails("--parent-path");
    checkpoint(&container, "second", &["--parent-path", "../first"]).ok();
    assert_eq!(fs::read_link(container.place.join("second/parent")).unwrap(), Path::new("../first"));
    let before = lines.last();
    let mut lines = restore(&container, "second", &[]);
    assert_eq!(lines.next().unwrap(), [before[0] + 1, 1, before[2]]);
}

#[test]
fn restored_in_the_foreground_it_has_its_exit_status_and_is_deleted() {
    let Some(container) = counting("restore in the foreground") else { return };
    let log = container.place.text("hooks");
    let hook = |name: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} >> {log}; cat >> {log}.{name}")] }]);
    let hooks =
        json!({ "createRuntime": hook("createRuntime"), "poststart": hook("poststart"), "poststop": hook("poststop") });
    let container = container.set("/hooks", hooks);
    drop(run(&container));
    checkpoint(&container, "image", &[]).ok();
    assert_eq!(container.place.read("hooks"), "createRuntime\npoststart\npoststop\n");
    fs::write(container.rootfs("tmp/end"), "").unwrap();
    let image = container.place.text("image");
    let mut command = container.command("restore", &["--image-path", &image, &container.id]);
    let said = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(said.status.code(), Some(7), "{said:?}");
    assert_eq!(container.place.read("hooks"), "createRuntime\npoststart\npoststop\n".repeat(2));
    let states = container.place.read("hooks.createRuntime");
    let states = serde_json::Deserializer::from_str(&states).into_iter::<Value>().map(Result::unwrap);
    assert!(states.map(|state| state["pid"].as_u64()).all(|pid| pid > Some(1)));
    container.call("state", &[]).fails("does not exist");

    // One that fails leaves nothing, and nothing runs.
    fs::remove_file(container.rootfs("tmp/end")).unwrap();
    let container = container.set("/hooks/createRuntime/0/args/2", json!("exit 3"));
    container.call("restore", &["--detach", "--image-path", &image]).fails("createRuntime hook #0: exit status 3");
    let left = host::left_of(&container.id, &container.place);
    assert!(left.is_empty(), "{left:?}");
    container.call("state", &[]).fails("does not exist");
}

#[test]
fn a_terminal_is_given_to_the_engine_again() {
    let Some(container) = counting("restore with a terminal") else { return };
    let container = container.set("/process/terminal", json!(true));
    let first = Engine::listen(&container, "first");
    container.call("run", &["--detach", "--console-socket", first.path.to_str().unwrap()]).ok();
    let (_, master) = first.received().unwrap();
    let mut lines = BufReader::new(fs::File::from(master));
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.starts_with("1 1 "), "{line:?}");
    checkpoint(&container, "image", &[]).ok();
    let second = Engine::listen(&container, "second");
    let image = container.place.text("image");
    container.call("restore", &["--detach", "--image-path", &image]).fails("console socket");
    let args = ["--detach", "--image-path", &image, "--console-socket", second.path.to_str().unwrap()];
    container.call("restore", &args).ok();
    let (word, master) = second.received().unwrap();
    assert_eq!(word, b"/dev/ptmx");
    let mut lines = BufReader::new(fs::File::from(master));
    // What was not read yet is brought back, too.
    for _ in 0..10 {
        line.clear();
        lines.read_line(&mut line).unwrap();
    }
    assert!(line.split_whitespace().nth(1) == Some("1"), "{line:?}");
    assert_eq!(container.status(), "running");
}

#[test]
fn one_in_a_user_namespace_is_restored_into_it() {
    let Some(container) = counting("checkpoint with a user namespace") else { return };
    let maps = json!([{ "containerID": 0, "hostID": 300_000, "size": 65536 }]);
    let mut namespaces = container.config["linux"]["namespaces"].clone();
    namespaces.as_array_mut().unwrap().push(json!({ "type": "user" }));
    let container = container.set("/linux/namespaces", namespaces);
    let container = container.set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps);
    container.place.write("bundle/rootfs/etc/one", "");
    for path in ["bundle", "bundle/rootfs", "bundle/rootfs/tmp", "."] {
        let path = container.place.join(path);
        fs::set_permissions(&path, PermissionsExt::from_mode(if path.ends_with("tmp") { 0o1777 } else { 0o755 }))
            .unwrap();
    }
    let lines = run(&container);
    checkpoint(&container, "image", &[]).ok();
    let before = lines.last();
    let mut lines = restore(&container, "image", &[]);
    assert_eq!(lines.next().unwrap(), [before[0] + 1, 1, before[2]]);
    let map = container.call_on("exec", &["cat", "/proc/1/uid_map"]).ok();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "300000", "65536"]);
    container.call("delete", &["--force"]).ok();
    // CRIU knows nothing of what a user namespace has set.
    let container = container.set("/linux/sysctl", json!({ "user.max_user_namespaces": "7" }));
    let image = container.place.text("image");
    container
        .output(container.command("restore", &["--image-path", &image, "other"]))
        .fails("user.max_user_namespaces");
}

#[test]
fn its_network_has_again_what_the_specification_wants() {
    let Some(container) = counting("checkpoint with a network") else { return };
    let setting = "net.ipv4.ip_unprivileged_port_start";
    let container = container.set("/linux/sysctl", json!({ setting: "77" }));
    drop(run(&container));
    checkpoint(&container, "image", &[]).ok();
    drop(restore(&container, "image", &[]));
    let read = container.call_on("exec", &["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]);
    assert_eq!(read.ok(), "77\n");
    assert!(container.call_on("exec", &["ip", "-o", "link"]).ok().contains("lo: <LOOPBACK,UP"));
}

/// Saved with its streams on a file of the host's, as `fumehood-oci run >>log` has them.
#[test]
fn streams_on_a_file_outside_are_had_again() {
    let Some(container) = counting("checkpoint with files") else { return };
    let log = container.place.join("log");
    let logged = |verb: &str, args: &[&str]| {
        let open = || fs::File::options().append(true).create(true).open(&log).unwrap();
        let mut command = container.command(verb, args);
        let status = command.stdin(Stdio::null()).stdout(open()).stderr(open()).status().unwrap();
        assert!(status.success(), "{verb}: {}", fs::read_to_string(&log).unwrap());
    };
    let lines = || fs::read_to_string(&log).unwrap().lines().count();
    logged("run", &["--detach", &container.id]);
    assert!(host::eventually(|| lines() > 3));
    checkpoint(&container, "image", &[]).ok();
    let before = lines();
    logged("restore", &["--detach", "--image-path", &container.place.text("image"), &container.id]);
    assert!(host::eventually(|| lines() > before + 3));
    let text = fs::read_to_string(&log).unwrap();
    let numbers = text.lines().map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap());
    assert!(numbers.clone().eq(1..=numbers.count() as u64), "{text}");
}

#[test]
fn what_criu_cannot_save_goes_on_and_its_log_is_named() {
    let Some(container) = counting("checkpoint that fails") else { return };
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    let mut command = container.command("run", &["--detach", &container.id]);
    let status = command.stdin(OwnedFd::from(theirs)).stdout(writer).stderr(Stdio::null()).status().unwrap();
    drop(command);
    assert!(status.success());
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    lines.next().unwrap();
    let why = checkpoint(&container, "image", &[]).fails("criu failed to save the container: ");
    assert!(why.contains("sk-unix.c"), "{why}");
    let log = container.place.join("image/dump.log");
    assert!(why.contains(log.to_str().unwrap()) && log.exists(), "{why}");
    assert_eq!(container.status(), "running");
    // It goes on saying what it says.
    for _ in 0..20 {
        lines.next().unwrap();
    }
}

#[test]
fn what_criu_cannot_restore_leaves_nothing_and_can_be_tried_again() {
    let Some(container) = counting("restore that fails") else { return };
    let lines = run(&container);
    checkpoint(&container, "image", &[]).ok();
    let before = lines.last();
    let held = container.rootfs("tmp/held");
    let size = held.metadata().unwrap().len();
    fs::File::options().append(true).open(&held).unwrap().write_all(b"changed").unwrap();
    let image = container.place.text("image");
    let args = ["--detach", "--image-path", &image];
    let why = container.call("restore", &args).fails("criu failed to restore the container: ");
    assert!(why.contains("held has bad size"), "{why}");
    assert!(why.contains(container.place.join("image/restore.log").to_str().unwrap()), "{why}");
    container.call("state", &[]).fails("does not exist");
    let left = || host::left_of(&container.id, &container.place);
    assert!(host::eventually(|| left().is_empty()), "{:?}", left());
    fs::File::options().write(true).open(&held).unwrap().set_len(size).unwrap();
    let mut lines = restore(&container, "image", &[]);
    assert_eq!(lines.next().unwrap(), [before[0] + 1, 1, before[2]]);
}

#[test]
fn images_are_not_written_where_others_could_lead_them() {
    let Some(container) = counting("checkpoint into links") else { return };
    drop(run(&container));
    let outside = container.outside();
    symlink(&outside, container.place.join("link")).unwrap();
    for path in ["link", "link/"] {
        checkpoint(&container, path, &[]).fails("it is a link");
        checkpoint(&container, "image", &["--work-path", &container.place.text(path)]).fails("it is a link");
        let path = container.place.text(path);
        let mut other = container.command("restore", &["--image-path", &path, "other"]);
        other.current_dir(container.bundle());
        container.output(other).fails("it is a link");
    }
    checkpoint(&container, "outside", &[]).fails("others may write to it");
    container.assert_outside_unchanged();
    // Nor is what lies in a good one believed to be no link.
    let image = container.place.mkdir("image");
    fs::set_permissions(&image, PermissionsExt::from_mode(0o700)).unwrap();
    symlink(outside.join("marker"), image.join("descriptors.json")).unwrap();
    checkpoint(&container, "image", &[]).fails("descriptors.json");
    container.assert_outside_unchanged();
    assert_eq!(container.status(), "running");
}

/// An image's annotation, too, comes to the runtime with some engines.
#[test]
fn what_an_annotation_has_criu_do_is_not_the_containers_to_say() {
    let Some(container) = counting("checkpoint with a configuration") else { return };
    let script =
        container.place.write_executable("script", format!("#!/bin/sh\n: > {}\n", container.place.text("ran")));
    let text = format!("action-script {}\n", script.display());
    let volume = container.place.mkdir("volume");
    for name in ["criu.conf", "volume/criu.conf", "bundle/rootfs/criu.conf"] {
        container.place.write(name, &text);
        fs::set_permissions(container.place.join(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    symlink(container.place.join("bundle/rootfs/criu.conf"), container.place.join("link")).unwrap();
    let theirs = container.place.join("theirs");
    container.place.write("theirs", &text);
    fs::set_permissions(&theirs, PermissionsExt::from_mode(0o666)).unwrap();
    container.place.mkdir("bundle/rootfs/volume");
    let bind = json!({ "destination": "/volume", "source": volume, "options": ["rbind", "rw"] });
    let mut container = container.mount(bind);
    for (named, why) in [
        ("criu.conf".to_owned(), "no absolute path"),
        (container.place.text("theirs"), "others than root may write to it"),
        (container.place.text("bundle/rootfs/criu.conf"), "the container can write to it"),
        (container.place.text("volume/criu.conf"), "the container can write to it"),
        (container.place.text("link"), "the container can write to it"),
        ("/dev/null".to_owned(), "no regular file"),
        (container.place.text("criu.conf"), ""),
    ] {
        container = container.set("/annotations", json!({ "org.criu.config": named }));
        let lines = run(&container);
        let said = checkpoint(&container, "image", &[]);
        let ran = container.place.join("ran").exists();
        match why {
            "" => {
                said.ok();
                assert!(ran, "what root has it do was not done");
            }
            why => {
                said.fails(why);
                assert!(!ran, "{named}");
                container.call("delete", &["--force"]).ok();
            }
        }
        drop(lines);
    }
    fs::remove_file(container.place.join("ran")).unwrap();
    drop(restore(&container, "image", &[]));
    assert!(container.place.join("ran").exists());
    container.call("delete", &["--force"]).ok();
}

#[test]
fn what_would_be_missing_afterwards_is_refused() {
    let Some(container) = counting("checkpoint with Landlock") else { return };
    let policy = "[paths]\n\"/\" = \"rwx\"\n\"/dev\" = \"dev\"\n";
    let container = container.set("/annotations", json!({ "io.fumehood.landlock": policy }));
    let mut lines = run(&container);
    checkpoint(&container, "image", &[]).fails("Landlock");
    lines.next().unwrap();
    assert_eq!(container.status(), "running");
    container.place.mkdir("image");
    let image = container.place.text("image");
    container.output(container.command("restore", &["--image-path", &image, "other"])).fails("Landlock");
}

fn enabled(container: &Container, change: impl FnOnce(&mut Command)) -> String {
    let mut command = container.command("features", &[]);
    change(&mut command);
    let features: Value = serde_json::from_str(&container.output(command).ok()).unwrap();
    features["annotations"]["org.opencontainers.runc.checkpoint.enabled"].as_str().unwrap().to_owned()
}

#[test]
fn without_a_criu_that_works_it_is_said_what_is_missing() {
    let Some(mut container) = counting("checkpoint without criu") else { return };
    assert_eq!(enabled(&container, |_| {}), "true");
    let real = std::mem::take(&mut container.globals);
    drop(run(&container));
    let image = container.place.text("image");
    let verbs = [["checkpoint", "--image-path", &image, &container.id], ["restore", "--image-path", &image, "other"]];
    container.place.mkdir("image");
    let script = |name: &str, text: &str| {
        container.place.write_executable(name, format!("#!/bin/sh\n{text}\n"));
        container.place.text(name)
    };
    let old = script("old", "echo 'Version: 3.14'");
    let broken = script(
        "broken",
        "[ $1 = check ] || { echo 'Version: 4.1'; exit; }; echo 'Error (criu/vdso.c:381): vdso: bounds' >&2; exit 1",
    );
    let none = container.place.text("none");
    for (path, wanted) in [
        (&none, format!("{none} cannot be executed: No such file or directory")),
        (&old, format!("{old} is CRIU 3.14: too old, 3.15 is the oldest that will do")),
        (&broken, "`criu check` says: Error (criu/vdso.c:381): vdso: bounds".to_owned()),
    ] {
        container.globals = vec!["--criu".to_owned(), path.clone()];
        for [verb, args @ ..] in verbs {
            container.output(container.command(verb, &args)).fails(&wanted);
        }
        assert_eq!(enabled(&container, |_| {}), "false", "{path}");
    }
    container.globals = Vec::new();
    let empty = container.place.mkdir("empty");
    for [verb, args @ ..] in verbs {
        let mut command = container.command(verb, &args);
        command.env("PATH", &empty);
        container.output(command).fails("there is no criu in PATH");
    }
    assert_eq!(enabled(&container, |command| _ = command.env("PATH", &empty)), "false");
    // Found there, it needs no name.
    symlink(&real[1], empty.join("criu")).unwrap();
    assert_eq!(
        enabled(&container, |command| _ = command.env("PATH", format!("{}:/bin:/usr/bin", empty.display()))),
        "true"
    );
    assert_eq!(container.status(), "running");
    container.globals = real;
    container.call("delete", &["--force"]).ok();
    container.call("checkpoint", &["--image-path", &image]).fails("does not exist");
    container.create();
    checkpoint(&container, "image", &[]).fails("cannot be checkpointed in created state");
}

/// Whoever is no root is told so, and not by criu.
#[test]
fn an_ordinary_user_is_told_that_it_takes_root() {
    let test = "checkpoint as user";
    let (Some(who), Some(criu)) = (Who::User.find(test), criu(test)) else { return };
    let Some(mut container) = Container::new(test, who) else { return };
    container.globals = ["--criu".to_owned(), criu.display().to_string()].into();
    let container = container.args(&["sleep", "100"]);
    container.call("run", &["--detach"]).ok();
    checkpoint(&container, "image", &[]).fails("need the rights of root");
    assert_eq!(container.status(), "running");
    assert_eq!(enabled(&container, |_| {}), "false");
}

#[cfg(debug_assertions)]
#[test]
fn a_killed_restore_leaves_nothing_that_delete_does_not_find() {
    let Some(container) = counting("killed restore") else { return };
    drop(run(&container));
    checkpoint(&container, "image", &[]).ok();
    let image = container.place.text("image");
    for point in ["named", "announced", "grouped", "restored"] {
        let mut command = container.command("restore", &["--detach", "--image-path", &image, &container.id]);
        command.env("FUMEHOOD_DIE_AT", point);
        let said = container.output(command);
        assert_eq!(said.code, -1, "it was not killed at {point}: {said:?}");
        container.call("delete", &["--force"]).ok();
        let gone = || host::left_of(&container.id, &container.place).is_empty();
        assert!(host::eventually(gone), "{point}: {:?}", host::left_of(&container.id, &container.place));
    }
    let mut lines = restore(&container, "image", &[]);
    lines.next().unwrap();
}

/// The host's /dev/null has a mode that root of the container could change, and a place that it could not be
/// restored from.
#[test]
fn streams_on_dev_null_are_the_containers_own() {
    let Some(who) = Who::Root.find("/dev/null") else { return };
    let Some(container) = Container::new("/dev/null", who) else { return };
    let line = "stat -L -c %d:%i /proc/self/fd/0 /dev/null";
    let same = |said: &str| {
        let found: Vec<_> = said.lines().collect();
        assert!(found.len() == 2 && found[0] == found[1], "{found:?}");
    };
    let container = container.shell(&format!("{line}; exec sleep 100 >&-"));
    let mut lines = String::new();
    piped(&container, "run", &["--detach"]).out.take(256).read_to_string(&mut lines).unwrap();
    same(&lines);
    same(&container.call_on("exec", &["sh", "-c", line]).ok());
}
