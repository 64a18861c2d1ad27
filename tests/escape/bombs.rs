//! Programs that take all there is. Each tries a bounded amount, many times what it may have, so that a sandbox that
//! fails the test does not take the machine with it.

use crate::{
    both,
    common::{Done, Run, Who},
};

fn number_after(done: &Done, word: &str) -> u64 {
    let json = done.json();
    let out = json["stdout"].as_str().unwrap();
    let mut words = out.split_whitespace().skip_while(|found| *found != word);
    words.nth(1).and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no `{word}`: {done}"))
}

pub fn memory_bomb(who: Who, kind: &str) -> Done {
    memory_bomb_as(who, "1000", kind)
}

pub fn memory_bomb_as(who: Who, user: &str, kind: &str) -> Done {
    // More than the limit by far, and less than the sizes of the file systems.
    let run = Run::new(who).args(["--user", user]).args([
        "--memory",
        "64m",
        "--sandbox-size",
        "1g",
        "--tmp-size",
        "1g",
        "--timeout",
        "20s",
        "--json",
    ]);
    run.probe().cmd(&format!("./probe memory {kind} 400; s=$?; sleep 3; exit $s")).done()
}

/// A cgroup ends it; where there is none, it must be ended, refused, or not get that much.
#[track_caller]
pub fn assert_held(who: Who, done: &Done) {
    let json = done.json();
    let refused = json["verdict"] == "setup_error" || !json["stdout"].as_str().unwrap().contains("filled");
    assert!(json["verdict"] == "oom" || refused && !who.has_cgroup(), "{done}");
}

both! {
    fn fork_bomb(who: Who) {
        let done = Run::new(who).args(["--pids-limit", "64", "--timeout", "20s", "--json"]).probe().cmd("./probe forks 600").done();
        assert!(number_after(&done, "forked") < 64, "{done}");
        assert_eq!(number_after(&done, "errno"), 11, "{done}");
    }

    /// Dying parents, so that no process is ever the parent of many.
    fn fork_bomb_of_orphans(who: Who) {
        let code = "import os, time\nfor _ in range(300):\n  try:\n    if os.fork() == 0:\n      try:\n        if os.fork() == 0: time.sleep(1000)\n\
            \x20     finally: os._exit(0)\n    os.wait()\n  except OSError: break\nprint('alive', len([p for p in os.listdir('/proc') if p.isdigit()]))";
        let done = Run::new(who).args(["--memory", "4g", "--pids-limit", "64", "--timeout", "50s", "--json"]).python(code).done();
        assert!((20..=64).contains(&number_after(&done, "alive")), "{done}");
    }

    /// A limit by user would count what this user has outside, and what other sandboxes have.
    fn the_pids_limit_is_of_the_sandbox_alone(who: Who) {
        let others: Vec<_> = (0..3).map(|_| {
            let run = Run::new(who).args(["--pids-limit", "40"]).probe().cmd("./probe forks 30; sleep 2");
            let command = run.command();
            std::thread::spawn(move || run.finish(command))
        }).collect();
        std::thread::sleep(std::time::Duration::from_millis(500));
        Run::new(who).args(["--pids-limit", "20", "--json"]).probe().cmd("./probe forks 10").done().expect_verdict("ok");
        others.into_iter().for_each(|other| other.join().unwrap().check_nothing_left());
    }

    fn memory_bomb_private(who: Who) {
        assert_held(who, &memory_bomb(who, "private"));
    }

    /// Memory of no process: files of a memfd.
    fn memory_bomb_memfd(who: Who) {
        assert_held(who, &memory_bomb(who, "memfd"));
    }

    /// Its descriptors cannot be listed then (prctl(2), PR_SET_DUMPABLE).
    fn memory_bomb_memfd_of_an_undumpable_process(who: Who) {
        let code = "import ctypes, os, time\nctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\nfd = os.memfd_create('x')\n\
            for _ in range(400): os.write(fd, b'x' * (1 << 20)); time.sleep(0.001)\ntime.sleep(3)\nprint('filled')";
        assert_held(who, &Run::new(who).args(["--memory", "64m", "--json"]).python(code).done());
    }

    /// What is left is a process whose first thread shows nothing.
    fn memory_bomb_of_a_thread_that_outlives_the_first(who: Who) {
        let code = "import ctypes, os, platform, threading, time\n\
            def fill():\n  time.sleep(0.2); x = b'x' * (400 << 20); time.sleep(3); os.write(1, b'filled'); os._exit(0)\n\
            threading.Thread(target=fill).start()\n\
            ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[platform.machine()], 0)";
        assert_held(who, &Run::new(who).args(["--memory", "64m", "--json"]).python(code).done());
    }

    fn memory_bomb_dev_shm(who: Who) {
        assert_held(who, &memory_bomb(who, "shm"));
    }

    fn memory_bomb_tmpfs_file(who: Who) {
        assert_held(who, &memory_bomb(who, "file"));
    }

    fn memory_bomb_system_v(who: Who) {
        assert_held(who, &memory_bomb(who, "sysv"));
    }

    /// Pages of pipes are the kernel's, and counted all the same; where no cgroup counts them, a user has 64 MiB of them
    /// (pipe(7), pipe-user-pages-soft) and one page for each pipe more.
    fn memory_bomb_pipes(who: Who) {
        let code = "import os, fcntl\nheld = 0\npipes = []\ntry:\n  while held < 400 << 20:\n    r, w = os.pipe()\n    pipes.append((r, w))\n\
            \x20   os.set_blocking(w, False)\n    try: fcntl.fcntl(w, 1031, 1 << 20)\n    except OSError: pass\n    try:\n      while True: held += os.write(w, b'x' * 65536)\n    except BlockingIOError: pass\n\
            except OSError as e: print('errno', e.errno)\nprint('held', held >> 20)";
        let done = Run::new(who).args(["--memory", "64m", "--json"]).python(code).done();
        assert!(done.json()["verdict"] == "oom" || number_after(&done, "held") <= 80, "{done}");
    }

    fn disk_bomb(who: Who) {
        for place in ["/sandbox", "/tmp", "/dev/shm"] {
            let line = format!("head -c 100m /dev/zero > {place}/big; stat -c 'size %s' {place}/big");
            let done = Run::new(who).args(["--sandbox-size", "8m", "--tmp-size", "8m", "--json"]).cmd(&line).done();
            assert!(number_after(&done, "size") <= 8 << 20, "{done}");
        }
    }

    fn inode_bomb(who: Who) {
        let code = "import os\nn = 0\nfor place in ('/sandbox', '/tmp', '/dev/shm', '/dev', '/'):\n  try:\n    for i in range(20000):\n      os.mkdir(f'{place}/d{i}'); n += 1\n\
            \x20 except OSError: pass\nprint('made', n)";
        let done = Run::new(who).args(["--sandbox-size", "8m", "--tmp-size", "8m", "--json"]).python(code).done();
        assert!(number_after(&done, "made") <= 3 * 2048, "{done}");
    }

    /// Deep trees and long names, which are walked when files are taken out.
    fn deep_tree(who: Who) {
        let code = "import os\ntry:\n  for _ in range(5000):\n    os.mkdir('d' * 200); os.chdir('d' * 200)\nexcept OSError: pass";
        let run = Run::new(who).args(["--get", "**/x:out/", "--timeout", "100s", "--json"]).python(code);
        let done = run.done();
        assert!([0, 125].contains(&done.code), "{done}");
    }

    fn output_flood_of_both_streams_in_binary(who: Who) {
        let line = "cat /dev/urandom & cat /dev/urandom >&2";
        let done = Run::new(who).args(["--max-output", "100k", "--json"]).cmd(line).done().expect_verdict("output_limit");
        let json = done.json();
        assert!(json["stdout_base64"].as_str().map_or(0, str::len) <= 140_000, "{}", done.code);
        assert!(json["stderr_base64"].as_str().map_or(0, str::len) <= 140_000, "{}", done.code);
        let done = Run::new(who).args(["--max-output", "100k"]).cmd(line).done().expect_code(137);
        assert!(done.stdout.len() <= 102_400 && done.stderr.len() < 102_400 + 1000, "{} {}", done.stdout.len(), done.stderr.len());
    }

    fn flood_of_refused_calls(who: Who) {
        let code = "import ctypes\nlibc = ctypes.CDLL(None)\nfor _ in range(20000): libc.ptrace(0, 0, 0, 0)\nprint('done')";
        let json = Run::new(who).args(["--timeout", "100s", "--json"]).python(code).done().expect_verdict("ok").json();
        assert_eq!(json["denials"].as_array().unwrap().len(), 1, "{json}");
        assert_eq!(json["denials"][0]["count"], 20_000, "{json}");
    }

    /// Calls that hang in the supervisor must not hang the end.
    fn flood_of_refused_calls_until_the_time_is_up(who: Who) {
        let code = "import ctypes, threading\nlibc = ctypes.CDLL(None)\ndef flood():\n  while True: libc.ptrace(0, 0, 0, 0)\n\
            for _ in range(8): threading.Thread(target=flood).start()";
        Run::new(who).args(["--timeout", "700ms"]).json_result().python(code).done().expect_verdict("timeout");
    }

    fn a_million_small_writes(who: Who) {
        let code = "import os\nfor _ in range(100000): os.write(1, b'x')";
        let done = Run::new(who).python(code).done().expect_code(0);
        assert_eq!(done.stdout.len(), 100_000);
    }
}
