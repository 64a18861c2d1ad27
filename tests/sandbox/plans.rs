//! Golden plans: what a few fixed requests come to, step by step. `FUMEHOOD_BLESS=1` writes them anew.
//!
//! What differs from host to host (its /etc and /opt, its kernel's Landlock, ids) is taken out before they are compared.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::common::{Run, Who};

const BLESS: &str = "FUMEHOOD_BLESS";

#[track_caller]
fn golden(name: &str, prepare: impl Fn(Run) -> Run) {
    for who in [Who::Root, Who::User].into_iter().filter_map(|who| who.find(name)) {
        let kind = if who == Who::Root { "root" } else { "user" };
        let run = prepare(Run::verb(who, "explain").named(&format!("golden-{name}-{kind}")).json_result());
        let done = run.done().expect_code(0);
        let place = done.place().path().to_str().unwrap().to_owned();
        let mut plan = done.json();
        normalise(&mut plan, &place);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.{kind}.json"));
        let text = serde_json::to_string_pretty(&plan).unwrap() + "\n";
        if std::env::var_os(BLESS).is_some() {
            fs::write(&path, &text).unwrap();
        }
        let wanted = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            wanted == text,
            "{} is not the plan any more; if the new one is right, {BLESS}=1 writes it\n{}",
            path.display(),
            difference(&wanted, &text)
        );
    }
}

/// Takes out what the host decides.
fn normalise(plan: &mut Value, place: &str) {
    replace(plan, place);
    for ids in ["users", "groups"] {
        for line in plan["ids"][ids].as_array_mut().unwrap() {
            line["outside"] = "HOST".into();
        }
    }
    let of_host = |op: &Value| {
        let path = op["path"].as_str().unwrap_or_default();
        let from_host =
            op["source"].as_str().is_some_and(|source| source.starts_with("/etc/") || source.starts_with("/opt"));
        let top_level_link = op["op"] == "symlink" && path.rfind('/') == Some(0);
        let etc = op["op"] == "dir" && path.starts_with("/etc/");
        from_host || top_level_link || etc
    };
    plan["setup"].as_array_mut().unwrap().retain(|op| !of_host(op));
    let layers = plan["landlock"].as_array().unwrap();
    plan["landlock"] = layers
        .iter()
        .map(|layer| {
            let rules = layer["rules"].as_array().unwrap();
            rules
                .iter()
                .map(|rule| json!(format!("{} {}", rule["path"].as_str().unwrap(), rule["access"].as_str().unwrap())))
                .collect()
        })
        .collect::<Vec<Value>>()
        .into();
    // A change of the filter is not a change of the plan.
    plan["seccomp"].as_object_mut().unwrap().remove("instructions");
}

fn replace(value: &mut Value, place: &str) {
    match value {
        Value::String(text) => *text = text.replace(place, "$PLACE"),
        Value::Array(list) => list.iter_mut().for_each(|value| replace(value, place)),
        Value::Object(map) => map.values_mut().for_each(|value| replace(value, place)),
        _ => {}
    }
}

fn difference(wanted: &str, found: &str) -> String {
    let missing =
        wanted.lines().filter(|line| !found.lines().any(|other| other == *line)).map(|line| format!("-{line}\n"));
    let added =
        found.lines().filter(|line| !wanted.lines().any(|other| other == *line)).map(|line| format!("+{line}\n"));
    missing.chain(added).collect()
}

#[test]
fn shell_line() {
    golden("shell-line", |run| run.cmd("true"));
}

#[test]
fn python_code() {
    golden("python-code", |run| run.python("print(1)"));
}

#[test]
fn compiled_language() {
    golden("compiled-language", |run| run.eval("c", "int main() {}").args(["--memory", "64m"]));
}

#[test]
fn directory_as_root() {
    golden("directory-as-root", |run| {
        run.place.write("root/bin/sh", "");
        let root = run.place.text("root");
        run.args(["--rootfs", &root, "--writable"]).file("in.txt", "given").cmd("true")
    });
}

#[test]
fn bundle() {
    golden("bundle", |run| {
        run.place.mkdir("rootfs/proc");
        run.place.write("config.json", r#"{"ociVersion":"1.0.2","process":{"args":["/a"],"cwd":"/","env":["A=1"],"user":{"uid":5,"gid":6}},
            "root":{"path":"rootfs","readonly":true},"mounts":[{"destination":"/sys","type":"sysfs","source":"sysfs"}]}"#);
        let dir = run.place.text("").trim_end_matches('/').to_owned();
        run.args(["--bundle", &dir])
    });
}

#[test]
fn many_options() {
    golden("many-options", |run| {
        run.place.write("data/secret/key", "");
        let (data, secret) = (run.place.text("data"), run.place.text("data/secret"));
        run.args(["--mount", &format!("{data}:/data:rw"), "--exclude", &secret, "--user", "0", "--workdir", "/tmp"])
            .args([
                "--env",
                "A=b",
                "--secret",
                "TOKEN=hunter2",
                "--net",
                "host",
                "--profile",
                "strict",
                "--hostname",
                "box",
            ])
            .args([
                "--memory",
                "100m",
                "--pids-limit",
                "7",
                "--timeout",
                "5s",
                "--cpu-time",
                "2s",
                "--max-output",
                "1k",
            ])
            .args(["--sandbox-size", "10m", "--tmp-size", "5m", "--nofile", "99", "--get", "out/*.txt"])
            .cmd("true")
    });
}
