//! Hands jobs to workers and takes their results, in one thread that waits for everything at once.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Progress, Watch,
    attempt::{self, Finished, Refused, Task},
    crew::{Answer, Crew, Rate},
    error::BatchError,
    expect::hex,
    job::{Job, Known},
    journal::Done,
    output::{Order, Output},
    settings::{Pace, Settings},
    socket,
    source::{Jobs, Next},
    summary::Summary,
    together::Together,
};
use crate::{Error, Verdict, request::Bytes, sys::process};

/// Results that wait for one before them, or for their reader; beyond it nothing is begun but what they wait for.
const MOST_HELD: usize = 64 << 20;
/// How long lines are read before something else is looked at.
const READING: Duration = Duration::from_millis(20);
/// How long one who does not read its results is waited for in the end.
const UNREAD: Duration = Duration::from_secs(2);
/// Jobs that are read ahead.
const MOST_READ: usize = 8 << 20;
const TICK: Duration = Duration::from_millis(100);

/// A job between its line and its result.
#[derive(Debug)]
struct Pending {
    /// Its place among the results.
    number: u64,
    from: u64,
    task: Task,
    bytes: Vec<u8>,
    memory: u64,
    /// What it came to the last time, where it is to be tried again.
    last: Option<Finished>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Going,
    /// What runs is ended in peace, and nothing new begun.
    Ending,
}

pub(super) struct Run<'a> {
    settings: &'a Settings,
    pace: &'a Pace,
    jobs: Jobs,
    input_ended: bool,
    crew: Crew<Pending>,
    read: VecDeque<Pending>,
    read_bytes: usize,
    together: Together,
    memory: u64,
    memory_used: u64,
    rate: Rate,
    /// Of each who sends jobs.
    orders: HashMap<u64, Order<Finished>>,
    output: Output<'a>,
    done: Done,
    /// Where `done` is from.
    journal: PathBuf,
    summary: Summary,
    state: State,
    signals: Option<BorrowedFd<'a>>,
    watch: &'a mut dyn Watch,
    total: Option<u64>,
}

impl<'a> Run<'a> {
    #[allow(clippy::too_many_arguments, reason = "each is another thing, and there is one caller")]
    pub(super) fn new(
        settings: &'a Settings,
        pace: &'a Pace,
        together: Together,
        jobs: Jobs,
        spawner: crate::spawn::Spawner,
        output: Output<'a>,
        (journal, done): (&Path, Done),
        summary: Summary,
        signals: Option<BorrowedFd<'a>>,
        watch: &'a mut dyn Watch,
    ) -> Self {
        let total = watch.wants_total().then(|| jobs.count()).flatten();
        Self {
            settings,
            pace,
            jobs,
            input_ended: false,
            crew: Crew::new(spawner, together.workers, settings.ahead.most, |job| job.memory),
            read: VecDeque::new(),
            read_bytes: 0,
            memory: together.memory.map_or(u64::MAX, Bytes::get),
            together,
            memory_used: 0,
            rate: Rate::new(pace.rate),
            orders: HashMap::new(),
            output,
            done,
            journal: journal.to_owned(),
            summary,
            state: State::Going,
            signals,
            watch,
            total,
        }
    }

    pub(super) fn run(mut self) -> Result<Summary, BatchError> {
        loop {
            let mut more = self.read_jobs()?;
            self.begin()?;
            self.get_ready();
            self.settle()?;
            more &= self.wants_jobs();
            self.output.flush()?;
            let progress = Progress { summary: &self.summary, total: self.total, running: self.crew.busy.len() };
            self.watch.progress(&progress);
            let no_more = self.state == State::Ending || (self.input_ended && self.read.is_empty());
            if no_more && self.crew.busy.is_empty() {
                if self.state == State::Ending {
                    self.output.drop_idle(UNREAD);
                }
                if self.output.waiting() == 0 {
                    break;
                }
            }
            if !self.wait(more)? {
                // Asked twice: what runs is killed with its workers, and has no results.
                break;
            }
        }
        self.output.finish()?;
        self.summary.end();
        Ok(self.summary)
    }

    /// Takes in what has come, as far as it is needed soon. Whether there may be more of that.
    fn read_jobs(&mut self) -> Result<bool, BatchError> {
        let began = Instant::now();
        while self.wants_jobs() {
            if began.elapsed() > READING {
                break;
            }
            let orders = &self.orders;
            match self.jobs.next(&|from| held(orders, from))? {
                Next::Wait => return Ok(false),
                Next::End => self.input_ended = true,
                Next::Some(job) => {
                    if self.done.has(job.line, &job.sha256, &self.journal)? {
                        continue;
                    }
                    let from = job.from;
                    let task = Task { from, line: job.line, sha256: hex(&job.sha256), attempt: 1 };
                    let ordered = self.pace.ordered;
                    let number = if ordered { self.orders.entry(from).or_default().number() } else { 0 };
                    let template = self.settings.template.its_limits();
                    let read = job.job.map(|(job, bytes)| (job.over(&self.settings.defaults), bytes));
                    let read = match read {
                        Ok((job, bytes)) => match self.settings.memory(&job).and_then(|most| self.together.admit(most))
                        {
                            Ok(memory) => Ok((memory.get(), bytes)),
                            Err(error) => Err((Refused::Job(Box::new(job)), error)),
                        },
                        Err((known, error)) => Err((known.map_or(Refused::Unknown, Refused::Known), error)),
                    };
                    match read {
                        Ok((memory, bytes)) => {
                            self.read_bytes += bytes.len();
                            self.read.push_back(Pending { number, from, task, bytes, memory, last: None });
                        }
                        Err((refused, error)) => {
                            let refused = attempt::refused(&task, &refused, &error, template);
                            self.finished(from, number, refused)?;
                        }
                    }
                }
            }
        }
        Ok(true)
    }

    fn wants_jobs(&self) -> bool {
        // What cannot be begun is not in the way of what others send.
        let ready = self.read.iter().filter(|next| next.from == 0 || self.may_begin(next));
        let most = self.read_bytes >= MOST_READ && self.read.iter().any(|next| self.may_begin(next));
        self.state == State::Going && !self.input_ended && !most && ready.count() < 16 && !self.is_backed_up(0)
    }

    /// Whether what one has not been given yet is too much.
    fn is_backed_up(&self, from: u64) -> bool {
        let most = if from == 0 { MOST_HELD } else { socket::MOST_WAITING };
        held(&self.orders, from) + self.output.waiting_of(from) >= most
    }

    /// What others wait for may begin whatever they come to: without it they would wait for ever.
    fn may_begin(&self, next: &Pending) -> bool {
        let awaited = self.orders.get(&next.from).is_some_and(|order| order.is_next(next.number) && order.size() > 0);
        awaited || !self.is_backed_up(next.from)
    }

    /// When nothing more is begun, what was to be tried again has the result that it had.
    fn settle(&mut self) -> Result<(), BatchError> {
        if self.state == State::Ending {
            for pending in std::mem::take(&mut self.read) {
                if let Some(last) = pending.last {
                    self.finished(pending.from, pending.number, last)?;
                }
            }
            self.read_bytes = 0;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), BatchError> {
        while self.state == State::Going && self.crew.has_room() {
            let Some(place) = self.read.iter().position(|next| self.may_begin(next)) else { break };
            let next = &self.read[place];
            // One alone may have more than there is.
            let fits = self.memory_used + next.memory <= self.memory || self.crew.busy.is_empty();
            if !fits || self.rate.wait().is_some() {
                break;
            }
            self.crew.leave_room(self.memory.saturating_sub(self.memory_used + next.memory));
            let Some(next) = self.read.remove(place) else { break };
            self.read_bytes -= next.bytes.len();
            if !self.give(next)? {
                break;
            }
            self.rate.begun();
        }
        Ok(())
    }

    /// For jobs that are there, or may still come.
    fn get_ready(&mut self) {
        let jobs = if self.input_ended { self.read.len() } else { usize::MAX };
        if self.state == State::Going {
            self.crew.get_ready(jobs, self.memory.saturating_sub(self.memory_used));
        }
    }

    fn give(&mut self, pending: Pending) -> Result<bool, BatchError> {
        let task = pending.task.pack(&pending.bytes);
        let memory = pending.memory;
        if let Some(back) = self.crew.give(pending, &task)? {
            self.read_bytes += back.bytes.len();
            self.read.push_front(back);
            return Ok(false);
        }
        self.memory_used += memory;
        Ok(true)
    }

    /// Waits until something happens, and takes it; with `more` to be read it only looks. `false` when it is to end at
    /// once.
    fn wait(&mut self, more: bool) -> Result<bool, BatchError> {
        let mut fds: Vec<(i32, i16)> =
            self.crew.busy.iter().map(|(worker, _)| (worker.as_fd().as_raw_fd(), libc::POLLIN)).collect();
        let workers = fds.len();
        fds.push((self.crew.spawner().as_fd().as_raw_fd(), libc::POLLIN));
        fds.push((self.signals.map_or(-1, |fd| fd.as_raw_fd()), libc::POLLIN));
        let (output, events) = self.output.fd().map_or((-1, 0), |(fd, events)| (fd.as_raw_fd(), events));
        fds.push((output, events));
        fds.extend(self.jobs.fds(self.wants_jobs(), &|from| held(&self.orders, from)));
        let mut ready: Vec<_> =
            fds.iter().map(|(fd, events)| libc::pollfd { fd: *fd, events: *events, revents: 0 }).collect();
        // A connection that does not read is let go of after a while, and one that could not be taken is.
        let ending = self.state == State::Ending && self.crew.busy.is_empty();
        let ticks = self.watch.ticks() || ending || self.output.is_crowded();
        let rate = self.rate.wait().filter(|_| !self.read.is_empty());
        let timeout = [rate, ticks.then_some(TICK), self.crew.undisturbed()].into_iter().flatten().min();
        let timeout = if more { Some(Duration::ZERO) } else { timeout };
        match process::poll(&mut ready, timeout) {
            Ok(_) | Err(crate::sys::Errno::EINTR) => {}
            Err(errno) => return Err(BatchError::System { what: "wait for the workers", source: errno.into() }),
        }
        if ready[workers + 2].revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 {
            let source = std::io::ErrorKind::BrokenPipe.into();
            return Err(BatchError::Output { source });
        }
        if let Some(signal) = self.signals.filter(|_| ready[workers + 1].revents != 0).and_then(process::read_signal) {
            let again = self.summary.interrupted.replace(signal).is_some();
            if again {
                return Ok(false);
            }
            self.state = State::Ending;
            self.watch.interrupted(self.crew.busy.len());
        }
        // From the end: the place of one that is taken is filled with the last.
        for place in (0..workers).rev().filter(|place| ready[*place].revents != 0) {
            match self.crew.take(place) {
                None => {}
                Some(Answer::Done(pending, answer)) => match Finished::unpack(answer) {
                    Some(finished) => self.answered(pending, finished)?,
                    None => self.lost(pending)?,
                },
                Some(Answer::Lost(pending)) => self.lost(pending)?,
            }
        }
        if ready[workers].revents != 0 {
            return Err(crate::spawn::SpawnError::Lost.into());
        }
        Ok(true)
    }

    fn lost(&mut self, pending: Pending) -> Result<(), BatchError> {
        let error = Error::new("the process that ran it died").with_hint("perhaps for want of memory: see `dmesg`");
        let refused = match Job::parse(&pending.bytes) {
            Ok(job) => Refused::Job(Box::new(job.over(&self.settings.defaults))),
            Err(_) => Known::of(&pending.bytes).map_or(Refused::Unknown, Refused::Known),
        };
        let refused = attempt::refused(&pending.task, &refused, &error, self.settings.template.its_limits());
        self.answered(pending, refused)
    }

    fn answered(&mut self, mut pending: Pending, finished: Finished) -> Result<(), BatchError> {
        self.memory_used -= pending.memory;
        let again = finished.verdict == Verdict::SetupError && pending.task.attempt <= self.pace.retries;
        if again && self.state == State::Going {
            pending.task.attempt += 1;
            pending.last = Some(finished);
            self.read_bytes += pending.bytes.len();
            self.read.push_front(pending);
            return Ok(());
        }
        self.finished(pending.from, pending.number, finished)
    }

    fn finished(&mut self, from: u64, number: u64, finished: Finished) -> Result<(), BatchError> {
        if self.pace.fail_fast && !finished.good && self.state == State::Going {
            self.state = State::Ending;
            self.summary.stopped = true;
        }
        if !self.pace.ordered {
            return self.write(from, finished);
        }
        let order = self.orders.entry(from).or_default();
        order.put(number, finished.line.len(), finished);
        while let Some(finished) = self.orders.get_mut(&from).and_then(Order::next) {
            self.write(from, finished)?;
        }
        if from != 0 && self.orders.get(&from).is_some_and(Order::is_idle) {
            // It counts from the beginning again, should there be more.
            self.orders.remove(&from);
        }
        Ok(())
    }

    /// What is counted is what is written: the rest is to be done again.
    fn write(&mut self, from: u64, finished: Finished) -> Result<(), BatchError> {
        self.output.write(from, finished.line)?;
        self.summary.add(finished.verdict, finished.passed, finished.good, finished.took);
        Ok(())
    }
}

/// Of the results of one who sends jobs, how much waits for one before them.
fn held(orders: &HashMap<u64, Order<Finished>>, from: u64) -> usize {
    orders.get(&from).map_or(0, Order::size)
}
