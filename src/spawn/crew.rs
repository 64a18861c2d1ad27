//! The workers as the spawner has them, and what it has still to remove of those that were killed.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use super::note::Notes;
use crate::{
    cgroup::{Hierarchy, Place},
    request::SandboxId,
    state,
    sys::process,
};

/// After that long what cannot be removed is left to `fumehood cleanup`.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it looks at them at a time.
const TURN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Crew {
    pub(super) notes: Notes,
    /// What their sandboxes are in.
    cohort: Option<Place>,
    /// By their process ids.
    members: BTreeMap<i32, Member>,
    /// Workers ever made.
    made: u64,
    free: Vec<usize>,
    fallen: VecDeque<Fallen>,
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
    /// When it was first looked at: with many before it that may be long after its worker's end.
    since: Option<Instant>,
}

impl Crew {
    pub(super) fn new(cohort: Option<Place>) -> io::Result<Self> {
        let (members, free, fallen) = (BTreeMap::new(), Vec::new(), VecDeque::new());
        Ok(Self { notes: Notes::new()?, cohort, members, made: 0, free, fallen })
    }

    fn hierarchy(&self) -> Hierarchy {
        Hierarchy::detect_within(self.cohort.as_ref())
    }

    /// Removes what all of them were in: its owner may be gone.
    pub(super) fn disband(&self) {
        if let Some(place) = &self.cohort {
            Hierarchy::detect().remove_cohort(place);
        }
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
    pub(super) fn lost(&mut self, ended: &process::Ended) {
        // Others are what killed workers left us.
        let Some(member) = self.members.remove(&ended.pid) else { return };
        if ended.status != 0 {
            let kept = self.hierarchy().kept_by(ended.pid);
            self.fallen.extend(kept.into_iter().map(|id| Fallen { id, since: None }));
        }
        for id in self.notes.read(member.place) {
            self.fallen.push_back(Fallen { id, since: None });
            _ = self.notes.clear(member.place);
        }
        self.free.push(member.place);
    }

    pub(super) fn has_fallen(&self) -> bool {
        !self.fallen.is_empty()
    }

    /// Workers, and what is left of those that fell.
    pub(super) fn left(&self) -> usize {
        self.members.len() + self.fallen.len()
    }

    /// Removes what can be removed by now, in turns: others wait to be heard.
    pub(super) fn tidy(&mut self) {
        if self.fallen.is_empty() {
            return;
        }
        let hierarchy = self.hierarchy();
        let began = Instant::now();
        for _ in 0..self.fallen.len() {
            if began.elapsed() > TURN {
                break;
            }
            let Some(mut fallen) = self.fallen.pop_front() else { break };
            let removed = match state::forget(&fallen.id) {
                Ok(true) => hierarchy.remove_now(&fallen.id).is_ok(),
                // Another sandbox of that name: nothing of ours can be there.
                Ok(false) => true,
                Err(_) => false,
            };
            let since = *fallen.since.get_or_insert_with(Instant::now);
            if !removed && since.elapsed() < PATIENCE {
                self.fallen.push_back(fallen);
            }
        }
    }
}

/// To a child of ours that nobody else waits for: its number is its own.
fn send(pid: i32, signal: i32) {
    if let Ok(process) = process::open_process(pid) {
        _ = process::signal(process.as_fd(), signal);
    }
}
