//! `podman run`: programs, their streams and terminals, their status, and what they may.

use super::{Podman, ULIMITS};
use crate::{
    both,
    common::{Who, host::eventually, terminal::Session},
    docker::run::use_terminal,
};

both! {
    fn gives_a_program_what_was_asked_for(who: Who) {
        let Some(podman) = Podman::new("podman run", who) else { return };
        let said = podman.run(&["box", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "out\n", "err\n"));
        let run = |args: &[&str]| podman.run(args).ok();
        assert_eq!(run(&["--user", "1000:5", "box", "sh", "-c", "id -u; id -g; echo $HOME"]), "1000\n5\n/home/u\n");
        assert_eq!(run(&["--hostname", "h", "--env", "A=b", "box", "sh", "-c", "hostname; echo $A"]), "h\nb\n");
        assert_eq!(run(&["--tty", "box", "tty"]).trim(), "/dev/pts/0");
        assert_eq!(run(&["--init", "box", "head", "-n1", "/proc/1/status"]).trim(), "Name:\tpodman-init");
        assert_ne!(podman.run(&["--read-only", "box", "touch", "/x"]).code, 0);
        assert_eq!(run(&["--read-only", "--tmpfs", "/t", "box", "sh", "-c", "touch /t/x && echo ok"]), "ok\n");
        let shared = podman.place.mkdir("shared");
        podman.place.write("shared/in", "hello");
        let volume = format!("{}:/v", shared.display());
        assert_eq!(run(&["-v", &volume, "box", "sh", "-c", "cat /v/in; echo out > /v/out"]), "hello");
        assert_eq!(podman.place.read("shared/out"), "out\n");
        assert_ne!(podman.run(&["-v", &format!("{volume}:ro"), "box", "touch", "/v/x"]).code, 0);
        run(&["-v", "named:/n", "box", "sh", "-c", "echo kept > /n/x"]);
        assert_eq!(run(&["-v", "named:/n", "box", "cat", "/n/x"]), "kept\n");
        if who == Who::User {
            let own = run(&["--userns", "keep-id", "-v", &volume, "box", "sh", "-c", "id -u; stat -c %u /v/in"]);
            assert_eq!(own, format!("{0}\n{0}\n", who.uid()));
            let map = run(&["--userns", "nomap", "box", "cat", "/proc/self/uid_map"]);
            assert!(map.split_whitespace().next() == Some("0") && map.lines().count() == 1, "{map}");
        }
    }

    fn tells_by_the_status_who_failed(who: Who) {
        let Some(podman) = Podman::new("podman status", who) else { return };
        let code = |args: &[&str]| podman.run(args).code;
        assert_eq!(code(&["--bogus", "box"]), 125);
        assert_eq!(code(&["box", "/etc/passwd"]), 126);
        assert_eq!(code(&["box", "nope"]), 127);
        assert_eq!(code(&["box", "/bin/nope"]), 127);
        assert_eq!(code(&["--init", "box", "sh", "-c", "kill -KILL $$"]), 137);
        assert_eq!(code(&["box", "sh", "-c", "kill -KILL $$; exit 3"]), 3);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| code(&["--name", "killed", "box", "sleep", "1000"]));
            assert!(eventually(|| podman.call(&["kill", "killed"]).code == 0), "it never ran");
            assert_eq!(waiting.join().unwrap(), 137);
        });
    }

    fn gives_what_security_options_say_and_no_more(who: Who) {
        let Some(podman) = Podman::new("podman security", who) else { return };
        let run = |args: &[&str]| podman.run(args).ok();
        let status = |args: &[&str], field: &str| {
            run(&[args, &["box", "grep", field, "/proc/self/status"]].concat()).trim().to_owned()
        };
        assert_eq!(status(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], "CapBnd"), "CapBnd:\t0000000000001000");
        assert_eq!(status(&["--user", "u"], "CapEff"), "CapEff:\t0000000000000000");
        assert_eq!(status(&[], "^Seccomp:"), "Seccomp:\t2");
        assert_eq!(status(&["--security-opt", "seccomp=unconfined"], "^Seccomp:"), "Seccomp:\t0");
        assert_eq!(status(&["--security-opt", "no-new-privileges"], "NoNewPrivs"), "NoNewPrivs:\t1");
        assert_eq!(run(&["--sysctl", "kernel.shmmni=99", "box", "cat", "/proc/sys/kernel/shmmni"]), "99\n");
        let limits = run(&[&ULIMITS[..], &["--ulimit", "core=7:8", "box", "grep", "core", "/proc/self/limits"]].concat());
        assert_eq!(limits.split_whitespace().nth(4), Some("7"));
        let filter = r#"{ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }] }"#;
        let filter = format!("seccomp={}", podman.place.write("filter.json", filter).display());
        let said = podman.run(&["--security-opt", &filter, "box", "sh", "-c", "touch /tmp/x && mkdir /tmp/d"]);
        assert!(said.code == 1 && said.err.contains("Operation not supported"), "{said:?}");
        assert_eq!(run(&["--device", "/dev/zero:/dev/nil", "box", "sh", "-c", "head -c2 /dev/nil | wc -c"]), "2\n");
        assert_ne!(podman.run(&["--cap-add", "MKNOD", "box", "sh", "-c", "head -c1 /dev/mem"]).code, 0);
        assert_ne!(podman.run(&["box", "mount", "-t", "tmpfs", "none", "/tmp"]).code, 0);
        assert_ne!(podman.run(&["box", "sh", "-c", "echo 1 > /proc/sys/kernel/sysrq"]).code, 0);
    }

    fn gives_a_terminal_to_type_on(who: Who) {
        let Some(podman) = Podman::new("podman terminal", who) else { return };
        let run = ["run", "--rm", "-it", "--network", "none", "--name", "term", "box", "sh"];
        let mut session = Session::around(podman.command(&run));
        use_terminal(&mut session);
        let mut second = Session::around(podman.command(&["exec", "-it", "term", "sh"]));
        use_terminal(&mut second);
        second.type_in("exit 4\n");
        assert_eq!(second.end(), 4, "{}", second.text());
        session.type_in("exit 5\n");
        assert_eq!(session.end(), 5, "{}", session.text());
    }

    fn runs_fifty_at_once(who: Who) {
        let Some(podman) = Podman::new("podman fifty", who) else { return };
        let podman = &podman;
        std::thread::scope(|scope| {
            let run = move |n: u32| podman.run(&["box", "echo", &n.to_string()]).ok();
            let all: Vec<_> = (0..50).map(|n| (n, scope.spawn(move || run(n)))).collect();
            for (n, said) in all {
                assert_eq!(said.join().unwrap(), format!("{n}\n"));
            }
        });
    }
}
