//! One more process in a container that runs.
//!
//! It is in no namespace of the container's while it holds anything of the host's: descriptors are closed first, and
//! it is not dumpable before it enters (CVE-2016-9962, CVE-2019-5736).

use std::{
    cell::RefCell,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    Child, by_way_of_another,
    channel::{ChildEnd, Word, hear},
    console, hooks, namespaces,
    program::{self, Program, failed},
};
use crate::{
    cgroup::container::Group,
    launch::protocol::{InitEnd, Order, SupervisorEnd},
    plan::container::process::Process,
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
    pub group: &'a RefCell<Option<Group>>,
    pub console: Option<BorrowedFd<'a>>,
    pub preserve: u32,
    pub keyring: bool,
    pub privileged: bool,
    /// What the agent behind a seccomp listener is told.
    pub record: &'a Record,
}

/// Starts it. Returns when the program runs, with its process.
pub fn exec(exec: &Exec<'_>) -> Result<Child, String> {
    let flags = namespaces::differing(exec.init_pid).map_err(failed("look at the container's namespaces"))?;
    let (ours, theirs) = socket::record_pair().map_err(failed("make a socket pair"))?;
    if let Some(mask) = &exec.process.affinity.initial {
        attributes::set_affinity(mask).map_err(failed("error setting initial CPU affinity"))?;
    }
    let group = exec.group.borrow();
    let into = group.as_ref().and_then(Group::clone_into);
    let children = libc::CLONE_NEWPID | crate::plan::container::NEW_TIME;
    let own = namespaces::differing_user(flags) && !exec.privileged;
    let child = if own {
        // The rights over its namespaces come with its user namespace, from which there is no way back.
        by_way_of_another(&ours, into, |end| {
            namespace::enter(exec.init, flags).map_err(failed("setns to the container's namespaces"))?;
            match clone::clone_process(libc::CLONE_PARENT as u64, None).map_err(failed("clone"))? {
                Cloned::Child => run(exec, theirs.as_fd(), 0),
                Cloned::Parent { pid, .. } => end.successor(pid).map_err(failed("tell the pid")),
            }
        })?
    } else {
        let visit = flags & children;
        if visit != 0 {
            namespace::enter(exec.init, visit).map_err(failed("setns to the container's pid namespace"))?;
        }
        match clone::clone_process(0, into).map_err(failed("clone"))? {
            Cloned::Child => run(exec, theirs.as_fd(), flags & !children),
            Cloned::Parent { pid, pidfd } => Child::new(pid, pidfd),
        }
    };
    drop(theirs);
    drop(group);
    let control = SupervisorEnd(ours);
    if let Some(score) = exec.process.oom_score_adj {
        super::set_oom_score(child.pid, score, exec.privileged)?;
    }
    super::admit(exec.group.borrow_mut().as_mut(), child.pid, &control)?;
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

fn run(exec: &Exec<'_>, control: BorrowedFd<'_>, flags: i32) -> ! {
    let end = ChildEnd(control);
    let Err(why) = become_program(exec, end, flags);
    end.failed(&why);
    process::exit_now(255)
}

fn become_program(exec: &Exec<'_>, end: ChildEnd<'_>, flags: i32) -> Result<std::convert::Infallible, String> {
    let keep = [Some(end.0), exec.console, (flags != 0).then_some(exec.init)].into_iter().flatten().collect();
    program::close_all_but(keep, exec.preserve).map_err(failed("close inherited descriptors"))?;
    process::reset_signals();
    let orders = InitEnd(end.0);
    if !orders.wait_for(Order::Build) {
        process::exit_now(1);
    }
    while let Some(tasks) = orders.next_cgroup().map_err(failed("wait for the cgroup"))? {
        fs::write_all(tasks.as_fd(), b"0").map_err(failed("join cgroup"))?;
    }
    process::new_session().map_err(failed("make a session"))?;
    if exec.keyring {
        _ = process::new_keyring();
    }
    // Nobody inside may look into what is still a copy of the runtime.
    process::set_undumpable().map_err(failed("set undumpable"))?;
    if flags != 0 {
        namespace::enter(exec.init, flags).map_err(failed("setns to the container's namespaces"))?;
    }
    attributes::set_ids(0, 0)
        .or_else(|errno| if errno == Errno::EINVAL { Ok(()) } else { Err(errno) })
        .map_err(failed("become root of the user namespace"))?;
    process::set_undumpable().map_err(failed("set undumpable"))?;
    if let Some(mask) = &exec.process.affinity.last {
        attributes::set_affinity(mask).map_err(failed("error setting final CPU affinity"))?;
    }
    if let Some(console) = exec.console {
        let terminal = open_terminal(exec.process, console).map_err(failed("open a terminal"))?;
        program::take_terminal(terminal.as_fd()).map_err(failed("set up the terminal"))?;
    }
    let needs_proc = exec.process.apparmor.is_some() || exec.process.selinux.is_some();
    let proc = if needs_proc { own_proc().ok() } else { None };
    let program = Program { process: exec.process, proc, keep: exec.preserve };
    if let Some(listener) = program.prepare()? {
        end.listener(listener.as_fd()).map_err(failed("hand over the seccomp listener"))?;
    }
    process::set_undumpable().map_err(failed("set undumpable"))?;
    let path = program.find()?;
    let argv = process::StringVector::new(exec.process.argv.clone());
    let mut env = exec.process.env.clone();
    if exec.process.variable("HOME").is_none() {
        env.push(super::init::home_of(exec.process.user.uid));
    }
    let env = process::StringVector::new(env);
    if let Some(listener) = program.confine()? {
        end.listener(listener.as_fd()).map_err(failed("hand over the seccomp listener"))?;
    }
    let errno = process::exec(&path, &argv, &env);
    Err(format!("exec {}: {}", path.to_string_lossy(), errno.desc().to_lowercase()))
}

pub(super) fn own_proc() -> Result<OwnedFd, Errno> {
    let context = mount::open_filesystem(c"proc")?;
    mount::create(context.as_fd(), mount::NO_SUID | mount::NO_DEV | mount::NO_EXEC)
}

/// A terminal of the devpts that is now ours, whose master goes to the engine.
fn open_terminal(process: &Process, console: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = fs::open_in(fs::cwd(), c"/dev/pts/ptmx", flags, 0, fs::NO_LINKS)?;
    tty::unlock(master.as_fd())?;
    let terminal = tty::peer(master.as_fd())?;
    console::send(process, master, terminal.as_fd(), console)?;
    Ok(terminal)
}
