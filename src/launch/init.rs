//! The sandbox's init: process 1 inside. It builds the sandbox, starts the program, waits, and tells.
//!
//! It exists because process 1 is special: a program that were process 1 could not be killed by its own
//! signals, and `abort()` would not be told as one. When it ends, the kernel ends all of the sandbox; it ends
//! when the program has, when the supervisor is gone, or, should the supervisor be stuck, when the time is up.
//!
//! It is a fork of the supervisor that never executes anything, so it allocates nothing and uses only what
//! [`World`] prepared. The program cannot look into it: it is not dumpable and hidden from the program's /proc.

use std::{
    ffi::CStr,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use super::{
    build::Builder,
    grace, late,
    program::{self, Image, Program},
    protocol::{Failure, InitEnd, Order, Stage},
};
use crate::{
    net::gateway::Again,
    plan::{Plan, gvisor, ids::IdsKind, setup::SetupOp},
    sys::{self, Errno, aside::Network, clone, fs, process, shared::Shared, socket, tty},
};

/// How an init that ends by the time alone says so.
pub const BACKSTOP_STATUS: i32 = 124;
/// How long after the last deadline the init ends the sandbox by itself.
const GRACE: Duration = Duration::from_secs(2);
const STACK: usize = 32 << 10;
/// What the runsc of each step wrote that waited for its program, and what gVisor's kernel wrote.
const LOGS: [[&CStr; 2]; 3] =
    [[c"/log/run.0", c"/log/boot.0"], [c"/log/run.1", c"/log/boot.1"], [c"/log/run.2", c"/log/boot.2"]];

/// All that the init uses, made before it exists.
#[derive(Debug)]
pub struct World<'a> {
    pub plan: &'a Plan,
    /// Of a sandbox that is made ahead only runsc, which runs what waits in it.
    pub images: &'a [Image],
    pub ahead: Option<Ahead<'a>>,
    pub control: BorrowedFd<'a>,
    /// stdin, stdout, stderr of the program; unused with a terminal.
    pub stdio: [BorrowedFd<'a>; 3],
    /// For seccomp(2).
    pub filter_flags: u32,
    /// The size of the caller's terminal, for the program's.
    pub window: Option<libc::winsize>,
    /// Whether the supervisor measures memory, and so wants to see the sandbox's file systems.
    pub watched: bool,
    /// RLIMIT_NPROC, where it is what holds the limit of processes.
    pub processes: Option<u64>,
    /// Before each program but the first, where gVisor has taken its address off the link.
    pub again: Option<Again>,
    /// Every descriptor above, in order: all others are closed.
    pub keep: &'a [RawFd],
}

/// What a sandbox that is made ahead has before anybody knows what it is for.
#[derive(Debug)]
pub struct Ahead<'a> {
    /// In which it is told what to do ([`late`]): at once, and when it is used.
    pub shared: &'a Shared,
    /// The supervisor's and the interpreter's end of where an interpreter that is started at once is told its job.
    pub booted: Option<[BorrowedFd<'a>; 2]>,
}

impl World<'_> {
    /// Runs the whole of it in the child. Never returns.
    pub fn run(&self) -> ! {
        let end = InitEnd(self.control);
        match self.live(end) {
            Ok(status) => process::exit_now(status),
            Err(failure) => {
                end.failed(failure);
                process::exit_now(125)
            }
        }
    }

    fn live(&self, end: InitEnd<'_>) -> Result<i32, Failure> {
        self.close_others().map_err(at(Stage::Descriptors, 0))?;
        // The caller's handlers are not ours, and one who ignores SIGCHLD would make the program's end vanish.
        process::reset_signals();
        if !end.wait_for(Order::Build) {
            return Ok(1);
        }
        self.take_identity().map_err(at(Stage::Identity, 0))?;
        process::new_session().map_err(at(Stage::Session, 0))?;
        process::new_keyring().map_err(at(Stage::Session, 1))?;
        process::set_file_mask(0);
        let mut network = Network::new();
        if self.plan.own_network() {
            network.start().map_err(at(Stage::Network, 0))?;
        }
        let mut builder = Builder::new(end, self.plan.identity, self.plan.ids.setup);
        for (index, operation) in self.plan.setup.iter().enumerate() {
            match operation {
                SetupOp::Network => network.join(),
                SetupOp::Cgroup => self.enter_cgroup(end),
                other => builder.carry_out(other),
            }
            .map_err(at(Stage::Setup, index))?;
        }
        drop(builder);
        process::set_file_mask(0o022);
        process::set_undumpable().map_err(at(Stage::Identity, 1))?;
        process::set_name(c"fumehood-init");
        self.supervise(end)
    }

    /// The sandbox inherits nothing: not even what another thread opens at this moment (CVE-2024-21626).
    fn close_others(&self) -> sys::Result<()> {
        // 0-2 stay taken until the program's are put there: nothing of ours may get these numbers.
        process::close_others(self.keep)
    }

    fn take_identity(&self) -> sys::Result<()> {
        let (uid, gid) = self.plan.ids.setup;
        match self.plan.ids.kind {
            IdsKind::Range | IdsKind::Subuid => process::become_user(uid, gid, true),
            IdsKind::Single => Ok(()),
        }
    }

    /// Entering a v1 cgroup by one's own hand is cheap; being put there costs a grace period of the kernel. The
    /// supervisor makes the cgroup while we build, and says when there is nothing (more) to enter.
    fn enter_cgroup(&self, end: InitEnd<'_>) -> sys::Result<()> {
        while let Some(tasks) = end.next_cgroup()? {
            fs::write_all(tasks.as_fd(), b"0")?;
        }
        clone::unshare_cgroup_namespace()
    }

    fn supervise(&self, end: InitEnd<'_>) -> Result<i32, Failure> {
        let writable = |op: &SetupOp| matches!(op, SetupOp::RootOverlay { writable_bytes: Some(_), .. });
        let place = if self.plan.gvisor.is_some() { gvisor::ROOT } else { c"/" };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let root = fs::open_in(fs::cwd(), place, flags, 0, 0).map_err(at(Stage::Setup, 0))?;
        // Where the root is read-only, how full it is is the host's business.
        let whole = if self.plan.setup.iter().any(writable) { c"." } else { c"sandbox" };
        let disks = [whole, c"sandbox", c"tmp"].map(|path| fs::open_in(root.as_fd(), path, flags, 0, fs::IN_ROOT).ok());
        if self.plan.fetches || self.watched {
            end.root(root.as_fd()).map_err(at(Stage::Setup, 0))?;
        }
        let terminal = if self.plan.terminal {
            let masters = if self.plan.gvisor.is_some() { gvisor::TERMINALS } else { c"/dev/pts/ptmx" };
            Some(open_terminal(end, masters, self.window).map_err(at(Stage::Terminal, 0))?)
        } else {
            None
        };
        let stdio = terminal.as_ref().map_or(self.stdio, |terminal| [terminal.as_fd(); 3]);
        let children = process::take_signals(&[libc::SIGCHLD]).map_err(at(Stage::Spawn, 0))?;
        let terminal = terminal.is_some();
        let standing = Standing { end, root, disks: &disks, stdio, terminal, children: children.as_fd() };
        match &self.ahead {
            None => {
                let deadline = self.plan.longest().map(|longest| Instant::now() + longest + GRACE);
                let program = |number: usize| self.images.get(number).map(Image::program);
                self.run_steps(&standing, self.images.len(), deadline, program)
            }
            Some(ahead) => self.wait_for_job(ahead, &standing),
        }
    }

    /// Runs the programs one after the other.
    fn run_steps<'p>(
        &self,
        standing: &Standing<'_>,
        count: usize,
        deadline: Option<Instant>,
        mut program: impl FnMut(usize) -> Option<Program<'p>>,
    ) -> Result<i32, Failure> {
        for number in 0..count {
            let image = program(number).ok_or(at(Stage::Spawn, number)(Errno::ENOEXEC))?;
            let last = number + 1 == count;
            if let Some(again) = self.again.as_ref().filter(|_| number > 0) {
                again.carry_out().map_err(at(Stage::Network, 1))?;
            }
            let pid = self.start_program(standing, image, number, last, None)?;
            standing.end.started().map_err(at(Stage::Spawn, number))?;
            if let Some(status) = self.see_through(standing, pid, number, last, deadline)? {
                return Ok(status);
            }
        }
        Ok(0)
    }

    fn start_program(
        &self,
        standing: &Standing<'_>,
        image: Program<'_>,
        number: usize,
        last: bool,
        hears: Option<BorrowedFd<'_>>,
    ) -> Result<i32, Failure> {
        let mut stack = [const { MaybeUninit::uninit() }; STACK];
        let mut start = program::Start::new(self.plan, image, standing.stdio, self.filter_flags, self.processes);
        let high = if self.plan.gvisor.is_some() { grace::high_descriptor() } else { None };
        if let Some(fd) = hears.or(high.as_ref().map(AsFd::as_fd)) {
            start = start.having(fd);
        }
        let pid =
            clone::spawn_sharing_memory(&mut stack, program::Start::run, &start).map_err(at(Stage::Spawn, number))?;
        if let Some(failure) = start.failure() {
            return Err(image.examine(failure));
        }
        if let Some(listener) = start.into_listener() {
            standing.end.listener(listener.as_fd()).map_err(at(Stage::Seccomp, 1))?;
        }
        // The program's 0-2 were made in the table that we shared until it executed.
        process::close_range(0, 2).map_err(at(Stage::Descriptors, 1))?;
        if last && !standing.terminal {
            // Who reads the program's output must see its end when the program is done, not when we are.
            for fd in self.stdio {
                close(fd).map_err(at(Stage::Descriptors, 2))?;
            }
        }
        Ok(pid)
    }

    /// Until the program of a step has ended and what comes after it. `Some`: the init ends with this status.
    fn see_through(
        &self,
        standing: &Standing<'_>,
        pid: i32,
        number: usize,
        last: bool,
        deadline: Option<Instant>,
    ) -> Result<Option<i32>, Failure> {
        let end = standing.end;
        let Some(status) = wait_for(pid, standing.children, self.control, deadline) else {
            return Ok(Some(BACKSTOP_STATUS));
        };
        let disk_full = standing.disks.iter().flatten().any(|disk| fs::is_full(disk.as_fd()));
        if self.plan.gvisor.is_some() {
            for log in LOGS.get(number).into_iter().flatten() {
                // It may not have come so far as to have one.
                if let Ok(log) = fs::open_in(fs::cwd(), log, libc::O_RDONLY, 0, fs::NO_LINKS) {
                    end.log(log.as_fd()).map_err(at(Stage::Spawn, number))?;
                }
            }
        }
        end.ended(status, disk_full).map_err(at(Stage::Spawn, number))?;
        // Nothing of a step outlives it.
        process::kill_all();
        while let Ok(Some(_)) = process::wait(-1, true) {}
        end.over(process::cpu_of_children()).map_err(at(Stage::Spawn, number))?;
        if (!last || self.plan.init_stays()) && !end.wait_for(Order::Next) {
            return Ok(Some(0));
        }
        Ok(None)
    }

    /// Starts what can be started before anybody knows for what, waits to be told, and does it. That takes no longer
    /// than it must: all that can be done before is done.
    fn wait_for_job(&self, ahead: &Ahead<'_>, standing: &Standing<'_>) -> Result<i32, Failure> {
        let garbled = || at(Stage::Spawn, 0)(Errno::EBADMSG);
        let end = standing.end;
        let mut booted = None;
        if let Some([ours, its]) = ahead.booted {
            let mut room = [std::ptr::null(); late::MOST_WORDS];
            let (mut job, _) = self.read_job(ahead, standing)?;
            let (programs, _) = job.programs(&mut room).ok_or_else(garbled)?;
            let image = programs[0].ok_or_else(garbled)?;
            let pid = self.start_program(standing, image, 0, true, Some(its))?;
            // It hears of the end of what it is told.
            close(its).map_err(at(Stage::Descriptors, 5))?;
            booted = Some((pid, ours));
        }
        let in_gvisor = if let Some(runsc) = self.images.first() {
            self.read_job(ahead, standing)?;
            Some(self.start_program(standing, runsc.program(), 0, true, None)?)
        } else {
            None
        };
        end.ready().map_err(at(Stage::Spawn, 0))?;
        if !wait_to_go(end, booted.map(|(pid, _)| pid).or(in_gvisor), standing.children) {
            return Ok(1);
        }
        let mut room = [std::ptr::null(); late::MOST_WORDS];
        let (mut job, deadline) = self.read_job(ahead, standing)?;
        if let Some(pid) = in_gvisor {
            // What waits there reads the rest from its standard input, once the supervisor has heard this.
            end.started().map_err(at(Stage::Spawn, 0))?;
            return Ok(self.see_through(standing, pid, 0, true, deadline)?.unwrap_or(0));
        }
        let (programs, count) = job.programs(&mut room).ok_or_else(garbled)?;
        let Some((pid, interpreter)) = booted else {
            return self.run_steps(standing, count, deadline, |number| programs.get(number).copied().flatten());
        };
        socket::send_all_now(interpreter, job.message().ok_or_else(garbled)?).map_err(at(Stage::ProgramIo, 5))?;
        close(interpreter).map_err(at(Stage::Descriptors, 6))?;
        end.started().map_err(at(Stage::Spawn, 0))?;
        Ok(self.see_through(standing, pid, 0, true, deadline)?.unwrap_or(0))
    }

    fn read_job<'j>(
        &self,
        ahead: &'j Ahead<'_>,
        standing: &Standing<'_>,
    ) -> Result<(late::Reader<'j>, Option<Instant>), Failure> {
        let garbled = || at(Stage::Spawn, 0)(Errno::EBADMSG);
        let mut job = late::Reader::new(ahead.shared.bytes(usize::MAX)).ok_or_else(garbled)?;
        let longest = job.longest().ok_or_else(garbled)?;
        let root = process::copy_above(standing.root.as_fd(), 3).map_err(at(Stage::Setup, 0))?;
        let mut builder = Builder::within(root, standing.end, self.plan.identity, self.plan.ids.setup);
        process::set_file_mask(0);
        job.place(&mut builder)?;
        process::set_file_mask(0o022);
        Ok((job, longest.map(|longest| Instant::now() + longest + GRACE)))
    }
}

/// What stands when the sandbox is built.
struct Standing<'a> {
    end: InitEnd<'a>,
    root: OwnedFd,
    disks: &'a [Option<OwnedFd>],
    stdio: [BorrowedFd<'a>; 3],
    terminal: bool,
    /// Ready when a child has ended.
    children: BorrowedFd<'a>,
}

/// Closes what is not needed here any more, and nobody here owns.
fn close(fd: BorrowedFd<'_>) -> sys::Result<()> {
    let fd = fd.as_raw_fd() as u32;
    process::close_range(fd, fd)
}

/// Waits for the order to go. False: there will be none, or who waits for its job is dead.
fn wait_to_go(end: InitEnd<'_>, waiting: Option<i32>, children: BorrowedFd<'_>) -> bool {
    loop {
        while let Ok(Some(ended)) = process::wait(-1, false) {
            if waiting == Some(ended.pid) {
                return false;
            }
        }
        let mut fds = [children, end.0].map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        if process::poll(&mut fds, None).is_err() {
            return false;
        }
        if fds[1].revents != 0 {
            return end.wait_for(Order::Go);
        }
        while process::read_signal(children).is_some() {}
    }
}

/// Waits for the program, burying strangers meanwhile. `None`: the supervisor is gone, or the time is up.
fn wait_for(pid: i32, children: BorrowedFd<'_>, control: BorrowedFd<'_>, deadline: Option<Instant>) -> Option<i32> {
    loop {
        while let Ok(Some(ended)) = process::wait(-1, false) {
            // One that is traced by us is told of when it stops, too.
            if ended.pid == pid && !libc::WIFSTOPPED(ended.status) {
                return Some(ended.status);
            }
        }
        let mut fds =
            [children, control].map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        process::poll(&mut fds, left).ok()?;
        if fds[1].revents != 0 || left.is_some_and(|left| left.is_zero()) {
            return None;
        }
        while process::read_signal(children).is_some() {}
    }
}

/// A terminal of the sandbox's own devpts, whose master goes to the supervisor.
fn open_terminal(end: InitEnd<'_>, masters: &CStr, size: Option<libc::winsize>) -> sys::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = fs::open_in(fs::cwd(), masters, flags, 0, fs::NO_LINKS)?;
    tty::unlock(master.as_fd())?;
    let terminal = tty::peer(master.as_fd())?;
    // Before the program looks, and so without a signal that it changed.
    size.map_or(Ok(()), |size| tty::set_window_size(master.as_fd(), size))?;
    end.terminal(master.as_fd())?;
    Ok(terminal)
}

fn at(stage: Stage, index: usize) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { stage, index: index.min(usize::from(u16::MAX)) as u16, errno }
}
