//! `fumehood cleanup`: removes what a killed fumehood left behind.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

use fumehood::{
    Error, Result,
    cgroup::{Hierarchy, Leftover},
    error::Hint,
    state::{self, Liveness, Record},
};
use serde::Serialize;

use super::message;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A cgroup without a process and without a record may belong to a sandbox that is being made, for as long
/// as a launch can take.
const IN_THE_MAKING: Duration = Duration::from_secs(60);

/// What was found, and removed unless it was a dry run.
#[derive(Debug, Default, Serialize)]
struct Found {
    removed: bool,
    /// Ids of sandboxes that were still alive with nobody standing by.
    killed: Vec<String>,
    records: Vec<PathBuf>,
    cgroups: Vec<PathBuf>,
}

pub fn run(args: &Args) -> ExitCode {
    let found = match clean(args.dry_run) {
        Ok(found) => found,
        Err(error) => return message::fail(&error),
    };
    if args.json {
        return message::print_json(&found);
    }
    let (kill, remove) = if args.dry_run { ("would kill", "would remove") } else { ("killed", "removed") };
    let mut text = String::new();
    found.killed.iter().for_each(|id| text.push_str(&format!("{kill} sandbox {id}\n")));
    for path in found.records.iter().chain(&found.cgroups) {
        text.push_str(&format!("{remove} {}\n", message::plain(&path.to_string_lossy())));
    }
    if text.is_empty() {
        text.push_str("nothing was left behind\n");
    }
    message::print(&text)
}

fn clean(dry_run: bool) -> Result<Found> {
    let mut found = Found { removed: !dry_run, ..Found::default() };
    let (mut running, mut abandoned) = (BTreeSet::new(), BTreeSet::new());
    for (record, liveness) in state::list().map_err(Hint::into_error)? {
        match liveness {
            Liveness::Running => _ = running.insert(record.id),
            Liveness::Abandoned(paths) => {
                end(&record, dry_run, &mut found)?;
                for path in paths {
                    remove(path, dry_run, &mut found)?;
                }
                abandoned.insert(record.id);
            }
        }
    }
    for path in state::control::shut_doors().map_err(Hint::into_error)? {
        if !found.records.contains(&path) {
            remove(path, dry_run, &mut found)?;
        }
    }
    let hierarchy = Hierarchy::detect();
    let orphans = hierarchy.leftovers(Duration::ZERO).into_iter().filter(|leaf| abandoned.contains(leaf.name()));
    let others = hierarchy.leftovers(IN_THE_MAKING).into_iter();
    let others = others.filter(|leaf| !abandoned.contains(leaf.name()) && !running.contains(leaf.name()));
    for leaf in orphans.chain(others) {
        found.cgroups.push(leaf.path().to_owned());
        if !dry_run {
            Leftover::remove(leaf).map_err(Hint::into_error)?;
        }
    }
    if !dry_run {
        hierarchy.remove_parent();
    }
    Ok(found)
}

fn remove(path: PathBuf, dry_run: bool, found: &mut Found) -> Result<()> {
    if !dry_run {
        std::fs::remove_file(&path)
            .map_err(|error| Error::new(format!("cannot remove `{}`: {error}", path.display())))?;
    }
    found.records.push(path);
    Ok(())
}

fn end(record: &Record, dry_run: bool, found: &mut Found) -> Result<()> {
    let alive = if dry_run { record.is_alive() } else { record.kill().map_err(Hint::into_error)? };
    if alive {
        found.killed.push(record.id.clone());
    }
    Ok(())
}
