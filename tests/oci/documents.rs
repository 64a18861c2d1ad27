//! Configurations that cannot be: an error that names the place, status 1, and nothing left behind.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;

use crate::{
    both,
    bundle::{Container, Said},
    common::Who,
};

/// `create` of what is in the bundle, whatever the container's own document says.
#[track_caller]
fn create(container: &Container, text: &[u8]) -> Said {
    let mut command = container.command("create", &[&container.id]);
    fs::write(container.bundle().join("config.json"), text).unwrap();
    let said = container.output(std::mem::replace(&mut command, std::process::Command::new("true")));
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    container.call("state", &[]).fails("does not exist");
    assert!(!container.place.join("runtime-dir/oci").join(&container.id).exists());
    said
}

both! {
    fn what_is_no_document_is_refused(who: Who) {
        let Some(container) = Container::new("no document", who) else { return };
        let whole = serde_json::to_vec(&container.config).unwrap();
        for text in [&b""[..], b"{", b"[]", b"null", b"\0", b"\xff\xfe", &whole[..whole.len() / 2]] {
            create(&container, text);
        }
        let twice = String::from_utf8(whole).unwrap().replacen("\"cwd\":", "\"cwd\":\"/tmp\",\"cwd\":", 1);
        create(&container, twice.as_bytes()).fails("process.cwd: it is there twice");
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        create(&container, deep.as_bytes());
        let huge = format!("{{\"x\":\"{}\"}}", "y".repeat(5 << 20));
        create(&container, huge.as_bytes()).fails("it is larger than");
        fs::remove_file(container.bundle().join("config.json")).unwrap();
        // A document that never ends, or that nobody writes.
        symlink("/dev/zero", container.bundle().join("config.json")).unwrap();
        let said = container.output(without_writing(&container));
        assert_eq!((said.code, said.err.contains("not a regular file")), (1, true), "{said:?}");
        fs::remove_file(container.bundle().join("config.json")).unwrap();
        nix::unistd::mkfifo(&container.bundle().join("config.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let said = container.output(without_writing(&container));
        assert_eq!(said.code, 1, "{said:?}");
        fs::remove_file(container.bundle().join("config.json")).unwrap();
    }

    fn what_cannot_be_is_told_by_its_place(who: Who) {
        let Some(container) = Container::new("no container", who) else { return };
        let changes = [
            ("/ociVersion", json!("9.0.0"), "ociVersion: "),
            ("/ociVersion", json!(1), "ociVersion: "),
            ("/process/user/uid", json!(-1), "process.user.uid: "),
            ("/process/user/uid", json!(4_294_967_295_u32), "process.user.uid: "),
            ("/process/cwd", json!("tmp"), "process.cwd: "),
            ("/process/args", json!([]), "process.args: args must not be empty"),
            ("/process/args", json!(["a\0b"]), "process.args[0]: "),
            ("/process/env", json!(["A"]), "process.env[0]: "),
            ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj: "),
            ("/process/rlimits/0/type", json!("RLIMIT_LUNCH"), "process.rlimits[0].type: "),
            ("/process/rlimits/0/soft", json!(99_999), "process.rlimits[0].soft: "),
            ("/root/path", json!("nowhere"), "root.path: "),
            ("/root/path", json!("rootfs/etc/passwd"), "root.path: "),
            ("/root", json!(["rootfs"]), "root: it is a list"),
            ("/linux/namespaces/0/type", json!("warp"), "linux.namespaces[0].type: "),
            ("/linux/sysctl", json!({ "kernel.panic": "1" }), "linux.sysctl.kernel.panic: "),
            ("/linux/uidMappings", json!([{ "containerID": 0, "hostID": 0, "size": 0 }]), "linux.uidMappings[0].size: "),
            ("/hooks", json!({ "poststop": [{ "path": "x" }] }), "hooks.poststop[0].path: "),
            ("/annotations", json!({ "io.fumehood.profil": "strict" }), "annotations.io.fumehood.profil: "),
            ("/annotations", json!({ "io.fumehood.profile": "lax" }), "annotations.io.fumehood.profile: "),
        ];
        for (pointer, value, at) in changes {
            let mut config = container.config.clone();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[name] = value.clone();
            let said = create(&container, &serde_json::to_vec(&config).unwrap());
            assert!(said.err.starts_with(at), "{pointer} = {value}: {}", said.err);
        }
    }

    fn a_bundle_that_is_none_is_refused(who: Who) {
        let Some(container) = Container::new("no bundle", who) else { return };
        let nowhere = container.place.text("nowhere");
        container.call("create", &["--bundle", &nowhere]).fails("No such file or directory");
        let file = container.place.text("bundle/rootfs/etc/passwd");
        container.call("create", &["--bundle", &file]).fails("Not a directory");
        container.call("create", &["--bundle", &container.place.text("bundle/rootfs")]).fails("config.json");
        container.call("create", &["--config", "other.json"]).fails("other.json");
        container.call("create", &["--preserve-fds", "-1"]).fails("-preserve-fds");
    }
}

/// `create`, with the bundle as it is.
fn without_writing(container: &Container) -> std::process::Command {
    let place = container.bundle().join("config.json");
    let kept = container.bundle().join("kept");
    fs::rename(&place, &kept).unwrap();
    let command = container.command("create", &[&container.id]);
    fs::remove_file(&place).unwrap();
    fs::rename(kept, place).unwrap();
    command
}
