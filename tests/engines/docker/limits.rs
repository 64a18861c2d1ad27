//! Limits, and who is told that one was hit.

use super::{Docker, NO_BRIDGE};

#[test]
fn holds_limits_and_tells_what_was_hit() {
    let Some(docker) = Docker::start("docker limits", &NO_BRIDGE) else { return };
    let eat = "dd if=/dev/zero of=/dev/shm/x bs=1M count=200";
    let memory = ["--memory", "32m", "--memory-swap", "32m", "--shm-size", "1g"];
    let said = docker.call(&[&["run", "--name", "oom"], &memory[..], &["box", "sh", "-c", eat]].concat());
    assert_eq!(said.code, 137, "{said:?}");
    assert_eq!(docker.field("oom", "State.OOMKilled"), "true");
    // And not of one that had enough.
    assert_eq!(docker.call(&["run", "--name", "calm", "--memory", "32m", "box", "true"]).code, 0);
    assert_eq!(docker.field("calm", "State.OOMKilled"), "false");
    let bomb = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done 2>&1; wait";
    let said = docker.run(&["--pids-limit", "4", "box", "sh", "-c", bomb]);
    assert!(said.err.contains("fork") || said.out.contains("fork"), "{said:?}");
    // Version 2 and version 1 have them in different places, and in different words.
    let read = |args: &[&str], files: &str| {
        let line = format!("cat {files} 2>/dev/null");
        docker.run(&[args, &["box", "sh", "-c", &line]].concat()).out
    };
    let cpu = read(&["--cpus", "0.5"], "/sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max");
    assert!(cpu.starts_with("50000"), "{cpu}");
    let cpus = read(&["--cpuset-cpus", "0"], "/sys/fs/cgroup/cpuset/cpuset.cpus /sys/fs/cgroup/cpuset.cpus");
    assert_eq!(cpus, "0\n");
    let refused = docker.run(&["--cpuset-cpus", "4000", "box", "true"]);
    assert_eq!(refused.code, 125, "{refused:?}");
}
