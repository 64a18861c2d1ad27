//! Kernel settings that a container may have of its own: those of its own namespaces, and no others.

use std::ffi::CString;

use oci_spec::runtime as oci;

use super::Facts;
use crate::plan::{PlanError, setup::SetupOp};

const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub(super) fn plan(oci: &oci::Spec, facts: &Facts<'_>, setup: &mut Vec<SetupOp>) -> Result<(), PlanError> {
    let settings = oci.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    let mut settings: Vec<_> = settings.into_iter().flatten().collect();
    settings.sort();
    for (key, value) in settings {
        setup.push(one(key, value, facts).map_err(|why| PlanError::Sysctl { key: key.clone(), why })?);
    }
    Ok(())
}

fn one(key: &str, value: &str, facts: &Facts<'_>) -> Result<SetupOp, &'static str> {
    let dotted = dotted(key);
    let parts: Vec<&str> = dotted.split('.').collect();
    if parts.iter().any(|part| part.is_empty() || *part == "/" || *part == "//") {
        return Err("it is no name of a setting");
    }
    // A line break would be another value to some settings (CVE-2022-0811).
    if key.bytes().any(|byte| byte.is_ascii_control())
        || value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t')
    {
        return Err("it has a control character");
    }
    allowed(&dotted, facts)?;
    // A `.` in the name of a network device is a `/` between dots.
    let path: String = dotted
        .chars()
        .map(|letter| match letter {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    let (Ok(path), Ok(value)) = (CString::new(path), CString::new(value)) else { return Err("it has a NUL byte") };
    Ok(SetupOp::Sysctl { key: path, value })
}

/// Names are written with dots, or with slashes throughout (sysctl(8)).
fn dotted(key: &str) -> String {
    if key.find(['.', '/']).is_some_and(|first| key[first..].starts_with('/')) {
        return key
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect();
    }
    key.to_owned()
}

fn allowed(key: &str, facts: &Facts<'_>) -> Result<(), &'static str> {
    let owned = |own: bool, why| if own { Ok(()) } else { Err(why) };
    if OF_IPC.contains(&key) || key.starts_with("fs.mqueue.") {
        return owned(facts.own_ipc_namespace, "it is not allowed in the host's ipc namespace");
    }
    if key.starts_with("net.") {
        return owned(facts.own_network_namespace, "it is not allowed in the host's network namespace");
    }
    match key {
        "kernel.domainname" => owned(facts.own_uts_namespace, "it is not allowed in the host's uts namespace"),
        "kernel.hostname" => Err("it conflicts with the spec's own `hostname`"),
        user if user.starts_with("user.") => {
            owned(facts.own_user_namespace, "it is not allowed in the host's user namespace")
        }
        _ => Err("it is not in a separate kernel namespace"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::container::CgroupTree;

    fn facts(own: bool) -> Facts<'static> {
        Facts {
            bundle: std::path::Path::new("/b"),
            own_mount_namespace: true,
            own_user_namespace: own,
            own_network_namespace: own,
            own_ipc_namespace: own,
            own_uts_namespace: own,
            own_pid_namespace: own,
            cgroup_namespace: own,
            rootless: false,
            cgroup: CgroupTree::V2,
            selinux: false,
        }
    }

    fn path(key: &str) -> String {
        let Ok(SetupOp::Sysctl { key, .. }) = one(key, "1", &facts(true)) else { panic!("{key} is refused") };
        key.into_string().unwrap()
    }

    #[test]
    fn names_become_paths() {
        assert_eq!(path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path("net/ipv4/conf/eth0.1/rp_filter"), "net/ipv4/conf/eth0.1/rp_filter");
        assert_eq!(path("net.ipv4.conf.eth0/1.rp_filter"), "net/ipv4/conf/eth0.1/rp_filter");
    }

    #[test]
    fn only_settings_of_own_namespaces_are_allowed() {
        for key in ["kernel.sem", "kernel.shmmax", "fs.mqueue.msg_max", "net.core.somaxconn", "kernel.domainname"] {
            assert!(one(key, "1", &facts(true)).is_ok(), "{key}");
            assert!(one(key, "1", &facts(false)).is_err(), "{key}");
        }
        for key in ["kernel.hostname", "kernel.core_pattern", "vm.swappiness", "kernel.shm", "netx", "kernel", ""] {
            assert!(one(key, "1", &facts(true)).is_err(), "{key}");
        }
    }

    #[test]
    fn nothing_leads_elsewhere() {
        for key in [
            "net.//.//.kernel.core_pattern",
            "net...kernel",
            "net/../kernel/core_pattern",
            "net.a\nb",
            "net.",
            "net..a",
        ] {
            assert!(one(key, "1", &facts(true)).is_err(), "{key:?}");
        }
        for value in ["1\n2", "\u{1b}[1m", "1\0"] {
            assert!(one("net.core.somaxconn", value, &facts(true)).is_err(), "{value:?}");
        }
        assert!(one("net.ipv4.tcp_rmem", "4096\t87380 6291456", &facts(true)).is_ok());
    }
}
