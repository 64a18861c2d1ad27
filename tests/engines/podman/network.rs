//! Networks of containers, in a network namespace that is podman's host.

use std::{io::Write, net::TcpListener, path::Path};

use super::Podman;
use crate::{
    both,
    common::{Who, skip},
};

/// Tells one caller who it is; the port, on the loopback that is podman's host's.
fn serve_once() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"host\n").unwrap());
    port
}

both! {
    fn shares_the_network_as_it_is_told(who: Who) {
        let Some(podman) = Podman::new("podman network", who) else { return };
        let run = |network: &str, args: &[&str]| {
            podman.call(&[&["run", "--rm", "--network", network, "box"], args].concat()).ok()
        };
        assert_eq!(run("none", &["ls", "/sys/class/net"]), "lo\n");
        podman.begin("web", &[], "while :; do echo served | nc -l -p 80; done");
        assert_eq!(run("container:web", &["sh", "-c", "until nc -w 2 127.0.0.1 80; do :; done"]), "served\n");
        assert_eq!(run("host", &["nc", "-w", "20", "127.0.0.1", &serve_once()]), "host\n");
    }
}

#[test]
fn a_bridge_reaches_from_container_to_container() {
    let Some(who) = Who::Root.find("podman bridge") else { return };
    if !Path::new("/usr/lib/cni/bridge").exists() {
        return skip("podman bridge", "apt install containernetworking-plugins");
    }
    let Some(podman) = Podman::new("podman bridge", who) else { return };
    podman.call(&["network", "create", "--subnet", "10.232.0.0/24", "n"]).ok();
    let serve = "while :; do echo served | nc -l -p 80; done";
    podman.call(&["run", "--detach", "--network", "n", "--name", "web", "box", "sh", "-c", serve]).ok();
    let address = podman.field("web", "NetworkSettings.Networks.n.IPAddress");
    assert!(address.starts_with("10.232.0."), "{address}");
    let ask = format!("until nc -w 2 {address} 80; do :; done");
    assert_eq!(podman.call(&["run", "--rm", "--network", "n", "box", "sh", "-c", &ask]).ok(), "served\n");
}

#[test]
fn slirp4netns_reaches_out_for_an_ordinary_user() {
    let Some(who) = Who::User.find("podman slirp4netns") else { return };
    if !crate::said::is_there("slirp4netns") {
        return skip("podman slirp4netns", "apt install slirp4netns");
    }
    let Some(podman) = Podman::new("podman slirp4netns", who) else { return };
    let network = ["run", "--rm", "--network", "slirp4netns:allow_host_loopback=true", "box"];
    let said = podman.call(&[&network[..], &["nc", "-w", "20", "10.0.2.2", &serve_once()]].concat());
    assert_eq!(said.ok(), "host\n");
}
