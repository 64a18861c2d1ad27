//! Two services that know each other.

use super::Docker;
use crate::{
    common::{host::eventually, skip},
    said::{Said, is_there},
};

const FILE: &str = "
services:
  web:
    image: box
    init: true
    command: sh -c 'echo kept > /v/x; touch /tmp/up; while :; do echo served | nc -l -p 80; done'
    volumes: ['shared:/v']
    healthcheck: { test: ['CMD', 'test', '-e', '/tmp/up'], interval: 100ms }
  asker:
    image: box
    depends_on: { web: { condition: service_healthy } }
    command: sh -c 'until nc -w 2 web 80; do :; done; cat /v/x; exit 3'
    volumes: ['shared:/v:ro']
volumes: { shared: {} }
";

#[test]
fn runs_services_that_find_each_other() {
    if !is_there("docker-compose") {
        return skip("docker compose", "apt install docker-compose");
    }
    let Some(docker) = Docker::start("docker compose", &["--bip=10.231.0.1/24"]) else { return };
    docker.place.write("compose.yaml", FILE);
    let compose = |args: &[&str]| {
        let file = docker.place.text("compose.yaml");
        Said::of(docker.command("docker-compose", &[&["--file", &file, "--project-name", "p"], args].concat()))
    };
    compose(&["up", "--detach"]).ok();
    docker.becomes("p_asker_1", "State.ExitCode", "3");
    assert_eq!(docker.call(&["logs", "p_asker_1"]).ok(), "served\nkept\n");
    assert_eq!(compose(&["exec", "-T", "web", "cat", "/v/x"]).ok(), "kept\n");
    compose(&["down", "--volumes", "--timeout", "0"]).ok();
    assert!(eventually(|| docker.call(&["ps", "--all", "--quiet"]).ok().is_empty()));
}
