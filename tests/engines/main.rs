//! Real engines with fumehood as their runtime: what a person does with docker and podman must work as with runc.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod apart;
mod box_image;
mod containerd;
mod docker;
mod podman;
mod said;
#[path = "../egress/world.rs"]
#[allow(dead_code, reason = "this ring runs no sandboxes")]
mod world;
