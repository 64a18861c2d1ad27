//! From a spec's mounts to the operations that build the tree.

use std::{
    collections::BTreeSet,
    ffi::CString,
    path::{Path, PathBuf},
};

use oci_spec::runtime as oci;

use super::{
    PlanError,
    ids::{Ids, IdsKind, Map},
    landlock::{Access, Layer},
    path::{BoxPath, HostPath},
    setup::{Content, Kind, OnDisk, Owner, SetupOp, Skeleton},
};
use crate::{
    request::Placed,
    spec::{Base, Own, WORKDIR},
};

/// Safe because none of them reaches hardware or another process (runtime-spec, default devices).
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];
/// The root's own tmpfs holds directories, links and small files only.
const ROOT_BYTES: u64 = 1 << 20;

pub(super) fn plan(
    oci: &oci::Spec,
    own: &mut Own,
    ids: &Ids,
    writable_root: bool,
    setup: &mut Vec<SetupOp>,
    layer: &mut Layer,
) -> Result<(), PlanError> {
    let given = if ids.kind == IdsKind::Range { std::mem::take(&mut own.given_mounts) } else { Vec::new() };
    // Of the host's root, whose ids inside are others outside.
    let elsewhere = |lines: &[Map]| lines.iter().any(|line| line.inside != line.outside);
    let mapped = ids.kind == IdsKind::Range && (elsewhere(&ids.users) || elsewhere(&ids.groups));
    let user = (own.user.uid, own.user.gid);
    let mut tree = Tree { setup, made: BTreeSet::new(), given, writable_root, user };
    match &own.base {
        Base::Host { links } => {
            let bytes = if writable_root { own.limits.sandbox.get() } else { ROOT_BYTES };
            let owner = if writable_root { Owner::Program } else { Owner::Setup };
            tree.setup.push(SetupOp::RootTmpfs { bytes, owner });
            for (name, to) in links {
                tree.link(&Path::new("/").join(name), to)?;
            }
        }
        Base::Dir { path, skeleton, image } if skeleton.is_empty() && !writable_root => {
            tree.setup.push(SetupOp::RootBind { source: HostPath::new(path)?, mapped: *image && mapped });
        }
        Base::Dir { path, skeleton, image } => {
            let on_disk = own.on_disk.as_deref().filter(|_| writable_root).map(|dir| {
                Ok::<_, PlanError>(OnDisk { path: HostPath::new(dir)?, handed: ids.kind == IdsKind::Range })
            });
            let skeleton = skeleton.iter().map(|(path, kind)| Ok(Skeleton { path: BoxPath::new(path)?, kind: *kind }));
            tree.setup.push(SetupOp::RootOverlay {
                source: HostPath::new(path)?,
                skeleton: skeleton.collect::<Result<_, PlanError>>()?,
                writable_bytes: writable_root.then_some(own.limits.sandbox.get()),
                owner: if *image { Owner::Setup } else { Owner::Program },
                mapped: *image && mapped,
                on_disk: on_disk.transpose()?,
                kept: own.keeps,
            });
        }
    }
    let own_dev = matches!(own.base, Base::Dir { .. });
    for mount in oci.mounts().iter().flatten() {
        tree.mount(mount, own_dev, layer)?;
    }
    // What is placed is charged to the sandbox's memory, so its cgroup comes first.
    tree.setup.push(SetupOp::Cgroup);
    for placed in std::mem::take(&mut own.placed) {
        tree.place(placed)?;
    }
    let masked = oci.linux().as_ref().and_then(|linux| linux.masked_paths().clone()).unwrap_or_default();
    for path in masked.iter().map(Path::new) {
        tree.setup.push(SetupOp::Mask { path: BoxPath::new(path)?, required: false });
    }
    for path in &own.hidden {
        tree.setup.push(SetupOp::Mask { path: BoxPath::new(path)?, required: true });
    }
    let read_only = oci.linux().as_ref().and_then(|linux| linux.readonly_paths().clone()).unwrap_or_default();
    // Ours of /proc is read-only as a whole.
    for path in read_only.iter().filter(|path| !path.starts_with("/proc/")) {
        tree.setup.push(SetupOp::ReadOnly { path: BoxPath::new(Path::new(path))? });
    }
    if own_dev {
        tree.setup.push(SetupOp::Seal { path: BoxPath::new(Path::new("/dev"))? });
    } else if !writable_root {
        tree.setup.push(SetupOp::Seal { path: BoxPath::new(Path::new("/"))? });
    }
    if own.network == crate::request::Network::None {
        tree.setup.push(SetupOp::Network);
    }
    tree.setup.push(SetupOp::Enter);
    Ok(())
}

struct Tree<'a> {
    setup: &'a mut Vec<SetupOp>,
    /// Directories that an earlier operation makes.
    made: BTreeSet<PathBuf>,
    /// Mounts whose owner is to be the program.
    given: Vec<(PathBuf, (u32, u32))>,
    writable_root: bool,
    /// The program's ids.
    user: (u32, u32),
}

impl Tree<'_> {
    fn mount(&mut self, mount: &oci::Mount, own_dev: bool, layer: &mut Layer) -> Result<(), PlanError> {
        let target = mount.destination();
        let options: Vec<&str> = mount.options().iter().flatten().map(String::as_str).collect();
        let path = BoxPath::new(target)?;
        match mount.typ().as_deref() {
            Some("proc") => {
                self.parents(target)?;
                self.setup.push(SetupOp::Proc { path });
            }
            Some("devpts") => self.setup.push(SetupOp::Terminals { path }),
            Some("tmpfs") if target == Path::new("/dev") => {
                if own_dev {
                    self.setup.push(SetupOp::Tmpfs {
                        path,
                        bytes: ROOT_BYTES,
                        executable: false,
                        mode: 0o755,
                        owner: Owner::Setup,
                    });
                } else {
                    self.dir(target, Owner::Setup)?;
                }
                layer.allow(target, Access::Device)?;
                self.devices()?;
            }
            Some("tmpfs") => {
                self.parents(target)?;
                let value = |key: &str| options.iter().find_map(|option| option.strip_prefix(key));
                let wrong =
                    |why: &'static str| PlanError::Mount { target: target.display().to_string(), why: why.into() };
                let bytes = match value("size=") {
                    Some(size) => crate::request::Bytes::parse(size).map_err(|_| wrong("its size is no size"))?.get(),
                    None => crate::request::Limits::default().tmp.get(),
                };
                let mode = u32::from_str_radix(value("mode=").unwrap_or("1777"), 8)
                    .map_err(|_| wrong("its mode is not octal"))?;
                let executable = !options.contains(&"noexec");
                let ids = [format!("uid={}", self.user.0), format!("gid={}", self.user.1)];
                let given = ids.iter().all(|id| options.contains(&id.as_str()));
                let owner = if target == Path::new(WORKDIR) || given { Owner::Program } else { Owner::Setup };
                layer.allow(target, if executable { Access::ReadWriteExecute } else { Access::ReadWrite })?;
                self.setup.push(SetupOp::Tmpfs { path, bytes, executable, mode: mode & 0o7777, owner });
            }
            _ => {
                self.parents(target)?;
                let source = mount.source().clone().unwrap_or_default();
                let writable = !options.contains(&"ro");
                if writable {
                    layer.allow(target, Access::ReadWriteExecute)?;
                }
                let kind = if source.is_file() { Kind::File } else { Kind::Dir };
                let mapped = self.given.iter().find(|(given, _)| given == target).map(|(_, owner)| *owner);
                self.setup.push(SetupOp::Bind { source: HostPath::new(&source)?, path, kind, writable, mapped });
            }
        }
        Ok(())
    }

    fn devices(&mut self) -> Result<(), PlanError> {
        for device in DEVICES.map(Path::new) {
            self.setup.push(SetupOp::Device { source: HostPath::new(device)?, path: BoxPath::new(device)? });
        }
        for (path, to) in DEVICE_LINKS {
            self.link(Path::new(path), to)?;
        }
        Ok(())
    }

    fn place(&mut self, placed: Placed) -> Result<(), PlanError> {
        match placed {
            Placed::Dir { path, mode } => {
                self.parents(&path)?;
                if self.made.insert(path.clone()) {
                    self.setup.push(SetupOp::Dir { path: BoxPath::new(&path)?, mode, owner: self.owner(&path) });
                }
            }
            Placed::Over { path, content } => {
                self.setup.push(SetupOp::Over { path: BoxPath::new(&path)?, content: Content(content) });
            }
            Placed::File { path, mode, content } => {
                self.parents(&path)?;
                self.setup.push(SetupOp::File {
                    owner: self.owner(&path),
                    path: BoxPath::new(&path)?,
                    mode,
                    content: Content(content),
                });
            }
        }
        Ok(())
    }

    fn link(&mut self, path: &Path, to: &str) -> Result<(), PlanError> {
        let to = CString::new(to).map_err(|_| PlanError::Nul("a link"))?;
        self.setup.push(SetupOp::Symlink { path: BoxPath::new(path)?, to });
        Ok(())
    }

    fn parents(&mut self, path: &Path) -> Result<(), PlanError> {
        let above: Vec<_> = path.ancestors().skip(1).filter(|p| *p != Path::new("/")).collect();
        above.into_iter().rev().try_for_each(|dir| self.dir(dir, self.owner(dir)))
    }

    fn dir(&mut self, path: &Path, owner: Owner) -> Result<(), PlanError> {
        let known = [WORKDIR, "/tmp", "/usr", "/proc"].iter().any(|mounted| path == Path::new(mounted));
        if !known && self.made.insert(path.to_owned()) {
            self.setup.push(SetupOp::Dir { path: BoxPath::new(path)?, mode: 0o755, owner });
        }
        Ok(())
    }

    /// Below its working directory everything is the program's, and in a root that it may write, all that is made.
    fn owner(&self, path: &Path) -> Owner {
        if self.writable_root || path.starts_with(WORKDIR) { Owner::Program } else { Owner::Setup }
    }
}
