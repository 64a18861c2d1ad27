//! What engines' usual config.json come to: golden plans, in `tests/golden`. `FUMEHOOD_BLESS=1` writes them anew.

use std::path::Path;

use oci_spec::runtime as oci;
use serde_json::{Value, json};

use super::{CgroupTree, Facts, plan};
use crate::plan::setup::SetupOp;

const BLESS: &str = "FUMEHOOD_BLESS";

fn facts() -> Facts<'static> {
    Facts {
        bundle: Path::new("/bundle"),
        own_mount_namespace: true,
        own_user_namespace: false,
        own_network_namespace: true,
        own_ipc_namespace: true,
        own_uts_namespace: true,
        own_pid_namespace: true,
        cgroup_namespace: true,
        rootless: false,
        cgroup: CgroupTree::V2,
        selinux: false,
    }
}

#[track_caller]
fn golden(name: &str, facts: &Facts<'_>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/container");
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    let spec: oci::Spec = serde_json::from_str(&read(&format!("{name}.config.json"))).unwrap();
    let mut setup = Vec::new();
    plan(&spec, facts, true, &mut setup).unwrap();
    let text = serde_json::to_string_pretty(&setup).unwrap() + "\n";
    let file = format!("{name}.plan.json");
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(dir.join(&file), &text).unwrap();
    }
    // Lines are enough to see what has changed.
    assert!(
        read(&file) == text,
        "{file} is not the plan any more; if the new one is right, {BLESS}=1 writes it\n{text}"
    );
}

#[test]
fn docker() {
    golden("docker", &facts());
}

#[test]
fn podman_rootless() {
    golden(
        "podman-rootless",
        &Facts { own_user_namespace: true, rootless: true, own_network_namespace: false, ..facts() },
    );
}

fn of(spec: Value) -> Result<Vec<SetupOp>, String> {
    with(spec, &facts())
}

fn with(mut spec: Value, facts: &Facts<'_>) -> Result<Vec<SetupOp>, String> {
    spec["ociVersion"] = json!("1.2.0");
    if spec.get("root").is_none() {
        spec["root"] = json!({"path": "rootfs"});
    }
    let spec: oci::Spec = serde_json::from_value(spec).unwrap();
    let mut setup = Vec::new();
    plan(&spec, facts, true, &mut setup).map_err(|error| error.to_string())?;
    Ok(setup)
}

fn mount(mount: Value) -> Result<Value, String> {
    mount_with(mount, &facts())
}

fn mount_with(mount: Value, facts: &Facts<'_>) -> Result<Value, String> {
    let setup = with(json!({"mounts": [mount]}), facts)?;
    let found = setup.iter().find(|operation| matches!(operation, SetupOp::Mount(_))).unwrap();
    Ok(serde_json::to_value(found).unwrap())
}

#[test]
fn paths_are_the_containers() {
    let path = |destination: &str| {
        mount(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"})).unwrap()["path"].clone()
    };
    for (destination, wanted) in [("/a/b", "/a/b"), ("a", "/a"), ("/../../a/./b/../c/", "/a/c"), ("//a//b", "/a/b")] {
        assert_eq!(path(destination), wanted);
    }
    let bind = mount(json!({"destination": "/a", "type": "bind", "source": "files/x"})).unwrap();
    assert_eq!(bind["from"]["source"], "/bundle/files/x");
    assert!(of(json!({"root": {"path": "/elsewhere"}})).is_ok());
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |spec: Value, word: &str| {
        let error = mount(spec.clone()).expect_err(&spec.to_string());
        assert!(error.contains(word), "{spec}: {error}");
    };
    refused(json!({"destination": "/a", "source": "x"}), "no type");
    refused(json!({"destination": "/a", "type": "bind"}), "needs a source");
    refused(json!({"destination": "/", "type": "tmpfs"}), "root");
    refused(json!({"destination": "/proc", "type": "tmpfs"}), "not of type proc");
    refused(json!({"destination": "/proc/sys", "type": "bind", "source": "/x"}), "inside /proc");
    refused(json!({"destination": "/a", "type": "tmpfs", "options": ["idmap"]}), "bind mount");
    refused(json!({"destination": "/a", "type": "bind", "source": "/x", "options": ["idmap"]}), "user namespace");
    refused(json!({"destination": "/a", "type": "proc", "options": ["tmpcopyup"]}), "tmpcopyup");
    refused(json!({"destination": "/a", "type": "tmpfs", "options": ["=1"]}), "no name");
    refused(json!({"destination": "/a", "type": "tmpfs", "options": ["a\0b"]}), "NUL");
    let map = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    refused(json!({"destination": "/a", "type": "bind", "source": "/x", "uidMappings": map}), "together");
    let none = Facts { cgroup: CgroupTree::None, ..facts() };
    let error = mount_with(json!({"destination": "/a", "type": "cgroup", "source": "cgroup"}), &none).unwrap_err();
    assert!(error.contains("no cgroups"), "{error}");
}

#[test]
fn cgroups_are_as_the_host_has_them() {
    let spec = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]});
    let v1 = Facts { cgroup: CgroupTree::V1, ..facts() };
    assert_eq!(mount_with(spec.clone(), &v1).unwrap()["from"], json!({"kind": "cgroups_v1", "own_namespace": true}));
    let v2 = mount(spec.clone()).unwrap();
    assert_eq!((&v2["from"]["name"], &v2["from"]["instead"]), (&json!("cgroup2"), &json!(null)));
    // CVE-2023-25809: what is shown instead is not to be written to.
    let host = Facts { own_user_namespace: true, rootless: true, cgroup_namespace: false, ..facts() };
    let shown = mount_with(spec, &host).unwrap()["from"]["instead"].clone();
    assert_eq!(shown, json!({"source": "/sys/fs/cgroup", "read_only": true}));
}

#[test]
fn sources_are_handed_where_the_builder_has_no_right() {
    let spec = json!({"destination": "/a", "type": "bind", "source": "/x", "options": ["bind"]});
    let handed = |spec: &Value, facts: &Facts<'_>| mount_with(spec.clone(), facts).unwrap()["from"]["handed"] == true;
    let user = Facts { own_user_namespace: true, ..facts() };
    assert!(!handed(&spec, &facts()));
    assert!(handed(&spec, &user));
    assert!(!handed(&spec, &Facts { rootless: true, ..user }));
    let mut mapped = spec;
    mapped["options"] = json!(["bind", "idmap"]);
    assert!(handed(&mapped, &Facts { rootless: true, ..user }));
}

#[test]
fn labels_count_where_selinux_is_on() {
    let spec =
        json!({"mounts": [{"destination": "/a", "type": "tmpfs", "source": "x"}], "linux": {"mountLabel": "a:b:c"}});
    let text = |facts: &Facts<'_>| serde_json::to_string(&with(spec.clone(), facts).unwrap()).unwrap();
    assert!(text(&Facts { selinux: true, ..facts() }).contains("context=a:b:c"));
    assert!(!text(&facts()).contains("context"));
}

#[test]
fn every_container_has_the_usual_devices() {
    let setup = of(json!({"linux": {"devices": [
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
    ]}}))
    .unwrap();
    let nodes: Vec<String> = setup
        .iter()
        .filter_map(|operation| match operation {
            SetupOp::Node(node) => Some(format!("{} {:o}", node.path.shown(), node.mode)),
            _ => None,
        })
        .collect();
    assert_eq!(
        nodes,
        ["/dev/full 666", "/dev/null 600", "/dev/random 666", "/dev/tty 666", "/dev/urandom 666", "/dev/zero 666"]
    );
    for device in [json!({"path": "/dev/x", "type": "a"}), json!({"path": "/dev/x", "type": "c", "major": -1})] {
        assert!(of(json!({"linux": {"devices": [device]}})).is_err(), "{device}");
    }
    // The host's own /dev is left as it is.
    let bound =
        of(json!({"mounts": [{"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}]}));
    assert!(!bound.unwrap().iter().any(|operation| matches!(operation, SetupOp::Node(_) | SetupOp::Link { .. })));
}
