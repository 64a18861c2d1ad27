//! The workers as the spawner has them, and what it has still to remove of those that were killed.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use super::note::Notes;
use crate::{cgroup::Hierarchy, request::SandboxId, state, sys::process};

/// After that long what cannot be removed is left to `fumehood cleanup`.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Crew {
    pub(super) notes: Notes,
    /// By their process ids.
    members: BTreeMap<i32, Member>,
    /// Workers ever made.
    made: u64,
    free: Vec<usize>,
    fallen: Vec<Fallen>,
}

#[derive(Debug)]
struct Member {
    number: u64,
    place: usize,
}

/// A sandbox whose worker is gone.
#[derive(Debug)]
struct Fallen {
    id: SandboxId,
    /// When it could not be removed for the first time.
    since: Option<Instant>,
}

impl Crew {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { notes: Notes::new()?, members: BTreeMap::new(), made: 0, free: Vec::new(), fallen: Vec::new() })
    }

    /// Where the next worker's note will be.
    pub(super) fn place(&self) -> usize {
        // All that were ever used are either free or a member's.
        self.free.last().copied().unwrap_or(self.members.len())
    }

    /// The number by which the owner knows it.
    pub(super) fn add(&mut self, pid: i32, place: usize) -> u64 {
        self.free.pop();
        self.made += 1;
        self.members.insert(pid, Member { number: self.made, place });
        self.made
    }

    pub(super) fn signal(&self, number: u64, signal: i32) {
        let mut members = self.members.iter();
        if let Some((pid, _)) = members.find(|(_, member)| member.number == number) {
            send(*pid, signal);
        }
    }

    pub(super) fn signal_all(&self, signal: i32) {
        self.members.keys().for_each(|pid| send(*pid, signal));
    }

    /// A child has ended and was waited for.
    pub(super) fn lost(&mut self, pid: i32) {
        // Others are what killed workers left us.
        let Some(member) = self.members.remove(&pid) else { return };
        for id in self.notes.read(member.place) {
            self.fallen.push(Fallen { id, since: None });
            _ = self.notes.clear(member.place);
        }
        self.free.push(member.place);
    }

    /// Workers, and sandboxes of those that are gone.
    pub(super) fn left(&self) -> usize {
        self.members.len() + self.fallen.len()
    }

    pub(super) fn has_fallen(&self) -> bool {
        !self.fallen.is_empty()
    }

    /// Removes what can be removed by now.
    pub(super) fn tidy(&mut self) {
        if self.fallen.is_empty() {
            return;
        }
        let hierarchy = Hierarchy::detect();
        self.fallen.retain_mut(|fallen| {
            let removed = match state::forget(&fallen.id) {
                Ok(true) => hierarchy.remove(&fallen.id).is_ok(),
                // Another sandbox of that name: nothing of ours can be there.
                Ok(false) => true,
                Err(_) => false,
            };
            !removed && fallen.since.get_or_insert_with(Instant::now).elapsed() < PATIENCE
        });
    }
}

/// To a child of ours that nobody else waits for: its number is its own.
fn send(pid: i32, signal: i32) {
    if let Ok(process) = process::open_process(pid) {
        _ = process::signal(process.as_fd(), signal);
    }
}
