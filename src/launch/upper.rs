//! What a sandbox wrote to its root: the upper directory of its overlay, when its processes are gone.

use std::{
    ffi::OsStr,
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::{LaunchError, mapped};
use crate::{
    host::Host,
    image::pack::{self, Notes, Options, PackError},
    plan::{
        Plan,
        ids::{IdsKind, subordinate},
        setup::{OnDisk, SetupOp},
    },
    request::SandboxId,
    sys::{self, Errno, clone, fs, process, remove::remove_all},
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
        let single = self.plan.ids.kind == IdsKind::Single && self.plan.identity.uid != 0;
        let over = self.below().filter(|_| single).map(Path::to_owned);
        pack::pack_inside(self.namespace, self.dir, &Options { over, ..options.clone() }, to)
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
        let removed = remove_inside(self.namespace.as_fd(), self.dir.as_fd());
        if self.at.handed {
            // It was the sandbox's root's; it is the caller's again.
            fs::change_owner(self.dir.as_fd(), c"", 0, 0)?;
        }
        removed
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

/// Removes all that is in the directory from within the user namespace, where rights keep nobody out.
fn remove_inside(namespace: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> sys::Result<()> {
    let Some(pid) = clone::fork()? else {
        let removed = catch_unwind(AssertUnwindSafe(|| {
            clone::enter_user_namespace(namespace).and_then(|()| remove_all(dir, false))
        }));
        let errno = removed.unwrap_or(Err(Errno::EFAULT)).err();
        process::exit_now(errno.map_or(0, |errno| (errno as i32).clamp(1, 255)));
    };
    let ended = process::wait(pid, true)?.ok_or(Errno::ECHILD)?;
    match libc::WIFEXITED(ended.status).then(|| libc::WEXITSTATUS(ended.status)) {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw(errno)),
        None => Err(Errno::EINTR),
    }
}

/// Empties a directory of an ordinary user in which files may belong to the ids that they have by grant: what a run on a
/// disk leaves that was killed.
pub fn remove_granted(dir: BorrowedFd<'_>) -> Result<(), LaunchError> {
    let mut host = Host::probe();
    host.read_granted();
    let (users, groups) = (subordinate(host.uid, &host.granted.uids), subordinate(host.gid, &host.granted.gids));
    let namespace = mapped::empty_namespace(IdsKind::Subuid, &users, &groups)?;
    remove_inside(namespace.as_fd(), dir).map_err(|errno| LaunchError::System { what: "remove what a run left", errno })
}
