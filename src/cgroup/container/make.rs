//! Making the groups: their parents, what a child inherits by hand, and taking it all back when one fails.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag, sys::statfs::CGROUP2_SUPER_MAGIC};

use oci_spec::runtime::LinuxResources;

use super::{
    super::group::{Group, errno},
    ContainerCgroupError, freeze,
    layout::Tree,
    place::{Place, Record, Spot, Version},
    slots::{Slot, Slots, put},
    v2, walk,
};

type Result<T = ()> = std::result::Result<T, ContainerCgroupError>;

/// The directories that were not there before. Dropped, they are removed again.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    pub(super) fn keep(mut self) {
        self.0.clear();
    }

    /// Makes the group; `false` when it was there.
    fn make(&mut self, path: &Path) -> Result<bool> {
        match fs::create_dir(path) {
            Ok(()) => {
                self.0.push(path.to_owned());
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => {
                Err(ContainerCgroupError::Io { action: "create", path: path.to_owned(), source: errno(&error) })
            }
        }
    }

    /// With its parents, which nearly always exist.
    fn make_deep(&mut self, path: &Path) -> Result<bool> {
        match self.make(path) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => {
                self.make_deep(path.parent().ok_or(error)?)?;
                self.make(path)
            }
            result => result,
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.drain(..).rev() {
            let _ = fs::remove_dir(path);
        }
    }
}

/// Makes and opens all groups of the place, or, when rootless and nothing was asked for, those it may.
pub(super) fn make(place: &Place, resources: Option<&LinuxResources>) -> Result<(Slots, Made)> {
    let mut made = Made::default();
    let mut slots = Vec::with_capacity(place.spots.len());
    for spot in &place.spots {
        // A scope of systemd's has the first process in it by now.
        let unused = |new| new || place.record.unit.is_some();
        match undisturbed(|| make_one(&mut made, place, spot, resources).and_then(|new| open(spot, unused(new)))) {
            Ok(slot) => slots.push(slot),
            // The v2 tree of a hybrid host limits nothing; it is there for systemd's and for our use.
            Err(error) if spot.tree.names.is_empty() && place.record.version == Version::V1 => match error {
                ContainerCgroupError::NotEmpty { .. } | ContainerCgroupError::Frozen { .. } => return Err(error),
                _ => {}
            },
            Err(error) if error.is_permission() && place.record.lenient() => {
                if let (Version::V2, Some(resources)) = (place.record.version, resources)
                    && v2::needs(resources)
                    && let ContainerCgroupError::Io { action, path, source } = error
                {
                    return Err(ContainerCgroupError::RootlessLimits { action, path, source });
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok((Slots(slots), made))
}

fn make_one(made: &mut Made, place: &Place, spot: &Spot, resources: Option<&LinuxResources>) -> Result<bool> {
    match (place.record.version, spot.tree.names.is_empty()) {
        (Version::V2, _) => make_v2(made, spot, resources),
        (_, false) => make_v1(made, spot),
        (_, true) => made.make_deep(&spot.path),
    }
}

/// Attempts again what failed because somebody removed a parent in between: another runtime that took its own back.
fn undisturbed<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..16 {
        match attempt() {
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV)) => {}
            result => return result,
        }
    }
    attempt()
}

/// Opens what is there of the groups.
pub(super) fn find(record: &Record) -> Result<Slots> {
    let mut slots = Vec::new();
    for (names, path, kind) in record.groups() {
        match Group::at(path.to_owned(), kind) {
            Ok(group) => slots.push(Slot { names: names.into_iter().map(str::to_owned).collect(), group }),
            Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(source) => return Err(ContainerCgroupError::Io { action: "open", path: path.to_owned(), source }),
        }
    }
    Ok(Slots(slots))
}

fn open(spot: &Spot, new: bool) -> Result<Slot> {
    let failed = |source| ContainerCgroupError::Io { action: "open", path: spot.path.clone(), source };
    let group = Group::at(spot.path.clone(), spot.tree.file_system()).map_err(failed)?;
    if !new {
        check_unused(&group)?;
    }
    Ok(Slot { names: spot.tree.names.clone(), group })
}

/// A group that exists is taken when nobody is in it.
fn check_unused(group: &Group) -> Result {
    let mut count = 0;
    // What is nested in it counts; what vanishes meanwhile does not.
    let walked = walk::each_below(group.dir(), |dir| {
        count += walk::read(dir, c"cgroup.procs").map_or(0, |text| text.lines().count());
        Ok(())
    });
    walked.map_err(|source| ContainerCgroupError::Io { action: "read", path: group.path(""), source })?;
    if count > 0 {
        return Err(ContainerCgroupError::NotEmpty { path: group.own_path().to_owned(), count });
    }
    if freeze::is_frozen(group) {
        return Err(ContainerCgroupError::Frozen { path: group.own_path().to_owned() });
    }
    Ok(())
}

fn make_v1(made: &mut Made, spot: &Spot) -> Result<bool> {
    let new = made.make_deep(&spot.path)?;
    if is_cpuset(&spot.tree)
        && let Some(parent) = spot.path.parent()
    {
        fill_cpuset(parent, &spot.tree.point)?;
    }
    Ok(new)
}

fn is_cpuset(tree: &Tree) -> bool {
    tree.names.iter().any(|name| name == "cpuset")
}

/// A new cpuset has no CPU and no memory node, and takes neither a process nor a child that has some. This gives it
/// its parent's, and the parent, if need be, its own parent's.
pub(super) fn fill_cpuset(path: &Path, point: &Path) -> Result {
    let io = |action| {
        let path = path.to_owned();
        move |source| ContainerCgroupError::Io { action, path, source }
    };
    let group = Group::at(path.to_owned(), nix::sys::statfs::CGROUP_SUPER_MAGIC).map_err(io("open"))?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if group.read(file).map_err(io("read"))?.trim().is_empty() {
            let Some(parent) = path.parent().filter(|_| path != point && path.starts_with(point)) else {
                return Err(io("fill")(Errno::ENOSPC));
            };
            fill_cpuset(parent, point)?;
            let from = parent.join(file);
            let value = fs::read_to_string(&from).map_err(|error| ContainerCgroupError::Io {
                action: "read",
                path: from,
                source: errno(&error),
            })?;
            put(&group, file, value.trim_end())?;
        }
    }
    Ok(())
}

/// Every group above it must hand down the controllers that its children are to have. All there are, since statistics
/// are asked for of containers that have no limit.
fn make_v2(made: &mut Made, spot: &Spot, resources: Option<&LinuxResources>) -> Result<bool> {
    let mut above: Vec<&Path> =
        spot.path.ancestors().skip(1).take_while(|path| path.starts_with(&spot.tree.point)).collect();
    above.reverse();
    for (depth, path) in above.into_iter().enumerate() {
        if depth > 0 {
            made.make(path)?;
        }
        let failed = |source| ContainerCgroupError::Io { action: "open", path: path.to_owned(), source };
        let group = Group::at(path.to_owned(), CGROUP2_SUPER_MAGIC).map_err(failed)?;
        if depth > 0 {
            check_type(&group, resources)?;
        }
        hand_down(&group);
    }
    let new = made.make(&spot.path)?;
    let failed = |source| ContainerCgroupError::Io { action: "open", path: spot.path.clone(), source };
    check_type(&Group::at(spot.path.clone(), CGROUP2_SUPER_MAGIC).map_err(failed)?, resources)?;
    Ok(new)
}

/// What cannot be handed down (a rootless caller, a group with processes of its own) is missed when it is needed.
fn hand_down(group: &Group) {
    const CONTROL: &str = "cgroup.subtree_control";
    let (Ok(there), Ok(on)) = (group.read("cgroup.controllers"), group.read(CONTROL)) else { return };
    let missing = there.split_ascii_whitespace().filter(|name| !on.split_ascii_whitespace().any(|have| have == *name));
    let wanted: Vec<_> = missing.map(|name| format!("+{name}")).collect();
    if !wanted.is_empty() && group.write(CONTROL, &wanted.join(" ")).is_err() {
        for one in wanted {
            let _ = group.write(CONTROL, &one);
        }
    }
}

/// A group below one with processes of its own is invalid as a domain, and can be of use as a threaded one, which
/// has fewer controllers.
fn check_type(group: &Group, resources: Option<&LinuxResources>) -> Result {
    // The root has none.
    let kind = group.read("cgroup.type").unwrap_or_default();
    let domain = resources.is_some_and(v2::needs_domain);
    match kind.trim_end() {
        "domain invalid" if !domain => {
            let _ = group.write("cgroup.type", "threaded");
            Ok(())
        }
        state @ ("domain invalid" | "domain threaded" | "threaded") if domain => Err(ContainerCgroupError::Absent {
            why: format!(
                "cannot enter cgroupv2 {} with domain controllers: it is in the state `{state}`",
                group.own_path().display()
            ),
        }),
        _ => Ok(()),
    }
}

/// The files through which a process puts itself in the groups by writing `0`, those of v2 left out: a process can be
/// cloned into that one.
pub(super) fn open_joins(slots: &Slots) -> Result<Vec<std::os::fd::OwnedFd>> {
    let v1 = slots.0.iter().filter(|slot| !slot.names.is_empty());
    // Not `cgroup.procs`: only a thread that moves itself alone is spared a lock that waits for milliseconds.
    v1.map(|slot| {
        let failed = |source| ContainerCgroupError::Io { action: "open", path: slot.group.path("tasks"), source };
        slot.group.open_file("tasks", OFlag::O_WRONLY).map_err(failed)
    })
    .collect()
}
