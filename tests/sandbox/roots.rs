//! `--rootfs DIR` and `--bundle DIR`: other people's trees.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::{
    both,
    common::{Place, Run, Who, probe, skip},
};

/// A root with nothing but busybox and a file.
fn small_root(place: &Place, test: &str) -> Option<String> {
    let Some(busybox) = ["/usr/bin/busybox", "/bin/busybox"].iter().find(|path| Path::new(path).exists()) else {
        skip(test, "apt install busybox-static");
        return None;
    };
    for dir in ["root/bin", "root/etc", "root/proc", "root/dev", "root/sandbox", "root/tmp"] {
        place.mkdir(dir);
    }
    place.write_executable("root/bin/busybox", fs::read(busybox).unwrap());
    for applet in ["sh", "cat", "echo", "id", "touch", "ls", "mount", "readlink"] {
        place.symlink("busybox", Path::new("root/bin").join(applet));
    }
    place.write("root/etc/os", "small");
    Some(place.text("root"))
}

both! {
    fn a_directory_as_root(who: Who) {
        let run = Run::new(who);
        let Some(root) = small_root(&run.place, "a_directory_as_root") else { return };
        let run = run.args(["--rootfs", &root]).file("in.txt", "given");
        let done = run.cmd("cat /etc/os in.txt; ls /; id -u; touch /etc/x || echo sealed; touch w && echo wrote").done().expect_code(0);
        assert!(done.out().starts_with("smallgiven"), "{done}");
        assert!(done.out().ends_with("1000\nsealed\nwrote\n"), "{done}");
        assert!(!done.out().contains("usr"), "{done}");
    }

    fn a_program_of_that_root(who: Who) {
        let run = Run::new(who);
        run.place.write_executable("root/p", probe::binary());
        let root = run.place.text("root");
        // Nothing is there but the program: mount points are made, and not in the directory itself.
        let done = run.args(["--rootfs", &root]).program_args(["/p", "calls", "getpid:39"]).done();
        if cfg!(target_arch = "x86_64") {
            assert_eq!(done.expect_code(0).out().split(' ').next(), Some("getpid"));
        }
    }

    fn an_empty_root_is_left_as_it_was(who: Who) {
        let run = Run::new(who);
        run.place.write_executable("root/p", probe::binary());
        let root = run.place.text("root");
        let done = run.args(["--rootfs", &root]).program_args(["/p", "int80"]).done().expect_code(2);
        let names: Vec<_> = fs::read_dir(done.place().join("root")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["p"], "{done}");
    }

    fn a_root_can_be_written_to_in_memory(who: Who) {
        let run = Run::new(who);
        let Some(root) = small_root(&run.place, "a_root_can_be_written_to_in_memory") else { return };
        let run = run.args(["--rootfs", &root, "--writable"]);
        // As root inside, the files of the tree are its own wherever the id maps allow it.
        let done = run.cmd("touch /new && echo wrote; cat /etc/os").done().expect_code(0).expect_out("wrote\nsmall");
        assert!(!done.place().join("root/new").exists());
    }

    /// Only root may enter `closed`, and a sandbox of root's has ids of nobody's.
    fn a_root_behind_a_closed_door(who: Who) {
        for (mode, root, closed) in [(0o700, "closed/root", "closed"), (0o750, "closed/root", "closed"), (0o700, "root", "root")] {
            let run = Run::new(who);
            run.place.write_executable(format!("{root}/p"), probe::binary());
            let door = run.place.join(closed);
            fs::set_permissions(&door, fs::Permissions::from_mode(mode)).unwrap();
            let dir = run.place.text(root);
            let run = run.args(["--rootfs", &dir]).program_args(["/p", "calls", &format!("getpid:{}", libc::SYS_getpid)]);
            if who == Who::User {
                // One's own is open to oneself, and so to one's sandbox.
                run.done().expect_code(0);
                continue;
            }
            let done = run.done().expect_error(&format!("root file system `{dir}`: ")).expect_hint();
            assert!(done.err().contains(&format!("may not enter `{}`\n", door.display())), "{done}");
            assert!(done.err().contains(&format!("chmod o+x {},", door.display())), "{done}");
        }
    }

    fn a_mount_behind_a_closed_door(who: Who) {
        let run = Run::new(who);
        run.place.write("closed/data/file", "given");
        let door = run.place.join("closed");
        fs::set_permissions(&door, fs::Permissions::from_mode(0o700)).unwrap();
        let mount = run.place.text("closed/data:/data");
        let run = run.args(["--mount", &mount]).cmd("cat /data/file");
        if who == Who::User {
            run.done().expect_code(0).expect_out("given");
        } else {
            run.done().expect_error(&format!("may not enter `{}`", door.display())).expect_hint();
        }
    }

    fn a_root_that_the_caller_may_not_reach(who: Who) {
        if who == Who::User && who.ids().is_some() {
            let run = Run::new(who);
            let door = run.place.mkdir("closed/root").parent().unwrap().to_owned();
            std::os::unix::fs::chown(&door, Some(0), Some(0)).unwrap();
            fs::set_permissions(&door, fs::Permissions::from_mode(0o700)).unwrap();
            let dir = run.place.text("closed/root");
            let done = run.args(["--rootfs", &dir]).program_args(["/p"]).done().expect_error(&dir).expect_hint();
            assert!(done.err().contains(&format!("may not enter `{}`", door.display())), "{done}");
        }
    }

    fn a_bundle(who: Who) {
        let run = Run::new(who);
        if small_root(&run.place, "a_bundle").is_none() {
            return;
        }
        fs::rename(run.place.join("root"), run.place.join("rootfs")).unwrap();
        run.place.write("config.json", r#"{
            "ociVersion": "1.0.2",
            "process": {"args": ["/bin/sh", "-c", "echo $GREETING; cat os; exit 5"], "cwd": "/etc", "env": ["PATH=/bin", "GREETING=hello"],
                "user": {"uid": 1000, "gid": 1000}},
            "root": {"path": "rootfs", "readonly": true}}"#);
        let dir = run.place.text("");
        run.args(["--bundle", &dir]).done().expect_code(5).expect_out("hello\nsmall");
    }

    fn a_bundle_as_runc_writes_it(who: Who) {
        let run = Run::new(who);
        if small_root(&run.place, "a_bundle_as_runc_writes_it").is_none() {
            return;
        }
        fs::rename(run.place.join("root"), run.place.join("rootfs")).unwrap();
        let spec = std::process::Command::new("runc").arg("spec").arg("--bundle").arg(run.place.path()).status();
        if !spec.is_ok_and(|status| status.success()) {
            skip("a_bundle_as_runc_writes_it", "apt install runc");
            return;
        }
        let config = run.place.join("config.json");
        let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!(["/bin/sh", "-c", "id -u; echo ran"]);
        run.place.write("config.json", spec.to_string());
        let dir = run.place.text("");
        let done = run.args(["--bundle", &dir]).done().expect_code(0);
        assert!(done.out().ends_with("ran\n"), "{done}");
    }
}
