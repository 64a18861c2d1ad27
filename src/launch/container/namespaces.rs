//! Entering the namespaces of other containers, and making those that the clone cannot make.
//!
//! A process between does it, which clones the container as the runtime's own child (CLONE_PARENT) and is gone: from
//! most namespaces there is no way back for a runtime that is not the host's root, and hooks run in its own.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use super::program::failed;
use crate::{
    plan::container::{NEW_TIME, Namespaces},
    sys::{fs, namespace},
};

/// Each kind, with its file below /proc/PID/ns and, where it differs, the one that says where children will be.
const KINDS: [(i32, &str); 8] = [
    (libc::CLONE_NEWUSER, "user"),
    (libc::CLONE_NEWIPC, "ipc"),
    (libc::CLONE_NEWUTS, "uts"),
    (libc::CLONE_NEWNET, "net"),
    (libc::CLONE_NEWPID, "pid"),
    (NEW_TIME, "time"),
    (libc::CLONE_NEWCGROUP, "cgroup"),
    (libc::CLONE_NEWNS, "mnt"),
];

/// As below /proc/PID/ns.
#[must_use]
pub fn name(flag: i32) -> &'static str {
    KINDS.iter().find(|(kind, _)| *kind == flag).map_or("?", |(_, name)| name)
}

/// The namespaces to be entered, opened: before anything is entered, after which their paths may lead elsewhere.
#[derive(Debug)]
pub struct Joined(Vec<(i32, OwnedFd)>);

impl Joined {
    pub fn open(namespaces: &Namespaces) -> Result<Self, String> {
        let mut opened = Vec::new();
        for (kind, name) in KINDS {
            for (_, path) in namespaces.joined.iter().filter(|(flag, _)| *flag == kind) {
                let file =
                    open(path, kind).map_err(|error| format!("open {name} namespace {}: {error}", path.display()))?;
                opened.push((kind, file));
            }
        }
        Ok(Self(opened))
    }

    pub fn descriptors(&self) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
        self.0.iter().map(|(_, file)| file.as_fd())
    }

    /// Those that are the runtime's own: what is set in one of them is set on the host.
    pub fn ours(&self) -> Result<i32, String> {
        let mut flags = 0;
        for (kind, file) in &self.0 {
            let own = number("self", name(*kind)).map_err(|error| format!("look at our own namespaces: {error}"))?;
            let stat = fs::stat(file.as_fd()).map_err(failed("look at a namespace"))?;
            if stat.st_ino == own {
                flags |= kind;
            }
        }
        Ok(flags)
    }

    /// Enters all of them, the user namespace first: with it come the rights over the others.
    pub fn enter(&self) -> Result<(), String> {
        for (kind, file) in &self.0 {
            namespace::enter(file.as_fd(), *kind)
                .map_err(failed(format_args!("setns to {} namespace", name(*kind))))?;
        }
        Ok(())
    }
}

/// Of this process's children, or, where they cannot be had before the user namespace, of what it executes (6.1).
pub fn make_time(namespaces: &Namespaces) -> Result<(), String> {
    namespace::leave(NEW_TIME).map_err(failed("make a time namespace"))?;
    let mut text = String::new();
    for (clock, seconds, nanoseconds) in &namespaces.time_offsets {
        text.push_str(&format!("{clock} {seconds} {nanoseconds}\n"));
    }
    if text.is_empty() {
        return Ok(());
    }
    let file = File::options().write(true).open("/proc/self/timens_offsets");
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| format!("write timens_offsets: {error}"))
}

pub(super) fn open(path: &Path, kind: i32) -> std::io::Result<OwnedFd> {
    let file = File::open(path)?;
    // NSFS_MAGIC of linux/magic.h.
    let stat = nix::sys::statfs::fstatfs(&file).map_err(std::io::Error::from)?;
    if stat.filesystem_type() != nix::sys::statfs::NSFS_MAGIC {
        return Err(std::io::Error::other("not a namespace"));
    }
    let found = namespace::kind(file.as_fd())?;
    if found != kind {
        return Err(std::io::Error::other(format!("it is a namespace of another kind: {}", name(found))));
    }
    Ok(file.into())
}

fn number(process: &str, name: &str) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{process}/ns/{name}")).map(|found| found.ino())
}

/// Which namespaces of the container's first process are not ours, as flags: what `exec` has to enter. Entered by its
/// pidfd, which fails should it have ended meanwhile; one that has ended while we look has none to be seen.
pub fn differing(pid: i32, shares_mounts: bool) -> Result<i32, String> {
    let mut flags = 0;
    for (kind, name) in KINDS {
        match (number("self", name), number(&pid.to_string(), name)) {
            (Ok(ours), Ok(theirs)) if ours == theirs => {}
            (Ok(_), Ok(_)) => flags |= kind,
            // This kernel has no such kind.
            (Err(_), Err(_)) => {}
            (_, Err(error)) | (Err(error), _) => {
                return Err(format!("look at the container's {name} namespace: {error}"));
            }
        }
    }
    // Else the program would run on the host.
    if (flags & libc::CLONE_NEWNS == 0) != shares_mounts {
        return Err("the container's mount namespace is not what its specification says".to_owned());
    }
    Ok(flags)
}

/// The root of a container that is in our mount namespace, where it is another than ours.
pub fn changed_root(pid: i32) -> Result<OwnedFd, String> {
    let open = |path: &str| {
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
        let file = OwnedFd::from(file.map_err(|error| format!("open {path}: {error}"))?);
        let found = fs::stat(file.as_fd()).map_err(failed(path))?;
        Ok::<_, String>((file, (found.st_dev, found.st_ino)))
    };
    let (root, theirs) = open(&format!("/proc/{pid}/root"))?;
    match open("/proc/self/root")?.1 == theirs {
        true => Err("the container's root is the host's".to_owned()),
        false => Ok(root),
    }
}
