//! `fumehood-oci` as an engine calls it: the verbs of runc, on real bundles.
//!
//! The `cve_*` modules are the ring of escapes: what other runtimes got wrong, by the names of their defects.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod bundle;
mod checkpoint;
mod controls;
mod cve_exec;
mod cve_inputs;
mod cve_links;
mod cve_races;
mod cve_terminals;
mod documents;
mod egress;
mod exec;
mod gvisor;
mod hooks;
#[cfg(debug_assertions)]
mod killed;
mod lifecycle;
mod living;
mod network_devices;
mod process;
mod seccomp;
mod shared_mounts;
mod systemd;
mod unified;
#[path = "../egress/world.rs"]
#[allow(dead_code, reason = "this ring runs no sandboxes")]
mod world;
