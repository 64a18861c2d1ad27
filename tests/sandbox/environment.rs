//! Variables, secrets, identity, and what the program finds around it.

use crate::{
    both,
    common::{
        Run, Who,
        terminal::{OWN_SESSION, Session},
    },
};

both! {
    fn nothing_of_the_callers_environment_gets_in(who: Who) {
        let done = Run::new(who).env("CALLERS_OWN", "leak").cmd("env").done().expect_code(0);
        let out = done.out();
        let names: Vec<_> = out.lines().filter_map(|line| line.split('=').next()).collect();
        for name in &names {
            assert!(["PATH", "HOME", "USER", "LANG", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"].contains(name), "{name}: {done}");
        }
        assert!(names.contains(&"HOME") && out.contains("HOME=/sandbox\n"), "{done}");
    }

    fn variables_are_set(who: Who) {
        let done = Run::new(who).env("MINE", "from outside").args(["--env", "A=x=y z", "--env", "B=", "--env", "MINE"]);
        done.cmd("printf '%s|%s|%s' \"$A\" \"${B-unset}\" \"$MINE\"").done().expect_code(0).expect_out("x=y z||from outside");
    }

    fn variables_from_a_file(who: Who) {
        let run = Run::new(who);
        let file = run.place.write("vars", "# comment\nA=1\n\nB=two words\n");
        run.arg("--env-file").arg(file).args(["--env", "A=over"]).cmd("printf '%s|%s' \"$A\" \"$B\"").done().expect_out("over|two words");
    }

    fn a_secret_is_masked_in_every_stream(who: Who) {
        let run = Run::new(who).env("TOKEN", "hunter2-from-env").args(["--secret", "TOKEN", "--secret", "KEY=s3cr3t-given"]);
        let done = run.cmd("echo \"<$TOKEN>\"; echo \"<$KEY>\" >&2; [ ${#KEY} = 12 ] && echo length").done().expect_code(0);
        let (out, err) = (done.out(), done.err());
        assert!(!out.contains("hunter2") && !err.contains("s3cr3t"), "{done}");
        assert!(out.starts_with('<') && out.contains("length") && err.contains('<'), "{done}");
    }

    fn a_secret_split_over_writes_is_masked(who: Who) {
        let code = "import os, time, sys\n\
            for stream in (1, 2):\n  for byte in os.environ['KEY'].encode():\n    os.write(stream, bytes([byte]))\n    time.sleep(0.005)\n  os.write(stream, b'.\\n')";
        for json in [false, true] {
            let mut run = Run::new(who).args(["--secret", "KEY=abcabcabd"]).python(code);
            if json {
                run = run.json_result();
            }
            let done = run.done().expect_code(0);
            let all = done.out() + &done.err();
            assert!(!all.contains("abcabcabd") && !all.contains("abcabd"), "{done}");
        }
    }

    fn a_secret_is_masked_wherever_output_goes(who: Who) {
        let run = || Run::new(who).args(["--secret", "KEY=s3cr3t-given"]);
        let out = run();
        let file = out.place.text("out.txt");
        let done = out.args(["--out", &file]).cmd("echo \"<$KEY>\"").done().expect_code(0);
        assert!(!done.place().read("out.txt").contains("s3cr3t"), "{done}");
        let done = run().arg("--events").cmd("echo \"<$KEY>\"; echo \"<$KEY>\" >&2").done().expect_code(0);
        assert!(!done.out().contains("s3cr3t"), "{done}");
        let run = run().wrapped(OWN_SESSION).arg("-t").cmd("echo \"<$KEY>\"; echo end");
        let mut session = Session::start(&run);
        session.expect("end");
        session.end();
        assert!(!session.text().contains("s3cr3t"), "{}", session.text());
    }

    fn a_secret_shows_nowhere_on_the_host(who: Who) {
        let run = Run::new(who).env("TOKEN", "hunter2-from-env").args(["--secret", "TOKEN", "--json"]);
        let done = run.cmd("echo $TOKEN").done().expect_verdict("ok");
        assert!(!done.out().contains("hunter2"), "{done}");
        assert_eq!(done.json()["controls"]["secrets"], 1);
    }

    fn a_hostname_of_its_own(who: Who) {
        Run::new(who).cmd("uname -n").done().expect_out("sandbox\n");
        Run::new(who).args(["--hostname", "box1"]).cmd("uname -n; getent hosts box1 | wc -l").done().expect_out("box1\n1\n");
    }

    fn who_it_is(who: Who) {
        Run::new(who).cmd("id -u; id -g; id -un").done().expect_out("1000\n1000\nsandbox\n");
        Run::new(who).args(["--user", "0"]).cmd("id -u; id -g").done().expect_out("0\n0\n");
        Run::new(who).args(["--user", "7:8"]).cmd("id -u; id -g").done().expect_out("7\n8\n");
    }

    fn where_it_is(who: Who) {
        Run::new(who).cmd("pwd; touch here && ls").done().expect_out("/sandbox\nhere\n");
        Run::new(who).args(["--workdir", "/tmp"]).cmd("pwd; touch here && ls").done().expect_out("/tmp\nhere\n");
    }

    fn tmp_is_writable_and_not_executable(who: Who) {
        Run::new(who).cmd("cp /bin/true /tmp/t && /tmp/t || echo refused").done().expect_code(0).expect_out("refused\n");
        Run::new(who).cmd("cp /bin/true t && ./t && echo ran").done().expect_code(0).expect_out("ran\n");
    }

    fn there_is_a_loopback_and_nothing_else(who: Who) {
        let done = Run::new(who).cmd("ls /sys/class/net 2>/dev/null; cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' '").done();
        assert_eq!(done.out(), "lo\n", "{done}");
        let code = "import socket\ns = socket.create_server(('127.0.0.1', 0))\nc = socket.create_connection(s.getsockname())\nprint('met')\n\
            try: socket.create_connection(('192.0.2.1', 80), 2)\nexcept OSError as e: print(e.errno)";
        Run::new(who).python(code).done().expect_out("met\n101\n");
    }

    fn the_hosts_network_is_given_with_a_warning(who: Who) {
        use std::net::TcpListener;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let code = format!("import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('met')");
        let done = Run::new(who).args(["--net", "host"]).python(&code).done().expect_code(0).expect_out("met\n");
        assert!(!done.err().trim().is_empty(), "nothing is said of what is given up: {done}");
        let code = format!("import socket\ntry: socket.create_connection(('127.0.0.1', {port}), 5)\nexcept OSError as e: print(e.errno)");
        Run::new(who).python(&code).done().expect_out("111\n");
    }

    fn profiles_differ(who: Who) {
        let code = "import socket\ntry: socket.socket(); print('socket')\nexcept OSError as e: print(e.errno)";
        Run::new(who).python(code).done().expect_out("socket\n");
        Run::new(who).args(["--profile", "strict"]).python(code).done().expect_out("97\n");
        Run::new(who).args(["--profile", "dev"]).python(code).done().expect_out("socket\n");
        Run::new(who).args(["--profile", "strict"]).cmd("cp /bin/true t && ./t || echo refused").done().expect_out("refused\n");
    }

    fn a_filter_and_rules_of_the_callers(who: Who) {
        let run = Run::new(who);
        let filter = run.place.write(
            "filter.json",
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":77}]}"#,
        );
        let code = "import os\ntry: os.mkdir('d')\nexcept OSError as e: print(e.errno)";
        run.arg("--seccomp").arg(filter).python(code).done().expect_out("77\n");
        let run = Run::new(who);
        let rules = run.place.write("rules.toml", "[paths]\n\"/\" = \"rx\"\n\"/tmp\" = \"rw\"\n\"/dev\" = \"dev\"\n");
        run.arg("--landlock").arg(rules).cmd("touch /tmp/a && echo a; touch /sandbox/b || echo no").done().expect_out("a\nno\n");
    }
}
