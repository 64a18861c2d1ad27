//! Carries out a plan: the fourth stage, and the only one that changes the kernel's state.
//!
//! [`launch`] makes the sandbox's cgroup, clones its init ([`init`]), which builds the tree ([`build`]) and
//! starts the program ([`program`]), and then stands by ([`supervise`]) until all of it is gone. Every effect
//! outside the sandbox's own namespaces is held by a value that undoes it when dropped: the cgroup's leaf,
//! the entry in the state directory, the init behind its pidfd. The namespaces end with their processes.

mod ahead;
pub mod build;
pub mod container;
pub mod control;
mod egress;
mod error;
mod fetch;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod grace;
mod gvisor;
pub(crate) mod ids;
mod init;
mod late;
mod mapped;
mod observer;
mod obstacle;
mod program;
mod protocol;
mod refused;
mod remains;
mod starter;
mod supervise;
mod upper;
mod watch;

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

pub use ahead::{Boot, Gone, Prepared, is_looked_at};
pub use error::LaunchError;
pub use ids::{IdsError, has_all_ids};
pub use observer::{Input, Observer, Started};
pub use remains::Remains;
pub use upper::{Upper, remove_granted};

use crate::{
    cgroup::{self, Caps, Controller, CpuBandwidth, Events, Hierarchy, Leaf, OomWatch},
    error::Hint,
    net::{
        Policy,
        gateway::Again,
        policy::Mode,
        publish::{Inward, Publish, Published},
    },
    plan::{Plan, ids::IdsKind},
    report::{Capabilities, Cgroup, Controls, Denials, Failure, IdMap, LandlockScope, Means, Network, Outcome, Rootfs},
    request::{Fetch, Secret, StepLimits},
    state::{Entry, Reserved},
    sys::{
        self,
        clone::{self, Cloned},
        fs, process, seccomp, socket,
    },
};
use control::Control;
use egress::Egress;
use init::{Ahead, World};
use program::Image;
use protocol::{Order, SupervisorEnd};
use starter::Mark;

/// What a run needs beside its plan, none of which changes how the sandbox is made.
#[derive(Debug)]
pub struct Extras<'a> {
    pub runtime: Option<String>,
    pub secrets: &'a [Secret],
    pub fetch: &'a [Fetch],
    pub input: Input,
    /// Signals that end the run, or resize its terminal, as [`process::take_signals`] made it.
    pub signals: Option<BorrowedFd<'a>>,
    /// When the request was made.
    pub began: Instant,
    /// Who takes what was written to the root, if the plan keeps it.
    pub keeper: Option<Keeper<'a>>,
    /// Where what is left in the end is put, by one who removes it when the result has been told; removed before, if nowhere.
    pub remains: Option<&'a mut Option<Remains>>,
}

/// Told once when all of the sandbox's processes are gone, however they ended.
pub struct Keeper<'a>(pub Box<Take<'a>>);

type Take<'a> = dyn FnOnce(&Upper<'_>) -> crate::Result<()> + 'a;

impl std::fmt::Debug for Keeper<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper")
    }
}

/// Runs the plan to its end.
///
/// # Errors
/// When the sandbox cannot be made as planned. What the program does is never an error: it is in the
/// [`Outcome`], and so is that it could not be executed.
pub fn launch(
    plan: &Plan,
    hierarchy: &Hierarchy,
    extras: Extras<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, LaunchError> {
    let images = match &plan.gvisor {
        None => plan.steps.iter().map(Image::new).collect::<Result<Vec<_>, _>>(),
        Some(gvisor) => {
            plan.steps.iter().zip(&gvisor.commands).map(|(step, runsc)| Image::runsc(&step.cwd, runsc)).collect()
        }
    };
    let images = images.map_err(LaunchError::Plan)?;
    let holds = Holds::decide(plan, hierarchy)?;
    let published = Published::take(&plan.publish).map_err(LaunchError::Egress)?;
    let files = extras.fetch.iter().map(fetch::Target::open).collect::<Result<Vec<_>, _>>()?;
    let host = HostSide { window: extras.input.window(), logs: observer.wants_contacts(), published };
    let (disk, mut made) = make(plan, hierarchy, holds, &images, None, host, |running| {
        running.enter_record(plan, extras.runtime.as_deref())
    })?;
    // Only v1 needs it, and the program is not running yet.
    made.oom = made.leaf.as_ref().map(Leaf::watch_oom).transpose().map_err(LaunchError::Cgroup)?.flatten();
    let controls = controls(plan, hierarchy, &holds, extras.secrets.len());
    let outcome =
        supervise::Supervisor::new(plan, made, files, controls, extras).and_then(|supervisor| supervisor.run(observer));
    match (outcome, disk) {
        (Ok(mut outcome), Some(disk)) => {
            if let Err(error) = disk.empty() {
                outcome.error.get_or_insert(Failure::keep(&error.into_error()));
            }
            Ok(outcome)
        }
        (outcome, _) => outcome,
    }
}

/// A sandbox whose init has all that it needs from outside.
#[derive(Debug)]
struct Made {
    running: Running,
    streams: Streams,
    leaf: Option<Leaf>,
    holds: Holds,
    oom: Option<OomWatch>,
    /// What was heard and counted before it was used.
    before: Before,
}

#[derive(Debug, Default)]
struct Before {
    listener: Option<OwnedFd>,
    root: Option<OwnedFd>,
    denials: Denials,
    events: Events,
    usage: cgroup::Usage,
    /// Of the program alone, where no cgroup counts it.
    cpu: Duration,
    /// What the program is given to read before its input, once it is told to have started.
    first: Vec<u8>,
    /// By which it says that it could not become what it was to be.
    mark: Option<Mark>,
}

/// Makes the sandbox. `meanwhile` is done while the init builds.
fn make<'p>(
    plan: &'p Plan,
    hierarchy: &Hierarchy,
    holds: Holds,
    images: &[Image],
    ahead: Option<Ahead<'_>>,
    host: HostSide,
    meanwhile: impl FnOnce(&mut Running) -> Result<(), LaunchError>,
) -> Result<(Option<upper::Disk<'p>>, Made), LaunchError> {
    // On v2 the init is cloned into its cgroup; on v1 it enters by itself, and the cgroup is made while it builds.
    let entered_by_clone = matches!(hierarchy, Hierarchy::V2(_));
    let mut leaf = if entered_by_clone { holds.create_leaf(plan, hierarchy)? } else { None };
    // Dropped after what it belongs to.
    let mut disk = None;
    let (mut running, streams) = start(plan, images, ahead, &holds, leaf.as_ref(), host)?;
    if let (Some(at), Some(namespace)) = (plan.on_disk(), &running.namespace) {
        disk = Some(upper::Disk::open(at, namespace.as_fd())?);
    }
    mapped::hand_over(plan, &running)?;
    meanwhile(&mut running)?;
    if !entered_by_clone {
        leaf = holds.create_leaf(plan, hierarchy)?;
        // An init that is gone has left word why, and the supervisor will read it.
        for tasks in leaf.iter().flat_map(Leaf::join_fds) {
            _ = running.control.enter_cgroup(tasks);
        }
    }
    _ = running.control.order(Order::Entered);
    Ok((disk, Made { running, streams, leaf, holds, oom: None, before: Before::default() }))
}

/// The sandbox's init, and the way to it. Dropped, it is killed, and with it all of the sandbox.
#[derive(Debug)]
struct Running {
    pid: i32,
    pidfd: OwnedFd,
    control: SupervisorEnd,
    /// The sandbox's user namespace, where the program's files are not the caller's and some will be wanted.
    namespace: Option<OwnedFd>,
    waited: bool,
    egress: Option<Egress>,
    connector: Option<gateway::Helper>,
    ports: Vec<Publish>,
    control_door: Option<Control>,
    /// Until it is known what for.
    reserved: Option<Reserved>,
    /// Removed when nothing of it is left.
    entry: Option<Entry>,
}

impl Running {
    fn new(pid: i32, pidfd: OwnedFd, control: OwnedFd) -> Self {
        Self {
            pid,
            pidfd,
            control: SupervisorEnd(control),
            namespace: None,
            waited: false,
            egress: None,
            connector: None,
            ports: Vec::new(),
            control_door: None,
            reserved: None,
            entry: None,
        }
    }

    /// Does what others can be let know of it by that can be done ahead.
    fn reserve_record(&mut self, plan: &Plan) -> Result<(), LaunchError> {
        self.reserved = Some(Reserved::ahead(plan, self.pid).map_err(LaunchError::State)?);
        Ok(())
    }

    /// Lets others know of it.
    fn enter_record(&mut self, plan: &Plan, runtime: Option<&str>) -> Result<(), LaunchError> {
        let reserved = self.reserved.take().map_or_else(|| Reserved::new(plan, self.pid), Ok);
        let entry = reserved.and_then(|reserved| Entry::create(reserved, plan, runtime, &self.ports));
        let entry = entry.map_err(LaunchError::State)?;
        let listener = self.entry.insert(entry).listener().map(|listener| listener.try_clone_to_owned());
        let listener = listener.transpose().map_err(|error| LaunchError::System {
            what: "listen for what it is told",
            errno: sys::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
        })?;
        self.control_door = listener.map(Control::new);
        Ok(())
    }

    fn kill(&self) {
        // ESRCH: it is gone already, which is what was wanted.
        _ = process::signal(self.pidfd.as_fd(), libc::SIGKILL);
    }

    /// Ends it, if it has not ended.
    fn end(&mut self) {
        if !self.waited {
            self.kill();
            _ = self.wait();
        }
    }

    /// Returns when no process of the sandbox is left.
    fn wait(&mut self) -> sys::Result<process::Ended> {
        let ended = process::wait(self.pid, true)?;
        self.waited = true;
        ended.ok_or(sys::Errno::ECHILD)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Our ends of the program's streams.
#[derive(Debug)]
struct Streams {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// What of the caller's side the start has to know.
struct HostSide {
    window: Option<libc::winsize>,
    logs: bool,
    published: Published,
}

/// Clones the init and gives it its ids; it builds on while we go on.
fn start(
    plan: &Plan,
    images: &[Image],
    ahead: Option<Ahead<'_>>,
    holds: &Holds,
    leaf: Option<&Leaf>,
    host: HostSide,
) -> Result<(Running, Streams), LaunchError> {
    let (ours, theirs) = socket::record_pair().map_err(system("make a socket pair"))?;
    let (in_read, in_write) = fs::pipe().map_err(system("make a pipe"))?;
    let (out_read, out_write) = fs::pipe().map_err(system("make a pipe"))?;
    let (err_read, err_write) = fs::pipe().map_err(system("make a pipe"))?;
    let stdio = [in_read.as_fd(), out_write.as_fd(), err_write.as_fd()];
    // Some twice, where there is no interpreter to be told anything.
    let [told, tells] = ahead.as_ref().and_then(|ahead| ahead.booted).unwrap_or([theirs.as_fd(); 2]);
    let mut keep = [stdio[0], stdio[1], stdio[2], theirs.as_fd(), told, tells].map(|fd| fd.as_raw_fd());
    keep.sort_unstable();
    if keep[0] < 3 {
        return Err(LaunchError::StandardStreamsClosed);
    }
    let world = World {
        plan,
        images,
        ahead,
        control: theirs.as_fd(),
        stdio,
        filter_flags: filter_flags(plan),
        processes: holds.processes(plan),
        again: (plan.gvisor.is_some() && plan.egress.is_some()).then(Again::new),
        window: host.window,
        watched: holds.memory == Means::Watched,
        keep: &keep,
    };
    let mut helper = None;
    let mut running = if plan.egress.is_some() {
        let (running, its) = gateway::clone_init(plan, leaf, &world, ours)?;
        helper = Some(its);
        running
    } else {
        let into = leaf.and_then(Leaf::clone_into);
        match clone::clone_process(plan.clone_flags(), into).map_err(LaunchError::Clone)? {
            Cloned::Child => world.run(),
            Cloned::Parent { pid, pidfd } => Running::new(pid, pidfd, ours),
        }
    };
    // Behind a gateway, the helper has given an ordinary user's init its ids.
    if plan.egress.is_none() || plan.ids.kind == IdsKind::Range {
        ids::write(plan.ids.kind, &plan.ids.users, &plan.ids.groups, running.pid)?;
    }
    if plan.keeps || plan.on_disk().is_some() || (plan.fetches && plan.ids.kind == IdsKind::Subuid) {
        running.namespace = Some(ids::namespace(running.pid)?);
    }
    _ = running.control.order(Order::Build);
    if let (Some(policy), Some(helper)) = (&plan.egress, helper) {
        // The program starts behind a whole gateway: it waits for `Order::Entered`.
        let listeners = helper.listeners()?;
        running.ports.clone_from(&host.published.ports);
        let inward = if plan.publish.is_empty() {
            None
        } else {
            // Where the proxy asks for sockets, nothing else is said then.
            helper.whole()?;
            Some(Inward { published: host.published, sockets: helper.sockets()? })
        };
        let first = Policy::clone(plan.setup_egress.as_ref().unwrap_or(policy));
        running.egress = Some(Egress::start(first, listeners, host.logs, inward, None)?);
        if plan.publish.is_empty() {
            helper.whole()?;
        } else {
            running.connector = Some(helper);
        }
    }
    Ok((running, Streams { stdin: in_write, stdout: out_read, stderr: err_read }))
}

fn system(what: &'static str) -> impl Fn(sys::Errno) -> LaunchError {
    move |errno| LaunchError::System { what, errno }
}

fn filter_flags(plan: &Plan) -> u32 {
    if plan.gvisor.is_some() {
        return 0;
    }
    let mut flags = plan.seccomp.program.flags();
    if plan.seccomp.reports() {
        flags |= seccomp::NEW_LISTENER | seccomp::WAIT_KILLABLE_RECV;
        if !seccomp::knows_flags(flags) {
            flags &= !seccomp::WAIT_KILLABLE_RECV;
        }
    }
    flags
}

/// Who holds each limit on this host.
#[derive(Debug, Clone, Copy)]
struct Holds {
    memory: Means,
    pids: Means,
    cpu: Means,
}

impl Holds {
    /// A limit that was asked for and cannot be held is an error; a default one is held as well as may be, and
    /// the result says how.
    fn decide(plan: &Plan, hierarchy: &Hierarchy) -> Result<Self, LaunchError> {
        let by = |controller, otherwise| if hierarchy.can(controller) { Means::Cgroup } else { otherwise };
        let holds = Self {
            memory: by(Controller::Memory, Means::Watched),
            pids: by(Controller::Pids, Means::Rlimit),
            cpu: by(Controller::Cpu, Means::None),
        };
        if plan.limits.asked.cpus && holds.cpu == Means::None {
            let why = match hierarchy {
                Hierarchy::None { why } => why.clone(),
                _ => "its controller is not available here".to_owned(),
            };
            return Err(LaunchError::Unheld { flag: "--cpu", why });
        }
        if plan.limits.cpu_time.is_some() && !hierarchy.can(Controller::CpuTime) {
            let why = "without a cgroup only each process's own is counted".to_owned();
            return Err(LaunchError::Unheld { flag: "--cpu-time", why });
        }
        Ok(holds)
    }

    /// The limit of processes where no cgroup holds it: RLIMIT_NPROC, which counts those of one user in one user
    /// namespace, and so of one sandbox; the init is one of them when it has the program's id.
    fn processes(self, plan: &Plan) -> Option<u64> {
        let init = u64::from(plan.ids.setup.0 == plan.identity.uid);
        (self.pids == Means::Rlimit).then(|| u64::from(plan.pids(&StepLimits::default())) + init)
    }

    fn create_leaf(self, plan: &Plan, hierarchy: &Hierarchy) -> Result<Option<Leaf>, LaunchError> {
        let limits = &plan.limits;
        let first = plan.steps.first().map(|step| step.limits).unwrap_or_default();
        let caps = Caps {
            memory: (self.memory == Means::Cgroup).then(|| plan.memory(&first)),
            pids: (self.pids == Means::Cgroup).then(|| plan.pids(&first).saturating_add(1)),
            cpu: (self.cpu == Means::Cgroup).then(|| CpuBandwidth::cpus(limits.cpus)),
            count_cpu_time: limits.cpu_time.is_some() && hierarchy.can(Controller::CpuTime),
        };
        if caps == Caps::default() {
            return Ok(None);
        }
        hierarchy.create(&plan.id, &caps).map(Some).map_err(LaunchError::Cgroup)
    }
}

fn network(mode: Mode) -> Network {
    match mode {
        Mode::Filtered => Network::Filtered,
        Mode::Packages => Network::Packages,
        Mode::Web => Network::Web,
        Mode::Public => Network::Public,
        Mode::Open => Network::Open,
    }
}

/// What will be in force once the program runs: every line of it was checked by the kernel on the way there.
fn controls(plan: &Plan, hierarchy: &Hierarchy, holds: &Holds, secrets: usize) -> Controls {
    let layer = plan.landlock.first();
    Controls {
        user_namespace: true,
        seccomp: Some(plan.seccomp.name.clone()),
        landlock_abi: layer.map(|layer| layer.abi),
        cgroup: match hierarchy {
            Hierarchy::V2(_) => Cgroup::V2,
            Hierarchy::V1(_) => Cgroup::V1,
            Hierarchy::None { .. } => Cgroup::None,
        },
        memory: holds.memory,
        network: match &plan.egress {
            Some(policy) => network(policy.mode()),
            None if plan.own_network() => Network::None,
            None => Network::Host,
        },
        pids: holds.pids,
        cpu: holds.cpu,
        landlock_scopes: match layer {
            Some(layer) if layer.scoped != 0 => vec![LandlockScope::AbstractUnixSocket, LandlockScope::Signal],
            _ => Vec::new(),
        },
        no_new_privs: true,
        capabilities: if plan.capabilities == 0 { Capabilities::None } else { Capabilities::Install },
        id_map: Some(match plan.ids.kind {
            IdsKind::Range => IdMap::Range,
            IdsKind::Single => IdMap::Single,
            IdsKind::Subuid => IdMap::Subuid,
        }),
        rootfs: Some(match plan.rootfs {
            "host" => Rootfs::Host,
            "image" => Rootfs::Image,
            _ => Rootfs::Directory,
        }),
        secrets,
        image: plan.image.clone(),
    }
}
