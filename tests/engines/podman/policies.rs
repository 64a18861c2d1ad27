//! What podman looks after: whether a container is well, and that it is started again.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Podman;
use crate::{both, common::Who};

both! {
    /// By hand: what would do it again and again is a timer of systemd's.
    fn finds_out_whether_a_container_is_well(who: Who) {
        let Some(podman) = Podman::new("podman health", who) else { return };
        let health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "disable", "--health-retries", "1"];
        podman.begin("first", &health, "exec sleep 1000");
        assert_eq!(podman.call(&["healthcheck", "run", "first"]).code, 1);
        assert_eq!(podman.field("first", "State.Health.Status"), "unhealthy");
        podman.call(&["exec", "first", "touch", "/tmp/well"]).ok();
        podman.call(&["healthcheck", "run", "first"]).ok();
        assert_eq!(podman.field("first", "State.Health.Status"), "healthy");
    }

    fn starts_what_ended_again(who: Who) {
        let Some(podman) = Podman::new("podman restart", who) else { return };
        podman.begin("twice", &["--restart", "on-failure:2"], "echo again; exit 3");
        podman.begin("always", &["--restart", "always"], "exec sleep 1000");
        podman.becomes("twice", "RestartCount", "2");
        podman.becomes("twice", "State.Status", "exited");
        assert_eq!(podman.field("twice", "State.ExitCode"), "3");
        assert_eq!(podman.call(&["logs", "twice"]).ok(), "again\n".repeat(3));
        let pid = podman.field("always", "State.Pid");
        kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
        podman.becomes("always", "RestartCount", "1");
        podman.becomes("always", "State.Status", "running");
        assert_ne!(podman.field("always", "State.Pid"), pid);
    }
}
