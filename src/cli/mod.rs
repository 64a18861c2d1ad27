//! The command line for people: one file a verb.
//!
//! `run` is on the way to every launch and is recognised before anything else is looked at. It and `explain`
//! read their options from the table in [`flags`]; the other verbs are clap's.

mod batch;
mod cleanup;
mod completions;
mod doctor;
mod explain;
mod flags;
mod help;
mod high;
mod image;
mod install;
mod kept;
mod kill;
mod low;
mod message;
mod net;
mod observe;
mod oci;
mod policy;
mod profile;
mod progress;
mod ps;
mod run;
mod runtimes;
mod selftest;
mod snapshot;
mod table;
mod terminal;
mod usage;
mod verbs;
mod verdict;

use std::{ffi::OsString, path::Path, process::ExitCode};

/// The names by which we are a runtime: our own, and those we take the place of.
const ENGINES: [&str; 4] = ["fumehood-oci", oci::GVISOR, "runc", "crun"];

pub fn main(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let name = words.next().unwrap_or_default();
    let mut words: Vec<_> = words.collect();
    // The last part alone: engines call by path.
    let called = Path::new(&name).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if ENGINES.contains(&called) {
        return oci::main(called, words);
    }
    match words.first().and_then(|word| word.to_str()) {
        Some("run") => run::run(words.split_off(1)),
        Some("explain") => explain::run(words.split_off(1)),
        Some("batch") => batch::run(words.split_off(1)),
        Some("oci") => oci::main("fumehood oci", words.split_off(1)),
        // What `selftest` has copied into its sandbox; no verb for people.
        Some(fumehood::selftest::PROBE) => {
            let words: Vec<_> = words.split_off(1).into_iter().filter_map(|word| word.into_string().ok()).collect();
            if fumehood::selftest::probe(&words) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        _ => verbs::run(words),
    }
}
