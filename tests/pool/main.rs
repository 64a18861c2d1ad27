//! Ring 4: sandboxes made ahead. What is run in one is as it is in one of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod corpus;
mod gvisor;
mod load;
mod network;
mod same;
mod waiting;
#[path = "../egress/world.rs"]
#[allow(dead_code, reason = "the egress ring uses the rest")]
mod world;

use common::skip;
