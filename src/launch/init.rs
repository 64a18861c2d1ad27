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
    program::{self, Image},
    protocol::{Failure, InitEnd, Order, Stage},
};
use crate::{
    plan::{Plan, gvisor, ids::IdsKind, setup::SetupOp},
    sys::{self, Errno, aside::Network, clone, fs, process, tty},
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
    pub images: &'a [Image],
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
    /// Every descriptor above, in order: all others are closed.
    pub keep: &'a [RawFd],
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
            Some(open_terminal(end, self.window).map_err(at(Stage::Terminal, 0))?)
        } else {
            None
        };
        let stdio = terminal.as_ref().map_or(self.stdio, |terminal| [terminal.as_fd(); 3]);
        let children = process::take_signals(&[libc::SIGCHLD]).map_err(at(Stage::Spawn, 0))?;
        let deadline = self.plan.longest().map(|longest| Instant::now() + longest + GRACE);
        let mut stack = [const { MaybeUninit::uninit() }; STACK];

        let last = self.images.len() - 1;
        for (number, image) in self.images.iter().enumerate() {
            let start = program::Start::new(self.plan, image, stdio, self.filter_flags, self.processes);
            let pid = clone::spawn_sharing_memory(&mut stack, program::Start::run, &start)
                .map_err(at(Stage::Spawn, number))?;
            if let Some(failure) = start.failure() {
                return Err(image.examine(failure));
            }
            if let Some(listener) = start.into_listener() {
                end.listener(listener.as_fd()).map_err(at(Stage::Seccomp, 1))?;
            }
            // The program's 0-2 were made in the table that we shared until it executed.
            process::close_range(0, 2).map_err(at(Stage::Descriptors, 1))?;
            if number == last && terminal.is_none() {
                // Who reads the program's output must see its end when the program is done, not when we are.
                for fd in self.stdio {
                    let fd = fd.as_raw_fd() as u32;
                    process::close_range(fd, fd).map_err(at(Stage::Descriptors, 2))?;
                }
            }
            end.started().map_err(at(Stage::Spawn, number))?;
            let Some(status) = wait_for(pid, children.as_fd(), self.control, deadline) else {
                return Ok(BACKSTOP_STATUS);
            };
            let disk_full = disks.iter().flatten().any(|disk| fs::is_full(disk.as_fd()));
            if number < last || self.plan.fetches {
                // Nothing of a step outlives it.
                process::kill_all();
                while let Ok(Some(_)) = process::wait(-1, true) {}
            }
            if self.plan.gvisor.is_some() {
                for log in LOGS.get(number).into_iter().flatten() {
                    // It may not have come so far as to have one.
                    if let Ok(log) = fs::open_in(fs::cwd(), log, libc::O_RDONLY, 0, fs::NO_LINKS) {
                        end.log(log.as_fd()).map_err(at(Stage::Spawn, number))?;
                    }
                }
            }
            end.ended(status, disk_full).map_err(at(Stage::Spawn, number))?;
            if (number < last || self.plan.fetches) && !end.wait_for(Order::Next) {
                break;
            }
        }
        Ok(0)
    }
}

/// Waits for the program, burying strangers meanwhile. `None`: the supervisor is gone, or the time is up.
fn wait_for(pid: i32, children: BorrowedFd<'_>, control: BorrowedFd<'_>, deadline: Option<Instant>) -> Option<i32> {
    loop {
        while let Ok(Some(ended)) = process::wait(-1, false) {
            if ended.pid == pid {
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
fn open_terminal(end: InitEnd<'_>, size: Option<libc::winsize>) -> sys::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = fs::open_in(fs::cwd(), c"/dev/pts/ptmx", flags, 0, fs::NO_LINKS)?;
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
