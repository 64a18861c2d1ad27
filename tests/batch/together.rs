//! What all jobs may use together: held by a group around all of them, which goes with the batch.

use std::path::PathBuf;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    Batch, all, assert_nothing_left, both,
    common::{Done, Who, host},
    echo, parse,
};

/// The groups around all jobs of the batch that was this process.
pub fn around(pid: u32) -> Vec<PathBuf> {
    let mut found = host::cgroups(&format!("-{pid}-"));
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("batch-")));
    found
}

/// Fills so much memory with its own, and leaves what it has of the host's files aside.
fn fill(mib: u64, limit: &str, expect: &str) -> Value {
    let code = format!("x = b'x' * ({mib} << 20)\nprint(len(x) >> 20)");
    json!({"code": code, "runtime": "python", "limits": {"memory": limit}, "expect": {"verdict": expect}})
}

fn summary(done: &Done) -> Value {
    serde_json::from_str(&done.place().read("summary.json")).unwrap()
}

/// What a group's file says in v1 or v2 terms, in whichever tree has it.
fn read(groups: &[PathBuf], v1: &str, v2: &str) -> String {
    let files = groups.iter().flat_map(|group| [group.join(v1), group.join(v2)]);
    let text = files.filter_map(|file| std::fs::read_to_string(file).ok()).next();
    text.unwrap_or_else(|| panic!("no {v1} or {v2} in {groups:?}")).trim_end().to_owned()
}

both! {
    /// It is killed within its own limit, and that is neither its verdict alone nor what it expected.
    fn one_that_is_killed_for_all_of_them_is_told_so(who: Who) {
        if !who.has_cgroup() {
            return eprintln!("skipped: no cgroup holds all of them");
        }
        for pool in ["auto", "off"] {
            let jobs = [fill(200, "512m", "oom"), fill(200, "64m", "oom"), fill(8, "512m", "ok"), fill(200, "512m", "oom")];
            let options = ["-q", "--max-memory", "128m", "--pool", pool, "--summary", "summary.json"];
            let done = Batch::of(who, &jobs).args(options).done().expect_code(1);
            let results = parse(&done.out());
            assert_eq!(all(&results, "verdict"), ["oom", "oom", "ok", "oom"], "{done}");
            assert_eq!(all(&results, "passed"), [false, true, true, false], "{done}");
            for result in [&results[0], &results[3]] {
                let error = &result["error"];
                assert_eq!(error["kind"], "memory", "{result}");
                let said = error["message"].as_str().unwrap();
                assert!(said.contains("its own 512m") && said.contains("the 128m"), "{said}");
                assert!(error["hint"].as_str().unwrap().contains("--max-memory"), "{result}");
            }
            assert_eq!((&results[1]["error"], &results[2]["error"]), (&Value::Null, &Value::Null), "{done}");
            let together = json!({"jobs": 1, "memory_bytes": 128 << 20, "cpus": null, "controls": {"memory": "cgroup", "cpu": "none"}});
            assert_eq!(summary(&done)["together"], together);
        }
    }

    /// Each has its limit to itself: what is left of those before it takes nothing from it.
    fn limits_that_fill_all_there_is_are_whole(who: Who) {
        let mut jobs: Vec<_> = (0..12).map(|_| fill(60, "96m", "ok")).collect();
        jobs.push(fill(200, "96m", "oom"));
        let done = Batch::of(who, &jobs).args(["-q", "-j", "2", "--max-memory", "192m"]).done().expect_code(0);
        assert!(all(&parse(&done.out()), "error").iter().all(Value::is_null), "{done}");
    }

    fn one_group_is_around_all_of_them(who: Who) {
        if !who.has_cgroup() {
            return eprintln!("skipped: no cgroup holds all of them");
        }
        let jobs: Vec<_> = (0..3).map(|_| json!({"cmd": "exec sleep 54321"})).collect();
        let options = ["-q", "-j", "3", "--memory", "64m", "--max-memory", "256m", "--max-cpus", "0.5", "-o", "out"];
        let batch = Batch::of(who, &jobs).args(options);
        let child = batch.start();
        let pid = child.id();
        let leaves = || host::cgroups(&format!("b{pid}-"));
        // In each of the trees, if there are several.
        assert!(host::eventually(|| !around(pid).is_empty() && leaves().len() >= 3), "{:?}", leaves());
        let groups = around(pid);
        assert!(leaves().iter().all(|leaf| groups.iter().any(|group| leaf.parent() == Some(group))), "{:?}", leaves());
        // And an eighth at most for what may be left of others.
        let memory: u64 = read(&groups, "memory.limit_in_bytes", "memory.max").parse().unwrap();
        assert!((256 << 20..=(256 + 32) << 20).contains(&memory), "{memory}");
        assert_eq!(read(&groups, "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("50000"));
        for _ in 0..2 {
            kill(Pid::from_raw(pid as i32), Signal::SIGINT).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let done = batch.0.wait_for(child);
        assert_nothing_left(&done, pid);
    }

    fn it_goes_with_the_batch(who: Who) {
        if !who.has_cgroup() {
            return eprintln!("skipped: no cgroup holds all of them");
        }
        for all_of_them in [false, true] {
            let batch = Batch::of(who, &[json!({"cmd": "exec sleep 54321"})]).args(["-q", "-o", "out"]);
            let mut child = batch.start();
            let pid = child.id();
            assert!(host::eventually(|| !host::cgroups(&format!("b{pid}-")).is_empty()));
            let mut victims = vec![pid];
            if all_of_them {
                let mut at = 0;
                while at < victims.len() {
                    let parent = victims[at];
                    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
                    victims.extend(children.unwrap_or_default().split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
                    at += 1;
                }
                // None of them sees the others die.
                victims.iter().for_each(|pid| _ = kill(Pid::from_raw(*pid as i32), Signal::SIGSTOP));
            }
            victims.iter().for_each(|pid| _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL));
            _ = child.wait();
            if all_of_them {
                assert!(!around(pid).is_empty());
                // Whoever starts next finds it, if nobody has looked for it.
                Batch::of(who, &echo(1)).args(["-q", "-o", "out"]).done().expect_code(0);
            }
            assert!(host::eventually(|| around(pid).is_empty()), "{all_of_them}: {:?}", around(pid));
        }
    }

    fn as_many_at_once_as_there_is_memory_for(who: Who) {
        let jobs = echo(4);
        for (options, expected) in [
            (["--max-memory", "700m", "--memory", "512m"], 1),
            (["--max-memory", "700m", "--memory", "1m"], std::thread::available_parallelism().unwrap().get()),
            (["--max-memory", "none", "--memory", "8t"], std::thread::available_parallelism().unwrap().get()),
        ] {
            let options = options.iter().chain(&["-q", "--summary", "summary.json"]);
            let jobs: Vec<_> = jobs.iter().map(|job| {
                let mut job = job.clone();
                job["limits"] = json!({"memory": "64m"});
                job
            }).collect();
            let done = Batch::of(who, &jobs).args(options).done().expect_code(0);
            assert_eq!(summary(&done)["together"]["jobs"], expected, "{done}");
        }
    }

    /// Nothing is held in name alone.
    fn without_a_cgroup_it_is_an_error_or_told(who: Who) {
        if who.has_cgroup() {
            return;
        }
        let done = Batch::of(who, &echo(1)).args(["--max-cpus", "1"]).done();
        done.expect_error("--max-cpus cannot be held on this host").expect_hint();
        let jobs = [fill(8, "512m", "ok"), fill(8, "64m", "ok")];
        let done = Batch::of(who, &jobs).args(["--max-memory", "64m", "--summary", "summary.json"]).done().expect_code(1);
        let results = parse(&done.out());
        assert_eq!(all(&results, "verdict"), ["setup_error", "ok"], "{done}");
        assert!(results[0]["error"]["message"].as_str().unwrap().contains("--max-memory"), "{done}");
        assert!(done.err().contains("by each job's own limit"), "{done}");
        assert_eq!(summary(&done)["together"]["controls"], json!({"memory": "watched", "cpu": "none"}));
    }
}
