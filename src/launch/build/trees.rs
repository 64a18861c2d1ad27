//! Parts of the host's tree, to be mounted in a container.
//!
//! A builder in a user namespace may not reach a source (its root is nobody on the host), and nobody but the host's
//! root may map the ids of its files. So the runtime makes these copies: in the container's mount namespace, in
//! which the kernel keeps locked what the host has forbidden on its mounts, but with the host's rights.

use std::{
    cell::{Cell, RefCell},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{
    launch::{LaunchError, mapped},
    plan::{container::operations::From, path::HostPath, setup::SetupOp},
    sys::{self, Errno, clone, fs, mount, process},
};

const STACK: usize = 256 << 10;

/// A detached copy of what is mounted at `source`.
pub fn open(source: &HostPath, recursive: bool) -> sys::Result<OwnedFd> {
    mount::clone_tree(fs::cwd(), source.as_c_str(), recursive)
}

/// Why a tree cannot be handed over.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("cannot make the user namespace of an id-mapped mount: {0}")]
    Map(#[from] LaunchError),
    /// The operation in the plan.
    #[error("mount of the plan's operation {index}: {}", errno.desc())]
    Mount { index: usize, errno: Errno },
    #[error("cannot enter the container's mount namespace: {}", .0.desc())]
    Namespace(Errno),
    #[error("the helper that opens mounts: {}", .0.desc())]
    Helper(Errno),
}

/// Whether [`make`] has anything to do.
#[must_use]
pub fn needed(setup: &[SetupOp]) -> bool {
    setup.iter().any(|operation| handed(operation).is_some())
}

/// All trees that the plan's builder is to be handed, in its order. `mounts` is the container's mount namespace, or
/// a process in it; `users` is its user namespace.
///
/// The process that calls this has one thread.
pub fn make(
    setup: &[SetupOp],
    mounts: BorrowedFd<'_>,
    users: Option<BorrowedFd<'_>>,
) -> Result<Vec<OwnedFd>, TreeError> {
    let mut wanted = Vec::new();
    for (index, operation) in setup.iter().enumerate() {
        let Some((source, recursive, mapped)) = handed(operation) else { continue };
        let namespace = match mapped {
            None => None,
            Some(mapping) => Some((
                mapping.recursive,
                match mapping.own.as_deref() {
                    Some((users, groups)) => mapped::user_namespace(users, groups)?,
                    None => users
                        .ok_or(Errno::EINVAL)
                        .and_then(|users| users.try_clone_to_owned().map_err(|_| Errno::EMFILE))
                        .map_err(|errno| TreeError::Mount { index, errno })?,
                },
            )),
        };
        wanted.push(Wanted { index, source, recursive, namespace });
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let job = Job { mounts, wanted, made: RefCell::default(), failed: Cell::new(None) };
    let mut stack = vec![MaybeUninit::uninit(); STACK];
    let pid = clone::spawn_sharing_memory(&mut stack, Job::run, &job).map_err(TreeError::Helper)?;
    process::wait(pid, true).map_err(TreeError::Helper)?;
    match job.failed.into_inner() {
        None => Ok(job.made.into_inner()),
        Some((None, errno)) => Err(TreeError::Namespace(errno)),
        Some((Some(index), errno)) => Err(TreeError::Mount { index, errno }),
    }
}

fn handed(operation: &SetupOp) -> Option<(&HostPath, bool, Option<&crate::plan::container::operations::IdMapping>)> {
    let SetupOp::Mount(mount) = operation else { return None };
    match &mount.from {
        From::Bind { source, recursive, handed: true, mapped } => Some((source, *recursive, mapped.as_ref())),
        _ => None,
    }
}

struct Wanted<'a> {
    index: usize,
    source: &'a HostPath,
    recursive: bool,
    namespace: Option<(bool, OwnedFd)>,
}

/// For a process that shares our memory and descriptors, but has a working directory and namespaces of its own.
struct Job<'a> {
    mounts: BorrowedFd<'a>,
    wanted: Vec<Wanted<'a>>,
    made: RefCell<Vec<OwnedFd>>,
    failed: Cell<Option<(Option<usize>, Errno)>>,
}

impl Job<'_> {
    fn run(&self) -> i32 {
        if let Err(errno) = process::join_namespace(self.mounts, libc::CLONE_NEWNS) {
            self.failed.set(Some((None, errno)));
            return 1;
        }
        for wanted in &self.wanted {
            match wanted.tree() {
                Ok(tree) => self.made.borrow_mut().push(tree),
                Err(errno) => {
                    self.failed.set(Some((Some(wanted.index), errno)));
                    return 1;
                }
            }
        }
        0
    }
}

impl Wanted<'_> {
    fn tree(&self) -> sys::Result<OwnedFd> {
        let tree = open(self.source, self.recursive)?;
        if let Some((recursive, namespace)) = &self.namespace {
            mount::map_ids(tree.as_fd(), namespace.as_fd(), *recursive)?;
        }
        Ok(tree)
    }
}
