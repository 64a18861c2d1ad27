//! Which cgroup trees this host has, and where the caller is in them: facts, looked up once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use super::{super::detect, ContainerCgroupError};

const ROOT: &str = "/sys/fs/cgroup";

/// The v1 hierarchies a container takes part in, in the order in which they are joined. A process is put
/// in the group of each of them, limited there or not, so that all of them show the container as one.
const KNOWN: [&str; 15] = [
    "cpuset",
    "devices",
    "memory",
    "cpu",
    "cpuacct",
    "pids",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "freezer",
    "rdma",
    "name=systemd",
    "misc",
];

/// The cgroup trees of this host.
#[derive(Debug, Clone)]
pub struct Layout {
    pub(super) kind: Kind,
    /// `/proc/self/cgroup`
    memberships: String,
    /// `/proc/self/mountinfo`, where it had to be read.
    mounts: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    V2(Tree),
    /// A tree per controller; on a hybrid host a v2 tree besides, the last one, with an empty list of names.
    V1(Vec<Tree>),
    None {
        why: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    /// As in `/proc/self/cgroup`; empty for v2.
    pub(super) names: Vec<String>,
    /// Where it is mounted.
    pub(super) point: PathBuf,
}

impl Tree {
    pub(super) fn file_system(&self) -> FsType {
        if self.names.is_empty() { CGROUP2_SUPER_MAGIC } else { CGROUP_SUPER_MAGIC }
    }
}

impl Layout {
    /// Looks at `/sys/fs/cgroup` and `/proc/self/cgroup`; changes nothing.
    #[must_use]
    pub fn detect() -> Self {
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut layout = Self { kind: Kind::None { why: String::new() }, memberships, mounts: None };
        layout.kind = if is(Path::new(ROOT), CGROUP2_SUPER_MAGIC) {
            Kind::V2(Tree { names: Vec::new(), point: ROOT.into() })
        } else {
            layout.find()
        };
        layout
    }

    /// The v2 tree at `point`, as seen from a process in the group `own` of it.
    #[cfg(test)]
    pub(super) fn v2_at(point: &Path, own: &str) -> Self {
        let kind = Kind::V2(Tree { names: Vec::new(), point: point.into() });
        Self { kind, memberships: format!("0::{own}\n"), mounts: Some(String::new()) }
    }

    /// Whether the host keeps its limits in v1 trees (a hybrid one does), and whether in a v2 tree.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        matches!(self.kind, Kind::V2(_))
    }

    #[must_use]
    pub fn is_v1(&self) -> bool {
        matches!(self.kind, Kind::V1(_))
    }

    fn find(&mut self) -> Kind {
        let mut trees: Vec<(usize, Tree)> = Vec::new();
        let memberships = self.memberships.clone();
        for own in detect::memberships(&memberships) {
            let names: Vec<_> = own.controllers.split(',').map(str::to_owned).collect();
            let rank = KNOWN.iter().position(|known| names.iter().any(|name| name == known));
            if let Some(rank) = rank
                && let Some(point) = self.mount_of(&names)
            {
                trees.push((rank, Tree { names, point }));
            }
        }
        trees.sort_by_key(|(rank, _)| *rank);
        let mut trees: Vec<_> = trees.into_iter().map(|(_, tree)| tree).collect();
        let unified = self.mount_of_v2().map(|point| Tree { names: Vec::new(), point });
        match unified {
            Some(unified) if trees.is_empty() => Kind::V2(unified),
            None if trees.is_empty() => Kind::None { why: "no cgroup file system is mounted".to_owned() },
            unified => {
                trees.extend(unified);
                Kind::V1(trees)
            }
        }
    }

    fn mount_of(&mut self, names: &[String]) -> Option<PathBuf> {
        let joined = names.join(",");
        let alone = names.iter().map(String::as_str).chain([joined.as_str()]);
        let mut usual = alone.map(|name| Path::new(ROOT).join(name.trim_start_matches("name=")));
        usual.find(|path| is(path, CGROUP_SUPER_MAGIC)).or_else(|| {
            let mounts = self.mounts.get_or_insert_with(mountinfo);
            let found = detect::mounted(mounts, "cgroup", names.first().map(String::as_str)).next();
            found.map(|(_, point)| point.into())
        })
    }

    fn mount_of_v2(&mut self) -> Option<PathBuf> {
        let usual = Path::new(ROOT).join("unified");
        if is(&usual, CGROUP2_SUPER_MAGIC) {
            return Some(usual);
        }
        let mounts = self.mounts.get_or_insert_with(mountinfo);
        detect::mounted(mounts, "cgroup2", None).next().map(|(_, point)| point.into())
    }

    /// The path of the caller's own group in `tree`, for paths relative to it.
    pub(super) fn own(&self, tree: &Tree) -> Result<PathBuf, ContainerCgroupError> {
        let mut memberships = detect::memberships(&self.memberships);
        let named = |own: &detect::Membership<'_>| match tree.names.first() {
            Some(first) => own.controllers.split(',').any(|name| name == first),
            None => own.controllers.is_empty(),
        };
        let absent = |why| ContainerCgroupError::Absent { why };
        let own = memberships.find(named).map(|own| own.path);
        let own = own.ok_or_else(|| absent(format!("the caller is in no group of {}", tree.point.display())))?;
        // The group is outside this process's cgroup namespace.
        if own.split('/').any(|part| part == "..") {
            return Err(absent(format!("the caller's cgroup {own} is out of its sight")));
        }
        let usual: PathBuf = tree.point.join(own.trim_matches('/')).components().collect();
        if is(&usual, tree.file_system()) {
            return Ok(usual);
        }
        // As in a container that sees the host's /proc/self/cgroup and a part of the tree.
        let kind = if tree.names.is_empty() { "cgroup2" } else { "cgroup" };
        let read;
        let mounts = match &self.mounts {
            Some(mounts) => mounts,
            None => {
                read = mountinfo();
                &read
            }
        };
        detect::in_mountinfo(mounts, kind, tree.names.first().map(String::as_str), own)
            .ok_or_else(|| absent(format!("the caller's cgroup {own} is not below {}", tree.point.display())))
    }
}

fn mountinfo() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
}

fn is(path: &Path, kind: FsType) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == kind)
}
