//! A container's devices, the links beside them, and its console.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{Builder, Supply, within};
use crate::{
    plan::{container::operations::Node, path::BoxPath},
    sys::{self, Errno, fs, mount, tty},
};

const FIRST_UNIX98_MAJOR: u32 = 136;
const LAST_UNIX98_MAJOR: u32 = 143;
const NAME_ONLY: i32 = libc::O_PATH | libc::O_NOFOLLOW;

impl<'a, S: Supply> Builder<'a, S> {
    pub(super) fn node(&mut self, node: &'a Node) -> sys::Result<()> {
        let dir = self.made_parent(&node.path)?;
        let device = libc::makedev(node.major, node.minor);
        if node.bind {
            return self.bind_node(node, device);
        }
        match fs::make_node(dir, node.path.name(), node.kind.mode() | node.mode, device) {
            Ok(()) if node.uid == 0 && node.gid == 0 => Ok(()),
            Ok(()) => fs::change_owner(dir, node.path.name(), node.uid, node.gid),
            Err(Errno::EEXIST) => {
                let found = fs::open_in(dir, node.path.name(), NAME_ONLY, 0, fs::BENEATH)?;
                if is_device(found.as_fd(), node.kind.mode(), device)? {
                    return Ok(());
                }
                Err(self.because(Errno::EEXIST, "something else is there"))
            }
            Err(Errno::EPERM) if node.kind.mode() != libc::S_IFIFO => self.bind_node(node, device),
            Err(errno) => Err(errno),
        }
    }

    /// The host's own node, since none can be made in a user namespace: that very device or nothing
    /// (CVE-2025-31133).
    fn bind_node(&mut self, node: &'a Node, device: libc::dev_t) -> sys::Result<()> {
        if self.shares_mounts {
            return Err(Errno::EPERM);
        }
        let tree = mount::clone_tree(fs::cwd(), node.host.as_c_str(), false)?;
        if !is_device(tree.as_fd(), node.kind.mode(), device)? {
            return Err(self.because(Errno::ENODEV, "the host's device of this name is another"));
        }
        self.mount_file(tree.as_fd(), &node.path)
    }

    pub(super) fn link(&mut self, path: &'a BoxPath, to: &CStr, replace: bool) -> sys::Result<()> {
        let dir = self.made_parent(path)?;
        match fs::make_symlink(to, dir, path.name()) {
            Err(Errno::EEXIST) if replace => {
                fs::remove_file(dir, path.name())?;
                fs::make_symlink(to, dir, path.name())
            }
            Err(Errno::EEXIST) => Ok(()),
            made => made,
        }
    }

    /// A terminal of the container's own devpts, as master and slave, opened before any of its programs runs.
    pub fn open_terminal(&self) -> sys::Result<(OwnedFd, OwnedFd)> {
        let flags = libc::O_RDWR | libc::O_NOCTTY;
        let master = fs::open_in(self.root()?, c"dev/pts/ptmx", flags, 0, fs::IN_ROOT)?;
        if !fs::is_of_kind(master.as_fd(), libc::DEVPTS_SUPER_MAGIC) {
            return Err(Errno::ENODEV);
        }
        tty::unlock(master.as_fd())?;
        let terminal = tty::peer(master.as_fd())?;
        Ok((master, terminal))
    }

    /// What [`crate::plan::setup::SetupOp::Console`] is to mount.
    pub fn set_console(&mut self, terminal: OwnedFd) {
        self.console = Some(terminal);
    }

    /// By the descriptor that the terminal was made with: no name of it is looked up again (CVE-2025-52565).
    pub(super) fn console(&mut self) -> sys::Result<()> {
        let terminal = self.console.take().ok_or(Errno::EBADF)?;
        let stat = fs::stat(terminal.as_fd())?;
        let major = libc::major(stat.st_rdev);
        if stat.st_mode & libc::S_IFMT != libc::S_IFCHR
            || !(FIRST_UNIX98_MAJOR..=LAST_UNIX98_MAJOR).contains(&major)
            || !fs::is_of_kind(terminal.as_fd(), libc::DEVPTS_SUPER_MAGIC)
        {
            return Err(self.because(Errno::ENOTTY, "it is no terminal of a devpts"));
        }
        let tree = mount::clone_tree(terminal.as_fd(), c"", false)?;
        let dir = within::parent(self.root()?, c"dev")?;
        mount_on_file(tree.as_fd(), dir.as_fd(), c"console")
    }

    fn mount_file(&mut self, tree: BorrowedFd<'_>, path: &'a BoxPath) -> sys::Result<()> {
        mount_on_file(tree, self.made_parent(path)?, path.name())
    }

    /// The directory of `path`, made if it is not there; most devices share theirs.
    fn made_parent(&mut self, path: &'a BoxPath) -> sys::Result<BorrowedFd<'_>> {
        let cached = self.last_parent.take().filter(|(known, _)| *known == path.parent());
        let found = match cached {
            Some(cached) => cached,
            None => match within::parent(self.root()?, path.parent()) {
                Ok(found) => (path.parent(), found),
                Err(errno) => return Err(self.because(errno, "the directory that it is to be made in")),
            },
        };
        Ok(self.last_parent.insert(found).1.as_fd())
    }
}

/// Mounts on the file called `name`, made if missing; a link is not followed, and not mounted on.
fn mount_on_file(tree: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> sys::Result<()> {
    match fs::make_file(dir, name, 0o666) {
        Ok(()) | Err(Errno::EEXIST | Errno::EROFS) => {}
        Err(errno) => return Err(errno),
    }
    let target = fs::open_in(dir, name, NAME_ONLY, 0, fs::BENEATH)?;
    if fs::stat(target.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFLNK {
        return Err(Errno::ELOOP);
    }
    mount::attach(tree, target.as_fd())
}

fn is_device(node: BorrowedFd<'_>, kind: u32, device: libc::dev_t) -> sys::Result<bool> {
    let stat = fs::stat(node)?;
    Ok(stat.st_mode & libc::S_IFMT == kind && (kind == libc::S_IFIFO || stat.st_rdev == device))
}
