//! docker, as people use it.

use crate::{
    common::host::eventually,
    dockerd::{Docker, Said},
};

const NO_BRIDGE: [&str; 2] = ["--bridge=none", "--iptables=false"];

#[test]
fn runs_what_is_asked_with_its_status_and_streams() {
    let Some(docker) = Docker::start("docker run", &NO_BRIDGE) else { return };
    let said = docker.shell("echo out; echo err >&2; exit 7");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "out\n", "err\n"));
    assert_eq!(docker.run(&["box", "nope"]).code, 127);
    assert_eq!(docker.run(&["box", "/etc/passwd"]).code, 126);
    assert_eq!(docker.run(&["--bogus", "box"]).code, 125);
    assert_eq!(docker.shell("kill -9 $$; sleep 5; exit 3").code, 3);
    let run = |args: &[&str]| docker.run(args).ok();
    assert_eq!(run(&["--user", "1000:5", "box", "sh", "-c", "id -u; id -g; echo $HOME"]), "1000\n5\n/home/u\n");
    assert_eq!(run(&["--user", "u", "--workdir", "/a/b", "box", "pwd"]), "/a/b\n");
    assert_eq!(run(&["--hostname", "h", "--env", "A=b", "box", "sh", "-c", "hostname; echo $A"]), "h\nb\n");
    assert_eq!(run(&["--tty", "box", "tty"]).trim(), "/dev/pts/0");
    assert_eq!(run(&["--init", "box", "head", "-n1", "/proc/1/status"]).trim(), "Name:\tdocker-init");
    assert_ne!(docker.run(&["--read-only", "box", "touch", "/x"]).code, 0);
    assert_eq!(run(&["--read-only", "--tmpfs", "/t", "box", "sh", "-c", "touch /t/x && echo ok"]), "ok\n");
}

#[test]
fn gives_what_security_options_say_and_no_more() {
    let Some(docker) = Docker::start("docker security", &NO_BRIDGE) else { return };
    let run = |args: &[&str]| docker.run(args).ok();
    let bounding = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["box", "grep", "CapBnd", "/proc/self/status"]);
        run(&all).trim().to_owned()
    };
    assert_eq!(bounding(&[]), "CapBnd:\t00000000a80425fb");
    assert_eq!(bounding(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]), "CapBnd:\t0000000000001000");
    let status = |args: &[&str], field: &str| {
        let mut all = args.to_vec();
        all.extend(["box", "grep", field, "/proc/self/status"]);
        run(&all).trim().to_owned()
    };
    assert_eq!(status(&[], "^Seccomp:"), "Seccomp:\t2");
    assert_eq!(status(&["--security-opt", "seccomp=unconfined"], "^Seccomp:"), "Seccomp:\t0");
    assert_eq!(status(&["--security-opt", "no-new-privileges"], "NoNewPrivs"), "NoNewPrivs:\t1");
    assert_eq!(run(&["--sysctl", "kernel.shmmni=99", "box", "cat", "/proc/sys/kernel/shmmni"]), "99\n");
    assert_eq!(
        run(&["--ulimit", "core=7:8", "box", "grep", "core", "/proc/self/limits"]).split_whitespace().nth(4),
        Some("7")
    );
    assert_eq!(run(&["--device", "/dev/zero:/dev/nil", "box", "sh", "-c", "head -c2 /dev/nil | wc -c"]), "2\n");
    // Not there for the container, unless it is given.
    assert_ne!(docker.run(&["--cap-add", "MKNOD", "box", "sh", "-c", "head -c1 /dev/mem"]).code, 0);
    assert_ne!(docker.shell("mount -t tmpfs none /tmp").code, 0);
    assert_ne!(docker.shell("echo 1 > /proc/sys/kernel/sysrq").code, 0);
}

#[test]
fn mounts_what_volumes_say() {
    let Some(docker) = Docker::start("docker volumes", &NO_BRIDGE) else { return };
    let shared = docker.place().mkdir("shared");
    docker.place().write("shared/in", "hello");
    let volume = format!("{}:/v", shared.display());
    assert_eq!(docker.run(&["-v", &volume, "box", "sh", "-c", "cat /v/in; echo out > /v/out"]).ok(), "hello");
    assert_eq!(docker.place().read("shared/out"), "out\n");
    let read_only = format!("{volume}:ro");
    assert_ne!(docker.run(&["-v", &read_only, "box", "touch", "/v/x"]).code, 0);
    let file = format!("{}:/etc/given:ro", shared.join("in").display());
    assert_eq!(docker.run(&["-v", &file, "box", "cat", "/etc/given"]).ok(), "hello");
    assert_eq!(docker.run(&["-v", "named:/n", "box", "sh", "-c", "echo kept > /n/x"]).code, 0);
    assert_eq!(docker.run(&["-v", "named:/n", "box", "cat", "/n/x"]).ok(), "kept\n");
}

#[test]
fn manages_a_container_that_runs() {
    let Some(docker) = Docker::start("docker manage", &NO_BRIDGE) else { return };
    let call = |args: &[&str]| docker.call(args).ok();
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    let begin = |name: &str, line: &str| {
        let mut all = vec!["run", "--detach", "--name", name];
        all.extend(limits);
        all.extend(["box", "sh", "-c", line]);
        docker.call(&all).ok();
    };
    begin("first", "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.1; done");
    assert!(eventually(|| docker.call(&["logs", "first"]).out == "up\n"));
    assert_eq!(call(&["exec", "first", "sh", "-c", "echo $0; id -u; exit 0"]), "sh\n0\n");
    let said: Said = docker.call(&["exec", "first", "sh", "-c", "exit 5"]);
    assert_eq!(said.code, 5, "{said:?}");
    assert_eq!(
        docker.call(&["exec", "first", "nope"]).code,
        126 + i32::from(docker.call(&["exec", "first", "nope"]).code == 127)
    );
    assert_eq!(call(&["exec", "--tty", "first", "tty"]).trim().rsplit('/').nth(1), Some("pts"));
    assert!(call(&["top", "first"]).contains("while"), "top");
    call(&["pause", "first"]);
    assert_eq!(call(&["inspect", "--format", "{{.State.Status}}", "first"]), "paused\n");
    call(&["unpause", "first"]);
    call(&["update", "--memory", "64m", "--memory-swap", "64m", "first"]);
    assert!(call(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "first"]).contains("64MiB"));
    docker.place().write("copied", "text");
    call(&["cp", &docker.place().text("copied"), "first:/tmp/copied"]);
    assert_eq!(call(&["exec", "first", "cat", "/tmp/copied"]), "text");
    call(&["stop", "first"]);
    assert_eq!(call(&["inspect", "--format", "{{.State.ExitCode}}", "first"]), "9\n");
    call(&["start", "first"]);
    call(&["kill", "first"]);
    assert!(eventually(|| call(&["inspect", "--format", "{{.State.ExitCode}}", "first"]) == "137\n"));
    call(&["rm", "first"]);
}

#[test]
fn holds_limits_and_tells_what_was_hit() {
    let Some(docker) = Docker::start("docker limits", &NO_BRIDGE) else { return };
    let eat = "dd if=/dev/zero of=/dev/shm/x bs=1M count=200";
    let args = ["run", "--name", "oom", "--memory", "32m", "--memory-swap", "32m", "--shm-size", "1g"];
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "box", "sh", "-c", eat];
    let said = docker.call(&args.iter().chain(&limits).copied().collect::<Vec<_>>());
    assert_ne!(said.code, 0, "{said:?}");
    assert_eq!(docker.call(&["inspect", "--format", "{{.State.OOMKilled}}", "oom"]).ok(), "true\n");
    let bomb = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done 2>&1; wait";
    let said = docker.run(&["--pids-limit", "4", "box", "sh", "-c", bomb]);
    assert!(said.err.contains("fork") || said.out.contains("fork"), "{said:?}");
    let cpu = docker.run(&["--cpus", "0.5", "box", "sh", "-c", "cat /proc/self/cgroup | wc -l"]);
    assert_eq!(cpu.code, 0, "{cpu:?}");
}

#[test]
fn runs_fifty_at_once() {
    let Some(docker) = Docker::start("docker fifty", &NO_BRIDGE) else { return };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..50)
            .map(|n| {
                (
                    n,
                    scope.spawn({
                        let docker = &docker;
                        move || docker.shell(&format!("echo {n}"))
                    }),
                )
            })
            .collect();
        for (n, said) in all {
            assert_eq!(said.join().unwrap().ok(), format!("{n}\n"));
        }
    });
}

#[test]
fn shares_the_network_as_it_is_told() {
    let Some(docker) = Docker::start("docker network", &["--bip=10.231.0.1/24", "--bridge="]) else { return };
    let run = |args: &[&str]| docker.run(args).ok();
    assert_eq!(run(&["--network", "none", "box", "ls", "/sys/class/net"]), "lo\n");
    let inside = run(&["box", "ip", "-4", "addr", "show", "eth0"]);
    assert!(inside.contains("10.231.0."), "{inside}");
    assert!(run(&["--network", "host", "box", "ls", "/sys/class/net"]).contains("docker0"));
    let mut first =
        vec!["run", "--detach", "--name", "web", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    first.extend(["box", "nc", "-l", "-p", "80", "-e", "echo", "served"]);
    docker.call(&first).ok();
    assert_eq!(run(&["--network", "container:web", "box", "nc", "-w", "2", "127.0.0.1", "80"]), "served\n");
}
