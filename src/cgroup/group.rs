//! One directory of a cgroup file system, and the few things that are done in it.
//!
//! Everything goes by a short path relative to an open directory: the walk from `/` down to a
//! deeply nested cgroup costs as much as the call itself.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, renameat},
    sys::{
        stat::{Mode, mkdirat},
        statfs::{FsType, fstatfs},
    },
    unistd::{AccessFlags, UnlinkatFlags, faccessat, unlinkat, write},
};

use super::CgroupError;

#[derive(Debug)]
pub(super) struct Group {
    dir: OwnedFd,
    path: PathBuf,
}

impl Group {
    /// Opens it, provided it is on a file system of type `kind`: a directory meant as a mount point
    /// must not be taken for a cgroup.
    pub(super) fn open(path: PathBuf, kind: FsType) -> Result<Self, String> {
        Self::at(path.clone(), kind).map_err(|errno| match errno {
            Errno::EMEDIUMTYPE => format!("{} is no cgroup of the expected kind", path.display()),
            errno => format!("{} cannot be opened: {}", path.display(), errno.desc()),
        })
    }

    /// As [`Self::open`]; `EMEDIUMTYPE` is for another file system.
    pub(super) fn at(path: PathBuf, kind: FsType) -> Result<Self, Errno> {
        let dir = open(&path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        if fstatfs(&dir)?.filesystem_type() != kind {
            return Err(Errno::EMEDIUMTYPE);
        }
        Ok(Self { dir, path })
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(super) fn own_path(&self) -> &Path {
        &self.path
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether this process may write to `name`, as access(2) sees it.
    pub(super) fn writable(&self, name: &str) -> Result<(), Errno> {
        faccessat(&self.dir, name, AccessFlags::W_OK, AtFlags::empty())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        faccessat(&self.dir, name, AccessFlags::F_OK, AtFlags::empty()).is_ok()
    }

    pub(super) fn open_file(&self, name: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        openat(&self.dir, name, flags | OFlag::O_CLOEXEC, Mode::empty())
    }

    pub(super) fn write(&self, name: &str, value: &str) -> Result<(), Errno> {
        let file = self.open_file(name, OFlag::O_WRONLY)?;
        // A signal may interrupt the reclaim that lowering a memory limit starts.
        while let Err(errno) = write(&file, value.as_bytes()) {
            if errno != Errno::EINTR {
                return Err(errno);
            }
        }
        Ok(())
    }

    pub(super) fn read(&self, name: &str) -> Result<String, Errno> {
        slurp(self.open_file(name, OFlag::O_RDONLY)?)
    }

    pub(super) fn make(&self, name: &str) -> Result<(), Errno> {
        mkdirat(&self.dir, name, Mode::from_bits_truncate(0o755))
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        renameat(&self.dir, from, &self.dir, to)
    }

    /// Removes the group `name` with what is nested in it. Processes that are about to be gone are
    /// waited for, about so long.
    pub(super) fn remove(&self, name: &str, patience: Duration) -> Result<(), CgroupError> {
        let mut wait = Duration::from_micros(100);
        let mut waited = Duration::ZERO;
        loop {
            match unlinkat(&self.dir, name, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(()),
                Err(Errno::EBUSY) if waited < patience => {
                    remove_nested(&self.path(name));
                    thread::sleep(wait);
                    waited += wait;
                    wait = (wait * 2).min(Duration::from_millis(50));
                }
                Err(errno) => return Err(self.failed("remove", name)(errno)),
            }
        }
    }

    /// For `map_err`: what was done to which file.
    pub(super) fn failed(&self, action: &'static str, name: &str) -> impl FnOnce(Errno) -> CgroupError {
        move |source| CgroupError::Io { action, path: self.path(name), source }
    }
}

/// The text of a kernel file, without the stat and the seek of [`fs::read_to_string`], which tell
/// nothing about one, and in one read where it fits.
pub(super) fn slurp(file: OwnedFd) -> Result<String, Errno> {
    let mut text = String::with_capacity(4096);
    match File::from(file).take(1 << 20).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(errno(&error)),
    }
}

/// The number behind an error of the standard library's.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Attempts again what failed because someone removed the parent group in between: it may go at any
/// time that it is empty.
pub(super) fn undisturbed(mut attempt: impl FnMut() -> Result<(), CgroupError>) -> Result<(), CgroupError> {
    for _ in 1..32 {
        match attempt() {
            Err(CgroupError::Io { source: Errno::ENOENT | Errno::ENODEV, .. }) => {}
            result => return result,
        }
    }
    attempt()
}

/// The pids in a `cgroup.procs`. Those of processes this pid namespace can't see read 0.
pub(super) fn pids(text: &str) -> Vec<i32> {
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// The groups directly below `parent` that have no process and are at least as old as `age` says by their names, if it does.
pub(super) fn empty_below(parent: &Path, age: impl Fn(&str) -> Option<Duration>) -> Vec<PathBuf> {
    // The kernel stamps the inode when it is first looked up, so a group is never younger than this says.
    let old = |path: &PathBuf| {
        let age = path.file_name().and_then(|name| age(name.to_str()?));
        let made = fs::metadata(path).and_then(|meta| meta.modified());
        age.is_some_and(|age| made.is_ok_and(|time| time.elapsed().unwrap_or_default() >= age))
    };
    below(parent).filter(|path| is_vacant(path) && old(path)).collect()
}

/// Whether no process is in it.
pub(super) fn is_vacant(path: &Path) -> bool {
    fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|text| text.is_empty())
}

/// Removes a group and what is nested in it, as far as no process is in there.
pub(super) fn remove_tree(path: &Path) -> Result<(), Errno> {
    remove_nested(path);
    match fs::remove_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(errno(&error)),
        _ => Ok(()),
    }
}

fn remove_nested(path: &Path) {
    for nested in below(path) {
        // What can't go shows again as EBUSY of the group itself.
        let _ = remove_tree(&nested);
    }
}

pub(super) fn below(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}
