//! Docker with `fumehood-gvisor` as one more runtime.

use super::{Docker, NO_BRIDGE, run::use_terminal};
use crate::{box_image::install_gvisor, common::terminal::Session, said::is_there};

const ON_GVISOR: [&str; 2] = ["--runtime", "fumehood-gvisor"];
/// The first line of its kernel's version.
const KERNEL: &str = "grep -c 2016 /proc/version";

fn start(test: &str, options: &[&str]) -> Option<Docker> {
    if !is_there("runsc") {
        crate::common::skip(test, "runsc is not installed: apt install runsc");
        return None;
    }
    let mut docker = Docker::start(test, options)?;
    install_gvisor(&docker.place, crate::common::Who::Root, &["docker", "--config", &docker.place.text("daemon.json")]);
    docker.restart();
    Some(docker)
}

#[test]
fn containers_run_on_gvisors_kernel() {
    let Some(docker) = start("docker gvisor", &NO_BRIDGE) else { return };
    let run = |args: &[&str]| docker.run(&[&ON_GVISOR, args].concat());
    assert_eq!(run(&["box", "sh", "-c", KERNEL]).ok(), "1\n");
    assert_eq!(docker.run(&["box", "sh", "-c", KERNEL]).out, "0\n", "the default runtime is the host's kernel");
    let said = run(&["box", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "out\n", "err\n"));
    assert_eq!(run(&["--user", "1000:5", "box", "sh", "-c", "id -u; id -g"]).ok(), "1000\n5\n");
    assert_eq!(run(&["--user", "u", "--workdir", "/a/b", "box", "pwd"]).ok(), "/a/b\n");
    assert_eq!(run(&["--hostname", "h", "--env", "A=b", "box", "sh", "-c", "hostname; echo $A"]).ok(), "h\nb\n");
    assert_ne!(run(&["--read-only", "box", "touch", "/x"]).code, 0);
    let shared = docker.place.mkdir("shared");
    docker.place.write("shared/in", "hello");
    let volume = format!("{}:/v", shared.display());
    assert_eq!(run(&["-v", &volume, "box", "sh", "-c", "cat /v/in; echo out > /v/out"]).ok(), "hello");
    assert_eq!(docker.place.read("shared/out"), "out\n");
    assert_ne!(run(&["-v", &format!("{volume}:ro"), "box", "touch", "/v/x"]).code, 0);
    assert_eq!(run(&["box", "nope"]).code, 127);
    assert_eq!(run(&["box", "/etc/passwd"]).code, 126);
    run(&["--network", "host", "box", "true"]).fails("cannot share this host's addresses");
    run(&["--pid", "host", "box", "true"]).fails("linux.namespaces");
}

#[test]
fn containers_on_gvisor_are_looked_after() {
    let Some(docker) = start("docker gvisor living", &NO_BRIDGE) else { return };
    docker.begin("live", &ON_GVISOR, "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.1; done");
    let logged = |words: &str| crate::common::host::eventually(|| docker.call(&["logs", "live"]).out.contains(words));
    assert!(logged("up"));
    let said = docker.call(&["exec", "live", "sh", "-c", "grep -c 2016 /proc/version; exit 3"]);
    assert_eq!((said.code, said.out.as_str()), (3, "1\n"));
    // dockerd of 20.10 makes 126 of it, newer ones 127, with every runtime.
    assert!([126, 127].contains(&docker.call(&["exec", "live", "nope"]).code));
    assert!(docker.call(&["stats", "--no-stream", "live"]).ok().contains("live"));
    assert!(docker.call(&["top", "live"]).ok().contains("runsc"));
    docker.call(&["pause", "live"]).ok();
    assert_eq!(docker.field("live", "State.Status"), "paused");
    docker.call(&["unpause", "live"]).ok();
    docker.call(&["update", "--memory", "300m", "--memory-swap", "300m", "live"]).ok();
    docker.call(&["stop", "live"]).ok();
    assert_eq!(docker.field("live", "State.ExitCode"), "4");
    assert!(logged("bye"));
    docker.call(&["start", "live"]).ok();
    docker.call(&["kill", "live"]).ok();
    docker.becomes("live", "State.ExitCode", "137");
    docker.call(&["rm", "live"]).ok();

    let args = [&["run", "--rm", "-it", "--name", "term"][..], &ON_GVISOR, &["box", "sh"]].concat();
    let mut session = Session::around(docker.command("docker", &args));
    use_terminal(&mut session);
    let mut second = Session::around(docker.command("docker", &["exec", "-it", "term", "sh"]));
    second.type_in("echo second-$((1 + 1)); exit 4\n");
    second.expect("second-2");
    assert_eq!(second.end(), 4, "{}", second.text());
    session.type_in("exit 5\n");
    assert_eq!(session.end(), 5, "{}", session.text());
}

#[test]
fn containers_on_gvisor_are_in_the_engines_networks() {
    let Some(docker) = start("docker gvisor network", &["--bip=10.233.0.1/24"]) else { return };
    let serve = "while :; do echo served | nc -l -p 80; done";
    docker.begin("web", &[&ON_GVISOR[..], &["--publish", "127.0.0.1:8081:80"]].concat(), serve);
    let address = docker.field("web", "NetworkSettings.IPAddress");
    let ask = format!("until nc -w 2 {address} 80; do :; done");
    // Of this kernel's, of gVisor's, and the host by a published port.
    assert_eq!(docker.run(&["box", "sh", "-c", &ask]).ok(), "served\n");
    assert_eq!(docker.run(&[&ON_GVISOR[..], &["box", "sh", "-c", &ask]].concat()).ok(), "served\n");
    let from_host = || {
        let mut said = String::new();
        let stream = std::net::TcpStream::connect(("127.0.0.1", 8081));
        _ = stream.and_then(|mut stream| std::io::Read::read_to_string(&mut stream, &mut said));
        said == "served\n"
    };
    assert!(crate::common::host::eventually(from_host));
    let named = docker.call(&["exec", "web", "cat", "/etc/hosts"]).ok();
    assert!(named.contains(&address), "{named}");
}
