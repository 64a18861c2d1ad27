//! What `unpack` leaves: bundles that other runtimes run, or nothing.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tar::EntryType;

use crate::{
    archive::{dir, file, image, tar, with},
    both,
    common::{Run, Who, skip},
    run::made::Made,
};

both! {
    fn runc_runs_a_bundle(who: Who) {
        let test = "runc_runs_a_bundle";
        let config = json!({"Entrypoint": ["/bin/busybox"], "Cmd": ["cat", "/etc/os"], "User": "7:8"});
        let Some(made) = Made::new(who, test, &config, &[]) else { return };
        if !Path::new("/usr/sbin/runc").exists() {
            return skip(test, "apt install runc");
        }
        let (store, place) = (made.store(), &made.place);
        let mut unpack = Command::new(place.binary());
        unpack.args(["unpack", "--store"]).arg(&store).args(["made", "bundle"]);
        let mut runc = Command::new("runc");
        runc.args(["--root", &place.text("runc"), "run", "--bundle", &place.text("bundle"), &format!("t{}", std::process::id())]);
        for command in [&mut unpack, &mut runc] {
            command.current_dir(place.path()).env("HOME", place.path()).env("XDG_RUNTIME_DIR", place.path());
            command.stdin(Stdio::null());
            if let Some((uid, gid)) = who.ids() {
                command.uid(uid).gid(gid);
            }
        }
        let unpacked = unpack.output().unwrap();
        let said = String::from_utf8_lossy(&unpacked.stderr);
        assert!(unpacked.status.success(), "{said}");
        assert_eq!(said.contains("runs as root of its user namespace"), who == Who::User, "{said}");
        let mut spec: Value = serde_json::from_str(&place.read("bundle/config.json")).unwrap();
        let user = if who == Who::Root { json!([7, 8]) } else { json!([0, 0]) };
        assert_eq!(json!([spec["process"]["user"]["uid"], spec["process"]["user"]["gid"]]), user);
        // Neither this machine's cgroups nor its resource limits are what this is about.
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        spec["process"].as_object_mut().unwrap().remove("rlimits");
        place.write("bundle/config.json", spec.to_string());
        let done = runc.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout), "small\n", "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// CVE-2021-41103: set-id programs and devices of an image are not for the host's other users.
    fn nobody_else_may_enter_a_bundle(who: Who) {
        use std::os::unix::fs::PermissionsExt;
        let config = json!({"Entrypoint": ["/bin/busybox"]});
        let Some(made) = Made::new(who, "nobody_else_may_enter_a_bundle", &config, &[]) else { return };
        let (store, place) = (made.store(), &made.place);
        for there in [false, true] {
            let to = format!("bundle-{there}");
            if there {
                fs::set_permissions(place.mkdir(&to), fs::Permissions::from_mode(0o777)).unwrap();
            }
            let mut unpack = Command::new(place.binary());
            unpack.args(["unpack", "--store"]).arg(&store).args(["made", &to]).current_dir(place.path());
            unpack.env("HOME", place.path()).stdin(Stdio::null());
            if let Some((uid, gid)) = who.ids() {
                unpack.uid(uid).gid(gid);
            }
            let done = unpack.output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            assert_eq!(fs::metadata(place.join(&to)).unwrap().permissions().mode() & 0o7777, 0o700);
        }
    }

    fn nothing_is_left_of_what_failed(who: Who) {
        let closed = [
            dir("d/"),
            with(EntryType::Directory, "d/closed/", |header| header.set_mode(0)),
            file("d/f", "1"),
        ];
        // Closed while it is filled, as well as at the end; the last layer is none.
        let layers = [tar(&closed), tar(&[dir("d/"), file("../f", "")])];
        for there in [false, true] {
            let run = Run::verb(who, "unpack");
            run.place.write("image.tar", image("test:1", &layers));
            if there {
                let bundle = run.place.mkdir("bundle");
                run.place.own(&bundle);
            }
            let done = run.arg("image.tar").arg("bundle").done().expect_error("`..`");
            let left = fs::read_dir(done.place().join("bundle")).map(|entries| entries.count());
            assert_eq!(left.ok(), there.then_some(0), "{done}");
        }
        // One whose configuration is wrong is found so when all of the tree is there, with its rights.
        let run = Run::verb(who, "unpack");
        run.place.write("image.tar", crate::archive::image_with("test:1", &[tar(&closed)], json!({"User": "nobody-here"})));
        let done = run.arg("image.tar").arg("bundle").done().expect_error("nobody-here");
        assert!(!done.place().join("bundle").exists(), "{done}");
    }
}
