//! A container on gVisor's kernel: what of its specification is this kernel's to make, what gVisor's, and what is
//! refused.
//!
//! Namespaces, groups and the tree are made here, as for any container; /proc, /sys and /dev are gVisor's, and so is
//! all that is said of the program. What neither can hold is refused by its name: nothing that was asked for is missing
//! in silence. runsc is handed a document of our making: no annotation of an image's reaches it.

use std::{ffi::CString, path::Path};

use oci_spec::runtime as oci;
use serde_json::{Value, json};

use super::{ContainerError, Facts, IdMaps, NEW_TIME, Namespaces, inside, mounts, process::Process, tree};
use crate::{
    plan::{
        Filter, PlanError,
        gvisor::{Enclosure, Inner},
        path::{BoxPath, HostPath},
        setup::{Content, SetupOp},
    },
    request::gvisor::{Gvisor, Platform},
    spec::container::Controls,
};

/// That a container is to be on gVisor's kernel.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub gvisor: &'a Gvisor,
    pub id: &'a str,
}

/// How runsc is called in the container's enclosure.
#[derive(Debug)]
pub struct Guest {
    /// Its options, before the verb.
    pub options: Vec<String>,
    /// What it knows the container by.
    pub name: String,
    /// As that of a sandbox's runsc.
    pub no_registration: Option<Filter>,
}

/// Whom gVisor's kernel becomes.
const NOBODY: u32 = 65534;
/// What runsc takes for a name, and what an abstract socket's may be long.
const LONGEST_NAME: usize = 64;
/// gVisor has these itself, or knows how to do without.
const DEVICES: [&str; 10] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/tty",
    "/dev/random",
    "/dev/urandom",
    "/dev/console",
    "/dev/ptmx",
    "/dev/net/tun",
    "/dev/fuse",
];
/// Engines send these unasked; in gVisor's own network stack neither needs a setting, or has one.
const SETTINGS: [&str; 2] = ["net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"];
/// Unknown to gVisor, where nothing asks for them.
const CAPABILITIES: [&str; 3] = ["CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"];

/// The options of every call. All releases since 2022 know them.
#[must_use]
pub fn options(platform: Platform) -> Vec<String> {
    let mut words = vec![
        "--root=/run".to_owned(),
        // The groups are ours, and all of runsc is in them.
        "--ignore-cgroups".to_owned(),
        "--network=sandbox".to_owned(),
        // What is written goes to the container's layers and volumes, at once: others look there.
        "--overlay2=none".to_owned(),
        "--file-access=shared".to_owned(),
        "--oci-seccomp".to_owned(),
        "--log-format=json".to_owned(),
    ];
    if platform != Platform::Auto {
        words.push(format!("--platform={}", platform.name()));
    }
    words
}

/// What runsc knows a container by: no longer than the name of its socket may be.
#[must_use]
pub fn name(id: &str) -> String {
    id.trim_start_matches(['.', '-', '+']).chars().take(LONGEST_NAME).collect()
}

/// Refuses what does not hold there.
pub(super) fn check(
    spec: &oci::Spec,
    controls: &Controls,
    namespaces: &Namespaces,
    ids: Option<&IdMaps>,
) -> Result<(), ContainerError> {
    check_namespaces(namespaces, ids)?;
    check_controls(controls)?;
    check_process(spec)?;
    check_linux(spec)
}

fn refuse(field: impl Into<String>, why: &str) -> ContainerError {
    ContainerError::spec(field, format!("it does not hold on gVisor's kernel: {why}"))
}

fn check_namespaces(namespaces: &Namespaces, ids: Option<&IdMaps>) -> Result<(), ContainerError> {
    for (flag, name) in [
        (libc::CLONE_NEWPID, "pid"),
        (libc::CLONE_NEWIPC, "ipc"),
        (libc::CLONE_NEWUTS, "uts"),
        (libc::CLONE_NEWNS, "mount"),
    ] {
        if namespaces.new & flag == 0 {
            let why = format!("its {name} namespace is that kernel's own, and neither the host's nor another's");
            return Err(refuse("linux.namespaces", &why));
        }
    }
    if !namespaces.has(libc::CLONE_NEWNET) {
        return Err(refuse("linux.namespaces", "its network stack cannot share this host's addresses"));
    }
    if namespaces.has(NEW_TIME) {
        return Err(refuse("linux.namespaces", "it has clocks of its own"));
    }
    let has = |maps: &[crate::plan::ids::Map]| {
        maps.iter().any(|map| NOBODY.checked_sub(map.inside).is_some_and(|offset| offset < map.count))
    };
    for (field, maps) in
        [("linux.uidMappings", ids.map(|ids| has(&ids.users))), ("linux.gidMappings", ids.map(|ids| has(&ids.groups)))]
    {
        if maps == Some(false) {
            return Err(ContainerError::spec(field, format!("gVisor's kernel becomes {NOBODY}, which is not mapped")));
        }
    }
    Ok(())
}

fn check_controls(controls: &Controls) -> Result<(), ContainerError> {
    let no_filter = "the program's system calls reach no filter of this kernel's";
    for (name, asked, why) in [
        ("profile", controls.profile.is_some(), no_filter),
        ("seccomp", controls.seccomp.is_some(), no_filter),
        (
            "landlock",
            controls.landlock.is_some(),
            "gVisor opens the program's files, and mounts, which Landlock forbids",
        ),
        ("egress", controls.egress.is_some(), "its packets are gVisor's own"),
    ] {
        if asked {
            return Err(refuse(format!("annotations.io.fumehood.{name}"), why));
        }
    }
    Ok(())
}

fn check_process(spec: &oci::Spec) -> Result<(), ContainerError> {
    let Some(process) = spec.process() else { return Ok(()) };
    let hooks = spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_ref());
    for (field, asked, why) in [
        ("process.scheduler", process.scheduler().is_some(), "its threads are scheduled by that kernel"),
        ("process.ioPriority", process.io_priority().is_some(), "its files are read by gVisor"),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some(), "its threads are scheduled by that kernel"),
        ("hooks.startContainer", hooks.is_some_and(|hooks| !hooks.is_empty()), "no program of the engine's runs there"),
    ] {
        if asked {
            return Err(refuse(field, why));
        }
    }
    Ok(())
}

fn check_linux(spec: &oci::Spec) -> Result<(), ContainerError> {
    let linux = super::linux(spec)?;
    let shared = linux.rootfs_propagation().as_deref().is_some_and(|text| text.ends_with("shared"));
    let listens = linux.seccomp().as_ref().is_some_and(|seccomp| seccomp.listener_path().is_some());
    for (field, asked, why) in [
        ("linux.rootfsPropagation", shared, "what is mounted there is not mounted here"),
        ("linux.seccomp.listenerPath", listens, "that kernel's filters ask nobody"),
        ("linux.memoryPolicy", linux.memory_policy().is_some(), "its memory is gVisor's"),
        ("linux.personality", linux.personality().is_some(), "it knows one only"),
    ] {
        if asked {
            return Err(refuse(field, why));
        }
    }
    for (number, device) in linux.devices().iter().flatten().enumerate() {
        if !DEVICES.iter().any(|known| device.path() == Path::new(known)) {
            let why = format!("it has devices of its own, and no {}", device.path().display());
            return Err(refuse(format!("linux.devices[{number}]"), &why));
        }
    }
    if let Some(key) = linux.sysctl().iter().flatten().map(|(key, _)| key).find(|key| !SETTINGS.contains(&key.as_str()))
    {
        return Err(refuse(format!("linux.sysctl.{key}"), "it would be set on this kernel"));
    }
    Ok(())
}

/// The tree up to where hooks run, and what runsc is told of it.
pub(super) fn build(
    spec: &oci::Spec,
    facts: &Facts<'_>,
    setup: &mut Vec<SetupOp>,
) -> Result<(oci::Spec, Vec<Inner>), ContainerError> {
    let mut outer = spec.clone();
    let mut inner = Vec::new();
    let mut kept = Vec::new();
    for (number, mount) in spec.mounts().iter().flatten().enumerate() {
        let target = inside(mount.destination())?.0;
        let field = || format!("mounts[{number}]");
        let bind = mounts::is_bind(mount);
        if bind && ["/dev", "/proc", "/sys"].iter().any(|own| target == Path::new(own)) {
            return Err(refuse(field(), &format!("its {} is that kernel's own", target.display())));
        }
        if target.starts_with("/proc") || target.starts_with("/sys") {
            let own = ["proc", "sysfs", "cgroup", "cgroup2"].iter().any(|kind| mount.typ().as_deref() == Some(kind));
            if own && !bind {
                continue;
            }
            return Err(refuse(field(), &format!("{} is below what is that kernel's own", target.display())));
        }
        if !bind
            && matches!(mount.typ().as_deref(), Some("devpts" | "mqueue" | "proc" | "sysfs" | "cgroup" | "cgroup2"))
        {
            continue;
        }
        kept.push(mount.clone());
        // Only that what is mounted below it has a place: gVisor's covers it.
        if target != Path::new("/dev") && !has(mount, "remount") {
            inner.push(told(mount, &target, inner.len())?);
        }
    }
    outer.set_mounts(Some(kept));
    if let Some(linux) = outer.linux_mut() {
        let others = |paths: &Option<Vec<String>>| {
            let other = |path: &&String| !["/proc", "/sys", "/dev"].iter().any(|own| Path::new(path).starts_with(own));
            paths.as_ref().map(|paths| paths.iter().filter(other).cloned().collect::<Vec<_>>())
        };
        let (masked, read_only) = (others(linux.masked_paths()), others(linux.readonly_paths()));
        linux.set_masked_paths(masked).set_readonly_paths(read_only).set_rootfs_propagation(None);
    }
    setup.push(tree::root(&outer, facts)?);
    mounts::plan(&outer, facts, setup)?;
    Ok((outer, inner))
}

fn words(mount: &oci::Mount) -> impl DoubleEndedIterator<Item = &str> {
    mount.options().iter().flatten().map(String::as_str)
}

fn has(mount: &oci::Mount, wanted: &str) -> bool {
    words(mount).any(|word| word == wanted)
}

/// Of two options that undo each other, the last counts.
fn is_on(mount: &oci::Mount, on: &[&str], off: &[&str]) -> bool {
    words(mount).rev().find(|word| on.contains(word) || off.contains(word)).is_some_and(|word| on.contains(&word))
}

fn told(mount: &oci::Mount, target: &Path, number: usize) -> Result<Inner, PlanError> {
    Ok(Inner {
        path: BoxPath::new(target)?,
        kind: None,
        writable: !is_on(mount, &["ro", "rro"], &["rw", "rrw"]),
        executable: !is_on(mount, &["noexec", "rnoexec"], &["exec", "rexec"]),
        name: CString::new(number.to_string()).map_err(|_| PlanError::Nul("a number"))?,
    })
}

/// After hooks and console: the enclosure, and into it.
pub(super) fn finish(
    spec: &oci::Spec,
    outer: &oci::Spec,
    inner: Vec<Inner>,
    facts: &Facts<'_>,
    pivot: bool,
    wanted: Wanted<'_>,
    entry: &mut Vec<SetupOp>,
) -> Result<Guest, ContainerError> {
    let gvisor = wanted.gvisor;
    tree::finish(outer, facts, pivot, entry)?;
    let enter = entry.iter().position(|op| matches!(op, SetupOp::EnterContainer { .. })).unwrap_or(entry.len());
    let config = config(spec, &inner)?.to_string();
    let enclosure = Enclosure {
        runsc: HostPath::new(gvisor.runsc()).map_err(PlanError::from)?,
        bundles: vec![Content(config.into_bytes().into())],
        shape: String::new(),
        inner,
        hides_network_settings: true,
        device: match gvisor.platform() {
            Platform::Kvm => Some(HostPath::new(Path::new("/dev/kvm")).map_err(PlanError::from)?),
            Platform::Auto | Platform::Systrap | Platform::Ptrace => None,
        },
        terminals: true,
    };
    entry.insert(enter, SetupOp::Enclose(Box::new(enclosure)));
    let no_registration = (gvisor.platform() != Platform::Kvm).then(Filter::no_registration);
    Ok(Guest { options: options(gvisor.platform()), name: name(wanted.id), no_registration })
}

/// What is for the program, and not for runsc in whose process it would be.
pub fn strip(process: &mut Process) {
    process.apparmor = None;
    process.selinux = None;
    process.seccomp = None;
}

fn config(spec: &oci::Spec, inner: &[Inner]) -> Result<Value, ContainerError> {
    let linux = super::linux(spec)?;
    let process = spec.process().as_ref().ok_or_else(|| ContainerError::spec("process", "it is missing"))?;
    let mut all = vec![json!({ "destination": "/proc", "type": "proc", "source": "proc" })];
    let at_sys = |mount: &&oci::Mount| mount.typ().as_deref() == Some("sysfs");
    if let Some(mount) = spec.mounts().iter().flatten().find(at_sys) {
        let access = if is_on(mount, &["ro"], &["rw"]) { "ro" } else { "rw" };
        all.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [access] }));
    }
    all.extend(inner.iter().map(Inner::mount));
    let mut namespaces: Vec<_> = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind })).into();
    namespaces.push(json!({ "type": "network", "path": "/proc/self/ns/net" }));
    let mut of_linux = json!({ "namespaces": namespaces });
    if let Some(seccomp) = linux.seccomp() {
        of_linux["seccomp"] =
            serde_json::to_value(seccomp).map_err(|error| ContainerError::spec("linux.seccomp", error.to_string()))?;
    }
    let read_only = spec.root().as_ref().and_then(oci::Root::readonly).unwrap_or(false);
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": document(process)?,
        "root": { "path": "/rootfs", "readonly": read_only },
        "hostname": spec.hostname().as_deref().unwrap_or_default(),
        "mounts": all,
        "linux": of_linux,
    }))
}

/// A process as runsc reads it.
pub fn document(process: &oci::Process) -> Result<Value, ContainerError> {
    let value = |what: &str, given: serde_json::Result<Value>| {
        given.map_err(|error| ContainerError::spec(format!("process.{what}"), error.to_string()))
    };
    let mut capabilities = value("capabilities", serde_json::to_value(process.capabilities()))?;
    for set in capabilities.as_object_mut().into_iter().flat_map(|sets| sets.values_mut()) {
        if let Some(names) = set.as_array_mut() {
            names.retain(|name| !CAPABILITIES.iter().any(|unknown| name == unknown));
        }
    }
    let rlimits = value("rlimits", serde_json::to_value(process.rlimits().as_deref().unwrap_or_default()))?;
    let user = process.user();
    let mut of_user = json!({
        "uid": user.uid(), "gid": user.gid(), "additionalGids": user.additional_gids().as_deref().unwrap_or_default(),
    });
    if let Some(umask) = user.umask() {
        of_user["umask"] = umask.into();
    }
    Ok(json!({
        "terminal": process.terminal().unwrap_or(false),
        "args": process.args(),
        "env": process.env(),
        "cwd": process.cwd(),
        "user": of_user,
        "capabilities": capabilities,
        "rlimits": rlimits,
        "noNewPrivileges": process.no_new_privileges().unwrap_or(false),
    }))
}
