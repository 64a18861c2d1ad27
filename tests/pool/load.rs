//! When a batch makes sandboxes ahead, and when it does not: where a CPU or memory would be wanting for it.

use crate::common::{Run, Who};

/// Runs jobs that say whether their interpreter was started ahead of them; how many were.
fn booted(options: &[&str]) -> usize {
    // Long enough that another gets ready meanwhile, if it is to.
    let code = "import time; time.sleep(0.3); print(b'FUMEHOOD_BOOT' in open('/proc/self/environ', 'rb').read())";
    let jobs: String = (0..8)
        .map(|_| serde_json::json!({ "code": code, "runtime": "python", "limits": { "memory": "200m" } }))
        .map(|job| format!("{job}\n"))
        .collect();
    let run = Run::verb(Who::Root, "batch");
    run.place.write("jobs.jsonl", jobs);
    let done = run.args(["-q", "jobs.jsonl"]).args(options).done().expect_code(0);
    let results: Vec<serde_json::Value> =
        done.stdout.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(results.len(), 8, "{done}");
    let said: Vec<_> = results.iter().map(|result| result["stdout"].as_str().unwrap()).collect();
    assert!(said.iter().all(|said| ["True\n", "False\n"].contains(said)), "{done}");
    said.iter().filter(|said| **said == "True\n").count()
}

#[test]
fn nothing_is_made_ahead_where_a_cpu_or_memory_is_wanting() {
    const NAME: &str = "nothing_is_made_ahead_where_a_cpu_or_memory_is_wanting";
    if !nix::unistd::geteuid().is_root() {
        return crate::skip(NAME, "without a cgroup no interpreter is started ahead");
    }
    let cpus = std::thread::available_parallelism().unwrap().get();
    if cpus < 2 {
        return crate::skip(NAME, "there is no CPU to spare");
    }
    assert!(booted(&["-j", "1", "--max-memory", "1g"]) > 0);
    // The second would wait with as much as its job may have.
    assert_eq!(booted(&["-j", "1", "--max-memory", "399m"]), 0);
    assert_eq!(booted(&["-j", &cpus.to_string(), "--pool", "4", "--max-memory", "none"]), 0);
}
