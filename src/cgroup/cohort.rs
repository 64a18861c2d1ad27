//! A group that caps several sandboxes together: those of one batch, whose leaves lie in it.
//!
//! ```text
//! fumehood/                       all sandboxes of this user
//!   batch-NAMESPACE-PID-START-N/  what those of one batch may use together
//!     ID/                         a leaf
//! ```
//!
//! It is made once, by the process after which it is called, before anything is in it: a limit of CPU time that comes after those
//! of leaves could be refused. It is never made again; without it there are no more leaves.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Caps, CgroupError, Hierarchy, owner};
use crate::request::Bytes;

/// Dropped, it is removed, with what is left in it.
#[derive(Debug)]
pub struct Cohort {
    hierarchy: Hierarchy,
    place: Place,
}

/// Where it is, for other processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub(super) name: String,
    /// What its sandboxes may have together, without what is spared beside.
    pub(super) memory: Option<Bytes>,
}

impl Cohort {
    pub(super) fn create(hierarchy: &Hierarchy, caps: &Caps, spare: Bytes) -> Result<Self, CgroupError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let why = || CgroupError::Absent { why: "/proc does not tell of this process".to_owned() };
        let owner = owner::Owner::own().ok_or_else(why)?;
        let name = owner.name(owner::COHORT, COUNT.fetch_add(1, Ordering::Relaxed));
        let place = Place { name: format!("{}/{name}", super::PARENT), memory: caps.memory };
        let with_spare = |memory: Bytes| Bytes::new(memory.get().saturating_add(spare.get()));
        let caps = Caps { memory: caps.memory.map(with_spare), ..*caps };
        match hierarchy {
            Hierarchy::V2(tree) => tree.make_cohort(&place.name, &caps)?,
            Hierarchy::V1(tree) => tree.make_cohort(&place.name, &caps)?,
            Hierarchy::None { why } => return Err(CgroupError::Absent { why: why.clone() }),
        }
        Ok(Self { hierarchy: hierarchy.clone(), place })
    }

    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Cohort {
    fn drop(&mut self) {
        self.hierarchy.remove_cohort(&self.place);
    }
}
