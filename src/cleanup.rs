//! Removes what a killed fumehood left behind: for `fumehood cleanup`, and for every spawner when it starts.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use serde::Serialize;

use crate::{
    Error, Result,
    cgroup::{Hierarchy, Leftover},
    error::Hint,
    state::{self, Liveness, Record},
};

/// A cgroup without a process and without a record may belong to a sandbox that is being made, for as long
/// as a launch can take.
const IN_THE_MAKING: Duration = Duration::from_secs(60);

/// What was found, and removed unless it was a dry run.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    pub removed: bool,
    /// Ids of sandboxes that were still alive with nobody standing by.
    pub killed: Vec<String>,
    pub records: Vec<PathBuf>,
    pub cgroups: Vec<PathBuf>,
}

/// Finds it, and removes it unless `dry_run`.
pub fn clean(dry_run: bool) -> Result<Found> {
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
