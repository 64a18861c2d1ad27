//! Carries out the plan's operations: the sandbox's init turns its fresh mount namespace into the sandbox's
//! tree.
//!
//! Runs between clone3 and execve in what may be a child of a multi-threaded process, so nothing of `run`'s
//! allocates; a container's runtime has one thread, and its operations may. Every path below the new root is
//! resolved by descriptor, within that root, following no link, or in a container no link out of it; what was
//! resolved is what is mounted on (CVE-2021-30465, CVE-2024-45310 and their kin).

mod cgroups;
mod copy;
mod enclosure;
mod mounts;
mod nodes;
pub mod points;
mod root;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod trees;
mod within;

use std::{
    ffi::CStr,
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::protocol::InitEnd;
use crate::{
    plan::{
        Identity,
        path::{BoxPath, HostPath},
        setup::{Kind, OnDisk, Owner, SetupOp},
    },
    sys::{self, Errno, fs, mount, process},
};

const SAFE: u64 = mount::NO_SUID | mount::NO_DEV;
const PATH_ONLY: i32 = libc::O_PATH | libc::O_NOFOLLOW;
/// One file for each of this many bytes of a tmpfs: enough for any source tree, and a bound on inode bombs.
const BYTES_PER_INODE: u64 = 4096;
/// What a tmpfs has by itself (tmpfs(5)).
const TMPFS_MODE: u32 = 0o1777;

/// Where mounts come from that the builder itself cannot make: one for each that needs it, in the plan's order.
pub trait Supply {
    fn next_mount(&self) -> sys::Result<OwnedFd>;
    /// Hands out what the sandbox will write to its root.
    fn keep(&self, upper: BorrowedFd<'_>) -> sys::Result<()>;
}

impl Supply for InitEnd<'_> {
    fn next_mount(&self) -> sys::Result<OwnedFd> {
        InitEnd::next_mount(*self)
    }

    fn keep(&self, upper: BorrowedFd<'_>) -> sys::Result<()> {
        self.upper(upper)
    }
}

/// What is written to an overlay: at most how much and whose the root directory is.
#[derive(Debug, Clone, Copy)]
struct Writable<'a> {
    bytes: u64,
    owner: Owner,
    disk: Option<&'a OnDisk>,
    kept: bool,
}

/// The tree as far as it is built.
#[derive(Debug)]
pub struct Builder<'a, S> {
    control: S,
    program: Identity,
    /// Whether the builder has another identity than the program.
    gives_away: bool,
    root: Option<OwnedFd>,
    /// The mounts are the host's, and stay as they are.
    shares_mounts: bool,
    /// The directory that the last operation worked in: the next one often does too. It cannot have been
    /// mounted over since, because that would have been an operation in its parent.
    last_parent: Option<(&'a CStr, OwnedFd)>,
    /// How links below the root are taken: a container's may be followed, within it.
    links: u64,
    /// A procfs that nothing can have been mounted on (CVE-2025-52881).
    procfs: Option<OwnedFd>,
    /// The mounted /proc and /sys. What is to be masked in them is found from here: their names in the root may be
    /// exchanged for others at any moment (CVE-2019-19921).
    kept: Vec<(&'static CStr, OwnedFd)>,
    /// What masked directories and files are covered with, mounted over the first of them.
    covers: [Option<OwnedFd>; 2],
    /// The terminal that becomes /dev/console.
    console: Option<OwnedFd>,
    /// More than an errno says about what failed last.
    detail: Option<String>,
}

impl<'a, S: Supply> Builder<'a, S> {
    #[must_use]
    pub const fn new(control: S, program: Identity, setup: (u32, u32)) -> Self {
        let gives_away = program.uid != setup.0 || program.gid != setup.1;
        Self {
            control,
            program,
            gives_away,
            root: None,
            shares_mounts: false,
            last_parent: None,
            links: fs::IN_ROOT,
            procfs: None,
            kept: Vec::new(),
            covers: [None, None],
            console: None,
            detail: None,
        }
    }

    /// For what is added to a tree that is whole, and whose root this is.
    #[must_use]
    pub fn within(root: OwnedFd, control: S, program: Identity, setup: (u32, u32)) -> Self {
        Self { root: Some(root), ..Self::new(control, program, setup) }
    }

    /// For a container, in whose tree all that is made belongs to its root.
    #[must_use]
    pub const fn for_container(control: S) -> Self {
        Self::new(control, Identity { uid: 0, gid: 0 }, (0, 0))
    }

    /// More than the errno says about the operation that failed.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    pub fn carry_out(&mut self, operation: &'a SetupOp) -> sys::Result<()> {
        match operation {
            SetupOp::Private => mount::make_private(open_host(c"/", libc::O_DIRECTORY)?.as_fd()),
            SetupOp::Hostname { name } => process::set_hostname(name),
            // The init's own: neither is about the tree.
            SetupOp::Network | SetupOp::Cgroup => Ok(()),
            SetupOp::RootTmpfs { bytes, owner } => self.root_tmpfs(*bytes, *owner),
            SetupOp::RootBind { source, mapped } => self.root_bind(source, *mapped),
            SetupOp::RootOverlay { source, skeleton, writable_bytes, owner, mapped, on_disk, kept } => {
                let (owner, kept, disk) = (*owner, *kept, on_disk.as_ref());
                let writable = writable_bytes.map(|bytes| Writable { bytes, owner, disk, kept });
                self.root_overlay(source, skeleton, writable, *mapped)
            }
            SetupOp::Dir { path, mode, owner } => self.dir(path, *mode, *owner),
            SetupOp::Symlink { path, to } => fs::make_symlink(to, self.parent(path)?, path.name()),
            SetupOp::Over { path, content } => self.over(path, &content.0),
            SetupOp::File { path, mode, owner, content } => self.file(path, *mode, *owner, &content.0),
            SetupOp::Bind { path, kind, mapped: Some(_), .. } => {
                let tree = self.control.next_mount()?;
                self.attach(tree.as_fd(), path, *kind)
            }
            SetupOp::Bind { source, path, kind, writable, mapped: None } => self.bind(source, path, *kind, *writable),
            SetupOp::Device { source, path } => self.device(source, path),
            SetupOp::Tmpfs { path, bytes, executable, mode, owner } => {
                let tmpfs = tmpfs(*bytes, *mode, if *executable { 0 } else { mount::NO_EXEC })?;
                give(tmpfs.as_fd(), c"", self.receiver(*owner))?;
                self.attach(tmpfs.as_fd(), path, Kind::Dir)
            }
            SetupOp::Proc { path } => {
                let context = mount::open_filesystem(c"proc")?;
                mount::configure(context.as_fd(), c"hidepid", c"2")?;
                let proc = mount::create(context.as_fd(), SAFE | mount::NO_EXEC | mount::READ_ONLY)?;
                self.attach(proc.as_fd(), path, Kind::Dir)
            }
            SetupOp::Terminals { path } => self.terminals(path),
            SetupOp::Mask { path, required } => self.mask(path, *required),
            SetupOp::ReadOnly { path } => match self.find(path) {
                Err(Errno::ENOENT) => Ok(()),
                Err(errno) => Err(errno),
                Ok(target) => {
                    let view = mount::clone_tree(target.as_fd(), c"", true)?;
                    mount::set_attributes(view.as_fd(), mount::READ_ONLY, true)?;
                    mount::attach(view.as_fd(), target.as_fd())
                }
            },
            SetupOp::Seal { path } => {
                let mounted = self.find(path)?;
                mount::set_attributes(mounted.as_fd(), mount::READ_ONLY, false)
            }
            SetupOp::Enclose(enclosure) => self.enclose(enclosure),
            SetupOp::Enter => {
                fs::change_dir(self.root()?)?;
                mount::enter_root_here()
            }
            SetupOp::ContainerRoot { source, propagation } => self.container_root(source, *propagation),
            SetupOp::ContainerDir { source } => self.container_dir(source),
            SetupOp::ChangeRoot => mount::change_root(self.root()?),
            SetupOp::Mount(mount) => self.mount(mount),
            SetupOp::Node(node) => self.node(node),
            SetupOp::Link { path, to, replace } => self.link(path, to, *replace),
            SetupOp::Dirs { path } => within::make(self.root()?, path.full(), Kind::Dir).map(drop),
            SetupOp::Sysctl { key, value } => self.sysctl(key, value),
            SetupOp::Console => self.console(),
            SetupOp::EnterContainer { pivot } => self.enter_container(*pivot),
            SetupOp::RootPropagation { propagation } => {
                mount::set_propagation(self.root()?, propagation.kind, propagation.recursive)
            }
        }
    }

    fn root(&self) -> sys::Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or(Errno::EBADF)
    }

    fn dir(&mut self, path: &'a BoxPath, mode: u32, owner: Owner) -> sys::Result<()> {
        let program = self.receiver(owner);
        place_dir(self.parent(path)?, path.name(), mode, program)
    }

    fn file(&mut self, path: &'a BoxPath, mode: u32, owner: Owner, content: &[u8]) -> sys::Result<()> {
        let program = self.receiver(owner);
        place_file(self.parent(path)?, path.name(), mode, program, content)
    }

    /// As [`SetupOp::File`], and without content as [`SetupOp::Dir`], at a parent and a name.
    pub fn place(
        &mut self,
        (parent, name): (&CStr, &CStr),
        mode: u32,
        owner: Owner,
        content: Option<&[u8]>,
    ) -> sys::Result<()> {
        let parent = fs::open_in(self.root()?, parent, PATH_ONLY | libc::O_DIRECTORY, 0, fs::IN_ROOT)?;
        let program = self.receiver(owner);
        match content {
            None => place_dir(parent.as_fd(), name, mode, program),
            Some(content) => place_file(parent.as_fd(), name, mode, program, content),
        }
    }

    /// Removes a file, and the directory that it was alone in, if they can be.
    pub fn remove(&self, parent: &CStr, name: &CStr) {
        let Ok(root) = self.root() else { return };
        if let Ok(dir) = fs::open_in(root, parent, PATH_ONLY | libc::O_DIRECTORY, 0, fs::IN_ROOT) {
            _ = fs::remove_file(dir.as_fd(), name);
        }
        _ = fs::remove_dir(root, parent);
    }

    fn over(&mut self, path: &'a BoxPath, content: &[u8]) -> sys::Result<()> {
        let place = tmpfs(content.len() as u64, TMPFS_MODE, 0)?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = fs::open_in(place.as_fd(), c"file", flags, 0o644, fs::BENEATH)?;
        fs::write_all(file.as_fd(), content)?;
        let tree = mount::clone_tree(place.as_fd(), c"file", false)?;
        mount::set_attributes(tree.as_fd(), SAFE | mount::READ_ONLY, false)?;
        self.attach(tree.as_fd(), path, Kind::File)
    }

    fn bind(&mut self, source: &HostPath, path: &'a BoxPath, kind: Kind, writable: bool) -> sys::Result<()> {
        let source = open_host(source.as_c_str(), PATH_ONLY)?;
        let tree = mount::clone_tree(source.as_fd(), c"", true)?;
        let access = if writable { 0 } else { mount::READ_ONLY };
        mount::set_attributes(tree.as_fd(), SAFE | access, true)?;
        self.attach(tree.as_fd(), path, kind)
    }

    /// The host's own node, since none can be made in a user namespace; a character device or nothing
    /// (CVE-2025-31133).
    fn device(&mut self, source: &HostPath, path: &'a BoxPath) -> sys::Result<()> {
        let node = mount::clone_tree(fs::cwd(), source.as_c_str(), false)?;
        if fs::stat(node.as_fd())?.st_mode & libc::S_IFMT != libc::S_IFCHR {
            return Err(Errno::ENODEV);
        }
        self.attach(node.as_fd(), path, Kind::File)
    }

    fn terminals(&mut self, path: &'a BoxPath) -> sys::Result<()> {
        self.attach(own_terminals()?.as_fd(), path, Kind::Dir)
    }

    /// Of what every kernel may have, what is not there needs no mask.
    fn mask(&mut self, path: &BoxPath, required: bool) -> sys::Result<()> {
        let target = match self.find(path) {
            Err(Errno::ENOENT) if !required => return Ok(()),
            found => found?,
        };
        let is_dir = fs::stat(target.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let first = &mut self.covers[usize::from(is_dir)];
        if let Some(first) = first {
            // Read-only as that is, and nothing can be put into it.
            return mount::attach(mount::clone_tree(first.as_fd(), c"", false)?.as_fd(), target.as_fd());
        }
        let cover = if is_dir {
            let context = mount::open_filesystem(c"tmpfs")?;
            mount::configure(context.as_fd(), c"size", c"4096")?;
            mount::configure(context.as_fd(), c"nr_inodes", c"2")?;
            mount::configure(context.as_fd(), c"mode", c"0555")?;
            mount::create(context.as_fd(), SAFE | mount::NO_EXEC | mount::READ_ONLY)?
        } else {
            let null = mount::clone_tree(fs::cwd(), c"/dev/null", false)?;
            if fs::stat(null.as_fd())?.st_rdev != libc::makedev(1, 3) {
                return Err(Errno::ENODEV);
            }
            null
        };
        mount::attach(cover.as_fd(), target.as_fd())?;
        *first = Some(cover);
        Ok(())
    }

    /// Mounts `tree` on `path`, which is made if the tree it lies in is ours to add to.
    fn attach(&mut self, tree: BorrowedFd<'_>, path: &'a BoxPath, kind: Kind) -> sys::Result<()> {
        let parent = self.parent(path)?;
        make_target(parent, path.name(), kind)?;
        mount::attach_at(tree, parent, path.name())
    }

    fn parent(&mut self, path: &'a BoxPath) -> sys::Result<BorrowedFd<'_>> {
        let cached = self.last_parent.take().filter(|(known, _)| *known == path.parent());
        let found = match cached {
            Some(cached) => cached,
            None => {
                let flags = PATH_ONLY | libc::O_DIRECTORY;
                (path.parent(), fs::open_in(self.root()?, path.parent(), flags, 0, fs::IN_ROOT)?)
            }
        };
        Ok(self.last_parent.insert(found).1.as_fd())
    }

    fn find(&self, path: &BoxPath) -> sys::Result<OwnedFd> {
        let last = if self.links == fs::IN_ROOT { PATH_ONLY } else { libc::O_PATH };
        let below = |name: &CStr| {
            let rest = path.full().to_bytes_with_nul().strip_prefix(name.to_bytes())?.strip_prefix(b"/")?;
            CStr::from_bytes_with_nul(rest).ok()
        };
        let kept = self.kept.iter().rev().find_map(|(name, mounted)| Some((mounted.as_fd(), below(name)?)));
        let (from, path) = match kept {
            Some(kept) => kept,
            None => (self.root()?, path.full()),
        };
        fs::open_in(from, path, last, 0, self.links)
    }

    /// Keeps words for what an errno cannot say.
    fn because(&mut self, errno: Errno, why: impl Into<String>) -> Errno {
        self.detail = Some(why.into());
        errno
    }

    /// Who is to own what is made, if not the builder.
    const fn receiver(&self, owner: Owner) -> Option<Identity> {
        if self.gives_away && matches!(owner, Owner::Program) { Some(self.program) } else { None }
    }
}

fn own_terminals() -> sys::Result<OwnedFd> {
    let context = mount::open_filesystem(c"devpts")?;
    mount::configure_flag(context.as_fd(), c"newinstance")?;
    mount::configure(context.as_fd(), c"ptmxmode", c"0666")?;
    mount::configure(context.as_fd(), c"mode", c"0620")?;
    mount::create(context.as_fd(), mount::NO_SUID | mount::NO_EXEC)
}

fn place_dir(parent: BorrowedFd<'_>, name: &CStr, mode: u32, program: Option<Identity>) -> sys::Result<()> {
    match fs::make_dir(parent, name, mode) {
        Ok(()) => give(parent, name, program),
        // There already, or in a tree that is not ours to add to: what needs it will tell.
        Err(Errno::EEXIST | Errno::EROFS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn place_file(
    parent: BorrowedFd<'_>,
    name: &CStr,
    mode: u32,
    program: Option<Identity>,
    content: &[u8],
) -> sys::Result<()> {
    // Never over what is there: a writable mount may have brought a file of the host's.
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let file = fs::open_in(parent, name, flags, mode, fs::BENEATH)?;
    fs::write_all(file.as_fd(), content)?;
    give(file.as_fd(), c"", program)
}

fn give(dir: BorrowedFd<'_>, path: &CStr, to: Option<Identity>) -> sys::Result<()> {
    to.map_or(Ok(()), |program| fs::change_owner(dir, path, program.uid, program.gid))
}

/// A host path was resolved before: a link on the way means that it has changed since.
fn open_host(path: &CStr, flags: i32) -> sys::Result<OwnedFd> {
    fs::open_in(fs::cwd(), path, flags, 0, fs::NO_LINKS)
}

fn make_target(parent: BorrowedFd<'_>, name: &CStr, kind: Kind) -> sys::Result<()> {
    let made = match kind {
        Kind::Dir => fs::make_dir(parent, name, 0o755),
        Kind::File => fs::make_file(parent, name, 0o444),
    };
    match made {
        // If it is missing in a tree that is read-only, opening it tells.
        Err(Errno::EEXIST | Errno::EROFS | Errno::EACCES) => Ok(()),
        other => other,
    }
}

fn tmpfs(bytes: u64, mode: u32, attributes: u64) -> sys::Result<OwnedFd> {
    let mut buffer = [0u8; 24];
    let inodes = (bytes / BYTES_PER_INODE).max(64);
    let context = mount::open_filesystem(c"tmpfs")?;
    mount::configure(context.as_fd(), c"size", text(&mut buffer, format_args!("{bytes}"))?)?;
    mount::configure(context.as_fd(), c"nr_inodes", text(&mut buffer, format_args!("{inodes}"))?)?;
    if mode != TMPFS_MODE {
        mount::configure(context.as_fd(), c"mode", text(&mut buffer, format_args!("{mode:o}"))?)?;
    }
    mount::create(context.as_fd(), SAFE | attributes)
}

/// A number as fsconfig takes it, without allocating.
fn text<'a>(buffer: &'a mut [u8; 24], number: std::fmt::Arguments<'_>) -> sys::Result<&'a CStr> {
    buffer.fill(0);
    buffer.as_mut_slice().write_fmt(number).map_err(|_| Errno::EOVERFLOW)?;
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::EOVERFLOW)
}
