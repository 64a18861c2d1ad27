//! What is done to a container that runs.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::{
    both,
    bundle::Container,
    common::{Who, host},
};

#[track_caller]
fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Whether it has a control group of its own: an ordinary user's has none where none is delegated, and says so.
fn has_group(container: &Container) -> bool {
    let said = container.call("events", &["--stats"]);
    if said.code != 0 {
        assert_ne!(container.who, Who::Root, "{said:?}");
        for (verb, args) in [("pause", &[][..]), ("update", &["--memory", "64m"]), ("events", &[])] {
            container.call(verb, args).fails("has no control group");
        }
    }
    said.code == 0
}

both! {
    fn its_state_is_what_engines_read(who: Who) {
        let Some(container) = Container::new("state", who) else { return };
        let container = container.args(&["sleep", "100"]).set("/annotations", json!({ "a": "b" }));
        container.create();
        let state = json_of(&container.call("state", &[]).ok());
        assert_eq!(state["pid"].to_string(), container.place.read("pid"));
        assert_eq!((&state["id"], &state["status"]), (&json!(container.id), &json!("created")));
        assert_eq!((&state["annotations"], &state["ociVersion"]), (&json!({ "a": "b" }), &json!("1.3.0")));
        assert_eq!(state["bundle"], json!(fs::canonicalize(container.bundle()).unwrap()));
        assert!(state["rootfs"].as_str().unwrap().ends_with("/bundle/rootfs"), "{state}");
        assert!(!state["owner"].as_str().unwrap().is_empty());
        let list = json_of(&container.output(container.command("list", &["--format", "json"])).ok());
        assert_eq!(list, json!([state]));
        assert_eq!(container.output(container.command("list", &["-q"])).ok(), format!("{}\n", container.id));
        container.start();
        container.call_on("kill", &["--all", "SIGKILL"]).ok();
        container.becomes("stopped");
        assert_eq!(json_of(&container.call("state", &[]).ok())["pid"], 0);
    }

    fn a_signal_reaches_its_first_process(who: Who) {
        let Some(container) = Container::new("kill", who) else { return };
        let container = container.shell("trap 'echo usr1 >> /tmp/got' USR1; trap 'exit 3' TERM; : > /tmp/up; while :; do sleep 0.02; done");
        container.create();
        container.start();
        let got = |name: &str| container.place.join("bundle/rootfs/tmp").join(name);
        assert!(host::eventually(|| got("up").exists()));
        for name in ["USR1", "SIGUSR1", "usr1", "10"] {
            let before = fs::read_to_string(got("got")).unwrap_or_default().len();
            container.call_on("kill", &[name]).ok();
            let more = || fs::read_to_string(got("got")).unwrap_or_default().len() > before;
            assert!(host::eventually(more), "{name}");
        }
        container.call_on("kill", &["0"]).ok();
        container.call_on("kill", &["NOPE"]).fails("unknown signal \"NOPE\"");
        container.call_on("kill", &["65"]).fails("unknown signal \"65\"");
        // SIGTERM is what is sent when nothing is said.
        container.call_on("kill", &[]).ok();
        container.becomes("stopped");
        container.call_on("kill", &["9"]).fails("container not running");
        container.call_on("kill", &["0"]).fails("container not running");
        container.call("delete", &[]).ok();
        container.call_on("kill", &["9"]).fails("does not exist");
    }

    fn its_processes_are_those_the_host_sees(who: Who) {
        let Some(container) = Container::new("ps", who) else { return };
        let container = container.shell("sleep 99 & sleep 98; true");
        container.create();
        container.start();
        let pids = || json_of(&container.call("ps", &["--format", "json"]).ok());
        assert!(host::eventually(|| pids().as_array().unwrap().len() == 3), "{}", pids());
        let init = container.place.read("pid");
        assert!(pids().as_array().unwrap().iter().any(|pid| pid.as_i64() == init.parse().ok()));
        let table = container.call("ps", &[]).ok();
        assert!(table.lines().next().unwrap().contains(" PID "), "{table}");
        assert_eq!(table.lines().count(), 4, "{table}");
        assert_eq!(container.call_on("ps", &["-e", "-o", "pid,args"]).ok().lines().count(), 4);
        container.call("ps", &["--format", "xml"]).fails("invalid format option");
        container.call_on("kill", &["KILL"]).ok();
        container.becomes("stopped");
        assert_eq!(pids(), json!([]));
    }

    fn it_is_paused_and_goes_on(who: Who) {
        let Some(container) = Container::new("pause", who) else { return };
        let container = container.shell("while :; do echo x >> /tmp/ticks; sleep 0.01; done");
        container.create();
        container.start();
        if !has_group(&container) { return }
        container.call("resume", &[]).fails("container not paused");
        container.call("pause", &[]).ok();
        assert_eq!(container.status(), "paused");
        let ticks = || fs::metadata(container.place.join("bundle/rootfs/tmp/ticks")).map_or(0, |file| file.len());
        let now = ticks();
        container.call("pause", &[]).fails("container not running");
        container.call_on("exec", &["true"]).fails("cannot exec in a paused container");
        container.call("start", &[]).fails("already running");
        assert_eq!(ticks(), now, "it went on while it was paused");
        container.call("delete", &[]).fails("is not stopped");
        container.call("resume", &[]).ok();
        assert_eq!(container.status(), "running");
        assert!(host::eventually(|| ticks() > now));
        container.call("pause", &[]).ok();
        // What is frozen dies all the same.
        container.call_on("kill", &["KILL"]).ok();
        container.becomes("stopped");
        container.call("pause", &[]).fails("container not running");
    }

    fn its_limits_are_changed(who: Who) {
        let Some(container) = Container::new("update", who) else { return };
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.start();
        if !has_group(&container) { return }
        let limit = || json_of(&container.call("events", &["--stats"]).ok())["data"]["memory"]["usage"]["limit"].clone();
        let pids = || json_of(&container.call("events", &["--stats"]).ok())["data"]["pids"]["limit"].clone();
        container.call("update", &["--memory", "64m", "--pids-limit=40"]).ok();
        assert_eq!((limit(), pids()), (json!(64 << 20), json!(40)));
        container.place.write("resources.json", r#"{"memory":{"limit":33554432}}"#);
        container.call("update", &["--resources", &container.place.text("resources.json")]).ok();
        assert_eq!((limit(), pids()), (json!(32 << 20), json!(40)), "what is not spoken of stays");
        let mut command = container.command("update", &["--resources=-", &container.id]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(br#"{"pids":{"limit":30}}"#).unwrap();
        assert!(child.wait_with_output().unwrap().status.success());
        assert_eq!(pids(), 30);
        for (document, at) in [("{", "resources: "), (r#"{"cpu":{"idle":7}}"#, "resources.cpu.idle: ")] {
            container.place.write("resources.json", document);
            container.call("update", &["-r", &container.place.text("resources.json")]).fails(at);
        }
        container.call("update", &["--memory", "much"]).fails("invalid value for memory");
        assert_eq!(pids(), 30);
    }

    fn what_it_uses_is_told_line_by_line(who: Who) {
        let Some(container) = Container::new("events", who) else { return };
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.start();
        if !has_group(&container) { return }
        let mut command = container.command("events", &["--interval=10ms", &container.id]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..3 {
            let line = lines.next().unwrap().unwrap();
            assert!(line.starts_with(&format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{", container.id)), "{line}");
            assert!(json_of(&line)["data"]["pids"]["current"].as_u64().unwrap() >= 1);
        }
        container.call_on("kill", &["KILL"]).ok();
        assert!(lines.all(|line| json_of(&line.unwrap())["type"] == "stats"));
        assert!(child.wait().unwrap().success(), "it ends with the container");
        container.becomes("stopped");
        container.call("events", &["--stats"]).fails("is not running");
        for wrong in ["5", "0s", "-1s", "soon"] {
            assert_ne!(container.call("events", &["--interval", wrong]).code, 0, "{wrong}");
        }
    }
}

#[test]
fn a_container_that_runs_out_of_memory_is_told_of() {
    let Some(who) = Who::Root.find("events oom") else { return };
    let Some(container) = Container::new("events oom", who) else { return };
    let memory = json!({ "limit": 32 << 20, "swap": 32 << 20 });
    let container = container
        .shell("while [ ! -e /tmp/go ]; do sleep 0.02; done; dd if=/dev/zero of=/dev/null bs=100M; sleep 100")
        .set("/linux/resources/memory", memory);
    container.create();
    container.start();
    let mut command = container.command("events", &["--interval=20ms", &container.id]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| json_of(&line.unwrap()));
    // Watched from here on.
    assert_eq!(lines.next().unwrap()["type"], "stats");
    container.place.write("bundle/rootfs/tmp/go", "");
    let oom = lines.find(|event| event["type"] == "oom").expect("no oom event");
    assert_eq!(oom, json!({ "type": "oom", "id": container.id }));
    container.call_on("kill", &["KILL"]).ok();
    drop(lines);
    assert!(child.wait().is_ok());
}

#[test]
fn every_container_of_a_pattern_is_deleted() {
    let Some(who) = Who::Root.find("delete --regex") else { return };
    let Some(container) = Container::new("delete --regex", who) else { return };
    let container = container.args(&["sleep", "100"]);
    container.create();
    let pattern = format!("^{}$", container.id);
    container.output(container.command("kill", &["--regex", "nothing.like.it", "KILL"])).ok();
    assert_eq!(container.status(), "created");
    container.output(container.command("delete", &["--force", "--regex", &pattern])).ok();
    container.call("state", &[]).fails("does not exist");
    container.output(container.command("delete", &["--regex", "["])).fails("invalid regular expression");
}

/// CVE-2026-30892: what is no number is nobody, and never root.
#[test]
fn cve_2026_30892_a_user_is_read_strictly() {
    let Some(who) = Who::Root.find("exec --user") else { return };
    let Some(container) = Container::new("exec --user", who) else { return };
    let container = container.args(&["sleep", "100"]).set("/process/user/uid", json!(7));
    container.create();
    container.start();
    let id = |user: &str| container.output(container.command("exec", &["--user", user, &container.id, "id", "-u"]));
    assert_eq!(id("1").ok(), "1\n");
    assert_eq!(id("1:2").ok(), "1\n");
    assert_eq!(container.call_on("exec", &["id", "-u"]).ok(), "7\n");
    for user in ["name", ":5", "", "4294967296", "4294967295", "-1", "1x", " 1"] {
        let said = id(user);
        assert_eq!((said.code, said.out.as_str()), (255, ""), "{user:?}: {said:?}");
    }
}

/// A process that is put nowhere is free of all limits.
#[test]
fn a_group_that_is_not_there_is_not_passed_over() {
    let Some(who) = Who::Root.find("exec --cgroup") else { return };
    let Some(container) = Container::new("exec --cgroup", who) else { return };
    let container = container.args(&["sleep", "100"]);
    container.create();
    container.start();
    for (group, why) in [("nope", "nope"), ("../..", "bad sub cgroup path"), ("warp:x", "unknown controller")] {
        let said = container.output(container.command("exec", &["--cgroup", group, &container.id, "true"]));
        assert_eq!((said.code, said.err.contains(why)), (255, true), "{group}: {said:?}");
    }
    container.output(container.command("exec", &["--cgroup", "/", &container.id, "true"])).ok();
}
