//! The plan of an OCI container: what an engine's config.json asks for, in the order it will be done.
//!
//! Where a sandbox's plan gives one program the least it needs, this gives exactly what the engine, which is
//! trusted, says. What leads from here to the kernel's state is shared: the same operations, the same builder.

pub mod controls;
pub mod devices;
pub mod egress;
pub mod gvisor;
pub mod masks;
pub mod mounts;
pub mod operations;
pub mod options;
mod owner;
pub mod process;
pub mod shared;
pub mod sysctl;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    ffi::CString,
    path::{Path, PathBuf},
    time::Duration,
};

use oci_spec::runtime as oci;

use super::{
    ids::Map,
    seccomp::{KernelVersion, SeccompError},
    setup::SetupOp,
};
use crate::spec::container::Controls;
pub use owner::cgroup_owner;
use process::Process;
pub use tree::{CgroupTree, Facts, build, finish, plan};
use tree::{inside, refused};

#[derive(Debug)]
pub struct Plan {
    pub namespaces: Namespaces,
    /// Of a new user namespace.
    pub ids: Option<IdMaps>,
    /// Where its network is filtered.
    pub egress: Option<egress::Egress>,
    /// To be moved into the container's network namespace, before its tree is built: sysctls may be about them.
    pub net_devices: Vec<NetDevice>,
    pub hostname: Option<CString>,
    pub domainname: Option<CString>,
    /// Up to where hooks of the runtime's side are due, with the terminal in place.
    pub setup: Vec<SetupOp>,
    /// From there until the new root is entered.
    pub entry: Vec<SetupOp>,
    pub process: Process,
    pub hooks: oci::Hooks,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// Its kernel is gVisor's, and `process` is what runsc is started for.
    pub gvisor: Option<gvisor::Guest>,
}

/// The maps of a user namespace, line by line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    pub users: Vec<Map>,
    pub groups: Vec<Map>,
}

/// A network device of the host that the container gets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetDevice {
    pub name: String,
    /// What it is called inside; with `%d` for a number that the kernel finds.
    pub inside: String,
}

impl NetDevice {
    fn of(linux: &oci::Linux) -> Vec<Self> {
        let device = |(name, device): (&String, &oci::LinuxNetDevice)| {
            let renamed = device.name().as_ref().filter(|renamed| !renamed.is_empty());
            Self { name: name.clone(), inside: renamed.unwrap_or(name).clone() }
        };
        let mut devices: Vec<_> = linux.net_devices().iter().flatten().map(device).collect();
        devices.sort();
        devices
    }
}

#[derive(Debug, Default)]
pub struct Namespaces {
    /// CLONE_NEW* of those to be made.
    pub new: i32,
    /// Those of others, to be entered: CLONE_NEW* and where it is.
    pub joined: Vec<(i32, PathBuf)>,
    /// Of a new time namespace: clock, seconds, nanoseconds.
    pub time_offsets: Vec<(String, i64, u32)>,
}

/// CLONE_NEWTIME, which `libc` has as a 32-bit constant of another meaning in clone(2).
pub const NEW_TIME: i32 = 0x80;

impl Namespaces {
    fn new(linux: &oci::Linux) -> Result<Self, ContainerError> {
        let mut all = Self::default();
        for (number, namespace) in linux.namespaces().iter().flatten().enumerate() {
            use oci::LinuxNamespaceType as Type;
            let flag = match namespace.typ() {
                Type::Mount => libc::CLONE_NEWNS,
                Type::Cgroup => libc::CLONE_NEWCGROUP,
                Type::Uts => libc::CLONE_NEWUTS,
                Type::Ipc => libc::CLONE_NEWIPC,
                Type::User => libc::CLONE_NEWUSER,
                Type::Pid => libc::CLONE_NEWPID,
                Type::Network => libc::CLONE_NEWNET,
                Type::Time => NEW_TIME,
            };
            if all.new & flag != 0 || all.joins(flag) {
                return Err(ContainerError::spec(format!("linux.namespaces[{number}]"), "its type is given twice"));
            }
            match namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty()) {
                Some(path) if !path.is_absolute() => {
                    return Err(ContainerError::spec(format!("linux.namespaces[{number}].path"), "it is not absolute"));
                }
                Some(path) => all.joined.push((flag, path.to_owned())),
                None => all.new |= flag,
            }
        }
        if let Some(offsets) = linux.time_offsets() {
            if all.new & NEW_TIME == 0 && !offsets.is_empty() {
                return Err(ContainerError::spec("linux.timeOffsets", "there is no new time namespace"));
            }
            for (clock, offset) in offsets {
                if !matches!(clock.as_str(), "monotonic" | "boottime") {
                    return Err(ContainerError::spec(format!("linux.timeOffsets.{clock}"), "there is no such clock"));
                }
                all.time_offsets.push((clock.clone(), offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)));
            }
        }
        Ok(all)
    }

    #[must_use]
    pub fn joins(&self, flag: i32) -> bool {
        self.joined.iter().any(|(joined, _)| *joined == flag)
    }

    /// Whether the container has one that is not the runtime's.
    #[must_use]
    pub fn has(&self, flag: i32) -> bool {
        self.new & flag != 0 || self.joins(flag)
    }
}

impl IdMaps {
    fn new(linux: &oci::Linux) -> Result<Self, ContainerError> {
        let maps = |what: &str, list: &Option<Vec<oci::LinuxIdMapping>>| {
            let maps: Vec<_> = list
                .iter()
                .flatten()
                .map(|map| Map { inside: map.container_id(), outside: map.host_id(), count: map.size() })
                .collect();
            if maps.is_empty() {
                return Err(ContainerError::spec(what, "a new user namespace needs a mapping"));
            }
            Ok(maps)
        };
        Ok(Self {
            users: maps("linux.uidMappings", linux.uid_mappings())?,
            groups: maps("linux.gidMappings", linux.gid_mappings())?,
        })
    }

    /// Those of the user namespace that the spec has made; `None` where there is none, or it is another's.
    #[must_use]
    pub fn of(linux: &oci::Linux) -> Option<Self> {
        let namespaces = Namespaces::new(linux).ok()?;
        if namespaces.new & libc::CLONE_NEWUSER == 0 { None } else { Self::new(linux).ok() }
    }
}

/// What the plan must know beside the spec.
#[derive(Debug)]
pub struct Circumstances<'a> {
    pub bundle: &'a Path,
    pub kernel: KernelVersion,
    pub landlock_abi: u32,
    pub rootless: bool,
    /// The runtime is in a user namespace that is not the host's first.
    pub nested_users: bool,
    pub cgroup: CgroupTree,
    pub selinux: bool,
    /// Enter the root by pivot_root(2); else, where the root is a ramdisk, by chroot(2).
    pub pivot: bool,
    pub gvisor: Option<gvisor::Wanted<'a>>,
}

/// What is Linux's in a specification: there, be it empty, in all that [`crate::spec::container::parse`] lets by.
pub fn linux(spec: &oci::Spec) -> Result<&oci::Linux, ContainerError> {
    spec.linux().as_ref().ok_or_else(|| ContainerError::spec("linux", "it is missing"))
}

/// Pure: the same spec and facts give the same plan.
pub fn make(spec: &oci::Spec, controls: &Controls, around: &Circumstances<'_>) -> Result<Plan, ContainerError> {
    let linux = linux(spec)?;
    let mut namespaces = Namespaces::new(linux)?;
    let shared = shared::shares_mounts(linux);
    if shared {
        shared::check(spec, linux, &namespaces, around.rootless)?;
    }
    let ids = if namespaces.new & libc::CLONE_NEWUSER != 0 { Some(IdMaps::new(linux)?) } else { None };
    let net_devices = NetDevice::of(linux);
    let egress = controls.egress.as_ref();
    let filtered = |wanted| egress::Egress::new(wanted, &mut namespaces, !net_devices.is_empty(), around.rootless);
    let egress = egress.map(filtered).transpose()?;
    if !net_devices.is_empty() && around.rootless {
        let why = "network devices are the host's root's to give: not supported for rootless containers";
        return Err(ContainerError::spec("linux.netDevices", why));
    }
    let Some(process) = spec.process() else {
        return Err(ContainerError::spec("process", "it is missing"));
    };
    let name = |what: &'static str, name: &Option<String>| {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { return Ok(None) };
        if !namespaces.has(libc::CLONE_NEWUTS) {
            return Err(ContainerError::spec(what, "there is no uts namespace of its own to set it in"));
        }
        if name.len() > 64 {
            return Err(ContainerError::spec(what, "it is longer than 64 bytes"));
        }
        process::c_string(format_args!("{what}"), name).map(Some)
    };
    let facts = Facts {
        own_mount_namespace: !shared,
        bundle: around.bundle,
        own_user_namespace: namespaces.has(libc::CLONE_NEWUSER),
        own_network_namespace: namespaces.has(libc::CLONE_NEWNET),
        own_ipc_namespace: namespaces.has(libc::CLONE_NEWIPC),
        own_uts_namespace: namespaces.has(libc::CLONE_NEWUTS),
        own_pid_namespace: namespaces.has(libc::CLONE_NEWPID),
        cgroup_namespace: namespaces.has(libc::CLONE_NEWCGROUP),
        rootless: around.rootless,
        cgroup: around.cgroup,
        selinux: around.selinux,
    };
    let (mut setup, mut entry, mut guest) = (Vec::new(), Vec::new(), None);
    match around.gvisor {
        Some(wanted) => {
            gvisor::check(spec, controls, &namespaces, ids.as_ref())?;
            let (outer, inner) = gvisor::build(spec, &facts, &mut setup)?;
            guest = Some(gvisor::finish(spec, &outer, inner, &facts, around.pivot, wanted, &mut entry)?);
        }
        None => {
            build(spec, &facts, &mut setup)?;
            if process.terminal().unwrap_or(false) {
                setup.push(SetupOp::Console);
            }
            finish(spec, &facts, around.pivot, &mut entry)?;
        }
    }
    let mut process = Process::new(process, Some(linux), around.kernel)?;
    if shared {
        shared::check_capabilities(&process.capabilities)?;
    }
    match guest {
        Some(_) => gvisor::strip(&mut process),
        None => controls::tighten(&mut process, controls, around.kernel, around.landlock_abi)?,
    }
    if egress.is_some() {
        egress::check_held(&egress::Held::new(&namespaces, linux, around.nested_users), &process.capabilities)?;
    }
    Ok(Plan {
        egress,
        timeout: controls.timeout,
        hostname: name("hostname", spec.hostname())?,
        domainname: name("domainname", spec.domainname())?,
        ids,
        setup,
        entry,
        process,
        hooks: spec.hooks().clone().unwrap_or_default(),
        namespaces,
        net_devices,
        gvisor: guest,
    })
}

#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error(transparent)]
    Plan(#[from] super::PlanError),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    #[error("{field}: {why}")]
    Spec { field: String, why: String },
}

impl ContainerError {
    pub fn spec(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Spec { field: field.into(), why: why.into() }
    }
}

impl crate::error::Hint for ContainerError {}
