//! The six hooks, in order, each with the state it should see.

use crate::both;
use serde_json::{Value, json};

use crate::{bundle::Container, common::Who};

fn hook(log: &str, name: &str) -> Value {
    let script = format!(r#"state=$(cat); echo "{name} $state" >> {log}"#);
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] })
}

both! {
    fn each_runs_once_and_in_order(who: Who) {
        let Some(container) = Container::new("hooks", who) else { return };
        let log = container.place.text("hooks.log");
        let inside = "/tmp/hooks.log";
        let container = container.args(&["sleep", "100"]).set("/hooks", json!({
            "prestart": [hook(&log, "prestart")],
            "createRuntime": [hook(&log, "createRuntime")],
            "createContainer": [hook(&log, "createContainer")],
            "startContainer": [hook(inside, "startContainer")],
            "poststart": [hook(&log, "poststart")],
            "poststop": [hook(&log, "poststop")],
        }));
        let ran = || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let names = text.lines().map(|line| line.split_once(' ').unwrap().0.to_owned()).collect::<Vec<_>>();
            (names.join(" "), text)
        };
        container.create();
        assert_eq!(ran().0, "prestart createRuntime createContainer");
        let inside_log = container.place.join("bundle/rootfs/tmp/hooks.log");
        assert!(!inside_log.exists());
        container.start();
        assert_eq!(ran().0, "prestart createRuntime createContainer poststart");
        assert!(std::fs::read_to_string(&inside_log).unwrap().starts_with("startContainer "));
        container.call("delete", &["--force"]).ok();
        let (names, text) = ran();
        assert_eq!(names, "prestart createRuntime createContainer poststart poststop");
        for (line, status) in text.lines().zip(["creating", "creating", "creating", "running", "stopped"]) {
            let (name, state) = line.split_once(' ').unwrap();
            let state: Value = serde_json::from_str(state).unwrap();
            assert_eq!(state["id"], container.id.as_str(), "{name}");
            assert_eq!(state["status"], status, "{name}");
        }
    }

    fn one_that_fails_undoes_the_container(who: Who) {
        let Some(container) = Container::new("failing hook", who) else { return };
        let failing = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 9"] }]);
        for kind in ["prestart", "createRuntime", "createContainer"] {
            let mut config = container.config.clone();
            config["hooks"] = json!({ kind: failing });
            let command = container.command("create", &[&container.id]);
            std::fs::write(container.bundle().join("config.json"), config.to_string()).unwrap();
            let error = container.output(command).fails("because");
            assert!(error.contains(kind), "{error}");
            container.call("state", &[]).fails("does not exist");
        }
    }

    fn its_environment_is_its_own_and_not_the_containers(who: Who) {
        // CVE-2025-23266
        let Some(container) = Container::new("hook environment", who) else { return };
        let log = container.place.text("env.log");
        let show = json!([{ "path": "/usr/bin/env", "args": ["env"], "env": ["ONLY=this"] }]);
        let script = format!("env > {log}");
        let write = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["ONLY=this"] }]);
        let container = container
            .set("/process/env", json!(["PATH=/bin", "LD_PRELOAD=/evil.so"]))
            .set("/hooks", json!({ "createRuntime": write, "createContainer": show }));
        container.create();
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.contains("ONLY=this") && !text.contains("LD_PRELOAD"), "{text}");
    }

    fn inside_and_as_the_program_it_may_have_the_programs(who: Who) {
        let Some(container) = Container::new("start hook environment", who) else { return };
        let line = |env: serde_json::Value| {
            json!({ "path": "/bin/sh", "args": ["sh", "-c", "/bin/busybox env >> /tmp/env; echo >> /tmp/env"], "env": env })
        };
        let container = container
            .set("/process/env", json!(["PATH=/bin", "A=program"]))
            .set("/hooks", json!({ "startContainer": [line(json!([])), line(json!(["A=hook"]))] }))
            .args(&["cat", "/tmp/env"]);
        let out = container.run().ok();
        let (first, second) = out.split_once("\n\n").unwrap();
        assert!(first.contains("A=program") && first.contains("HOME=/root") && first.contains("PATH=/bin"), "{out}");
        assert!(second.contains("A=hook") && !second.contains("HOME=") && !second.contains("PATH=/bin\n"), "{out}");
    }
}

/// Also in the group and with the container's rights is the runtime's own process, which opens what the root calls its
/// files: the rules hold before either.
#[test]
fn the_device_rules_hold_for_those_inside() {
    let Some(who) = Who::Root.find("device rules of hooks") else { return };
    let Some(container) = Container::new("device rules of hooks", who) else { return };
    let log = container.place.text("devices.log");
    let script = format!("{{ (: < /dev/null) && ! (: < /dev/kmsg) && echo held; }} >> {log} 2>&1");
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    // So many that they are longer in the making than the tree, and all before that of /dev/null.
    let rule = |minor: u32| json!({ "allow": true, "type": "b", "major": 300, "minor": minor, "access": "rwm" });
    let rules: Vec<Value> = (0..3000).map(rule).collect();
    let container = container.set("/linux/resources/devices", json!(rules)).args(&["true"]);
    let container = container.set("/hooks", json!({ "createContainer": hook }));
    container.run().ok();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.ends_with("held\n"), "{said}");
}
