//! What a sandbox wrote to its root: the upper directory of its overlay, when its processes are gone.

use std::{
    ffi::OsStr,
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    dir::Dir,
    unistd::{UnlinkatFlags, unlinkat},
};

use super::LaunchError;
use crate::{
    image::pack::{self, Notes, Options, PackError},
    plan::{
        Plan,
        setup::{OnDisk, SetupOp},
    },
    request::SandboxId,
    sys::{self, Errno, clone, fs, process},
};

/// Reachable by descriptor alone: it lies in no mount namespace, or in a directory that nobody else may enter.
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    plan: &'a Plan,
    dir: BorrowedFd<'a>,
    namespace: BorrowedFd<'a>,
}

impl<'a> Upper<'a> {
    pub(super) const fn new(plan: &'a Plan, dir: BorrowedFd<'a>, namespace: BorrowedFd<'a>) -> Self {
        Self { plan, dir, namespace }
    }

    /// The sandbox's name.
    #[must_use]
    pub const fn id(&self) -> &'a SandboxId {
        &self.plan.id
    }

    /// What was run; of two programs, the last.
    #[must_use]
    pub fn command(&self) -> &'a [String] {
        self.plan.steps.last().map_or(&[], |step| &step.argv)
    }

    /// The digest of the image that is below it, if it is one.
    #[must_use]
    pub fn image(&self) -> Option<&'a str> {
        self.plan.image.as_deref()
    }

    /// The directory that is below it.
    #[must_use]
    pub fn below(&self) -> Option<&'a Path> {
        self.plan.setup.iter().find_map(|operation| match operation {
            SetupOp::RootOverlay { source, .. } => Some(Path::new(OsStr::from_bytes(source.as_c_str().to_bytes()))),
            _ => None,
        })
    }

    /// Writes it as a layer's archive, with the owners that the program saw.
    pub fn pack(&self, options: &Options, to: &mut dyn Write) -> Result<Notes, PackError> {
        pack::pack_inside(self.namespace, self.dir, options, to)
    }
}

/// The directory that an upper one is in. What the sandbox leaves there is removed with it: from within its user
/// namespace, since neither its files nor what overlayfs keeps beside them need be open to the caller.
#[derive(Debug)]
pub(super) struct Disk<'a> {
    at: &'a OnDisk,
    dir: OwnedFd,
    namespace: OwnedFd,
    emptied: bool,
}

impl<'a> Disk<'a> {
    pub(super) fn open(at: &'a OnDisk, namespace: BorrowedFd<'_>) -> Result<Self, LaunchError> {
        let failed = |errno| LaunchError::on_disk(at, errno);
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let dir = fs::open_in(fs::cwd(), at.path.as_c_str(), flags, 0, fs::NO_LINKS).map_err(failed)?;
        let namespace = namespace.try_clone_to_owned().map_err(|_| failed(Errno::EMFILE))?;
        Ok(Self { at, dir, namespace, emptied: false })
    }

    /// When all processes of the sandbox are gone.
    pub(super) fn empty(mut self) -> Result<(), LaunchError> {
        self.emptied = true;
        self.remove().map_err(|errno| LaunchError::on_disk(self.at, errno))
    }

    fn remove(&self) -> sys::Result<()> {
        let Some(pid) = clone::fork()? else {
            let removed =
                clone::enter_user_namespace(self.namespace.as_fd()).and_then(|()| remove_all(self.dir.as_fd()));
            process::exit_now(removed.err().map_or(0, |errno| (errno as i32).clamp(1, 255)));
        };
        let ended = process::wait(pid, true)?.ok_or(Errno::ECHILD)?;
        if self.at.handed {
            // It was the sandbox's root's; it is the caller's again.
            fs::change_owner(self.dir.as_fd(), c"", 0, 0)?;
        }
        match libc::WIFEXITED(ended.status).then(|| libc::WEXITSTATUS(ended.status)) {
            Some(0) => Ok(()),
            Some(errno) => Err(Errno::from_raw(errno)),
            None => Err(Errno::EINTR),
        }
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        if !self.emptied {
            // The caller is being told of something worse.
            _ = self.remove();
        }
    }
}

/// Removes all that is in a directory, however deep it is: only one below it is open at a time. Nobody else changes it.
fn remove_all(dir: BorrowedFd<'_>) -> sys::Result<()> {
    const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let mut here = fs::open_in(dir, c".", DIRECTORY, 0, fs::BENEATH)?;
    let mut names = Vec::new();
    loop {
        let listed = Dir::from_fd(fs::open_in(here.as_fd(), c".", DIRECTORY, 0, fs::BENEATH)?)?;
        let mut inner = None;
        for entry in listed {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match unlinkat(&here, name, UnlinkatFlags::NoRemoveDir) {
                Err(Errno::EISDIR | Errno::EPERM) => {}
                done => {
                    done?;
                    continue;
                }
            }
            match unlinkat(&here, name, UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
                    inner = Some(name.to_owned());
                    break;
                }
                done => done?,
            }
        }
        match inner {
            Some(name) => {
                here = fs::open_in(here.as_fd(), &name, DIRECTORY, 0, fs::BENEATH)?;
                names.push(name);
            }
            None => {
                let Some(name) = names.pop() else { return Ok(()) };
                here = fs::open_in(here.as_fd(), c"..", DIRECTORY, 0, 0)?;
                unlinkat(&here, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_however_deep_it_was() {
        let place = tempfile::tempdir().unwrap();
        let marker = place.path().join("marker");
        std::fs::write(&marker, "untouched").unwrap();
        let root = place.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        for name in ["f", "a/f", "a/b/f"] {
            std::fs::write(root.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(place.path(), root.join("a/link")).unwrap();
        let mut at: OwnedFd = std::fs::File::open(&root).unwrap().into();
        for _ in 0..2000 {
            fs::make_dir(at.as_fd(), c"deep", 0o700).unwrap();
            at = fs::open_in(at.as_fd(), c"deep", libc::O_PATH | libc::O_DIRECTORY, 0, 0).unwrap();
        }
        drop(at);
        remove_all(std::fs::File::open(&root).unwrap().as_fd()).unwrap();
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(marker).unwrap(), "untouched");
    }
}
