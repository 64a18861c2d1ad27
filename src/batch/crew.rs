//! The workers of a batch: who is idle, who has what, and how many there may be.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use super::{
    apply::Images,
    attempt,
    error::BatchError,
    idle::{GET_READY, Idle},
    settings::Settings,
    together,
};
use crate::{
    Sandbox,
    cgroup::Place,
    pool::Single,
    spawn::{Jobs, SpawnError, Spawner, Worker},
    sys::Errno,
};

/// Workers and the process that makes them.
#[derive(Debug)]
pub(super) struct Crew<T> {
    spawner: Spawner,
    idle: Idle,
    /// So many of them get ready for their next, while there is a CPU without a job.
    ahead: usize,
    cpus: usize,
    /// When the first job was given to one since somebody was told to get ready.
    given: Option<Instant>,
    /// The limit of a job's memory.
    memory: fn(&T) -> u64,
    pub(super) busy: Vec<(Worker, T)>,
    most: usize,
    /// More than there could be had.
    short: bool,
    /// Descriptors that are kept free of workers: for what goes to them and comes from them as a file, and for input.
    reserve: Vec<OwnedFd>,
}

const RESERVED: usize = 4;
/// A job that has just begun is not disturbed by the making of sandboxes for others; most have ended by then.
const UNDISTURBED: Duration = Duration::from_millis(3);

/// What became of something that was given.
pub(super) enum Answer<T> {
    Done(T, Vec<u8>),
    /// Its worker died.
    Lost(T),
}

/// Forks the process that makes the workers: this process must have no threads yet.
pub(super) fn start(settings: &Settings, cohort: Option<&Place>) -> Result<Spawner, SpawnError> {
    Spawner::start_within(cohort, |jobs: &mut Jobs| {
        let mut images = Images::default();
        let mut ahead = Single::new(settings.ahead.clone());
        ahead.join(cohort.cloned());
        while let Some(task) = jobs.next() {
            if task == GET_READY {
                jobs.make_ahead(&mut ahead);
                continue;
            }
            let run = &mut |sandbox: &mut Sandbox| jobs.run_ahead(&mut ahead, sandbox, &mut attempt::Deaf);
            let done = attempt::run(&task, settings, &mut images, run);
            jobs.answer(&done);
            jobs.tidy(&mut ahead);
        }
    })
}

impl<T> Crew<T> {
    pub(super) fn new(spawner: Spawner, most: usize, ahead: usize, memory: fn(&T) -> u64) -> Self {
        let cpus = together::cpus();
        let (idle, busy, reserve) = (Idle::default(), Vec::new(), Vec::new());
        let mut crew = Self { spawner, idle, ahead, cpus, given: None, memory, busy, most, short: false, reserve };
        crew.keep_in_reserve();
        crew
    }

    /// With less than this nothing could be told to a worker, so there are no more of them then.
    fn keep_in_reserve(&mut self) {
        while self.reserve.len() < RESERVED && !self.short {
            match self.spawner.as_fd().try_clone_to_owned() {
                Ok(held) => self.reserve.push(held),
                Err(_) => self.runs_short(),
            }
        }
    }

    fn runs_short(&mut self) {
        self.short = true;
        self.reserve.clear();
    }

    /// Has sandboxes made for some of the next `jobs`, where there is a CPU without a job and so much memory: at full load
    /// it would only take from the jobs what it saves them.
    pub(super) fn get_ready(&mut self, jobs: usize, memory: u64) {
        if self.undisturbed().is_some() {
            return;
        }
        self.given = None;
        let spare = self.cpus.saturating_sub(self.busy.len());
        let count = self.ahead.min(spare).min(jobs);
        self.idle.get_ready(count, memory);
        // If all that there are have jobs, the next one would find none but those that have just begun to get ready again.
        let more = count > 0 && !self.short && self.busy.len() < self.most + self.ahead;
        let Some((_, what)) = self.busy.last().filter(|_| more && self.idle.is_empty()) else { return };
        let last = (self.memory)(what);
        if let Ok(worker) = self.worker() {
            self.idle.push_back(worker, last);
            self.idle.get_ready(count, memory);
        }
    }

    /// How long nobody gets ready yet, where somebody is to.
    pub(super) fn undisturbed(&self) -> Option<Duration> {
        let wants = self.ahead > 0 && (1..self.cpus).contains(&self.busy.len());
        let left = UNDISTURBED.saturating_sub(self.given.filter(|_| wants)?.elapsed());
        (!left.is_zero()).then_some(left)
    }

    /// One more.
    fn worker(&mut self) -> Result<Worker, SpawnError> {
        let worker = self.spawner.worker()?;
        // Whether it took the last descriptor.
        if self.spawner.as_fd().try_clone_to_owned().is_err() {
            self.runs_short();
        }
        Ok(worker)
    }

    /// What waits for jobs to come gives way to one that is there, beside which so much memory is left.
    pub(super) fn leave_room(&mut self, memory: u64) {
        self.idle.give_up(memory);
    }

    /// Whether one more worker would only be one more.
    fn has_enough(&self) -> bool {
        let all = self.idle.len() + self.busy.len() >= self.most + self.ahead;
        self.short || all || self.idle.has_ready() || self.busy.len() + 1 >= self.cpus
    }

    pub(super) fn has_room(&self) -> bool {
        self.busy.len() < self.most && (!self.short || !self.idle.is_empty())
    }

    /// Gives a task to a worker, or back.
    pub(super) fn give(&mut self, what: T, task: &[u8]) -> Result<Option<T>, BatchError> {
        loop {
            let was_short = self.short;
            let idle = if self.has_enough() { self.idle.pop_front() } else { None };
            let mut worker = match idle {
                Some(worker) => worker,
                None => match self.worker() {
                    Ok(worker) => worker,
                    // Processes or descriptors are short: with those that there are it goes on.
                    Err(SpawnError::Worker { .. }) if !self.busy.is_empty() || !self.idle.is_empty() => {
                        self.runs_short();
                        if !self.idle.is_empty() {
                            continue;
                        }
                        return Ok(Some(what));
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            match worker.give(task) {
                Ok(()) => {
                    self.given.get_or_insert_with(Instant::now);
                    self.busy.push((worker, what));
                    return Ok(None);
                }
                // It died while it was idle.
                Err(SpawnError::Died) => {}
                // It had nothing of it, and will have it when there is room.
                Err(SpawnError::Speak { errno: Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM })
                    if !was_short || !self.busy.is_empty() =>
                {
                    self.runs_short();
                    self.idle.push_front(worker, (self.memory)(&what));
                    if !was_short {
                        continue;
                    }
                    return Ok(Some(what));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What has come from the worker at this place of `busy`, if anything. It is gone from there then.
    pub(super) fn take(&mut self, place: usize) -> Option<Answer<T>> {
        match self.busy[place].0.take() {
            Ok(None) => None,
            Ok(Some(answer)) => {
                let (worker, what) = self.busy.swap_remove(place);
                self.idle.push_back(worker, (self.memory)(&what));
                Some(Answer::Done(what, answer))
            }
            Err(_) => {
                let (_, what) = self.busy.swap_remove(place);
                // Perhaps it was too many.
                self.short = false;
                self.keep_in_reserve();
                Some(Answer::Lost(what))
            }
        }
    }

    pub(super) fn spawner(&self) -> impl AsFd + '_ {
        self.spawner.as_fd()
    }
}

/// Lets so many begin in a second, evenly.
#[derive(Debug)]
pub(super) struct Rate {
    every: Option<Duration>,
    next: Instant,
}

impl Rate {
    pub(super) fn new(per_second: Option<f64>) -> Self {
        Self { every: per_second.map(|rate| Duration::from_secs_f64(1.0 / rate)), next: Instant::now() }
    }

    /// How long to wait; nothing once it is time.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.every?;
        let left = self.next.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn begun(&mut self) {
        if let Some(every) = self.every {
            // What was not begun in time is not made up for.
            self.next = self.next.max(Instant::now() - every) + every;
        }
    }
}
