//! Ring 4: sandboxes made ahead. What is run in one is as it is in one of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod corpus;
mod same;
mod waiting;

/// Says why a test does not run here. Where everything should be there, that is a failure.
fn skip(name: &str, reason: &str) {
    use std::io::Write;
    _ = writeln!(std::io::stderr(), "SKIP {name}: {reason}");
    assert!(std::env::var_os("CI").is_none(), "SKIP {name}: {reason}: nothing may be skipped in CI");
}
