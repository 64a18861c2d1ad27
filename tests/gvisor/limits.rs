//! Limits hold for gVisor's processes and the program's together, and the verdict names the one that was hit.

use crate::{both, common::Who, gvisor};

both! {
    fn time_is_limited(who: Who) {
        let Some(run) = gvisor(who, "time_is_limited") else { return };
        let done = run.args(["--json", "--timeout", "5s"]).cmd("echo before; sleep 1000").done();
        let json = done.expect_code(124).expect_verdict("timeout").json();
        assert_eq!((json["stdout"].as_str(), json["exit_code"].as_u64()), (Some("before\n"), None), "{json}");
    }

    fn time_of_the_processor_is_limited(who: Who) {
        let Some(run) = gvisor(who, "time_of_the_processor_is_limited") else { return };
        let done = run.args(["--json", "--cpu-time", "2s"]).cmd("while :; do :; done").done();
        if who.has_cgroup() {
            done.expect_code(124).expect_verdict("cpu_timeout");
        } else {
            done.expect_code(125).expect_verdict("setup_error");
        }
    }

    fn output_is_limited(who: Who) {
        let Some(run) = gvisor(who, "output_is_limited") else { return };
        let done = run.args(["--json", "--max-output", "64k"]).cmd("yes").done().expect_verdict("output_limit");
        assert_eq!(done.json()["stdout"].as_str().map(str::len), Some(64 << 10));
    }

    fn the_disk_is_limited(who: Who) {
        for (option, path) in [("--sandbox-size", "/sandbox/x"), ("--tmp-size", "/tmp/x")] {
            let Some(run) = gvisor(who, "the_disk_is_limited") else { return };
            let line = format!("dd if=/dev/zero of={path} bs=64k count=64 2>/dev/null");
            run.args(["--json", option, "1m"]).cmd(&line).done().expect_verdict("disk_limit");
        }
    }

    fn memory_is_limited(who: Who) {
        let code = "x = bytearray(600 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint('had it')";
        let Some(run) = gvisor(who, "memory_is_limited") else { return };
        run.args(["--json", "--memory", "64m"]).python(code).done().expect_code(137).expect_verdict("oom");
    }

    /// gVisor ends as a whole, whoever of the program's processes took the memory.
    fn memory_is_of_all_processes_together(who: Who) {
        let code = "import os, time\nfor _ in range(4):\n  if os.fork() == 0:\n    x = bytearray(100 << 20)\n    \
            for i in range(0, len(x), 4096): x[i] = 1\n    time.sleep(1000)\ntime.sleep(1000)";
        let Some(run) = gvisor(who, "memory_is_of_all_processes_together") else { return };
        run.args(["--json", "--memory", "128m"]).python(code).done().expect_code(137).expect_verdict("oom");
    }

    /// A program that is ended by its own hand, or ends so, is none that a limit has ended.
    fn what_looks_like_a_limit_is_none(who: Who) {
        for (line, verdict) in [("kill -9 $$", "signaled"), ("exit 124", "failed"), ("exit 137", "failed")] {
            let Some(run) = gvisor(who, "what_looks_like_a_limit_is_none") else { return };
            run.json_result().cmd(line).done().expect_verdict(verdict);
        }
    }

    /// What is asked for is the program's: gVisor's own is on top.
    fn as_much_as_is_asked_for_is_had(who: Who) {
        let code = "x = bytearray(100 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint('had it')";
        let Some(run) = gvisor(who, "as_much_as_is_asked_for_is_had") else { return };
        run.args(["--memory", "128m"]).python(code).done().expect_code(0).expect_out("had it\n");
    }

    fn a_fork_bomb_ends_with_its_sandbox(who: Who) {
        let code = "import os, time\nwhile True:\n  try:\n    if os.fork() == 0: time.sleep(1000)\n  except OSError: break";
        let Some(run) = gvisor(who, "a_fork_bomb_ends_with_its_sandbox") else { return };
        // Whichever is first: gVisor takes memory and threads of this kernel for each.
        let done = run.args(["--json", "--memory", "4g", "--timeout", "60s"]).python(code).done();
        assert_eq!(done.json()["verdict"], "pids_limit", "{done}");
    }
}
