//! From create to delete, and what each verb says at the wrong time.

use crate::both;
use serde_json::json;
use std::fs;

use crate::{bundle::Container, common::Who};

both! {
    fn a_container_is_created_started_and_deleted(who: Who) {
        let Some(container) = Container::new("lifecycle", who) else { return };
        let container = container.shell("echo ran > /tmp/ran; sleep 100");
        container.create();
        assert_eq!(container.status(), "created");
        let marker = container.place.join("bundle/rootfs/tmp/ran");
        assert!(!marker.exists(), "the program ran before start");
        let pid = container.place.read("pid");
        assert!(pid.bytes().all(|byte| byte.is_ascii_digit()), "{pid:?}");
        container.start();
        assert_eq!(container.status(), "running");
        assert!(crate::common::host::eventually(|| marker.exists()));
        container.call("start", &[]).fails("cannot start an already running container");
        container.call("delete", &[]).fails("is not stopped");
        container.call_on("kill", &["KILL"]).ok();
        container.becomes("stopped");
        container.call("start", &[]).fails("cannot start a container that has stopped");
        container.call_on("kill", &["TERM"]).fails("container not running");
        container.call("delete", &[]).ok();
        container.call("state", &[]).fails("does not exist");
        container.call("delete", &[]).fails("does not exist");
        container.call("delete", &["--force"]).ok();
    }

    fn run_has_the_programs_exit_status_and_output(who: Who) {
        let Some(container) = Container::new("run", who) else { return };
        let container = container.shell("echo out; echo err >&2; exit 7");
        let said = container.run();
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "out\n", "err\n"));
        let said = container.shell("kill -9 $$").run();
        // Process 1 is not killed by its own signals: it ends by itself.
        assert_ne!(said.code, 125, "{said:?}");
    }

    fn a_name_is_taken_once(who: Who) {
        let Some(container) = Container::new("name", who) else { return };
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.call("create", &[]).fails("already exist");
        assert_eq!(container.status(), "created");
    }

    fn what_cannot_be_executed_is_told_by_create_and_leaves_nothing(who: Who) {
        let Some(container) = Container::new("missing program", who) else { return };
        let container = container.args(&["nope"]);
        let pid_file = container.place.text("pid");
        container.call("create", &["--pid-file", &pid_file]).fails("executable file not found in $PATH");
        assert!(!fs::exists(&pid_file).unwrap());
        container.call("state", &[]).fails("does not exist");
        let container = container.args(&["/nope"]);
        container.call("create", &[]).fails("no such file or directory");
        let container = container.args(&["/etc/passwd"]);
        container.call("create", &[]).fails("permission denied");
        let container = container.args(&["/etc"]);
        container.call("create", &[]).fails("is a directory: permission denied");
    }

    fn delete_ends_what_was_only_created(who: Who) {
        let Some(container) = Container::new("delete created", who) else { return };
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.call("delete", &[]).ok();
        container.call("state", &[]).fails("does not exist");
    }

    fn an_error_is_one_line_in_the_log(who: Who) {
        let Some(container) = Container::new("log", who) else { return };
        let log = container.place.text("log.json");
        let bundle = container.place.text("bundle");
        let container = container.args(&["nope"]);
        let mut command = container.command("create", &["--bundle", &bundle, &container.id]);
        command = {
            let mut with_log = std::process::Command::new(command.get_program());
            std::os::unix::process::CommandExt::arg0(&mut with_log, "fumehood-oci");
            with_log.args(["--log", &log, "--log-format", "json"]).args(command.get_args());
            with_log.current_dir(command.get_current_dir().unwrap());
            if let Some((uid, gid)) = who.ids() {
                std::os::unix::process::CommandExt::uid(&mut with_log, uid);
                std::os::unix::process::CommandExt::gid(&mut with_log, gid);
            }
            with_log
        };
        container.output(command).fails("executable file not found");
        let text = fs::read_to_string(&log).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "error");
        assert!(line["msg"].as_str().unwrap().contains("executable file not found in $PATH"), "{line}");
    }
}

#[test]
fn nothing_is_made_up_for_who_says_nothing() {
    let Some(who) = Who::Root.find("no linux") else { return };
    let Some(mut container) = Container::new("no linux", who) else { return };
    let process = container.config.as_object_mut().unwrap().remove("process").unwrap();
    container.run().fails("process: it is missing");
    container.config["process"] = process;
    for field in ["linux", "hostname"] {
        container.config.as_object_mut().unwrap().remove(field);
    }
    container.run().fails("mounts: there is no mount namespace");
    container.call("state", &[]).fails("does not exist");
}

#[test]
fn shares_that_the_host_has_not_are_an_error() {
    if std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        // Then they can be had, and whether by this caller is the host's to say.
        return;
    }
    let Some(who) = Who::Root.find("resctrl") else { return };
    let Some(container) = Container::new("resctrl", who) else { return };
    let container = container.set("/linux/intelRdt", json!({ "l3CacheSchema": "L3:0=ff" }));
    container.run().fails("linux.intelRdt: there is no resctrl file system");
    container.call("state", &[]).fails("does not exist");
}
