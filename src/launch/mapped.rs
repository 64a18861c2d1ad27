//! Mounts on which files belong inside to others than outside: `--mount DIR:/data:rw` by root, where a host user's are
//! the program's own, and the tree of an image, where each is of whom the image says.
//!
//! The program has an id that owns nothing on the host, so it could write nothing there. The supervisor, who has
//! the privilege that this needs, makes a detached copy of the mount that maps the directory's owner to the
//! program (mount_setattr(2), MOUNT_ATTR_IDMAP), and hands it to the init.

use std::os::fd::{AsFd, OwnedFd};

use super::{LaunchError, Running, ids};
use crate::{
    plan::{
        Plan,
        ids::{IdsKind, Map, outside},
        path::HostPath,
        setup::{OnDisk, SetupOp},
    },
    sys::{
        Errno,
        clone::{self, Cloned},
        fs, mount, process,
    },
};

/// Makes and hands over the plan's mapped mounts, in its order.
pub(super) fn hand_over(plan: &Plan, running: &Running) -> Result<(), LaunchError> {
    // An init that is gone has left word why, and the supervisor will read it.
    let hand = |tree: OwnedFd| _ = running.control.mount(tree.as_fd());
    for operation in &plan.setup {
        match operation {
            SetupOp::Bind { source, mapped: Some(owner), writable, .. } => hand(map(plan, source, *owner, *writable)?),
            SetupOp::RootBind { source, mapped: true } => hand(image(source, running)?),
            SetupOp::RootOverlay { source, mapped, on_disk, .. } => {
                if *mapped {
                    hand(image(source, running)?);
                }
                if let Some(at @ OnDisk { handed: true, .. }) = on_disk {
                    hand(disk(plan, at)?);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The sandbox's root is to make what it wants in it, wherever it lies: it is given to it.
fn disk(plan: &Plan, at: &OnDisk) -> Result<OwnedFd, LaunchError> {
    let failed = |errno| LaunchError::on_disk(at, errno);
    let owner = |lines: &[Map], id| outside(lines, id).ok_or(failed(Errno::EOVERFLOW));
    let (uid, gid) = (owner(&plan.ids.users, plan.ids.setup.0)?, owner(&plan.ids.groups, plan.ids.setup.1)?);
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY;
    let dir = fs::open_in(fs::cwd(), at.path.as_c_str(), flags, 0, fs::NO_LINKS).map_err(failed)?;
    fs::change_owner(dir.as_fd(), c"", uid, gid).map_err(failed)?;
    let tree = mount::clone_tree(dir.as_fd(), c"", false).map_err(failed)?;
    mount::set_attributes(tree.as_fd(), mount::NO_SUID | mount::NO_DEV, false).map_err(failed)?;
    Ok(tree)
}

/// Id 0 of the tree's files is the sandbox's root, and so on: the map is the sandbox's own. What the sandbox's root may
/// not enter on the way to the tree, as the store is root's alone, is entered here.
fn image(source: &HostPath, running: &Running) -> Result<OwnedFd, LaunchError> {
    let failed = |errno| LaunchError::MappedImage { path: source.as_c_str().to_string_lossy().into_owned(), errno };
    let namespace = ids::namespace(running.pid)?;
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY;
    let root = fs::open_in(fs::cwd(), source.as_c_str(), flags, 0, fs::NO_LINKS).map_err(failed)?;
    let tree = mount::clone_tree(root.as_fd(), c"", false).map_err(failed)?;
    let attributes = mount::NO_SUID | mount::NO_DEV | mount::READ_ONLY;
    mount::set_attributes(tree.as_fd(), attributes, false).map_err(failed)?;
    mount::map_ids(tree.as_fd(), namespace.as_fd(), false).map_err(failed)?;
    Ok(tree)
}

fn map(plan: &Plan, source: &HostPath, owner: (u32, u32), writable: bool) -> Result<OwnedFd, LaunchError> {
    let failed = |errno| LaunchError::MappedMount { path: source.as_c_str().to_string_lossy().into_owned(), errno };
    let map = |lines: &[Map], owner, id| {
        let host = outside(lines, id).ok_or(failed(Errno::EOVERFLOW))?;
        let mut mapped = vec![Map { inside: owner, outside: host, count: 1 }];
        // gVisor's file server is root of the sandbox, and makes a file before it gives it to the program.
        if let Some(root) = outside(lines, 0).filter(|root| plan.gvisor.is_some() && *root != host) {
            mapped.push(Map { inside: root, outside: root, count: 1 });
        }
        Ok::<_, LaunchError>(mapped)
    };
    let users = map(&plan.ids.users, owner.0, plan.identity.uid)?;
    let groups = map(&plan.ids.groups, owner.1, plan.identity.gid)?;
    let namespace = user_namespace(&users, &groups)?;
    let path =
        fs::open_in(fs::cwd(), source.as_c_str(), libc::O_PATH | libc::O_NOFOLLOW, 0, fs::NO_LINKS).map_err(failed)?;
    // Without the mounts below it: each would need a mapping of its own.
    let tree = mount::clone_tree(path.as_fd(), c"", false).map_err(failed)?;
    let attributes = mount::NO_SUID | mount::NO_DEV | if writable { 0 } else { mount::READ_ONLY };
    mount::set_attributes(tree.as_fd(), attributes, false).map_err(failed)?;
    mount::map_ids(tree.as_fd(), namespace.as_fd(), false).map_err(failed)?;
    Ok(tree)
}

/// A user namespace with nobody in it, that stands for a mapping.
pub(super) fn user_namespace(users: &[Map], groups: &[Map]) -> Result<OwnedFd, LaunchError> {
    empty_namespace(IdsKind::Range, users, groups)
}

/// As that, with maps that are written as those of a sandbox of this kind are.
pub(super) fn empty_namespace(kind: IdsKind, users: &[Map], groups: &[Map]) -> Result<OwnedFd, LaunchError> {
    let parent = process::id();
    let cloned = clone::clone_process(libc::CLONE_NEWUSER as u64, None).map_err(LaunchError::Clone)?;
    let Cloned::Parent { pid, pidfd } = cloned else {
        process::wait_to_be_killed(parent);
    };
    let made = ids::write(kind, users, groups, pid).and_then(|()| ids::namespace(pid));
    // It cannot refuse, and nobody else waits for it.
    _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
    _ = process::wait(pid, true);
    Ok(made?)
}
