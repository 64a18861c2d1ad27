//! What a person can get wrong: each a line that says what, mostly one that says what to do, and nothing left behind.

use std::os::unix::{fs::PermissionsExt, net::UnixListener};

use crate::{
    both,
    common::{Run, Who, raw},
};

both! {
    fn unknown_runtimes(who: Who) {
        let done = Run::new(who).eval("pyhton", "1").done().expect_error("pyhton").expect_hint();
        assert!(done.err().contains("python"), "{done}");
        let done = Run::new(who).eval("cobol-85", "1").done().expect_error("cobol-85").expect_hint();
        assert!(done.err().contains("ruby") && done.err().contains("python"), "the list: {done}");
        let run = Run::new(who);
        let file = run.place.write("file.xyz", "?");
        run.arg(file).done().expect_error("file.xyz").expect_hint();
    }

    fn a_runtime_that_is_not_installed(who: Who) {
        for runtime in ["deno", "bun"] {
            if !std::path::Path::new("/usr/bin").join(runtime).exists() && !std::path::Path::new("/usr/local/bin").join(runtime).exists() {
                let done = Run::new(who).eval(runtime, "1").done().expect_error(runtime).expect_hint();
                assert!(done.err().contains("/usr"), "where it looked: {done}");
            }
        }
    }

    fn quantities(who: Who) {
        for (flag, values) in [
            ("--memory", &["", "x", "-1", "0", "1q", "99999999999999999999", "1e3", "nan", "9999999t"][..]),
            ("--cpu", &["", "x", "-1", "0", "inf"]),
            ("--pids-limit", &["", "x", "-1", "0", "1.5", "99999999999"]),
            ("--timeout", &["", "x", "-1", "0", "1y", "99999999999h"]),
            ("--cpu-time", &["", "x", "0"]),
            ("--max-output", &["", "x", "0", "-1"]),
            ("--sandbox-size", &["", "x", "0"]),
            ("--tmp-size", &["", "x", "0"]),
            ("--nofile", &["", "x", "0", "-1", "15", "99999999999"]),
            ("--user", &["", "x", "-1", "1:", ":1", "4294967296", "4294967295", "65536", "1:2:3"]),
        ] {
            for value in values {
                Run::new(who).arg(format!("{flag}={value}")).cmd("true").done().expect_error("");
            }
        }
    }

    fn no_limit_by_number(who: Who) {
        for flag in ["--memory", "--cpu", "--pids-limit", "--timeout", "--cpu-time", "--max-output", "--sandbox-size", "--tmp-size", "--nofile"] {
            for value in ["0", "-1"] {
                let done = Run::new(who).args([flag, value]).cmd("true").done();
                let done = done.expect_error(&format!("{flag}: `{value}` is too small: the least is ")).expect_hint();
                assert!(done.err().contains("no limit"), "what is meant by it elsewhere: {done}");
            }
        }
    }

    fn names(who: Who) {
        for name in ["", ".", "..", "../x", "a/b", "-x", "a b", &"x".repeat(200), "a\nb"] {
            let run = Run::verb(who, "run").named(name);
            // `check_nothing_left` would look for these very names.
            let command = run.command();
            let done = run.cmd("true").finish(command);
            done.expect_error("");
        }
    }

    fn options(who: Who) {
        Run::new(who).args(["--memroy", "1g"]).cmd("true").done().expect_error("memroy").expect_hint();
        Run::new(who).arg("--memory").done().expect_error("memory");
        Run::new(who).done().expect_error("");
        Run::new(who).args(["--net", "bridge"]).cmd("true").done().expect_error("bridge").expect_hint();
        Run::new(who).args(["--profile", "loose"]).cmd("true").done().expect_error("loose");
        Run::new(who).args(["--env", "=x"]).cmd("true").done().expect_error("");
        Run::new(who).args(["--secret", "NOT_SET_ANYWHERE"]).cmd("true").done().expect_error("NOT_SET_ANYWHERE").expect_hint();
        Run::new(who).args(["--secret", "EMPTY="]).cmd("true").done().expect_error("EMPTY");
        Run::new(who).args(["--image", "debian"]).cmd("true").done().expect_error("image");
        let done = Run::verb(who, "rnu").done();
        assert_eq!(done.code, 125, "{done}");
        assert!(done.err().contains("run"), "{done}");
    }

    fn host_names(who: Who) {
        let done = Run::new(who).args(["--hostname", &"h".repeat(65)]).cmd("true").done().expect_error("--hostname: ").expect_hint();
        assert!(done.err().contains("64 (HOST_NAME_MAX)"), "{done}");
        for bad in ["a/b", "a b", "a\n127.0.0.1 example.com", "é"] {
            let done = Run::new(who).args(["--hostname", bad]).cmd("true").done().expect_error("--hostname: ").expect_hint();
            assert!(!done.err().lines().next().unwrap().contains('\u{fffd}'), "what is wrong with it can be read: {done}");
        }
        let longest = "h".repeat(64);
        Run::new(who).args(["--hostname", &longest]).cmd("uname -n").done().expect_code(0).expect_out(&format!("{longest}\n"));
        // As docker has it: no name is the default one.
        Run::new(who).args(["--hostname", ""]).cmd("uname -n; grep -c sandbox /etc/hosts").done().expect_code(0).expect_out("sandbox\n1\n");
    }

    fn working_directories(who: Who) {
        for (dir, why) in [
            ("", "not an absolute path"), ("relative", "not an absolute path"), ("/a/../b", "not an absolute path"),
            ("/no/such/dir", "no such directory inside"), ("/root", "no such directory inside"),
            ("/etc/passwd", "no directory inside"),
        ] {
            let done = Run::new(who).args(["--workdir", dir]).cmd("true").done();
            done.expect_error(&format!("--workdir: `{dir}`")).expect_error(why).expect_hint();
        }
        // A bundle names it by another word.
        let run = Run::new(who);
        run.place.mkdir("rootfs");
        run.place.write("config.json", r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},
            "process":{"args":["x"],"cwd":"/missing","user":{"uid":1000,"gid":1000}}}"#);
        let dir = run.place.text("");
        run.args(["--bundle", &dir]).done().expect_error("process.cwd in config.json: `/missing`").expect_hint();
        // What brings it makes it one to start in.
        Run::new(who).args(["--workdir", "/sandbox/a"]).args(["--file", "/etc/passwd:a/b"]).cmd("pwd").done().expect_code(0).expect_out("/sandbox/a\n");
    }

    fn options_that_contradict_each_other(who: Who) {
        Run::new(who).args(["-e", "1", "--cmd", "true"]).done().expect_error("");
        Run::new(who).args(["--json", "--events"]).cmd("true").done().expect_code(125).expect_verdict("setup_error");
        Run::new(who).args(["--stdin", "x", "-i"]).cmd("true").done().expect_error("");
        Run::new(who).args(["--memory", "1g", "--memory", "2g"]).cmd("true").done().expect_error("memory");
        let run = Run::new(who);
        let dir = run.place.text("");
        run.args(["--bundle", &dir, "--rootfs", "/"]).cmd("true").done().expect_error("");
    }

    fn scripts_that_are_no_files(who: Who) {
        Run::new(who).arg("no-such-file.py").done().expect_error("no-such-file.py");
        let run = Run::new(who);
        run.place.mkdir("dir.py");
        run.arg("dir.py").done().expect_error("dir.py");
        let run = Run::new(who);
        nix::unistd::mkfifo(&run.place.join("fifo.py"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        run.place.own(&run.place.join("fifo.py"));
        run.arg("fifo.py").done().expect_error("fifo.py");
        let run = Run::new(who);
        let _socket = UnixListener::bind(run.place.join("socket.py")).unwrap();
        run.arg("socket.py").done().expect_error("socket.py");
        Run::new(who).args(["-r", "python", "/dev/zero"]).done().expect_error("/dev/zero");
        Run::new(who).args(["--file", "/dev/zero:x"]).cmd("true").done().expect_error("/dev/zero");
        Run::new(who).args(["--file", "/no/such/file"]).cmd("true").done().expect_error("/no/such/file");
        Run::new(who).args(["--dir", "/no/such/dir"]).cmd("true").done().expect_error("/no/such/dir");
    }

    fn a_script_that_may_not_be_read(who: Who) {
        if who == Who::User {
            let run = Run::new(who);
            let file = run.place.write("closed.py", "1");
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o0)).unwrap();
            run.arg("closed.py").done().expect_error("closed.py");
        }
    }

    fn scripts_of_odd_sizes(who: Who) {
        let run = Run::new(who);
        run.place.write("empty.py", "");
        run.arg("empty.py").done().expect_code(0).expect_out("");
        let run = Run::new(who);
        let huge = std::fs::File::create(run.place.join("huge.py")).unwrap();
        huge.set_len(1 << 30).unwrap();
        run.arg("huge.py").done().expect_error("huge.py").expect_hint();
        let run = Run::new(who);
        run.place.write("nul.py", "print(1)\0\n");
        let done = run.arg("nul.py").done();
        assert!([0, 1].contains(&done.code), "what becomes of a NUL is Python's to say: {done}");
    }

    fn names_that_are_no_text(who: Who) {
        let run = Run::new(who);
        run.place.write(std::path::Path::new(raw(b"\xff.py")), "print('ran')");
        let done = run.arg(raw(b"\xff.py")).done();
        assert!(done.code == 0 && done.out() == "ran\n" || done.code == 125, "{done}");
        for flag in ["--memory", "--runtime", "--hostname", "--user", "--net", "--profile", "--name"] {
            let done = Run::new(who).arg(flag).arg(raw(b"\xff\xfe")).cmd("true").done();
            done.expect_error("");
        }
        for flag in ["--mount", "--file", "--get", "--env", "--secret", "--workdir", "--rootfs", "--exclude", "--out", "--stdin"] {
            let done = Run::new(who).arg(flag).arg(raw(b"\xff\xfe")).cmd("true").done();
            assert!([0, 125].contains(&done.code), "{flag}: {done}");
        }
        let done = Run::new(who).arg(raw(b"--\xff")).cmd("true").done();
        done.expect_error("");
    }

    fn mounts(who: Who) {
        let run = Run::new(who);
        run.place.mkdir("real");
        let link = run.place.symlink("real", "link");
        let mount = format!("{}:/data", link.display());
        run.args(["--mount", &mount]).cmd("true").done().expect_error("symlink").expect_hint();
        for bad in ["/usr", "/usr:", "/usr:data", "/usr:/a/../b", "/usr:/", "/usr:/proc", "/usr:/proc/self", "/usr:/dev/x", "/usr:/x:rwx",
            "/no/such:/x", "/dev/null:/x", ":/x"] {
            Run::new(who).args(["--mount", bad]).cmd("true").done().expect_error("");
        }
        Run::new(who).args(["--exclude", "/no/such/path"]).cmd("true").done().expect_error("/no/such/path");
        Run::new(who).args(["--file", "/etc/passwd:/etc/passwd"]).cmd("true").done().expect_error("/etc/passwd");
        Run::new(who).args(["--file", "/etc/passwd:../x"]).cmd("true").done().expect_error("");
        Run::new(who).args(["--get", "../x"]).cmd("true").done().expect_error("");
    }

    fn roots(who: Who) {
        Run::new(who).args(["--rootfs", "/no/such/root"]).cmd("true").done().expect_error("/no/such/root");
        Run::new(who).args(["--rootfs", "/etc/passwd"]).cmd("true").done().expect_error("/etc/passwd");
        Run::new(who).args(["--bundle", "/no/such/bundle"]).done().expect_error("/no/such/bundle");
        for config in ["", "{", "[]", "{}", "\0", r#"{"ociVersion":"9.0"}"#] {
            let run = Run::new(who);
            run.place.write("config.json", config);
            let dir = run.place.text("");
            run.args(["--bundle", &dir]).done().expect_error("config.json");
        }
    }

    fn files_of_options(who: Who) {
        for flag in ["--seccomp", "--landlock", "--env-file"] {
            Run::new(who).args([flag, "/no/such/file"]).cmd("true").done().expect_error("/no/such/file");
        }
        for (flag, content) in [
            ("--seccomp", "{"), ("--seccomp", "{}"), ("--seccomp", r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#),
            ("--seccomp", r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["no_such_call_at_all"],"action":"SCMP_ACT_MAYBE"}]}"#),
            ("--landlock", "tpc = true"), ("--landlock", "[paths]\n\"a\" = \"r\""), ("--landlock", "minimum_abi = 99"),
            ("--env-file", "=x"),
        ] {
            let run = Run::new(who);
            let file = run.place.write("option-file", content);
            run.arg(flag).arg(file).cmd("true").done().expect_error("");
        }
    }

    /// Opening one waits for a writer that never comes.
    fn pipes_as_files_of_options(who: Who) {
        std::thread::scope(|scope| {
            for flag in ["--seccomp", "--landlock", "--env-file", "--file", "--mount"] {
                scope.spawn(move || {
                    let run = Run::new(who);
                    nix::unistd::mkfifo(&run.place.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
                    run.place.own(&run.place.join("fifo"));
                    let value = if flag == "--mount" { run.place.text("fifo:/x") } else { run.place.text("fifo") };
                    run.args([flag, &value]).cmd("true").done().expect_error("fifo");
                });
            }
        });
    }

    fn a_sandbox_in_a_sandbox(who: Who) {
        let run = Run::new(who);
        let binary = run.place.binary();
        let done = run.arg("--file").arg(binary).cmd("./fumehood run --cmd true; echo status $?").done();
        assert_eq!(done.out(), "status 125\n", "{done}");
        assert!(done.err().contains("error: "), "{done}");
    }

    fn too_many_arguments(who: Who) {
        // Together under the kernel's limit for fumehood, but one is over what execve takes for a single string: it
        // must come in another way than as an argument.
        let run = Run::new(who);
        let line = format!("A={}", "x".repeat(100_000));
        let file = run.place.write("vars", (0..40).map(|n| format!("V{n}{line}\n")).collect::<String>());
        let done = run.arg("--env-file").arg(file).json_result().cmd("true").done();
        assert!([125, 126].contains(&done.code), "{done}");
        assert!(done.json()["error"]["message"].as_str().is_some_and(|m| m.contains("too long")), "{done}");
    }

    fn an_output_file_that_can_not_be_made(who: Who) {
        Run::new(who).args(["--out", "/no/such/dir/file"]).cmd("true").done().expect_error("/no/such/dir/file");
    }

    fn a_state_directory_of_somebody_else(who: Who) {
        if who == Who::User && who.ids().is_some() {
            let run = Run::new(who);
            std::fs::create_dir(run.place.join("runtime-dir/fumehood")).unwrap();
            run.cmd("true").done().expect_error("runtime-dir/fumehood").expect_hint();
        }
    }
}
