//! Mounts on which a host user's files are the program's own: `--mount DIR:/data:rw` by root.
//!
//! The program has an id that owns nothing on the host, so it could write nothing there. The supervisor, who has
//! the privilege that this needs, makes a detached copy of the mount that maps the directory's owner to the
//! program (mount_setattr(2), MOUNT_ATTR_IDMAP), and hands it to the init.

use std::os::fd::{AsFd, OwnedFd};

use super::{LaunchError, Running};
use crate::{
    plan::{Plan, ids::Map, path::HostPath, setup::SetupOp},
    sys::{
        clone::{self, Cloned},
        fs, mount, process,
    },
};

/// Makes and hands over the plan's mapped mounts, in its order.
pub(super) fn hand_over(plan: &Plan, running: &Running) -> Result<(), LaunchError> {
    for operation in &plan.setup {
        if let SetupOp::Bind { source, mapped: Some(owner), .. } = operation {
            let tree = map(plan, source, *owner)?;
            // An init that is gone has left word why, and the supervisor will read it.
            _ = running.control.mount(tree.as_fd());
        }
    }
    Ok(())
}

fn map(plan: &Plan, source: &HostPath, owner: (u32, u32)) -> Result<OwnedFd, LaunchError> {
    let failed = |errno| LaunchError::MappedMount { path: source.as_c_str().to_string_lossy().into_owned(), errno };
    let outside = |map: Map, inside: u32| map.outside + (inside - map.inside);
    let users = Map { inside: owner.0, outside: outside(plan.ids.users, plan.identity.uid), count: 1 };
    let groups = Map { inside: owner.1, outside: outside(plan.ids.groups, plan.identity.gid), count: 1 };
    let namespace = user_namespace(&[users], &[groups])?;
    let path =
        fs::open_in(fs::cwd(), source.as_c_str(), libc::O_PATH | libc::O_NOFOLLOW, 0, fs::NO_LINKS).map_err(failed)?;
    // Without the mounts below it: each would need a mapping of its own.
    let tree = mount::clone_tree(path.as_fd(), c"", false).map_err(failed)?;
    mount::set_attributes(tree.as_fd(), mount::NO_SUID | mount::NO_DEV, false).map_err(failed)?;
    mount::map_ids(tree.as_fd(), namespace.as_fd(), false).map_err(failed)?;
    Ok(tree)
}

/// A user namespace with nobody in it, that stands for a mapping.
pub(super) fn user_namespace(users: &[Map], groups: &[Map]) -> Result<OwnedFd, LaunchError> {
    let cloned = clone::clone_process(libc::CLONE_NEWUSER as u64, None).map_err(LaunchError::Clone)?;
    let Cloned::Parent { pid, pidfd } = cloned else {
        process::wait_to_be_killed();
    };
    let made = super::write_map(pid, "uid_map", users)
        .and_then(|()| super::write_map(pid, "gid_map", groups))
        .and_then(|()| {
            let file = std::fs::File::open(format!("/proc/{pid}/ns/user"));
            file.map_err(|source| LaunchError::Ids { file: "ns/user", source })
        });
    // It cannot refuse, and nobody else waits for it.
    _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
    _ = process::wait(pid, true);
    made.map(OwnedFd::from)
}
