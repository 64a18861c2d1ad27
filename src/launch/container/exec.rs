//! One more process in a container that runs.
//!
//! It is in no namespace of the container's while it holds anything of the host's: a process between closes every
//! descriptor, becomes undumpable, enters all of them at once, and only then clones the one that will be seen inside
//! (CVE-2016-9962, CVE-2019-5736).

use std::{
    cell::RefCell,
    os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd},
};

use super::{
    Between, Child,
    channel::{ChildEnd, Word, hear},
    console,
    guest::{self, Call},
    hooks, namespaces,
    program::{self, Label, Program, failed},
};
use crate::{
    cgroup::container::Group,
    launch::protocol::{InitEnd, Order, SupervisorEnd},
    plan::container::process::{Affinity, Process},
    state::container::{Record, Status},
    sys::{
        Errno, attributes,
        clone::{self, Cloned},
        fs, mount, namespace, process, socket, tty,
    },
};

#[derive(Debug)]
pub struct Exec<'a> {
    pub process: &'a Process,
    /// The container's first process.
    pub init: BorrowedFd<'a>,
    pub init_pid: i32,
    /// The container has no mount namespace: its root is only that of its first process.
    pub shares_mounts: bool,
    pub group: &'a RefCell<Option<Group>>,
    pub console: Option<BorrowedFd<'a>>,
    pub preserve: u32,
    pub keyring: bool,
    pub privileged: bool,
    pub host_root: bool,
    /// What the agent behind a seccomp listener is told.
    pub record: &'a Record,
    /// It is runsc that is called, whose kernel the container's is.
    pub call: Option<&'a Call<'a>>,
}

/// Starts it. Returns when the program runs, with its process.
pub fn exec(exec: &Exec<'_>) -> Result<Child, String> {
    let flags = namespaces::differing(exec.init_pid, exec.shares_mounts)?;
    let root = if exec.shares_mounts { Some(namespaces::changed_root(exec.init_pid)?) } else { None };
    // What was looked at by its number was it, if it is there still.
    process::signal(exec.init, 0).map_err(failed("look for the container's process"))?;
    let (ours, theirs) = socket::record_pair().map_err(failed("make a socket pair"))?;
    if let Some(mask) = &exec.process.affinity.initial {
        attributes::set_affinity(mask).map_err(failed("error setting initial CPU affinity"))?;
    }
    let group = exec.group.borrow();
    let into = group.as_ref().and_then(Group::clone_into);
    let mut keep = vec![theirs.as_fd(), exec.init];
    keep.extend(exec.console);
    keep.extend(exec.call.into_iter().flat_map(|call| call.passed.iter().copied()));
    keep.extend(root.as_ref().map(AsFd::as_fd));
    // Nothing is in the container's pid namespace before it is in all the others: to see it there must be to see
    // nothing of the host.
    let between = Between::start(into, keep, exec.preserve, exec.privileged, |end| {
        let orders = InitEnd(theirs.as_fd());
        if !orders.wait_for(Order::Build) {
            process::exit_now(1);
        }
        while let Some(tasks) = orders.next_cgroup().map_err(failed("wait for the cgroup"))? {
            fs::write_all(tasks.as_fd(), b"0").map_err(failed("join cgroup"))?;
        }
        // What we hold may be had by who may trace us: with a user namespace of their own that is nobody inside.
        let apart = flags & libc::CLONE_NEWUSER != 0;
        let proc = if apart && Label::is_wanted(exec.process) { Some(program::host_proc()?) } else { None };
        if flags != 0 {
            namespace::enter(exec.init, flags).map_err(failed("setns to the container's namespaces"))?;
        }
        if let Some(root) = &root {
            mount::change_root(root.as_fd()).map_err(failed("enter the container's root"))?;
        }
        match clone::clone_process(libc::CLONE_PARENT as u64, None).map_err(failed("clone"))? {
            Cloned::Child => run(exec, theirs.as_fd(), proc),
            Cloned::Parent { pid, .. } => end.successor(pid).map_err(failed("tell the pid")),
        }
    })?;
    drop(group);
    drop(theirs);
    let control = SupervisorEnd(ours);
    super::enter_resctrl(exec.record, between.pid())?;
    super::admit(exec.group.borrow_mut().as_mut(), between.pid(), &control)?;
    let child = between.successor()?;
    if let Some(score) = exec.process.oom_score_adj {
        super::set_oom_score(child.pid, score, exec.host_root)?;
    }
    loop {
        match hear(&control.0) {
            Some(Word::Listener(listener)) => {
                let state = hooks::state(exec.record, Status::Running, exec.init_pid);
                super::hand_listener(exec.process, listener.as_fd(), child.pid, &state)?;
            }
            Some(Word::Failed(why)) => return Err(why),
            Some(_) => {}
            None => return Ok(child),
        }
    }
}

fn run(exec: &Exec<'_>, control: BorrowedFd<'_>, proc: Option<OwnedFd>) -> ! {
    let end = ChildEnd(control);
    let Err(why) = become_program(exec, end, proc);
    end.failed(&why);
    process::exit_now(255)
}

fn become_program(
    exec: &Exec<'_>,
    end: ChildEnd<'_>,
    proc: Option<OwnedFd>,
) -> Result<std::convert::Infallible, String> {
    let proc = match proc {
        None if Label::is_wanted(exec.process) => Some(program::own_proc()?),
        proc => proc,
    };
    let label = proc.as_ref().map(|proc| Label::open(exec.process, proc.as_fd())).transpose()?;
    let mut keep: Vec<_> =
        [Some(end.0), exec.console, label.as_ref().map(Label::descriptor)].into_iter().flatten().collect();
    keep.extend(exec.call.into_iter().flat_map(|call| call.passed.iter().copied()));
    program::close_all_but(keep, exec.preserve).map_err(failed("close inherited descriptors"))?;
    // Closed with the rest; it must not be closed twice.
    _ = proc.map(IntoRawFd::into_raw_fd);
    process::reset_signals();
    process::new_session().map_err(failed("make a session"))?;
    if exec.keyring {
        process::new_keyring().map_err(failed("unable to join session keyring"))?;
    }
    attributes::become_root().map_err(failed("become root of the user namespace"))?;
    match &exec.process.affinity {
        Affinity { last: Some(mask), .. } => {
            attributes::set_affinity(mask).map_err(failed("error setting final CPU affinity"))?;
        }
        Affinity { initial: Some(_), last: None } => {}
        Affinity { initial: None, last: None } => program::reset_affinity(),
    }
    if let Some(console) = exec.console {
        let terminal = open_terminal(exec.process, console).map_err(failed("open a terminal"))?;
        program::take_terminal(terminal.as_fd()).map_err(failed("set up the terminal"))?;
    }
    if let Some(call) = exec.call {
        return guest::call(call, exec.process);
    }
    let mut env = exec.process.env.clone();
    if exec.process.variable("HOME").is_none() {
        env.push(super::init::home_of(exec.process.user.uid));
    }
    let (argv, env) = (process::StringVector::new(exec.process.argv.clone()), process::StringVector::new(env));
    let program = Program { process: exec.process, label, keep: exec.preserve, hooked: false };
    let hand = |listener: OwnedFd| end.listener(listener.as_fd()).map_err(failed("hand over the seccomp listener"));
    let path = program.prepare(&hand)?;
    program.confine(&hand)?;
    let errno = process::exec(&path, &argv, &env);
    Err(format!("exec {}: {}", path.to_string_lossy(), errno.desc().to_lowercase()))
}

/// A terminal of the devpts that is now ours, whose master goes to the engine.
fn open_terminal(process: &Process, console: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = fs::open_in(fs::cwd(), c"/dev/pts/ptmx", flags, 0, fs::NO_LINKS)?;
    // What the container has put there is not the engine's to have.
    if !fs::is_of_kind(master.as_fd(), libc::DEVPTS_SUPER_MAGIC) {
        return Err(Errno::ENOTTY);
    }
    tty::unlock(master.as_fd())?;
    let terminal = tty::peer(master.as_fd())?;
    console::send(process, master, terminal.as_fd(), console)?;
    Ok(terminal)
}
