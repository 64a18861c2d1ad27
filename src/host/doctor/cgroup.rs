//! Can limits be held by cgroups: which hierarchy, which controllers, and are we allowed to make groups.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use nix::errno::Errno;

use super::{
    Check,
    child::{Trial, in_child, step},
};
use crate::{
    host::{
        circumstances::{Circumstances, Mount, parse_mountinfo, read},
        explain::explain,
    },
    sys::{clone, process},
};

/// What the limits on memory, CPU and processes need.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

const COST: &str = "limits fall to rlimits and a watching supervisor";

pub(super) fn check(around: &Circumstances, checks: &mut Vec<Check>) {
    let mounts = read("/proc/self/mountinfo").map_or_else(Vec::new, |text| parse_mountinfo(&text));
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let v2 = mounts.iter().rfind(|m| m.kind == "cgroup2").map(|m| Path::new(&m.point));
    let legacy = mounts.iter().any(|m| m.kind == "cgroup");
    checks.push(match (v2, legacy) {
        (None, false) => none(around),
        (Some(root), false) => unified(around, root, &own),
        (_, true) => split(around, &mounts, &own),
    });
    if let Some(root) = v2 {
        checks.push(clone_into(around, root, &own));
    }
}

fn none(around: &Circumstances) -> Check {
    Check::degraded("cgroup", format!("{COST}: no cgroup hierarchy is mounted")).or_fix(if around.container.is_some() {
        "start the container with its own /sys/fs/cgroup"
    } else {
        "sudo mount -t cgroup2 none /sys/fs/cgroup"
    })
}

/// One v2 tree. fumehood may make its group below any that it owns; as root, at the top.
fn unified(around: &Circumstances, root: &Path, own: &str) -> Check {
    let (group, place) = match place_for_group(root, own) {
        Ok(found) => found,
        Err(error) => return refused(around, "v2", &error),
    };
    let controllers = read(&place.join("cgroup.controllers").to_string_lossy()).unwrap_or_default();
    drop(group);
    let missing: Vec<_> =
        NEEDED.into_iter().filter(|c| !controllers.split_whitespace().any(|have| have == *c)).collect();
    if missing.is_empty() {
        return Check::ok("cgroup", format!("v2, writable at {}: {}", place.display(), controllers.trim()));
    }
    let detail = format!("{COST}: v2, writable at {}, without {}", place.display(), missing.join(" "));
    Check::degraded("cgroup", detail).or_fix(if around.systemd && around.uid != 0 {
        "printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo SYSTEMD_EDITOR=tee systemctl edit user@.service, \
         then log in anew"
            .to_owned()
    } else if place == root {
        // The other hierarchy has them, or the outer container kept them.
        "boot with cgroup_no_v1=all, or start the container with these controllers delegated".to_owned()
    } else {
        format!("echo '+cpu +memory +pids' | sudo tee {}/cgroup.subtree_control", root.display())
    })
}

/// A tree for each v1 controller, with or without a v2 tree that has none.
fn split(around: &Circumstances, mounts: &[Mount], own: &str) -> Check {
    let kind = if mounts.iter().any(|m| m.kind == "cgroup2") { "hybrid v1" } else { "v1" };
    let memberships = parse_memberships(own);
    for controller in NEEDED {
        let Some(membership) = memberships.iter().find(|m| m.controllers.contains(&controller)) else {
            return Check::degraded("cgroup", format!("{COST}: {kind}, the kernel has no {controller} controller"))
                .or_fix("boot with cgroup_enable=memory, or use a distribution's standard kernel");
        };
        let by_name =
            |m: &&Mount| m.point.rsplit('/').next().is_some_and(|name| name.split(',').any(|n| n == controller));
        let Some(mount) = mounts.iter().filter(|m| m.kind == "cgroup").find(by_name) else {
            return Check::degraded("cgroup", format!("{COST}: {kind}, the {controller} controller is not mounted"))
                .or_fix(format!("sudo mount -t cgroup -o {controller} none /sys/fs/cgroup/{controller}"));
        };
        let place = directory_of(Path::new(&mount.point), membership.path);
        if let Err(error) = TrialGroup::make(&place) {
            return refused(around, kind, &error)
                .or_fix("run as root of the host: v1 hierarchies can't be delegated safely");
        }
    }
    Check::ok("cgroup", format!("{kind}, writable: {}", NEEDED.join(" ")))
}

fn refused(around: &Circumstances, kind: &str, error: &(PathBuf, io::Error)) -> Check {
    let (place, error) = error;
    let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
    let cause = explain(around, "cgroup", &place.to_string_lossy(), errno);
    let why = cause.as_ref().map_or_else(|| errno.desc().to_ascii_lowercase(), |cause| cause.why.clone());
    let check =
        Check::degraded("cgroup", format!("{COST}: {kind}, no group can be made in {}: {why}", place.display()));
    // v1 has no delegation: systemd-run would not help.
    match cause.and_then(|cause| cause.fix).filter(|_| kind == "v2" || errno == Errno::EROFS) {
        Some(fix) => check.or_fix(fix),
        None => check,
    }
}

/// A clone straight into a group, as a launch on v2 does it.
fn clone_into(around: &Circumstances, root: &Path, own: &str) -> Check {
    let group = match place_for_group(root, own) {
        Ok((group, _)) => group,
        Err(_) => return Check::info("clone-into-cgroup", "not tried: no v2 group can be made"),
    };
    let trial = in_child(|| {
        let directory = step("open", "cgroup", fs::File::open(&group.0))?;
        match step("clone3", "CLONE_INTO_CGROUP", clone::clone_process(0, Some(directory.as_fd())))? {
            clone::Cloned::Child => process::exit_now(i32::from(!is_in(&group.0))),
            clone::Cloned::Parent { pid, .. } => {
                let ended = step("wait", "child", process::wait(pid, true))?;
                let there = ended.is_some_and(|ended| ended.status == 0);
                if there { Ok(()) } else { step("clone3", "CLONE_INTO_CGROUP", Err(Errno::ENOTRECOVERABLE)) as Trial }
            }
        }
    });
    Check::of_trial(around, "clone-into-cgroup", trial, "processes start inside their group")
        .at_most_degraded("processes are moved into their group after they start")
}

fn is_in(group: &Path) -> bool {
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let name = group.file_name().unwrap_or_default();
    parse_memberships(&own).iter().any(|m| m.controllers.is_empty() && Path::new(m.path).file_name() == Some(name))
}

/// A group of ours in the first place that lets us: the top of the tree for root, else our own group, or the
/// one above it.
fn place_for_group(root: &Path, own: &str) -> Result<(TrialGroup, PathBuf), (PathBuf, io::Error)> {
    let memberships = parse_memberships(own);
    let path = memberships.iter().find(|m| m.controllers.is_empty()).map_or("/", |m| m.path);
    let home = directory_of(root, path);
    let above = home.parent().filter(|above| above.starts_with(root)).unwrap_or(&home).to_owned();
    let [first, then, last] =
        [root.to_owned(), home.clone(), above].map(|place| TrialGroup::make(&place).map(|g| (g, place)));
    // Our own group is the one whose refusal a person can act on.
    match (first, then, last) {
        (Ok(found), ..) | (_, Ok(found), _) | (.., Ok(found)) => Ok(found),
        (_, Err(error), _) => Err(error),
    }
}

/// An empty group that goes when this does.
struct TrialGroup(PathBuf);

impl TrialGroup {
    fn make(place: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let path = place.join(format!("fumehood-doctor-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| (place.to_owned(), error))?;
        Ok(Self(path))
    }
}

impl Drop for TrialGroup {
    fn drop(&mut self) {
        // Empty by now; if it stays all the same there is nothing more to try.
        let _ = fs::remove_dir(&self.0);
    }
}

/// One line of /proc/PID/cgroup: the group in one hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Membership<'a> {
    /// Empty for v2.
    controllers: Vec<&'a str>,
    path: &'a str,
}

/// cgroups(7): lines of `id:controllers:path`. A named v1 hierarchy (`name=systemd`) controls nothing and is
/// left out; so are lines that are no such thing.
fn parse_memberships(text: &str) -> Vec<Membership<'_>> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let unified = id == "0" && controllers.is_empty();
            let named = controllers.starts_with("name=");
            let controllers: Vec<_> = controllers.split(',').filter(|c| !c.is_empty()).collect();
            let whole = path.starts_with('/') && !named && (unified || !controllers.is_empty());
            whole.then_some(Membership { controllers, path })
        })
        .collect()
}

/// Where a group lies in the tree mounted at `root`. A path that is not below the root of our cgroup
/// namespace (`/../x`), or is not there (a container that sees only its own part), means the top.
fn directory_of(root: &Path, path: &str) -> PathBuf {
    let inside = !path.split('/').any(|part| part == "..");
    let directory = root.components().chain(Path::new(path.trim_start_matches('/')).components()).collect::<PathBuf>();
    if inside && directory.is_dir() { directory } else { root.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_of_v2_and_hybrid() {
        let user = parse_memberships("0::/user.slice/user-1000.slice/session-3.scope\n");
        assert_eq!(user, [Membership { controllers: vec![], path: "/user.slice/user-1000.slice/session-3.scope" }]);
        let hybrid = parse_memberships("9:name=systemd:/\n4:cpu,cpuacct:/a:b\n1:pids:/x\n0::/\n");
        assert_eq!(hybrid.len(), 3);
        assert_eq!(hybrid[0], Membership { controllers: vec!["cpu", "cpuacct"], path: "/a:b" });
    }

    #[test]
    fn hostile_memberships() {
        for text in ["", "0::", "0:", "0::relative", "1::/x", "::/x", "1:,,:/x", "1:name=a,cpu:/x", "\0"] {
            assert_eq!(parse_memberships(text), [], "{text:?}");
        }
    }

    #[test]
    fn a_group_outside_our_namespace_is_never_followed() {
        let root = Path::new("/usr");
        for path in ["/../etc", "/..", "/bin/../../etc", "/not-there", "/", "//"] {
            assert_eq!(directory_of(root, path).components().collect::<PathBuf>(), root, "{path}");
        }
        assert_eq!(directory_of(root, "/bin"), root.join("bin"));
    }

    #[test]
    fn a_trial_group_is_gone_afterwards() {
        let place = tempfile::tempdir().unwrap();
        let group = TrialGroup::make(place.path()).unwrap();
        assert!(group.0.is_dir());
        assert!(TrialGroup::make(place.path()).is_err());
        drop(group);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
