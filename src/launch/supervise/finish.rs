//! From the facts that were gathered while the program ran to the outcome.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use super::{
    super::{
        LaunchError,
        gvisor::{self, End},
        init,
        observer::Observer,
        obstacle::Obstacle,
        protocol::{self, Stage},
        remains::Remains,
        system,
        upper::Upper,
    },
    Supervisor, wait_status,
};
use crate::{
    Error,
    cgroup::{Leaf, Shortage},
    error::Hint,
    plan::StepKind,
    report::{Captured, Compile, Ending, Failure, Outcome, Reason, Stream, Tail, Usage, Verdict, WaitStatus},
    request::Bytes,
    sys::process,
};

/// For what the program sent last, if its servers are slow to take it.
const EGRESS_GRACE: Duration = Duration::from_secs(3);

impl Supervisor<'_> {
    /// All of the sandbox is dead, but perhaps for the init: what is in the pipes is all there will be.
    pub(super) fn finish(mut self, observer: &mut dyn Observer, init_gone: bool) -> Result<Outcome, LaunchError> {
        while let Ok(1..) = process::poll(
            &mut [libc::pollfd { fd: self.running.control.0.as_raw_fd(), events: libc::POLLIN, revents: 0 }],
            Some(Duration::ZERO),
        ) {
            if !self.control_open {
                break;
            }
            self.hear(observer)?;
        }
        self.hear_of_egress(observer);
        (0..2).for_each(|number| self.drain(number, observer));
        let waited = init_gone.then(|| self.running.wait()).transpose();
        let init = waited.map_err(system("wait for the sandbox's init"))?;
        let backstop =
            |init: process::Ended| wait_status(init.status) == WaitStatus::Exited(init::BACKSTOP_STATUS as u8);
        if self.ended.is_none() && init.is_some_and(backstop) {
            self.killed_by.get_or_insert(Reason::Timeout);
        }
        if let Some(failure) = self.failure {
            return match failure.stage {
                Stage::Exec if self.plan.gvisor.is_some() => {
                    let why = format!("runsc cannot be executed: {}", failure.errno.desc());
                    Err(LaunchError::Gvisor { why, log: None })
                }
                Stage::Exec => {
                    // A setup may have had a network.
                    self.end_egress(observer);
                    Ok(self.not_executed(failure))
                }
                _ => Err(LaunchError::at(self.plan, self.step, failure)),
            };
        }
        if self.started.is_none() && self.step == 0 && self.killed_by.is_none() {
            return Err(LaunchError::Lost);
        }
        self.end_egress(observer);
        let tail = if self.killed_by.is_some() { Tail::Cut } else { Tail::Whole };
        let [mut stdout, mut stderr] = [(0, Stream::Stdout), (1, Stream::Stderr)].map(|(number, stream)| {
            let (captured, rest) = self.relay.take(number, tail);
            if !rest.is_empty() {
                // It has ended already: nothing is left to be cancelled.
                _ = observer.output(stream, &rest);
            }
            captured
        });
        self.count()?;
        let (ending, ended_at) = self.ending(init);
        if let Some(errno) = self.relay.not_executed() {
            self.not_run = Some(End::NotExecuted { errno, why: String::new() });
        }
        // Killed for a limit, runsc complains of that.
        let by_a_limit = ending.killed_by.is_some() || ending.oom_kills > 0 || ending.pids_max_hits > 0;
        if let Some(end) = self.not_run.take().filter(|_| !by_a_limit) {
            return self.not_run(end);
        }
        let used = self.counted.map(|(_, used)| used);
        // One that was killed has not told, and its own little is counted with all else.
        let untold = || init.map_or(Duration::ZERO, |init| init.cpu.saturating_sub(self.cpu_before));
        let cpu = self.cpu.unwrap_or_else(untold);
        // Looking now and then misses a program that is quick, and the kernel tells of no more than one process.
        let largest = init.map_or(0, |init| init.peak_resident);
        let watched = self.watch.as_ref().map(|watch| watch.peak_memory().max(largest));
        let kept = self.keep();
        let leaf = self.leaf.as_ref().filter(|_| ending.oom_kills > 0);
        let shortage = leaf.map(Leaf::shortage).and_then(|shortage| not_its_own(shortage, self.limit()));
        let ports = std::mem::take(&mut self.running.ports);
        let remains = Remains::new(self.leaf.take(), self.running);
        match self.extras.remains.take() {
            Some(place) => *place = Some(remains),
            None => remains.remove()?,
        }
        let (mut verdict, mut exit_code, mut signal) = (Verdict::judge(&ending), ending.exit_code(), ending.signal());
        let duration = self.started.map_or(Duration::ZERO, |started| ended_at.saturating_duration_since(started));
        if self.plan.steps[self.step].kind == StepKind::Setup && self.prepared.is_none() {
            let (stdout, stderr) = (stdout.clone(), stderr.clone());
            self.prepared = Some(Compile { verdict, exit_code, signal, stdout, stderr, duration });
        }
        let before = [&self.prepared, &self.compile].into_iter().flatten();
        if let Some(failed) = before.into_iter().find(|step| step.verdict != Verdict::Ok) {
            (verdict, exit_code, signal) = (failed.verdict, failed.exit_code, failed.signal);
            (stdout, stderr) = (failed.stdout.clone(), failed.stderr.clone());
        }
        Ok(Outcome {
            id: self.plan.id.clone(),
            runtime: self.extras.runtime.take(),
            isolation: self.plan.isolation(),
            verdict,
            exit_code,
            signal,
            stdout,
            stderr,
            duration,
            setup: self.setup,
            usage: Usage {
                cpu: used.and_then(|used| used.cpu_time).unwrap_or(cpu),
                peak_memory_bytes: used.and_then(|used| used.peak_memory).map(|bytes| bytes.get()).or(watched),
            },
            limits: self.plan.limits.clone(),
            controls: (self.step > 0 || self.started.is_some()).then_some(self.controls),
            denials: self.denials,
            files: self.files,
            error: shortage
                .filter(|_| verdict == Verdict::Oom)
                .or_else(|| self.fetch_error.map(|error| Failure::fetch(&error.into_error())))
                .or(kept.err()),
            prepared: self.prepared,
            compile: self.compile,
            kept: None,
            ports,
        })
    }

    /// Of the step's memory.
    fn limit(&self) -> Bytes {
        self.plan.steps[self.step].limits.memory.unwrap_or(self.plan.limits.memory)
    }

    /// A program that ended by itself may have sent something at its very end, which is not out yet: until when it has
    /// time for that.
    pub(super) fn begin_to_drain_egress(&self) -> Option<Instant> {
        let egress = self.running.egress.as_ref().filter(|_| self.killed_by.is_none())?;
        let left = self.timeout().zip(self.started).map(|(timeout, started)| timeout.saturating_sub(started.elapsed()));
        let grace = left.map_or(EGRESS_GRACE, |left| left.min(EGRESS_GRACE));
        egress.drain(grace);
        Some(Instant::now() + grace)
    }

    /// Its network namespace is there meanwhile.
    pub(super) fn drain_egress(&mut self, until: Option<Instant>, observer: &mut dyn Observer) {
        let Some(until) = until else { return };
        while let Some(egress) = &self.running.egress
            && !egress.is_drained()
            && self.killed_by.is_none()
        {
            let left = until.saturating_duration_since(Instant::now());
            let ready = |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let mut fds: Vec<_> = std::iter::once(egress.as_fd()).chain(self.extras.signals).map(ready).collect();
            if left.is_zero() || process::poll(&mut fds, Some(left)).is_err() {
                break;
            }
            self.hear_of_egress(observer);
            self.heed_signal();
        }
        self.hear_of_egress(observer);
    }

    /// What is open now is cut, and what there is to be told of it is told.
    fn end_egress(&mut self, observer: &mut dyn Observer) {
        let Some(mut egress) = self.running.egress.take() else { return };
        for contact in egress.end() {
            self.tell_of(&contact, observer);
        }
        // Its thread is waited for with all else that remains.
        self.running.egress = Some(egress);
    }

    /// All processes of the sandbox are gone, so what they wrote is what there will be.
    fn keep(&mut self) -> Result<(), Failure> {
        let (Some(dir), Some(namespace)) = (&self.upper, &self.running.namespace) else { return Ok(()) };
        let Some(keeper) = self.extras.keeper.take() else { return Ok(()) };
        (keeper.0)(&Upper::new(self.plan, dir.as_fd(), namespace.as_fd())).map_err(|error| Failure::keep(&error))
    }

    pub(super) fn count(&mut self) -> Result<(), LaunchError> {
        if let (None, Some(leaf)) = (self.counted, &self.leaf) {
            let (mut events, mut used) = (leaf.events().map_err(LaunchError::Cgroup)?, leaf.usage());
            let (events_before, used_before) = self.counted_before;
            events.oom_kills = events.oom_kills.saturating_sub(events_before.oom_kills);
            events.pids_max_hits = events.pids_max_hits.saturating_sub(events_before.pids_max_hits);
            used.cpu_time = used.cpu_time.map(|time| time.saturating_sub(used_before.cpu_time.unwrap_or_default()));
            self.counted = Some((events, used));
        }
        Ok(())
    }

    pub(super) fn end_of_step(&mut self) -> Result<Compile, LaunchError> {
        self.count()?;
        let (ending, ended_at) = self.ending(None);
        self.counted = None;
        let mut take = |number| -> Captured { self.relay.take(number, Tail::Whole).0 };
        Ok(Compile {
            verdict: Verdict::judge(&ending),
            exit_code: ending.exit_code(),
            signal: ending.signal(),
            stdout: take(0),
            stderr: take(1),
            duration: self.started.map_or(Duration::ZERO, |started| ended_at - started),
        })
    }

    fn ending(&self, init: Option<process::Ended>) -> (Ending, Instant) {
        let events = self.counted.map(|(events, _)| events).unwrap_or_default();
        let (status, at) = match (self.ended, init) {
            (Some(ended), _) => ended,
            (None, Some(init)) => (wait_status(init.status), Instant::now()),
            (None, None) => (WaitStatus::Signaled(libc::SIGKILL as u8), Instant::now()),
        };
        let ending = Ending {
            status,
            killed_by: self.killed_by,
            oom_kills: events.oom_kills,
            pids_max_hits: events.pids_max_hits.max(u64::from(self.out_of_threads || self.watched_pids_full())),
            disk_full: self.disk_full,
        };
        (ending, at)
    }

    /// runsc ran, and its program did not.
    fn not_run(self, end: End) -> Result<Outcome, LaunchError> {
        match end {
            End::NotExecuted { errno, .. } => {
                let index = Obstacle::Unknown.code();
                Ok(self.not_executed(protocol::Failure { stage: Stage::Exec, index, errno }))
            }
            End::Failed(why) => {
                let log = gvisor::keep(&self.logs, &self.plan.id, self.extras.secrets);
                Err(LaunchError::Gvisor { why, log })
            }
            End::Status(_) | End::OutOfThreads => Err(LaunchError::Lost),
        }
    }

    /// The sandbox stood, but its program is not there or is none: the shell's 126 and 127.
    fn not_executed(self, failure: protocol::Failure) -> Outcome {
        let program = self.plan.steps[self.step].argv.first().map_or("", String::as_str);
        let cause = io::Error::from_raw_os_error(failure.errno as i32);
        let error = Obstacle::from_code(failure.index).tell(program, failure.errno, self.plan.rootfs == "host");
        let mut outcome = Outcome::setup_error(
            self.plan.id.clone(),
            self.extras.runtime.clone(),
            self.plan.isolation(),
            self.plan.limits.clone(),
            Failure::exec(&error, &cause),
        );
        outcome.controls = Some(self.controls);
        outcome.prepared = self.prepared;
        outcome
    }
}

/// What is told of a program that was killed for want of memory, and had not used up its own.
fn not_its_own(shortage: Shortage, own: Bytes) -> Option<Failure> {
    let within = format!("it was killed within its own {own} of memory");
    let error = match shortage {
        Shortage::Own => return None,
        Shortage::Cohort { most } => Error::new(format!(
            "{within}: all sandboxes of the batch had used up the {most} that they may have together"
        ))
        .with_hint("raise --max-memory, or give jobs so much that those which run at once fit into it"),
        Shortage::Above => Error::new(format!("{within}: the host, or a group that fumehood is in, had no more"))
            .with_hint("see `dmesg`; run less at once, or lower --memory to what there is"),
    };
    Some(Failure::memory(&error))
}
