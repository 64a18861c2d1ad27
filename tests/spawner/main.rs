//! The spawner, its workers and their sandboxes: what they do, and that nothing of them outlives whom it should not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod killed;
mod many;
mod owner;
mod work;
