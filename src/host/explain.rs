//! From a failed step and its errno to what is in the way on this host, and the one line that clears it.
//!
//! An errno alone says little (EPERM has a dozen causes); together with the [`Circumstances`] it says nearly
//! all. Where nothing known fits, nothing is said: a wrong hint costs more than none.

use nix::errno::Errno;

use super::circumstances::{Circumstances, Container};

/// What is in the way and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    pub why: String,
    pub fix: Option<String>,
}

/// The hint for a launch step that failed: `stage` is the operation (`clone`, `write`, `mount`,
/// `pivot_root`, `seccomp`, `landlock`, `cgroup`…, or the name of a system call), `object` what it was done
/// to (a path, a file of /proc/PID, a file system type, or a line of the plan such as `mount proc /proc`). Looks at the host at this moment, so it is for
/// failures only. `None` when nothing is known that explains it.
#[must_use]
pub fn explain_launch_errno(stage: &str, object: &str, errno: i32) -> Option<String> {
    let cause = explain(&Circumstances::read(), stage, object, Errno::from_raw(errno))?;
    Some(match cause.fix {
        Some(fix) => format!("{}; try: {fix}", cause.why),
        None => cause.why,
    })
}

/// The hint for newuidmap and newgidmap that refused; `powerless` if they are no set-user-ID programs.
#[must_use]
pub fn explain_refused_ids(powerless: bool) -> Option<String> {
    let known = refused_ids(&Circumstances::read(), powerless);
    Some(known.unwrap_or("`fumehood doctor` tries it by itself; without --user no helper is needed").to_owned())
}

pub(super) fn refused_ids(host: &Circumstances, powerless: bool) -> Option<&'static str> {
    if host.no_new_privileges {
        Some("run outside the service or sandbox that set no_new_privs, under which newuidmap has no power")
    } else if powerless {
        Some("sudo chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap, if they have no file capabilities either")
    } else {
        None
    }
}

pub(super) fn explain(host: &Circumstances, stage: &str, object: &str, errno: Errno) -> Option<Cause> {
    let is = |words: &[&str]| words.iter().any(|word| stage.contains(word));
    let on = |words: &[&str]| words.iter().any(|word| object.contains(word));
    let a_namespace = is(&["namespace"]) || on(&["namespace"]);
    if is(&["uid_map", "gid_map", "setgroups"]) || on(&["uid_map", "gid_map", "setgroups"]) {
        id_map(host, errno)
    } else if is(&["mount", "pivot_root", "open_tree", "fsopen", "fsconfig", "bind"]) {
        mount(host, stage, object, errno)
    } else if (is(&["cgroup"]) || on(&["cgroup", "CGROUP"])) && !a_namespace {
        cgroup(host, errno)
    } else if is(&["clone", "unshare"]) || a_namespace {
        namespaces(host, errno)
    } else if is(&["seccomp"]) {
        seccomp(errno)
    } else if is(&["landlock"]) {
        Some(landlock(errno))
    } else if is(&["hostname", "loopback", "netlink"]) {
        refused(host, errno)
    } else {
        None
    }
}

fn namespaces(host: &Circumstances, errno: Errno) -> Option<Cause> {
    match errno {
        // EUSERS until 4.8, ENOSPC since.
        Errno::ENOSPC | Errno::EUSERS => Some(match host.forbidden_namespaces.first() {
            Some(kind) => cause(
                format!("user.max_{kind}_namespaces is 0"),
                format!("sudo sysctl -w user.max_{kind}_namespaces=15000"),
            ),
            None => cause(
                "a limit user.max_*_namespaces, here or in an outer user namespace, is used up (or 32 are nested)",
                "sudo sysctl -w user.max_user_namespaces=15000 on the host, or run outside the other sandbox",
            ),
        }),
        Errno::EPERM | Errno::EACCES if !host.privileged && host.userns_clone_off => Some(cause(
            "kernel.unprivileged_userns_clone is 0: only root may make user namespaces",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )),
        Errno::EPERM if host.chrooted => Some(cause(
            "in a chroot the kernel refuses user namespaces",
            "use pivot_root or a container instead of chroot",
        )),
        Errno::EPERM | Errno::EACCES => refused(host, errno),
        Errno::ENOSYS if host.seccomp_filtered => filtered(host),
        Errno::ENOSYS => Some(cause("the kernel has no clone3 (since 5.3)", "use Linux 5.12 or later")),
        Errno::EINVAL => Some(cause(
            "the kernel is built without one of the namespaces (CONFIG_USER_NS, PID_NS, NET_NS, IPC_NS, UTS_NS, CGROUPS)",
            "use a distribution's standard kernel",
        )),
        Errno::EAGAIN => Some(cause(
            "the limit of processes is reached (RLIMIT_NPROC or the cgroup's pids.max)",
            "raise `ulimit -u`, or the unit's TasksMax=",
        )),
        _ => None,
    }
}

fn id_map(host: &Circumstances, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::ENOENT if !host.proc_mounted => Some(cause("/proc is not mounted here", "mount -t proc proc /proc")),
        Errno::EROFS => Some(cause("/proc is mounted read-only", "mount -o remount,rw /proc")),
        // verify_root_map in the kernel's user_namespace.c, since 5.12.
        Errno::EPERM if host.uid == 0 && !host.may_map_root => Some(cause(
            "uid 0 without CAP_SETFCAP may not be mapped into a user namespace",
            "run as another user than root, or with CAP_SETFCAP added",
        )),
        Errno::EPERM | Errno::EACCES => refused(host, errno).or_else(|| {
            (!host.privileged).then(|| {
                cause(
                    "without root a sandbox can be given only the caller's own id",
                    "leave out --user, or run as root",
                )
            })
        }),
        _ => None,
    }
}

fn mount(host: &Circumstances, stage: &str, object: &str, errno: Errno) -> Option<Cause> {
    let names = |kind: &str| object.split(' ').any(|word| word == kind || word.strip_prefix('/') == Some(kind));
    match errno {
        Errno::EPERM if names("proc") && !host.proc_masks.is_empty() => Some(cause(
            format!(
                "{} is masked here, and in a user namespace the kernel mounts a new proc only where the old one is whole",
                host.proc_masks[0]
            ),
            match host.container {
                Some(Container::Podman) => "podman run --security-opt unmask=ALL …",
                Some(Container::Kubernetes) => "securityContext: procMount: Unmasked (with hostUsers: false)",
                Some(Container::Docker) => "docker run --security-opt systempaths=unconfined …",
                _ => "umount what lies over /proc, or run outside this container",
            },
        )),
        Errno::EPERM | Errno::EACCES => refused(host, errno),
        Errno::EINVAL if host.root_is_rootfs && (stage.contains("pivot_root") || object.contains("root")) => Some(
            cause("the root is the initramfs, which pivot_root cannot leave", "switch_root to a real root file system"),
        ),
        Errno::ENODEV => ["overlay", "tmpfs", "devpts", "mqueue", "proc", "sysfs"]
            .into_iter()
            .find(|kind| names(kind))
            .map(|kind| cause(format!("the kernel has no file system `{kind}`"), format!("sudo modprobe {kind}"))),
        Errno::ENOSYS if host.seccomp_filtered => filtered(host),
        Errno::ENOSYS => {
            Some(cause("the kernel lacks part of the mount API (whole since 5.12)", "use Linux 5.12 or later"))
        }
        Errno::ENOSPC => Some(cause("fs.mount-max is reached", "sudo sysctl -w fs.mount-max=100000")),
        _ => None,
    }
}

fn cgroup(host: &Circumstances, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::EROFS => Some(cause(
            "/sys/fs/cgroup is mounted read-only",
            match host.container {
                Some(Container::Docker) => {
                    "docker run --security-opt writable-cgroups=true … (28.0 and later), or --privileged"
                }
                Some(Container::Podman) => "podman run --security-opt unmask=/sys/fs/cgroup …",
                _ => "mount -o remount,rw /sys/fs/cgroup",
            },
        )),
        Errno::EACCES | Errno::EPERM => Some(if host.systemd {
            cause(
                format!("this cgroup is not delegated to uid {}", host.uid),
                "systemd-run --user --scope -p Delegate=yes fumehood …",
            )
        } else {
            cause(
                "this cgroup belongs to another user",
                "run as root, or let root chown a cgroup to you and start you in it",
            )
        }),
        Errno::EBUSY => Some(cause(
            "a v2 cgroup with processes in it cannot hand controllers to its children",
            "systemd-run --user --scope -p Delegate=yes fumehood …",
        )),
        Errno::ENOSPC | Errno::EAGAIN => {
            Some(cause("cgroup.max.descendants or a parent's pids.max is reached", "raise it in the parent cgroup"))
        }
        _ => None,
    }
}

fn seccomp(errno: Errno) -> Option<Cause> {
    match errno {
        Errno::ENOSYS | Errno::EINVAL => Some(cause(
            "the kernel has no seccomp filters, or not the flag asked for (CONFIG_SECCOMP_FILTER; WAIT_KILLABLE_RECV since 5.19)",
            "use a distribution's standard kernel, 5.19 or later",
        )),
        Errno::EBUSY => {
            Some(cause("an outer sandbox already listens to this process tree's system calls", "run outside it"))
        }
        _ => None,
    }
}

fn landlock(errno: Errno) -> Cause {
    match errno {
        Errno::EOPNOTSUPP => cause(
            "Landlock is built in but switched off",
            "boot with lsm=landlock,… as listed in /sys/kernel/security/lsm",
        ),
        Errno::ENOSYS => cause(
            "the kernel has no Landlock (since 5.13), or a container's filter hides it",
            "use Linux 6.12 or later",
        ),
        _ => cause("Landlock refused the rules", "use Linux 6.12 or later"),
    }
}

/// EPERM or EACCES that a security module or a container's filter gave. The narrowest suspect first.
fn refused(host: &Circumstances, errno: Errno) -> Option<Cause> {
    if host.apparmor_userns && !host.privileged {
        return Some(cause(
            "kernel.apparmor_restrict_unprivileged_userns is 1: AppArmor takes all power from user namespaces of programs without a profile",
            apparmor_profile_for(&host.program),
        ));
    }
    if let Some(profile) = &host.apparmor_profile {
        return Some(cause(
            format!("the AppArmor profile `{profile}` confines this process"),
            match host.container {
                Some(Container::Docker | Container::Podman) => {
                    "run the container with --security-opt apparmor=unconfined --security-opt seccomp=unconfined"
                        .to_owned()
                }
                Some(Container::Kubernetes) => {
                    "securityContext: appArmorProfile: {type: Unconfined}, seccompProfile: {type: Unconfined}"
                        .to_owned()
                }
                _ => format!("sudo aa-complain {profile}"),
            },
        ));
    }
    if host.seccomp_filtered {
        return filtered(host);
    }
    if host.selinux_enforcing && errno == Errno::EACCES {
        return Some(cause(
            "SELinux denied it",
            "sudo ausearch -m avc -ts recent | audit2allow -M fumehood && sudo semodule -i fumehood.pp",
        ));
    }
    None
}

fn filtered(host: &Circumstances) -> Option<Cause> {
    let (why, fix) = match host.container {
        Some(Container::Docker | Container::Podman) => (
            "the container's seccomp profile forbids namespaces and mounts without CAP_SYS_ADMIN",
            "run the container with --security-opt seccomp=unconfined --security-opt systempaths=unconfined",
        ),
        Some(Container::Kubernetes) => (
            "the pod's seccomp profile forbids namespaces and mounts",
            "securityContext: seccompProfile: {type: Unconfined}, procMount: Unmasked (with hostUsers: false)",
        ),
        _ => (
            "a seccomp filter of an outer sandbox or service forbids it",
            "run outside it (systemd: RestrictNamespaces=no)",
        ),
    };
    Some(cause(why, fix))
}

/// One line that gives just this program leave, instead of taking the guard down for all. The path goes into
/// the profile and the shell in quotes; one that would end them is left for the reader to fill in.
fn apparmor_profile_for(program: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || "/._+-".contains(c);
    let path = if program.chars().all(safe) { program } else { "/usr/local/bin/fumehood" };
    format!(
        "printf 'abi <abi/4.0>,\\nprofile fumehood {path} flags=(unconfined) {{ userns, }}\\n' \
         | sudo tee /etc/apparmor.d/fumehood && sudo apparmor_parser -r /etc/apparmor.d/fumehood"
    )
}

fn cause(why: impl Into<String>, fix: impl Into<String>) -> Cause {
    Cause { why: why.into(), fix: Some(fix.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Circumstances {
        Circumstances { uid: 1000, proc_mounted: true, program: "/usr/bin/fumehood".into(), ..Default::default() }
    }

    /// Asserts that both the reason and the fix name what they must.
    fn tells(host: &Circumstances, step: (&str, &str, Errno), why: &str, fix: &str) {
        let cause = explain(host, step.0, step.1, step.2).unwrap_or_else(|| panic!("{step:?} is not explained"));
        assert!(cause.why.contains(why), "{step:?}: {}", cause.why);
        assert!(cause.fix.as_deref().is_some_and(|f| f.contains(fix)), "{step:?}: {:?}", cause.fix);
        assert!(!cause.why.contains('\n') && !cause.fix.is_some_and(|f| f.contains('\n')), "one line each");
    }

    #[test]
    fn each_way_to_forbid_user_namespaces_is_told_apart() {
        let clone = |errno| ("clone3", "", errno);
        let zero = Circumstances { forbidden_namespaces: vec!["user".into()], ..host() };
        tells(&zero, clone(Errno::ENOSPC), "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces");
        let net = Circumstances { forbidden_namespaces: vec!["net".into()], ..host() };
        tells(&net, clone(Errno::ENOSPC), "user.max_net_namespaces is 0", "user.max_net_namespaces=");
        tells(&host(), clone(Errno::ENOSPC), "outer user namespace", "on the host");
        let debian = Circumstances { userns_clone_off: true, ..host() };
        tells(&debian, clone(Errno::EPERM), "unprivileged_userns_clone is 0", "unprivileged_userns_clone=1");
        let docker = Circumstances { seccomp_filtered: true, container: Some(Container::Docker), ..host() };
        tells(&docker, clone(Errno::EPERM), "seccomp profile", "seccomp=unconfined");
        tells(&docker, clone(Errno::ENOSYS), "seccomp profile", "seccomp=unconfined");
        let chroot = Circumstances { chrooted: true, ..host() };
        tells(&chroot, clone(Errno::EPERM), "chroot", "pivot_root");
        tells(&host(), clone(Errno::ENOSYS), "clone3", "5.12");
        tells(&host(), clone(Errno::EINVAL), "CONFIG_USER_NS", "kernel");
    }

    #[test]
    fn ubuntus_apparmor_is_named_at_whichever_step_it_bites() {
        let ubuntu = Circumstances { apparmor_userns: true, ..host() };
        for step in [
            ("clone3", "", Errno::EACCES),
            ("write", "/proc/12/uid_map", Errno::EPERM),
            ("write", "/proc/12/setgroups", Errno::EACCES),
            ("move_mount", "/tmp", Errno::EACCES),
            ("mount", "proc", Errno::EACCES),
            ("loopback", "lo", Errno::EPERM),
        ] {
            tells(
                &ubuntu,
                step,
                "apparmor_restrict_unprivileged_userns",
                "profile fumehood /usr/bin/fumehood flags=(unconfined)",
            );
        }
        // The restriction is on those without privilege: root's failure has another cause.
        assert_eq!(explain(&Circumstances { privileged: true, ..ubuntu }, "clone3", "", Errno::EPERM), None);
    }

    #[test]
    fn id_maps_and_cgroups_are_not_taken_for_namespaces() {
        tells(&host(), ("write", "/proc/9/uid_map", Errno::EPERM), "own id", "root");
        let weak_root = Circumstances { uid: 0, ..host() };
        tells(&weak_root, ("write", "uid_map", Errno::EPERM), "CAP_SETFCAP", "CAP_SETFCAP");
        tells(&host(), ("write", "uid_map", Errno::EROFS), "/proc is mounted read-only", "remount,rw");
        let nowhere = Circumstances { proc_mounted: false, ..host() };
        tells(&nowhere, ("write", "setgroups", Errno::ENOENT), "not mounted", "mount -t proc");
        tells(&host(), ("clone3", "CLONE_INTO_CGROUP", Errno::EBUSY), "v2 cgroup with processes", "Delegate");
        tells(&host(), ("clone3", "cgroup namespace", Errno::EINVAL), "CGROUPS", "kernel");
    }

    #[test]
    fn helpers_without_power_are_told_from_those_that_refuse() {
        let bound = Circumstances { no_new_privileges: true, ..host() };
        assert!(refused_ids(&bound, true).is_some_and(|fix| fix.contains("no_new_privs")));
        assert!(refused_ids(&host(), true).is_some_and(|fix| fix.contains("chmod u+s")));
        assert_eq!(refused_ids(&host(), false), None);
    }

    #[test]
    fn a_hostile_program_path_does_not_reach_the_fix() {
        for path in ["/tmp/a' ; rm -rf /", "/tmp/a b", "/tmp/$(x)", "/x\ny"] {
            assert!(!apparmor_profile_for(path).contains(path), "{path}");
        }
    }

    #[test]
    fn masked_proc_is_named_with_the_engines_own_option() {
        let masked = |container| Circumstances { proc_masks: vec!["/proc/kcore".into()], container, ..host() };
        let proc = ("mount", "/proc", Errno::EPERM);
        tells(&masked(Some(Container::Docker)), proc, "/proc/kcore is masked", "systempaths=unconfined");
        tells(&masked(Some(Container::Podman)), proc, "/proc/kcore is masked", "unmask=ALL");
        tells(&masked(Some(Container::Kubernetes)), proc, "/proc/kcore is masked", "procMount");
        tells(&masked(None), proc, "/proc/kcore is masked", "umount");
        tells(&masked(None), ("mount", "mount proc /proc ro hidepid", Errno::EPERM), "/proc/kcore is masked", "umount");
        assert_eq!(explain(&masked(None), "mount", "mount tmpfs /tmp size 9", Errno::EPERM), None);
    }

    #[test]
    fn mounts_cgroups_and_filters() {
        let docker = Circumstances {
            apparmor_profile: Some("docker-default".into()),
            container: Some(Container::Docker),
            privileged: true,
            ..host()
        };
        tells(&docker, ("move_mount", "/", Errno::EACCES), "docker-default", "apparmor=unconfined");
        tells(&host(), ("fsopen", "overlay", Errno::ENODEV), "`overlay`", "modprobe overlay");
        tells(&host(), ("mount", "mount overlay of /srv/x /", Errno::ENODEV), "`overlay`", "modprobe overlay");
        assert_eq!(explain(&host(), "mount", "mount /dev/tmpfs /x rw", Errno::ENODEV), None);
        let initramfs = Circumstances { root_is_rootfs: true, ..host() };
        let enter = ("mount", "enter the new root and let go of the host's", Errno::EINVAL);
        tells(&initramfs, enter, "initramfs", "switch_root");
        tells(&host(), ("mount_setattr", "/usr", Errno::ENOSYS), "mount API", "5.12");
        let systemd = Circumstances { systemd: true, ..host() };
        tells(&systemd, ("cgroup", "/sys/fs/cgroup/x", Errno::EACCES), "not delegated to uid 1000", "Delegate=yes");
        tells(&host(), ("mkdir", "/sys/fs/cgroup/x", Errno::EACCES), "another user", "root");
        tells(&docker, ("mkdir", "/sys/fs/cgroup/x", Errno::EROFS), "read-only", "writable-cgroups");
        tells(&host(), ("seccomp", "filter", Errno::EBUSY), "outer sandbox", "outside");
        tells(&host(), ("landlock", "", Errno::EOPNOTSUPP), "switched off", "lsm=landlock");
    }

    #[test]
    fn nothing_is_said_where_nothing_is_known() {
        for step in [
            ("mount", "/proc", Errno::EPERM),
            ("clone3", "", Errno::EPERM),
            ("exec", "/bin/x", Errno::ENOENT),
            ("", "", Errno::EIO),
        ] {
            assert_eq!(explain(&host(), step.0, step.1, step.2), None, "{step:?}");
        }
        assert_eq!(explain_launch_errno("exec", "/bin/x", Errno::ENOENT as i32), None);
        assert_eq!(explain_launch_errno("\0\x1b", "\u{fffd}", i32::MIN), None);
    }
}
