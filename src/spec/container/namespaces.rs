//! `linux.namespaces`, and what can only be said of one that is there: names, maps, time, sysctl.

use std::{collections::HashMap, os::unix::fs::MetadataExt, path::Path};

use oci_spec::runtime as oci;
use oci_spec::runtime::LinuxNamespaceType as Type;

use super::{Check, ContainerSpecError, absolute, bad, no_nul};

/// The kernel takes no more lines in a map (user_namespaces(7)), and no more than this fits a length of 16 bits.
const MOST_MAPPINGS: usize = 340;
/// HOST_NAME_MAX.
const LONGEST_NAME: usize = 64;

/// Which the container has, each with the path of one that is joined.
#[derive(Debug, Default)]
pub(super) struct Namespaces<'a> {
    kinds: Vec<(Type, Option<&'a Path>)>,
}

impl<'a> Namespaces<'a> {
    pub(super) fn of(spec: &'a oci::Spec) -> Result<Self, ContainerSpecError> {
        let mut kinds: Vec<(Type, Option<&Path>)> = Vec::new();
        let list = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        for (index, namespace) in list.iter().enumerate() {
            let kind = namespace.typ();
            if kinds.iter().any(|(known, _)| *known == kind) {
                return Err(bad(format_args!("linux.namespaces[{index}].type"), "duplicated: it is there twice"));
            }
            let path = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty());
            if let Some(path) = path {
                absolute(format_args!("linux.namespaces[{index}].path"), path)?;
            }
            kinds.push((kind, path));
        }
        Ok(Self { kinds })
    }

    pub(super) fn has(&self, kind: Type) -> bool {
        self.kinds.iter().any(|(known, _)| *known == kind)
    }

    fn joined(&self, kind: Type) -> Option<&'a Path> {
        self.kinds.iter().find(|(known, _)| *known == kind)?.1
    }

    pub(super) fn names(&self, spec: &oci::Spec) -> Check {
        for (at, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
            let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
            no_nul(at, name)?;
            if name.len() > LONGEST_NAME {
                return Err(bad(at, format_args!("it is longer than {LONGEST_NAME} bytes")));
            }
            if !self.has(Type::Uts) {
                return Err(bad(at, format_args!("unable to set {at} without a private UTS namespace")));
            }
        }
        Ok(())
    }

    pub(super) fn maps(&self, linux: &oci::Linux) -> Check {
        let uids = linux.uid_mappings().as_deref().unwrap_or_default();
        let gids = linux.gid_mappings().as_deref().unwrap_or_default();
        mappings("linux.uidMappings", uids)?;
        mappings("linux.gidMappings", gids)?;
        for (at, list) in [("linux.uidMappings", uids), ("linux.gidMappings", gids)] {
            match (self.has(Type::User), list.is_empty()) {
                (false, false) => return Err(bad(at, "there is no user namespace in linux.namespaces")),
                (true, true) if self.joined(Type::User).is_none() => {
                    return Err(bad(at, "a new user namespace needs mappings, and there are none"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Time offsets, sysctls, network devices.
    pub(super) fn settings(&self, linux: &oci::Linux) -> Check {
        if let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) {
            if !self.has(Type::Time) {
                return Err(bad("linux.timeOffsets", "there is no time namespace in linux.namespaces"));
            }
            if self.joined(Type::Time).is_some() {
                return Err(bad("linux.timeOffsets", "a time namespace that is joined has offsets of its own"));
            }
            for (clock, offset) in offsets {
                let at = format!("linux.timeOffsets.{}", clock.escape_debug());
                if !["boottime", "monotonic"].contains(&clock.as_str()) {
                    return Err(bad(at, "it is no clock of a time namespace: there are boottime and monotonic"));
                }
                if offset.nanosecs().is_some_and(|nanos| nanos >= 1_000_000_000) {
                    return Err(bad(format_args!("{at}.nanosecs"), "it is a second or more"));
                }
            }
        }
        if let Some(sysctl) = linux.sysctl() {
            self.sysctls(sysctl)?;
        }
        if let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) {
            if !self.has(Type::Network) {
                return Err(bad("linux.netDevices", "unable to move network devices without a NET namespace"));
            }
            let mut inside: Vec<&str> = Vec::with_capacity(devices.len());
            for (name, device) in devices {
                let at = format!("linux.netDevices.{}", name.escape_debug());
                device_name(&at, name)?;
                let renamed = device.name().as_deref().filter(|name| !name.is_empty());
                if let Some(renamed) = renamed {
                    let at = format!("{at}.name");
                    device_name(&at, renamed)?;
                    if renamed.replacen("%d", "", 1).contains('%') {
                        let why = format_args!("`{renamed}`: a template has one `%d`, and no other `%`");
                        return Err(bad(at, why));
                    }
                }
                let name = renamed.unwrap_or(name);
                // Of a template the kernel makes names that are not there.
                if inside.contains(&name) && !name.contains('%') {
                    return Err(bad(at, format_args!("another device is called `{name}` inside, too")));
                }
                inside.push(name);
            }
        }
        Ok(())
    }

    /// Only what a namespace keeps apart from the host's: the rest of /proc/sys is the host's own.
    fn sysctls(&self, sysctls: &HashMap<String, String>) -> Check {
        for (key, value) in sysctls {
            let at = format!("linux.sysctl.{}", key.escape_debug());
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@+*".contains(&byte);
            if key.is_empty() || !key.bytes().all(allowed) || key.contains("..") || key.contains("//") {
                return Err(bad(at, "it is no name of a sysctl"));
            }
            if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
                return Err(bad(at, "its value contains a control character"));
            }
            let why = match dotted(key).as_str() {
                name if is_ipc(name) && !self.has(Type::Ipc) => "is not allowed in the hosts ipc namespace",
                name if is_ipc(name) => continue,
                name if name.starts_with("net.") && !self.has(Type::Network) => "not allowed in host network namespace",
                name if name.starts_with("net.") => continue,
                "kernel.hostname" if self.has(Type::Uts) => {
                    "is not allowed as it conflicts with the OCI hostname field"
                }
                "kernel.domainname" if self.has(Type::Uts) => continue,
                name if name.starts_with("user.") && self.has(Type::User) => continue,
                _ => "is not in a separate kernel namespace",
            };
            return Err(bad(at, format_args!("sysctl {key:?} {why}")));
        }
        Ok(())
    }
}

fn is_ipc(name: &str) -> bool {
    const KERNEL: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    name.starts_with("fs.mqueue.") || name.strip_prefix("kernel.").is_some_and(|name| KERNEL.contains(&name))
}

/// sysctl(8): where the first separator is a slash, slashes separate and dots belong to names.
fn dotted(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(first) if key.as_bytes()[first] == b'/' => key
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

/// dev_valid_name() of the kernel.
fn device_name(at: &str, name: &str) -> Check {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && !"/:".contains(c);
    match name {
        "." | ".." => {}
        _ if name.is_empty() || name.len() >= libc::IFNAMSIZ || !name.chars().all(allowed) => {}
        _ => return Ok(()),
    }
    Err(bad(at, format_args!("`{}` is no name of a network device", name.escape_debug())))
}

/// What the kernel would refuse with EINVAL: maps that are too long, empty, past the last id, or over one another.
pub(super) fn mappings(at: &str, mappings: &[oci::LinuxIdMapping]) -> Check {
    if mappings.len() > MOST_MAPPINGS {
        return Err(bad(at, format_args!("there are {}, and the kernel takes {MOST_MAPPINGS}", mappings.len())));
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let at = |field: &str| format!("{at}[{index}].{field}");
        if mapping.size() == 0 {
            return Err(bad(at("size"), "it is 0"));
        }
        for (field, first) in [("containerID", mapping.container_id()), ("hostID", mapping.host_id())] {
            if first.checked_add(mapping.size()).is_none() {
                return Err(bad(
                    at(field),
                    format_args!("{first} and the {} ids from it on go past the last", mapping.size()),
                ));
            }
            let of = |other: &oci::LinuxIdMapping| match field {
                "hostID" => other.host_id(),
                _ => other.container_id(),
            };
            let overlaps = |other: &oci::LinuxIdMapping| {
                let (a, b) = (u64::from(first), u64::from(of(other)));
                a < b + u64::from(other.size()) && b < a + u64::from(mapping.size())
            };
            if mappings[..index].iter().any(overlaps) {
                return Err(bad(at(field), "it lies over another mapping"));
            }
        }
    }
    Ok(())
}

/// The one rule that needs the host: a network namespace may be given by path and still be the host's, whose
/// sysctls are not a container's to set.
pub(super) fn check_on_host(spec: &oci::Spec) -> Check {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let is_network = |key: &&String| dotted(key).starts_with("net.");
    let Some(key) = linux.sysctl().iter().flatten().map(|(key, _)| key).find(is_network) else { return Ok(()) };
    let Some(path) = Namespaces::of(spec)?.joined(Type::Network) else { return Ok(()) };
    let at = format!("linux.sysctl.{}", key.escape_debug());
    let identity = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let joined =
        identity(path).map_err(|error| bad(&at, format_args!("invalid netns path `{}`: {error}", path.display())))?;
    let own = identity(Path::new("/proc/self/ns/net")).map_err(|error| bad(&at, error))?;
    match joined == own {
        true => Err(bad(at, format_args!("sysctl {key:?} not allowed in host network namespace"))),
        false => Ok(()),
    }
}
