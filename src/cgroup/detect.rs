//! Where the calling process is, and which of that it may write to.
//!
//! The conventional mount points are tried first; `/proc/self/mountinfo` is read only where they
//! don't lead to the caller's group, as in a container that sees the host's `/proc/self/cgroup`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    fcntl::{OFlag, open},
    sys::{
        stat::Mode,
        statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType},
    },
};

use super::{
    Controller, Controllers, Hierarchy,
    group::{Group, slurp},
    v1, v2,
};

const MOUNT: &str = "/sys/fs/cgroup";

/// One line of `/proc/PID/cgroup` (cgroups(7)).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Membership<'a> {
    /// Comma-separated; empty for v2.
    pub(super) controllers: &'a str,
    pub(super) path: &'a str,
}

pub(super) fn detect() -> Hierarchy {
    let file = open("/proc/self/cgroup", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    let text = match file.and_then(slurp) {
        Ok(text) => text,
        Err(errno) => return Hierarchy::None { why: format!("/proc/self/cgroup cannot be read: {}", errno.desc()) },
    };
    let found = if memberships(&text).any(|own| !ours(own.controllers).is_empty()) {
        detect_v1(&text).map(|tree| Hierarchy::V1(Arc::new(tree)))
    } else {
        detect_v2(&text).map(|tree| Hierarchy::V2(Arc::new(tree)))
    };
    found.unwrap_or_else(|why| Hierarchy::None { why })
}

/// A controller that is in a v1 tree is in no other, so that a hybrid host is a v1 host to us.
pub(super) fn detect_v1(text: &str) -> Result<v1::Tree, String> {
    let mut mounts = Vec::new();
    let mut why = None;
    for own in memberships(text) {
        let Some(first) = ours(own.controllers).first().copied() else { continue };
        let place = Place { kind: CGROUP_SUPER_MAGIC, controller: Some(first.name()), own: own.path };
        let usable = place.open(&format!("{MOUNT}/{first}")).and_then(|group| match group.writable(".") {
            Ok(()) => Ok(group),
            Err(errno) => Err(format!("{} is not ours to change: {}", group.own_path().display(), errno.desc())),
        });
        match usable {
            Ok(group) => {
                let holds = ours(own.controllers).into_iter().fold(Controllers::default(), Controllers::with);
                mounts.push(v1::Mount { group, holds });
            }
            Err(reason) => _ = why.get_or_insert(reason),
        }
    }
    if mounts.is_empty() { Err(why.unwrap_or_default()) } else { Ok(v1::Tree::new(mounts)) }
}

fn detect_v2(text: &str) -> Result<v2::Tree, String> {
    let own = memberships(text).find(|own| own.controllers.is_empty());
    let own = own.ok_or("this kernel has no memory, pids or cpu cgroup controller")?;
    let group = Place { kind: CGROUP2_SUPER_MAGIC, controller: None, own: own.path }.open(MOUNT)?;
    v2::Tree::above(group.own_path())
}

/// A group that is known by its place in a tree, not yet by its path.
struct Place<'a> {
    kind: FsType,
    controller: Option<&'a str>,
    own: &'a str,
}

impl Place<'_> {
    fn open(&self, mount: &str) -> Result<Group, String> {
        // The group is outside this process's cgroup namespace.
        if self.own.split('/').any(|part| part == "..") {
            return Err(format!("this process's cgroup {} is out of its sight", self.own));
        }
        // Without a trailing slash where the path is `/`.
        let conventional: PathBuf = Path::new(mount).join(self.own.trim_matches('/')).components().collect();
        Group::open(conventional, self.kind).or_else(|why| {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let kind = if self.kind == CGROUP2_SUPER_MAGIC { "cgroup2" } else { "cgroup" };
            Group::open(in_mountinfo(&mounts, kind, self.controller, self.own).ok_or(why)?, self.kind)
        })
    }
}

pub(super) fn memberships(text: &str) -> impl Iterator<Item = Membership<'_>> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        Some(Membership { controllers, path })
    })
}

/// Those of a membership's controllers that we have a use for.
fn ours(controllers: &str) -> Vec<Controller> {
    let named = |controller: &Controller| controllers.split(',').any(|name| name == controller.name());
    Controller::ALL.into_iter().filter(named).collect()
}

/// The path of the group `own`, by the mounts in `/proc/PID/mountinfo`.
pub(super) fn in_mountinfo(text: &str, kind: &str, controller: Option<&str>, own: &str) -> Option<PathBuf> {
    mounted(text, kind, controller).find_map(|(root, point)| {
        let below = Path::new(own).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below).components().collect())
    })
}

/// Which group of the tree is mounted, and where, for each mount of it. `/proc/PID/mountinfo` (proc(5)) has lines
/// `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAGS…] - TYPE SOURCE SUPEROPTIONS`.
pub(super) fn mounted<'a>(
    text: &'a str,
    kind: &'a str,
    controller: Option<&'a str>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.lines().filter_map(move |line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut filesystem = filesystem.split(' ');
        let (found, options) = (filesystem.next()?, filesystem.nth(1)?);
        let right = found == kind && controller.is_none_or(|wanted| options.split(',').any(|option| option == wanted));
        right.then_some((root, point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_groups() {
        let text = "4:memory:/a:b/c\n3:cpu,cpuacct:/\n1:name=systemd:/x\n0::/user.slice\nnonsense\n";
        let found: Vec<_> = memberships(text).map(|own| (own.controllers, own.path)).collect();
        assert_eq!(found, [("memory", "/a:b/c"), ("cpu,cpuacct", "/"), ("name=systemd", "/x"), ("", "/user.slice")]);
        assert_eq!(ours("cpu,cpuacct"), [Controller::Cpu, Controller::CpuTime]);
        assert!(ours("cpuset").is_empty() && ours("name=memory").is_empty() && ours("").is_empty());
    }

    /// A Docker container on a v1 host: `/proc/self/cgroup` tells the host's path, the mount shows a part.
    #[test]
    fn mounts_that_show_a_part_of_the_tree() {
        let text = "\
30 20 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 /docker/abc /sys/fs/cgroup/memory ro,nosuid shared:9 master:1 - cgroup cgroup rw,memory
32 30 0:28 /docker/abc /mnt/cpu ro - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /mnt/two rw - cgroup2 cgroup2 rw,nsdelegate
short line
";
        let find = |kind, controller, own| in_mountinfo(text, kind, controller, own);
        assert_eq!(find("cgroup", Some("memory"), "/docker/abc"), Some("/sys/fs/cgroup/memory".into()));
        assert_eq!(find("cgroup", Some("cpu"), "/docker/abc/job"), Some("/mnt/cpu/job".into()));
        assert_eq!(find("cgroup2", None, "/"), Some("/mnt/two".into()));
        assert_eq!(find("cgroup", Some("memory"), "/docker/abcd"), None);
        assert_eq!(find("cgroup", Some("pids"), "/docker/abc"), None);
    }

    #[test]
    fn a_group_out_of_sight_is_no_path() {
        let place = Place { kind: CGROUP2_SUPER_MAGIC, controller: None, own: "/../other" };
        assert!(place.open("/sys/fs/cgroup").is_err_and(|why| why.contains("out of its sight")));
    }
}
