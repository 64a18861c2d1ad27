//! Where a container's cgroups are to be: decided from the facts and the spec, nothing made.
//!
//! runc's rules, since engines rely on them. With cgroupfs an absolute `cgroupsPath` is taken below the mount point
//! of each tree (which is the caller's own root, where it is in a cgroup namespace), a relative one, and the id where
//! there is none, below the caller's own group; on v2 below that group's parent, since a group with processes
//! cannot have children with controllers. With systemd it is `SLICE:PREFIX:NAME`.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use nix::sys::statfs::FsType;
use serde::{Deserialize, Serialize};

use super::{
    ContainerCgroupError, Driver,
    layout::{Kind, Layout, Tree},
    systemd,
};

/// The cgroups a container will have.
#[derive(Debug, Clone)]
pub struct Place {
    pub(super) record: Record,
    pub(super) spots: Vec<Spot>,
}

/// One group, of one tree.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) tree: Tree,
    pub(super) path: PathBuf,
}

/// What is needed to find a container's cgroups again. It is known before any is made, and saved before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub(super) version: Version,
    /// By controller, as in runc's `cgroup_paths`; the v2 group has an empty name.
    pub(super) paths: BTreeMap<String, PathBuf>,
    /// Where the v2 tree is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mount: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<Unit>,
    /// The caller may lack permission, for which device rules are let off.
    #[serde(default)]
    pub(super) rootless: bool,
    /// The spec names a path, so that not getting it is an error even when rootless.
    #[serde(default)]
    pub(super) stated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Version {
    V1,
    V2,
    None,
}

/// A unit of systemd's that holds the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) slice: String,
    /// Of the user's own manager.
    pub(super) user: bool,
}

impl Place {
    /// # Errors
    /// For a path that cannot be one, for a host without cgroups, and when the user's systemd, which alone
    /// knows where its groups are, does not answer.
    pub fn decide(
        layout: &Layout,
        driver: Driver,
        cgroups_path: Option<&Path>,
        id: &str,
        rootless: bool,
    ) -> Result<Self, ContainerCgroupError> {
        let stated = cgroups_path.filter(|path| !path.as_os_str().is_empty());
        let mut record = Record {
            version: Version::None,
            paths: BTreeMap::new(),
            mount: None,
            unit: None,
            rootless,
            stated: stated.is_some(),
        };
        let (version, trees) = match &layout.kind {
            _ if driver == Driver::Disabled => return Ok(Self { record, spots: Vec::new() }),
            // A rootless caller that asks for nothing goes without, as without permission.
            Kind::None { .. } if rootless && stated.is_none() => return Ok(Self { record, spots: Vec::new() }),
            Kind::None { why } => return Err(ContainerCgroupError::Absent { why: why.clone() }),
            Kind::V2(tree) => (Version::V2, std::slice::from_ref(tree)),
            Kind::V1(trees) => (Version::V1, trees.as_slice()),
        };
        record.version = version;
        let below = match driver {
            Driver::Systemd { user } => {
                if user && version == Version::V1 {
                    let what = "a user's systemd has no cgroups on a v1 host".to_owned();
                    return Err(ContainerCgroupError::Systemd { what });
                }
                let (unit, below) = systemd::place(stated, id, user)?;
                record.unit = Some(unit);
                Below::Mount(below)
            }
            Driver::Cgroupfs | Driver::Disabled => match stated {
                Some(path) if path.is_absolute() => Below::Mount(clean(path)?),
                Some(path) => Below::Own(clean(path)?),
                None => Below::Own(clean(Path::new(id))?),
            },
        };
        let mut spots = Vec::with_capacity(trees.len());
        for tree in trees {
            let path = match below.path(layout, tree, version) {
                // Out of its sight is out of its reach.
                Err(_) if record.lenient() => continue,
                result => result?,
            };
            if tree.names.is_empty() {
                record.paths.insert(String::new(), path.clone());
                record.mount = Some(tree.point.clone());
            }
            record.paths.extend(tree.names.iter().map(|name| (name.clone(), path.clone())));
            spots.push(Spot { tree: tree.clone(), path });
        }
        Ok(Self { record, spots })
    }

    /// To be saved before [`super::Group::create`], so that what a killed runtime made is found.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }
}

/// A path relative to what.
enum Below {
    Mount(PathBuf),
    Own(PathBuf),
}

impl Below {
    fn path(&self, layout: &Layout, tree: &Tree, version: Version) -> Result<PathBuf, ContainerCgroupError> {
        match self {
            Self::Mount(path) => Ok(tree.point.join(path)),
            Self::Own(path) => {
                let own = layout.own(tree)?;
                let above = if version == Version::V2 && own != tree.point { own.parent() } else { None };
                Ok(above.unwrap_or(&own).join(path))
            }
        }
    }
}

impl Record {
    /// The groups, each once, with the controllers it has and the kind of its file system.
    pub(super) fn groups(&self) -> Vec<(Vec<&str>, &Path, FsType)> {
        let mut groups: Vec<(Vec<&str>, &Path, FsType)> = Vec::new();
        for (name, path) in &self.paths {
            match groups.iter_mut().find(|(_, known, _)| known == path) {
                Some((names, ..)) => names.push(name),
                None => {
                    let names = if name.is_empty() { Vec::new() } else { vec![name.as_str()] };
                    let kind = Tree { names: names.iter().map(ToString::to_string).collect(), point: PathBuf::new() };
                    groups.push((names, path, kind.file_system()));
                }
            }
        }
        groups
    }

    /// Whether lack of permission leaves the container without a group, or with fewer, rather than failing.
    pub(super) fn lenient(&self) -> bool {
        self.rootless && !self.stated
    }

    /// The group's path in the tree of `controller`, empty for v2.
    #[must_use]
    pub fn path(&self, controller: &str) -> Option<&Path> {
        self.paths.get(controller).map(PathBuf::as_path)
    }

    /// Every group, with the controllers of its tree, joined; none for v2.
    pub fn directories(&self) -> impl Iterator<Item = (String, &Path)> {
        self.groups().into_iter().map(|(names, path, _)| (names.join(","), path))
    }

    /// The group that is frozen, as a path.
    #[must_use]
    pub fn freezer(&self) -> Option<&Path> {
        self.path(if self.version == Version::V2 { "" } else { "freezer" })
    }

    /// The unit of systemd's that holds the container.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_ref().map(|unit| unit.name.as_str())
    }
}

/// The path without `.` and `..`, which lead no further up than the root, and without a leading slash.
fn clean(path: &Path) -> Result<PathBuf, ContainerCgroupError> {
    let bad = |why| ContainerCgroupError::BadPath { path: path.display().to_string(), why };
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => _ = clean.pop(),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    if clean.as_os_str().is_empty() {
        return Err(bad("it leads to the root of the tree, which is no container's"));
    }
    if clean.to_str().is_none_or(|text| text.contains(['\n', '\0'])) {
        return Err(bad("it is no name the kernel takes"));
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_root() {
        let cleaned = |path: &str| clean(Path::new(path)).map(|path| path.to_str().unwrap().to_owned()).ok();
        assert_eq!(cleaned("/docker/abc").as_deref(), Some("docker/abc"));
        assert_eq!(cleaned("a/./b//c/").as_deref(), Some("a/b/c"));
        assert_eq!(cleaned("../../../../etc").as_deref(), Some("etc"));
        assert_eq!(cleaned("/a/../../b").as_deref(), Some("b"));
        for nothing in ["/", ".", "/..", "a/..", "a\nb"] {
            assert_eq!(cleaned(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn on_v2_a_relative_path_lies_beside_the_callers_group() {
        let layout = Layout::v2_at(Path::new("/nowhere"), "/");
        let decide = |path: &str| Place::decide(&layout, Driver::Cgroupfs, Some(Path::new(path)), "id", false);
        let place = decide("/docker/abc").unwrap();
        assert_eq!(place.record.path(""), Some(Path::new("/nowhere/docker/abc")));
        assert_eq!(place.record.version, Version::V2);
        assert!(decide("/").is_err());
    }

    #[test]
    fn a_record_survives() {
        let paths = [("cpu", "/c/cpu"), ("cpuacct", "/c/cpu"), ("memory", "/c/memory"), ("", "/c/unified")];
        let record = Record {
            version: Version::V1,
            paths: paths.map(|(name, path)| (name.to_owned(), path.into())).into(),
            mount: Some("/c".into()),
            unit: Some(Unit { name: "a-b.scope".to_owned(), slice: "system.slice".to_owned(), user: false }),
            rootless: true,
            stated: true,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        let groups = record.groups();
        assert_eq!(groups.len(), 3);
        assert!(groups.iter().any(|(names, ..)| *names == ["cpu", "cpuacct"]));
        assert!(groups.iter().any(|(names, path, _)| names.is_empty() && *path == Path::new("/c/unified")));
    }

    #[test]
    fn disabled_is_no_group() {
        let layout = Layout::v2_at(Path::new("/nowhere"), "/");
        let place = Place::decide(&layout, Driver::Disabled, Some(Path::new("/a")), "id", false).unwrap();
        assert!(place.spots.is_empty() && place.record.paths.is_empty());
    }
}
