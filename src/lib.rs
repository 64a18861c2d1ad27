//! fumehood runs untrusted code on your own Linux host, straight on namespaces.
//!
//! Data flows one way: [`request`] → [`spec`] → [`plan`] → [`launch`] → [`report`]. No stage reads
//! an earlier stage's input, nothing above `launch` changes the host, and nothing below `plan` knows
//! a command line. [`Sandbox`] is the facade over the whole: it is shaped after
//! [`std::process::Command`], and the command line uses nothing else.

pub mod batch;
pub mod cgroup;
pub mod cleanup;
pub mod container;
pub mod criu;
pub mod error;
pub mod host;
pub mod image;
pub mod launch;
pub mod net;
mod occurrences;
pub mod packages;
pub mod plan;
pub mod pool;
pub mod report;
pub mod request;
mod sandbox;
pub mod selftest;
pub mod spawn;
pub mod spec;
pub mod state;
#[allow(unsafe_code)]
pub mod sys;

pub use batch::Batch;
pub use error::{Error, Result};
pub use launch::Observer;
pub use pool::Pool;
pub use report::{Outcome, Verdict};
pub use sandbox::{Sandbox, Stdin};
