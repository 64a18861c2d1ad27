//! Jobs of every kind at once, and for each the verdict that it has to have.

use serde_json::{Value, json};

use crate::{Batch, both, common::Who, read};

/// How many: all that the promise is about takes minutes where two CPUs run unoptimised code.
fn count() -> u64 {
    let given = std::env::var("FUMEHOOD_BATCH_JOBS").ok().and_then(|text| text.parse().ok());
    let long = std::env::var_os("FUMEHOOD_LONG").is_some();
    given.unwrap_or(if long { 10_000 } else { 480 })
}

/// What the n-th job is, and its verdict.
fn job(n: u64) -> (Value, &'static str) {
    let limits = json!({"memory": "48m", "disk": "1m", "output": "64k", "pids": 8, "timeout": "20s"});
    let (mut job, verdict) = match n % 12 {
        0 => (json!({"cmd": format!("echo {n}"), "expect": {"stdout": format!("{n}\n")}}), "ok"),
        1 => (json!({"cmd": "echo no >&2; exit 3", "expect": {"exit_code": 3, "stderr": "no\n"}}), "failed"),
        2 => (json!({"cmd": "kill -SEGV $$", "expect": {"verdict": "signaled"}}), "signaled"),
        3 => {
            let forks = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 9 & done; exit 1";
            (json!({"cmd": forks}), "pids_limit")
        }
        4 => (json!({"cmd": "sleep 100", "limits": {"timeout": 300}}), "timeout"),
        5 => (json!({"cmd": "yes"}), "output_limit"),
        6 => (json!({"cmd": "head -c 200000000 /dev/zero | tail"}), "oom"),
        7 => (json!({"cmd": "head -c 4000000 /dev/zero > full"}), "disk_limit"),
        8 => (json!({"cmd": "printf 'a\\377b'", "expect": {"stdout": {"base64": "Yf9i"}}}), "ok"),
        9 => (json!({"cmd": "wc -c", "stdin": "x".repeat(100_000), "expect": {"stdout": "100000\n"}}), "ok"),
        10 => (json!({"cmd": "while :; do :; done", "limits": {"cpu_time": "150ms"}}), "cpu_timeout"),
        _ => (json!({"code": "x", "runtime": "nonesuch"}), "setup_error"),
    };
    let mut all = limits;
    if let Some(own) = job["limits"].as_object() {
        own.iter().for_each(|(name, value)| all[name] = value.clone());
    }
    job["limits"] = all;
    job["id"] = json!(format!("job {n}"));
    job["metadata"] = json!({"n": n});
    (job, verdict)
}

fn mixed(who: Who, count: u64) {
    let cgroup = who.has_cgroup();
    let jobs: Vec<_> = (0..count).map(job).collect();
    let text: Vec<Value> = jobs.iter().map(|(job, _)| job.clone()).collect();
    let done = Batch::of(who, &text).args(["-o", "results.jsonl", "-j", "4", "--summary", "summary.json", "-q"]).done();
    let results = read(&done.place().join("results.jsonl"));
    assert_eq!(results.len(), jobs.len(), "{done}");
    for (n, (result, (job, verdict))) in (0..).zip(results.iter().zip(&jobs)) {
        assert_eq!((&result["id"], &result["metadata"]["n"], &result["line"]), (&job["id"], &json!(n), &json!(n + 1)));
        // Where no cgroup counts, forks that failed are known only if they are seen.
        let unseen = *verdict == "pids_limit" && !cgroup && result["verdict"] == "failed";
        assert!(result["verdict"] == *verdict || unseen, "not {verdict}: {result}");
        let passes = if job["expect"].is_null() { Value::Null } else { json!(true) };
        assert_eq!(result["passed"], passes, "{result}");
    }
    let summary: Value = serde_json::from_str(&done.place().read("summary.json")).unwrap();
    assert_eq!(summary["jobs"], count);
    for verdict in ["ok", "timeout", "oom", "setup_error"] {
        let wanted = jobs.iter().filter(|(_, other)| *other == verdict).count();
        assert_eq!(summary["verdicts"][verdict], wanted, "{summary}");
    }
    done.expect_code(1);
}

both! {
    fn every_kind_of_job_has_its_verdict(who: Who) {
        mixed(who, if who == Who::Root { count() } else { count() / 4 });
    }
}
