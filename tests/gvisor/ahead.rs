//! A batch with sandboxes made ahead gives the results that one without gives, and leaves nothing when it is killed.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    both,
    common::{
        Run, Who,
        host::{self, eventually},
    },
    gvisor,
    killed::{Process, descendants},
};

/// As many jobs, and each of the workers that a batch of one has knows what is wanted.
const BEFORE: usize = 4;

fn batch(who: Who, pool: &str) -> Run {
    let options = ["-q", "-j", "1", "--pool", pool, "--max-memory", "none", "--isolation", "gvisor"];
    Run::verb(who, "batch").args(options).args(["--secret", "KEY=s3cr3t-value", "--memory", "128m", "-"])
}

fn start(run: &Run) -> Child {
    run.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits for a sandbox that waits: of jobs that have their results none runs any more.
fn wait_for_one(batch: &Child) {
    let all = || descendants(batch.id());
    let found = eventually(|| all().iter().any(|one| one.name == "runsc-sandbox"));
    assert!(found, "none is made ahead: {:?}", all());
}

/// The name of its cgroup, which no other has; without cgroups, one that nobody has.
fn group(all: &[Process]) -> String {
    let init = all.iter().find(|one| one.name == "runsc").unwrap();
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", init.pid)).unwrap();
    let leaf = groups.lines().find_map(|line| line.split_once("/fumehood/").map(|(_, leaf)| leaf.trim_matches('/')));
    leaf.unwrap_or("none-of-these").to_owned()
}

/// What of the results does not depend on time, and what says whether it was made ahead.
fn results(who: Who, pool: &str, jobs: &[Value]) -> Vec<Value> {
    let run = batch(who, pool);
    let mut child = start(&run);
    let (mut to, mut from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
    let mut results = Vec::new();
    for (number, job) in jobs.iter().enumerate() {
        if pool != "off" && number >= BEFORE {
            wait_for_one(&child);
        }
        writeln!(to, "{job}").unwrap();
        let result: Value = serde_json::from_str(&from.next().unwrap().unwrap()).unwrap();
        let kept = ["verdict", "exit_code", "signal", "stdout", "stderr", "limits", "controls", "error", "failures"];
        results.push(Value::Object(kept.map(|key| (key.to_owned(), result[key].clone())).into_iter().collect()));
    }
    drop(to);
    child.wait().unwrap();
    results
}

both! {
    fn results_are_those_of_one_without(who: Who) {
        if gvisor(who, "results_are_those_of_one_without").is_none() { return }
        // Of all that follow, the sandbox is the same.
        let mut jobs = vec![json!({ "cmd": "true" }); BEFORE];
        jobs.extend([
            json!({ "cmd": "echo $0 $$ $KEY $V; cat; cat /sandbox/d/f; ls -A /tmp | cat", "stdin": "in\n", "env": { "V": "w" },
                    "files": { "/sandbox/d/f": "content\n" } }),
            json!({ "argv": ["sh", "-c", "echo out; echo err >&2; kill -9 $$"] }),
            json!({ "cmd": "sleep 1000", "limits": { "timeout": "1s" } }),
            json!({ "argv": ["no-such-program"], "stdin": "in" }),
            json!({ "cmd": "grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapEff|Seccomp)' /proc/self/status; cat /proc/mounts; pwd" }),
        ]);
        let (without, with) = (results(who, "off", &jobs), results(who, "1", &jobs));
        for ((one, other), job) in without.iter().zip(&with).zip(&jobs) {
            assert_eq!(one, other, "{job}");
        }
        let first = &with[BEFORE];
        assert_eq!(first["stdout"], "/bin/sh 1 *** w\nin\ncontent\n", "{first}");
        let verdicts: Vec<_> = with.iter().skip(BEFORE).map(|result| result["verdict"].as_str().unwrap()).collect();
        assert_eq!(verdicts, ["ok", "signaled", "timeout", "setup_error", "ok"]);
    }

    fn nothing_is_left_of_one_that_waits_when_any_is_killed(who: Who) {
        for victim in ["runsc-sandbox", "runsc-gofer", "runsc", "fumehood-init", "fumehood-worker", "fumehood-spawn", "batch"] {
            if gvisor(who, "nothing_is_left_of_one_that_waits_when_any_is_killed").is_none() { return }
            let run = batch(who, "1");
            let mut child = start(&run);
            let (mut to, mut from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
            for _ in 0..BEFORE {
                writeln!(to, "{}", json!({ "cmd": "true" })).unwrap();
                from.next().unwrap().unwrap();
            }
            wait_for_one(&child);
            let all = descendants(child.id());
            let group = group(&all);
            let pid = all.iter().find(|one| one.name == victim).map(|one| one.pid);
            let pid = if victim == "batch" { Some(child.id() as i32) } else { pid };
            kill(Pid::from_raw(pid.unwrap_or_else(|| panic!("no {victim}: {all:?}"))), Signal::SIGKILL).unwrap();
            let of_gvisor: Vec<&Process> = all.iter().filter(|one| one.name.starts_with("runsc")).collect();
            let gone = || of_gvisor.iter().all(|one| !one.lives());
            assert!(eventually(gone), "{victim}: {of_gvisor:?}");
            if !["batch", "fumehood-spawn"].contains(&victim) {
                // The next job has another.
                writeln!(to, "{}", json!({ "cmd": "echo next" })).unwrap();
                let result: Value = serde_json::from_str(&from.next().unwrap().unwrap()).unwrap();
                assert_eq!(result["stdout"], "next\n", "{victim}: {result}");
            }
            drop(to);
            child.wait().unwrap();
            assert!(eventually(|| all.iter().all(|one| !one.lives())), "{victim}: {all:?}");
            assert!(eventually(|| host::cgroups(&group).is_empty()), "{victim}: {:?}", host::cgroups(&group));
        }
    }
}
