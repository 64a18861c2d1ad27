//! `checkpoint`: a running container saved to files, by CRIU.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use super::{circumstances, delete, failed, plan, spec};
use crate::{
    Error, Result,
    cgroup::container::Layout,
    criu::{CgroupMode, Criu, Directory, Event, Job, Options, Outside, Streams},
    error::Hint,
    host::Host,
    plan::{container::operations::From, setup::SetupOp},
    state::{
        container::{Record, Status},
        root::{ContainerId, StateRoot},
    },
    sys::fs,
};

/// What `checkpoint` is asked for.
#[derive(Debug)]
pub struct Checkpoint {
    pub root: StateRoot,
    pub id: ContainerId,
    /// Instead of the first in PATH.
    pub criu: Option<PathBuf>,
    pub images: PathBuf,
    pub work: Option<PathBuf>,
    /// Relative to `images`: an earlier image that this one adds to.
    pub parent: Option<PathBuf>,
    /// Memory alone, and the container goes on.
    pub pre_dump: bool,
    pub leave_running: bool,
    /// A byte is written to it once the page server is ready (`lazy_pages`).
    pub status: Option<OwnedFd>,
    /// What the engine asks of criu itself; the rest is filled in.
    pub options: Options,
    pub warn: fn(&str),
}

/// runc's, in whose place we are.
const CONFIG: &str = "/etc/criu/runc.conf";
const CONFIG_ANNOTATION: &str = "org.criu.config";
const LOG_LEVEL: i32 = 4;
pub(super) const NETWORK: &str = "extRootNetNS";
pub(super) const PIDS: &str = "extRootPidNS";

/// Saves it. It is gone then, unless it is to go on.
pub fn checkpoint(wanted: &Checkpoint) -> Result<()> {
    let dir = wanted.root.open(&wanted.id).map_err(Hint::into_error)?;
    let lock = dir.lock().map_err(Hint::into_error)?;
    let record = dir.load().map_err(Hint::into_error)?;
    let init = match (record.status(), record.init) {
        (Status::Running | Status::Paused, Some(init)) => init.pid,
        (status, _) => return Err(failed(format!("Container cannot be checkpointed in {status} state"))),
    };
    if record.egress.is_some() {
        return Err(filtered());
    }
    if record.gvisor.is_some() {
        // For as long as this takes nobody else changes it.
        let saved = super::guest::save(wanted, &record);
        drop(lock);
        let _still = saved?;
        forget(wanted);
        return Ok(());
    }
    let spec::Container { spec, controls, .. } =
        spec::parse(dir.read_config().map_err(Hint::into_error)?.into()).map_err(Hint::into_error)?;
    let (host, layout) = (Host::probe(), Layout::detect());
    let around = circumstances(&record.bundle, &host, &layout, true);
    let plan = plan::make(&spec, &controls, &around).map_err(Hint::into_error)?;
    can_be_restored(&plan, &host)?;
    let criu = Criu::find(wanted.criu.as_deref()).and_then(Criu::check).map_err(Hint::into_error)?;
    let images = Directory::make(&wanted.images, "--image-path").map_err(Hint::into_error)?;
    let work = wanted.work.as_deref().map(|path| Directory::make(path, "--work-path")).transpose();
    let work = work.map_err(Hint::into_error)?;
    let mut options = wanted.options.clone();
    let job = if wanted.pre_dump { Job::PreDump } else { Job::Save };
    let config = Config::of(&record, &plan)?;
    let log = common(&mut options, job, &images, work.as_ref(), &config);
    options.pid = Some(init);
    options.root = Some(record.rootfs.display().to_string());
    options.leave_running = Some(wanted.leave_running);
    options.orphan_terminal = Some(true);
    options.freezer = record.cgroup.as_ref().and_then(|group| group.freezer()).map(|path| path.display().to_string());
    let parent = wanted.parent.as_deref().filter(|path| !path.as_os_str().is_empty());
    if let Some(parent) = parent {
        options.parent = Some(relative(parent, &images)?);
    }
    if parent.is_some() || wanted.pre_dump {
        options.track_memory = Some(true);
        criu.need_memory_tracking().map_err(Hint::into_error)?;
    }
    if options.lazy_pages == Some(true) {
        criu.need_lazy_pages().map_err(Hint::into_error)?;
    }
    for (flag, name, key) in [(libc::CLONE_NEWNET, "net", NETWORK), (libc::CLONE_NEWPID, "pid", PIDS)] {
        if plan.namespaces.joins(flag) {
            use std::os::unix::fs::MetadataExt;
            let path = format!("/proc/{init}/ns/{name}");
            let number = std::fs::metadata(&path).map_err(super::io("look at", Path::new(&path)))?.ino();
            options.external.push(format!("{name}[{number}]:{key}"));
        }
    }
    if !wanted.pre_dump {
        let outside = Outside::of(plan.setup.iter(), record.cgroup.as_ref()).map_err(Hint::into_error)?;
        options.external_mounts = outside.to_save(init).map_err(Hint::into_error)?;
        let streams = Streams::of(init);
        options.external.extend(streams.outside());
        streams.save(&images).map_err(Hint::into_error)?;
    }
    let session = criu.start(&[], None).map_err(Hint::into_error)?;
    let told = |event| match (event, &wanted.status) {
        // Whoever waits for it has gone, or hears it.
        (Event::Ready, Some(status)) => {
            _ = fs::write_all(status.as_fd(), &[0]);
            Ok(())
        }
        _ => Ok(()),
    };
    session.work(job, options, log, told).map_err(Hint::into_error)?;
    drop(lock);
    if !wanted.leave_running && !wanted.pre_dump {
        forget(wanted);
    }
    Ok(())
}

/// It is saved, and what is left of it can be deleted again.
fn forget(wanted: &Checkpoint) {
    if let Err(error) = delete(&wanted.root, &wanted.id, true, wanted.warn) {
        (wanted.warn)(error.message());
    }
}

/// What holds for both ways. Returns where the log will be.
pub(super) fn common(
    options: &mut Options,
    job: Job,
    images: &Directory,
    work: Option<&Directory>,
    config: &Config,
) -> PathBuf {
    options.images = images.number();
    options.work = work.map(Directory::number);
    options.log_level = Some(LOG_LEVEL);
    options.log_file = Some(job.log_file().to_owned());
    options.notify = Some(true);
    options.manage_cgroups = Some(true);
    options.cgroup_mode = options.cgroup_mode.or(Some(CgroupMode::Soft as i32));
    // What is in a network namespace is the engine's: devices of the host lead there.
    options.empty_namespaces = Some(libc::CLONE_NEWNET as u32);
    options.config_file = config.path();
    work.unwrap_or(images).path().join(job.log_file())
}

/// criu's own configuration: what it says criu does, be it to execute something.
pub(super) enum Config {
    None,
    Usual,
    /// That an annotation names, open: its name may be another's by the time that criu looks.
    Named(File),
}

impl Config {
    /// Annotations may come from an image, which then would have a file of its container's read here: what they name
    /// has to be a file of root's alone, and none that the container can write.
    pub(super) fn of(record: &Record, plan: &plan::Plan) -> Result<Self> {
        let path = match record.annotations.get(CONFIG_ANNOTATION) {
            None => return Ok(Self::Usual),
            Some(path) if path.is_empty() => return Ok(Self::None),
            Some(path) => Path::new(path),
        };
        let bad = |why: &str| failed(format!("annotation {CONFIG_ANNOTATION}: {}: {why}", path.display()));
        if path.is_relative() {
            return Err(bad("it is no absolute path"));
        }
        let real = path.canonicalize().map_err(|error| bad(&error.to_string()))?;
        // Before it is opened: of a device that would be told.
        if !real.is_file() {
            return Err(bad("it is no regular file"));
        }
        let name = CString::new(real.as_os_str().as_bytes()).map_err(|error| bad(&error.to_string()))?;
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = fs::open_in(fs::cwd(), &name, flags, 0, fs::NO_LINKS).map_err(|errno| bad(errno.desc()))?;
        let found = fs::stat(file.as_fd()).map_err(|errno| bad(errno.desc()))?;
        if found.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(bad("it is no regular file"));
        }
        if found.st_uid != 0 || found.st_mode & 0o022 != 0 {
            return Err(bad("others than root may write to it"));
        }
        let written = plan.setup.iter().filter_map(|operation| match operation {
            SetupOp::Mount(mount) if !mount.attributes.read_only() && !mount.recursive.read_only() => match &mount.from
            {
                From::Bind { source, .. } => Some(Path::new(OsStr::from_bytes(source.as_c_str().to_bytes()))),
                _ => None,
            },
            _ => None,
        });
        let within = |dir: &Path| dir.canonicalize().is_ok_and(|dir| real.starts_with(dir));
        if written.chain([record.rootfs.as_path()]).any(within) {
            return Err(bad("the container can write to it"));
        }
        Ok(Self::Named(file.into()))
    }

    fn path(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Usual => Some(CONFIG.to_owned()),
            Self::Named(file) => Some(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())),
        }
    }
}

/// What criu does not save must not be missing in silence afterwards.
pub(super) fn can_be_restored(plan: &plan::Plan, host: &Host) -> Result<()> {
    if !host.privileged || !host.initial_user_namespace {
        return Err(failed("checkpoint and restore need the rights of root, which criu has to be run with"));
    }
    if !plan.process.landlock.is_empty() {
        return Err(failed("a container with a Landlock policy cannot be saved: CRIU would restore it without")
            .with_hint("leave out the annotation io.fumehood.landlock or io.fumehood.profile=strict"));
    }
    if plan.egress.is_some() {
        return Err(filtered());
    }
    let of_users =
        |operation: &&SetupOp| matches!(operation, SetupOp::Sysctl { key, .. } if key.to_bytes().starts_with(b"user/"));
    if let Some(SetupOp::Sysctl { key, .. }) = plan.setup.iter().find(of_users) {
        let key = key.to_string_lossy().replace('/', ".");
        return Err(failed(format!(
            "a container with the setting {key} cannot be saved: CRIU would restore it without"
        )));
    }
    if plan.process.seccomp.as_ref().is_some_and(|seccomp| seccomp.listener.is_some()) {
        return Err(failed(
            "a container whose seccomp filter has an agent cannot be saved: CRIU would restore it without",
        ));
    }
    Ok(())
}

fn filtered() -> Error {
    failed("a container whose network is filtered cannot be saved: CRIU would restore it without")
        .with_hint("leave out the annotation io.fumehood.egress, and the option --egress")
}

/// A directory beside the image, as criu looks for it.
fn relative(parent: &Path, images: &Directory) -> Result<String> {
    if parent.components().any(|part| matches!(part, Component::RootDir | Component::Prefix(_))) {
        return Err(failed("--parent-path must be relative"));
    }
    Directory::open(&images.path().join(parent), "--parent-path").map_err(Hint::into_error)?;
    Ok(parent.display().to_string())
}
