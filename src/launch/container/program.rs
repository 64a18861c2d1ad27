//! The last steps of a container's process before execve: what it is given, then what is taken from it.
//!
//! The order is runc's, which engines and images have come to rely on: labels; a filter that no_new_privs does not
//! cover while there still is privilege to load it; limits; the bounding set, ids, capabilities; the working
//! directory as the user it will be; and last of all, the filter that no_new_privs does cover.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStrExt,
};

use crate::{
    plan::{container::process::Process, landlock::Layer},
    sys::{Errno, attributes, fs, process, seccomp, tty},
};

/// The program's process, on its way.
#[derive(Debug)]
pub struct Program<'a> {
    pub process: &'a Process,
    /// A procfs of our own, which nobody inside can have put anything over.
    pub proc: Option<OwnedFd>,
    /// Descriptors from 3 on that the program keeps.
    pub keep: u32,
}

type Outcome<T = ()> = Result<T, String>;

pub(super) fn failed(what: impl std::fmt::Display) -> impl Fn(Errno) -> String {
    move |errno| format!("{what}: {}", lower(errno))
}

/// The kernel's words as Go's runtimes write them, which is what engines look for.
fn lower(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

impl Program<'_> {
    /// Everything that may be done before `start`. The listener of the filter is returned if one was asked for.
    pub fn prepare(&self) -> Outcome<Option<OwnedFd>> {
        let process = self.process;
        self.label()?;
        if process.no_new_privileges {
            process::set_no_new_privileges().map_err(failed("set no_new_privs"))?;
        }
        self.own_streams();
        for limit in &process.rlimits {
            process::set_limit(limit.resource, limit.soft, limit.hard).map_err(failed(format_args!(
                "error setting rlimits for ready process: error setting rlimit type {} ({})",
                limit.resource, limit.name
            )))?;
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
        let listener = if process.no_new_privileges { None } else { self.filter()? };
        attributes::keep_capabilities(true).map_err(failed("unable to set keep caps"))?;
        self.change_user()?;
        attributes::keep_capabilities(false).map_err(failed("unable to clear keep caps"))?;
        // As the user it will be, and while the capabilities that root's directories may take are there.
        self.enter_directory()?;
        self.capabilities()?;
        Ok(listener)
    }

    /// The very last step before execve.
    pub fn confine(&self) -> Outcome<Option<OwnedFd>> {
        for layer in &self.process.landlock {
            restrict(layer).map_err(failed("restrict with Landlock"))?;
        }
        process::close_on_exec_from(3 + self.keep).map_err(failed("close inherited descriptors"))?;
        let listener = if self.process.no_new_privileges { self.filter()? } else { None };
        for filter in &self.process.tightening {
            seccomp::install(filter.quiet(), 0).map_err(|error| format!("load a filter of io.fumehood: {error}"))?;
        }
        Ok(listener)
    }

    fn filter(&self) -> Outcome<Option<OwnedFd>> {
        let Some(wanted) = &self.process.seccomp else { return Ok(None) };
        let mut flags = wanted.flags;
        if wanted.listener.is_some() {
            flags |= seccomp::NEW_LISTENER;
        }
        seccomp::install(wanted.filter.quiet(), flags)
            .map_err(|error| format!("unable to init seccomp: error loading seccomp filter: {error}"))
    }

    /// Takes effect at execve. Written through our own procfs: over the container's anything may be mounted
    /// (CVE-2019-16884, CVE-2025-52881).
    fn label(&self) -> Outcome {
        let write = |file: &CStr, text: &[u8]| {
            let proc = self.proc.as_ref().ok_or(Errno::ENOENT)?;
            let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_XDEV;
            let file = fs::open_in(proc.as_fd(), file, libc::O_WRONLY, 0, resolve)?;
            if !fs::is_proc(file.as_fd()) {
                return Err(Errno::EXDEV);
            }
            fs::write_all(file.as_fd(), text)
        };
        if let Some(profile) = &self.process.apparmor {
            let text = [b"exec ", profile.as_bytes()].concat();
            write(c"thread-self/attr/apparmor/exec", &text)
                .or_else(|_| write(c"thread-self/attr/exec", &text))
                .map_err(failed(format_args!("unable to apply apparmor profile {}", profile.to_string_lossy())))?;
        }
        if let Some(label) = &self.process.selinux {
            write(c"thread-self/attr/exec", label.as_bytes())
                .map_err(failed(format_args!("can't set process label {}", label.to_string_lossy())))?;
        }
        Ok(())
    }

    /// A program that is not root must be able to open `/dev/stdout` again. What cannot be given (a pipe of
    /// another namespace, a read-only file) stays as it is.
    fn own_streams(&self) {
        let uid = self.process.user.uid;
        let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        for fd in [input.as_fd(), output.as_fd(), error.as_fd()] {
            let Ok(found) = fs::stat(fd) else { continue };
            let null = found.st_mode & libc::S_IFMT == libc::S_IFCHR && found.st_rdev == libc::makedev(1, 3);
            if !null && found.st_uid != uid {
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

    fn capabilities(&self) -> Outcome {
        let want = self.process.capabilities;
        let result = attributes::set_capabilities(want.effective, want.permitted, want.inheritable)
            .and_then(|()| attributes::set_ambient(want.ambient & want.permitted & want.inheritable));
        result.map_err(failed("unable to apply caps"))
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

    /// Where the program is, found as execvp(3) would, so that what cannot be executed is told while somebody
    /// listens. The words are runc's: engines make exit statuses of them.
    pub fn find(&self) -> Outcome<CString> {
        let name = &self.process.argv[0];
        let shown = name.to_string_lossy().into_owned();
        if name.as_bytes().contains(&b'/') {
            return match look(name) {
                Ok(()) => Ok(name.clone()),
                Err(errno) => Err(format!(
                    "exec: \"{shown}\": {}{}",
                    if errno == Errno::ENOENT { format!("stat {shown}: ") } else { String::new() },
                    lower(errno)
                )),
            };
        }
        let mut refused = None;
        for dir in self.process.variable("PATH").unwrap_or_default().split(':') {
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
}

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
