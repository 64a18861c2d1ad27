//! `restore`: a container brought back from the files that `checkpoint` wrote, by CRIU.
//!
//! Its place is made as `create` makes it: state directory, groups, and what is mounted come from the bundle. Its
//! processes come from the image, and are what the image says.

use std::{
    cell::OnceCell,
    collections::BTreeSet,
    ffi::CString,
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use super::{
    Attention, Bundle, Driver, check_terminal,
    checkpoint::{Config, NETWORK, PIDS, can_be_restored, common},
    connect, delete, die_at, failed, group_of,
    guest::{self, Isolation},
    hooks, launch, write_pid,
};
use crate::{
    Result,
    criu::{
        CgroupRoot, Criu, Directory, Event, FIRST_INHERITED, InheritedFd, Job, JoinedNamespace, Options, Outside, Root,
        Streams,
    },
    error::Hint,
    launch::build::settings,
    plan::setup::SetupOp,
    state::{
        container::{Init, Status},
        root::{ContainerId, StateRoot},
    },
    sys::{namespace, process, socket},
};

/// What `restore` is asked for.
#[derive(Debug)]
pub struct Restore {
    pub root: StateRoot,
    pub id: ContainerId,
    pub bundle: PathBuf,
    pub criu: Option<PathBuf>,
    pub images: PathBuf,
    pub work: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub detach: bool,
    pub driver: Driver,
    pub rootless: bool,
    pub isolation: Isolation,
    pub egress: super::Egress,
    /// As in [`super::Checkpoint`].
    pub options: Options,
    pub warn: fn(&str),
}

/// Where criu's root is mounted, in the container's state directory and for criu alone.
const ROOT: &str = "criu-root";

/// Brings it back. Returns its exit status, or 0 when detached.
pub fn restore(wanted: &Restore) -> Result<i32> {
    if let Some(status) = guest::restore(wanted)? {
        return Ok(status);
    }
    let attention = if wanted.detach { Attention::None } else { Attention::Foreground(OnceCell::new()) };
    let child = begin(wanted, &attention)?;
    let Attention::Foreground(cell) = attention else {
        _ = child.keep();
        return Ok(0);
    };
    let Some(foreground) = cell.into_inner() else { return Err(failed("nobody attends the container")) };
    let status = foreground.attend(child).map_err(failed);
    delete(&wanted.root, &wanted.id, true, wanted.warn)?;
    status
}

fn begin(wanted: &Restore, attention: &Attention) -> Result<launch::Child> {
    let bundle = Bundle::read(&wanted.bundle, None, true, &wanted.egress, (&wanted.id, Isolation::default()))?;
    bundle.warn(wanted.warn);
    let plan = &bundle.plan;
    can_be_restored(plan, &bundle.host)?;
    let criu = Criu::find(wanted.criu.as_deref()).and_then(Criu::check).map_err(Hint::into_error)?;
    let images = Directory::open(&wanted.images, "--image-path").map_err(Hint::into_error)?;
    let work = wanted.work.as_deref().map(|path| Directory::make(path, "--work-path")).transpose();
    let work = work.map_err(Hint::into_error)?;
    let streams = Streams::load(&images).map_err(Hint::into_error)?;
    check_terminal(plan.process.terminal, wanted.console_socket.as_deref(), wanted.detach)?;
    let place = bundle.place(wanted.driver, &wanted.id, wanted.rootless)?;
    let console = connect(wanted.console_socket.as_deref())?;
    let own_console = attention.begin(plan.process.terminal && console.is_none())?;
    let console = console.as_ref().map(AsFd::as_fd).or(own_console);
    let (namespaces, joined) = namespaces(plan)?;

    let mut record = bundle.record(&wanted.id, &place, wanted.rootless, true);
    let mut options = wanted.options.clone();
    let config = Config::of(&record, plan)?;
    let log = common(&mut options, Job::Restore, &images, work.as_ref(), &config);
    let shares = bundle.shares(&wanted.id)?;
    record.resctrl = shares.as_ref().map(|shares| shares.place().clone());
    let (mut undo, lock) = bundle.establish(&wanted.root, &wanted.id, &place, shares.as_ref(), &record)?;
    bundle.complete(&undo)?;
    let at = undo.dir()?.path().join(ROOT);
    std::fs::create_dir(&at).map_err(super::io("make", &at))?;
    let outside = Outside::of(plan.setup.iter(), Some(place.record())).map_err(Hint::into_error)?;
    options.external_mounts = outside.to_restore();
    options.root = Some(at.display().to_string());
    options.restore_sibling = Some(true);
    options.evasive_devices = Some(true);
    options.orphan_terminal = Some(true);
    options.joined = joined;
    options.inherited = streams.inherited();
    let keys = namespaces.iter().map(|(key, _)| (*key).to_owned());
    options.inherited.extend(keys.zip(FIRST_INHERITED..).map(|(key, number)| InheritedFd { key, number }));
    let inherited: Vec<_> = namespaces.iter().map(|(_, file)| file.as_fd()).collect();
    let users = plan.ids.as_ref().map(launch::user_namespace).transpose().map_err(failed)?;
    let work = work.as_ref().unwrap_or(&images);
    let root = Root { rootfs: &bundle.rootfs, setup: &plan.setup, at: &at, images: &images, work, users };
    let session = criu.start(&inherited, Some(&root)).map_err(Hint::into_error)?;
    // What it makes is made in its groups.
    if let Some(group) = undo.group.borrow_mut().as_mut() {
        group.adopt(session.pid()).map_err(Hint::into_error)?;
    }
    let [images_number, work_number] = session.directories().ok_or_else(|| failed("criu has nowhere to work"))?;
    (options.images, options.work) = (images_number, Some(work_number));
    options.cgroup_roots = groups_of(session.pid())?;

    let mut child = None;
    let heard = |event| match event {
        Event::Namespaces(pid) => {
            settle_network(plan, pid)?;
            let told = hooks::state(&record, Status::Creating, pid);
            #[allow(deprecated)]
            hooks::run("prestart", plan.hooks.prestart().as_ref(), &told)?;
            hooks::run("createRuntime", plan.hooks.create_runtime().as_ref(), &told)
        }
        Event::Restored(pid) => {
            let pidfd = process::open_process(pid).map_err(|errno| format!("open its process: {}", errno.desc()))?;
            child = Some(launch::Child::new(pid, pidfd));
            // Before it runs: a runtime that is killed now leaves a container that is found.
            record.init = Some(Init::of(pid).map_err(|error| format!("look at its process: {error}"))?);
            record.started = true;
            let dir = undo.dir.as_ref().ok_or("no state directory")?;
            let saved = dir.save(&record).map_err(|error| error.into_error().message().to_owned());
            die_at("restored");
            saved
        }
        Event::Terminal(master) => match console {
            Some(console) => socket::send(console, b"/dev/ptmx", Some(master.as_fd()))
                .map_err(|errno| format!("send the terminal: {}", errno.desc())),
            None => Ok(()),
        },
        Event::Ready => Ok(()),
    };
    session.work(Job::Restore, options, log, heard).map_err(Hint::into_error)?;
    let Some(child) = child else { return Err(failed("criu does not say what it has restored")) };
    undo.record = Some(record.clone());
    _ = std::fs::remove_dir(&at);
    if let Some(path) = &wanted.pid_file {
        write_pid(path, child.pid)?;
    }
    if let Some(timeout) = bundle.controls.timeout {
        let group = || group_of(&record).ok().flatten();
        launch::end_after(timeout, child.pidfd.as_fd(), group).map_err(failed)?;
    }
    let told = hooks::state(&record, Status::Running, child.pid);
    hooks::run("poststart", plan.hooks.poststart().as_ref(), &told).map_err(failed)?;
    drop(lock);
    undo.keep()?;
    Ok(child)
}

type Joined = (Vec<(&'static str, OwnedFd)>, Vec<JoinedNamespace>);

/// Those of others: of the network and of pids by descriptor, as criu wants them; the rest by path.
fn namespaces(plan: &super::plan::Plan) -> Result<Joined> {
    let (mut inherited, mut joined) = (Vec::new(), Vec::new());
    for (flag, path) in &plan.namespaces.joined {
        let open = || File::open(path).map(OwnedFd::from).map_err(super::io("open namespace", path));
        match *flag {
            libc::CLONE_NEWNET => inherited.push((NETWORK, open()?)),
            libc::CLONE_NEWPID => inherited.push((PIDS, open()?)),
            libc::CLONE_NEWCGROUP => return Err(failed("CRIU cannot restore into a cgroup namespace of another's")),
            flag => joined.push(JoinedNamespace {
                kind: launch::namespace_name(flag).to_owned(),
                path: path.display().to_string(),
            }),
        }
    }
    Ok((inherited, joined))
}

/// Where that process is in each tree, a line for each controller (cgroups(7)).
fn groups_of(pid: i32) -> Result<Vec<CgroupRoot>> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = std::fs::read_to_string(&path).map_err(super::io("read", &path))?;
    let mut seen = BTreeSet::new();
    let mut roots = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        for controller in controllers.split(',').filter(|controller| seen.insert((*controller).to_owned())) {
            roots.push(CgroupRoot { controller: Some(controller.to_owned()), path: path.to_owned() });
        }
    }
    Ok(roots)
}

/// What criu does not bring back: a new network namespace has its loopback device down, no devices of the host's, and
/// settings that are the kernel's; one of another's has whatever its maker gave it.
fn settle_network(plan: &super::plan::Plan, pid: i32) -> Result<(), String> {
    let settings = plan.setup.iter().filter_map(|operation| match operation {
        SetupOp::Sysctl { key, value } if key.to_bytes().starts_with(b"net/") => Some((key, value)),
        _ => None,
    });
    let settings: Vec<_> = settings.collect();
    let new = plan.namespaces.new & libc::CLONE_NEWNET != 0;
    if !new && settings.is_empty() {
        return Ok(());
    }
    let joined = plan.namespaces.joined.iter().find(|(flag, _)| *flag == libc::CLONE_NEWNET);
    let theirs = joined.map_or_else(|| format!("/proc/{pid}/ns/net").into(), |(_, path)| path.clone());
    let open = |path: &Path| File::open(path).map_err(|error| format!("open {}: {error}", path.display()));
    let (ours, theirs) = (open(Path::new("/proc/self/ns/net"))?, open(&theirs)?);
    let number = |file: &File| file.metadata().map(|found| found.ino()).map_err(|error| error.to_string());
    if number(&ours)? == number(&theirs)? {
        return Err("linux.sysctl: the network namespace to be joined is the host's".to_owned());
    }
    if new {
        launch::give_devices(&plan.net_devices, pid)?;
    }
    let proc = launch::host_proc()?;
    let enter = |file: BorrowedFd<'_>| {
        namespace::enter(file, libc::CLONE_NEWNET).map_err(|errno| format!("setns: {}", errno.desc()))
    };
    enter(theirs.as_fd())?;
    let raised = if new { namespace::raise_loopback() } else { Ok(()) };
    let raised = raised.map_err(|errno| format!("bring loopback up: {}", errno.desc()));
    let set = |(key, value): (&CString, &CString)| {
        settings::set(proc.as_fd(), key, value)
            .map_err(|errno| format!("linux.sysctl: {}: {}", key.to_string_lossy(), errno.desc()))
    };
    let settled = raised.and_then(|()| settings.into_iter().try_for_each(set));
    enter(ours.as_fd())?;
    settled
}
