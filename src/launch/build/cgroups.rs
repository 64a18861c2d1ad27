//! The host's v1 cgroup hierarchies as a container sees them: each where the host has it, and in each no more than
//! the container's own group.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use super::{Builder, SAFE, Supply, tmpfs};
use crate::{
    host::mountinfo::{self, Mounted},
    plan::container::operations::Attributes,
    sys::{self, Errno, fs, mount},
};

const NEW: u64 = SAFE | mount::NO_EXEC;

impl<S: Supply> Builder<'_, S> {
    pub(super) fn cgroups_v1(
        &mut self,
        own_namespace: bool,
        attributes: Attributes,
        target: BorrowedFd<'_>,
    ) -> sys::Result<()> {
        let hierarchies: Vec<_> = mounts()?.into_iter().filter(|mounted| mounted.kind == "cgroup").collect();
        let own = memberships(&read("/proc/thread-self/cgroup")?);
        if hierarchies.is_empty() {
            return Err(self.because(Errno::ENODEV, "this host has no cgroups mounted"));
        }
        let tree = tmpfs(1 << 20, 0o755, NEW)?;
        mount::attach(tree.as_fd(), target)?;
        let mut shown = Vec::new();
        for hierarchy in &hierarchies {
            let Some(name) = hierarchy.target.file_name() else { continue };
            // Mounted twice is one hierarchy all the same.
            if shown.contains(&name) {
                continue;
            }
            let view = if own_namespace { new_view(hierarchy)? } else { own_group(hierarchy, &own)? };
            let set = NEW | attributes.set & mount::READ_ONLY;
            mount::set_attributes(view.as_fd(), set, true)?;
            let place = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
            fs::make_dir(tree.as_fd(), &place, 0o755)?;
            mount::attach_at(view.as_fd(), tree.as_fd(), &place)?;
            shown.push(name);
        }
        for merged in shown.iter().filter(|name| name.as_bytes().contains(&b',')) {
            let to = CString::new(merged.as_bytes()).map_err(|_| Errno::EINVAL)?;
            for controller in merged.as_bytes().split(|byte| *byte == b',') {
                let name = CString::new(controller).map_err(|_| Errno::EINVAL)?;
                match fs::make_symlink(&to, tree.as_fd(), &name) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        mount::change_attributes(tree.as_fd(), attributes.set, 0, false)
    }
}

/// The hierarchy as the container's cgroup namespace has it.
fn new_view(hierarchy: &Mounted) -> sys::Result<OwnedFd> {
    let context = mount::open_filesystem(c"cgroup")?;
    mount::configure(context.as_fd(), c"source", c"cgroup")?;
    for option in hierarchy.options.split(',') {
        let text = |text: &str| CString::new(text).map_err(|_| Errno::EINVAL);
        match option.split_once('=') {
            Some(("name", name)) => mount::configure(context.as_fd(), c"name", &text(name)?)?,
            // Which controllers it is of; the rest is settings of the whole host's.
            None if is_controller(option) => mount::configure_flag(context.as_fd(), &text(option)?)?,
            _ => {}
        }
    }
    if !hierarchy.options.split(',').any(is_controller) {
        mount::configure_flag(context.as_fd(), c"none")?;
    }
    mount::create(context.as_fd(), NEW)
}

fn is_controller(option: &str) -> bool {
    let settings = ["rw", "ro", "xattr", "clone_children", "noprefix", "seclabel", "cpuset_v2_mode", "favordynmods"];
    !settings.contains(&option) && !option.contains('=') && !option.is_empty()
}

/// The directory of the container's own group, of which everything above stays unseen.
fn own_group(hierarchy: &Mounted, own: &BTreeMap<String, PathBuf>) -> sys::Result<OwnedFd> {
    let path = hierarchy.options.split(',').find_map(|option| own.get(option)).ok_or(Errno::ENOENT)?;
    // Seen from a cgroup namespace that the mount is outside of, it leads who knows where.
    if [path.as_path(), &hierarchy.root].iter().any(|path| path.components().any(|part| part == Component::ParentDir)) {
        return Err(Errno::EXDEV);
    }
    let below = path.strip_prefix(&hierarchy.root).unwrap_or(path);
    let below = below.strip_prefix("/").unwrap_or(below);
    let path = CString::new(hierarchy.target.join(below).into_os_string().into_vec()).map_err(|_| Errno::EINVAL)?;
    let dir = fs::open_in(fs::cwd(), &path, libc::O_PATH | libc::O_DIRECTORY, 0, fs::NO_LINKS)?;
    if !fs::is_of_kind(dir.as_fd(), libc::CGROUP_SUPER_MAGIC) {
        return Err(Errno::EXDEV);
    }
    mount::clone_tree(dir.as_fd(), c"", true)
}

/// What this process can see mounted, in order.
pub(super) fn mounts() -> sys::Result<Vec<Mounted>> {
    mountinfo::of("thread-self").map_err(errno)
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

fn read(path: &str) -> sys::Result<Vec<u8>> {
    std::fs::read(path).map_err(errno)
}

/// The group of each controller, or `name=` of a hierarchy without any (cgroups(7)).
fn memberships(text: &[u8]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(3, |byte| *byte == b':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        for controller in String::from_utf8_lossy(controllers).split(',').filter(|name| !name.is_empty()) {
            found.insert(controller.to_owned(), Path::new(OsStr::from_bytes(path)).to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_are_by_controller() {
        let found = memberships(b"9:name=systemd:/x\n4:cpu,cpuacct:/a:b\n0::/y\n");
        assert_eq!(found.get("cpuacct").unwrap(), Path::new("/a:b"));
        assert_eq!(found.get("name=systemd").unwrap(), Path::new("/x"));
        assert_eq!(found.len(), 3);
    }
}
