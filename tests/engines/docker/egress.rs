//! Filtered networks: by a runtime of the daemon's that is told so, whatever network its containers have.

use std::fs;

use serde_json::{Value, json};

use super::Docker;
use crate::{
    common::{Place, host},
    world::{ALLOWED, OUTCOME, REBOUND, TRY, World},
};

/// One more runtime, as a person writes it down.
fn register(place: &Place) {
    let path = place.join("daemon.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let policy = format!("allow={ALLOWED},allow={REBOUND}");
    config["runtimes"]["filtered"] = json!({ "path": place.join("fumehood-oci"), "runtimeArgs": ["--egress", policy] });
    for (name, policy) in [("served", "none,publish=80"), ("asking", "allow-private=server:80,allow-private=plain:80")]
    {
        let args = ["--egress", policy];
        config["runtimes"][name] = json!({ "path": place.join("fumehood-oci"), "runtimeArgs": args });
    }
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn lets_containers_out_to_what_is_allowed() {
    let started = Docker::start_in("docker egress", &["--bip=10.231.0.1/24"], |place| {
        register(place);
        World::new("docker egress")
    });
    let Some((world, docker)) = started else { return };
    let run = |args: &[&str]| docker.run(&[&["--runtime", "filtered"], args].concat());
    let reached = || world.reached().into_iter().filter(|line| line != "ready").collect::<Vec<_>>();
    let none = OUTCOME.replace("/a of", "not");
    // Without a network there is none.
    assert_eq!(run(&["--network", "none", "box", "sh", "-c", TRY]).ok(), none);
    assert_eq!(reached(), [""; 0]);
    // By the bridge, whatever is ruled inside.
    assert_eq!(run(&["--cap-add", "NET_ADMIN", "box", "sh", "-c", TRY]).ok(), OUTCOME);
    assert_eq!(reached(), ["93.184.215.14 connected", "93.184.215.14 /a allowed.example.org"]);
    let packets = world.packets();
    let known = ["[93, 184, 215, 14] protocol 6", "[5, 5, 5, 1] protocol 6"];
    assert!(packets.iter().all(|packet| known.contains(&packet.as_str())), "{packets:?}");
    // With Docker's own names, which are asked for on loopback.
    docker.call(&["network", "create", "--subnet", "10.233.0.0/24", "named"]).ok();
    assert_eq!(run(&["--network", "named", "box", "sh", "-c", TRY]).ok(), OUTCOME);
    // And for what is executed in one that runs, or shares its network.
    docker.begin("first", &["--runtime", "filtered"], "exec sleep 1000");
    assert_eq!(docker.call(&["exec", "first", "sh", "-c", TRY]).ok(), OUTCOME);
    assert_eq!(docker.run(&["--network", "container:first", "box", "sh", "-c", TRY]).ok(), OUTCOME);
    docker.call(&["network", "connect", "named", "first"]).ok();
    assert_eq!(docker.call(&["exec", "first", "sh", "-c", TRY]).ok(), OUTCOME);
    let more = docker.call(&["exec", "--privileged", "first", "true"]);
    assert!(more.code != 0 && more.out.contains("CAP_SYS_ADMIN"), "{more:?}");
    docker.call(&["restart", "--time", "0", "first"]).ok();
    assert_eq!(docker.call(&["exec", "first", "sh", "-c", TRY]).ok(), OUTCOME);
    // What cannot be filtered is not made.
    run(&["--network", "host", "box", "true"]).fails("nobody's to filter");
    run(&["--privileged", "box", "true"]).fails("CAP_SYS_ADMIN");
    // Without the filter, all of it is there.
    let unfiltered = "busybox wget -q -O - http://1.1.1.1/";
    assert_eq!(docker.shell(unfiltered).ok(), "/ of 1.1.1.1\n");
    assert!(docker.call(&["rm", "--force", "first"]).code == 0);
    docker.call(&["network", "rm", "named"]).ok();
}

/// By a port of the host's, and by names from other containers.
#[test]
fn ports_that_are_open_are_those_that_docker_publishes() {
    let started = Docker::start_in("docker ports", &["--bip=10.231.0.1/24"], |place| {
        register(place);
        World::new("docker ports")
    });
    let Some((_world, docker)) = started else { return };
    docker.call(&["network", "create", "--subnet", "10.233.0.0/24", "named"]).ok();
    let options = ["--runtime", "served", "--network", "named", "--publish", "127.0.0.1::80"];
    let serve = "mkdir /www; echo here > /www/here; busybox httpd -p 81 -h /www; exec busybox httpd -f -p 80 -h /www";
    docker.begin("server", &options, serve);
    let published = docker.call(&["port", "server", "80/tcp"]).ok();
    let fetch = |at: &str| {
        let mut client = std::process::Command::new("busybox");
        client.args(["timeout", "3", "busybox", "wget", "-q", "-O", "-", &format!("http://{at}/here")]);
        String::from_utf8(client.output().unwrap().stdout).unwrap()
    };
    let came = || fetch(published.trim()) == "here\n";
    assert!(host::eventually(came), "{published}");
    docker.begin("plain", &["--network", "named"], serve);
    let other = |runtime: &str, at: &str| {
        let line = format!("busybox timeout 3 busybox wget -q -O - http://{at}/here");
        docker.run(&["--runtime", runtime, "--network", "named", "box", "sh", "-c", &line])
    };
    assert_eq!(other("fumehood", "server").ok(), "here\n");
    assert_ne!(other("fumehood", "server:81").code, 0);
    // From a filtered one, to those that are named alone.
    for at in ["plain", "server"] {
        assert_eq!(other("asking", at).ok(), "here\n", "{at}");
    }
    for (runtime, at) in [("asking", "plain:81"), ("filtered", "plain")] {
        assert_ne!(other(runtime, at).code, 0, "{runtime} {at}");
    }
    for name in ["server", "plain"] {
        assert_eq!(docker.call(&["rm", "--force", name]).code, 0);
    }
    docker.call(&["network", "rm", "named"]).ok();
}
