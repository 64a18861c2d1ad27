//! What is done to a container that runs.

use super::Podman;
use crate::{
    both,
    common::{Who, host::eventually},
};

both! {
    fn manages_a_container_that_runs(who: Who) {
        let Some(podman) = Podman::new("podman manage", who) else { return };
        let call = |args: &[&str]| podman.call(args).ok();
        podman.begin("first", &[], "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.1; done");
        assert!(eventually(|| podman.call(&["logs", "first"]).out == "up\n"));
        assert_eq!(podman.call(&["exec", "first", "sh", "-c", "id -u; exit 5"]).code, 5);
        assert_eq!(podman.call(&["exec", "first", "nope"]).code, 127);
        assert_eq!(podman.call(&["exec", "first", "/etc/passwd"]).code, 126);
        assert_eq!(call(&["exec", "--user", "u", "--env", "A=b", "first", "sh", "-c", "id -u; echo $A"]), "1000\nb\n");
        assert_eq!(call(&["exec", "--tty", "first", "tty"]).trim().rsplit('/').nth(1), Some("pts"));
        assert!(call(&["top", "first"]).contains("while"));
        podman.place.write("copied", "text");
        call(&["cp", &podman.place.text("copied"), "first:/tmp/copied"]);
        assert_eq!(call(&["exec", "first", "cat", "/tmp/copied"]), "text");
        call(&["exec", "first", "sh", "-c", "echo back > /tmp/back"]);
        call(&["cp", "first:/tmp/back", &podman.place.text("back")]);
        assert_eq!(podman.place.read("back"), "back\n");
        assert!(call(&["diff", "first"]).contains("A /tmp/back"));
        call(&["stop", "first"]);
        assert_eq!(podman.field("first", "State.ExitCode"), "9");
        assert_eq!(call(&["logs", "--tail", "1", "first"]), "bye\n");
        call(&["start", "first"]);
        call(&["kill", "first"]);
        assert_eq!(call(&["wait", "first"]), "137\n");
        call(&["rm", "first"]);
    }

    /// An ordinary user's containers have no limits here, and are told so.
    fn holds_limits_and_tells_what_was_hit(who: Who) {
        let Some(podman) = Podman::new("podman limits", who) else { return };
        let memory = ["--memory", "32m", "--memory-swap", "32m", "--shm-size", "1g"];
        if who == Who::User {
            // Asks no runtime for them, and says so.
            let said = podman.run(&[&memory[..], &["box", "true"]].concat());
            if said.err.contains("not supported and ignored on cgroups V1 rootless systems") {
                return;
            }
        }
        let eat = "dd if=/dev/zero of=/dev/shm/x bs=1M count=200";
        let run = ["run", "--network", "none", "--name", "oom"];
        let said = podman.call(&[&run[..], &memory[..], &["box", "sh", "-c", eat]].concat());
        assert_eq!(said.code, 137, "{said:?}");
        let bomb = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done 2>&1; wait";
        let said = podman.run(&["--pids-limit", "4", "box", "sh", "-c", bomb]);
        assert!(said.err.contains("fork") || said.out.contains("fork"), "{said:?}");
        podman.begin("first", &["--memory", "128m"], "exec sleep 1000");
        podman.call(&["pause", "first"]).ok();
        assert_eq!(podman.field("first", "State.Status"), "paused");
        podman.call(&["unpause", "first"]).ok();
        podman.call(&["update", "--memory", "64m", "--cpus", "0.25", "first"]).ok();
        // It goes on telling the limit that it began with.
        let stats = podman.call(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDS}}", "first"]).ok();
        assert!(stats.contains(" / 134.2MB") && stats.trim().ends_with(" 1"), "{stats}");
        let files = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us \
                     /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max 2>/dev/null";
        let limits = podman.call(&["exec", "first", "sh", "-c", files]).out;
        assert!(limits.starts_with("67108864\n25000"), "{limits}");
    }
}
