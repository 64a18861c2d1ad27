//! Images: unpacked, in all their forms, from real registries, and run. As root and as an ordinary user.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod archive;
mod build;
mod bundles;
mod copies;
mod forms;
mod full;
mod install;
mod keep;
mod makers;
mod registry;
mod run;
mod unpack;
