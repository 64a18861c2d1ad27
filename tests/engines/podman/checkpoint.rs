//! Saved and brought back with a real criu.

use std::os::unix::fs::symlink;

use super::Podman;
use crate::common::{Who, criu, host::eventually};

/// Counts on where it was: under its own name, and under another from an exported image.
#[test]
fn saves_and_restores_a_container() {
    let test = "podman checkpoint";
    let (Some(who), Some(criu)) = (Who::Root.find(test), criu(test)) else { return };
    let Some(podman) = Podman::new(test, who) else { return };
    podman.place.mkdir("programs");
    symlink(criu, podman.place.join("programs/criu")).unwrap();
    let lines = |name: &str| -> Vec<u32> {
        let logs = podman.call(&["logs", name]).ok();
        logs.lines().map(|line| line.parse().unwrap()).collect()
    };
    let counted = |name: &str, least: usize| assert!(eventually(|| lines(name).len() >= least), "{name}");
    let in_a_row = |lines: &[u32]| assert!(lines.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{lines:?}");
    podman.begin("first", &[], "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done");
    counted("first", 3);
    podman.call(&["container", "checkpoint", "first"]).ok();
    assert_eq!(podman.field("first", "State.Status"), "exited");
    let before = lines("first").len();
    podman.call(&["container", "restore", "first"]).ok();
    counted("first", before + 3);
    in_a_row(&lines("first"));
    let archive = podman.place.text("saved.tar");
    podman.call(&["container", "checkpoint", "--export", &archive, "--compress", "none", "first"]).ok();
    let before = lines("first").len();
    podman.call(&["rm", "--force", "first"]).ok();
    podman.call(&["container", "restore", "--import", &archive, "--name", "second"]).ok();
    // What it had said comes along.
    counted("second", before + 3);
    in_a_row(&lines("second"));
    assert_eq!(podman.call(&["exec", "second", "hostname"]).code, 0);
}
