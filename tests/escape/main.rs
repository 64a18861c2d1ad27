//! Ring 3: hostile programs. One test per CVE and per bypass, named by it where it has a name.
//!
//! Besides what a test says itself, each holds that the marker outside and the host's mount table are as they were, and
//! that nothing is left (see `common::Run::done`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod binary;
mod bombs;
mod calls;
mod descriptors;
mod granted_ids;
mod host_files;
mod identity;
mod links;
mod processes;
mod procfs;
mod roots;
mod sockets;
mod terminal;
