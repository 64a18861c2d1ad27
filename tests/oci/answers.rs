//! What the runtime answers without a container: names, lists, features, help, and where errors go.

use std::{fs, process::Command};

use serde_json::Value;

use crate::{
    both,
    bundle::{Container, Said},
    common::Who,
};

/// A call with these words in place of the globals and the verb.
fn call(container: &Container, words: &[&str]) -> Said {
    call_as(container, "fumehood-oci", words)
}

fn call_as(container: &Container, name: &str, words: &[&str]) -> Said {
    let mut command = container.command("list", &[]);
    // The same program, user and environment, with other words.
    let mut other = Command::new(command.get_program());
    std::os::unix::process::CommandExt::arg0(&mut other, name);
    other.args(words).env_clear().current_dir(container.bundle());
    for (name, value) in command.get_envs() {
        other.env(name, value.unwrap_or_default());
    }
    if let Some((uid, gid)) = container.who.ids() {
        std::os::unix::process::CommandExt::uid(&mut other, uid);
        std::os::unix::process::CommandExt::gid(&mut other, gid);
    }
    command = other;
    container.output(command)
}

both! {
    fn an_empty_root_has_no_containers(who: Who) {
        let Some(container) = Container::new("empty root", who) else { return };
        container.place.mkdir("empty");
        let root = container.place.text("empty");
        assert_eq!(call(&container, &["--root", &root, "list", "--format=json"]).ok(), "[]\n");
        assert_eq!(call(&container, &["--root", &root, "list", "-q"]).ok(), "");
        let table = call(&container, &["--root", &root, "list"]).ok();
        assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
        call(&container, &["--root", &root, "list", "-f", "xml"]).fails("invalid format option");
        let nowhere = container.place.text("nowhere");
        call(&container, &["--root", &nowhere, "list"]).fails("no such file or directory");
        call(&container, &["--root", &root, "state", "x"]).fails("container does not exist");
        call(&container, &["--root", &root, "delete", "x"]).fails("container does not exist");
        call(&container, &["--root", &root, "kill", "x", "9"]).fails("container does not exist");
        call(&container, &["--root", &root, "exec", "x", "true"]).fails("container does not exist");
        for gone in [&root, &nowhere] {
            assert_eq!(call(&container, &["--root", gone, "delete", "--force", "x"]).ok(), "");
        }
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "to look changes nothing");
    }

    fn a_name_that_is_no_name_touches_nothing(who: Who) {
        let Some(container) = Container::new("names", who) else { return };
        container.place.mkdir("root");
        container.place.write("marker", "x");
        let (root, long) = (container.place.text("root"), "x".repeat(300));
        for verb in ["create", "run", "state", "start", "kill", "delete", "exec", "pause", "ps"] {
            for id in ["a/b", "..", ".", "../marker", "/", "", &long] {
                let mut words = vec!["--root", &root, verb, id];
                words.extend((verb == "exec").then_some("true"));
                let said = call(&container, &words);
                said.fails("invalid container ID format");
            }
        }
        call(&container, &["--root", &root, "delete", "--force", "../marker"]).fails("invalid container ID format");
        assert!(container.place.join("marker").exists());
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }

    fn an_error_is_in_the_log_once_and_on_standard_error(who: Who) {
        let Some(container) = Container::new("log", who) else { return };
        let log = container.place.text("log.json");
        let said = call(&container, &["--log", &log, "--log-format", "json", "state", "x"]);
        assert_eq!((said.code, said.err.lines().count()), (1, 1), "{said:?}");
        let line: Value = serde_json::from_str(&container.place.read("log.json")).unwrap();
        assert_eq!(line["level"], "error");
        assert_eq!(format!("{}\n", line["msg"].as_str().unwrap()), said.err);
        humantime(line["time"].as_str().unwrap());
        // Engines read the last line.
        call(&container, &["-log=file:".to_owned().as_str(), "--log-format=json", "-log", &log, "kill", "x"]).fails("");
        assert_eq!(container.place.read("log.json").lines().count(), 2);
        let said = call(&container, &["--log-format", "json", "state", "x"]);
        assert_eq!(serde_json::from_str::<Value>(&said.err).unwrap()["level"], "error");
        call(&container, &["--log", "nonsense:x", "state", "x"]).fails("unknown log type");
        call(&container, &["--log-format", "xml", "state", "x"]).fails("invalid log-format");
    }

    fn it_tells_what_it_is_and_can_do(who: Who) {
        let Some(container) = Container::new("features", who) else { return };
        let version = call(&container, &["--version"]).ok();
        let lines: Vec<&str> = version.lines().collect();
        assert!(lines[0].starts_with("fumehood-oci version ") && lines[1].starts_with("commit: "), "{version}");
        assert!(lines[2].starts_with("spec: 1."), "{version}");
        assert_eq!(call(&container, &["-v"]).ok(), version);
        // In the place of another runtime, by its name; and by the word, for a person.
        assert_eq!(call_as(&container, "/usr/bin/runc", &["-v"]).ok(), version.replace("fumehood-oci", "runc"));
        assert_eq!(call_as(&container, "fumehood", &["oci", "-v"]).ok(), version.replace("fumehood-oci", "fumehood oci"));
        let features: Value = serde_json::from_str(&call(&container, &["features"]).ok()).unwrap();
        assert_eq!(features["ociVersionMin"], "1.0.0");
        assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
        assert!(call(&container, &["--help"]).ok().contains("\n   checkpoint "));
        // Podman asks these two whether containers can be saved.
        assert!(call(&container, &["checkpoint", "--help"]).ok().starts_with("NAME:\n   fumehood-oci checkpoint"));
        call(&container, &["restore", "--lsm-mount-context"]).fails("flag needs an argument");
        assert_eq!(call(&container, &["frobnicate"]).code, 1);
        call(&container, &["state", "--bogus", "x"]).fails("flag provided but not defined: -bogus");
        call(&container, &["state"]).fails("requires exactly 1 argument(s)");
        call(&container, &["start", "x", "y"]).fails("requires exactly 1 argument(s)");
    }

    fn it_writes_a_specification_to_begin_with(who: Who) {
        let Some(container) = Container::new("spec", who) else { return };
        container.place.mkdir("new");
        let dir = container.place.text("new");
        call(&container, &["spec", "--bundle", &dir, "--rootless=true"]).ok();
        let spec: Value = serde_json::from_str(&container.place.read("new/config.json")).unwrap();
        assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], who.uid());
        call(&container, &["spec", "--bundle", &dir]).fails("Remove it first");
        fs::remove_file(container.place.join("new/config.json")).unwrap();
        call(&container, &["spec", "-b", &dir]).ok();
    }
}

/// `2026-01-02T03:04:05Z`
#[track_caller]
fn humantime(text: &str) {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00Z");
}
