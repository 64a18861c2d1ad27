//! The rest of `linux`: devices, paths, propagation, personality, memory policy, Intel RDT.

use std::path::Path;

use oci_spec::runtime as oci;
use oci_spec::runtime::LinuxNamespaceType as Namespace;

use super::{Check, absolute, bad, lists::number_list, namespaces::Namespaces, no_nul, resources, seccomp};

const PROPAGATIONS: [&str; 8] =
    ["shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"];

pub(super) fn check(linux: &oci::Linux, namespaces: &Namespaces<'_>, warnings: &mut Vec<String>) -> Check {
    if let Some(resources) = linux.resources() {
        resources::check(resources, "linux.resources")?;
    }
    if let Some(path) = linux.cgroups_path() {
        no_nul("linux.cgroupsPath", path.as_os_str().as_encoded_bytes())?;
    }
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        self::device(index, device)?;
    }
    if let Some(seccomp) = linux.seccomp() {
        seccomp::check(seccomp)?;
    }
    if let Some(propagation) = linux.rootfs_propagation().as_deref().filter(|text| !text.is_empty())
        && !PROPAGATIONS.contains(&propagation)
    {
        return Err(bad("linux.rootfsPropagation", format_args!("`{}` is not known", propagation.escape_debug())));
    }
    for (name, paths) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
        let paths = paths.as_deref().unwrap_or_default();
        for (index, path) in paths.iter().enumerate() {
            absolute(format_args!("linux.{name}[{index}]"), Path::new(path))?;
        }
        if !paths.is_empty() && !namespaces.has(Namespace::Mount) {
            let why = "unable to restrict sys entries without a private MNT namespace";
            return Err(bad(format_args!("linux.{name}"), why));
        }
    }
    if let Some(label) = linux.mount_label() {
        no_nul("linux.mountLabel", label)?;
    }
    if let Some(rdt) = linux.intel_rdt() {
        intel_rdt(rdt)?;
    }
    if let Some(policy) = linux.memory_policy() {
        memory_policy(policy)?;
    }
    let flags = linux.personality().as_ref().and_then(|personality| personality.flags().as_deref()).unwrap_or_default();
    if !flags.is_empty() {
        warnings.push(format!("linux.personality.flags: none are known, and {} are left out", flags.len()));
    }
    Ok(())
}

fn device(index: usize, device: &oci::LinuxDevice) -> Check {
    let at = |field: &str| format!("linux.devices[{index}].{field}");
    absolute(at("path"), device.path())?;
    if device.typ() == oci::LinuxDeviceType::A {
        return Err(bad(at("type"), "`a` is no type of a device that can be made"));
    }
    // mknod(2): 12 and 20 bits.
    if !(0..1 << 12).contains(&device.major()) {
        return Err(bad(at("major"), format_args!("{} is no major number", device.major())));
    }
    if !(0..1 << 20).contains(&device.minor()) {
        return Err(bad(at("minor"), format_args!("{} is no minor number", device.minor())));
    }
    // Engines leave the bits of the type in.
    if let Some(mode) = device.file_mode()
        && mode & !(libc::S_IFMT | 0o7777) != 0
    {
        return Err(bad(at("fileMode"), format_args!("{mode:#o} is no mode of a file")));
    }
    for (field, id) in [("uid", device.uid()), ("gid", device.gid())] {
        if id == Some(u32::MAX) {
            return Err(bad(at(field), format_args!("{} is nobody's id", u32::MAX)));
        }
    }
    Ok(())
}

fn intel_rdt(rdt: &oci::LinuxIntelRdt) -> Check {
    if let Some(class) = rdt.clos_id() {
        // `/` alone is the default group.
        let slash = class.len() > 1 && class.contains('/');
        if class.is_empty() || class == "." || class == ".." || slash || class.contains(['\n', '\0']) {
            return Err(bad("linux.intelRdt.closID", format_args!("`{}` is no name of a group", class.escape_debug())));
        }
    }
    if let Some(schema) = rdt.mem_bw_schema().as_deref().filter(|schema| !schema.is_empty())
        && (!schema.starts_with("MB:") || schema.contains(['\n', '\0']))
    {
        return Err(bad("linux.intelRdt.memBwSchema", "it is to be one line that begins with `MB:`"));
    }
    for (index, line) in rdt.schemata().iter().flatten().enumerate() {
        if line.contains(['\n', '\0']) {
            return Err(bad(format_args!("linux.intelRdt.schemata[{index}]"), "it is more than one line"));
        }
    }
    Ok(())
}

/// set_mempolicy(2).
fn memory_policy(policy: &oci::LinuxMemoryPolicy) -> Check {
    use oci::{MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};
    let nodes = policy.nodes().as_deref().unwrap_or_default();
    if !nodes.is_empty() && number_list(nodes).is_none() {
        return Err(bad("linux.memoryPolicy.nodes", format_args!("`{}` is no list of nodes", nodes.escape_debug())));
    }
    match policy.mode() {
        Mode::MpolDefault | Mode::MpolLocal if !nodes.is_empty() => {
            return Err(bad("linux.memoryPolicy.nodes", "this mode takes no nodes"));
        }
        Mode::MpolBind | Mode::MpolInterleave | Mode::MpolWeightedInterleave | Mode::MpolPreferredMany
            if nodes.is_empty() =>
        {
            return Err(bad("linux.memoryPolicy.nodes", "this mode needs at least one node"));
        }
        _ => {}
    }
    let flags = policy.flags().as_deref().unwrap_or_default();
    if flags.contains(&Flag::MpolFStaticNodes) && flags.contains(&Flag::MpolFRelativeNodes) {
        return Err(bad("linux.memoryPolicy.flags", "nodes are static or relative, not both"));
    }
    if flags.contains(&Flag::MpolFNumaBalancing) && !matches!(policy.mode(), Mode::MpolBind | Mode::MpolPreferredMany) {
        return Err(bad(
            "linux.memoryPolicy.flags",
            "MPOL_F_NUMA_BALANCING is for MPOL_BIND and MPOL_PREFERRED_MANY alone",
        ));
    }
    Ok(())
}
