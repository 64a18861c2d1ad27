//! Networks of containers, in a network namespace that is the daemon's host.

use super::Docker;
use crate::common::host::eventually;

#[test]
fn shares_the_network_as_it_is_told() {
    let Some(docker) = Docker::start("docker network", &["--bip=10.231.0.1/24"]) else { return };
    let run = |args: &[&str]| docker.run(args).ok();
    assert_eq!(run(&["--network", "none", "box", "ls", "/sys/class/net"]), "lo\n");
    let inside = run(&["box", "ip", "-4", "addr", "show", "eth0"]);
    assert!(inside.contains("10.231.0."), "{inside}");
    assert!(run(&["--network", "host", "box", "ls", "/sys/class/net"]).contains("docker0"));
    let serve = "while :; do echo served | nc -l -p 80; done";
    docker.begin("web", &["--publish", "127.0.0.1:8080:80"], serve);
    let ask = "until nc -w 2 127.0.0.1 80; do :; done";
    assert_eq!(run(&["--network", "container:web", "box", "sh", "-c", ask]), "served\n");
    // Another container, and the host, by the bridge.
    let address = docker.field("web", "NetworkSettings.IPAddress");
    let ask = format!("until nc -w 2 {address} 80; do :; done");
    assert_eq!(run(&["box", "sh", "-c", &ask]), "served\n");
    let from_host = || {
        let mut said = String::new();
        let stream = std::net::TcpStream::connect(("127.0.0.1", 8080));
        _ = stream.and_then(|mut stream| std::io::Read::read_to_string(&mut stream, &mut said));
        said == "served\n"
    };
    assert!(eventually(from_host));
    let shared = |option: &str, kind: &str| {
        let readlink = ["readlink", &format!("/proc/self/ns/{kind}")].map(str::to_owned);
        let [readlink, link] = readlink.each_ref().map(String::as_str);
        let own = docker.call(&["exec", "web", readlink, link]).ok();
        assert_eq!(run(&[option, "container:web", "box", readlink, link]), own, "{option}");
    };
    shared("--network", "net");
    shared("--pid", "pid");
    docker.begin("shares", &["--ipc", "shareable"], "exec sleep 1000");
    let own = docker.call(&["exec", "shares", "readlink", "/proc/self/ns/ipc"]).ok();
    assert_eq!(run(&["--ipc", "container:shares", "box", "readlink", "/proc/self/ns/ipc"]), own);
}
