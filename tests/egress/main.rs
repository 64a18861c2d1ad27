//! Filtered networks: sandboxes on a host whose network the test has made, with servers in another one beyond it. As
//! root and as an ordinary user. No packet leaves the machine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod bypass;
mod clients;
mod control;
mod datagrams;
mod hellos;
mod modes;
mod names;
mod packets;
mod requests;
mod selftest;
mod strain;
mod world;
