//! From the sandbox's init to the untrusted program: the last steps before execve, each of which only takes
//! something away.
//!
//! Runs on the init's memory (vfork), so it allocates nothing and leaves its result in [`Start`].

use std::{
    cell::{Cell, OnceCell},
    ffi::{CStr, CString},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::{
    obstacle::Obstacle,
    protocol::{Failure, Stage},
};
use crate::{
    plan::{Plan, PlanError, Step, gvisor, ids::IdsKind, landlock::Layer, seccomp::Insn},
    sys::{self, Errno, attributes, fs, landlock, process, seccomp, tty},
};

/// A step in the form execve takes.
#[derive(Debug)]
pub struct Image {
    /// The program's own working directory in its tree, where another program runs it.
    inside: Option<CString>,
    candidates: process::StringVector,
    argv: process::StringVector,
    env: process::StringVector,
    cwd: CString,
}

impl Image {
    pub fn new(step: &Step) -> Result<Self, PlanError> {
        let strings = |what, list: &[String]| {
            list.iter()
                .map(|text| CString::new(text.as_str()).map_err(|_| PlanError::Nul(what)))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            inside: None,
            candidates: process::StringVector::new(strings("the program's name", &step.candidates)?),
            argv: process::StringVector::new(strings("an argument", &step.argv)?),
            env: process::StringVector::new(strings("an environment variable", &step.env)?),
            cwd: CString::new(step.cwd.as_str()).map_err(|_| PlanError::Nul("the working directory"))?,
        })
    }

    /// runsc, which runs a step: its own environment is empty, and the step's program is in its bundle. `cwd` is that
    /// program's.
    pub fn runsc(cwd: &str, command: &[String]) -> Result<Self, PlanError> {
        let words = command.iter().map(|word| CString::new(word.as_str()).map_err(|_| PlanError::Nul("an argument")));
        let relative = cwd.trim_start_matches('/');
        let relative = if relative.is_empty() { "." } else { relative };
        Ok(Self {
            inside: Some(CString::new(relative).map_err(|_| PlanError::Nul("the working directory"))?),
            candidates: process::StringVector::new(vec![c"/runsc".to_owned()]),
            argv: process::StringVector::new(words.collect::<Result<_, _>>()?),
            env: process::StringVector::new(Vec::new()),
            cwd: c"/".to_owned(),
        })
    }
}

impl Image {
    pub fn program(&self) -> Program<'_> {
        Program {
            inside: self.inside.as_deref(),
            candidates: self.candidates.as_strings(),
            argv: self.argv.as_strings(),
            env: self.env.as_strings(),
            cwd: &self.cwd,
        }
    }
}

/// As that, wherever it is.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    pub inside: Option<&'a CStr>,
    pub candidates: process::Strings<'a>,
    pub argv: process::Strings<'a>,
    pub env: process::Strings<'a>,
    pub cwd: &'a CStr,
}

impl Program<'_> {
    /// What was in the way of a program that execve refused, in place of the number of the refused candidate.
    pub fn examine(&self, failure: Failure) -> Failure {
        if failure.stage != Stage::Exec {
            return failure;
        }
        let dir = fs::open_in(fs::cwd(), self.cwd, libc::O_PATH | libc::O_DIRECTORY, 0, libc::RESOLVE_NO_MAGICLINKS);
        let Ok(dir) = dir else { return Failure { index: Obstacle::Unknown.code(), ..failure } };
        let mut found = Obstacle::Missing;
        for candidate in self.candidates.iter().skip(failure.index.into()) {
            found = Obstacle::find(dir.as_fd(), candidate, failure.errno);
            // One that is missing was refused only if all were.
            if found != Obstacle::Missing || failure.errno != Errno::ENOENT {
                break;
            }
        }
        Failure { index: found.code(), ..failure }
    }
}

/// What the program's process needs, and where it leaves what became of it.
#[derive(Debug)]
pub struct Start<'a> {
    plan: &'a Plan,
    image: Program<'a>,
    stdio: [BorrowedFd<'a>; 3],
    terminal: bool,
    filter_flags: u32,
    processes: Option<u64>,
    /// What it has open beside its streams.
    has: Option<BorrowedFd<'a>>,
    failure: Cell<Option<Failure>>,
    listener: OnceCell<OwnedFd>,
}

impl<'a> Start<'a> {
    pub fn new(
        plan: &'a Plan,
        image: Program<'a>,
        stdio: [BorrowedFd<'a>; 3],
        filter_flags: u32,
        processes: Option<u64>,
    ) -> Self {
        Self {
            plan,
            image,
            stdio,
            terminal: plan.terminal,
            filter_flags,
            processes,
            has: None,
            failure: Cell::new(None),
            listener: OnceCell::new(),
        }
    }

    /// The program has this open too, under the number that it has here.
    pub fn having(self, fd: BorrowedFd<'a>) -> Self {
        Self { has: Some(fd), ..self }
    }

    pub fn failure(&self) -> Option<Failure> {
        self.failure.get()
    }

    /// The filter's listener; its descriptor was made in the table that the init shares.
    pub fn into_listener(self) -> Option<OwnedFd> {
        self.listener.into_inner()
    }

    /// The body of the program's process until it is the program.
    pub fn run(&self) -> i32 {
        if let Err(failure) = self.become_program() {
            self.failure.set(Some(failure));
        }
        127
    }

    fn become_program(&self) -> Result<(), Failure> {
        let plan = self.plan;
        process::new_session().map_err(at(Stage::ProgramIo, 0))?;
        if self.terminal {
            tty::take_control(self.stdio[0]).map_err(at(Stage::ProgramIo, 1))?;
        }
        // Their actions are the default ones since the init was made.
        process::unblock_signals();
        for (number, fd) in self.stdio.iter().enumerate() {
            process::install_fd(*fd, number as i32).map_err(at(Stage::ProgramIo, 2 + number))?;
        }
        // Never through /proc/self/fd, where what we hold open could lead elsewhere (CVE-2024-21626).
        fs::open_in(fs::cwd(), self.image.cwd, libc::O_PATH | libc::O_DIRECTORY, 0, libc::RESOLVE_NO_MAGICLINKS)
            .and_then(|dir| fs::change_dir(dir.as_fd()))
            .map_err(at(Stage::WorkingDirectory, 0))?;
        if let Some(inside) = self.image.inside {
            return self.become_runsc(inside);
        }
        for (index, limit) in plan.rlimits.iter().enumerate() {
            process::set_limit(limit.resource, limit.soft, limit.hard).map_err(at(Stage::ResourceLimit, index))?;
        }
        if let Some(processes) = self.processes {
            process::set_limit(libc::RLIMIT_NPROC as _, processes, processes)
                .map_err(at(Stage::ResourceLimit, plan.rlimits.len()))?;
        }
        match plan.capabilities {
            0 => process::drop_bounding_capabilities(),
            kept => attributes::limit_bounding_set(kept),
        }
        .map_err(at(Stage::Capabilities, 0))?;
        if plan.ids.kind != IdsKind::Single {
            attributes::set_groups(&plan.groups).map_err(at(Stage::ProgramIdentity, 1))?;
            process::become_user(plan.identity.uid, plan.identity.gid, false).map_err(at(Stage::ProgramIdentity, 0))?;
        }
        match plan.capabilities {
            0 => process::drop_capabilities(),
            // Root keeps these over execve, and nobody can get them back who has become somebody else.
            kept => attributes::set_capabilities(kept, kept, 0),
        }
        .map_err(at(Stage::Capabilities, 1))?;
        process::set_no_new_privileges().map_err(at(Stage::NoNewPrivileges, 0))?;
        for (index, layer) in plan.landlock.iter().enumerate() {
            restrict(layer).map_err(at(Stage::Landlock, index))?;
        }
        process::close_on_exec_from(3).map_err(at(Stage::Descriptors, 3))?;
        if let Some(fd) = self.has {
            process::install_fd(fd, fd.as_raw_fd()).map_err(at(Stage::Descriptors, 4))?;
        }
        // From here on every call is filtered: only execve and exit_group follow, which every filter lets by.
        if let Some(filter) = &plan.no_setuid {
            install(filter.program.quiet(), 0).map_err(at(Stage::Seccomp, 2))?;
        }
        let listener = install(plan.seccomp.loaded(), self.filter_flags).map_err(at(Stage::Seccomp, 0))?;
        if let Some(listener) = listener {
            _ = self.listener.set(listener);
        }
        Err(self.exec())
    }

    /// runsc gives up what it has by itself, when it has made gVisor's own namespaces: it is root of the sandbox's until
    /// then, and that is all it is.
    fn become_runsc(&self, inside: &CStr) -> Result<(), Failure> {
        let tree = fs::open_in(fs::cwd(), gvisor::ROOT, libc::O_PATH | libc::O_DIRECTORY, 0, fs::NO_LINKS)
            .map_err(at(Stage::WorkingDirectory, 0))?;
        // It would be made if it is missing.
        fs::open_in(tree.as_fd(), inside, libc::O_PATH | libc::O_DIRECTORY, 0, fs::LINKS_IN_ROOT)
            .map_err(at(Stage::WorkingDirectory, 0))?;
        process::set_limit(libc::RLIMIT_CORE as _, 1, 1).map_err(at(Stage::ResourceLimit, 0))?;
        if let Some(processes) = self.processes {
            process::set_limit(libc::RLIMIT_NPROC as _, processes, processes).map_err(at(Stage::ResourceLimit, 0))?;
        }
        process::set_no_new_privileges().map_err(at(Stage::NoNewPrivileges, 0))?;
        process::close_on_exec_from(3).map_err(at(Stage::Descriptors, 3))?;
        if let Some(fd) = self.has {
            process::install_fd(fd, fd.as_raw_fd()).map_err(at(Stage::Descriptors, 4))?;
        }
        let beside = self.plan.gvisor.as_ref().and_then(|gvisor| gvisor.no_registration.as_ref());
        if let Some(filter) = beside {
            install(filter.program.quiet(), 0).map_err(at(Stage::Seccomp, 3))?;
        }
        // What it has no use for: it and its file server stay root of the sandbox, and it waits without a filter.
        install(self.plan.seccomp.program.quiet(), 0).map_err(at(Stage::Seccomp, 0))?;
        // It is gVisor's file server that makes the program's files.
        if let Some(filter) = &self.plan.no_setuid {
            install(filter.program.quiet(), 0).map_err(at(Stage::Seccomp, 2))?;
        }
        Err(self.exec())
    }

    /// Tries each candidate as execvp(3) does: one that may not be executed is told rather than the last one
    /// that is not there.
    fn exec(&self) -> Failure {
        let mut best = (Errno::ENOENT, 0);
        for (index, candidate) in self.image.candidates.iter().enumerate() {
            match process::exec_strings(candidate, self.image.argv, self.image.env) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => best = (Errno::EACCES, index),
                errno => return at(Stage::Exec, index)(errno),
            }
        }
        at(Stage::Exec, best.1)(best.0)
    }
}

pub(super) fn install(program: &[Insn], flags: u32) -> sys::Result<Option<OwnedFd>> {
    seccomp::install(program, flags).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Rules are for what is there: a path that the root does not have needs none.
pub(super) fn restrict(layer: &Layer) -> sys::Result<()> {
    let ruleset = landlock::create_ruleset(layer.abi, layer.handled_files, layer.handled_tcp, layer.scoped)?;
    for rule in &layer.rules {
        let path = match fs::open_in(fs::cwd(), &rule.path, libc::O_PATH, 0, fs::NO_LINKS) {
            // Or is a link, as /bin is where /usr has all: what it leads to has a rule of its own.
            Err(Errno::ENOENT | Errno::ELOOP) => continue,
            found => found?,
        };
        let mut rights = rule.rights;
        if fs::stat(path.as_fd())?.st_mode & libc::S_IFMT != libc::S_IFDIR {
            rights &= landlock::FILE_RIGHTS;
        }
        landlock::allow_path(ruleset.as_fd(), path.as_fd(), rights)?;
    }
    landlock::restrict_self(ruleset.as_fd())
}

fn at(stage: Stage, index: usize) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { stage, index: index as u16, errno }
}
