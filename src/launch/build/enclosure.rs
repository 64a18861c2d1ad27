//! One more tree around the program's, for gVisor's runsc: that itself, what it is told, and what it keeps.
//!
//! None of it is in the program's tree. All of it is gone with the mount namespace, however runsc ends.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{Builder, PATH_ONLY, SAFE, Supply, make_target, open_host, own_terminals, root::attach_over_root, tmpfs};
use crate::{
    plan::{gvisor::Enclosure, setup::Kind},
    sys::{self, Errno, fs, mount},
};

/// For bundles, runsc's state and its log. A cgroup charges them to the sandbox.
const BYTES: u64 = 16 << 20;
const DIRS: [(&CStr, u32); 9] = [
    (c"rootfs", 0o755),
    (c"proc", 0o555),
    (c"dev", 0o755),
    (c"run", 0o700),
    (c"log", 0o700),
    (c"bundle", 0o700),
    (c"mnt", 0o700),
    // Where it makes its own kernel's root.
    (c"tmp", 0o700),
    (c"etc", 0o755),
];
/// As many steps as a run can have: a setup, a compiler, and the program.
const BUNDLES: [(&CStr, &CStr); 3] = [
    (c"bundle/0", c"bundle/0/config.json"),
    (c"bundle/1", c"bundle/1/config.json"),
    (c"bundle/2", c"bundle/2/config.json"),
];

impl<S: Supply> Builder<'_, S> {
    pub(super) fn enclose(&mut self, enclosure: &Enclosure) -> sys::Result<()> {
        let tree = mount::clone_tree(self.root()?, c"", true)?;
        let runsc = mount::clone_tree(open_host(enclosure.runsc.as_c_str(), PATH_ONLY)?.as_fd(), c"", false)?;
        mount::set_attributes(runsc.as_fd(), SAFE | mount::READ_ONLY, false)?;
        let null = device(c"/dev/null")?;
        let other = enclosure.device.as_ref().map(|device_of_host| device(device_of_host.as_c_str())).transpose()?;
        // Made while the host's is in sight, without which there is none to be had; runsc writes id maps in it.
        let context = mount::open_filesystem(c"proc")?;
        let proc = mount::create(context.as_fd(), SAFE | mount::NO_EXEC)?;
        // Its clone holds what it is made of. Left there, it would lie between our root and the host's.
        fs::change_dir(self.root()?)?;
        mount::detach_here()?;
        self.last_parent = None;

        let outer = attach_over_root(tmpfs(BYTES, 0o755, 0)?)?;
        for (name, mode) in DIRS {
            fs::make_dir(outer.as_fd(), name, mode)?;
        }
        put(outer.as_fd(), c".", c"rootfs", tree.as_fd(), Kind::Dir)?;
        // As it was found when it was mounted.
        let (last, links) =
            if self.links == fs::IN_ROOT { (PATH_ONLY, fs::BENEATH) } else { (libc::O_PATH, self.links) };
        for inner in &enclosure.inner {
            let found = fs::open_in(tree.as_fd(), inner.path.full(), last, 0, links)?;
            let kind = match inner.kind {
                Some(kind) => kind,
                None if fs::stat(found.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFDIR => Kind::Dir,
                None => Kind::File,
            };
            let found = mount::clone_tree(found.as_fd(), c"", true)?;
            put(outer.as_fd(), c"mnt", &inner.name, found.as_fd(), kind)?;
        }
        put(outer.as_fd(), c".", c"proc", proc.as_fd(), Kind::Dir)?;
        put(outer.as_fd(), c".", c"runsc", runsc.as_fd(), Kind::File)?;
        put(outer.as_fd(), c"dev", c"null", null.as_fd(), Kind::File)?;
        if let Some(other) = other {
            put(outer.as_fd(), c"dev", c"kvm", other.as_fd(), Kind::File)?;
        }
        if enclosure.terminals {
            put(outer.as_fd(), c"dev", c"pts", own_terminals()?.as_fd(), Kind::Dir)?;
        }
        if enclosure.hides_network_settings {
            let settings = fs::open_in(proc.as_fd(), c"sys/net/core", PATH_ONLY | libc::O_DIRECTORY, 0, fs::BENEATH)?;
            let nothing = tmpfs(4096, 0o555, SAFE | mount::NO_EXEC | mount::READ_ONLY)?;
            mount::attach(nothing.as_fd(), settings.as_fd())?;
        }
        if enclosure.bundles.len() > BUNDLES.len() {
            return Err(Errno::E2BIG);
        }
        for ((dir, file), content) in BUNDLES.iter().zip(&enclosure.bundles) {
            fs::make_dir(outer.as_fd(), dir, 0o700)?;
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            let file = fs::open_in(outer.as_fd(), file, flags, 0o600, fs::BENEATH)?;
            fs::write_all(file.as_fd(), &content.0)?;
        }
        self.root = Some(outer);
        Ok(())
    }
}

/// The host's own node, a character device or nothing.
fn device(path: &CStr) -> sys::Result<OwnedFd> {
    let node = mount::clone_tree(fs::cwd(), path, false)?;
    if fs::stat(node.as_fd())?.st_mode & libc::S_IFMT != libc::S_IFCHR {
        return Err(Errno::ENODEV);
    }
    Ok(node)
}

fn put(root: BorrowedFd<'_>, dir: &CStr, name: &CStr, tree: BorrowedFd<'_>, kind: Kind) -> sys::Result<()> {
    let parent = fs::open_in(root, dir, PATH_ONLY | libc::O_DIRECTORY, 0, fs::BENEATH)?;
    make_target(parent.as_fd(), name, kind)?;
    mount::attach_at(tree, parent.as_fd(), name)
}
