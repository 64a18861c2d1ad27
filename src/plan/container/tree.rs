//! From a container's spec to the operations that build its tree.
//!
//! An engine's containers differ from `run`'s sandboxes: their root is a directory that somebody else filled and
//! may fill while we look, every option counts, and all that the spec asks for is done or is an error. Like every
//! plan this one is data, made without touching anything: whether a source is a file, or a device is there, is only
//! known at launch.

use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use super::{devices, masks, mounts, operations::Propagation, sysctl};
use crate::plan::{
    PlanError,
    path::{BoxPath, HostPath},
    setup::SetupOp,
};

/// What the plan of a tree depends on beside the spec. A namespace is the container's own if it is another than the
/// runtime's, be it new or joined.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact by itself")]
pub struct Facts<'a> {
    /// What relative paths of the host are relative to.
    pub bundle: &'a Path,
    pub own_mount_namespace: bool,
    pub own_user_namespace: bool,
    pub own_network_namespace: bool,
    pub own_ipc_namespace: bool,
    pub own_uts_namespace: bool,
    pub own_pid_namespace: bool,
    pub cgroup_namespace: bool,
    /// The runtime is not the host's root.
    pub rootless: bool,
    pub cgroup: CgroupTree,
    /// SELinux is on: labels of mounts count.
    pub selinux: bool,
}

/// What of cgroups is mounted on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupTree {
    V1,
    V2,
    None,
}

/// The operations up to where hooks run and the console is put in place, in the spec's order.
pub fn build(oci: &oci::Spec, facts: &Facts<'_>, setup: &mut Vec<SetupOp>) -> Result<(), PlanError> {
    setup.push(root(oci, facts)?);
    mounts::plan(oci, facts, setup)?;
    devices::plan(oci, facts, setup)?;
    sysctl::plan(oci, facts, setup)
}

/// The root itself.
pub(super) fn root(oci: &oci::Spec, facts: &Facts<'_>) -> Result<SetupOp, PlanError> {
    let root = oci.root().as_ref().ok_or_else(|| refused("/", "the spec has no root"))?;
    let propagation = match oci.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref()) {
        Some(given) if !given.is_empty() => Some(
            Propagation::parse(given)
                .ok_or_else(|| refused("/", format!("rootfsPropagation `{given}` is no propagation")))?,
        ),
        _ => None,
    };
    let source = HostPath::new(&facts.bundle.join(root.path()))?;
    Ok(match facts.own_mount_namespace {
        true => {
            let propagation = propagation.unwrap_or(Propagation::RECURSIVE_SLAVE);
            SetupOp::ContainerRoot { source, propagation }
        }
        false => SetupOp::ContainerDir { source },
    })
}

/// The operations after hooks and console: what must not be written, what must not be seen, and the new root.
pub fn finish(oci: &oci::Spec, facts: &Facts<'_>, pivot: bool, setup: &mut Vec<SetupOp>) -> Result<(), PlanError> {
    if let Some(process) = oci.process().as_ref().filter(|process| process.cwd() != Path::new("/")) {
        setup.push(SetupOp::Dirs { path: inside(process.cwd())?.1 });
    }
    if !facts.own_mount_namespace {
        setup.push(SetupOp::ChangeRoot);
        return Ok(());
    }
    masks::plan(oci, setup)?;
    setup.push(SetupOp::EnterContainer { pivot });
    let given = oci.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref());
    if let Some(propagation) = given.and_then(Propagation::parse).filter(|given| !given.is_private()) {
        // Only now: what is shared cannot be pivoted to.
        setup.push(SetupOp::RootPropagation { propagation });
    }
    Ok(())
}

/// All of the tree's operations, without hooks and console.
pub fn plan(oci: &oci::Spec, facts: &Facts<'_>, pivot: bool, setup: &mut Vec<SetupOp>) -> Result<(), PlanError> {
    build(oci, facts, setup)?;
    finish(oci, facts, pivot, setup)
}

pub(super) fn refused(target: &str, why: impl Into<std::borrow::Cow<'static, str>>) -> PlanError {
    PlanError::Mount { target: target.to_owned(), why: why.into() }
}

/// A path inside the container as engines write it: relative ones start at the root, `..` is taken back before any
/// link is looked at.
pub(super) fn inside(path: &Path) -> Result<(PathBuf, BoxPath), PlanError> {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => _ = clean.pop(),
            _ => {}
        }
    }
    let boxed = BoxPath::new(&clean)?;
    Ok((clean, boxed))
}
