//! Each limit holds, and the verdict says which one was hit.

use crate::{
    both,
    common::{Done, Run, Who},
};

/// What was asked for and can't be held is an error: without a cgroup, the CPU time of all processes together.
fn refused_without_cgroup(who: Who, flag: &str) -> bool {
    let plain = Run::new(who).args(["--json"]).cmd(":").done().expect_verdict("ok");
    let refused = plain.json()["controls"]["cgroup"] == "none";
    if refused {
        let done = Run::new(who).args([flag, "1s"]).cmd(":").done().expect_code(125);
        assert!(done.err().contains("cannot be held"), "{done}");
    }
    refused
}

fn memory(who: Who, kind: &str) -> Done {
    Run::new(who)
        .args(["--memory", "64m", "--json"])
        .probe()
        .cmd(&format!("./probe memory {kind} 300; echo after"))
        .done()
}

both! {
    fn wall_time(who: Who) {
        let done = Run::new(who).args(["--timeout", "300", "--json"]).cmd("sleep 1000").done().expect_code(124).expect_verdict("timeout");
        let json = done.json();
        let took = json["duration_ms"].as_f64().unwrap();
        assert!((300.0..30_000.0).contains(&took), "{json}");
        Run::new(who).args(["--timeout", "300", "--json"]).cmd("while :; do :; done").done().expect_verdict("timeout");
    }

    fn cpu_time(who: Who) {
        if refused_without_cgroup(who, "--cpu-time") {
            return;
        }
        let done = Run::new(who).args(["--cpu-time", "300ms", "--timeout", "100s", "--json"]);
        done.cmd("while :; do :; done").done().expect_code(124).expect_verdict("cpu_timeout");
    }

    fn cpu_time_of_children(who: Who) {
        if refused_without_cgroup(who, "--cpu-time") {
            return;
        }
        let line = "for i in 1 2 3; do (while :; do :; done) & done; wait";
        Run::new(who).args(["--cpu-time", "400ms", "--timeout", "100s", "--json"]).cmd(line).done().expect_verdict("cpu_timeout");
    }

    fn sleeping_costs_no_cpu_time(who: Who) {
        if refused_without_cgroup(who, "--cpu-time") {
            return;
        }
        // Far more of it than an emulated processor takes for a start.
        Run::new(who).args(["--cpu-time", "1500ms", "--json"]).cmd("sleep 2").done().expect_verdict("ok");
    }

    fn memory_of_one_process(who: Who) {
        let done = memory(who, "private").expect_code(137).expect_verdict("oom");
        assert!(!done.out().contains("filled"), "{done}");
    }

    fn memory_of_a_child_ends_the_whole_sandbox(who: Who) {
        let line = "(./probe memory private 300) & wait; echo survived; sleep 1000";
        // Not right away on cgroup v1, where the kernel kills one and the rest is killed from outside.
        Run::new(who).args(["--memory", "64m", "--json"]).probe().cmd(line).done().expect_code(137).expect_verdict("oom");
    }

    fn memory_of_many_processes_together(who: Who) {
        let line = "for i in 1 2 3 4 5 6; do ./probe memory private 25 & done; wait; echo survived";
        Run::new(who).args(["--memory", "64m", "--json"]).probe().cmd(line).done().expect_verdict("oom");
    }

    fn memory_within_the_limit(who: Who) {
        let done = Run::new(who).args(["--memory", "200m", "--json"]).probe().cmd("./probe memory private 100").done().expect_verdict("ok");
        let peak = done.json()["usage"]["peak_memory_bytes"].as_u64().unwrap();
        assert!((100 << 20..=200 << 20).contains(&peak), "{done}");
    }

    fn output_of_stdout(who: Who) {
        let done = Run::new(who).args(["--max-output", "10k", "--json"]).cmd("while echo 0123456789; do :; done").done();
        let done = done.expect_code(137).expect_verdict("output_limit");
        assert_eq!(done.json()["stdout"].as_str().unwrap().len(), 10_240, "{done}");
        assert_eq!(done.json()["stdout_truncated"], true);
        assert_eq!(done.json()["stderr_truncated"], false);
    }

    fn output_of_stderr(who: Who) {
        let done = Run::new(who).args(["--max-output", "10k", "--json"]).cmd("while echo 0123456789 >&2; do :; done").done();
        assert_eq!(done.expect_verdict("output_limit").json()["stderr_truncated"], true);
    }

    fn output_just_within_the_limit(who: Who) {
        let done = Run::new(who).args(["--max-output", "10k", "--json"]).cmd("head -c 10240 /dev/zero | tr '\\0' x").done();
        assert_eq!(done.expect_verdict("ok").json()["stdout_truncated"], false);
    }

    fn output_is_limited_without_json_too(who: Who) {
        let done = Run::new(who).args(["--max-output", "10k"]).cmd("while echo 0123456789; do :; done").done().expect_code(137);
        assert_eq!(done.stdout.len(), 10_240, "{}", done.err());
    }

    fn disk_by_bytes(who: Who) {
        let run = || Run::new(who).args(["--sandbox-size", "4m", "--tmp-size", "2m", "--json"]);
        run().cmd("head -c 10m /dev/zero > big").done().expect_verdict("disk_limit");
        run().cmd("head -c 10m /dev/zero > /tmp/big").done().expect_verdict("disk_limit");
        run().cmd("head -c 3m /dev/zero > big && head -c 1m /dev/zero > /tmp/big").done().expect_verdict("ok");
    }

    fn disk_by_inodes(who: Who) {
        let code = "i = 0\nwhile True:\n  open(f'f{i}', 'w').close()\n  i += 1";
        Run::new(who).args(["--sandbox-size", "4m", "--json"]).python(code).done().expect_verdict("disk_limit");
    }

    fn processes(who: Who) {
        let done = Run::new(who).args(["--pids-limit", "20", "--json"]).probe().cmd("./probe forks 200").done();
        let json = done.json();
        let out = json["stdout"].as_str().unwrap();
        let forked: u32 = out.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{done}"));
        assert!((10..20).contains(&forked) && out.ends_with("errno 11\n"), "{done}");
        // The probe fails for it.
        done.expect_verdict("pids_limit");
    }

    fn threads_count_as_processes(who: Who) {
        let code = "import threading, time\nn = 0\ntry:\n  for n in range(200): threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n\
            finally:\n  print(n, flush=True)\n  time.sleep(1)";
        let done = Run::new(who).args(["--pids-limit", "20", "--json"]).python(code).done().expect_verdict("pids_limit");
        assert!(done.json()["stdout"].as_str().unwrap().trim().parse::<u32>().unwrap() < 20, "{done}");
    }

    fn open_files(who: Who) {
        let code = "f = []\ntry:\n  while True: f.append(open('/dev/null'))\nexcept OSError as e: print(e.errno, len(f))";
        Run::new(who).args(["--nofile", "64"]).python(code).done().expect_out("24 61\n");
    }

    fn the_least_of_what_may_be_asked_for_is_given(who: Who) {
        for (flag, value) in [("--pids-limit", "1"), ("--nofile", "16"), ("--tmp-size", "1"), ("--sandbox-size", "1")] {
            Run::new(who).args([flag, value]).cmd("echo ran").done().expect_code(0).expect_out("ran\n");
        }
        Run::new(who).args(["--max-output", "1"]).cmd("printf x").done().expect_code(0).expect_out("x");
    }

    fn no_core_is_dumped(who: Who) {
        Run::new(who).cmd("ulimit -c; ulimit -Hc").done().expect_out("0\n0\n");
    }

    fn cpu_bandwidth(who: Who) {
        let done = Run::new(who).args(["--cpu", "0.2", "--timeout", "200s", "--json"]).cmd("n=0; while [ $n -lt 150000 ]; do n=$((n+1)); done").done();
        if who.has_cgroup() {
            let json = done.expect_verdict("ok").json();
            let (wall, cpu) = (json["duration_ms"].as_f64().unwrap(), json["usage"]["cpu_ms"].as_f64().unwrap());
            // A short burst passes; what takes longer is stretched.
            assert!(cpu < 60.0 || wall > cpu * 2.0, "{json}");
        } else {
            // What was asked for and can't be held is an error.
            let json = done.expect_code(125).expect_verdict("setup_error").json();
            assert!(json["error"]["message"].as_str().unwrap().contains("--cpu"), "{json}");
        }
    }

    fn a_forbidden_call_that_kills_is_denied(who: Who) {
        let run = Run::new(who);
        let filter = run.place.write(
            "filter.json",
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#,
        );
        let done = run.arg("--seccomp").arg(filter).json_result().python("import os; os.mkdir('d')").done();
        done.expect_code(128 + 31).expect_verdict("denied");
    }

    fn a_limit_met_and_survived_is_ok(who: Who) {
        Run::new(who).args(["--sandbox-size", "4m", "--json"]).cmd("head -c 10m /dev/zero > big; true").done().expect_verdict("ok");
    }

    fn compilers_have_limits_of_their_own(who: Who) {
        // Far less than a compiler takes.
        let code = "#include <stdio.h>\nint main() { puts(\"ran\"); }";
        Run::new(who).args(["--memory", "20m", "--json"]).eval("c", code).done().expect_verdict("ok");
    }
}
