//! The same sandbox on gVisor's kernel, with the runsc of the distribution, as root and as an ordinary user.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod killed;
mod limits;
mod programs;
mod refused;
#[path = "../egress/world.rs"]
#[allow(dead_code, reason = "the egress ring uses the rest")]
mod world;

use common::{Run, Who, granted_ids, skip};

/// A run on gVisor's kernel; `None`, said aloud, where there can be none.
pub fn gvisor(who: Who, test: &str) -> Option<Run> {
    if !std::path::Path::new("/usr/bin/runsc").exists() {
        skip(test, "runsc is not installed: apt install runsc");
        return None;
    }
    if who == Who::User {
        granted_ids(who, test)?;
    }
    Some(Run::new(who).args(["--isolation", "gvisor"]))
}
