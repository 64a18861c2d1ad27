//! `run --image`.

mod hostile;
pub mod made;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    both,
    common::{Run, Who},
};
use made::{Made, dir, file, text};

both! {
    fn what_the_image_says_is_run(who: Who) {
        let config = json!({"Entrypoint": ["/bin/echo", "from", "it"], "Cmd": ["its", "own"], "WorkingDir": "/etc"});
        let Some(made) = Made::new(who, "what_the_image_says_is_run", &config, &[]) else { return };
        let out = |run: Run| run.done().expect_code(0).out();
        assert_eq!(out(made.run()), "from it its own\n");
        assert_eq!(out(made.run().program_args(["mine", "-n"])), "from it mine -n\n");
        assert_eq!(out(made.run().args(["--entrypoint", "pwd"])), "/etc\n", "in its directory, and without its arguments");
        assert_eq!(out(made.run().args(["--entrypoint", "echo"]).program_args(["a"])), "a\n");
        assert_eq!(out(made.run().args(["--entrypoint", ""]).program_args(["pwd"])), "/etc\n");
        assert_eq!(out(made.run().cmd("cat os; pwd")), "small\n/etc\n", "a line of shell is no argument");
        assert_eq!(out(made.run().args(["--workdir", "/srv", "--entrypoint", "pwd"])), "/srv\n");
    }

    fn its_environment_is_the_images(who: Who) {
        let config = json!({"Env": ["PATH=/nowhere:/bin", "A=image", "B=image", "nameless", "=x"], "User": "svc", "Cmd": ["env"]});
        let Some(made) = Made::new(who, "its_environment_is_the_images", &config, &[]) else { return };
        let out = made.run().args(["--env", "B=mine"]).done().expect_code(0).out();
        let mut lines: Vec<_> = out.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["A=image", "B=mine", "HOME=/srv", "LANG=C.UTF-8", "PATH=/nowhere:/bin", "TMPDIR=/tmp"]);
    }

    fn its_user_is_the_images(who: Who) {
        let Some(made) = Made::new(who, "its_user_is_the_images", &json!({"User": "svc"}), &[]) else { return };
        let groups = if who == Who::Root { "8 50" } else { "8" };
        let line = "id -u; id -g; id -G";
        made.run().cmd(line).done().expect_code(0).expect_out(&format!("7\n8\n{groups}\n"));
        made.run().args(["--user", "0"]).cmd(line).done().expect_code(0).expect_out("0\n0\n0\n");
        let explained = made.verb("explain").cmd("true").done().expect_code(0).out();
        assert!(explained.contains("user 7, group 8"), "{explained}");
        assert_eq!(explained.contains("leave out group 50"), who == Who::User, "{explained}");
    }

    fn an_image_that_names_no_user_does_not_run_as_root(who: Who) {
        let Some(made) = Made::new(who, "an_image_that_names_no_user", &json!({}), &[]) else { return };
        made.run().cmd("id -u; echo $HOME; pwd").done().expect_code(0).expect_out("1000\n/home/me\n/sandbox\n");
    }

    fn the_result_says_which_image_it_was(who: Who) {
        let Some(made) = Made::new(who, "the_result_says_which_image_it_was", &json!({}), &[]) else { return };
        let listed: serde_json::Value = serde_json::from_slice(&made.call(&["image", "inspect", "made"]).stdout).unwrap();
        let digest = listed["digest"].as_str().unwrap();
        let json = made.run().json_result().program_args(["true"]).done().expect_code(0).json();
        assert_eq!((&json["controls"]["rootfs"], &json["controls"]["image"]), (&json!("image"), &json!(digest)), "{json}");
        let explained = made.verb("explain").program_args(["true"]).done().expect_code(0).out();
        assert!(explained.contains(&format!("image {digest}")), "{explained}");
        let without = Run::new(who).json_result().cmd("true").done().json();
        assert_eq!(without["controls"]["image"], json!(null));
    }

    fn files_belong_to_whom_the_image_says(who: Who) {
        let far = [dir("far", 0o750).owned(60_000, 60_001)];
        let Some(made) = Made::new(who, "files_belong_to_whom_the_image_says", &json!({}), &far) else { return };
        let line = "stat -c '%n %u:%g %a' / /etc/os /root/secret /home/me /far /sandbox; cat /root/secret || echo closed; touch /home/me/x && stat -c %u:%g /home/me/x";
        for (writable, root) in [(true, "755"), (false, "755")] {
            let run = if writable { made.run() } else { made.run().arg("--read-only") };
            let out = run.cmd(line).done().out();
            let (expected, last) = match who {
                Who::Root => ("/ 0:0 ROOT\n/etc/os 0:0 644\n/home/me 1000:1001 700\n/far 60000:60001 750\n/sandbox 1000:1000 755\nclosed\n", "1000:1000\n"),
                // One id is all there is: the files are the caller's, as the program is.
                Who::User => ("/ 1000:1000 ROOT\n/etc/os 1000:1000 644\n/root/secret 1000:1000 600\n/home/me 1000:1000 700\n/far 1000:1000 750\n/sandbox 1000:1000 755\nhidden\n", "1000:1000\n"),
            };
            let expected = expected.replace("ROOT", root);
            assert_eq!(out, format!("{expected}{}", if writable { last } else { "" }), "writable: {writable}");
        }
        // Root inside is the owner of what is root's, and may do as owners do.
        made.run().args(["--user", "0"]).cmd("cat /root/secret; echo x > /root/secret; cat /root/secret; stat -c %u /root/secret").done()
            .expect_code(0).expect_out("hidden\nx\n0\n");
    }

    fn a_setuid_program_gives_nothing(who: Who) {
        let busybox = made::busybox();
        let setuid = [dir("setuid", 0o755), file("setuid/busybox", 0o4755, &busybox)];
        let Some(made) = Made::new(who, "a_setuid_program_gives_nothing", &json!({}), &setuid) else { return };
        let line = "stat -c %a /setuid/busybox; /setuid/busybox id -u; /setuid/busybox cat /proc/self/status";
        let out = made.run().cmd(line).done().expect_code(0).out();
        assert!(out.starts_with("4755\n1000\n"), "{out}");
        assert!(out.contains("\nUid:\t1000\t1000\t1000\t1000\n") && out.contains("\nCapEff:\t0000000000000000\n"), "{out}");
        assert!(out.contains("\nNoNewPrivs:\t1\n"), "{out}");
        // Nobody but its owner gets to the copy in the store.
        assert_eq!(fs::metadata(made.store()).unwrap().mode() & 0o7777, 0o700);
    }

    fn what_is_written_ends_with_the_run(who: Who) {
        let Some(made) = Made::new(who, "what_is_written_ends_with_the_run", &json!({}), &[]) else { return };
        let line = "echo changed > /etc/os; rm /bin/ls; mkdir /made; cat /etc/os; [ -e /bin/ls ] || echo gone";
        made.run().args(["--user", "0"]).cmd(line).done().expect_code(0).expect_out("changed\ngone\n");
        let line = "cat /etc/os; [ -e /made ] || echo new; ls /bin/busybox";
        made.run().args(["--user", "0"]).cmd(line).done().expect_code(0).expect_out("small\nnew\n/bin/busybox\n");
        let [tree] = made.trees().try_into().unwrap();
        assert_eq!(fs::read_to_string(tree.join("etc/os")).unwrap(), "small\n");
        assert!(tree.join("bin/ls").symlink_metadata().is_ok() && !tree.join("made").exists());
        // Not even the mount points that every sandbox has.
        assert!(!tree.join("sandbox").exists() && !tree.join("proc").exists());
    }

    fn a_read_only_image(who: Who) {
        let Some(made) = Made::new(who, "a_read_only_image", &json!({"Volumes": {"/data": {}}}), &[]) else { return };
        let line = "touch /etc/x || echo sealed; touch /data/x /sandbox/x /tmp/x && echo wrote";
        let done = made.run().args(["--read-only", "--user", "0"]).cmd(line).done().expect_code(0).expect_out("sealed\nwrote\n");
        assert!(done.err().contains("Read-only file system"), "{done}");
    }

    fn what_it_writes_to_its_root_is_limited(who: Who) {
        let Some(made) = Made::new(who, "what_it_writes_to_its_root_is_limited", &json!({}), &[]) else { return };
        let run = made.run().args(["--user", "0", "--sandbox-size", "4m"]).json_result();
        let done = run.program_args(["dd", "if=/dev/zero", "of=/big", "bs=1M", "count=16"]).done();
        assert_eq!(done.json()["verdict"], "disk_limit", "{done}");
        let run = made.run().args(["--user", "0", "--memory", "32m"]).json_result();
        let done = run.cmd("dd if=/dev/zero of=/big bs=1M count=200; sleep 5").done();
        assert_eq!(done.json()["verdict"], "oom", "{done}");
    }

    fn volumes_are_empty_and_the_programs_own(who: Who) {
        let config = json!({"User": "svc", "Volumes": {"/data": {}, "/data/below": {}, "/tmp/cache": {}, "/new/one": {}, "/mine": {}}});
        let old = [dir("data", 0o700), file("data/old", 0o600, b"of the image")];
        let Some(made) = Made::new(who, "volumes_are_empty", &config, &old) else { return };
        let mine = made.place.write("mine/file", "given").parent().unwrap().to_str().unwrap().to_owned();
        let line = "ls -A /data; for d in /data /data/below /tmp/cache /new/one; do touch $d/x && stat -c '%n %u:%g' $d; done; cat /mine/file";
        let run = made.run().args(["--mount", &format!("{mine}:/mine")]).cmd(line);
        run.done().expect_code(0).expect_out("below\n/data 7:8\n/data/below 7:8\n/tmp/cache 7:8\n/new/one 7:8\ngiven");
    }

    fn source_code_is_run_by_the_images_own_programs(who: Who) {
        let config = json!({"Entrypoint": ["/bin/false"], "WorkingDir": "/etc", "Env": ["PATH=/tools:/bin"]});
        let sh = b"#!/bin/sh\necho tool of the image: $(pwd); exec /bin/sh \"$@\"\n";
        let tools = [dir("tools", 0o755), file("tools/bash", 0o755, sh)];
        let Some(made) = Made::new(who, "source_code_is_run", &config, &tools) else { return };
        made.run().eval("bash", "echo ran").done().expect_code(0).expect_out("tool of the image: /sandbox\nran\n");
        made.run().python("print(1)").done().expect_error("no program for runtime `python`").expect_hint();
    }

    fn what_is_not_there_is_told(who: Who) {
        let Some(made) = Made::new(who, "what_is_not_there_is_told", &json!({}), &[]) else { return };
        made.run().done().expect_error("the image names no program").expect_hint();
        let run = Run::new(who).env("FUMEHOOD_STORE", made.store()).args(["--image", "other:1"]).program_args(["true"]);
        let done = run.done().expect_error("no image called `other:1`").expect_hint();
        assert!(done.err().contains("fumehood image pull") && done.err().contains("import"), "{done}");
        let done = made.run().program_args(["no-such"]).done().expect_code(127);
        assert!(!done.err().contains("of the host"), "{done}");
        made.run().args(["--user", "0", "--workdir", "/nowhere"]).cmd("true").done().expect_error("--workdir: `/nowhere`");
    }

    fn first_uses_at_once_unpack_once(who: Who) {
        let Some(made) = Made::new(who, "first_uses_at_once_unpack_once", &json!({"Cmd": ["cat", "/etc/os"]}), &[]) else { return };
        assert!(made.trees().is_empty());
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..4).map(|_| made.run()).collect();
            for run in runs {
                scope.spawn(move || {
                    let command = run.command();
                    run.finish(command).expect_code(0).expect_out("small\n");
                });
            }
        });
        assert_eq!(made.trees().len(), 1);
        assert_eq!(fs::read_dir(made.store().join("making")).unwrap().count(), 0);
    }

    fn unpacked_it_is_a_bundle(who: Who) {
        let config = json!({"Entrypoint": ["/bin/echo", "ran in"], "Cmd": ["a bundle"], "User": "svc", "Env": ["nameless", "A=b"], "WorkingDir": "/etc"});
        let Some(made) = Made::new(who, "unpacked_it_is_a_bundle", &config, &[]) else { return };
        made.call(&["unpack", "made", "bundle"]);
        let bundle = made.place.text("bundle");
        assert_eq!(fs::metadata(&bundle).unwrap().mode() & 0o7777, 0o700, "CVE-2021-41103");
        let spec: serde_json::Value = serde_json::from_str(&made.place.read("bundle/config.json")).unwrap();
        assert_eq!(spec["process"]["user"], json!({"uid": 7, "gid": 8, "additionalGids": [50]}));
        assert_eq!((&spec["process"]["cwd"], &spec["process"]["env"][0]), (&json!("/etc"), &json!("A=b")));
        // The same, of the file itself.
        made.call(&["unpack", "layout", "other"]);
        assert_eq!(made.place.read("other/config.json"), made.place.read("bundle/config.json"));
        assert_eq!(made.place.read("other/rootfs/etc/os"), "small\n");
        if who == Who::Root {
            for runtime in ["runc", "oci"] {
                let name = format!("image-test-{}-{runtime}", std::process::id());
                let mut command = if runtime == "runc" { Command::new("runc") } else { Command::new(made.place.binary()) };
                if runtime == "oci" {
                    command.arg("oci");
                }
                let done = command.args(["run", "-b", &bundle, &name]).output().unwrap();
                assert_eq!(text(&done.stdout), "ran in a bundle\n", "{runtime}: {}", text(&done.stderr));
            }
        } else {
            Run::new(who).args(["--bundle", &bundle]).done().expect_code(0).expect_out("ran in a bundle\n");
        }
    }

    fn what_is_run_is_not_removed(who: Who) {
        let Some(made) = Made::new(who, "what_is_run_is_not_removed", &json!({}), &[]) else { return };
        let run = made.run().arg("-i").cmd("echo up; read line; cat /etc/os");
        let mut command = run.command();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        // Neither waits for it, and both leave it what it runs on.
        made.call(&["image", "rm", "made"]);
        made.call(&["image", "prune"]);
        assert_eq!(made.trees().len(), 1);
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "small");
        assert!(child.wait().unwrap().success());
        let freed = made.call(&["image", "prune"]);
        assert!(made.trees().is_empty(), "{}", text(&freed.stdout));
    }
}
