//! The new root: made, found or copied; and entered.

use std::{
    ffi::CString,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::sys::{stat::futimens, time::TimeSpec};

use super::{Builder, PATH_ONLY, SAFE, Supply, Writable, give, make_target, open_host, tmpfs};
use crate::{
    plan::{
        container::operations::Propagation,
        path::HostPath,
        setup::{OnDisk, Owner, Skeleton},
    },
    sys::{self, Errno, fs, mount, process},
};

impl<S: Supply> Builder<'_, S> {
    pub(super) fn root_tmpfs(&mut self, bytes: u64, owner: Owner) -> sys::Result<()> {
        let root = tmpfs(bytes, 0o755, 0)?;
        give(root.as_fd(), c"", self.receiver(owner))?;
        self.root = Some(attach_over_root(root)?);
        Ok(())
    }

    pub(super) fn root_bind(&mut self, source: &HostPath, mapped: bool) -> sys::Result<()> {
        let root = self.read_only_view(source, mapped)?;
        self.root = Some(attach_over_root(root)?);
        Ok(())
    }

    fn read_only_view(&self, source: &HostPath, mapped: bool) -> sys::Result<OwnedFd> {
        if mapped {
            return self.control.next_mount();
        }
        let source = open_host(source.as_c_str(), PATH_ONLY | libc::O_DIRECTORY)?;
        let view = mount::clone_tree(source.as_fd(), c"", true)?;
        mount::set_attributes(view.as_fd(), SAFE | mount::READ_ONLY, true)?;
        Ok(view)
    }

    /// An overlay takes its layers by name, so they are gathered in a directory of our own and named from
    /// there: no byte of the host's path reaches the option string.
    pub(super) fn root_overlay(
        &mut self,
        source: &HostPath,
        skeleton: &[Skeleton],
        writable: Option<Writable<'_>>,
        mapped: bool,
    ) -> sys::Result<()> {
        let lower = self.read_only_view(source, mapped)?;
        let disk = writable.and_then(|writable| writable.disk);
        let in_memory = writable.filter(|_| disk.is_none());
        let staging = attach_over_root(tmpfs(in_memory.map_or(1 << 20, |writable| writable.bytes), 0o755, 0)?)?;
        let (names, upper, work) = match disk {
            None => ([c"lower", c"skeleton", c"upper", c"work"], c"upper", c"work"),
            Some(disk) => {
                let tree = self.disk(disk)?;
                fs::make_dir(staging.as_fd(), c"disk", 0o755)?;
                mount::attach(tree.as_fd(), fs::open_in(staging.as_fd(), c"disk", PATH_ONLY, 0, fs::BENEATH)?.as_fd())?;
                ([c"lower", c"skeleton", c"disk/upper", c"disk/work"], c"disk/upper", c"disk/work")
            }
        };
        for name in names {
            fs::make_dir(staging.as_fd(), name, 0o755)?;
        }
        mount::attach(lower.as_fd(), fs::open_in(staging.as_fd(), c"lower", PATH_ONLY, 0, fs::BENEATH)?.as_fd())?;
        let bones = fs::open_in(staging.as_fd(), c"skeleton", PATH_ONLY | libc::O_DIRECTORY, 0, fs::BENEATH)?;
        for Skeleton { path, kind } in skeleton {
            let parent = fs::open_in(bones.as_fd(), path.parent(), PATH_ONLY, 0, fs::BENEATH)?;
            make_target(parent.as_fd(), path.name(), *kind)?;
        }
        match writable {
            Some(Writable { owner: Owner::Program, kept: false, .. }) => {
                give(staging.as_fd(), upper, self.receiver(Owner::Program))?;
            }
            Some(Writable { owner, kept, .. }) => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                let upper = fs::open_in(staging.as_fd(), upper, flags, 0, fs::BENEATH)?;
                let own = fs::stat(lower.as_fd())?;
                if owner == Owner::Program {
                    give(upper.as_fd(), c"", self.receiver(Owner::Program))?;
                } else {
                    // The overlay's root is the upper one, and is to be as the lower one is.
                    fs::change_owner(upper.as_fd(), c"", own.st_uid, own.st_gid)?;
                    fs::change_mode(upper.as_fd(), own.st_mode & 0o1777)?;
                }
                if kept {
                    // What nobody changes is not to look changed.
                    let when = TimeSpec::new(own.st_mtime, own.st_mtime_nsec);
                    futimens(&upper, &when, &when)?;
                    self.control.keep(upper.as_fd())?;
                }
            }
            None => {}
        }
        fs::change_dir(staging.as_fd())?;
        let context = mount::open_filesystem(c"overlay")?;
        mount::configure(context.as_fd(), c"lowerdir", c"lower:skeleton")?;
        let mut attributes = SAFE;
        if writable.is_some() {
            mount::configure(context.as_fd(), c"upperdir", upper)?;
            mount::configure(context.as_fd(), c"workdir", work)?;
            mount::configure_flag(context.as_fd(), c"userxattr")?;
        } else {
            attributes |= mount::READ_ONLY;
        }
        let root = mount::create(context.as_fd(), attributes)?;
        // The overlay holds its layers itself. Left there, the staging would lie between our root and the host's,
        // and be what is let go of in its place.
        mount::detach_here()?;
        self.root = Some(attach_over_root(root)?);
        Ok(())
    }

    /// What is on a disk may be set-id inside and means nothing outside: nobody else may enter the directory.
    fn disk(&self, disk: &OnDisk) -> sys::Result<OwnedFd> {
        if disk.handed {
            return self.control.next_mount();
        }
        let source = open_host(disk.path.as_c_str(), PATH_ONLY | libc::O_DIRECTORY)?;
        let tree = mount::clone_tree(source.as_fd(), c"", false)?;
        mount::set_attributes(tree.as_fd(), SAFE, false)?;
        Ok(tree)
    }

    /// The mounts that the root lies in may be shared with the host: so it is mounted on itself, below a mount that
    /// is made private, and nothing spreads from there.
    pub(super) fn container_root(&mut self, source: &HostPath, propagation: Propagation) -> sys::Result<()> {
        // Modes are given as they are meant. Whoever starts the program sets its own.
        process::set_file_mask(0);
        let host = open_host(c"/", libc::O_PATH | libc::O_DIRECTORY)?;
        mount::set_propagation(host.as_fd(), propagation.kind, propagation.recursive)?;
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let dir = fs::open_in(fs::cwd(), source.as_c_str(), flags, 0, 0)?;
        make_mount_private(dir.as_fd())?;
        let root = mount::clone_tree(dir.as_fd(), c"", true)?;
        mount::attach(root.as_fd(), dir.as_fd())?;
        self.links = fs::LINKS_IN_ROOT;
        self.root = Some(root);
        Ok(())
    }

    /// Nothing is mounted, here or on it: it would be on the host.
    pub(super) fn container_dir(&mut self, source: &HostPath) -> sys::Result<()> {
        process::set_file_mask(0);
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        self.root = Some(fs::open_in(fs::cwd(), source.as_c_str(), flags, 0, 0)?);
        self.links = fs::LINKS_IN_ROOT;
        self.shares_mounts = true;
        Ok(())
    }

    pub(super) fn enter_container(&mut self, pivot: bool) -> sys::Result<()> {
        self.last_parent = None;
        self.procfs = None;
        self.covers = [None, None];
        if pivot {
            fs::change_dir(self.root()?)?;
            return mount::enter_shared_root_here();
        }
        self.hide_host_systems()?;
        // Else it would be moved over the host's root as well, where that is shared.
        make_mount_private(open_host(c"/", libc::O_PATH | libc::O_DIRECTORY)?.as_fd())?;
        mount::enter_moved_root(self.root()?)
    }

    /// What is below a root that was only moved over the host's stays reachable to the kernel: a procfs or sysfs in
    /// full view there would let the container mount one without masks.
    fn hide_host_systems(&mut self) -> sys::Result<()> {
        let own = std::fs::read_link(format!("/proc/thread-self/fd/{}", self.root()?.as_raw_fd()))
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        for line in super::cgroups::mounts()?.into_iter().rev() {
            let system = matches!(line.kind.as_str(), "proc" | "sysfs");
            if !system || line.target.starts_with(&own) {
                continue;
            }
            let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL);
            let above = match open_host(&text(line.target.parent().unwrap_or(&line.target))?, PATH_ONLY) {
                // Below another that is gone already.
                Err(Errno::ENOENT) => continue,
                found => found?,
            };
            // The host's own must stay: an unmount spreads from the mount above, for what is below from this one.
            make_mount_private(above.as_fd())?;
            drop(above);
            let path = text(&line.target)?;
            mount::set_propagation(open_host(&path, PATH_ONLY)?.as_fd(), libc::MS_SLAVE, true)?;
            match mount::detach(&path) {
                Ok(()) => {}
                // Locked by a user namespace, or mounted on: covered, then.
                Err(Errno::EINVAL | Errno::EPERM) => {
                    let cover = tmpfs(4096, 0o555, SAFE | mount::NO_EXEC | mount::READ_ONLY)?;
                    mount::attach(cover.as_fd(), open_host(&path, PATH_ONLY)?.as_fd())?;
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// Makes the mount private that `dir` lies in: pivot_root(2) wants that, and nothing may spread to the host.
fn make_mount_private(dir: BorrowedFd<'_>) -> sys::Result<()> {
    let mut here = fs::open_in(dir, c".", libc::O_PATH | libc::O_DIRECTORY, 0, 0)?;
    loop {
        match mount::set_propagation(here.as_fd(), libc::MS_PRIVATE, false) {
            // Not where something is mounted: further up.
            Err(Errno::EINVAL) => {
                let above = fs::open_in(here.as_fd(), c"..", libc::O_PATH | libc::O_DIRECTORY, 0, 0)?;
                let (one, other) = (fs::stat(here.as_fd())?, fs::stat(above.as_fd())?);
                if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) {
                    return Err(Errno::EINVAL);
                }
                here = above;
            }
            done => return done,
        }
    }
}

/// Mounts `tree` over the process's root directory, which shows to nobody until it is pivoted to: lookups
/// from `/` start below it.
pub(super) fn attach_over_root(tree: OwnedFd) -> sys::Result<OwnedFd> {
    let root = open_host(c"/", PATH_ONLY | libc::O_DIRECTORY)?;
    mount::attach(tree.as_fd(), root.as_fd())?;
    Ok(tree)
}
