//! What is left of a sandbox whose result is known: nothing of it runs any more, and nobody waits for the rest.

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
    pub fn remove(self) -> Result<(), LaunchError> {
        let removed = self.leaf.map_or(Ok(()), Leaf::remove);
        drop(self.running);
        removed.map_err(LaunchError::Cgroup)
    }
}
