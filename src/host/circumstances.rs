//! Everything about a host that is known to stand in a sandbox's way, read at one moment: sysctls, security
//! modules, the container around us. Read by [`super::doctor`] and after a failed launch, never before one.
//!
//! It is plain data, so that explanations can be tested for hosts we are not on.

use std::{fs, path::Path};

use serde::Serialize;

use crate::sys::probe;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// CAP_SYS_ADMIN in our own user namespace.
    pub privileged: bool,
    pub uid: u32,
    /// CAP_SETFCAP, without which uid 0 may not map itself (user_namespaces(7), since 5.12).
    pub may_map_root: bool,
    /// Namespace kinds whose user.max_*_namespaces is 0 here, e.g. `user`.
    pub forbidden_namespaces: Vec<String>,
    /// kernel.unprivileged_userns_clone is 0 (Debian's and Arch's patch).
    pub userns_clone_off: bool,
    /// kernel.apparmor_restrict_unprivileged_userns is 1 (Ubuntu since 23.10).
    pub apparmor_userns: bool,
    /// The AppArmor profile that confines us, if any.
    pub apparmor_profile: Option<String>,
    pub selinux_enforcing: bool,
    /// We run under someone's seccomp filter.
    pub seccomp_filtered: bool,
    /// Setuid programs such as newuidmap run without their power.
    pub no_new_privileges: bool,
    pub proc_mounted: bool,
    /// What is mounted over parts of /proc: a new proc may then not be mounted in a user namespace.
    pub proc_masks: Vec<String>,
    /// `/` is no mount: we are in a chroot.
    pub chrooted: bool,
    /// `/` is the kernel's own initramfs.
    pub root_is_rootfs: bool,
    pub container: Option<Container>,
    pub wsl: bool,
    pub systemd: bool,
    /// This program, for an AppArmor profile.
    pub program: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Container {
    Docker,
    Podman,
    Kubernetes,
    Lxc,
    Nspawn,
    Gvisor,
    Other,
}

impl Circumstances {
    pub(super) fn read() -> Self {
        let mounts = read("/proc/self/mountinfo").map_or_else(Vec::new, |text| parse_mountinfo(&text));
        let root = mounts.iter().rfind(|m| m.point == "/");
        let release = probe::kernel_release().unwrap_or_default().to_ascii_lowercase();
        let status = read("/proc/self/status").unwrap_or_default();
        let capabilities = probe::effective_capabilities().unwrap_or(0);
        Self {
            privileged: capabilities & 1 << probe::CAP_SYS_ADMIN != 0,
            may_map_root: capabilities & 1 << probe::CAP_SETFCAP != 0,
            uid: nix::unistd::geteuid().as_raw(),
            forbidden_namespaces: ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
                .into_iter()
                .filter(|kind| sysctl(&format!("user/max_{kind}_namespaces")).as_deref() == Some("0"))
                .map(str::to_owned)
                .collect(),
            userns_clone_off: sysctl("kernel/unprivileged_userns_clone").as_deref() == Some("0"),
            apparmor_userns: sysctl("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1"),
            apparmor_profile: read("/proc/self/attr/apparmor/current").and_then(|text| confining_profile(&text)),
            selinux_enforcing: read("/sys/fs/selinux/enforce").is_some_and(|text| text.trim() == "1"),
            seccomp_filtered: status_field(&status, "Seccomp:") == Some("2"),
            no_new_privileges: status_field(&status, "NoNewPrivs:") == Some("1"),
            proc_mounted: Path::new("/proc/self/ns").exists(),
            proc_masks: mounts
                .iter()
                .filter(|m| m.point.starts_with("/proc/") && m.kind != "binfmt_misc" && m.kind != "autofs")
                .map(|m| m.point.clone())
                .collect(),
            chrooted: root.is_none() && !mounts.is_empty(),
            root_is_rootfs: root.is_some_and(|m| m.kind == "rootfs"),
            container: Container::detect(&release),
            wsl: release.contains("microsoft"),
            systemd: Path::new("/run/systemd/system").exists(),
            program: std::env::current_exe().map_or_else(|_| "fumehood".into(), |path| path.display().to_string()),
        }
    }
}

impl Container {
    /// By the marks that engines leave on purpose; none is proof, so this only words explanations.
    fn detect(release: &str) -> Option<Self> {
        let environment = fs::read("/proc/1/environ").unwrap_or_default();
        let announced = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(b"container="))
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .or_else(|| std::env::var("container").ok());
        let cgroup = read("/proc/1/cgroup").unwrap_or_default();
        let there = |path: &str| Path::new(path).exists();
        if release.contains("gvisor") {
            Some(Self::Gvisor)
        } else if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || cgroup.contains("kubepods") {
            Some(Self::Kubernetes)
        } else if there("/run/.containerenv") {
            Some(Self::Podman)
        } else if there("/.dockerenv") || cgroup.contains("/docker/") {
            Some(Self::Docker)
        } else {
            match announced.as_deref()? {
                "" => None,
                "podman" => Some(Self::Podman),
                "docker" => Some(Self::Docker),
                "lxc" => Some(Self::Lxc),
                "systemd-nspawn" => Some(Self::Nspawn),
                _ => Some(Self::Other),
            }
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
            Self::Kubernetes => "Kubernetes",
            Self::Lxc => "LXC",
            Self::Nspawn => "systemd-nspawn",
            Self::Gvisor => "gVisor",
            Self::Other => "some",
        }
    }
}

/// The text of a small file of the kernel's, if it can be read.
pub(super) fn read(path: &str) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A sysctl by its path, e.g. `kernel/yama/ptrace_scope`, without white space around it.
pub(super) fn sysctl(path: &str) -> Option<String> {
    read(&format!("/proc/sys/{path}")).map(|text| text.trim().to_owned())
}

/// A field of /proc/PID/status by its name with the colon.
fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// `docker-default (enforce)` confines, `unconfined` and `fumehood (unconfined)` do not.
fn confining_profile(current: &str) -> Option<String> {
    let current = current.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    let (profile, mode) = current.rsplit_once(" (").unwrap_or((current, ""));
    (!profile.is_empty() && profile != "unconfined" && mode.starts_with("enforce")).then(|| profile.to_owned())
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub point: String,
    pub kind: String,
}

/// proc_pid_mountinfo(5): `id parent dev root point options [tags] - kind source options`. Lines that are
/// not that are passed over.
pub(super) fn parse_mountinfo(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            let point = head.split(' ').nth(4)?;
            let kind = tail.split(' ').next().filter(|kind| !kind.is_empty())?;
            point.starts_with('/').then(|| Mount { point: point.to_owned(), kind: kind.to_owned() })
        })
        .collect()
}

/// The distribution's name for itself out of os-release(5).
pub(super) fn parse_os_release(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?.trim();
    let quoted = |quote| value.strip_prefix(quote).and_then(|v: &str| v.strip_suffix(quote));
    let plain = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    let name: String = plain.chars().filter(|c| !c.is_control() && *c != '\\').take(80).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo() {
        let text = "22 27 0:21 / /proc rw,relatime shared:5 master:1 - proc proc rw\n\
                    23 22 0:6 /null /proc/kcore rw - tmpfs tmpfs rw\n\
                    24 22 0:6 / /with\\040space rw - tmpfs a - b rw\n";
        let points: Vec<_> = parse_mountinfo(text).into_iter().map(|m| (m.point, m.kind)).collect();
        assert_eq!(
            points,
            [
                ("/proc".into(), "proc".into()),
                ("/proc/kcore".into(), "tmpfs".into()),
                ("/with\\040space".into(), "tmpfs".into())
            ]
        );
    }

    #[test]
    fn hostile_mountinfo() {
        for text in ["", "\n", " - ", "1 2 3 4 5 - proc", "1 2 3 4 - proc x", "1 2 3 4 /a -", "1 2 3 4 /a - ", "a\0b"] {
            assert_eq!(parse_mountinfo(text), [], "{text:?}");
        }
    }

    #[test]
    fn os_release() {
        for (text, name) in [
            ("NAME=x\nPRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\n", Some("Ubuntu 24.04.1 LTS")),
            ("PRETTY_NAME='Alpine'", Some("Alpine")),
            ("PRETTY_NAME=Void", Some("Void")),
            ("PRETTY_NAME=\"\x1b[31mred\"", Some("[31mred")),
            ("PRETTY_NAME=\"unclosed", Some("\"unclosed")),
            ("PRETTY_NAME=\"", Some("\"")),
            ("PRETTY_NAME=\"\"", None),
            ("PRETTY_NAME=", None),
            ("NOT_PRETTY_NAME=x", None),
            ("", None),
        ] {
            assert_eq!(parse_os_release(text).as_deref(), name, "{text:?}");
        }
        assert_eq!(parse_os_release(&format!("PRETTY_NAME={}", "é".repeat(1000))).unwrap().chars().count(), 80);
    }

    #[test]
    fn apparmor_profiles() {
        assert_eq!(confining_profile("docker-default (enforce)\n").as_deref(), Some("docker-default"));
        for free in ["unconfined\n", "fumehood (unconfined)", "snap.x (complain)", "", "\0"] {
            assert_eq!(confining_profile(free), None, "{free:?}");
        }
    }

    #[test]
    fn status_fields() {
        let status = "Name:\tSeccomp:\nNoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(status_field(status, "Seccomp:"), Some("2"));
        assert_eq!(status_field("", "Seccomp:"), None);
    }
}
