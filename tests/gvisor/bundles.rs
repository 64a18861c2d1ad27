//! `--bundle`: a config.json of another's, on gVisor's kernel.

use std::{
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    both,
    common::{
        Place, Run, Who, copy_program,
        terminal::{OWN_SESSION, Session},
    },
    gvisor,
};

fn tool(who: Who, place: &Place, program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    command.args(args).current_dir(place.path()).env("HOME", place.path());
    if let Some((uid, gid)) = who.ids() {
        command.uid(uid).gid(gid);
    }
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}; scripts/test installs it"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A run of a bundle as umoci unpacks it, from an image with one file, a busybox. `change` has its config.json.
fn bundle(who: Who, test: &str, change: impl FnOnce(&mut Value)) -> Option<Run> {
    let run = gvisor(who, test)?;
    let place = &run.place;
    place.mkdir("made");
    copy_program(Path::new("/usr/bin/busybox"), &place.join("made/sh"));
    place.own(&place.join("made/sh"));
    let rootless: &[&str] = if who == Who::Root { &[] } else { &["--rootless"] };
    tool(who, place, "umoci", &["init", "--layout", "layout"]);
    tool(who, place, "umoci", &["new", "--image", "layout:x"]);
    tool(who, place, "umoci", &[&["insert"], rootless, &["--image", "layout:x", "made", "/bin"]].concat());
    let config = ["config", "--image", "layout:x", "--config.env", "GREETING=hello", "--config.workingdir", "/bin"];
    tool(who, place, "umoci", &config);
    tool(who, place, "umoci", &[&["unpack", "--image", "layout:x"], rootless, &["bundle"]].concat());
    // It makes it for root alone, and a sandbox of root's has ids that are nobody's.
    std::fs::set_permissions(place.join("bundle"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = place.join("bundle/config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    change(&mut spec);
    std::fs::write(&path, spec.to_string()).unwrap();
    let dir = place.text("bundle");
    Some(run.args(["--bundle", &dir]))
}

fn line(spec: &mut Value, line: &str) {
    spec["process"]["args"] = json!(["/bin/sh", "-c", line]);
}

both! {
    fn what_it_says_of_the_program_holds(who: Who) {
        let wanted = |spec: &mut Value| {
            line(spec, "echo $GREETING; pwd; id -u; ulimit -n; ulimit -c; hostname; echo x > /bin/x || echo ro; exit 5");
            spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 64 }]);
            spec["root"]["readonly"] = true.into();
            spec["hostname"] = "named".into();
        };
        let Some(run) = bundle(who, "what_it_says_of_the_program_holds", wanted) else { return };
        let done = run.done().expect_code(5);
        assert!(done.out().starts_with("hello\n/bin\n0\n") && done.out().ends_with("\nro\n"), "{done}");
        // What else it says means as much as without gVisor.
        let bundle = done.place().text("bundle");
        let native = Run::new(who).args(["--isolation", "native", "--bundle", &bundle]).done().expect_code(5);
        assert_eq!(done.out(), native.out());
    }

    fn its_mounts_are_there(who: Who) {
        let Some(run) = bundle(who, "its_mounts_are_there", |_| {}) else { return };
        run.place.write_executable("given/tool", "#!/bin/sh\necho ran\n");
        let (given, path) = (run.place.text("given"), run.place.join("bundle/config.json"));
        let mut spec: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        line(&mut spec, "/given/tool; echo x > /given/y || echo ro; echo y > /scratch/f && cat /scratch/f; \
            echo '/bin/sh' > /scratch/t; chmod +x /scratch/t; /scratch/t || echo noexec; test -c /dev/null && head -c 2 /dev/zero | wc -c; \
            echo $$ > /dev/shm/p && test -e /proc/self/stat && echo all");
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/given", "type": "bind", "source": given, "options": ["rbind", "ro"] }));
        mounts.push(json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["noexec", "mode=777"] }));
        std::fs::write(&path, spec.to_string()).unwrap();
        let done = run.done().expect_code(0);
        assert_eq!(done.out(), "ran\nro\ny\nnoexec\n2\nall\n", "{done}");
    }

    /// What an image's author writes there would set up gVisor itself.
    fn what_it_says_to_gvisor_is_not_heard(who: Who) {
        let wanted = |spec: &mut Value| {
            line(spec, "echo x > /written; echo $?");
            spec["root"]["readonly"] = true.into();
            spec["annotations"] = json!({
                "dev.gvisor.flag.debug": "true", "dev.gvisor.flag.overlay2": "all:memory", "dev.gvisor.flag.network": "host",
                "dev.gvisor.spec.rootfs.overlay": "memory", "dev.gvisor.internal.nvproxy": "true", "mine": "kept",
            });
        };
        let Some(run) = bundle(who, "what_it_says_to_gvisor_is_not_heard", wanted) else { return };
        run.done().expect_code(0).expect_out("1\n");
    }

    fn hooks_are_refused(who: Who) {
        let wanted = |spec: &mut Value| spec["hooks"] = json!({ "prestart": [{ "path": "/bin/true" }] });
        let Some(run) = bundle(who, "hooks_are_refused", wanted) else { return };
        run.done().expect_error("hooks");
    }

    fn it_can_have_a_terminal(who: Who) {
        let wanted = |spec: &mut Value| line(spec, "test -t 0 && test -t 1 && echo has-$((1+1))");
        let Some(run) = bundle(who, "it_can_have_a_terminal", wanted) else { return };
        let run = run.arg("-t").wrapped(OWN_SESSION);
        let mut session = Session::start(&run);
        session.expect("has-2");
        assert_eq!(session.end(), 0, "{}", session.text());
    }
}
