//! The workers that have no job: which of them have been told to make a sandbox for their next, and what memory that may
//! take.

use std::collections::VecDeque;

use crate::spawn::Worker;

/// What a worker hears that is to make a sandbox ahead: no task is empty.
pub(super) const GET_READY: &[u8] = b"";

#[derive(Debug, Default)]
pub(super) struct Idle(VecDeque<One>);

#[derive(Debug)]
struct One {
    worker: Worker,
    /// The limit of its last job, which a sandbox that it makes has too.
    memory: u64,
    /// It has been told to make one. Whether it has is its own affair.
    told: bool,
}

impl Idle {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has_ready(&self) -> bool {
        self.ready().next().is_some()
    }

    fn ready(&self) -> impl Iterator<Item = &One> {
        self.0.iter().filter(|one| one.told)
    }

    /// Its last job had so much memory.
    pub(super) fn push_back(&mut self, worker: Worker, memory: u64) {
        self.0.push_back(One { worker, memory, told: false });
    }

    /// It could not be given its job, which has so much memory, and is the next to be given one.
    pub(super) fn push_front(&mut self, worker: Worker, memory: u64) {
        self.0.push_front(One { worker, memory, told: false });
    }

    /// The one for the next job: that which has had the most time to get ready, if any has been told to.
    pub(super) fn pop_front(&mut self) -> Option<Worker> {
        let place = self.0.iter().position(|one| one.told).unwrap_or(0);
        self.0.remove(place).map(|one| one.worker)
    }

    /// Has workers get ready until so many are, or their sandboxes may take so much memory.
    pub(super) fn get_ready(&mut self, count: usize, memory: u64) {
        let mut missing = count.saturating_sub(self.ready().count());
        let mut taken: u64 = self.ready().map(|one| one.memory).sum();
        self.0.retain_mut(|one| {
            if one.told || missing == 0 || one.memory.saturating_add(taken) > memory {
                return true;
            }
            missing -= 1;
            taken += one.memory;
            one.told = true;
            // One that is gone cannot be told.
            one.worker.tell(GET_READY).is_ok()
        });
    }

    /// Lets go of those that are ready, but for the one for the next job, until their sandboxes take no more than this.
    pub(super) fn give_up(&mut self, memory: u64) {
        while self.ready().skip(1).map(|one| one.memory).sum::<u64>() > memory {
            let Some(last) = self.0.iter().rposition(|one| one.told) else { break };
            self.0.remove(last);
        }
    }
}
