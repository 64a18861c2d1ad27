//! A batch that is killed at any moment, and goes on: each job has one result in the end.

use std::{
    process::Stdio,
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    Batch, assert_nothing_left, both,
    common::{Who, host},
    echo, lines, read,
};

/// Some moment between now and then.
fn some_time(most: u64) -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    Duration::from_micros(u64::from(nanos) / 1000 % most)
}

fn kills() -> u32 {
    if std::env::var_os("FUMEHOOD_LONG").is_some() { 50 } else { 20 }
}

fn killed(who: Who, more: &[&str]) {
    let batch = Batch::new(who);
    let place = &batch.0.place;
    let mut rounds = 0;
    let mut pids = Vec::new();
    let mut kills = kills();
    while kills > 0 {
        rounds += 1;
        let jobs: Vec<Value> = (0..200)
            .map(|n| json!({"id": n, "cmd": format!("echo {n}; sleep 0.02"), "expect": {"stdout": format!("{n}\n")}}))
            .collect();
        place.write("jobs.jsonl", lines(&jobs));
        let out = format!("results-{rounds}.jsonl");
        let command = || {
            let mut command = batch.0.command();
            command.args(["jobs.jsonl", "-o", &out, "--resume", "-j", "4", "-q"]).args(more);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            command
        };
        loop {
            let mut child = command().spawn().unwrap();
            pids.push(child.id());
            if kills == 0 {
                let output = child.wait_with_output().unwrap();
                assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
                break;
            }
            std::thread::sleep(some_time(600_000));
            let over = child.try_wait().unwrap().is_some();
            _ = child.kill();
            let output = child.wait_with_output().unwrap();
            if over {
                assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
                break;
            }
            kills -= 1;
        }
        let mut results = read(&place.join(&out));
        results.sort_by_key(|result| result["line"].as_u64());
        assert_eq!(results.len(), jobs.len());
        for (n, result) in (0..).zip(&results) {
            assert_eq!((&result["line"], &result["id"]), (&json!(n + 1), &json!(n)));
            assert_eq!((&result["passed"], &result["stdout"]), (&json!(true), &json!(format!("{n}\n"))), "{result}");
        }
    }
    for pid in pids {
        let left = || host::left_of(&format!("b{pid}-"), place);
        assert!(host::eventually(|| left().is_empty()), "left of {pid}: {:#?}", left());
    }
    assert!(host::eventually(|| host::processes(&batch.0.name).is_empty()), "{:#?}", host::processes(&batch.0.name));
}

fn children(pid: u32) -> Vec<u32> {
    let all = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    all.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The cgroups that wait for a worker's next jobs.
fn kept_by(worker: u32) -> Vec<std::path::PathBuf> {
    let mut found = host::cgroups(&format!("-{worker}-"));
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kept-")));
    found
}

fn send(pid: u32, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
}

both! {
    fn nothing_is_left_when_who_makes_the_sandboxes_is_killed(who: Who) {
        for pool in ["auto", "off"] {
            let nap = format!("sleep 6{}{}", std::process::id(), u8::from(who == Who::Root));
            let jobs = [json!({"cmd": nap}), json!({"cmd": nap})];
            let batch = Batch::of(who, &jobs).args(["-q", "-j", "2", "--pool", pool, "-o", "out"]);
            let child = batch.start();
            let pid = child.id();
            assert!(host::eventually(|| host::processes(&nap.replace(' ', "\0")).len() >= 2));
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            for spawner in children.split_whitespace() {
                let spawner = nix::unistd::Pid::from_raw(spawner.parse().unwrap());
                nix::sys::signal::kill(spawner, nix::sys::signal::Signal::SIGKILL).unwrap();
            }
            let done = batch.0.wait_for(child);
            assert_ne!(done.code, 0, "--pool {pool}: {done}");
            assert_nothing_left(&done, pid);
        }
    }

    fn cgroups_that_wait_go_with_their_workers(who: Who) {
        if !(who.has_cgroup() && std::path::Path::new("/sys/fs/cgroup/memory").exists()) {
            return eprintln!("skipped: only cgroups of v1 are used again");
        }
        for victim in ["nobody", "a worker", "the spawner", "all"] {
            let jobs: Vec<_> = (0..if victim == "nobody" { 100 } else { 100_000 }).map(|_| json!({"cmd": ":"})).collect();
            let batch = Batch::of(who, &jobs).args(["-q", "-j", "2", "-o", "out"]);
            let mut child = batch.start();
            let spawner = || children(child.id()).first().copied().unwrap_or(0);
            assert!(host::eventually(|| children(spawner()).iter().any(|worker| !kept_by(*worker).is_empty())), "{victim}");
            let (pid, spawner) = (child.id(), spawner());
            let workers = children(spawner);
            match victim {
                "nobody" => {}
                "a worker" => send(*workers.iter().find(|worker| !kept_by(**worker).is_empty()).unwrap(), Signal::SIGKILL),
                "the spawner" => send(spawner, Signal::SIGKILL),
                _ => {
                    let all: Vec<_> = workers.iter().copied().chain([spawner, pid]).collect();
                    // None of them sees the others die.
                    all.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
                    all.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
                }
            }
            if victim == "a worker" {
                assert!(host::eventually(|| !children(spawner).contains(&workers[0]) || !children(spawner).contains(&workers[1])));
                send(pid, Signal::SIGINT);
            }
            _ = child.wait();
            if victim == "all" {
                assert!(workers.iter().any(|worker| !kept_by(*worker).is_empty()));
                // Whoever starts next finds them.
                Batch::of(who, &echo(1)).args(["-q", "-o", "out"]).done().expect_code(0);
            }
            let left = || workers.iter().flat_map(|worker| kept_by(*worker)).collect::<Vec<_>>();
            assert!(host::eventually(|| left().is_empty()), "{victim}: {:?}", left());
        }
    }

    fn no_job_is_lost_and_none_is_done_twice(who: Who) {
        killed(who, &[]);
    }

    fn nor_where_results_come_as_they_are(who: Who) {
        killed(who, &["--unordered"]);
    }

    fn a_torn_line_is_done_again(who: Who) {
        let done = Batch::of(who, &echo(6)).args(["-o", "out", "-q"]).done().expect_code(0);
        let whole = done.place().read("out");
        for cut in [1, 40, 2000] {
            done.place().write("out", &whole[..whole.len() - cut]);
            let output = done.run.command().arg("--resume").output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let results = read(&done.place().join("out"));
            assert_eq!(crate::all(&results, "line"), [1, 2, 3, 4, 5, 6]);
        }
    }

    fn other_jobs_are_not_gone_on_with(who: Who) {
        let done = Batch::of(who, &echo(4)).args(["-o", "out", "-q"]).done().expect_code(0);
        let whole = done.place().read("out");
        let first: String = whole.lines().take(2).map(|line| format!("{line}\n")).collect();
        for (name, jobs) in [("another job", lines(&echo(4)).replace("echo 1", "echo 9")), ("gone", lines(&echo(1)))] {
            done.place().write("out", &first);
            done.place().write("jobs.jsonl", jobs);
            let output = done.run.command().arg("--resume").output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(125), "{name}: {said}");
            assert!(said.contains("the jobs are not those of `out`: line 2"), "{name}: {said}");
            assert_eq!(done.place().read("out"), first, "nothing was written");
        }
        done.place().write("out", "{\"some\": \"thing\"}\n");
        let output = done.run.command().arg("--resume").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("no result of a batch, in line 1"), "{output:?}");
    }
}
