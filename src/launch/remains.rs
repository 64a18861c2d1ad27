//! What is left of a sandbox whose result is known: nothing of it runs any more but its init, which ends, and nobody waits
//! for the rest.

use super::{LaunchError, Running};
use crate::cgroup::Leaf;

/// Its cgroup, its entry among those that run, and our ends of what led to it. Dropped, all that is removed as far as it
/// can be.
#[derive(Debug)]
pub struct Remains {
    leaf: Option<Leaf>,
    /// After the leaf, which is found by its entry.
    running: Running,
}

impl Remains {
    pub(super) const fn new(leaf: Option<Leaf>, running: Running) -> Self {
        Self { leaf, running }
    }

    /// # Errors
    /// When the cgroup cannot be removed.
    pub fn remove(mut self) -> Result<(), LaunchError> {
        // While it is there it is in the cgroup.
        self.running.end();
        let removed = self.leaf.map_or(Ok(()), Leaf::remove);
        drop(self.running);
        removed.map_err(LaunchError::Cgroup)
    }
}
