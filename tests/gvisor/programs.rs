//! Programs run, and are told to have ended, as they are on this host's kernel.

use std::os::unix::fs::MetadataExt;

use crate::{
    both,
    common::{LONGEST, Run, Who},
    gvisor,
    world::{ALLOWED, OTHER, World, sandbox},
};

both! {
    fn the_kernel_is_gvisors(who: Who) {
        let Some(run) = gvisor(who, "the_kernel_is_gvisors") else { return };
        let done = run.json_result().cmd("dmesg; cat /proc/version; uname -n; id -u").done().expect_code(0);
        let json = done.json();
        let out = json["stdout"].as_str().unwrap();
        assert!(out.contains("Starting gVisor") && out.ends_with("sandbox\n1000\n"), "{done}");
        assert_ne!(out.lines().find(|line| line.starts_with("Linux version")), None, "{done}");
        assert!(!out.contains(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_owned()));
        assert_eq!((json["isolation"].as_str(), json["controls"]["seccomp"].as_str()), (Some("gvisor"), Some("gvisor")));
        assert!(json["controls"]["landlock_abi"].is_null(), "{done}");
    }

    fn languages_run(who: Who) {
        for (runtime, code) in [
            ("python", "print('hello')"),
            ("node", "console.log('hello')"),
            ("bash", "echo hello"),
            // A step that compiles and one that runs.
            ("c", "#include <stdio.h>\nint main(void) { puts(\"hello\"); }"),
        ] {
            let Some(run) = gvisor(who, "languages_run") else { return };
            run.eval(runtime, code).done().expect_code(0).expect_out("hello\n");
        }
    }

    fn a_setup_and_a_compiler_come_before(who: Who) {
        let Some(run) = gvisor(who, "a_setup_and_a_compiler_come_before") else { return };
        let code = "#include <stdio.h>\n#include \"/sandbox/made.h\"\nint main(void) { puts(MADE); }";
        let setup = "echo '#define MADE \"at the setup\"' > /sandbox/made.h";
        run.args(["--setup", setup, "--setup-net", "none"]).eval("c", code).done().expect_code(0).expect_out("at the setup\n");
    }

    /// Each has a network stack of its own, which takes the address off the link when it starts.
    fn each_step_has_the_network(who: Who) {
        let Some(run) = gvisor(who, "each_step_has_the_network") else { return };
        let look = "cat /proc/net/route > /sandbox/first";
        let run = run.args(["--setup", look, "--setup-net", "open", "--net", "filtered", "-q"]);
        let done = run.cmd("cmp /sandbox/first /proc/net/route && grep -c ^eth0 /proc/net/route").done();
        done.expect_code(0).expect_out("2\n");
        let Some(run) = gvisor(who, "each_step_has_the_network") else { return };
        let code = "#include <stdlib.h>\nint main(void) { return system(\"grep -c ^eth0 /proc/net/route\"); }";
        run.args(["--allow", "example.com", "-q"]).eval("c", code).done().expect_code(0).expect_out("2\n");
    }

    /// runsc is told that it has registered for those that no platform but kvm uses: the program's are another matter.
    fn a_program_has_memory_barriers(who: Who) {
        let Some(run) = gvisor(who, "a_program_has_memory_barriers") else { return };
        // QUERY, of which there is GLOBAL and (REGISTER_)PRIVATE_EXPEDITED; and these.
        let code = "import ctypes, os\n\
                    call = {'x86_64': 324, 'aarch64': 283}[os.uname().machine]\n\
                    print(*(ctypes.CDLL(None).syscall(call, which, 0) for which in (0, 1, 16, 8)))";
        let done = run.python(code).done().expect_code(0);
        assert_eq!((done.out(), done.err()), ("31 0 0 0\n".into(), "".into()), "{done}");
    }

    fn an_end_is_told_exactly(who: Who) {
        for (line, verdict, code, signal) in [
            ("exit 3", "failed", Some(3), None),
            ("exit 128", "failed", Some(128), None),
            // Of which runsc's own exit status says the same.
            ("exit 137", "failed", Some(137), None),
            ("kill -9 $$", "signaled", None, Some(9)),
            ("kill -11 $$", "signaled", None, Some(11)),
        ] {
            let Some(run) = gvisor(who, "an_end_is_told_exactly") else { return };
            let done = run.json_result().cmd(line).done().expect_verdict(verdict);
            let json = done.json();
            assert_eq!((json["exit_code"].as_u64(), json["signal"].as_u64()), (code, signal), "{line}: {done}");
        }
    }

    fn a_program_that_is_not_there_is_told(who: Who) {
        for (program, code) in [("no-such-program", 127), ("/no/such/program", 127), ("/etc/passwd", 126)] {
            let Some(run) = gvisor(who, "a_program_that_is_not_there_is_told") else { return };
            run.program_args([program]).done().expect_code(code);
        }
        let Some(run) = gvisor(who, "a_program_that_is_not_there_is_told") else { return };
        run.args(["--workdir", "/nowhere"]).cmd("true").done().expect_error("no such directory inside the sandbox");
    }

    fn streams_are_the_programs(who: Who) {
        let Some(run) = gvisor(who, "streams_are_the_programs") else { return };
        let done = run.arg("-i").input("given").cmd("cat; echo said >&2").done().expect_code(0).expect_out("given");
        assert_eq!(done.err(), "said\n");
    }

    fn files_go_in_and_out(who: Who) {
        let Some(run) = gvisor(who, "files_go_in_and_out") else { return };
        let shared = run.place.mkdir("shared");
        let run = run.file("in.txt", "content").args(["--get", "out.txt", "--mount"]);
        let done = run
            .arg(format!("{}:/shared:rw", shared.display()))
            .cmd("cat in.txt > out.txt && echo more >> out.txt && echo kept > /shared/kept")
            .done()
            .expect_code(0);
        assert_eq!(done.place().read("out.txt"), "contentmore\n");
        assert_eq!(done.place().read("shared/kept"), "kept\n");
        assert_eq!(done.place().join("shared/kept").metadata().unwrap().uid(), who.uid(), "whose it is without gVisor");
    }

    /// On the host such a file would give its owner's rights to whoever runs it.
    fn no_set_id_file_is_made_on_the_host(who: Who) {
        let Some(run) = gvisor(who, "no_set_id_file_is_made_on_the_host") else { return };
        let shared = run.place.mkdir("shared");
        // gVisor does not tell the program that it was refused.
        let code = "import os\nfor name, mode in ('f', 0o4755), ('g', 0o2755):\n  open('/shared/' + name, 'w').close()\n  \
            try: os.chmod('/shared/' + name, mode)\n  except OSError: pass\n\
            try: os.open('/shared/made', os.O_CREAT | os.O_RDWR, 0o4755)\nexcept OSError: pass";
        let mount = format!("{}:/shared:rw", shared.display());
        let done = run.args(["--mount", &mount]).python(code).done().expect_code(0);
        let made: Vec<_> = std::fs::read_dir(done.place().join("shared")).unwrap().flatten().collect();
        assert!(made.len() >= 2, "{made:?}: {done}");
        for file in made {
            assert_eq!(file.metadata().unwrap().mode() & 0o6000, 0, "{file:?}: {done}");
        }
    }

    fn its_tree_has_nothing_of_runscs(who: Who) {
        let Some(run) = gvisor(who, "its_tree_has_nothing_of_runscs") else { return };
        let line = "find / -maxdepth 1; find / \\( -path /proc -o -path /usr -o -path /sys -o -path /opt -o -path /etc \\) -prune -o \
            \\( -name 'config.json' -o -name 'runsc*' \\) -print 2>/dev/null; for f in /etc/x /usr/x /x; do echo x > $f && echo wrote $f; done; true";
        let done = run.cmd(line).done().expect_code(0);
        let shown: Vec<_> = done.out().lines().map(str::to_owned).collect();
        assert!(shown.iter().any(|name| name == "/sandbox"), "{done}");
        let of_runsc = ["/bundle", "/log", "/rootfs", "/runsc"];
        let wrong = |name: &String| of_runsc.contains(&name.as_str()) || name.starts_with("wrote") || name.ends_with("config.json");
        assert!(!shown.iter().any(wrong), "{done}");
    }

    /// The setup leaves a link in place of a directory above what runsc mounts for the code.
    fn a_path_that_a_setup_has_moved_leads_nowhere(who: Who) {
        let Some(run) = gvisor(who, "a_path_that_a_setup_has_moved_leads_nowhere") else { return };
        for dir in ["bundle/rootfs/bin", "bundle/rootfs/a", "bundle/rootfs/run"] {
            run.place.mkdir(dir);
        }
        let busybox = run.place.join("bundle/rootfs/bin/busybox");
        crate::common::copy_program(std::path::Path::new("/usr/bin/busybox"), &busybox);
        for applet in ["sh", "mv", "ln", "ls"] {
            run.place.symlink("busybox", std::path::Path::new("bundle/rootfs/bin").join(applet));
        }
        let tmpfs = |path: &str, options: &[&str]| {
            serde_json::json!({ "destination": path, "type": "tmpfs", "source": "tmpfs", "options": options })
        };
        let config = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": ["/bin/sh", "-c", "ls /a; ls /run /a/b/log"], "env": ["PATH=/bin"],
                "cwd": "/", "user": { "uid": 0, "gid": 0 },
            },
            "root": { "path": "rootfs" },
            "mounts": [tmpfs("/a", &["mode=777"]), tmpfs("/a/b/run", &["noexec"])],
        });
        run.place.write("bundle/config.json", config.to_string());
        let (setup, bundle) = ("mv /a/b /a/z && ln -s / /a/b", run.place.text("bundle"));
        let done = run.args(["--bundle", &bundle, "--setup", setup, "--setup-net", "none"]).done();
        assert!(done.out().starts_with("b\nz\n"), "the setup did not do it: {done}");
        for own in [".state", "run.0", "boot.0"] {
            assert!(!done.out().contains(own), "{own} is runsc's: {done}");
        }
    }

    fn what_is_mounted_where_no_program_is_run_from_is_as_without_it(who: Who) {
        let Some(run) = gvisor(who, "what_is_mounted_where_no_program_is_run_from_is_as_without_it") else { return };
        run.place.write_executable("shared/tool", "#!/bin/sh\necho ran\n");
        let (tool, shared) = (run.place.text("shared/tool"), run.place.text("shared"));
        let run = run.args(["--mount", &format!("{tool}:/tmp/tool"), "--mount", &format!("{shared}:/tmp/dir")]);
        let line = "/tmp/tool; /tmp/dir/tool; cp /tmp/tool /tmp/copy; /tmp/copy || echo not; echo x > /tmp/dir/y || echo not";
        run.cmd(line).done().expect_code(0).expect_out("ran\nran\nnot\nnot\n");
    }

    fn what_may_not_be_executed_is_not(who: Who) {
        let Some(run) = gvisor(who, "what_may_not_be_executed_is_not") else { return };
        let line = "for d in /tmp /dev/shm /sandbox; do cp /bin/true $d/t && $d/t 2>/dev/null; echo $?; done";
        run.cmd(line).done().expect_code(0).expect_out("126\n126\n0\n");
    }

    fn a_directory_is_a_root(who: Who) {
        let Some(run) = gvisor(who, "a_directory_is_a_root") else { return };
        for dir in ["root/bin", "root/etc"] {
            run.place.mkdir(dir);
        }
        crate::common::copy_program(std::path::Path::new("/usr/bin/busybox"), &run.place.join("root/bin/sh"));
        run.place.write("root/etc/mark", "of the root");
        let root = run.place.text("root");
        let options = ["--rootfs", &root, "--writable", "--user", "0"];
        let line = "read -r mark < /etc/mark; echo $mark; echo x > /written && echo wrote";
        let done = run.args(options).program_args(["/bin/sh", "-c", line]).done().expect_code(0);
        assert_eq!(done.out(), "of the root\nwrote\n", "{done}");
        assert!(!done.place().join("root/written").exists());
    }

    fn an_image_is_a_root(who: Who) {
        let Some(run) = gvisor(who, "an_image_is_a_root") else { return };
        run.place.mkdir("root/bin");
        crate::common::copy_program(std::path::Path::new("/usr/bin/busybox"), &run.place.join("root/bin/sh"));
        let (root, tar, store) = (run.place.text("root"), run.place.text("root.tar"), run.place.text("store"));
        let mut pack = std::process::Command::new("tar");
        pack.args(["cf", &tar, "--owner=0", "--group=0", "-C", &root, "."]);
        assert!(pack.status().unwrap().success());
        let import = Run::verb(who, "image").args(["import", &tar, "--name", "small", "--store", &store]);
        import.done().expect_code(0);
        let run = run.args(["--image", "small", "--store", &store, "--user", "0"]);
        let line = "echo written > /file && read -r word < /file && echo $word";
        let done = run.program_args(["/bin/sh", "-c", line]).done().expect_code(0).expect_out("written\n");
        assert!(!done.place().join("root/file").exists());
    }

    fn without_a_network_there_is_none(who: Who) {
        let Some(run) = gvisor(who, "without_a_network_there_is_none") else { return };
        let code = "import socket\nfor to in ('127.0.0.1', 1), ('1.1.1.1', 80):\n  try: socket.create_connection(to, 5)\n  \
            except OSError as error: print(error.strerror)";
        let done = run.python(code).done().expect_code(0);
        let ways = ["Network is unreachable", "No route to host"];
        assert!(ways.iter().any(|way| done.out() == format!("Connection refused\n{way}\n")), "{done}");
    }

    fn what_gets_out_is_filtered(who: Who) {
        if gvisor(who, "what_gets_out_is_filtered").is_none() {
            return;
        }
        let Some(world) = World::new("what_gets_out_is_filtered") else { return };
        let line = format!(
            "curl -sS --max-time {0} http://{ALLOWED}/plain; curl -sS --max-time {0} http://{OTHER}/; echo $?; \
             curl -sS --max-time {0} http://93.184.215.15/ >/dev/null; echo $?",
            LONGEST.as_secs() / 4
        );
        let done = sandbox(who, &["--isolation", "gvisor", "--allow", ALLOWED], &line).done().expect_code(0);
        let json = done.json();
        let out = json["stdout"].as_str().unwrap();
        assert!(out.starts_with(&format!("/plain of {ALLOWED}\n6\n")), "{done}");
        assert_eq!(json["controls"]["network"], "filtered");
        let denials = json["denials"].as_array().unwrap();
        assert!(denials.iter().any(|denial| denial["target"] == OTHER), "{done}");
        assert!(world.reached().iter().all(|line| line == "ready" || line.starts_with("93.184.215.14 ")), "{:?}", world.reached());
    }

    fn a_secret_is_masked(who: Who) {
        let Some(run) = gvisor(who, "a_secret_is_masked") else { return };
        let run: Run = run.args(["--secret", "TOKEN=hunter22"]);
        run.cmd("echo $TOKEN").done().expect_code(0).expect_out("***\n");
    }
}
