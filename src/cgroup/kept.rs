//! Leaves of v1 that are used again: by one who runs one sandbox after another.
//!
//! Making and removing a memory group walks every file system that is mounted anywhere, so that it costs the more the more
//! sandboxes are alive, and each takes several passes of the kernel's own threads. What there is to a leaf is counters, limits and
//! the processes in it, so a leaf is as good as new when nobody is in it and all of these are as they were:
//!
//! - nobody is in any of its groups, and none of its limits was ever hit: else it is removed;
//! - no limit was changed, and the next one wants the same; the CPU quota is filled up again, so that what one has used
//!   of a period the next one does not lack;
//! - the peak of memory and the CPU time are set back to what there is, and to nothing;
//! - what the kernel has not given back yet of what was charged to it is next to nothing ([`most_left`]): the kernel itself
//!   counts in steps of 256 KiB a CPU. Files that were read first by one sandbox are charged until they are forgotten: a leaf
//!   with much of that is removed, never made to forget.
//!
//! Nobody inside ever sees a leaf: no cgroup file system is mounted there, and `/proc/PID/cgroup` begins at it.
//!
//! A leaf that waits is called after the process that keeps it, so that whoever cleans up knows whether that is alive. It is
//! let go of well before the age at which an empty one is taken for one that nobody removed.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit};

use super::{
    Caps, CgroupError, Controller, Events,
    owner::{KEPT, Owner},
    v1::{Leaf, Tree},
};

/// How many wait at most. The one that has waited longest is the next: the kernel gives back in its own time.
const MOST: usize = 8;
/// Each has three descriptors: whoever may have fewer than this in all has another use for them.
const ENOUGH: u64 = 128;
/// How long a leaf is used again.
const LIFE: Duration = Duration::from_secs(20);

/// What may be left in a leaf whose limit is this.
fn most_left(caps: &Caps) -> u64 {
    caps.memory.map_or(0, |limit| (limit.get() / 128).min(512 << 10))
}

/// Those of one process.
#[derive(Debug)]
pub(super) struct Shelf {
    keeper: Owner,
    count: AtomicU64,
    waiting: Mutex<VecDeque<Kept>>,
}

/// A leaf without its tree, which has it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) made: Vec<usize>,
    pub(super) tasks: Vec<OwnedFd>,
    pub(super) caps: Caps,
    pub(super) born: Instant,
}

impl Shelf {
    /// `None`: none can be kept.
    pub(super) fn new() -> Option<Self> {
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
        if descriptors < ENOUGH {
            return None;
        }
        Some(Self { keeper: Owner::own()?, count: AtomicU64::new(0), waiting: Mutex::default() })
    }

    /// One that is as good as new.
    pub(super) fn take(&self, tree: &Tree, caps: &Caps) -> Option<Kept> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.front().is_some_and(|kept| kept.born.elapsed() > LIFE) {
            tree.forget(waiting.pop_front()?);
        }
        let place = waiting.iter().position(|kept| kept.caps == *caps && has_settled(tree, kept))?;
        let kept = waiting.remove(place)?;
        if renew(tree, &kept).is_ok() {
            return Some(kept);
        }
        tree.forget(kept);
        None
    }

    /// Keeps it, or hands it back when it is not fit to be kept.
    pub(super) fn put(&self, tree: &Tree, leaf: &Leaf, mut kept: Kept) -> Option<Kept> {
        let is_clean = kept.born.elapsed() < LIFE
            && leaf.events() == Ok(Events::default())
            && kept.made.iter().all(|index| tree.is_vacant(*index, &kept.name));
        if !is_clean || most_left(&kept.caps) == 0 {
            return Some(kept);
        }
        let called_so = kept.name.rsplit('/').next().is_some_and(|name| Owner::of(KEPT, name).is_some());
        if !called_so {
            let name = self.keeper.name(KEPT, self.count.fetch_add(1, Ordering::Relaxed));
            let name = format!("{}/{name}", tree.parent());
            if tree.rename(&mut kept, &name).is_err() {
                return Some(kept);
            }
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST
            && let Some(oldest) = waiting.pop_front()
        {
            tree.forget(oldest);
        }
        waiting.push_back(kept);
        None
    }

    pub(super) fn drain(&mut self) -> Vec<Kept> {
        self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

fn has_settled(tree: &Tree, kept: &Kept) -> bool {
    let used = tree.read_number(Controller::Memory, &kept.name, "memory.usage_in_bytes");
    used.is_some_and(|used| used <= most_left(&kept.caps))
}

fn renew(tree: &Tree, kept: &Kept) -> Result<(), CgroupError> {
    if let Some(cpu) = kept.caps.cpu {
        tree.set_cpu(&kept.name, cpu)?;
    }
    if kept.caps.count_cpu_time {
        tree.write(Controller::CpuTime, &kept.name, "cpuacct.usage", "0")?;
    }
    tree.forget_peaks(&kept.name)
}
