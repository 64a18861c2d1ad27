//! Limits on a host whose whole cgroup tree is v2: what was asked for is in the kernel's files while it runs, the
//! kernel acts on it, and the verdict is the kernel's.

use std::{fs, io::Write, process::Command};

use fumehood::cgroup::Hierarchy;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    both,
    common::{
        Done, Run, Who,
        host::eventually,
        unified::{Group, Running, here},
    },
};

const LIMITS: [&str; 8] = ["--memory", "64m", "--pids-limit", "20", "--cpu", "0.5", "--timeout", "100s"];

#[track_caller]
fn assert_limits_are_in_force(leaf: &Group) {
    assert_eq!(leaf.read("memory.max"), (64 << 20).to_string());
    assert_eq!(leaf.read("memory.swap.max"), "0");
    assert_eq!(leaf.read("memory.oom.group"), "1");
    // The init is one of them.
    assert_eq!(leaf.read("pids.max"), "21");
    assert_eq!(leaf.read("cpu.max"), "50000 100000");
}

fn is_called(pid: i32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
}

fn systemctl(who: Who, program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    if who == Who::User {
        command.arg("--user");
    }
    let output = command.args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

both! {
    fn every_limit_is_in_the_kernel_while_it_runs(who: Who) {
        if !here("every_limit_is_in_the_kernel_while_it_runs", who) {
            return;
        }
        let running = Running::start(Run::new(who).args(LIMITS).json_result().cmd("cat /proc/self/cgroup; cat"));
        assert_limits_are_in_force(&running.leaf);
        assert_eq!(running.parent().0.file_name().unwrap(), "fumehood");
        // Below what caps the caller.
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = format!("/sys/fs/cgroup{}", own.trim_end().strip_prefix("0::").unwrap());
        let base = running.parent().0.parent().unwrap().to_owned();
        assert!(own.starts_with(base.to_str().unwrap()), "{own} is not below {}", base.display());

        let done = running.end().expect_code(0).expect_verdict("ok");
        let json = done.json();
        // It sees no group but its own.
        assert_eq!(json["stdout"], "0::/\n", "{done}");
        let controls = &json["controls"];
        assert_eq!((&controls["cgroup"], &controls["memory"], &controls["pids"], &controls["cpu"]),
            (&"v2".into(), &"cgroup".into(), &"cgroup".into(), &"cgroup".into()), "{done}");
        assert!(json["usage"]["peak_memory_bytes"].as_u64().is_some_and(|peak| (1 << 16..64 << 20).contains(&peak)), "{done}");
    }

    fn limits_that_nobody_asked_for_are_in_the_kernel_too(who: Who) {
        if !here("limits_that_nobody_asked_for_are_in_the_kernel_too", who) {
            return;
        }
        let running = Running::start(Run::new(who).json_result().cmd("cat"));
        let files = ["memory.max", "pids.max", "cpu.max"].map(|file| running.leaf.read(file));
        assert!(files.iter().all(|text| !text.starts_with("max")), "{files:?}");
        let limits = running.end().expect_verdict("ok").json()["limits"].clone();
        assert_eq!(files[0], limits["memory_bytes"].to_string(), "{limits}");
        assert_eq!(files[1], (limits["pids"].as_u64().unwrap() + 1).to_string(), "{limits}");
    }

    /// The supervisor is stopped meanwhile: it is the kernel that ends it.
    fn out_of_memory_by_the_kernels_own_count(who: Who) {
        if !here("out_of_memory_by_the_kernels_own_count", who) {
            return;
        }
        let run = Run::new(who).args(["--memory", "64m", "--json"]).probe();
        let mount = format!("{}:/gate", run.place.mkdir("gate").display());
        let line = "while [ ! -e /gate/open ]; do sleep 0.05; done; ./probe memory private 300 & wait; echo survived";
        let running = Running::start(run.args(["--mount", &mount]).cmd(line));
        let supervisor = Pid::from_raw(running.child.id() as i32);
        // Stopped before it has let the program begin, it would keep it from ever doing so.
        assert!(eventually(|| running.leaf.pids().iter().any(|&pid| is_called(pid, "sleep"))));
        kill(supervisor, Signal::SIGSTOP).unwrap();
        running.run.place.write("gate/open", "");
        let leaf = &running.leaf;
        assert!(eventually(|| leaf.count("memory.events", "oom_kill") > 0));
        // All of it, not the one process that asked for too much.
        assert!(eventually(|| leaf.pids().is_empty()), "{:?}", leaf.pids());
        assert_eq!(leaf.count("memory.events", "oom_group_kill"), 1);
        assert!(leaf.count("memory.events", "max") > 0);
        let peak = leaf.number("memory.peak");
        assert!((32 << 20..=64 << 20).contains(&peak), "{peak}");
        kill(supervisor, Signal::SIGCONT).unwrap();
        let done = running.end().expect_code(137).expect_verdict("oom");
        assert_eq!(done.json()["stdout"], "", "{done}");
        assert_eq!(done.json()["usage"]["peak_memory_bytes"], peak, "{done}");
    }

    fn refused_forks_by_the_kernels_own_count(who: Who) {
        if !here("refused_forks_by_the_kernels_own_count", who) {
            return;
        }
        let run = Run::new(who).args(["--pids-limit", "20", "--json"]).probe();
        let running = Running::start(run.cmd("./probe forks 200; status=$?; cat; exit $status"));
        let leaf = &running.leaf;
        assert!(eventually(|| leaf.count("pids.events", "max") > 0));
        assert_eq!((leaf.number("pids.max"), leaf.number("pids.peak")), (21, 21));
        assert_eq!(leaf.count("memory.events", "oom_kill"), 0);
        running.end().expect_verdict("pids_limit");
    }

    fn cpu_throttling_by_the_kernels_own_count(who: Who) {
        if !here("cpu_throttling_by_the_kernels_own_count", who) {
            return;
        }
        let running = Running::start(Run::new(who).args(["--cpu", "0.2", "--json"]).cmd("while :; do :; done & cat"));
        let leaf = &running.leaf;
        assert_eq!(leaf.read("cpu.max"), "20000 100000");
        assert!(eventually(|| leaf.count("cpu.stat", "nr_throttled") > 2), "{}", leaf.read("cpu.stat"));
        assert!(leaf.count("cpu.stat", "throttled_usec") > 0, "{}", leaf.read("cpu.stat"));
        let used = leaf.count("cpu.stat", "usage_usec");
        let done = running.end().expect_verdict("ok");
        assert!(done.json()["usage"]["cpu_ms"].as_f64().is_some_and(|cpu| cpu >= used as f64 / 1000.0), "{done}");
    }

    fn cpu_time_by_the_kernels_own_count(who: Who) {
        if !here("cpu_time_by_the_kernels_own_count", who) {
            return;
        }
        // Of many processes together, each below it.
        let line = "for i in 1 2 3 4; do while :; do :; done & done; cat";
        let run = Run::new(who).args(["--cpu-time", "2s", "--timeout", "100s", "--json"]);
        let running = Running::start(run.cmd(line));
        let mut seen = 0;
        assert!(eventually(|| {
            let stat = fs::read_to_string(running.leaf.0.join("cpu.stat")).unwrap_or_default();
            let used = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).and_then(|used| used.parse().ok());
            seen = used.unwrap_or(seen);
            used.is_none()
        }));
        assert!(seen > 1_000_000, "{seen}");
        running.end().expect_code(124).expect_verdict("cpu_timeout");
    }

    fn the_kernel_kills_a_whole_leaf_at_once(who: Who) {
        if !here("the_kernel_kills_a_whole_leaf_at_once", who) {
            return;
        }
        let line = "sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &) ; cat; echo survived";
        let running = Running::start(Run::new(who).json_result().cmd(line));
        assert!(eventually(|| running.leaf.pids().len() >= 6), "{:?}", running.leaf.pids());
        running.leaf.write("cgroup.kill", "1");
        let done = running.end().expect_code(137).expect_verdict("signaled");
        assert_eq!((&done.json()["stdout"], &done.json()["signal"]), (&"".into(), &9.into()), "{done}");
    }

    /// There is no moment in which the init is outside its limits.
    fn the_init_is_cloned_into_its_cgroup(who: Who) {
        if !here("the_init_is_cloned_into_its_cgroup", who) {
            return;
        }
        let run = Run::new(who);
        let trace = run.place.text("trace");
        let done = run.wrapped(["strace", "-e", "trace=clone3", "-o", &trace]).cmd("echo there").done().expect_out("there\n");
        let trace = done.place().read("trace");
        let clone = trace.lines().find(|line| line.contains("CLONE_NEWUSER")).unwrap_or_else(|| panic!("{trace}"));
        assert!(clone.contains("CLONE_INTO_CGROUP") && clone.contains("cgroup="), "{trace}");
        assert!(!clone.contains("= -1"), "{trace}");
    }

    /// The group of all sandboxes may lie in a slice of systemd's, which rewrites its own settings now and then.
    fn systemd_leaves_the_limits_alone(who: Who) {
        if !here("systemd_leaves_the_limits_alone", who) {
            return;
        }
        let running = Running::start(Run::new(who).args(LIMITS).cmd("cat"));
        systemctl(who, "systemctl", &["daemon-reload"]);
        systemctl(who, "systemd-run", &["--scope", "--quiet", "--collect", "true"]);
        let slice = running.parent().0.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        if slice.ends_with(".slice") {
            systemctl(who, "systemctl", &["set-property", "--runtime", &slice, "CPUWeight=90"]);
            systemctl(who, "systemctl", &["set-property", "--runtime", &slice, "CPUWeight="]);
        }
        assert_limits_are_in_force(&running.leaf);
        running.end().expect_code(0);
        Run::new(who).args(LIMITS).cmd(":").done().expect_code(0);
    }

    fn doctor_finds_v2(who: Who) {
        if !here("doctor_finds_v2", who) {
            return;
        }
        let out = Run::verb(who, "doctor").done().expect_code(0).out();
        let line = |name: &str| out.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{out}")).to_owned();
        assert!(line(" cgroup ").contains("v2, writable"), "{out}");
        assert!(line("clone-into-cgroup").contains("processes start inside their group"), "{out}");
    }

    /// Whatever each of them may have.
    fn the_cap_of_all_holds_for_twenty_at_once(who: Who) {
        if !here("the_cap_of_all_holds_for_twenty_at_once", who) {
            return;
        }
        let name = format!("unified::the_cap_of_all_holds_for_twenty_at_once::as_{}", if who == Who::Root { "root" } else { "user" });
        if in_a_slice_of_its_own(who, &name) {
            caps_of_all(who);
        }
    }
}

/// Runs the test again, alone in a slice, so that no other test's sandboxes are under its cap.
fn in_a_slice_of_its_own(who: Who, test: &str) -> bool {
    const INSIDE: &str = "FUMEHOOD_TEST_SLICE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("systemd-run");
    if who == Who::User {
        command.arg("--user");
    }
    let slice = format!("--slice=fumehoodtest{}", std::process::id());
    command.args(["--scope", "--quiet", "--collect", "-p", "Delegate=yes", &slice, "--"]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let output = command.env(INSIDE, "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    false
}

fn twenty(who: Who, with: impl Fn(Run) -> Run) -> Vec<Running> {
    Running::start_all((0..20).map(|_| with(Run::new(who).args(["--timeout", "100s", "--json"]))).collect())
}

/// Ends them all at once.
fn end_all(running: Vec<Running>) -> Vec<Done> {
    std::thread::scope(|scope| {
        let ends: Vec<_> = running.into_iter().map(|one| scope.spawn(|| one.end())).collect();
        ends.into_iter().map(|end| end.join().unwrap()).collect()
    })
}

/// How many ended with each of these verdicts; no other may be among them.
#[track_caller]
fn verdicts<const N: usize>(done: &[Done], known: [&str; N]) -> [usize; N] {
    let mut counts = [0; N];
    for one in done {
        let verdict = one.json()["verdict"].clone();
        let index = known.iter().position(|name| verdict == *name).unwrap_or_else(|| panic!("{one}"));
        counts[index] += 1;
    }
    counts
}

fn caps_of_all(who: Who) {
    // Each may have 64 MiB, and all together far less than twenty times that.
    let most: u64 = 160 << 20;
    let all =
        twenty(who, |run| run.args(["--memory", "64m"]).probe().cmd("read line; ./probe memory private 30 && cat"));
    let parent = all[0].parent();
    assert!(all.iter().all(|one| one.parent().0 == parent.0));
    parent.write("memory.max", &most.to_string());
    parent.write("memory.swap.max", "0");
    for one in &all {
        // It may be gone by the time that it is its turn.
        _ = one.child.stdin.as_ref().unwrap().write_all(b"go\n");
    }
    assert!(eventually(|| parent.count("memory.events", "oom_kill") > 0));
    let done = end_all(all);
    assert!(parent.number("memory.peak") <= most);
    // Those that were not killed have not noticed.
    let [killed, well] = verdicts(&done, ["oom", "ok"]);
    assert!(killed > 0 && well > 0, "{killed} killed, {well} well");
    // None of them had used up its own.
    for one in done.iter().map(Done::json).filter(|one| one["verdict"] == "oom") {
        assert_eq!(one["error"]["kind"], "memory", "{one}");
    }
    parent.write("memory.max", "max");

    // The shell itself starts nothing more: one that can't is at its end.
    let line = "read line; while :; do :; done & read line; exec ./probe forks 15";
    let all = twenty(who, |run| run.probe().cmd(line));
    let before = parent.count("cpu.stat", "nr_throttled");
    parent.write("cpu.max", "50000 100000");
    for one in &all {
        one.child.stdin.as_ref().unwrap().write_all(b"go\n").unwrap();
    }
    assert!(eventually(|| parent.count("cpu.stat", "nr_throttled") > before + 2), "{}", parent.read("cpu.stat"));

    parent.write("cpu.max", "max");
    parent.write("pids.max", "100");
    let done = end_all(all);
    // Before Linux 6.11 the kernel told those that met the cap, and now only the group that has it.
    let [well, failed, told] = verdicts(&done, ["ok", "failed", "pids_limit"]);
    assert!(failed + told > 0, "{well} well");
    assert!(parent.number("pids.peak") <= 100);
    assert!(parent.count("pids.events", "max") > 0);
    Hierarchy::detect().remove_parent();
    assert!(!parent.0.exists());
}

/// Who owns nothing of the tree has a sandbox all the same, and is told what holds its limits.
#[test]
fn a_user_without_delegation() {
    let Some(who) = Who::User.find("a_user_without_delegation") else { return };
    if !here("a_user_without_delegation", Who::Root) {
        return;
    }
    let done = Run::new(who).json_result().cmd("true").done().expect_verdict("ok");
    let controls = &done.json()["controls"];
    assert_eq!((&controls["cgroup"], &controls["memory"]), (&"none".into(), &"watched".into()), "{done}");
    let done = Run::new(who).args(["--cpu", "0.5"]).cmd(":").done().expect_error("--cpu").expect_hint();
    assert!(done.err().contains("not ours to change"), "{done}");
}
