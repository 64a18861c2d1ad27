//! A container's mounts, each as one operation.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
};

use oci_spec::runtime as oci;

use super::{
    CgroupTree, Facts, inside,
    operations::{Attributes, FileSystem, From, IdMapping, Instead, Mount, Parameter},
    options::{Options, parameter},
    refused,
};
use crate::plan::{PlanError, ids::Map, path::HostPath, setup::SetupOp};

/// What below /proc may be covered: files that are emulated for containers (lxcfs).
pub const EMULATED: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];
/// File systems of which the kernel has one for everybody who may see it: read-only is the mount, not the system.
const SHARED: [&str; 8] = ["cgroup", "cgroup2", "devpts", "mqueue", "overlay", "proc", "sysfs", "tmpfs"];

pub(super) fn plan(oci: &oci::Spec, facts: &Facts<'_>, setup: &mut Vec<SetupOp>) -> Result<(), PlanError> {
    let label = oci.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    let label = label.filter(|label| facts.selinux && !label.is_empty());
    for mount in oci.mounts().iter().flatten() {
        setup.push(SetupOp::Mount(Box::new(one(mount, label, facts)?)));
    }
    Ok(())
}

fn words(mount: &oci::Mount) -> impl Iterator<Item = &str> {
    mount.options().iter().flatten().map(String::as_str)
}

/// A part of the host's tree, by its type or its options.
pub(super) fn is_bind(mount: &oci::Mount) -> bool {
    mount.typ().as_deref() == Some("bind") || words(mount).any(|word| word == "bind" || word == "rbind")
}

/// In a tmpfs and in /dev something may yet have to be made: they become read-only at the end.
pub(super) fn is_sealed_late(target: &Path, mount: &oci::Mount) -> bool {
    let remount = words(mount).any(|word| word == "remount");
    !remount && !is_bind(mount) && (target == Path::new("/dev") || mount.typ().as_deref() == Some("tmpfs"))
}

fn one(mount: &oci::Mount, label: Option<&str>, facts: &Facts<'_>) -> Result<Mount, PlanError> {
    let (target, path) = inside(mount.destination())?;
    let shown = target.display().to_string();
    let refuse = |why: &'static str| refused(&shown, why);
    let options =
        Options::parse(words(mount)).map_err(|option| refused(&shown, format!("option `{option}` has a NUL byte")))?;
    let name = mount.typ().as_deref().unwrap_or("");
    let bind = is_bind(mount) && !options.remount();
    if target == Path::new("/") {
        return Err(refuse("the root itself is given by `root`"));
    }
    let fresh_proc = name == "proc" && !bind && !options.remount();
    if target == Path::new("/proc") && !fresh_proc && !bind && !options.remount() {
        return Err(refuse("it cannot be mounted because it is not of type proc"));
    }
    if target.starts_with("/proc")
        && target != Path::new("/proc")
        && !EMULATED.iter().any(|known| target == Path::new(known))
    {
        return Err(refuse("it cannot be mounted because it is inside /proc"));
    }
    let mapped = mapping(mount, &options, bind, facts, &refuse)?;
    if options.copy_up && name != "tmpfs" {
        return Err(refuse("`tmpcopyup` is for a tmpfs"));
    }
    let mut attributes = if bind || options.remount() { options.changed() } else { options.fresh() };
    if is_sealed_late(&target, mount) {
        attributes = attributes.writable();
    }
    let from = if options.remount() {
        From::Remount { bind: is_bind(mount), parameters: parameters(&options, name, &refuse)? }
    } else if bind {
        let source = mount.source().as_deref().filter(|source| !source.as_os_str().is_empty());
        let source = facts.bundle.join(source.ok_or_else(|| refuse("a bind mount needs a source"))?);
        From::Bind {
            source: HostPath::new(&source)?,
            recursive: options.bind == Some(true),
            // Without privilege nothing is gained: who builds has the same rights as who starts.
            handed: mapped.is_some() || (facts.own_user_namespace && !facts.rootless),
            mapped,
        }
    } else if name == "cgroup" && facts.cgroup == CgroupTree::V1 {
        From::CgroupsV1 { own_namespace: facts.cgroup_namespace }
    } else if name.is_empty() {
        return Err(refuse("it has no type"));
    } else {
        From::New(file_system(name, mount, &options, label, facts, &refuse)?)
    };
    let system = matches!(name, "proc" | "sysfs") && !bind;
    let exact = system || ["/dev", "/proc", "/sys"].iter().any(|known| target == Path::new(known));
    let recursive = options.recursive();
    Ok(Mount { path, exact, from, attributes, recursive, propagation: options.propagation })
}

fn file_system(
    name: &str,
    mount: &oci::Mount,
    options: &Options,
    label: Option<&str>,
    facts: &Facts<'_>,
    refuse: &impl Fn(&'static str) -> PlanError,
) -> Result<FileSystem, PlanError> {
    let text = |text: &str| CString::new(text).map_err(|_| refuse("a name has a NUL byte"));
    let name = match (name, facts.cgroup) {
        ("cgroup" | "cgroup2", CgroupTree::None) => return Err(refuse("this host has no cgroups mounted")),
        ("cgroup", _) => "cgroup2",
        (other, _) => other,
    };
    let given = mount.source().as_ref().map(|source| source.to_string_lossy().into_owned());
    let mut parameters = parameters(options, name, refuse)?;
    if let Some(label) = label.filter(|_| !matches!(name, "proc" | "sysfs" | "mqueue" | "cgroup2")) {
        parameters.push(Parameter { key: c"context".to_owned(), value: Some(text(label)?) });
    }
    Ok(FileSystem {
        name: text(name)?,
        source: text(given.as_deref().filter(|source| !source.is_empty()).unwrap_or(name))?,
        parameters,
        instead: instead(name, facts)?,
        copy_up: options.copy_up,
    })
}

/// The kernel gives a new one of these only to who owns the namespace that it shows. Elsewhere what the host has is
/// shown, which is the same thing.
fn instead(name: &str, facts: &Facts<'_>) -> Result<Option<Instead>, PlanError> {
    if !facts.own_user_namespace && !facts.rootless {
        return Ok(None);
    }
    let (path, own) = match name {
        "proc" => ("/proc", facts.own_pid_namespace),
        "sysfs" => ("/sys", facts.own_network_namespace),
        "mqueue" => ("/dev/mqueue", facts.own_ipc_namespace),
        // Not ours to write to (CVE-2023-25809).
        "cgroup2" => ("/sys/fs/cgroup", facts.cgroup_namespace),
        _ => return Ok(None),
    };
    if own {
        return Ok(None);
    }
    Ok(Some(Instead { source: HostPath::new(&PathBuf::from(path))?, read_only: name == "cgroup2" }))
}

fn parameters(
    options: &Options,
    name: &str,
    refuse: &impl Fn(&'static str) -> PlanError,
) -> Result<Vec<Parameter>, PlanError> {
    let mut all: Vec<Parameter> = options.of_superblock().filter_map(parameter).collect();
    if options.read_only() && !SHARED.contains(&name) {
        all.extend(parameter("ro"));
    }
    if options.counts_changes() {
        all.extend(parameter("iversion"));
    }
    if options.data.iter().any(|data| data.key.is_empty()) {
        return Err(refuse("an option has no name"));
    }
    all.extend(options.data.iter().cloned());
    Ok(all)
}

fn mapping(
    mount: &oci::Mount,
    options: &Options,
    bind: bool,
    facts: &Facts<'_>,
    refuse: &impl Fn(&'static str) -> PlanError,
) -> Result<Option<IdMapping>, PlanError> {
    let users = mount.uid_mappings().as_deref().unwrap_or_default();
    let groups = mount.gid_mappings().as_deref().unwrap_or_default();
    if options.map.is_none() && users.is_empty() && groups.is_empty() {
        return Ok(None);
    }
    if !bind {
        return Err(refuse("only a bind mount can have mapped ids"));
    }
    if users.is_empty() != groups.is_empty() {
        return Err(refuse("uidMappings and gidMappings are given together"));
    }
    let own = if users.is_empty() {
        if !facts.own_user_namespace {
            return Err(refuse("mapped ids need uidMappings and gidMappings, or a user namespace"));
        }
        None
    } else {
        let maps = |all: &[oci::LinuxIdMapping]| -> Vec<Map> {
            all.iter()
                .map(|map| Map { inside: map.container_id(), outside: map.host_id(), count: map.size() })
                .collect()
        };
        Some(Box::new((maps(users), maps(groups))))
    };
    Ok(Some(IdMapping { recursive: options.map == Some(true), own }))
}

/// The attributes of a mount that must be there whatever the options.
#[must_use]
pub const fn read_only() -> Attributes {
    Attributes { set: libc::MOUNT_ATTR_RDONLY, clear: 0, must_clear: 0 }
}
