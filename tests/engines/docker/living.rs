//! What is done to a container that runs.

use super::{Docker, NO_BRIDGE};
use crate::common::host::eventually;

#[test]
fn manages_a_container_that_runs() {
    let Some(docker) = Docker::start("docker manage", &NO_BRIDGE) else { return };
    let call = |args: &[&str]| docker.call(args).ok();
    docker.begin("first", &[], "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.1; done");
    assert!(eventually(|| docker.call(&["logs", "first"]).out == "up\n"));
    assert_eq!(call(&["exec", "first", "sh", "-c", "echo $0; id -u; exit 0"]), "sh\n0\n");
    assert_eq!(call(&["exec", "--user", "u", "--env", "A=b", "first", "sh", "-c", "id -u; echo $A"]), "1000\nb\n");
    assert_eq!(docker.call(&["exec", "first", "sh", "-c", "exit 5"]).code, 5);
    // 126 or 127, as the years of dockerd go.
    let missing = docker.call(&["exec", "first", "nope"]);
    assert!(missing.code >= 126 && (missing.out + &missing.err).contains("executable file not found"));
    assert_eq!(docker.call(&["exec", "first", "/etc/passwd"]).code, 126);
    assert_eq!(call(&["exec", "--tty", "first", "tty"]).trim().rsplit('/').nth(1), Some("pts"));
    assert!(call(&["top", "first"]).contains("while"), "top");
    assert!(call(&["top", "first", "-o", "pid,comm"]).contains("sh"), "top with options");
    call(&["pause", "first"]);
    assert_eq!(docker.field("first", "State.Status"), "paused");
    docker.call(&["exec", "first", "true"]).fails("is paused");
    call(&["unpause", "first"]);
    docker.place.write("copied", "text");
    call(&["cp", &docker.place.text("copied"), "first:/tmp/copied"]);
    assert_eq!(call(&["exec", "first", "cat", "/tmp/copied"]), "text");
    call(&["exec", "first", "sh", "-c", "echo back > /tmp/back"]);
    call(&["cp", "first:/tmp/back", &docker.place.text("back")]);
    assert_eq!(docker.place.read("back"), "back\n");
    assert!(call(&["diff", "first"]).contains("A /tmp/back"));
    call(&["stop", "first"]);
    assert_eq!(docker.field("first", "State.ExitCode"), "9");
    assert_eq!(call(&["logs", "--tail", "1", "first"]), "bye\n");
    call(&["start", "first"]);
    call(&["kill", "first"]);
    docker.becomes("first", "State.ExitCode", "137");
    call(&["rm", "first"]);
}

#[test]
fn changes_and_counts_what_a_container_uses() {
    let Some(docker) = Docker::start("docker update", &NO_BRIDGE) else { return };
    let call = |args: &[&str]| docker.call(args).ok();
    docker.begin("first", &["--memory", "128m"], "exec sleep 1000");
    call(&["update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "7", "--cpus", "0.25", "first"]);
    let stats = call(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "first"]);
    assert!(stats.contains("64MiB") && stats.trim().ends_with(" 1"), "{stats}");
    let files = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us \
                 /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max 2>/dev/null | head -n2";
    let limits = docker.call(&["exec", "first", "sh", "-c", files]).out;
    assert!(limits.starts_with("7\n25000"), "{limits}");
    call(&["rm", "--force", "first"]);
}

#[test]
fn waits_for_and_attaches_to_a_container() {
    let Some(docker) = Docker::start("docker attach", &NO_BRIDGE) else { return };
    std::thread::scope(|scope| {
        docker.begin("first", &["--interactive"], "read line; echo got $line; exit 6");
        let wait = scope.spawn(|| docker.call(&["wait", "first"]).ok());
        let mut command = docker.command("sh", &["-c", "(echo something; docker wait first) | docker attach first"]);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "got something\n", "{output:?}");
        assert_eq!(wait.join().unwrap(), "6\n");
    });
    // Its whole life is told, with the status.
    let filter = ["events", "--since", "0", "--until", "0s", "--filter", "container=first", "--format", "{{.Status}}"];
    let mut events = String::new();
    assert!(
        eventually(|| {
            events = docker.call(&filter).ok();
            events.contains("die")
        }),
        "{events}"
    );
    assert!(["create", "attach", "start"].iter().all(|event| events.contains(event)), "{events}");
}
