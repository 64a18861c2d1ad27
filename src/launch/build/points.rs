//! The places in a container's root that something is to be mounted on, made as `create` makes them, where somebody
//! else mounts: a container that is restored may have a root in which nothing was ever mounted.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use super::within;
use crate::{
    plan::{
        container::operations::{From, Mount},
        setup::{Kind, SetupOp},
    },
    sys::{self, fs, mount},
};

/// Makes them in the root that is mounted behind `root`, and leaves what is mounted from the host for the ones within
/// that: in a mount namespace that ends before anybody else sees it. What lies in a file system of the container's
/// own is brought back with that.
///
/// # Errors
/// What was to be mounted, and why there is no place for it.
pub fn make(root: BorrowedFd<'_>, setup: &[SetupOp]) -> Result<(), String> {
    let mut seen: Vec<(&Path, bool)> = Vec::new();
    for operation in setup {
        let SetupOp::Mount(wanted) = operation else { continue };
        let path = path(wanted.path.full());
        let below =
            seen.iter().filter(|(other, _)| path.starts_with(other)).max_by_key(|(other, _)| other.as_os_str().len());
        let fresh = below.is_some_and(|(_, fresh)| *fresh);
        let source = match &wanted.from {
            From::Remount { .. } => continue,
            From::Bind { source, .. } => Some(source.as_c_str()),
            From::New(_) | From::CgroupsV1 { .. } => None,
        };
        seen.push((path, fresh || source.is_none()));
        if !fresh {
            place(root, wanted, source).map_err(|errno| format!("make a place for {wanted}: {}", errno.desc()))?;
        }
    }
    Ok(())
}

fn place(root: BorrowedFd<'_>, wanted: &Mount, source: Option<&CStr>) -> sys::Result<()> {
    let tree = source.map(|source| mount::clone_tree(fs::cwd(), source, true)).transpose()?;
    let kind = match &tree {
        Some(tree) if fs::stat(tree.as_fd())?.st_mode & libc::S_IFMT != libc::S_IFDIR => Kind::File,
        _ => Kind::Dir,
    };
    let found = match wanted.exact && kind == Kind::Dir {
        true => within::make_exact(root, wanted.path.parent(), wanted.path.name())?,
        false => within::make(root, wanted.path.full(), kind)?,
    };
    match tree {
        Some(tree) => mount::attach(tree.as_fd(), found.place.as_fd()),
        None => Ok(()),
    }
}

fn path(text: &CStr) -> &Path {
    Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(text.to_bytes()))
}
