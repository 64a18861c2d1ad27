//! A container's devices: the few that every container has, and those that its spec asks for.

use std::{
    collections::BTreeMap,
    ffi::CString,
    path::{Path, PathBuf},
};

use oci_spec::runtime as oci;

use super::{
    Facts, inside,
    operations::{Node, NodeKind},
    refused,
};
use crate::plan::{
    PlanError,
    path::{BoxPath, HostPath},
    setup::SetupOp,
};

/// Every container has these (config-linux.md, default devices); all are harmless.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
];
/// In every container, too; `true`: in place of what is there, since the container's devpts must be meant.
const LINKS: [(&str, &str, bool); 6] = [
    ("/dev/fd", "/proc/self/fd", false),
    ("/dev/stdin", "/proc/self/fd/0", false),
    ("/dev/stdout", "/proc/self/fd/1", false),
    ("/dev/stderr", "/proc/self/fd/2", false),
    ("/dev/core", "/proc/kcore", false),
    ("/dev/ptmx", "pts/ptmx", true),
];

pub(super) fn plan(oci: &oci::Spec, facts: &Facts<'_>, setup: &mut Vec<SetupOp>) -> Result<(), PlanError> {
    if !has_own_dev(oci)? {
        // All of /dev is the host's: nothing is added to that.
        return Ok(());
    }
    let mut nodes: BTreeMap<PathBuf, Node> = BTreeMap::new();
    for (path, major, minor) in DEFAULT {
        let path = Path::new(path);
        let node = node(path, NodeKind::Character, (major, minor), facts)?;
        nodes.insert(path.to_owned(), node);
    }
    let devices = oci.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    for device in devices.into_iter().flatten() {
        let target = device.path().display().to_string();
        let (path, _) = inside(device.path())?;
        // Always the link to the container's own terminals.
        if path == Path::new("/dev/ptmx") {
            continue;
        }
        let number = |given: i64| u32::try_from(given).map_err(|_| refused(&target, "its number is out of range"));
        let (kind, number) = match device.typ() {
            oci::LinuxDeviceType::B => (NodeKind::Block, (number(device.major())?, number(device.minor())?)),
            oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => {
                (NodeKind::Character, (number(device.major())?, number(device.minor())?))
            }
            oci::LinuxDeviceType::P => (NodeKind::Pipe, (0, 0)),
            oci::LinuxDeviceType::A => return Err(refused(&target, "`a` is no type of a device")),
        };
        let mut node = node(&path, kind, number, facts)?;
        node.mode = device.file_mode().unwrap_or(0o666) & 0o7777;
        node.uid = device.uid().unwrap_or(0);
        node.gid = device.gid().unwrap_or(0);
        nodes.insert(path, node);
    }
    setup.extend(nodes.into_values().map(|node| SetupOp::Node(Box::new(node))));
    for (path, to, replace) in LINKS {
        let to = CString::new(to).map_err(|_| PlanError::Nul("a link"))?;
        setup.push(SetupOp::Link { path: BoxPath::new(Path::new(path))?, to, replace });
    }
    Ok(())
}

fn node(path: &Path, kind: NodeKind, number: (u32, u32), facts: &Facts<'_>) -> Result<Node, PlanError> {
    Ok(Node {
        path: BoxPath::new(path)?,
        kind,
        major: number.0,
        minor: number.1,
        mode: 0o666,
        uid: 0,
        gid: 0,
        host: HostPath::new(path)?,
        // A pipe is no device: anybody can make one.
        bind: (facts.own_user_namespace || facts.rootless) && kind != NodeKind::Pipe,
    })
}

/// Whether /dev is the container's own: not if a part of the host is mounted there.
pub(super) fn has_own_dev(oci: &oci::Spec) -> Result<bool, PlanError> {
    for mount in oci.mounts().iter().flatten() {
        if inside(mount.destination())?.0 == Path::new("/dev") && super::mounts::is_bind(mount) {
            return Ok(false);
        }
    }
    Ok(true)
}
