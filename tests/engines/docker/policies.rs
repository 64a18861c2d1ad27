//! What dockerd does by itself: looks whether a container is well, and starts it again.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Docker, NO_BRIDGE};
use crate::common::host::eventually;

#[test]
fn finds_out_whether_a_container_is_well() {
    let Some(docker) = Docker::start("docker health", &NO_BRIDGE) else { return };
    let health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "100ms", "--health-retries", "2"];
    docker.begin("well", &health, ": > /tmp/well; exec sleep 1000");
    docker.begin("ill", &health, "exec sleep 1000");
    docker.becomes("well", "State.Health.Status", "healthy");
    docker.becomes("ill", "State.Health.Status", "unhealthy");
    // And it is looked at again and again.
    docker.call(&["exec", "ill", "touch", "/tmp/well"]).ok();
    docker.call(&["exec", "well", "rm", "/tmp/well"]).ok();
    docker.becomes("ill", "State.Health.Status", "healthy");
    docker.becomes("well", "State.Health.Status", "unhealthy");
}

#[test]
fn starts_what_ended_again() {
    let Some(mut docker) = Docker::start("docker restart", &NO_BRIDGE) else { return };
    docker.begin("twice", &["--restart", "on-failure:2"], "echo again; exit 3");
    docker.begin("once", &["--restart", "on-failure:2"], "exit 0");
    docker.begin("always", &["--restart", "always", "--stop-signal", "KILL"], "exec sleep 1000");
    docker.becomes("twice", "RestartCount", "2");
    docker.becomes("twice", "State.Status", "exited");
    assert_eq!(docker.field("twice", "State.ExitCode"), "3");
    assert_eq!(docker.call(&["logs", "twice"]).ok(), "again\n".repeat(3));
    docker.becomes("once", "State.Status", "exited");
    assert_eq!(docker.field("once", "RestartCount"), "0");
    let pid = docker.field("always", "State.Pid");
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    docker.becomes("always", "RestartCount", "1");
    docker.becomes("always", "State.Running", "true");
    assert_ne!(docker.field("always", "State.Pid"), pid);
    docker.call(&["restart", "--time", "0", "always"]).ok();
    docker.becomes("always", "State.Running", "true");
    // Also with the daemon.
    let pid = docker.field("always", "State.Pid");
    docker.restart();
    assert!(eventually(
        || docker.field("always", "State.Running") == "true" && docker.field("always", "State.Pid") != pid
    ));
}

/// Containers go on while there is no daemon, and are the next one's.
#[test]
fn leaves_containers_alive_without_a_daemon() {
    let Some(mut docker) = Docker::start("docker live-restore", &[&NO_BRIDGE[..], &["--live-restore"]].concat()) else {
        return;
    };
    docker.begin("first", &[], "exec sleep 1000");
    let pid = docker.field("first", "State.Pid");
    docker.restart();
    assert_eq!(
        (docker.field("first", "State.Pid"), docker.field("first", "State.Status")),
        (pid, "running".to_owned())
    );
    assert_eq!(docker.call(&["exec", "first", "echo", "in"]).ok(), "in\n");
    docker.call(&["kill", "first"]).ok();
    docker.becomes("first", "State.ExitCode", "137");
}
