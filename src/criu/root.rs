//! The root of a container that is restored: criu wants it mounted, and with a place for each mount.
//!
//! It is mounted in a mount namespace of criu's own, of which the host sees nothing and which ends with it. A runtime
//! that is killed meanwhile leaves no mount behind.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use super::Directory;
use crate::{
    launch::build::points,
    plan::setup::SetupOp,
    sys::{Errno, fs, mount, namespace},
};

#[derive(Debug)]
pub struct Root<'a> {
    pub rootfs: &'a Path,
    /// What is to be mounted in it.
    pub setup: &'a [SetupOp],
    /// An empty directory of ours, where it comes to be.
    pub at: &'a Path,
    pub images: &'a Directory,
    /// Where criu leaves its log.
    pub work: &'a Directory,
    /// One that maps users as the container's does, and leaves groups: the processes in it read the images by their
    /// own rights, and whoever is root there owns nothing here.
    pub users: Option<OwnedFd>,
}

impl Root<'_> {
    /// In the process that becomes criu.
    pub(super) fn mount(&self) -> Result<(), String> {
        let failed = |what: &'static str| move |errno: Errno| format!("{what}: {}", errno.desc());
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string());
        let (rootfs, at) = (text(self.rootfs)?, text(self.at)?);
        let dir = |path| fs::open_in(fs::cwd(), path, libc::O_PATH | libc::O_DIRECTORY, 0, fs::NO_LINKS);
        let cannot = failed("mount the root for criu");
        namespace::leave(libc::CLONE_NEWNS).map_err(failed("make a mount namespace"))?;
        dir(c"/")
            .and_then(|root| mount::set_propagation(root.as_fd(), libc::MS_SLAVE, true))
            .map_err(failed("cut mounts off from the host's"))?;
        let tree = || mount::clone_tree(fs::cwd(), &rootfs, true);
        let clean = tree().map_err(&cannot)?;
        tree().and_then(|scratch| mount::attach(scratch.as_fd(), dir(&at)?.as_fd())).map_err(&cannot)?;
        points::make(dir(&at).map_err(&cannot)?.as_fd(), self.setup)?;
        mount::detach(&at).map_err(&cannot)?;
        dir(&at).and_then(|at| mount::attach(clean.as_fd(), at.as_fd())).map_err(&cannot)
    }

    /// What criu works in: images and work, as they are in its mount namespace.
    pub(super) fn directories(&self) -> Result<[OwnedFd; 2], String> {
        let work = self.work.again()?;
        if let Some(users) = &self.users {
            for images in self.images.and_parents().map_err(|error| error.to_string())? {
                show(&images, users.as_fd())
                    .map_err(|error| format!("map the owner of {}: {error}", images.path().display()))?;
            }
        }
        Ok([self.images.again()?, work])
    }
}

/// Shows the images to the processes of a container with a user namespace: to root of it as their owner, and before
/// there is anybody in it, to root's group.
fn show(images: &Directory, users: BorrowedFd<'_>) -> std::io::Result<()> {
    images.let_group_read()?;
    let images = images.again().map_err(std::io::Error::other)?;
    let tree = mount::clone_tree(images.as_fd(), c"", false)?;
    mount::map_ids(tree.as_fd(), users, false)?;
    Ok(mount::attach(tree.as_fd(), images.as_fd())?)
}
