//! The last steps of a container's process before execve: what it is given, then what is taken from it.
//!
//! Labels and limits; the bounding set and ids; then the filter, as late as the privilege that it needs lasts: with
//! no_new_privs that is up to execve. Few calls follow it, since engines' filters are written for runtimes that make few.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStrExt,
};

use crate::{
    plan::{container::process::Process, landlock::Layer},
    sys::{Errno, attributes, fs, mount, process, seccomp, tty},
};

/// The program's process, on its way.
#[derive(Debug)]
pub struct Program<'a> {
    pub process: &'a Process,
    /// Where the label that takes effect at execve is written.
    pub label: Option<Label>,
    /// Descriptors from 3 on that the program keeps.
    pub keep: u32,
    /// Something else runs under this process's filter before the program does.
    pub hooked: bool,
}

type Outcome<T = ()> = Result<T, String>;

pub(super) fn failed(what: impl std::fmt::Display) -> impl Fn(Errno) -> String {
    move |errno| format!("{what}: {}", lower(errno))
}

/// The kernel's words as Go's runtimes write them, which is what engines look for.
fn lower(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

/// What `kill`, `setns` and the like are to CAP_SYS_ADMIN: needed to load a filter without no_new_privs.
const SYS_ADMIN: u64 = 1 << 21;

/// This process's label for the program it will execute, as an open file of procfs.
///
/// Opened while the process still has the identity that its own files in /proc belong to, and not through the
/// container's /proc: over that anything may be mounted (CVE-2019-16884, CVE-2025-52881).
#[derive(Debug)]
pub struct Label(OwnedFd);

impl Label {
    /// Whether the process is to have one.
    #[must_use]
    pub fn is_wanted(process: &Process) -> bool {
        process.apparmor.is_some() || process.selinux.is_some()
    }

    /// `proc` is the root of a procfs that nobody could mount over: [`host_proc`] or [`own_proc`].
    pub fn open(process: &Process, proc: BorrowedFd<'_>) -> Outcome<Self> {
        let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV;
        let open = |path: &CStr| fs::open_in(proc, path, libc::O_WRONLY, 0, resolve);
        let file = match &process.apparmor {
            Some(_) => open(c"thread-self/attr/apparmor/exec").or_else(|_| open(c"thread-self/attr/exec")),
            None => open(c"thread-self/attr/exec"),
        };
        let file = file.map_err(failed("open this process's label"))?;
        if fs::is_proc(file.as_fd()) { Ok(Self(file)) } else { Err("/proc is no procfs".to_owned()) }
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn write(&self, text: &[u8]) -> Result<(), Errno> {
        fs::write_all(self.0.as_fd(), text)
    }
}

/// The host's /proc, for [`Label::open`].
pub fn host_proc() -> Outcome<OwnedFd> {
    fs::open_in(fs::cwd(), c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0, fs::NO_LINKS).map_err(failed("open /proc"))
}

/// A procfs of the pid namespace that we are in, mounted nowhere and with nothing but its processes: whoever gets at
/// it through us has no more than they have.
pub fn own_proc() -> Outcome<OwnedFd> {
    mount::open_filesystem(c"proc")
        .and_then(|context| {
            mount::configure(context.as_fd(), c"subset", c"pid")?;
            mount::create(context.as_fd(), mount::NO_EXEC)
        })
        .map_err(failed("mount a procfs for the label"))
}

impl Program<'_> {
    /// Everything that may be done before `start`. Returns where the program is.
    ///
    /// What follows a filter is only what any filter that lets a program start lets by: a filter's listener is given
    /// to `hand` at once, since from then on every call may wait for the agent behind it.
    pub fn prepare(&self, hand: &dyn Fn(OwnedFd) -> Outcome) -> Outcome<CString> {
        let process = self.process;
        self.write_label()?;
        if process.no_new_privileges {
            process::set_no_new_privileges().map_err(failed("set no_new_privs"))?;
        }
        self.own_streams();
        for limit in &process.rlimits {
            let what = format_args!("error setting rlimit type {} ({})", limit.resource, limit.name).to_string();
            process::set_limit(limit.resource, limit.soft, limit.hard).map_err(failed(what))?;
        }
        if let Some(scheduling) = &process.scheduling {
            attributes::set_scheduling(scheduling).map_err(failed("error setting scheduler"))?;
        }
        if let Some((class, level)) = process.io_priority {
            attributes::set_io_priority(class, level).map_err(failed("error setting I/O priority"))?;
        }
        if let Some((mode, nodes)) = &process.memory_policy {
            attributes::set_memory_policy(*mode, nodes).map_err(failed("error setting memory policy"))?;
        }
        if let Some(persona) = process.personality {
            attributes::set_personality(persona).map_err(failed("error setting personality"))?;
        }
        if let Some(mask) = process.user.umask {
            process::set_file_mask(mask & 0o777);
        }
        attributes::limit_bounding_set(process.capabilities.bounding)
            .map_err(failed("unable to apply bounding set"))?;
        // As root, who may enter what the user may not; or else as the user, who may where root may not (NFS).
        let entered = self.enter_directory();
        attributes::keep_capabilities(true).map_err(failed("unable to set keep caps"))?;
        self.change_user()?;
        attributes::keep_capabilities(false).map_err(failed("unable to clear keep caps"))?;
        entered.or_else(|_| self.enter_directory())?;
        let program = find(process, &look)?;
        for layer in &process.landlock {
            restrict(layer).map_err(failed("restrict with Landlock"))?;
        }
        process::close_on_exec_from(3 + self.keep).map_err(failed("close inherited descriptors"))?;
        let want = process.capabilities;
        if !process.no_new_privileges && process.seccomp.is_some() {
            attributes::set_capabilities(SYS_ADMIN, want.permitted | SYS_ADMIN, 0)
                .map_err(failed("unable to apply caps"))?;
            self.filter(hand)?;
        }
        attributes::set_capabilities(want.effective, want.permitted, want.inheritable)
            .and_then(|()| attributes::set_ambient(want.ambient & want.permitted & want.inheritable))
            .map_err(failed("unable to apply caps"))?;
        if self.filters_early() {
            self.filter(hand)?;
        }
        Ok(program)
    }

    /// The very last step before execve.
    pub fn confine(&self, hand: &dyn Fn(OwnedFd) -> Outcome) -> Outcome {
        if self.process.no_new_privileges && !self.filters_early() {
            self.filter(hand)?;
        }
        for filter in &self.process.tightening {
            seccomp::install(filter.quiet(), 0).map_err(|error| format!("load a filter of io.fumehood: {error}"))?;
        }
        Ok(())
    }

    /// Whether a filter that could be loaded last is loaded before `start` is waited for: a hook inside must be
    /// under it, and a listener has to be handed over while the runtime is there.
    fn filters_early(&self) -> bool {
        let listens = self.process.seccomp.as_ref().is_some_and(|seccomp| seccomp.listener.is_some());
        self.process.no_new_privileges && (self.hooked || listens)
    }

    fn filter(&self, hand: &dyn Fn(OwnedFd) -> Outcome) -> Outcome {
        let Some(wanted) = &self.process.seccomp else { return Ok(()) };
        let mut flags = wanted.flags;
        if wanted.listener.is_some() {
            flags |= seccomp::NEW_LISTENER;
        }
        let listener = seccomp::install(wanted.filter.quiet(), flags)
            .map_err(|error| format!("unable to init seccomp: error loading seccomp filter: {error}"))?;
        listener.map_or(Ok(()), hand)
    }

    fn write_label(&self) -> Outcome {
        let process = self.process;
        let Some(label) = &self.label else { return Ok(()) };
        if let Some(profile) = &process.apparmor {
            label
                .write(&[b"exec ", profile.as_bytes()].concat())
                .map_err(failed(format_args!("unable to apply apparmor profile {}", profile.to_string_lossy())))?;
        }
        if let Some(context) = &process.selinux {
            label
                .write(context.as_bytes())
                .map_err(failed(format_args!("can't set process label {}", context.to_string_lossy())))?;
        }
        Ok(())
    }

    /// A program that is not root must be able to open `/dev/stdout` again. What cannot be given (a pipe of
    /// another namespace, a read-only file) stays as it is.
    pub(super) fn own_streams(&self) {
        let uid = self.process.user.uid;
        let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        for fd in [input.as_fd(), output.as_fd(), error.as_fd()] {
            let Ok(found) = fs::stat(fd) else { continue };
            if is_null(&found) {
                // The host's has an owner and a mode that are not the container's to change, and cannot be had again
                // by who restores it. Where the container has none, or another file of that name, it is kept.
                _ = own_null().and_then(|null| process::install_fd(null.as_fd(), fd.as_raw_fd()));
            } else if found.st_uid != uid {
                _ = fs::change_owner(fd, c"", uid, found.st_gid);
            }
        }
    }

    fn change_user(&self) -> Outcome {
        let user = &self.process.user;
        match attributes::set_groups(&user.groups) {
            // Where an unprivileged user made the namespace, groups cannot be changed: no harm if none are wanted.
            Err(Errno::EPERM) if user.groups.is_empty() => {}
            other => other.map_err(failed("unable to set supplementary groups"))?,
        }
        attributes::set_ids(user.uid, user.gid).map_err(|errno| match errno {
            Errno::EINVAL => {
                format!("cannot set uid {} and gid {}: not mapped in the user namespace", user.uid, user.gid)
            }
            _ => format!("cannot set uid {} and gid {}: {}", user.uid, user.gid, lower(errno)),
        })
    }

    /// Not through /proc/self/fd, and nowhere that is not below the root (CVE-2024-21626).
    fn enter_directory(&self) -> Outcome {
        let cwd = &self.process.cwd;
        let what = format!("chdir to cwd (\"{}\") set in config.json failed", cwd.to_string_lossy());
        fs::open_in(fs::cwd(), cwd, libc::O_PATH | libc::O_DIRECTORY, 0, libc::RESOLVE_NO_MAGICLINKS)
            .and_then(|dir| fs::change_dir(dir.as_fd()))
            .map_err(failed(what))?;
        match nix::unistd::getcwd() {
            Ok(inside) if inside.is_absolute() => Ok(()),
            _ => Err("current working directory is outside of container mount namespace root -- possible container breakout detected".to_owned()),
        }
    }
}

/// Where the program is, found as execvp(3) would, so that what cannot be executed is told while somebody
/// listens. The words are runc's: engines make exit statuses of them.
pub fn find(process: &Process, look: &dyn Fn(&CStr) -> Result<(), Errno>) -> Outcome<CString> {
    let name = &process.argv[0];
    let shown = name.to_string_lossy().into_owned();
    if name.as_bytes().contains(&b'/') {
        return match look(name) {
            Ok(()) => Ok(name.clone()),
            // dockerd up to 20.10 and Podman know only the last two words, and make 126 of them.
            Err(Errno::EISDIR) => Err(format!("exec: \"{shown}\": is a directory: permission denied")),
            Err(errno) => Err(format!(
                "exec: \"{shown}\": {}{}",
                if errno == Errno::ENOENT { format!("stat {shown}: ") } else { String::new() },
                lower(errno)
            )),
        };
    }
    let mut refused = None;
    for dir in process.variable("PATH").unwrap_or(NO_PATH).split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let path = std::path::Path::new(dir).join(&shown);
        let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { continue };
        match look(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::EACCES) => refused = Some(path),
            Err(_) => {}
        }
    }
    Err(match refused {
        Some(path) => format!("exec: \"{shown}\": {}: permission denied", path.to_string_lossy()),
        None => format!("exec: \"{shown}\": executable file not found in $PATH"),
    })
}

fn is_null(found: &libc::stat) -> bool {
    found.st_mode & libc::S_IFMT == libc::S_IFCHR && found.st_rdev == libc::makedev(1, 3)
}

/// The container's own /dev/null. What is there may be anything, for all that is known, and must not keep us waiting.
fn own_null() -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOCTTY;
    let null = fs::open_in(fs::cwd(), c"/dev/null", flags, 0, fs::NO_LINKS)?;
    if !is_null(&fs::stat(null.as_fd())?) {
        return Err(Errno::ENODEV);
    }
    fs::set_blocking(null.as_fd())?;
    Ok(null)
}

/// Where execvp(3) looks without PATH: the specification wants its ways, and a document need not have an environment.
const NO_PATH: &str = "/bin:/usr/bin";

fn look(path: &CStr) -> Result<(), Errno> {
    let file = fs::open_in(fs::cwd(), path, libc::O_PATH, 0, 0)?;
    let mode = fs::stat(file.as_fd())?.st_mode;
    if mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    if mode & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK)
}

/// Rules are for what is there: a path that the root does not have needs none.
fn restrict(layer: &Layer) -> Result<(), Errno> {
    super::super::program::restrict(layer)
}

/// Every processor that the cgroup has or will have, wherever the runtime itself was pinned to (sched_setaffinity(2)
/// leaves out the rest). Where that cannot be had the process stays as it is, as with runc.
pub fn reset_affinity() {
    /// For more processors than any kernel is built for.
    const ALL: [u64; 1024] = [u64::MAX; 1024];
    _ = attributes::set_affinity(&ALL);
}

/// Makes `terminal` the controlling one, and the three streams.
pub fn take_terminal(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    tty::take_control(terminal)?;
    for number in 0..3 {
        process::install_fd(terminal, number)?;
    }
    Ok(())
}

/// Keeps `keep` open below the limit and closes all else; 0-2 stay. `keep` is sorted here.
pub fn close_all_but(mut keep: Vec<BorrowedFd<'_>>, passed: u32) -> Result<(), Errno> {
    keep.sort_by_key(AsRawFd::as_raw_fd);
    let mut next = 3 + passed;
    for fd in keep {
        let fd = fd.as_raw_fd() as u32;
        if next < fd {
            process::close_range(next, fd - 1)?;
        }
        next = next.max(fd + 1);
    }
    process::close_range(next, u32::MAX)
}
