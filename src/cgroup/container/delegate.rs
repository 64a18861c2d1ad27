//! Giving a v2 group to the container's user, to make groups within: what they may then do in it is what the kernel
//! lists for that purpose (cgroups(7), "Cgroup delegation").

use std::fs;

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    unistd::{Uid, fchownat},
};

use super::{super::group::Group, ContainerCgroupError};

pub(super) fn give(group: &Group, uid: u32) -> Result<(), ContainerCgroupError> {
    let own = |file: &str| fchownat(group.dir(), file, Some(Uid::from_raw(uid)), None, AtFlags::AT_SYMLINK_NOFOLLOW);
    own(".").map_err(failed(group, "."))?;
    // Linux 4.15.
    let listed = fs::read_to_string("/sys/kernel/cgroup/delegate");
    let files = listed.unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
    for file in files.lines().filter(|file| !file.is_empty() && !file.contains('/')) {
        match own(file) {
            // A controller's that is not enabled.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(group, file)(errno)),
        }
    }
    Ok(())
}

fn failed(group: &Group, file: &str) -> impl FnOnce(Errno) -> ContainerCgroupError {
    move |source| ContainerCgroupError::Io { action: "change the owner of", path: group.path(file), source }
}
