//! Removes what a killed fumehood left behind: for `fumehood cleanup`, and for every spawner when it starts.

use std::{collections::BTreeSet, io, path::PathBuf, time::Duration};

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
///
/// # Errors
/// The first one, when all that can be removed has been.
pub fn clean(dry_run: bool) -> Result<Found> {
    let mut cleaning = Cleaning { found: Found { removed: !dry_run, ..Found::default() }, dry_run, error: None };
    let (mut running, mut abandoned) = (BTreeSet::new(), BTreeSet::new());
    for (record, liveness) in state::list().map_err(Hint::into_error)? {
        match liveness {
            Liveness::Running => _ = running.insert(record.id),
            Liveness::Abandoned(paths) => {
                cleaning.end(&record);
                paths.into_iter().for_each(|path| cleaning.remove(path));
                abandoned.insert(record.id);
            }
        }
    }
    for path in state::control::shut_doors().map_err(Hint::into_error)? {
        if !cleaning.found.records.contains(&path) {
            cleaning.remove(path);
        }
    }
    let hierarchy = Hierarchy::detect();
    let orphans = hierarchy.leftovers(Duration::ZERO).into_iter().filter(|leaf| abandoned.contains(leaf.name()));
    let others = hierarchy.leftovers(IN_THE_MAKING).into_iter();
    let others = others.filter(|leaf| !abandoned.contains(leaf.name()) && !running.contains(leaf.name()));
    orphans.chain(others).for_each(|leaf| cleaning.remove_leaf(leaf));
    if !dry_run {
        hierarchy.remove_parent();
    }
    cleaning.error.map_or(Ok(cleaning.found), Err)
}

struct Cleaning {
    found: Found,
    dry_run: bool,
    error: Option<Error>,
}

impl Cleaning {
    fn remove(&mut self, path: PathBuf) {
        match if self.dry_run { Ok(()) } else { std::fs::remove_file(&path) } {
            Ok(()) => self.found.records.push(path),
            // Another cleans up as well.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.failed(Error::new(format!("cannot remove `{}`: {error}", path.display()))),
        }
    }

    fn remove_leaf(&mut self, leaf: Leftover) {
        let path = leaf.path().to_owned();
        match if self.dry_run { Ok(()) } else { leaf.remove() } {
            Ok(()) => self.found.cgroups.push(path),
            Err(error) => self.failed(error.into_error()),
        }
    }

    fn end(&mut self, record: &Record) {
        match if self.dry_run { Ok(record.is_alive()) } else { record.kill() } {
            Ok(true) => self.found.killed.push(record.id.clone()),
            Ok(false) => {}
            Err(error) => self.failed(error.into_error()),
        }
    }

    fn failed(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}
