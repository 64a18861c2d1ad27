//! Containers on gVisor's kernel: whether one is to be, and what of it only that kernel can do.

use std::{
    cell::RefCell,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use oci_spec::runtime as oci;

use super::{Checkpoint, Create, Egress, Restore, failed, group_of, plan, spec};
use crate::{
    Result,
    criu::Directory,
    error::Hint,
    host::Host,
    launch::container::{
        self as launch,
        guest::{Call, Told},
    },
    plan::{container::gvisor, seccomp::KernelVersion},
    request::gvisor::{Gvisor, Platform},
    state::{
        container::{Record, Status},
        root::{ContainerId, StateRoot},
    },
    sys::{
        Errno,
        clone::{self, Cloned},
        fs, process,
    },
};

/// Whose kernel a container is to be on, as whoever calls the runtime says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Isolation {
    /// Of every container; else its annotation says so.
    pub gvisor: bool,
    pub platform: Platform,
}

/// What runsc calls it, in the directory that it is given.
const IMAGE: &str = "checkpoint.img";

/// The runsc that a container needs, if it does.
pub(super) fn find(controls: &spec::Controls, asked: Isolation) -> Result<Option<Gvisor>> {
    use spec::Isolation::{Gvisor as OnGvisor, Native};
    match (controls.isolation, asked.gvisor) {
        (Some(Native), true) => {
            return Err(failed(
                "annotations.io.fumehood.isolation: this runtime runs nothing on the host's own kernel",
            ));
        }
        (Some(OnGvisor), _) | (None, true) => {}
        (Some(Native) | None, false) => return Ok(None),
    }
    Gvisor::find(asked.platform, std::env::var_os("FUMEHOOD_RUNSC").as_deref()).map(Some).map_err(Hint::into_error)
}

/// runsc of 2022 passes none on.
pub(super) fn check_passed(guest: bool, count: u32) -> Result<()> {
    match guest && count > 0 {
        true => Err(failed("--preserve-fds does not hold on gVisor's kernel: runsc passes no descriptors on")),
        false => Ok(()),
    }
}

fn io(what: &str) -> impl Fn(Errno) -> crate::Error {
    move |errno| failed(format!("{what}: {}", errno.desc().to_lowercase()))
}

/// One more program in a container, and what is heard of it.
pub(super) struct Execution {
    words: Vec<String>,
    document: OwnedFd,
    /// Where runsc writes the number that its kernel has given the program, or why there is none.
    told: (OwnedFd, OwnedFd),
}

impl Execution {
    /// `None` where the container is on this kernel. `process` becomes that of runsc.
    pub(super) fn of(
        record: &Record,
        asked: &oci::Process,
        process: &mut plan::process::Process,
        passed: u32,
    ) -> Result<Option<Self>> {
        let Some(name) = &record.gvisor else { return Ok(None) };
        check_passed(true, passed)?;
        if record.status() == Status::Created {
            return Err(failed("cannot exec in a container that has not been started"));
        }
        gvisor::strip(process);
        let text = gvisor::document(asked).map_err(Hint::into_error)?.to_string();
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let document = nix::sys::memfd::memfd_create(c"process", flags).map_err(io("make a file"))?;
        fs::write_all(document.as_fd(), text.as_bytes()).map_err(io("write the process"))?;
        let told = fs::pipe().map_err(io("make a pipe"))?;
        // Opened by name inside, where its owner may have no id.
        fs::change_mode(told.1.as_fd(), 0o666).map_err(io("set up a pipe"))?;
        let number = told.1.as_raw_fd();
        let mut words = vec![format!("--log=/proc/self/fd/{number}")];
        words.extend(gvisor::options(Platform::Auto));
        words.extend([
            "exec".to_owned(),
            format!("--process=/proc/self/fd/{}", document.as_raw_fd()),
            format!("--internal-pid-file=/proc/self/fd/{number}"),
            name.clone(),
        ]);
        Ok(Some(Self { words, document, told }))
    }

    pub(super) fn call(&self) -> Call<'_> {
        let passed = vec![self.document.as_fd(), self.told.1.as_fd()];
        Call { words: self.words.clone(), passed, program: true }
    }

    /// Waits until the program runs.
    pub(super) fn started(self) -> Result<()> {
        let (hearing, telling) = self.told;
        drop(telling);
        match Told::read(hearing.as_fd()) {
            Some(Told::Started) => Ok(()),
            Some(Told::Failed(why)) => Err(failed(why)),
            None => Err(failed("runsc ended before the program was started")),
        }
    }
}

/// Calls a verb of the container's runsc and waits for its end. What it prints is our output.
fn call(root: &StateRoot, id: &ContainerId, verb: &[String], arguments: &[String], passed: &[&OwnedFd]) -> Result<()> {
    let dir = root.open(id).map_err(Hint::into_error)?;
    let record = dir.load().map_err(Hint::into_error)?;
    let (Some(init), Some(pidfd), Some(name)) = (record.init, record.init_pidfd(), &record.gvisor) else {
        return Err(failed(super::NOT_RUNNING));
    };
    if record.status() == Status::Paused {
        return Err(failed(format!("container {id} is paused, and gVisor's kernel with it")));
    }
    let host = Host::probe();
    let bytes = dir.read_config().map_err(Hint::into_error)?;
    let spec = spec::parse(bytes.into()).map_err(Hint::into_error)?.spec;
    let linux = plan::linux(&spec).map_err(Hint::into_error)?;
    let own = spec.process().as_ref().ok_or_else(|| failed("process: it is missing"))?;
    let kernel = KernelVersion(host.kernel.major, host.kernel.minor);
    let mut process = plan::process::Process::new(own, Some(linux), kernel).map_err(Hint::into_error)?;
    gvisor::strip(&mut process);
    process.terminal = false;
    let (hearing, telling) = fs::pipe().map_err(io("make a pipe"))?;
    fs::change_mode(telling.as_fd(), 0o666).map_err(io("set up a pipe"))?;
    let mut words = vec![format!("--log=/proc/self/fd/{}", telling.as_raw_fd())];
    words.extend(gvisor::options(Platform::Auto));
    words.extend(verb.iter().chain([name]).chain(arguments).cloned());
    let passed: Vec<_> = passed.iter().copied().chain([&telling]).map(AsFd::as_fd).collect();
    let runsc = Call { words, passed, program: false };
    let group = RefCell::new(group_of(&record)?);
    let child = launch::exec(&launch::Exec {
        process: &process,
        init: pidfd.as_fd(),
        init_pid: init.pid,
        shares_mounts: false,
        group: &group,
        console: None,
        preserve: 0,
        keyring: record.keyring,
        privileged: host.privileged,
        host_root: host.privileged && host.initial_user_namespace,
        record: &record,
        call: Some(&runsc),
    })
    .map_err(failed)?;
    drop(runsc);
    drop(telling);
    let status = child.keep().1.wait().map_err(failed)?;
    match (status, Told::read(hearing.as_fd())) {
        (0, _) => Ok(()),
        (_, Some(Told::Failed(why))) => Err(failed(why)),
        (status, _) => Err(failed(format!("runsc ended with exit status {status}"))),
    }
}

/// A signal that is for the program, or for all of them.
pub(super) fn signal(root: &StateRoot, id: &ContainerId, signal: i32, all: bool) -> Result<()> {
    let mut verb = vec!["kill".to_owned()];
    if all {
        verb.push("--all".to_owned());
    }
    call(root, id, &verb, &[signal.to_string()], &[])
}

/// Prints the processes as gVisor's kernel numbers them; false where this one does that.
pub fn list(root: &StateRoot, id: &ContainerId) -> Result<bool> {
    let record = super::record(root, id)?;
    if record.gvisor.is_none() || record.status() != Status::Running {
        return Ok(false);
    }
    call(root, id, &["ps".to_owned()], &[], &[]).map(|()| true)
}

/// An init that stands still, until this is dropped or we are gone, however that comes.
pub(super) struct Still {
    /// Closed, it goes on.
    alive: Option<OwnedFd>,
    guard: i32,
}

impl Still {
    fn stand(init: OwnedFd) -> Result<Self> {
        let (dead, alive) = fs::pipe().map_err(io("make a pipe"))?;
        let Cloned::Parent { pid, .. } = clone::clone_process(0, None).map_err(io("start a process"))? else {
            // What ends us from a terminal is not to end this one.
            let mut keep = [dead.as_raw_fd(), init.as_raw_fd()];
            keep.sort_unstable();
            let parted = process::new_session().and_then(|()| process::close_others(&keep));
            let mut word = [0; 1];
            let waited = parted.and_then(|()| fs::read(dead.as_fd(), &mut word));
            process::exit_now(i32::from(waited.and_then(|_| process::signal(init.as_fd(), libc::SIGCONT)).is_err()))
        };
        let still = Self { alive: Some(alive), guard: pid };
        process::signal(init.as_fd(), libc::SIGSTOP).map_err(io("stop the container's init"))?;
        Ok(still)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        self.alive.take();
        _ = process::wait(self.guard, true);
    }
}

/// Saves all of the container by gVisor itself, which ends it; what is returned is to be dropped when it is gone.
pub(super) fn save(wanted: &Checkpoint, record: &Record) -> Result<Still> {
    let options = &wanted.options;
    for (name, asked) in [
        ("leave-running", wanted.leave_running),
        ("pre-dump", wanted.pre_dump),
        ("parent-path", wanted.parent.is_some()),
        ("lazy-pages", options.lazy_pages.is_some()),
        ("page-server", options.page_server.is_some()),
        ("tcp-established", options.tcp_established.is_some()),
        ("file-locks", options.file_locks.is_some()),
        ("ext-unix-sk", options.outside_sockets.is_some()),
    ] {
        if asked {
            let why = "gVisor saves the whole container, once, and ends it";
            return Err(failed(format!("--{name} does not hold on gVisor's kernel: {why}")));
        }
    }
    let images = Directory::make(&wanted.images, "--image-path").map_err(Hint::into_error)?;
    let image = images.path().join(IMAGE);
    if image.exists() {
        return Err(failed(format!("{} is there already", image.display())));
    }
    let init = record.init_pidfd().ok_or_else(|| failed(super::NOT_RUNNING))?;
    // It would end with gVisor's kernel, and with it whoever still has to say that all is written.
    let still = Still::stand(init)?;
    let verb = ["checkpoint".to_owned(), format!("--image-path=/proc/self/fd/{}", images.number())];
    let saved = call(&wanted.root, &wanted.id, &verb, &[], &[images.descriptor()]);
    let whole = saved.and_then(|()| match std::fs::metadata(&image) {
        Ok(found) if found.len() > 0 => Ok(()),
        _ => Err(failed(format!("runsc has written no {}", image.display()))),
    });
    if whole.is_err() {
        _ = std::fs::remove_file(&image);
    }
    whole.map(|()| still)
}

/// Brings a container back of what [`save`] has written; `None` where it is not on gVisor's kernel.
pub(super) fn restore(wanted: &Restore) -> Result<Option<i32>> {
    let mut found = spec::load(&wanted.bundle.join("config.json")).map_err(Hint::into_error)?;
    if find(&found.controls, wanted.isolation)?.is_none() {
        return Ok(None);
    }
    wanted.egress.hold_for(&mut found.controls)?;
    if found.controls.egress.is_some() {
        return Err(failed("a filtered network does not hold on gVisor's kernel"));
    }
    let options = &wanted.options;
    for (name, asked) in [
        ("lazy-pages", options.lazy_pages.is_some()),
        ("tcp-established", options.tcp_established.is_some()),
        ("tcp-close", options.tcp_close.is_some()),
        ("file-locks", options.file_locks.is_some()),
        ("ext-unix-sk", options.outside_sockets.is_some()),
        ("lsm-profile", options.lsm_profile.is_some()),
        ("lsm-mount-context", options.lsm_mount_context.is_some()),
    ] {
        if asked {
            return Err(failed(format!("--{name} does not hold on gVisor's kernel")));
        }
    }
    let images = Directory::open(&wanted.images, "--image-path").map_err(Hint::into_error)?;
    if !images.path().join(IMAGE).is_file() {
        return Err(failed(format!("{}: there is no {IMAGE}, as gVisor writes one", images.path().display())));
    }
    let asked = Create {
        root: wanted.root.clone(),
        id: wanted.id.clone(),
        bundle: wanted.bundle.clone(),
        config: None,
        pid_file: wanted.pid_file.clone(),
        console_socket: wanted.console_socket.clone(),
        pidfd_socket: None,
        preserve_fds: 0,
        no_pivot: false,
        no_new_keyring: false,
        driver: wanted.driver,
        rootless: wanted.rootless,
        isolation: wanted.isolation,
        egress: Egress::default(),
        guard_binary: true,
        warn: wanted.warn,
    };
    super::go(&asked, wanted.detach, false, Some(images.descriptor().as_fd())).map(Some)
}
