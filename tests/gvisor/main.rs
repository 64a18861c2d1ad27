//! The same sandbox on gVisor's kernel, with the runsc of the distribution or another (`FUMEHOOD_TEST_RUNSC`), as root and as an ordinary user.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod ahead;
mod bundles;
mod killed;
mod limits;
mod outside;
mod programs;
mod refused;
mod terminal;
#[path = "../egress/world.rs"]
#[allow(dead_code, reason = "the egress ring uses the rest")]
mod world;

use common::{Run, Who, granted_ids, skip};

/// The one that is tested: Debian's, or another that is named.
pub fn runsc() -> std::path::PathBuf {
    std::env::var_os("FUMEHOOD_TEST_RUNSC").unwrap_or_else(|| "/usr/bin/runsc".into()).into()
}

/// As releases since 2023 do.
pub fn knows_systrap() -> bool {
    let flags = std::process::Command::new(runsc()).arg("flags").output().unwrap();
    String::from_utf8_lossy(&[flags.stdout, flags.stderr].concat()).contains("systrap")
}

/// A run on gVisor's kernel; `None`, said aloud, where there can be none.
pub fn gvisor(who: Who, test: &str) -> Option<Run> {
    if !runsc().exists() {
        skip(test, "runsc is not installed: apt install runsc");
        return None;
    }
    if who == Who::User {
        granted_ids(who, test)?;
    }
    Some(Run::new(who).args(["--isolation", "gvisor"]))
}
