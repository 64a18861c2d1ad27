//! `fumehood-oci` as an engine calls it: the verbs of runc, on real bundles.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod bundle;
mod documents;
mod exec;
mod hooks;
mod lifecycle;
mod living;
mod process;
