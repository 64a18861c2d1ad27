//! Other processes: the host's, the sandbox's own init, and fumehood itself.

use crate::{
    both,
    common::{Run, Who},
};

both! {
    fn other_processes_are_not_visible(who: Who) {
        let code = "import os\nprint(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()) == [os.getpid()], os.getppid())";
        let done = Run::new(who).python(code).done();
        // hidepid=2: not even the sandbox's own init is shown.
        assert_eq!(done.out(), "True 1\n", "{done}");
        let done = Run::new(who).args(["--user", "0"]).cmd("ps -e -o pid= | wc -l; cat /proc/1/cmdline /proc/1/environ | wc -c").done();
        let out = done.out();
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.last(), Some(&"0"), "{done}");
    }

    /// All that /proc/1 would give away: the launcher's memory, its root, its descriptors.
    fn cve_2016_9962_the_init_can_not_be_looked_into(who: Who) {
        let code = "import os\nfound = []\nfor name in ('exe', 'root', 'cwd', 'mem', 'environ', 'maps', 'fd', 'fdinfo', 'ns/mnt', 'auxv', 'task/1/mem', 'map_files', 'stack', 'syscall', 'cmdline', 'comm'):\n\
            \x20 path = '/proc/1/' + name\n\
            \x20 for look in (os.readlink, os.listdir, lambda p: open(p, 'rb').read(1) or 1/0, lambda p: open(p, 'wb')):\n\
            \x20   try: look(path); found.append(name)\n    except Exception: pass\nprint(found)";
        for user in ["1000", "0"] {
            let done = Run::new(who).args(["--user", user]).python(code).done();
            assert_eq!(done.out(), "[]\n", "{done}");
        }
    }

    /// The same while a second step is started and the init is at work.
    fn cve_2016_9962_while_programs_are_started(who: Who) {
        // What the compiler step leaves running is dead before the program runs.
        let code = "#include <unistd.h>\n#include <stdio.h>\n#include <fcntl.h>\nint main(void) { char p[64]; int seen = 0;\n\
            for (int pid = 1; pid < 400; pid++) { if (pid == getpid()) continue; snprintf(p, 64, \"/proc/%d/status\", pid); seen += access(p, F_OK) == 0; }\n\
            printf(\"%d\\n\", seen); }";
        Run::new(who).eval("c", code).done().expect_out("0\n");
    }

    fn ptrace_of_launcher_and_init(who: Who) {
        let code = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
            for request in (0x4206, 16):\n  for pid in (1, os.getppid(), os.getpid()):\n    if libc.ptrace(request, pid, 0, 0) == 0: print('traced', pid)\n\
            if libc.prctl(0x59616d61, -1, 0, 0, 0) == 0: pass\n\
            iov = (ctypes.c_char * 64)()\nif libc.process_vm_readv(1, ctypes.byref(iov), 1, ctypes.byref(iov), 1, 0) > 0: print('read')";
        for profile in ["default", "dev"] {
            let done = Run::new(who).args(["--user", "0", "--profile", profile]).python(code).done();
            assert!(!done.out().contains("read"), "{done}");
            assert!(!done.out().contains("traced 1"), "{done}");
        }
    }

    fn signals_to_all_and_to_the_init(who: Who) {
        // -1 is everything that can be seen, 1 the init, 0 the own group.
        let code = "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
            for pid in (1, -1, os.getppid()):\n  for s in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):\n    if pid == -1 and s != signal.SIGTERM: continue\n    try: os.kill(pid, s)\n    except OSError as e: pass\n\
            print('alive')";
        for user in ["1000", "0"] {
            Run::new(who).args(["--user", user]).python(code).done().expect_code(0).expect_out("alive\n");
        }
        // All of its own it may kill, and that is how it ends.
        let done = Run::new(who).json_result().cmd("sleep 1000 & kill -9 -1; echo alive").done();
        assert!(["ok", "signaled", "failed"].contains(&done.json()["verdict"].as_str().unwrap()), "{done}");
    }

    /// With the host's network there is a PID namespace all the same; Landlock's signal scope stands behind it.
    fn a_signal_by_number_hits_nobody_outside(who: Who) {
        use std::process::Command;
        let mut victim = Command::new("sleep").arg("1000").spawn().unwrap();
        let code = format!("import os\nfor pid in ({}, {}):\n  try: os.kill(pid, 9); print('hit', pid)\n  except OSError: pass", victim.id(), std::process::id());
        Run::new(who).args(["--user", "0", "--net", "host"]).python(&code).done().expect_out("");
        assert!(victim.try_wait().unwrap().is_none());
        victim.kill().unwrap();
        victim.wait().unwrap();
    }

    /// A name shown by `ps` on the host, and by fumehood's own, must not type into anybody's terminal.
    fn hostile_process_names(who: Who) {
        use std::{io::{BufRead, BufReader}, process::Stdio};
        let code = "import ctypes, time\nctypes.CDLL(None).prctl(15, b'a\\n\\x1b[31m) R 1', 0, 0, 0)\nprint('ready', flush=True)\ntime.sleep(1000)";
        let run = Run::new(who).python(code).program_args(["\x1b]0;title\x07", "new\nline", "\x1b[2J"]);
        let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let ps = Run::verb(who, "ps").env("XDG_RUNTIME_DIR", run.place.join("runtime-dir")).done().expect_code(0);
        assert!(ps.out().contains(&run.name) && !ps.out().contains('\x1b') && !ps.out().contains('\x07'), "{ps}");
        assert_eq!(ps.out().lines().filter(|line| line.starts_with("line")).count(), 0, "{ps}");
        let kill = Run::verb(who, "kill").arg(&run.name).env("XDG_RUNTIME_DIR", run.place.join("runtime-dir")).done().expect_code(0);
        drop(kill);
        let done = run.wait_for(child);
        done.check_nothing_left();
        assert_eq!(done.code, 137, "{done}");
    }

    fn the_priority_of_others_is_not_ours(who: Who) {
        let code = "import os\nfor which in (os.PRIO_USER, os.PRIO_PROCESS):\n  for value in (-20, -1):\n    try: os.setpriority(which, 0, value); print('raised', value)\n    except OSError: pass";
        Run::new(who).args(["--user", "0"]).python(code).done().expect_out("");
    }
}
