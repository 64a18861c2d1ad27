//! A container's mounts.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{Builder, Supply, copy, trees, within};
use crate::{
    plan::{
        container::operations::{Attributes, FileSystem, From, Mount, Parameter},
        setup::Kind,
    },
    sys::{self, Errno, fs, mount},
};

/// fsconfig(2) takes no longer strings, its end included.
const LONGEST_VALUE: usize = 256;

/// A mount that is there or is to be put there.
enum Made {
    Detached(OwnedFd),
    Attached,
}

impl<'a, S: Supply> Builder<'a, S> {
    pub(super) fn mount(&mut self, mount: &'a Mount) -> sys::Result<()> {
        // What was found before may lie under what is mounted now.
        self.last_parent = None;
        let kind = match &mount.from {
            From::Bind { source, recursive, handed, .. } => {
                let tree = if *handed {
                    self.control.next_mount()?
                } else {
                    match trees::open(source, *recursive) {
                        Ok(tree) => tree,
                        Err(errno) => return Err(self.because(errno, "the source")),
                    }
                };
                return self.bind_mount(mount, tree);
            }
            From::Remount { bind, parameters } => return self.remount(mount, *bind, parameters),
            From::New(_) | From::CgroupsV1 { .. } => Kind::Dir,
        };
        let target = self.target(mount, kind)?;
        match &mount.from {
            From::New(system) => self.new_mount(mount, system, &target),
            From::CgroupsV1 { own_namespace } => {
                self.cgroups_v1(*own_namespace, mount.attributes, target.place.as_fd())?;
                self.finish(mount, None)
            }
            From::Bind { .. } | From::Remount { .. } => Err(Errno::EINVAL),
        }
    }

    fn bind_mount(&mut self, mount: &'a Mount, tree: OwnedFd) -> sys::Result<()> {
        // Whoever reads /proc believes the kernel (CVE-2019-16884).
        if mount.path.full() == c"proc" && !fs::is_of_kind(tree.as_fd(), libc::PROC_SUPER_MAGIC) {
            return Err(self.because(Errno::EPERM, "it cannot be mounted because it is not of type proc"));
        }
        let dir = fs::stat(tree.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let target = self.target(mount, if dir { Kind::Dir } else { Kind::File })?;
        let on_dir = fs::stat(target.place.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if dir != on_dir {
            let (what, on) = if dir { ("directory", "file") } else { ("file", "directory") };
            return Err(self.because(Errno::ENOTDIR, format!("the source is a {what}, and a {on} is there")));
        }
        self.change(tree.as_fd(), mount.attributes)?;
        self.change_all(tree.as_fd(), mount.recursive)?;
        mount::attach(tree.as_fd(), target.place.as_fd())?;
        self.finish(mount, Some(tree.as_fd()))
    }

    fn new_mount(&mut self, mount: &'a Mount, system: &FileSystem, target: &within::Found) -> sys::Result<()> {
        match self.make_system(mount, system, target) {
            Ok(Made::Detached(tree)) => {
                if system.copy_up && !target.made {
                    copy::contents(target.place.as_fd(), tree.as_fd())?;
                }
                self.change_all(tree.as_fd(), mount.recursive)?;
                mount::attach(tree.as_fd(), target.place.as_fd())?;
                self.finish(mount, Some(tree.as_fd()))
            }
            Ok(Made::Attached) => {
                let tree = self.find(&mount.path)?;
                self.change_all(tree.as_fd(), mount.recursive)?;
                self.finish(mount, Some(tree.as_fd()))
            }
            Err(errno @ (Errno::EPERM | Errno::EBUSY)) => {
                let Some(instead) = &system.instead else { return Err(errno) };
                let tree = trees::open(&instead.source, true)?;
                let mut set = mount.attributes.set;
                if instead.read_only {
                    set |= mount::READ_ONLY;
                }
                // Of all that the host has mounted there, too.
                mount::change_attributes(tree.as_fd(), set & !libc::MOUNT_ATTR__ATIME, 0, true)?;
                self.change_all(tree.as_fd(), mount.recursive)?;
                mount::attach(tree.as_fd(), target.place.as_fd())?;
                self.finish(mount, Some(tree.as_fd()))
            }
            Err(errno) => Err(errno),
        }
    }

    fn make_system(&mut self, mount: &Mount, system: &FileSystem, target: &within::Found) -> sys::Result<Made> {
        let mut parameters = system.parameters.clone();
        if system.name.as_c_str() == c"tmpfs"
            && !target.made
            && !parameters.iter().any(|known| known.key.as_c_str() == c"mode")
        {
            // As of what it covers.
            let mode = fs::stat(target.place.as_fd())?.st_mode & 0o7777;
            let value = CString::new(format!("{mode:o}")).map_err(|_| Errno::EINVAL)?;
            parameters.push(Parameter { key: c"mode".to_owned(), value: Some(value) });
        }
        if parameters.iter().any(beyond_fsconfig) {
            return self.make_by_flags(mount, system, &parameters, target.place.as_fd());
        }
        let attributes = mount.attributes.set;
        match self.make_by_parameters(system, &parameters, attributes) {
            // A group that the container does not have. Its terminals work without.
            Err(Errno::EINVAL) if system.name.as_c_str() == c"devpts" => {
                let before = parameters.len();
                parameters.retain(|parameter| parameter.key.as_c_str() != c"gid");
                if parameters.len() == before {
                    return Err(Errno::EINVAL);
                }
                self.detail = None;
                self.make_by_parameters(system, &parameters, attributes)
            }
            made => made,
        }
        .map(Made::Detached)
    }

    fn make_by_parameters(
        &mut self,
        system: &FileSystem,
        parameters: &[Parameter],
        attributes: u64,
    ) -> sys::Result<OwnedFd> {
        let context = match mount::open_filesystem(&system.name) {
            Err(Errno::ENODEV) => return Err(self.because(Errno::ENODEV, "the kernel has no such file system")),
            opened => opened?,
        };
        mount::configure(context.as_fd(), c"source", &system.source)?;
        self.configure(context.as_fd(), parameters)?;
        mount::create(context.as_fd(), attributes).map_err(|errno| self.because_of_log(errno, context.as_fd(), ""))
    }

    fn configure(&mut self, context: BorrowedFd<'_>, parameters: &[Parameter]) -> sys::Result<()> {
        for parameter in parameters {
            match &parameter.value {
                Some(value) => mount::configure(context, &parameter.key, value),
                None => mount::configure_flag(context, &parameter.key),
            }
            .map_err(|errno| self.because_of_log(errno, context, &format!("option `{}`", parameter.shown())))?;
        }
        Ok(())
    }

    /// With mount(2), which takes what fsconfig(2) has no words for: long values, and flags without a name.
    fn make_by_flags(
        &mut self,
        mount: &Mount,
        system: &FileSystem,
        parameters: &[Parameter],
        target: BorrowedFd<'_>,
    ) -> sys::Result<Made> {
        let mut flags = by_flags(mount.attributes.set);
        let mut data = Vec::new();
        for parameter in parameters {
            if let Some((_, flag)) = FLAGS.iter().find(|(name, _)| parameter.key.as_c_str() == *name) {
                flags |= flag;
                continue;
            }
            if !data.is_empty() {
                data.push(b',');
            }
            data.extend_from_slice(parameter.key.to_bytes());
            if let Some(value) = &parameter.value {
                data.push(b'=');
                data.extend_from_slice(value.to_bytes());
            }
        }
        if data.len() >= 4096 {
            return Err(self.because(Errno::E2BIG, "its options are longer than a page"));
        }
        if system.copy_up {
            return Err(self.because(Errno::EINVAL, "`tmpcopyup` with an option that fsconfig(2) does not take"));
        }
        let data = CString::new(data).map_err(|_| Errno::EINVAL)?;
        mount::mount_by_flags(&system.source, target, &system.name, flags, &data)?;
        Ok(Made::Attached)
    }

    fn remount(&mut self, mount: &'a Mount, bind: bool, parameters: &[Parameter]) -> sys::Result<()> {
        let mounted = self.find(&mount.path)?;
        if !bind && !parameters.is_empty() {
            let context = mount::pick_filesystem(mounted.as_fd())?;
            self.configure(context.as_fd(), parameters)?;
            mount::reconfigure(context.as_fd()).map_err(|errno| self.because_of_log(errno, context.as_fd(), ""))?;
        }
        self.change(mounted.as_fd(), mount.attributes)?;
        self.change_all(mounted.as_fd(), mount.recursive)?;
        self.finish(mount, Some(mounted.as_fd()))
    }

    /// What a user namespace has locked stays, unless it was to be cleared by name: that is EPERM.
    fn change(&mut self, tree: BorrowedFd<'_>, attributes: Attributes) -> sys::Result<()> {
        if attributes.is_empty() {
            return Ok(());
        }
        match mount::change_attributes(tree, attributes.set, attributes.clear, false) {
            Err(Errno::EPERM) if attributes.clear != attributes.must_clear => {
                mount::change_attributes(tree, attributes.set, attributes.must_clear, false)
            }
            changed => changed,
        }
        .map_err(|errno| self.because(errno, "its flags"))
    }

    fn change_all(&mut self, tree: BorrowedFd<'_>, attributes: Attributes) -> sys::Result<()> {
        if attributes.is_empty() {
            return Ok(());
        }
        mount::change_attributes(tree, attributes.set, attributes.clear, true)
            .map_err(|errno| self.because(errno, "its recursive flags"))
    }

    /// Only when it is in its place: a place that is shared would make it that, too.
    fn finish(&mut self, mount: &Mount, tree: Option<BorrowedFd<'_>>) -> sys::Result<()> {
        let kept = [c"proc", c"sys"].into_iter().find(|name| mount.path.full() == *name);
        if let (Some(name), Some(tree)) = (kept, tree) {
            self.kept.push((name, tree.try_clone_to_owned().map_err(|_| Errno::EMFILE)?));
        }
        if mount.propagation.is_empty() {
            return Ok(());
        }
        let found;
        let tree = match tree {
            Some(tree) => tree,
            None => {
                found = self.find(&mount.path)?;
                found.as_fd()
            }
        };
        mount
            .propagation
            .iter()
            .try_for_each(|propagation| mount::set_propagation(tree, propagation.kind, propagation.recursive))
            .map_err(|errno| self.because(errno, "its propagation"))
    }

    /// Where it is to be mounted, made if need be.
    fn target(&mut self, mount: &Mount, kind: Kind) -> sys::Result<within::Found> {
        let (full, parent, name) = (mount.path.full(), mount.path.parent(), mount.path.name());
        let found = if mount.exact && kind == Kind::Dir {
            within::make_exact(self.root()?, parent, name).map_err(|errno| match errno {
                Errno::ENOTDIR => self.because(errno, "it must be mounted on a directory, not on a link"),
                other => other,
            })?
        } else {
            within::make(self.root()?, full, kind)?
        };
        let in_proc = full.to_bytes() == b"proc" || full.to_bytes().starts_with(b"proc/");
        if !in_proc && fs::is_proc(found.place.as_fd()) {
            return Err(self.because(Errno::EPERM, "it cannot be mounted because it is inside /proc"));
        }
        Ok(found)
    }

    /// The kernel's own words, where it has any.
    fn because_of_log(&mut self, errno: Errno, context: BorrowedFd<'_>, otherwise: &str) -> Errno {
        let mut buffer = [0; 512];
        let words = match fs::read(context, &mut buffer) {
            // Each line begins with its kind: `e `, `w `, `i `.
            Ok(length) if length > 2 => String::from_utf8_lossy(&buffer[2..length]).trim().to_owned(),
            _ => otherwise.to_owned(),
        };
        if !words.is_empty() {
            self.detail = Some(words);
        }
        errno
    }
}

/// Flags of mount(2) that are parameters to us.
const FLAGS: [(&CStr, u64); 6] = [
    (c"dirsync", libc::MS_DIRSYNC),
    (c"iversion", libc::MS_I_VERSION),
    (c"lazytime", libc::MS_LAZYTIME),
    (c"mand", libc::MS_MANDLOCK),
    (c"ro", libc::MS_RDONLY),
    (c"sync", libc::MS_SYNCHRONOUS),
];

fn beyond_fsconfig(parameter: &Parameter) -> bool {
    let long = |text: &CString| text.as_bytes_with_nul().len() > LONGEST_VALUE;
    parameter.key.as_c_str() == c"iversion" || long(&parameter.key) || parameter.value.as_ref().is_some_and(long)
}

/// The same attributes as mount(2) has them.
fn by_flags(attributes: u64) -> u64 {
    const NOSYMFOLLOW: u64 = 256;
    let pairs = [
        (libc::MOUNT_ATTR_RDONLY, libc::MS_RDONLY),
        (libc::MOUNT_ATTR_NOSUID, libc::MS_NOSUID),
        (libc::MOUNT_ATTR_NODEV, libc::MS_NODEV),
        (libc::MOUNT_ATTR_NOEXEC, libc::MS_NOEXEC),
        (libc::MOUNT_ATTR_NODIRATIME, libc::MS_NODIRATIME),
        (libc::MOUNT_ATTR_NOATIME, libc::MS_NOATIME),
        (libc::MOUNT_ATTR_STRICTATIME, libc::MS_STRICTATIME),
        (libc::MOUNT_ATTR_NOSYMFOLLOW, NOSYMFOLLOW),
    ];
    pairs.iter().filter(|(attribute, _)| attributes & attribute != 0).map(|(_, flag)| flag).sum()
}
