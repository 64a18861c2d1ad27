//! One more process in a container that runs.

use std::{io::Write, process::Stdio};

use crate::both;
use serde_json::json;

use crate::{
    bundle::Container,
    common::{Who, host},
};

both! {
    fn it_is_in_the_container_and_has_its_own_status(who: Who) {
        let Some(container) = Container::new("exec", who) else { return };
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.start();
        let said = container.call_on("exec", &["sh", "-c", "hostname; cat /proc/1/cmdline | head -c 5; echo; exit 3"]);
        assert_eq!((said.code, said.out.as_str()), (3, "box\nsleep\n"), "{said:?}");
        let said = container.call_on("exec", &["nope"]);
        said.fails("executable file not found in $PATH");
        let command = container.command("exec", &["--cwd", "/tmp", "--env", "A=b", &container.id, "sh", "-c", "pwd; echo $A"]);
        assert_eq!(container.output(command).ok(), "/tmp\nb\n");
    }

    fn a_process_document_is_carried_out_detached(who: Who) {
        let Some(container) = Container::new("exec process", who) else { return };
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.start();
        let process = json!({
            "user": { "uid": 0, "gid": 0 }, "args": ["sh", "-c", "echo $B > /tmp/b; sleep 100"],
            "env": ["PATH=/bin", "B=c"], "cwd": "/",
        });
        let path = container.place.write("process.json", process.to_string());
        let pid_file = container.place.text("exec-pid");
        let command = container
            .command("exec", &["--process", path.to_str().unwrap(), "--detach", "--pid-file", &pid_file, &container.id]);
        container.output(command).ok();
        assert!(host::eventually(|| container.place.join("bundle/rootfs/tmp/b").exists()));
        let pid = container.place.read("exec-pid");
        let command_line = || std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        // The shell becomes its last command.
        assert!(host::eventually(|| command_line() == "sleep\x00100\x00"), "{}", command_line());
    }

    fn a_failed_exec_writes_no_pid_file(who: Who) {
        let Some(container) = Container::new("exec pid file", who) else { return };
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.start();
        let pid_file = container.place.text("exec-pid");
        let command = container.command("exec", &["--detach", "--pid-file", &pid_file, &container.id, "/nope"]);
        container.output(command).fails("no such file or directory");
        assert!(!std::fs::exists(&pid_file).unwrap());
    }

    fn it_is_on_the_processors_that_the_container_says_for_it(who: Who) {
        let Some(container) = Container::new("exec affinity", who) else { return };
        let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
        let first = (0..nix::sched::CpuSet::count()).find(|number| allowed.is_set(*number).unwrap()).unwrap();
        let container = container
            .set("/process/execCPUAffinity", json!({ "final": first.to_string() }))
            .args(&["sleep", "100"]);
        container.create();
        container.start();
        let process = json!({ "args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/",
            "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
        let path = container.place.write("process.json", process.to_string());
        let command = container.command("exec", &["--process", path.to_str().unwrap(), &container.id]);
        assert_eq!(container.output(command).ok(), format!("Cpus_allowed_list:\t{first}\n"));
    }

    fn it_does_not_get_into_a_container_that_has_stopped(who: Who) {
        let Some(container) = Container::new("exec stopped", who) else { return };
        container.create();
        container.start();
        container.becomes("stopped");
        container.call_on("exec", &["true"]).fails("stopped container");
    }
}

#[test]
fn a_document_that_can_be_read_once_is_read_once() {
    let Some(who) = Who::Root.find("exec once") else { return };
    let Some(container) = Container::new("exec once", who) else { return };
    let container = container.args(&["sleep", "100"]);
    container.create();
    container.start();
    let process = json!({ "args": ["echo", "once"], "env": ["PATH=/bin"], "cwd": "/", "user": { "uid": 0, "gid": 0 } });
    // The runtime starts itself again, with the pipe as it was left.
    let mut command = container.command("--debug", &["exec", "--process", "/dev/stdin", &container.id]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(process.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "once\n", "{said}");
    assert_eq!(said.matches("exec [").count(), 1, "{said}");
}
