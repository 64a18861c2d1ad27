//! What a container may do: what its options say, and no more.

use super::{Docker, NO_BRIDGE};
use crate::common::{Who, granted_ids};

#[test]
fn gives_what_security_options_say_and_no_more() {
    let Some(docker) = Docker::start("docker security", &NO_BRIDGE) else { return };
    let run = |args: &[&str]| docker.run(args).ok();
    let status = |args: &[&str], field: &str| {
        run(&[args, &["box", "grep", field, "/proc/self/status"]].concat()).trim().to_owned()
    };
    assert_eq!(status(&[], "CapBnd"), "CapBnd:\t00000000a80425fb");
    assert_eq!(status(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], "CapBnd"), "CapBnd:\t0000000000001000");
    assert_eq!(status(&["--user", "u"], "CapEff"), "CapEff:\t0000000000000000");
    assert_eq!(status(&[], "^Seccomp:"), "Seccomp:\t2");
    assert_eq!(status(&["--security-opt", "seccomp=unconfined"], "^Seccomp:"), "Seccomp:\t0");
    assert_eq!(status(&[], "NoNewPrivs"), "NoNewPrivs:\t0");
    assert_eq!(status(&["--security-opt", "no-new-privileges"], "NoNewPrivs"), "NoNewPrivs:\t1");
    assert_eq!(run(&["--sysctl", "kernel.shmmni=99", "box", "cat", "/proc/sys/kernel/shmmni"]), "99\n");
    assert_eq!(
        run(&["--ulimit", "core=7:8", "box", "grep", "core", "/proc/self/limits"]).split_whitespace().nth(4),
        Some("7")
    );
    // A filter of one's own.
    let filter = r#"{ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }] }"#;
    let filter = format!("seccomp={}", docker.place.write("filter.json", filter).display());
    let said = docker.run(&["--security-opt", &filter, "box", "sh", "-c", "touch /tmp/x && mkdir /tmp/d"]);
    assert!(said.code == 1 && said.err.contains("Operation not supported"), "{said:?}");
    // Devices, and what may be done with them.
    assert_eq!(run(&["--device", "/dev/zero:/dev/nil", "box", "sh", "-c", "head -c2 /dev/nil | wc -c"]), "2\n");
    let open = |how: &str| {
        let device = format!("/dev/kmsg:/dev/log0:{how}");
        docker.run(&["--device", &device, "box", "sh", "-c", ": > /dev/log0"]).code
    };
    assert_eq!((open("rw"), open("r")), (0, 1));
    // Not there for the container, unless it is given.
    assert_ne!(docker.run(&["--cap-add", "MKNOD", "box", "sh", "-c", "head -c1 /dev/mem"]).code, 0);
    assert_ne!(docker.shell("mount -t tmpfs none /tmp").code, 0);
    assert_ne!(docker.shell("echo 1 > /proc/sys/kernel/sysrq").code, 0);
}

/// Root inside is one of the ids that were granted, for all containers of the daemon.
#[test]
fn maps_ids_for_the_whole_daemon() {
    let Some(ids) = granted_ids(Who::User, "docker userns-remap") else { return };
    let user = crate::common::USER;
    let remap = format!("--userns-remap={user}");
    let Some(docker) = Docker::start("docker userns-remap", &[&NO_BRIDGE[..], &[&remap]].concat()) else { return };
    let map = docker.run(&["box", "cat", "/proc/self/uid_map"]).ok();
    assert_eq!(map.split_whitespace().nth(1), Some(ids[0].0.to_string().as_str()), "{map}");
    assert_eq!(docker.run(&["--user", "u", "box", "sh", "-c", "id -u; stat -c %u /etc"]).ok(), "1000\n0\n");
    assert_eq!(
        docker.run(&["--hostname", "h", "--tty", "box", "sh", "-c", "hostname; tty"]).ok(),
        "h\r\n/dev/pts/0\r\n"
    );
    docker.begin("first", &["--memory", "64m"], "echo up; exec sleep 1000");
    let uid = docker.call(&["exec", "first", "sh", "-c", "id -u; echo in > /tmp/x; cat /tmp/x"]).ok();
    assert_eq!(uid, "0\nin\n");
    // What was made by root inside is not root's outside.
    let pid = docker.field("first", "State.Pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap().to_owned();
    assert_eq!(line.split_whitespace().nth(1), Some(ids[0].0.to_string().as_str()), "{line}");
}
