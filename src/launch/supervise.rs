//! Stands by while the program runs: one thread, one poll loop.
//!
//! Everything that can end a run comes in here (the program's own end, a limit, the caller's signal, the
//! kernel's killer) and everything that is known about it goes out in the outcome. It returns only when the
//! init has been waited for, and with it every process of the sandbox is gone.

mod finish;
mod limits;
mod network;
mod relay;

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use super::{
    Extras, Holds, LaunchError, Made, Running,
    control::Control,
    fetch,
    gvisor::End,
    observer::{Input, Observer, Started},
    protocol::{self, Order, Report},
    refused, system,
    watch::Watch,
};
use crate::{
    cgroup::{self, Events, Leaf, OomWatch},
    net::Policy,
    plan::{Plan, StepKind, ids::IdsKind},
    report::{Compile, Controls, Denials, Means, Outcome, ProducedFile, Reason, Stream, Verdict, WaitStatus},
    sys::{process, seccomp},
};
use relay::{Passed, Relay};

/// After this many reports for one look at the streams, the streams get their turn.
const REPORTS_PER_TURN: usize = 64;

pub(super) struct Supervisor<'a> {
    plan: &'a Plan,
    running: Running,
    leaf: Option<Leaf>,
    holds: Holds,
    controls: Controls,
    extras: Extras<'a>,
    relay: Relay,
    control_open: bool,
    listener: Option<OwnedFd>,
    root: Option<OwnedFd>,
    upper: Option<OwnedFd>,
    /// runsc's and its kernel's, of the current step.
    logs: Vec<File>,
    /// gVisor's kernel ended for want of them.
    out_of_threads: bool,
    /// Why the program did not run although runsc did.
    not_run: Option<End>,
    oom: Option<OomWatch>,
    watch: Option<Watch<'a>>,
    denials: Denials,
    step: usize,
    prepared: Option<Compile>,
    /// What is reached once the setup has ended.
    policy_to_come: Option<Box<Policy>>,
    /// What was set before there was a start to tell of.
    policy_untold: Option<Box<Policy>>,
    compile: Option<Compile>,
    /// When the current step's program was started.
    started: Option<Instant>,
    setup: Duration,
    /// How the current step's program ended, from the init.
    ended: Option<(WaitStatus, Instant)>,
    disk_full: bool,
    /// What the cgroup counted, as of the program's end.
    counted: Option<(Events, cgroup::Usage)>,
    /// What it had counted when the sandbox was made, if that was ahead: none of it is the program's.
    counted_before: (Events, cgroup::Usage),
    /// And what its program had used by itself.
    cpu_before: Duration,
    /// What all of this step and of those before have used, once all of it is over; from the init.
    cpu: Option<Duration>,
    killed_by: Option<Reason>,
    failure: Option<protocol::Failure>,
    files: Vec<ProducedFile>,
    targets: Vec<fetch::Target<'a>>,
    fetch_error: Option<LaunchError>,
}

#[derive(Clone, Copy)]
enum Source {
    Control,
    Init,
    Output(usize),
    Stdin,
    Input,
    Listener,
    Egress,
    Caller,
    Oom,
    Signals,
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        made: Made,
        targets: Vec<fetch::Target<'a>>,
        controls: Controls,
        mut extras: Extras<'a>,
    ) -> Result<Self, LaunchError> {
        let Made { running, streams, leaf, holds, oom, before } = made;
        let input = std::mem::replace(&mut extras.input, Input::Empty);
        let outputs = [streams.stdout, streams.stderr];
        let tells = !before.first.is_empty();
        let mut relay = Relay::new(streams.stdin, outputs, input, extras.secrets, plan.limits.output, tells)
            .map_err(system("make a pipe non-blocking"))?;
        if plan.gvisor.is_some() {
            relay.hold_back();
            relay.tell_first(before.first, before.mark);
        }
        let watched = holds.memory == Means::Watched;
        Ok(Self {
            watch: watched.then(|| Watch::new(running.pid, &plan.setup)),
            relay,
            plan,
            running,
            leaf,
            holds,
            controls,
            extras,
            control_open: true,
            listener: before.listener,
            root: before.root,
            upper: None,
            logs: Vec::new(),
            out_of_threads: false,
            not_run: None,
            oom,
            denials: before.denials,
            counted_before: (before.events, before.usage),
            cpu_before: before.cpu,
            cpu: None,
            step: 0,
            prepared: None,
            policy_untold: None,
            policy_to_come: plan.setup_egress.as_ref().and(plan.egress.clone()),
            compile: None,
            started: None,
            setup: Duration::ZERO,
            ended: None,
            disk_full: false,
            counted: None,
            killed_by: None,
            failure: None,
            files: Vec::new(),
            targets,
            fetch_error: None,
        })
    }

    pub(super) fn run(mut self, observer: &mut dyn Observer) -> Result<Outcome, LaunchError> {
        let mut sources = Vec::with_capacity(8);
        let mut fds = Vec::with_capacity(8);
        loop {
            self.gather(&mut sources, &mut fds);
            process::poll(&mut fds, self.next_look()).map_err(system("poll"))?;
            let mut init_gone = false;
            for (source, fd) in sources.iter().zip(&fds) {
                if fd.revents == 0 {
                    continue;
                }
                match source {
                    Source::Control => self.hear(observer)?,
                    Source::Init => init_gone = true,
                    Source::Output(number) => _ = self.pass_on(*number, observer),
                    Source::Stdin => self.relay.feed(),
                    Source::Input => self.relay.take_input(),
                    Source::Listener => self.answer_refused(observer),
                    Source::Egress => self.hear_of_egress(observer),
                    Source::Caller => self.hear_callers(observer),
                    Source::Oom => {
                        if self.oom.as_ref().is_some_and(OomWatch::struck) {
                            self.kill(Reason::Memory);
                        }
                    }
                    Source::Signals => self.heed_signal(),
                }
            }
            if init_gone || self.is_over() {
                return self.finish(observer, init_gone);
            }
            self.look();
        }
    }

    /// Whether all is known although the init may be there yet: it has nothing to do any more but to end, for which the
    /// kernel takes its time. Who removes the remains waits for that.
    fn is_over(&self) -> bool {
        let counted = self.counted.is_some_and(|(_, used)| used.peak_memory.is_some());
        self.cpu.is_some()
            && counted
            && self.plan.gvisor.is_none()
            && !self.plan.fetches
            && self.step + 1 == self.plan.steps.len()
            && self.extras.remains.is_some()
            && self.extras.keeper.is_none()
    }

    fn gather(&self, sources: &mut Vec<Source>, fds: &mut Vec<libc::pollfd>) {
        sources.clear();
        fds.clear();
        let mut add = |source, fd: BorrowedFd<'_>, events| {
            sources.push(source);
            fds.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
        };
        if self.control_open {
            add(Source::Control, self.running.control.0.as_fd(), libc::POLLIN);
        }
        self.relay.gather(self.started.is_some(), &mut add);
        add(Source::Init, self.running.pidfd.as_fd(), libc::POLLIN);
        if let Some(listener) = &self.listener {
            add(Source::Listener, listener.as_fd(), libc::POLLIN);
        }
        if let Some(egress) = &self.running.egress {
            add(Source::Egress, egress.as_fd(), libc::POLLIN);
        }
        for caller in self.running.control_door.iter().flat_map(Control::sources) {
            add(Source::Caller, caller, libc::POLLIN);
        }
        if let Some(oom) = &self.oom {
            add(Source::Oom, oom.as_fd(), libc::POLLIN);
        }
        if let Some(signals) = self.extras.signals {
            add(Source::Signals, signals, libc::POLLIN);
        }
    }

    fn kill(&mut self, reason: Reason) {
        self.killed_by.get_or_insert(reason);
        self.running.kill();
    }

    fn hear(&mut self, observer: &mut dyn Observer) -> Result<(), LaunchError> {
        match self.running.control.receive() {
            // Gone, or as good as: its pidfd will say the rest.
            None => {
                self.control_open = false;
                self.running.kill();
            }
            Some(Report::Failed(failure)) => self.failure = Some(failure),
            // Said before it was used.
            Some(Report::Ready) => {}
            Some(Report::Listener(fd)) => self.listener = Some(fd),
            Some(Report::Root(fd)) => self.root = Some(fd),
            Some(Report::Upper(fd)) => self.upper = Some(fd),
            Some(Report::Log(fd)) => self.logs.push(fd.into()),
            Some(Report::Terminal(master)) => {
                self.relay.attach(master).map_err(system("make the terminal non-blocking"))?;
            }
            Some(Report::Started) => {
                self.relay.tell();
                self.begin(observer);
            }
            Some(Report::Ended { status, disk_full }) => {
                self.ended = Some((self.end_of(status), Instant::now()));
                self.disk_full = disk_full;
            }
            Some(Report::Over { cpu }) => {
                self.cpu = Some(cpu.saturating_sub(self.cpu_before));
                self.after_step(observer)?;
            }
        }
        Ok(())
    }

    /// The step's program runs. The init says so, and so does all that the program does, which may be heard first: the
    /// observer hears of the start before anything else.
    fn begin(&mut self, observer: &mut dyn Observer) {
        if self.started.is_some() {
            return;
        }
        let now = Instant::now();
        self.started = Some(now);
        if self.plan.steps[self.step].kind == StepKind::Run {
            self.relay.close_if_done();
        }
        if self.step > 0 {
            return;
        }
        self.setup = now - self.extras.began;
        let started = Started {
            id: &self.plan.id,
            runtime: self.extras.runtime.as_deref(),
            pid: self.running.pid as u32,
            limits: &self.plan.limits,
            controls: &self.controls,
            ports: &self.running.ports,
        };
        if observer.started(&started).is_err() {
            self.kill(Reason::Cancelled(libc::SIGPIPE as u8));
        }
        if let Some(policy) = self.policy_untold.take() {
            self.tell_policy(&policy, observer);
        }
    }

    /// How the program ended, of which an init behind gVisor knows only what runsc says.
    fn end_of(&mut self, status: i32) -> WaitStatus {
        if self.plan.gvisor.is_none() {
            return wait_status(status);
        }
        let logs = std::mem::take(&mut self.logs);
        match End::of(status, &logs) {
            End::Status(status) => wait_status(status),
            End::OutOfThreads => {
                self.out_of_threads = true;
                WaitStatus::Signaled(libc::SIGKILL as u8)
            }
            other => {
                self.not_run = Some(other);
                self.logs = logs;
                WaitStatus::Signaled(libc::SIGKILL as u8)
            }
        }
    }

    /// All processes of the step are dead, or die with the init now.
    fn after_step(&mut self, observer: &mut dyn Observer) -> Result<(), LaunchError> {
        let last = self.step + 1 == self.plan.steps.len();
        if last {
            let drains = self.begin_to_drain_egress();
            self.count()?;
            if self.plan.fetches
                && let Some(root) = self.root.take()
            {
                let namespace = self.running.namespace.as_ref().filter(|_| self.plan.ids.kind == IdsKind::Subuid);
                let inside = fetch::Inside::new(root.as_fd(), namespace.map(AsFd::as_fd));
                let (files, error) = fetch::fetch(inside, &self.targets, self.plan.limits.sandbox);
                (self.files, self.fetch_error) = (files, error);
            }
            self.drain_egress(drains, observer);
            if self.plan.init_stays() {
                _ = self.running.control.order(Order::Next);
            }
            return Ok(());
        }
        (0..2).for_each(|number| self.drain(number, observer));
        let done = self.end_of_step()?;
        let success = done.verdict == Verdict::Ok;
        match self.plan.steps[self.step].kind {
            StepKind::Setup => self.prepared = Some(done),
            StepKind::Compile | StepKind::Run => self.compile = Some(done),
        }
        if !success {
            let drains = self.begin_to_drain_egress();
            self.drain_egress(drains, observer);
            self.running.kill();
            return Ok(());
        }
        self.lock_network(observer);
        self.step += 1;
        (self.started, self.ended, self.cpu, self.listener, self.disk_full) = (None, None, None, None, false);
        if let Some(leaf) = &self.leaf {
            let limits = self.plan.steps[self.step].limits;
            if self.holds.memory == Means::Cgroup {
                leaf.set_memory(self.plan.memory(&limits)).map_err(LaunchError::Cgroup)?;
            }
            if self.holds.pids == Means::Cgroup {
                let pids = self.plan.pids(&limits).saturating_add(1);
                leaf.set_pids(pids).map_err(LaunchError::Cgroup)?;
            }
        }
        // If it is gone, its pidfd says so.
        _ = self.running.control.order(Order::Next);
        Ok(())
    }

    /// Reads a stream once; whether it had something.
    fn pass_on(&mut self, number: usize, observer: &mut dyn Observer) -> bool {
        if !self.relay.read(number) {
            return false;
        }
        self.hand_on(number, observer);
        true
    }

    /// Of what was just read of a stream, what may be seen.
    fn hand_on(&mut self, number: usize, observer: &mut dyn Observer) {
        self.begin(observer);
        // What a compiler says is not the program's output.
        let stream = match (self.plan.steps[self.step].kind, number) {
            (StepKind::Run, 0) => Stream::Stdout,
            _ => Stream::Stderr,
        };
        match self.relay.pass_on(number, |shown| observer.output(stream, shown)) {
            Passed::On => {}
            Passed::Refused => self.kill(Reason::Cancelled(libc::SIGPIPE as u8)),
            Passed::Full => self.kill(Reason::Output),
        }
    }

    fn drain(&mut self, number: usize, observer: &mut dyn Observer) {
        while self.pass_on(number, observer) {}
        let why = self.not_run.as_ref().and_then(End::words);
        if self.relay.release(number, why) {
            self.hand_on(number, observer);
        }
    }

    /// Calls that the filter refuses come here to be told; the answer is the filter's own.
    fn answer_refused(&mut self, observer: &mut dyn Observer) {
        for _ in 0..REPORTS_PER_TURN {
            let Some(listener) = &self.listener else { return };
            let mut ready = [libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            if process::poll(&mut ready, Some(Duration::ZERO)).unwrap_or(0) == 0 {
                return;
            }
            if ready[0].revents & libc::POLLIN == 0 {
                // Nobody is left under the filter.
                self.listener = None;
                return;
            }
            let Ok(Some(call)) = seccomp::recv(listener.as_fd()) else { return };
            let errno = self.plan.seccomp.program.errno(call.number, &call.args);
            // A caller that is gone needs no answer.
            _ = seccomp::reply_errno(listener.as_fd(), call.id, errno);
            self.begin(observer);
            if let Some(denial) = refused::record(&mut self.denials, &self.plan.seccomp.name, &call)
                && observer.denied(denial).is_err()
            {
                self.kill(Reason::Cancelled(libc::SIGPIPE as u8));
            }
        }
    }

    fn heed_signal(&mut self) {
        while let Some(signal) = self.extras.signals.and_then(process::read_signal) {
            match signal {
                libc::SIGWINCH => self.relay.resize(),
                _ => self.kill(Reason::Cancelled(signal as u8)),
            }
        }
    }
}

fn wait_status(status: i32) -> WaitStatus {
    if libc::WIFEXITED(status) {
        WaitStatus::Exited(libc::WEXITSTATUS(status) as u8)
    } else {
        WaitStatus::Signaled(libc::WTERMSIG(status) as u8)
    }
}
