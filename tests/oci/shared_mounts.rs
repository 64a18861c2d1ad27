//! A container without a mount namespace: a changed root, and nothing that reaches the host's mounts.

use serde_json::{Value, json};

use crate::{bundle::Container, common::Who};

/// With nothing that would have to be mounted.
fn bare(test: &str) -> Option<Container> {
    let mut container = Container::new(test, Who::Root.find(test)?)?;
    let linux = container.config["linux"].as_object_mut().unwrap();
    linux.remove("maskedPaths");
    linux.remove("readonlyPaths");
    let namespaces = linux["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "mount");
    container.config["mounts"] = json!([]);
    Some(container)
}

#[test]
fn its_root_is_the_bundles_and_no_mount_is_made() {
    let Some(container) = bare("shared mounts") else { return };
    // When it is dropped, the host's mounts are looked at.
    let container = container
        .set("/process/cwd", json!("/made/here"))
        .shell("pwd; cd ../../../..; ls -d /* | head -n 3; test -c /dev/null && echo null; exec sleep 100");
    container.place.write("marker", "untouched");
    container.create();
    let root = std::fs::read_link(format!("/proc/{}/root", container.place.read("pid"))).unwrap();
    assert_eq!(root, container.rootfs("").canonicalize().unwrap());
    container.start();
    let said =
        container.call_on("exec", &["sh", "-c", "cd ../../..; pwd; cat /etc/passwd | head -n 1; ls /marker /work"]);
    assert_eq!(said.out, "/\nroot:x:0:0:root:/root:/bin/sh\n", "{said:?}");
    let more = container.command("exec", &["--cap", "CAP_SYS_CHROOT", &container.id, "true"]);
    container.output(more).fails("process.capabilities: ");
    // No namespace of its own at all is no more.
    container.call("delete", &["--force"]).ok();
    let container = container.set("/linux/namespaces", json!([])).args(&["sleep", "100"]);
    let mut container = container;
    container.config.as_object_mut().unwrap().remove("hostname");
    container.create();
    container.start();
    assert_eq!(container.call_on("exec", &["cat", "/etc/passwd"]).ok().lines().count(), 2);
    container.call("delete", &["--force"]).ok();
}

#[test]
fn what_would_reach_the_hosts_mounts_is_refused() {
    let refused = |pointer: &str, value: Value, message: &str| {
        let Some(container) = bare("shared mounts") else { return };
        let container = container.set(pointer, value);
        container.run().fails(message);
        container.call("state", &[]).fails("does not exist");
    };
    let proc = json!([{ "destination": "/proc", "type": "proc", "source": "proc" }]);
    refused("/mounts", proc, "mounts: there is no mount namespace");
    refused("/root/readonly", json!(true), "root.readonly: ");
    refused("/linux/maskedPaths", json!(["/etc"]), "linux.maskedPaths: ");
    refused("/linux/readonlyPaths", json!(["/etc"]), "linux.readonlyPaths: ");
    refused("/linux/rootfsPropagation", json!("slave"), "linux.rootfsPropagation: ");
    for name in ["CAP_SYS_CHROOT", "CAP_SYS_ADMIN"] {
        refused("/process/capabilities/bounding", json!([name]), "process.capabilities: ");
    }
    // A user of their own could be given no devices.
    refused("/linux/namespaces/0", json!({ "type": "user" }), "linux.uidMappings: ");
    let Some(container) = bare("shared mounts") else { return };
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    let container = container
        .set("/linux/namespaces/0", json!({ "type": "user" }))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    container.run().fails("linux.namespaces: there is no mount namespace");
}
