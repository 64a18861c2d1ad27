//! Stands by while the program runs: one thread, one poll loop.
//!
//! Everything that can end a run comes in here (the program's own end, a limit, the caller's signal, the
//! kernel's killer) and everything that is known about it goes out in the outcome. It returns only when the
//! init has been waited for, and with it every process of the sandbox is gone.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Extras, Holds, LaunchError, Running, Streams,
    error::not_executed,
    fetch,
    observer::{Input, Observer, Started},
    protocol::{Order, Report, Stage},
    refused, system,
    watch::Watch,
};
use crate::{
    cgroup::{self, Events, Leaf, OomWatch},
    error::Hint,
    plan::{Plan, StepKind},
    report::{
        Capture, Captured, Compile, Controls, Denials, Ending, Failure, Isolation, Mask, Means, Outcome, Reason,
        Stream, Tail, Usage, Verdict, WaitStatus,
    },
    sys::{Errno, fs, process, seccomp, tty},
};

/// How often usage is looked at that nothing reports by itself.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);
/// A sandbox takes about a millisecond; only a dead network file system takes this long.
const SETUP_TIME: Duration = Duration::from_secs(60);
const CHUNK: usize = 64 << 10;
/// After this many reports for one look at the streams, the streams get their turn.
const REPORTS_PER_TURN: usize = 64;

pub(super) struct Supervisor<'a> {
    plan: &'a Plan,
    running: Running,
    leaf: Option<Leaf>,
    holds: Holds,
    controls: Controls,
    extras: Extras<'a>,
    mask: Arc<Mask>,
    input: Option<OwnedFd>,
    /// Where input goes; closed when there is no more.
    stdin: Option<OwnedFd>,
    pending: Vec<u8>,
    /// How much of it is written already.
    fed: usize,
    outputs: [Output; 2],
    /// What was read last.
    chunk: Vec<u8>,
    control_open: bool,
    listener: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    root: Option<OwnedFd>,
    oom: Option<OomWatch>,
    watch: Option<Watch>,
    denials: Denials,
    step: usize,
    compile: Option<Compile>,
    /// When the current step's program was started.
    started: Option<Instant>,
    setup: Duration,
    /// How the current step's program ended, from the init.
    ended: Option<(WaitStatus, Instant)>,
    disk_full: bool,
    /// What the cgroup counted, as of the program's end.
    counted: Option<(Events, cgroup::Usage)>,
    killed_by: Option<Reason>,
    failure: Option<super::protocol::Failure>,
    files: Vec<crate::report::ProducedFile>,
    targets: Vec<fetch::Target<'a>>,
    fetch_error: Option<LaunchError>,
}

struct Output {
    from: Option<OwnedFd>,
    capture: Capture,
}

#[derive(Clone, Copy)]
enum Source {
    Control,
    Init,
    Output(usize),
    Stdin,
    Input,
    Listener,
    Oom,
    Signals,
}

impl<'a> Supervisor<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        running: Running,
        streams: Streams<'a>,
        leaf: Option<Leaf>,
        holds: Holds,
        controls: Controls,
        mut extras: Extras<'a>,
    ) -> Self {
        let mask = Mask::new(extras.secrets);
        let output = |from| Output { from: Some(from), capture: Capture::new(&mask, plan.limits.output) };
        let (pending, input) = match std::mem::replace(&mut extras.input, Input::Empty) {
            Input::Empty => (Vec::new(), None),
            Input::Bytes(bytes) => (bytes, None),
            Input::Stream(fd) => (Vec::new(), Some(fd)),
        };
        let watched = holds.memory == Means::Watched;
        let stdin = (input.is_some() || !pending.is_empty()).then_some(streams.stdin);
        Self {
            watch: watched.then(|| Watch::new(running.pid)),
            outputs: [output(streams.stdout), output(streams.stderr)],
            stdin,
            plan,
            running,
            leaf,
            holds,
            controls,
            extras,
            mask,
            input,
            pending,
            fed: 0,
            chunk: Vec::with_capacity(CHUNK),
            control_open: true,
            listener: None,
            terminal: None,
            root: None,
            oom: None,
            denials: Denials::default(),
            step: 0,
            compile: None,
            started: None,
            setup: Duration::ZERO,
            ended: None,
            disk_full: false,
            counted: None,
            killed_by: None,
            failure: None,
            files: Vec::new(),
            targets: streams.files,
            fetch_error: None,
        }
    }

    pub(super) fn run(mut self, observer: &mut dyn Observer) -> Result<Outcome, LaunchError> {
        for fd in self.outputs.iter().filter_map(|output| output.from.as_ref()).chain(self.stdin.as_ref()) {
            fs::set_nonblocking(fd.as_fd()).map_err(system("make a pipe non-blocking"))?;
        }
        // Only v1 needs it, and the program is not running yet.
        self.oom = self.leaf.as_ref().map(Leaf::watch_oom).transpose().map_err(LaunchError::Cgroup)?.flatten();
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
                    Source::Stdin => self.feed(),
                    Source::Input => self.take_input(),
                    Source::Listener => self.answer_refused(observer),
                    Source::Oom => {
                        if self.oom.as_ref().is_some_and(OomWatch::struck) {
                            self.kill(Reason::Memory);
                        }
                    }
                    Source::Signals => self.heed_signal(),
                }
            }
            if init_gone {
                return self.finish(observer);
            }
            self.look();
        }
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
        for (number, output) in self.outputs.iter().enumerate() {
            if let Some(from) = &output.from {
                add(Source::Output(number), from.as_fd(), libc::POLLIN);
            }
        }
        add(Source::Init, self.running.pidfd.as_fd(), libc::POLLIN);
        let program_input = self.terminal.as_ref().or(self.stdin.as_ref());
        match (program_input, &self.input) {
            (Some(to), _) if !self.pending.is_empty() => add(Source::Stdin, to.as_fd(), libc::POLLOUT),
            (Some(_), Some(input)) if self.started.is_some() => add(Source::Input, input.as_fd(), libc::POLLIN),
            _ => {}
        }
        if let Some(listener) = &self.listener {
            add(Source::Listener, listener.as_fd(), libc::POLLIN);
        }
        if let Some(oom) = &self.oom {
            add(Source::Oom, oom.as_fd(), libc::POLLIN);
        }
        if let Some(signals) = self.extras.signals {
            add(Source::Signals, signals, libc::POLLIN);
        }
    }

    /// Until when nothing needs to be looked at.
    fn next_look(&self) -> Option<Duration> {
        let left = match self.started {
            None => Some(SETUP_TIME.saturating_sub(self.extras.began.elapsed())),
            Some(started) => self.timeout().map(|timeout| timeout.saturating_sub(started.elapsed())),
        };
        let watching = self.watch.is_some() || self.plan.limits.cpu_time.is_some();
        match left {
            Some(left) if watching => Some(left.min(WATCH_INTERVAL)),
            None if watching => Some(WATCH_INTERVAL),
            left => left,
        }
    }

    fn timeout(&self) -> Option<Duration> {
        self.plan.steps[self.step].limits.timeout.or(self.plan.limits.timeout)
    }

    /// Deadlines and what must be measured.
    fn look(&mut self) {
        let Some(started) = self.started else {
            if self.extras.began.elapsed() > SETUP_TIME {
                self.kill(Reason::Timeout);
            }
            return;
        };
        if self.ended.is_none() && self.timeout().is_some_and(|timeout| started.elapsed() >= timeout) {
            self.kill(Reason::Timeout);
        }
        let counted =
            self.leaf.as_ref().filter(|_| self.plan.limits.cpu_time.is_some()).and_then(|leaf| leaf.usage().cpu_time);
        if self.plan.limits.cpu_time.zip(counted).is_some_and(|(limit, used)| used >= limit) {
            self.kill(Reason::CpuTime);
        }
        let root = self.root.as_ref().map(AsFd::as_fd);
        let memory = self.watch.as_mut().map(|watch| watch.look(root));
        if memory.is_some_and(|memory| memory > self.memory_limit()) {
            self.kill(Reason::Memory);
        }
    }

    /// Without a cgroup nobody counts refused forks; that the limit was reached is what can be seen.
    fn watched_pids_full(&self) -> bool {
        let pids = self.plan.steps[self.step].limits.pids.unwrap_or(self.plan.limits.pids);
        self.holds.pids == Means::Rlimit
            && self.watch.as_ref().is_some_and(|watch| watch.most_threads() >= u64::from(pids))
    }

    fn memory_limit(&self) -> u64 {
        self.plan.steps[self.step].limits.memory.unwrap_or(self.plan.limits.memory).get()
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
            Some(Report::Listener(fd)) => self.listener = Some(fd),
            Some(Report::Root(fd)) => self.root = Some(fd),
            Some(Report::Terminal(master)) => {
                fs::set_nonblocking(master.as_fd()).map_err(system("make the terminal non-blocking"))?;
                self.outputs[0].from = Some(master.try_clone().map_err(|_| LaunchError::Lost)?);
                self.outputs[1].from = None;
                self.stdin = None;
                self.terminal = Some(master);
            }
            Some(Report::Started) => {
                let now = Instant::now();
                if self.step == 0 {
                    self.setup = now - self.extras.began;
                    let started = Started {
                        id: &self.plan.id,
                        runtime: self.extras.runtime.as_deref(),
                        pid: self.running.pid as u32,
                        limits: &self.plan.limits,
                        controls: &self.controls,
                    };
                    if observer.started(&started).is_err() {
                        self.kill(Reason::Cancelled(libc::SIGPIPE as u8));
                    }
                }
                self.started = Some(now);
                if self.input.is_none() && self.pending.is_empty() && self.plan.steps[self.step].kind == StepKind::Run {
                    self.stdin = None;
                }
            }
            Some(Report::Ended { status, disk_full }) => {
                self.ended = Some((wait_status(status), Instant::now()));
                self.disk_full = disk_full;
                self.after_step(observer)?;
            }
        }
        Ok(())
    }

    /// All processes of the step are dead, or die with the init now.
    fn after_step(&mut self, observer: &mut dyn Observer) -> Result<(), LaunchError> {
        let last = self.step + 1 == self.plan.steps.len();
        if last {
            // The kernel takes the sandbox down meanwhile.
            self.count()?;
            if self.plan.fetches
                && let Some(root) = self.root.take()
            {
                let inside = fetch::Inside::new(root.as_fd(), self.running.namespace.as_ref().map(AsFd::as_fd));
                let (files, error) = fetch::fetch(inside, &self.targets, self.plan.limits.sandbox);
                (self.files, self.fetch_error) = (files, error);
                _ = self.running.control.order(Order::Next);
            }
            return Ok(());
        }
        (0..2).for_each(|number| self.drain(number, observer));
        let compile = self.end_of_compile()?;
        let success = compile.verdict == Verdict::Ok;
        self.compile = Some(compile);
        if !success {
            self.running.kill();
            return Ok(());
        }
        self.step += 1;
        (self.started, self.ended, self.listener, self.disk_full) = (None, None, None, false);
        if let Some(leaf) = &self.leaf {
            let limits = self.plan.steps[self.step].limits;
            if self.holds.memory == Means::Cgroup {
                leaf.set_memory(limits.memory.unwrap_or(self.plan.limits.memory)).map_err(LaunchError::Cgroup)?;
            }
            if self.holds.pids == Means::Cgroup {
                let pids = limits.pids.unwrap_or(self.plan.limits.pids).saturating_add(1);
                leaf.set_pids(pids).map_err(LaunchError::Cgroup)?;
            }
        }
        // If it is gone, its pidfd says so.
        _ = self.running.control.order(Order::Next);
        Ok(())
    }

    fn count(&mut self) -> Result<(), LaunchError> {
        if let (None, Some(leaf)) = (self.counted, &self.leaf) {
            self.counted = Some((leaf.events().map_err(LaunchError::Cgroup)?, leaf.usage()));
        }
        Ok(())
    }

    fn end_of_compile(&mut self) -> Result<Compile, LaunchError> {
        self.count()?;
        let (ending, ended_at) = self.ending(None);
        self.counted = None;
        let fresh = || Capture::new(&self.mask, self.plan.limits.output);
        let mut take =
            |number: usize| std::mem::replace(&mut self.outputs[number].capture, fresh()).finish(Tail::Whole).0;
        Ok(Compile {
            verdict: Verdict::judge(&ending),
            exit_code: ending.exit_code(),
            signal: ending.signal(),
            stdout: take(0),
            stderr: take(1),
            duration: self.started.map_or(Duration::ZERO, |started| ended_at - started),
        })
    }

    /// Reads a stream once.
    fn pass_on(&mut self, number: usize, observer: &mut dyn Observer) -> bool {
        let Some(from) = &self.outputs[number].from else { return false };
        self.chunk.clear();
        match fs::read_more(from.as_fd(), &mut self.chunk) {
            Err(Errno::EAGAIN | Errno::EINTR) => false,
            // EIO: nobody has the terminal open any more.
            Ok(0) | Err(_) => {
                self.outputs[number].from = None;
                false
            }
            Ok(_) => {
                // What a compiler says is not the program's output.
                let stream = match (self.plan.steps[self.step].kind, number) {
                    (StepKind::Run, 0) => Stream::Stdout,
                    _ => Stream::Stderr,
                };
                let capture = &mut self.outputs[number].capture;
                let shown = capture.push(&self.chunk);
                let closed = !shown.is_empty() && observer.output(stream, shown).is_err();
                let truncated = capture.is_truncated();
                if closed {
                    self.kill(Reason::Cancelled(libc::SIGPIPE as u8));
                } else if truncated {
                    self.kill(Reason::Output);
                }
                true
            }
        }
    }

    fn drain(&mut self, number: usize, observer: &mut dyn Observer) {
        while self.pass_on(number, observer) {}
    }

    fn take_input(&mut self) {
        let Some(input) = &self.input else { return };
        self.pending.reserve(CHUNK);
        match fs::read_more(input.as_fd(), &mut self.pending) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(0) | Err(_) => {
                self.input = None;
                self.stdin = None;
                if let Some(terminal) = &self.terminal {
                    // The end of input, as typed.
                    _ = fs::write(terminal.as_fd(), b"\x04");
                }
            }
            Ok(_) => self.feed(),
        }
    }

    fn feed(&mut self) {
        let Some(to) = self.terminal.as_ref().or(self.stdin.as_ref()) else { return };
        match fs::write(to.as_fd(), &self.pending[self.fed..]) {
            Ok(written) => {
                self.fed += written;
                if self.fed == self.pending.len() {
                    self.pending.clear();
                    self.fed = 0;
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => {
                // The program does not read any more.
                self.pending.clear();
                self.fed = 0;
                self.input = None;
            }
        }
        if self.pending.is_empty() && self.input.is_none() {
            self.stdin = None;
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
                libc::SIGWINCH => self.resize(),
                _ => self.kill(Reason::Cancelled(signal as u8)),
            }
        }
    }

    fn resize(&self) {
        if let (Some(terminal), Some(input)) = (&self.terminal, &self.input)
            && let Ok(size) = tty::window_size(input.as_fd())
        {
            // A terminal that is gone has no size.
            _ = tty::set_window_size(terminal.as_fd(), size);
        }
    }

    /// The init is dead, and with it all of the sandbox: what is in the pipes is all there will be.
    fn finish(mut self, observer: &mut dyn Observer) -> Result<Outcome, LaunchError> {
        while let Ok(1..) = process::poll(
            &mut [libc::pollfd { fd: self.running.control.0.as_raw_fd(), events: libc::POLLIN, revents: 0 }],
            Some(Duration::ZERO),
        ) {
            if !self.control_open {
                break;
            }
            self.hear(observer)?;
        }
        let compiled_badly = self.compile.as_ref().is_some_and(|compile| compile.verdict != Verdict::Ok);
        (0..2).for_each(|number| self.drain(number, observer));
        let init = self.running.wait().map_err(system("wait for the sandbox's init"))?;
        if self.ended.is_none() && wait_status(init.status) == WaitStatus::Exited(super::init::BACKSTOP_STATUS as u8) {
            self.killed_by.get_or_insert(Reason::Timeout);
        }
        if let Some(failure) = self.failure {
            let error = LaunchError::at(self.plan, self.step, failure);
            if failure.stage == Stage::Exec {
                return Ok(self.not_executed(failure.errno));
            }
            return Err(error);
        }
        if self.started.is_none() && self.step == 0 && self.killed_by.is_none() {
            return Err(LaunchError::Lost);
        }
        let tail = if self.killed_by.is_some() { Tail::Cut } else { Tail::Whole };
        let mut outputs = Vec::with_capacity(2);
        for (number, stream) in [(0, Stream::Stdout), (1, Stream::Stderr)] {
            let empty = Capture::new(&self.mask, self.plan.limits.output);
            let (captured, rest) = std::mem::replace(&mut self.outputs[number].capture, empty).finish(tail);
            if !rest.is_empty() {
                // It has ended already: nothing is left to be cancelled.
                _ = observer.output(stream, &rest);
            }
            outputs.push(captured);
        }
        self.count()?;
        let (ending, ended_at) = self.ending(Some(init));
        let used = self.counted.map(|(_, used)| used);
        let watched = self.watch.as_ref().map(Watch::peak_memory);
        if let Some(leaf) = self.leaf.take() {
            leaf.remove().map_err(LaunchError::Cgroup)?;
        }
        let (mut verdict, mut exit_code, mut signal) = (Verdict::judge(&ending), ending.exit_code(), ending.signal());
        let [mut stdout, mut stderr]: [Captured; 2] = outputs.try_into().unwrap_or_default();
        if compiled_badly && let Some(compile) = &self.compile {
            (verdict, exit_code, signal) = (compile.verdict, compile.exit_code, compile.signal);
            (stdout, stderr) = (compile.stdout.clone(), compile.stderr.clone());
        }
        Ok(Outcome {
            id: self.plan.id.clone(),
            runtime: self.extras.runtime.take(),
            isolation: Isolation::Native,
            verdict,
            exit_code,
            signal,
            stdout,
            stderr,
            duration: self.started.map_or(Duration::ZERO, |started| ended_at.saturating_duration_since(started)),
            setup: self.setup,
            usage: Usage {
                cpu: used.and_then(|used| used.cpu_time).unwrap_or(init.cpu),
                peak_memory_bytes: used.and_then(|used| used.peak_memory).map(|bytes| bytes.get()).or(watched),
            },
            limits: self.plan.limits.clone(),
            controls: self.controls,
            denials: self.denials,
            files: self.files,
            error: self.fetch_error.map(|error| Failure::fetch(&error.into_error())),
            compile: self.compile,
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
            pids_max_hits: events.pids_max_hits.max(u64::from(self.watched_pids_full())),
            disk_full: self.disk_full,
        };
        (ending, at)
    }

    /// The sandbox stood, but its program is not there or is none: the shell's 126 and 127.
    fn not_executed(self, errno: Errno) -> Outcome {
        let program = self.plan.steps[self.step].argv.first().map_or("", String::as_str);
        let cause = io::Error::from_raw_os_error(errno as i32);
        let error = not_executed(program, errno);
        let mut outcome = Outcome::setup_error(
            self.plan.id.clone(),
            self.extras.runtime.clone(),
            Isolation::Native,
            self.plan.limits.clone(),
            Failure::exec(&error, &cause),
        );
        outcome.controls = self.controls.clone();
        outcome
    }
}

fn wait_status(status: i32) -> WaitStatus {
    if libc::WIFEXITED(status) {
        WaitStatus::Exited(libc::WEXITSTATUS(status) as u8)
    } else {
        WaitStatus::Signaled(libc::WTERMSIG(status) as u8)
    }
}
