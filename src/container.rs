//! The facade of the engines' side: an OCI container's life, as runc's verbs have it.
//!
//! Whatever is made is recorded before it is made, so that a runtime killed at any instant leaves nothing that
//! `delete --force` cannot find.

mod bundle;
mod checkpoint;
mod delete;
mod egress;
mod exec;
mod guest;
mod living;
mod restore;

use std::{
    cell::{OnceCell, RefCell},
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
};

use oci_spec::runtime as oci;

use crate::{
    Error, Result,
    cgroup::container::{Group, resctrl},
    error::Hint,
    launch::container::{self as launch, hooks},
    plan::container as plan,
    spec::container as spec,
    state::{
        container::{Init, Record, Status},
        root::{ContainerId, Dir, Lock, StateRoot},
    },
    sys::Errno,
};

use self::bundle::{Bundle, circumstances};
pub use self::{
    checkpoint::{Checkpoint, checkpoint},
    delete::delete,
    egress::{Egress, policy, set_policy},
    exec::{Exec, exec},
    guest::{Isolation, list as guest_processes},
    living::{NOT_RUNNING, Usage, kill, pause, processes, record, resume, update},
    restore::{Restore, restore},
};
pub use crate::cgroup::container::Driver;

/// What `create` and `run` are asked for.
#[derive(Debug)]
pub struct Create {
    pub root: StateRoot,
    pub id: ContainerId,
    pub bundle: PathBuf,
    /// Instead of the bundle's config.json.
    pub config: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub driver: Driver,
    pub rootless: bool,
    /// Whose kernel it is to be on.
    pub isolation: Isolation,
    pub egress: Egress,
    /// The calling program is the runtime and nothing else: it may execute itself again, to have its binary out of
    /// the container's reach (CVE-2019-5736).
    pub guard_binary: bool,
    /// For what the specification wants passed over, and said.
    pub warn: fn(&str),
}

/// Whether whoever calls us has no say over the host's control groups: no root, or root of a user namespace.
#[must_use]
pub fn is_rootless() -> bool {
    !nix::unistd::geteuid().is_root() || !crate::host::in_initial_user_namespace()
}

/// Where tests kill the runtime, to see that nothing it made is lost. Not in releases.
fn die_at(point: &str) {
    if cfg!(debug_assertions) && std::env::var_os("FUMEHOOD_DIE_AT").is_some_and(|wanted| wanted == point) {
        crate::sys::process::kill_self();
    }
}

fn failed(why: impl Into<String>) -> Error {
    Error::new(why)
}

fn io(what: &str, path: &Path) -> impl Fn(std::io::Error) -> Error {
    let text = format!("{what} {}", path.display());
    move |error| Error::new(format!("{text}: {error}"))
}

/// Makes the container: a process waits inside, and its state is recorded.
pub fn create(wanted: &Create) -> Result<()> {
    let mut made = begin(wanted, &Attention::None, Waits::ForStart, None)?;
    drop(made.lock);
    made.child.release();
    _ = made.child.keep();
    Ok(())
}

/// Who lets a made container go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// A later call, which finds it by its state directory.
    ForStart,
    /// We, and nobody else.
    ForUs,
}

/// A container that is on record and waits.
struct Made {
    child: launch::Child,
    dir: Dir,
    lock: Lock,
    record: Record,
    spec: oci::Spec,
    controls: spec::Controls,
}

/// A container in the making; dropped, all of it is undone.
struct Undo<'a> {
    dir: Option<Dir>,
    group: RefCell<Option<Group>>,
    resctrl: Option<resctrl::Place>,
    hooks: Option<&'a Vec<oci::Hook>>,
    record: Option<Record>,
}

impl Undo<'_> {
    fn dir(&self) -> Result<&Dir> {
        self.dir.as_ref().ok_or_else(|| failed("no state directory"))
    }

    /// What is through stays.
    fn keep(mut self) -> Result<Dir> {
        self.record = None;
        self.group.take();
        self.resctrl = None;
        self.dir.take().ok_or_else(|| failed("no state directory"))
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            _ = group.kill_all(libc::SIGKILL);
            _ = group.remove();
        }
        if let Some(place) = self.resctrl.take() {
            _ = place.remove();
        }
        if let Some(record) = self.record.take() {
            // As when it is deleted: what earlier hooks made is theirs to unmake.
            _ = hooks::run("poststop", self.hooks, &hooks::state(&record, Status::Stopped, 0));
        }
        if let Some(dir) = self.dir.take() {
            _ = dir.remove();
        }
    }
}

/// Whether somebody of ours stays with the process.
enum Attention {
    None,
    /// Made once it is known whether there is a terminal.
    Foreground(OnceCell<launch::Foreground>),
}

impl Attention {
    fn begin(&self, terminal: bool) -> Result<Option<BorrowedFd<'_>>> {
        let Self::Foreground(cell) = self else { return Ok(None) };
        let foreground = launch::Foreground::new(terminal).map_err(failed)?;
        Ok(cell.get_or_init(|| foreground).console())
    }
}

fn begin(wanted: &Create, attention: &Attention, waits: Waits, image: Option<BorrowedFd<'_>>) -> Result<Made> {
    // Nearly all that root makes needs it, and what is done before is done twice.
    let guarded = wanted.guard_binary && !is_rootless();
    if guarded {
        guard_binary()?;
    }
    let config = wanted.config.as_deref();
    let mut bundle =
        Bundle::read(&wanted.bundle, config, !wanted.no_pivot, &wanted.egress, (&wanted.id, wanted.isolation))?;
    let preserve = passed(wanted.preserve_fds)? + listening(&mut bundle.plan);
    guest::check_passed(bundle.plan.gvisor.is_some(), preserve)?;
    if bundle.plan.egress.is_some() {
        egress::check_passed(&bundle.plan.process, bundle.plan.ids.is_some(), preserve)?;
    }
    if wanted.guard_binary && !guarded && guard_needed(bundle.plan.ids.as_ref()) {
        guard_binary()?;
    }
    bundle.warn(wanted.warn);
    let plan = &bundle.plan;
    let detached = matches!(attention, Attention::None);
    check_terminal(plan.process.terminal, wanted.console_socket.as_deref(), detached)?;
    let place = bundle.place(wanted.driver, &wanted.id, wanted.rootless)?;
    let shares = bundle.shares(&wanted.id)?;
    let console = connect(wanted.console_socket.as_deref())?;
    let own_console = attention.begin(plan.process.terminal && console.is_none())?;

    let mut record = bundle.record(&wanted.id, &place, wanted.rootless, !wanted.no_new_keyring);
    record.resctrl = shares.as_ref().map(|shares| shares.place().clone());
    let (mut undo, lock) = bundle.establish(&wanted.root, &wanted.id, &place, shares.as_ref(), &record)?;
    let no_pipes = |errno: Errno| failed(format!("make the pipes for start: {}", errno.desc()));
    let start = match waits {
        Waits::ForStart => Some(launch::Pipes::make(undo.dir()?.fd()).map_err(no_pipes)?),
        Waits::ForUs => None,
    };
    let door = plan.egress.as_ref().map(|_| undo.dir()?.open_door().map_err(Hint::into_error)).transpose()?;
    let child = launch::create(&launch::Create {
        plan,
        group: &undo.group,
        start: start.as_ref(),
        meanwhile: &|| bundle.complete(&undo).map_err(|error| error.to_string()),
        console: console.as_ref().map(AsFd::as_fd).or(own_console),
        preserve,
        keyring: !wanted.no_new_keyring,
        privileged: bundle.host.privileged,
        host_root: bundle.host.privileged && bundle.host.initial_user_namespace,
        record: &record,
        image,
        egress_door: door.as_ref().map(AsFd::as_fd),
        egress_log: wanted.egress.log.as_ref().map(AsFd::as_fd),
    })
    .map_err(failed)?;
    drop(door);
    die_at("ready");
    record.init =
        Some(Init::of(child.pid).map_err(|error| failed(format!("look at the container's process: {error}")))?);
    record.egress = child.egress;
    // A container that runs must not look like one that waits, should we be killed when we let it go.
    record.started = waits == Waits::ForUs;
    undo.dir()?.save(&record).map_err(Hint::into_error)?;
    undo.record = Some(record.clone());
    if let Some(path) = &wanted.pidfd_socket {
        send_pidfd(path, child.pidfd.as_fd())?;
    }
    if let Some(path) = &wanted.pid_file {
        write_pid(path, child.pid)?;
    }
    let dir = undo.keep()?;
    die_at("recorded");
    let Bundle { spec, controls, .. } = bundle;
    Ok(Made { child, dir, lock, record, spec, controls })
}

fn passed(count: u32) -> Result<u32> {
    if count > MOST_PASSED {
        return Err(failed(format!("--preserve-fds {count}: more than {MOST_PASSED}")));
    }
    Ok(count)
}

fn guard_binary() -> Result<()> {
    crate::sys::own_binary::put_out_of_reach()
        .map_err(|errno| failed(format!("put the runtime's binary out of the container's reach: {}", errno.desc())))
}

/// How many sockets the caller passes by systemd's protocol (sd_listen_fds(3)), from descriptor 3 on, and what the
/// program is told of them.
fn listening(plan: &mut plan::Plan) -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    // A variable that was meant for another process says nothing of our descriptors.
    let ours = number("LISTEN_PID").is_none_or(|pid| pid == std::process::id());
    let Some(count) = number("LISTEN_FDS").filter(|count| ours && (1..=MOST_PASSED).contains(count)) else { return 0 };
    let told = [format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()];
    plan.process.env.extend(told.into_iter().filter_map(|text| std::ffi::CString::new(text).ok()));
    count
}

/// More descriptors than anybody passes.
const MOST_PASSED: u32 = 4096;

/// The binary is safe from a container in which the owner of its file has no id.
fn guard_needed(ids: Option<&plan::IdMaps>) -> bool {
    let Ok(file) = std::fs::metadata("/proc/self/exe") else { return true };
    let Some(maps) = ids else { return true };
    let has = |maps: &[crate::plan::ids::Map], id: u32| {
        maps.iter().any(|map| id.checked_sub(map.outside).is_some_and(|offset| offset < map.count))
    };
    let by_others = file.mode() & 0o002 != 0;
    let by_group = file.mode() & 0o020 != 0 && has(&maps.groups, file.gid());
    by_others || by_group || has(&maps.users, file.uid())
}

/// A container with a terminal needs somebody to give it to.
fn check_terminal(terminal: bool, socket: Option<&Path>, detached: bool) -> Result<()> {
    match (terminal, socket) {
        (true, None) if detached => {
            Err(failed("cannot allocate tty if runc will detach without setting console socket"))
        }
        (false, Some(_)) => Err(failed("cannot use console socket if runc will not detach or allocate tty")),
        _ => Ok(()),
    }
}

fn connect(socket: Option<&Path>) -> Result<Option<std::os::fd::OwnedFd>> {
    socket.map(|path| launch::connect_console(path).map_err(io("connect to console socket", path))).transpose()
}

/// Decimal, without a newline, and whole at once.
fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let unseen = path.with_file_name(std::ffi::OsStr::from_bytes(&[b".", name].concat()));
    let written = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&unseen)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| std::fs::rename(&unseen, path));
    written.map_err(|error| {
        _ = std::fs::remove_file(&unseen);
        io("write pid file", path)(error)
    })
}

fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>) -> Result<()> {
    let socket = launch::connect_console(path).map_err(io("connect to pidfd socket", path))?;
    crate::sys::socket::send(socket.as_fd(), b"pidfd", Some(pidfd))
        .map_err(|errno| failed(format!("send pidfd: {}", errno.desc())))
}

/// The cgroup of a recorded container.
pub fn group_of(record: &Record) -> Result<Option<Group>> {
    record.cgroup.as_ref().map(Group::open).transpose().map_err(Hint::into_error)
}

/// Lets the program of a created container run.
pub fn start(root: &StateRoot, id: &ContainerId) -> Result<()> {
    let dir = root.open(id).map_err(Hint::into_error)?;
    let _lock = dir.lock().map_err(Hint::into_error)?;
    let mut record = dir.load().map_err(Hint::into_error)?;
    match (record.status(), &record.init) {
        (Status::Created, Some(_)) => {}
        (Status::Running | Status::Paused, _) => return Err(failed("cannot start an already running container")),
        (Status::Stopped, _) => return Err(failed("cannot start a container that has stopped")),
        (_, _) => return Err(failed("cannot start a container that is being created")),
    }
    let spec::Container { spec, controls, .. } =
        spec::parse(dir.read_config().map_err(Hint::into_error)?.into()).map_err(Hint::into_error)?;
    // Before it does: a container that runs must not look like one that waits, should we be killed now.
    record.started = true;
    dir.save(&record).map_err(Hint::into_error)?;
    die_at("starting");
    if let Err(why) = launch::start(dir.fd()) {
        record.started = false;
        dir.save(&record).map_err(Hint::into_error)?;
        return Err(failed(why));
    }
    started(&record, &spec, &controls)
}

/// What is due when the program runs.
fn started(record: &Record, spec: &oci::Spec, controls: &spec::Controls) -> Result<()> {
    if let (Some(timeout), Some(init)) = (controls.timeout, record.init_pidfd()) {
        launch::end_after(timeout, init.as_fd(), || group_of(record).ok().flatten()).map_err(failed)?;
    }
    let Some(poststart) = spec.hooks().as_ref().and_then(|hooks| hooks.poststart().as_ref()) else { return Ok(()) };
    let told = hooks::state(record, Status::Running, record.init.map_or(0, |init| init.pid));
    if let Err(why) = hooks::run("poststart", Some(poststart), &told) {
        // Runtime-spec 1.3: the container is stopped then.
        if let Some(init) = record.init_pidfd() {
            _ = crate::sys::process::signal(init.as_fd(), libc::SIGKILL);
        }
        return Err(failed(why));
    }
    Ok(())
}

/// `create`, `start`, and unless detached, the wait for its end and `delete`. Returns the program's exit status.
pub fn run(wanted: &Create, detach: bool, keep: bool) -> Result<i32> {
    go(wanted, detach, keep, None)
}

/// As [`run`], of a program that may have run before.
fn go(wanted: &Create, detach: bool, keep: bool, image: Option<BorrowedFd<'_>>) -> Result<i32> {
    let attention = if detach { Attention::None } else { Attention::Foreground(OnceCell::new()) };
    let Made { mut child, dir, lock, record, spec, controls } = begin(wanted, &attention, Waits::ForUs, image)?;
    let going = child.let_go().map_err(failed).and_then(|()| started(&record, &spec, &controls));
    drop(lock);
    if let Err(error) = going {
        _ = delete(&wanted.root, &wanted.id, true, wanted.warn);
        return Err(error);
    }
    let Attention::Foreground(cell) = attention else {
        _ = child.keep();
        return Ok(0);
    };
    let Some(foreground) = cell.into_inner() else { return Err(failed("nobody attends the container")) };
    let status = foreground.attend(child).map_err(failed);
    if !keep {
        delete::ended(dir, &record, spec.hooks().as_ref(), wanted.warn)?;
    }
    status
}

/// Whether this is the second start of a runtime that puts its binary out of reach: what is to be said once was said.
#[must_use]
pub fn is_second_start() -> bool {
    crate::sys::own_binary::is_second_start()
}
