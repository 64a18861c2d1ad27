//! Real engines with fumehood as their runtime: what a person does with docker and podman must work as with runc.

#[path = "../common/mod.rs"]
mod common;

mod containerd;
mod docker;
mod dockerd;
mod podman;
