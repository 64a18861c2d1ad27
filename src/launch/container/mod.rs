//! Carries out a container's plan, in the two halves that engines want: `create` leaves a process that waits inside,
//! `start` lets it go. `exec` adds a process to one that runs.
//!
//! The runtime process makes everything outside the container's namespaces (cgroup, id maps, hooks, the engine's
//! sockets) and goes; what waits is [`init`]. When anything fails before `create` is through, the init is killed
//! and waited for: no half-made container stays.

mod channel;
mod console;
mod devices;
mod egress;
mod exec;
mod foreground;
pub mod guest;
pub mod hooks;
mod init;
mod namespaces;
mod pipes;
mod program;
mod timer;

use std::{
    cell::RefCell,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use crate::{
    cgroup::container::{ContainerCgroupError, Group},
    error::Hint,
    launch::{
        build::trees,
        ids,
        protocol::{Order, SupervisorEnd},
    },
    plan::{
        container::{IdMaps, NEW_TIME, Plan, egress::Network, process::Process},
        ids::{IdsKind, Map},
        setup::SetupOp,
    },
    state::container::{Record, Status},
    sys::{
        Errno, attributes,
        clone::{self, Cloned},
        process, socket,
    },
};
use channel::{ChildEnd, Word, hear};
pub use console::connect as connect_console;
pub use devices::give as give_devices;
use egress::{Beside, Gate};
pub use egress::{GRACE as EGRESS_GRACE, network_of};
pub use exec::{Exec, exec};
pub use foreground::Foreground;
use init::World;
use namespaces::Joined;
pub use namespaces::name as namespace_name;
pub use pipes::Pipes;
use program::failed;
pub use program::host_proc;
pub use timer::end_after;

/// What `create` needs beside the plan.
#[expect(missing_debug_implementations, reason = "what is done meanwhile has none")]
pub struct Create<'a> {
    pub plan: &'a Plan,
    pub group: &'a RefCell<Option<Group>>,
    /// Where the container will wait for `start`; without, it goes as soon as [`Child::let_go`] says so.
    pub start: Option<&'a Pipes>,
    /// What can be done while the container is being built, and has to be before it enters its root, or a hook runs.
    pub meanwhile: &'a dyn Fn() -> Result<(), String>,
    /// Connected to whoever wants the terminal.
    pub console: Option<BorrowedFd<'a>>,
    /// How many of the caller's descriptors from 3 on the program keeps.
    pub preserve: u32,
    pub keyring: bool,
    pub privileged: bool,
    /// Root of the host itself, and not of a container around us.
    pub host_root: bool,
    /// What hooks are told.
    pub record: &'a Record,
    /// The directory of what a gVisor kernel is brought back from.
    pub image: Option<BorrowedFd<'a>>,
    /// Where the policy of a filtered network is asked for, and where its connections are written down.
    pub egress_door: Option<BorrowedFd<'a>>,
    pub egress_log: Option<BorrowedFd<'a>>,
}

/// A process of a container that this process is the parent of. Dropped before [`Child::keep`], it is killed.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// On which it waits for the word that it is on record.
    control: Option<SupervisorEnd>,
    kept: bool,
    /// Who filters its network.
    pub egress: Option<crate::state::container::Egress>,
}

impl Child {
    /// A child that somebody else made for us.
    #[must_use]
    pub fn new(pid: i32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd, control: None, kept: false, egress: None }
    }

    /// It is on record, and may outlive us.
    pub fn release(&mut self) {
        if let Some(control) = self.control.take() {
            // One that is gone by now will be found to be so.
            _ = control.order(Order::Next);
        }
    }

    /// As [`Child::release`], of one that waits for nothing else: returns when its program runs.
    pub fn let_go(&mut self) -> Result<(), String> {
        let Some(control) = self.control.take() else { return Err("the container was let go before".to_owned()) };
        _ = control.order(Order::Next);
        match hear(&control.0) {
            // Its end goes with execve.
            None => Ok(()),
            Some(Word::Failed(why)) => Err(why),
            Some(_) => Err("container init said what nobody asked for".to_owned()),
        }
    }

    /// From here on it lives without us.
    #[must_use]
    pub fn keep(mut self) -> (i32, BorrowedChild) {
        self.kept = true;
        (self.pid, BorrowedChild(self.pid))
    }
}

/// A child that is only waited for.
#[derive(Debug)]
pub struct BorrowedChild(i32);

impl BorrowedChild {
    /// Its exit status as a shell has it.
    pub fn wait(&self) -> Result<i32, String> {
        let ended = process::wait(self.0, true).map_err(failed("wait for the process"))?;
        let status = ended.map_or(0, |ended| ended.status);
        Ok(if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.kept {
            // ESRCH: it is gone already, which is what was wanted.
            _ = process::signal(self.pidfd.as_fd(), libc::SIGKILL);
            _ = process::wait(self.pid, true);
        }
    }
}

/// Makes the container, up to where `start` is waited for.
pub fn create(create: &Create<'_>) -> Result<Child, String> {
    let plan = create.plan;
    let (ours, theirs) = socket::record_pair().map_err(failed("make a socket pair"))?;
    let gate = plan.egress.is_some().then(socket::record_pair).transpose().map_err(failed("make a socket pair"))?;
    let world = World {
        gate: gate.as_ref().zip(plan.egress.as_ref()).map(|((_, theirs), egress)| Gate {
            socket: theirs.as_fd(),
            engine_is_here: matches!(egress.network, Network::New { .. }),
        }),
        plan,
        control: theirs.as_fd(),
        start: create.start,
        console: create.console,
        preserve: create.preserve,
        keyring: create.keyring,
        record: create.record,
        image: create.image,
    };
    let mut group = create.group.borrow_mut();
    let into = group.as_ref().and_then(Group::clone_into);
    let mut child = clone_into_place(&world, create.privileged, into)?;
    drop(theirs);
    if let (Some(egress), Some((gate, theirs))) = (&plan.egress, gate) {
        drop(theirs);
        let beside = Beside {
            id: &create.record.id,
            egress,
            gate: gate.as_fd(),
            init: child.pidfd.as_fd(),
            init_pid: child.pid,
            privileged: create.privileged,
            door: create.egress_door,
            log: create.egress_log,
        };
        child.egress = Some(beside.start()?);
    }
    let control = SupervisorEnd(ours);
    if let Some(maps) = &plan.ids {
        write_maps(child.pid, maps, create.privileged)?;
    }
    if let Some(score) = plan.process.oom_score_adj {
        set_oom_score(child.pid, score, create.host_root)?;
    }
    enter_resctrl(create.record, child.pid)?;
    devices::give(&plan.net_devices, child.pid)?;
    admit(group.as_mut(), child.pid, &control)?;
    drop(group);
    hand_trees(plan, &child, &control)?;
    (create.meanwhile)()?;
    if !hooks::of_the_runtime_wanted(&plan.hooks) {
        _ = control.order(Order::Next);
    }
    loop {
        match hear(&control.0) {
            Some(Word::Hooks) => {
                let told = hooks::state(create.record, Status::Creating, child.pid);
                #[allow(deprecated)]
                hooks::run("prestart", plan.hooks.prestart().as_ref(), &told)?;
                hooks::run("createRuntime", plan.hooks.create_runtime().as_ref(), &told)?;
                _ = control.order(Order::Next);
            }
            Some(Word::Listener(listener)) => {
                let told = hooks::state(create.record, Status::Creating, child.pid);
                hand_listener(&plan.process, listener.as_fd(), child.pid, &told)?;
            }
            Some(Word::Ready) => {
                child.control = Some(control);
                return Ok(child);
            }
            Some(Word::Failed(why)) => return Err(why),
            Some(Word::Successor(_)) | None => return Err("container init ended before it was ready".to_owned()),
        }
    }
}

/// Clones the init into all its namespaces, those of others included.
fn clone_into_place(world: &World<'_>, privileged: bool, into: Option<BorrowedFd<'_>>) -> Result<Child, String> {
    let wanted = &world.plan.namespaces;
    let later = libc::CLONE_NEWCGROUP | NEW_TIME;
    let flags = (wanted.new & !later) as u32 as u64;
    let joined = Joined::open(wanted)?;
    refuse_ours(world.plan, joined.ours()?)?;
    let cannot = failed("clone into new namespaces");
    // With a new user namespace the rights to make a time namespace come, and the init makes it.
    let makes_time = wanted.new & NEW_TIME != 0 && wanted.new & libc::CLONE_NEWUSER == 0;
    if makes_time || !wanted.joined.is_empty() {
        let mut keep = vec![world.control];
        keep.extend(world.start.into_iter().flat_map(Pipes::ends));
        keep.extend(world.console);
        keep.extend(world.image);
        keep.extend(world.gate.map(|gate| gate.socket));
        keep.extend(joined.descriptors());
        return Between::start(into, keep, world.preserve, privileged, |end| {
            joined.enter()?;
            if makes_time {
                namespaces::make_time(wanted)?;
            }
            match clone::clone_process(flags | libc::CLONE_PARENT as u64, None).map_err(&cannot)? {
                Cloned::Child => world.run(),
                Cloned::Parent { pid, .. } => end.successor(pid).map_err(failed("tell the container's pid")),
            }
        })?
        .successor();
    }
    let Cloned::Parent { pid, pidfd } = clone::clone_process(flags, into).map_err(cannot)? else { world.run() };
    Ok(Child::new(pid, pidfd))
}

/// A namespace to be joined may turn out to be the host's. It may be shared, but nothing is set in it.
fn refuse_ours(plan: &Plan, ours: i32) -> Result<(), String> {
    let named = plan.hostname.is_some() || plan.domainname.is_some();
    if ours & libc::CLONE_NEWUTS != 0 && named {
        return Err("hostname: the uts namespace to be joined is the host's".to_owned());
    }
    let settings = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if ours & settings != 0 && plan.setup.iter().any(|operation| matches!(operation, SetupOp::Sysctl { .. })) {
        return Err("linux.sysctl: a namespace to be joined is the host's".to_owned());
    }
    // dockerd names the host's by a path as well. gVisor would take its addresses over.
    if ours & libc::CLONE_NEWNET != 0 && plan.gvisor.is_some() {
        return Err(
            "linux.namespaces: it does not hold on gVisor's kernel: its network stack cannot share this host's \
                    addresses"
                .to_owned(),
        );
    }
    if ours & libc::CLONE_NEWNET != 0 && !plan.net_devices.is_empty() {
        return Err("linux.netDevices: the network namespace to be joined is the host's".to_owned());
    }
    if ours & libc::CLONE_NEWNS != 0 {
        return Err("linux.namespaces: the mount namespace to be joined is the host's".to_owned());
    }
    Ok(())
}

/// A child of ours that enters namespaces from which there is no way back, and clones another child of ours there.
/// It holds nothing that is not needed for that, and nobody inside may look into it.
struct Between {
    child: Child,
    hearing: OwnedFd,
}

impl Between {
    fn start(
        into: Option<BorrowedFd<'_>>,
        keep: Vec<BorrowedFd<'_>>,
        preserve: u32,
        privileged: bool,
        body: impl FnOnce(ChildEnd<'_>) -> Result<(), String>,
    ) -> Result<Self, String> {
        let (hearing, telling) = socket::record_pair().map_err(failed("make a socket pair"))?;
        let Cloned::Parent { pid, pidfd } = clone::clone_process(0, into).map_err(failed("clone"))? else {
            let end = ChildEnd(telling.as_fd());
            let mut keep: Vec<BorrowedFd<'_>> = keep;
            keep.push(telling.as_fd());
            let left = program::close_all_but(keep, preserve)
                .and_then(|()| process::set_undumpable())
                // Inside it may not be allowed any more.
                .and_then(|()| if privileged { attributes::set_groups(&[]) } else { Ok(()) })
                .map_err(failed("leave the host behind"));
            if let Err(why) = left.and_then(|()| body(end)) {
                end.failed(&why);
            }
            process::exit_now(0);
        };
        Ok(Self { child: Child::new(pid, pidfd), hearing })
    }

    fn pid(&self) -> i32 {
        self.child.pid
    }

    /// The child that it has cloned.
    fn successor(self) -> Result<Child, String> {
        match hear(&self.hearing) {
            Some(Word::Successor(pid)) => {
                let pidfd = process::open_process(pid).map_err(failed("open the container's process"))?;
                Ok(Child::new(pid, pidfd))
            }
            Some(Word::Failed(why)) => Err(why),
            _ => Err("a process on the way into the namespaces ended".to_owned()),
        }
    }
}

/// Has the child begin, and enter its cgroups by its own hand; systemd must be given it.
fn admit(group: Option<&mut Group>, pid: i32, control: &SupervisorEnd) -> Result<(), String> {
    let failed = |error: ContainerCgroupError| error.into_error().message().to_owned();
    let mut joins = Vec::new();
    if let Some(group) = group {
        if group.needs_process() {
            group.adopt(pid).map_err(failed)?;
        } else {
            let open = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|error| error.to_string());
            joins = group.join_fds().map_err(failed)?.map(open).collect::<Result<Vec<_>, _>>()?;
        }
    }
    // A child that is gone has left word why.
    _ = control.order(Order::Build);
    for tasks in joins {
        _ = control.enter_cgroup(tasks.as_fd());
    }
    _ = control.order(Order::Entered);
    Ok(())
}

/// Before it forks: what it forks is where it is.
fn enter_resctrl(record: &Record, pid: i32) -> Result<(), String> {
    let entered = record.resctrl.as_ref().map_or(Ok(()), |place| place.admit(pid));
    entered.map_err(|error| error.into_error().message().to_owned())
}

/// The mounts that the builder inside cannot make.
fn hand_trees(plan: &Plan, child: &Child, control: &SupervisorEnd) -> Result<(), String> {
    if !trees::needed(&plan.setup) {
        return Ok(());
    }
    let users = std::fs::File::open(format!("/proc/{}/ns/user", child.pid)).ok();
    let made = trees::make(&plan.setup, child.pidfd.as_fd(), users.as_ref().map(AsFd::as_fd));
    for tree in made.map_err(|error| error.to_string())? {
        // A child that is gone has left word why.
        _ = control.mount(tree.as_fd());
    }
    Ok(())
}

/// A user namespace with nobody in it, that maps users as the container's does and leaves groups as they are.
pub fn user_namespace(maps: &IdMaps) -> Result<OwnedFd, String> {
    let groups = [Map { inside: 0, outside: 0, count: u32::MAX }];
    super::mapped::user_namespace(&maps.users, &groups).map_err(|error| error.into_error().message().to_owned())
}

/// By our own hand where the kernel lets us, which for an ordinary user means its own id alone.
fn write_maps(pid: i32, maps: &IdMaps, privileged: bool) -> Result<(), String> {
    let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let kind = IdsKind::of_lines(&maps.users, &maps.groups, own, privileged);
    ids::write(kind, &maps.users, &maps.groups, pid).map_err(|error| error.into_error().message().to_owned())
}

fn set_oom_score(pid: i32, score: i32, host_root: bool) -> Result<(), String> {
    match std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        // Only the privileged may lower it; engines ask for it all the same (runc does as much).
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !host_root => Ok(()),
        other => other.map_err(|error| format!("write oom_score_adj: {error}")),
    }
}

/// Sends the listener to the agent that the spec names, if it names one.
fn hand_listener(process: &Process, listener: BorrowedFd<'_>, pid: i32, state: &[u8]) -> Result<(), String> {
    match process.seccomp.as_ref().and_then(|seccomp| seccomp.listener.as_ref()) {
        Some((path, metadata)) => tell_agent(path, metadata.as_deref(), listener, pid, state),
        None => Ok(()),
    }
}

/// runtime-spec `config-linux.md`, "containerProcessState".
fn tell_agent(
    path: &Path,
    metadata: Option<&str>,
    listener: BorrowedFd<'_>,
    pid: i32,
    state: &[u8],
) -> Result<(), String> {
    let state: serde_json::Value = serde_json::from_slice(state).map_err(|error| error.to_string())?;
    let message = serde_json::json!({
        "ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid, "metadata": metadata.unwrap_or(""),
        "state": state,
    });
    let agent = UnixStream::connect(path)
        .map_err(|error| format!("unable to connect with seccomp agent {}: {error}", path.display()))?;
    socket::send(agent.as_fd(), message.to_string().as_bytes(), Some(listener))
        .map_err(failed("send the seccomp listener"))
}

/// Lets a created container go. Returns when its program runs.
///
/// # Errors
/// What kept the program from running, in words.
pub fn start(dir: BorrowedFd<'_>) -> Result<(), String> {
    let why = pipes::call(dir).map_err(|errno| match errno {
        Errno::ENXIO => "cannot start a container that has stopped".to_owned(),
        errno => failed("call the container")(errno),
    })?;
    if why.is_empty() { Ok(()) } else { Err(why) }
}
