//! Podman with `fumehood-gvisor` as one more runtime.

use super::Podman;
use crate::{box_image::install_gvisor, common::Who, common::host::eventually, common::skip, said::is_there};

fn start(test: &str, who: Who) -> Option<Podman> {
    if !is_there("runsc") {
        skip(test, "runsc is not installed: apt install runsc");
        return None;
    }
    let podman = Podman::new(test, who)?;
    install_gvisor(&podman.place, who, &["podman", "--config", &podman.place.text("containers.conf")]);
    Some(podman)
}

fn containers_run_on_gvisors_kernel(who: Who) {
    let Some(podman) = start("podman gvisor", who) else { return };
    let call = |args: &[&str]| podman.said(podman.command_with("fumehood-gvisor", args));
    let run = |args: &[&str]| call(&[&["run", "--rm", "--network", "none"], args].concat());
    assert_eq!(run(&["box", "grep", "-c", "2016", "/proc/version"]).ok(), "1\n");
    let said = run(&["box", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.code, said.out.as_str()), (7, "out\n"), "{said:?}");
    assert_eq!(run(&["--user", "1000:5", "box", "sh", "-c", "id -u; id -g"]).ok(), "1000\n5\n");
    podman.place.mkdir("shared");
    podman.place.write("shared/in", "hello");
    let volume = format!("{}:/v", podman.place.text("shared"));
    assert_eq!(run(&["-v", &volume, "box", "cat", "/v/in"]).ok(), "hello");
    assert_eq!(run(&["box", "nope"]).code, 127);
    assert_eq!(run(&["box", "/etc/passwd"]).code, 126);

    let line = "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.1; done";
    call(&["run", "--detach", "--network", "none", "--name", "live", "box", "sh", "-c", line]).ok();
    assert!(eventually(|| call(&["logs", "live"]).out.contains("up")));
    let said = call(&["exec", "live", "sh", "-c", "grep -c 2016 /proc/version; exit 3"]);
    assert_eq!((said.code, said.out.as_str()), (3, "1\n"), "{said:?}");
    call(&["stop", "live"]).ok();
    assert_eq!(podman.field("live", "State.ExitCode"), "4");
    call(&["rm", "live"]).ok();
}

#[test]
fn containers_run_on_gvisors_kernel_as_root() {
    containers_run_on_gvisors_kernel(Who::Root);
}

#[test]
fn containers_run_on_gvisors_kernel_as_user() {
    containers_run_on_gvisors_kernel(Who::User);
}
