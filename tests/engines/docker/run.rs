//! `docker run`: programs, their streams and terminals, their status.

use super::{Docker, NO_BRIDGE};
use crate::{common::terminal::Session, said::Said};

#[test]
fn gives_a_program_what_was_asked_for() {
    let Some(docker) = Docker::start("docker run", &NO_BRIDGE) else { return };
    assert_eq!(docker.call(&["info", "--format", "{{.DefaultRuntime}}"]).ok(), "fumehood\n");
    let said = docker.shell("echo out; echo err >&2; exit 7");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "out\n", "err\n"));
    let run = |args: &[&str]| docker.run(args).ok();
    assert_eq!(run(&["--user", "1000:5", "box", "sh", "-c", "id -u; id -g; echo $HOME"]), "1000\n5\n/home/u\n");
    assert_eq!(run(&["--user", "u", "--workdir", "/a/b", "box", "pwd"]), "/a/b\n");
    assert_eq!(run(&["--hostname", "h", "--env", "A=b", "box", "sh", "-c", "hostname; echo $A"]), "h\nb\n");
    assert_eq!(run(&["--entrypoint", "/bin/echo", "box", "said"]), "said\n");
    assert_eq!(run(&["--tty", "box", "tty"]).trim(), "/dev/pts/0");
    assert_eq!(run(&["--init", "box", "head", "-n1", "/proc/1/status"]).trim(), "Name:\tdocker-init");
    assert_ne!(docker.run(&["--read-only", "box", "touch", "/x"]).code, 0);
    assert_eq!(run(&["--read-only", "--tmpfs", "/t", "box", "sh", "-c", "touch /t/x && echo ok"]), "ok\n");
    let tmpfs = run(&["--tmpfs", "/t:size=1m,noexec", "box", "grep", " /t ", "/proc/self/mounts"]);
    assert!(tmpfs.contains("noexec") && tmpfs.contains("size=1024k"), "{tmpfs}");
    assert_eq!(run(&["--shm-size", "3m", "box", "sh", "-c", "df -k /dev/shm | grep -c 3072"]), "1\n");
}

#[test]
fn mounts_what_volumes_say() {
    let Some(docker) = Docker::start("docker volumes", &NO_BRIDGE) else { return };
    let shared = docker.place.mkdir("shared");
    docker.place.write("shared/in", "hello");
    let volume = format!("{}:/v", shared.display());
    assert_eq!(docker.run(&["-v", &volume, "box", "sh", "-c", "cat /v/in; echo out > /v/out"]).ok(), "hello");
    assert_eq!(docker.place.read("shared/out"), "out\n");
    let read_only = format!("{volume}:ro");
    assert_ne!(docker.run(&["-v", &read_only, "box", "touch", "/v/x"]).code, 0);
    let file = format!("{}:/etc/given:ro", shared.join("in").display());
    assert_eq!(docker.run(&["-v", &file, "box", "cat", "/etc/given"]).ok(), "hello");
    docker.run(&["-v", "named:/n", "box", "sh", "-c", "echo kept > /n/x"]).ok();
    assert_eq!(docker.run(&["-v", "named:/n", "box", "cat", "/n/x"]).ok(), "kept\n");
    assert_eq!(docker.run(&["--volumes-from", &maker(&docker), "box", "cat", "/n/x"]).ok(), "kept\n");
}

/// A container that was created, and never started.
fn maker(docker: &Docker) -> String {
    docker.call(&["create", "-v", "named:/n", "box", "true"]).ok().trim().to_owned()
}

#[test]
fn tells_by_the_status_who_failed() {
    let Some(docker) = Docker::start("docker status", &NO_BRIDGE) else { return };
    let status = |args: &[&str], words: &str| {
        let said: Said = docker.run(args);
        assert!(said.err.contains(words), "no `{words}`: {said:?}");
        said.code
    };
    // docker itself.
    assert_eq!(status(&["--bogus", "box"], "unknown flag"), 125);
    assert_eq!(status(&["--runtime", "nope", "box"], "nope"), 125);
    // What is there and cannot be executed.
    assert_eq!(status(&["box", "/etc/passwd"], "permission denied"), 126);
    assert_eq!(status(&["box", "/etc"], ""), 126);
    // What is not there.
    assert_eq!(status(&["box", "nope"], "executable file not found in $PATH"), 127);
    assert_eq!(status(&["box", "/bin/nope"], "no such file or directory"), 127);
    assert_eq!(status(&["--entrypoint", "nope", "box"], "executable file not found in $PATH"), 127);
    // The program itself, by a signal.
    assert_eq!(status(&["--init", "box", "sh", "-c", "kill -KILL $$"], ""), 137);
    assert_eq!(status(&["--init", "box", "sh", "-c", "kill -TERM $$"], ""), 143);
    // Process 1 has no handler for it, and goes on.
    assert_eq!(status(&["box", "sh", "-c", "kill -KILL $$; exit 3"], ""), 3);
    // Somebody else.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| docker.run(&["--name", "killed", "box", "sleep", "1000"]).code);
        let up = crate::common::host::eventually(|| docker.call(&["kill", "killed"]).code == 0);
        assert!(up, "it never ran");
        assert_eq!(waiting.join().unwrap(), 137);
    });
}

#[test]
fn gives_a_terminal_to_type_on() {
    let Some(docker) = Docker::start("docker terminal", &NO_BRIDGE) else { return };
    let mut session = Session::around(docker.command("docker", &["run", "--rm", "-it", "--name", "term", "box", "sh"]));
    use_terminal(&mut session);
    // Another, of the same container.
    let mut second = Session::around(docker.command("docker", &["exec", "-it", "term", "sh"]));
    use_terminal(&mut second);
    second.type_in("exit 4\n");
    assert_eq!(second.end(), 4, "{}", second.text());
    session.type_in("exit 5\n");
    assert_eq!(session.end(), 5, "{}", session.text());
}

/// It has the size of the one outside, it echoes, and it sends signals.
#[track_caller]
pub fn use_terminal(session: &mut Session) {
    session.type_in("while [ \"$(stty size)\" != '33 111' ]; do sleep 0.05; done; echo sized-$((1 + 1))\n");
    session.expect("sized-2");
    // Said by the one that is to get the signal: until it runs, the terminal is the shell's.
    session.type_in("sh -c 'echo ready-$((1 + 2)); exec sleep 1000'\n");
    session.expect("ready-3");
    session.type_in("\x03");
    session.expect("^C");
    session.type_in("echo after-$?\n");
    session.expect("after-130");
}

#[test]
fn runs_fifty_at_once() {
    let Some(docker) = Docker::start("docker fifty", &NO_BRIDGE) else { return };
    let docker = &docker;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..50).map(|n| (n, scope.spawn(move || docker.shell(&format!("echo {n}"))))).collect();
        for (n, said) in all {
            assert_eq!(said.join().unwrap().ok(), format!("{n}\n"));
        }
    });
}
