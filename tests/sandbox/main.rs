//! Ring 2: real sandboxes, run by the real command, as root and as an ordinary user.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod concurrency;
mod ending;
mod environment;
mod files;
mod granted_ids;
mod killed;
mod limits;
mod plans;
mod report;
mod roots;
mod runtimes;
mod status;
mod streams;
mod terminal;
mod unified;
