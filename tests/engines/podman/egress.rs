//! Filtered networks, by annotation.

use std::path::Path;

use super::Podman;
use crate::{
    common::{Who, skip},
    world::{ALLOWED, OUTCOME, REBOUND, TRY, World},
};

fn annotation() -> String {
    format!("io.fumehood.egress=allow={ALLOWED},allow={REBOUND}")
}

#[track_caller]
fn try_all(podman: &Podman, world: &World, network: &str) {
    let options = ["run", "--rm", "--annotation", &annotation(), "--network", network];
    assert_eq!(podman.call(&[&options[..], &["box", "sh", "-c", TRY]].concat()).ok(), OUTCOME);
    let reached: Vec<_> = world.reached().into_iter().filter(|line| line != "ready").collect();
    assert_eq!(reached, ["93.184.215.14 connected", "93.184.215.14 /a allowed.example.org"]);
    let none = podman.run(&["--annotation", &annotation(), "box", "sh", "-c", TRY]);
    assert_eq!(none.ok(), OUTCOME.replace("/a of", "not"));
    podman
        .run(&["--annotation", "io.fumehood.egress=all", "box", "true"])
        .fails("annotations.io.fumehood.egress: `all`");
    podman.run(&["--annotation", &annotation(), "--privileged", "box", "true"]).fails("CAP_SYS_ADMIN");
}

#[test]
fn lets_containers_out_by_a_bridge() {
    let Some(who) = Who::Root.find("podman egress by a bridge") else { return };
    if !Path::new("/usr/lib/cni/bridge").exists() {
        return skip("podman egress by a bridge", "apt install containernetworking-plugins");
    }
    let made = Podman::new_in("podman egress by a bridge", who, || World::new("podman egress by a bridge"));
    let Some((world, podman)) = made else { return };
    podman.call(&["network", "create", "--subnet", "10.234.0.0/24", "n"]).ok();
    try_all(&podman, &world, "n");
}

#[test]
fn lets_an_ordinary_users_containers_out() {
    let Some(who) = Who::User.find("podman egress of a user") else { return };
    if !crate::said::is_there("slirp4netns") {
        return skip("podman egress of a user", "apt install slirp4netns");
    }
    let made = Podman::new_in("podman egress of a user", who, || World::new("podman egress of a user"));
    let Some((world, podman)) = made else { return };
    try_all(&podman, &world, "slirp4netns");
}
