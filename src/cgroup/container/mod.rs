//! The cgroups of one container: where a spec wants them, with what it wants limited.
//!
//! A [`Layout`] is looked up, a [`Place`] is decided from it and from `cgroupsPath`, its [`Record`] is saved, and
//! only then a [`Group`] is created: whenever a runtime is killed, the record finds everything it may have made.
//! Unlike a sandbox's leaf a container's group is not removed on drop: the runtime leaves, the container stays.
//!
//! Creating is all or nothing, and a group in which somebody is, or which is frozen, is not taken. The first process
//! then gets in without being moved from outside, as [`super`] says: cloned into [`Group::clone_into`], and writing
//! `0` to each of [`Group::join_fds`]. Under systemd a scope cannot be without a process, so that the groups come to
//! be in [`Group::adopt`], and both are empty until then.
//!
//! On a host with v1 trees the container is in a group of every one that runc would put it in, limited there or not,
//! and on a hybrid one in a group of the v2 tree as well. The rules for rootless callers are runc's too: one that
//! names no path and wants nothing limited gets what groups it may, if any; asking for more is an error.

mod convert;
mod delegate;
mod devices;
mod error;
mod freeze;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod layout;
mod make;
mod members;
mod oom;
mod place;
pub mod resctrl;
mod slots;
mod stats;
mod systemd;
#[cfg(test)]
mod tests;
mod v1;
mod v2;
mod walk;

use std::{
    cell::OnceCell,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path},
};

use oci_spec::runtime as oci;

pub use error::ContainerCgroupError;
pub use layout::Layout;
pub use oom::{OomEvent, OomWatch};
pub use place::{Place, Record};
pub use stats::Stats;

use place::Version;
use slots::Slots;

/// Who makes the groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// The runtime, by making directories.
    Cgroupfs,
    /// systemd, as a transient scope; of the user's own systemd or of the host's.
    Systemd { user: bool },
    /// Nobody: the container stays in the caller's groups, and nothing can be limited.
    Disabled,
}

/// What a container is to have beside a place.
#[derive(Debug, Clone, Copy, Default)]
pub struct Want<'a> {
    pub resources: Option<&'a oci::LinuxResources>,
    /// Rules that follow the spec's; the devices that every container has are allowed anyway.
    pub devices: &'a [oci::LinuxDeviceCgroup],
    /// Leave the device rules to [`Group::guard_devices`], which is called before anything but fumehood runs in it. In v1
    /// they come at once.
    pub devices_later: bool,
    /// The host's id of whom the v2 group is given to, to make groups within.
    pub owner: Option<u32>,
    /// Properties for systemd's unit, from the annotations `org.systemd.property.*`.
    pub annotations: Option<&'a std::collections::HashMap<String, String>>,
}

/// The cgroups of one container. Not removed on drop.
#[derive(Debug)]
pub struct Group {
    record: Record,
    slots: Slots,
    joins: OnceCell<Vec<OwnedFd>>,
    /// What is still to be done, once there is a process.
    pending: Option<Pending>,
    unguarded: Option<Vec<devices::Rule>>,
}

#[derive(Debug)]
struct Pending {
    place: Place,
    resources: Option<oci::LinuxResources>,
    rules: Vec<devices::Rule>,
    owner: Option<u32>,
    properties: systemd::Properties,
}

type Result<T, E = ContainerCgroupError> = std::result::Result<T, E>;

impl Group {
    /// Makes all groups with their limits in force, or none. With systemd it only checks what was asked.
    ///
    /// # Errors
    /// When what was asked cannot be held, when a group exists that is not empty or frozen, or when the kernel
    /// refuses.
    pub fn create(place: &Place, want: &Want<'_>) -> Result<Self> {
        let asked = want.resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
        let rules = devices::rules(asked, want.devices)?;
        let record = place.record.clone();
        check(&record, want.resources)?;
        let mut group =
            Self { record, slots: Slots::default(), joins: OnceCell::new(), pending: None, unguarded: None };
        if let Some(unit) = &place.record.unit {
            group.pending = Some(Pending {
                place: place.clone(),
                resources: want.resources.cloned(),
                properties: systemd::properties(unit, want, place.record.version)?,
                rules,
                owner: want.owner,
            });
            return Ok(group);
        }
        let (slots, made) = make::make(place, want.resources)?;
        group.slots = slots;
        group.set_up(place, want.resources, want.owner)?;
        // In v1 all devices are taken away before they are given back one by one: whoever is in the group by then finds
        // none of them for a moment, not even a terminal.
        match want.devices_later && group.record.version != Version::V1 {
            true => group.unguarded = Some(rules),
            false => group.apply_devices(&rules)?,
        }
        // Opened now: a group nobody can get into is no group.
        group.join_fds().map(drop)?;
        made.keep();
        Ok(group)
    }

    /// What is there of the recorded groups.
    pub fn open(record: &Record) -> Result<Self> {
        let slots = make::find(record)?;
        Ok(Self { record: record.clone(), slots, joins: OnceCell::new(), pending: None, unguarded: None })
    }

    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether any of the groups is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.slots.0.is_empty()
    }

    /// Whether the first process must be started outside and given to [`Self::adopt`] (systemd).
    #[must_use]
    pub fn needs_process(&self) -> bool {
        self.pending.is_some()
    }

    /// The v2 directory to give `clone3` as `cgroup`; a hybrid host has one beside the [`Self::join_fds`].
    #[must_use]
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.slots.v2().map(super::group::Group::dir)
    }

    /// Open files of the v1 trees, close-on-exec, to each of which the child writes `0` before anything else.
    pub fn join_fds(&self) -> Result<impl Iterator<Item = BorrowedFd<'_>>> {
        if self.joins.get().is_none() {
            let _ = self.joins.set(make::open_joins(&self.slots)?);
        }
        Ok(self.joins.get().into_iter().flatten().map(AsFd::as_fd))
    }

    /// Puts a process into all groups, from outside. With systemd, the first makes the scope, and whatever fails
    /// then takes the scope away again.
    pub fn adopt(&mut self, pid: i32) -> Result<()> {
        if let (Some(pending), Some(unit)) = (self.pending.take(), self.record.unit.clone()) {
            let resources = pending.resources.as_ref();
            systemd::start(&unit, &pending.properties, resources, &pending.rules, self.record.version, pid)?;
            if let Err(error) = self.furnish(&pending) {
                let _ = systemd::stop(&unit);
                return Err(error);
            }
        }
        for slot in &self.slots.0 {
            match members::admit(&slot.group, pid) {
                Err(error) if error.is_permission() && self.record.lenient() => {}
                // The v2 tree of a hybrid host limits nothing.
                Err(_) if slot.names.is_empty() && self.record.version == Version::V1 => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// What systemd does not do: it knows neither all controllers nor all settings.
    fn furnish(&mut self, pending: &Pending) -> Result<()> {
        let (slots, made) = make::make(&pending.place, pending.resources.as_ref())?;
        self.slots = slots;
        self.set_up(&pending.place, pending.resources.as_ref(), pending.owner)?;
        self.apply_devices(&pending.rules)?;
        made.keep();
        Ok(())
    }

    /// Puts the device rules in force that [`Want::devices_later`] put off.
    pub fn guard_devices(&self) -> Result<()> {
        self.unguarded.as_ref().map_or(Ok(()), |rules| self.apply_devices(rules))
    }

    fn set_up(&self, place: &Place, resources: Option<&oci::LinuxResources>, owner: Option<u32>) -> Result<()> {
        if let Some(resources) = resources {
            self.apply(resources)?;
        }
        for spot in place.spots.iter().filter(|spot| spot.tree.names.iter().any(|name| name == "cpuset")) {
            if self.slots.v1("cpuset").is_some() {
                make::fill_cpuset(&spot.path, &spot.tree.point)?;
            }
        }
        match (owner, self.slots.v2()) {
            (Some(owner), Some(group)) if self.record.version == Version::V2 => match delegate::give(group, owner) {
                // An ordinary user has nothing that could be given away.
                Err(error) if error.is_permission() && self.record.rootless => Ok(()),
                result => result,
            },
            _ => Ok(()),
        }
    }

    /// Changes what the resources speak of, and leaves the rest.
    pub fn update(&self, resources: &oci::LinuxResources) -> Result<()> {
        check(&self.record, Some(resources))?;
        let rules = match resources.devices() {
            Some(asked) => Some(devices::rules(asked, &[])?),
            None => None,
        };
        if let Some(unit) = &self.record.unit {
            let update = || systemd::update(unit, resources, rules.as_deref(), self.record.version);
            if self.record.version == Version::V1 && rules.is_some() {
                // systemd takes all devices away and gives them back one by one.
                self.standing_still(update)?;
            } else {
                update()?;
            }
        }
        self.apply(resources)?;
        rules.map_or(Ok(()), |rules| self.apply_devices(&rules))
    }

    fn standing_still<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let target = freeze::target(&self.slots).filter(|group| !freeze::is_frozen(group));
        let Some(target) = target else { return act() };
        freeze::freeze(target)?;
        let result = act();
        freeze::thaw(target)?;
        result
    }

    fn apply(&self, resources: &oci::LinuxResources) -> Result<()> {
        match (self.record.version, self.slots.v2()) {
            (Version::V1, _) => v1::apply(&self.slots, resources, |controller| {
                if self.record.lenient() {
                    return ContainerCgroupError::NotJoined { controller };
                }
                ContainerCgroupError::NoController { setting: "a limit".to_owned(), controller: controller.to_owned() }
            }),
            (Version::V2, Some(group)) => v2::apply(group, resources),
            (Version::V2, None) | (Version::None, _) if v2::needs(resources) => Err(without_cgroups()),
            (Version::V2, None) | (Version::None, _) => Ok(()),
        }
    }

    fn apply_devices(&self, rules: &[devices::Rule]) -> Result<()> {
        if self.record.version == Version::None || devices::in_user_namespace() {
            return Ok(());
        }
        let result = match (self.record.version, self.slots.v1("devices"), self.slots.v2()) {
            (Version::V2, _, Some(group)) => devices::attach(group, rules),
            (Version::V1, Some(group), _) => devices::write(group, rules),
            _ => Err(ContainerCgroupError::NoController {
                setting: "the device rules".to_owned(),
                controller: "devices".to_owned(),
            }),
        };
        // An ordinary user can neither set the rules nor make or open what they would forbid.
        if self.record.rootless { Ok(()) } else { result }
    }

    /// All processes, those in nested groups too, as pids of the caller's pid namespace.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.slots.main().map_or(Ok(Vec::new()), members::list)
    }

    /// Returns when no process of the container moves any more; failing that, all do.
    pub fn freeze(&self) -> Result<()> {
        freeze::freeze(self.freezer()?)
    }

    pub fn thaw(&self) -> Result<()> {
        freeze::thaw(self.freezer()?)
    }

    fn freezer(&self) -> Result<&super::group::Group> {
        freeze::target(&self.slots).ok_or_else(|| ContainerCgroupError::NoController {
            setting: "whether it is frozen".to_owned(),
            controller: "freezer".to_owned(),
        })
    }

    #[must_use]
    pub fn is_frozen(&self) -> bool {
        freeze::target(&self.slots).is_some_and(freeze::is_frozen)
    }

    /// Sends a signal to every process of the container. SIGKILL returns when they are gone, frozen or not.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        members::signal(&self.slots, signal)
    }

    /// What the container uses, in the form of `events --stats`.
    pub fn stats(&self) -> Result<Stats> {
        stats::read(&self.slots, self.record.version)
    }

    /// Tells when a process is killed because the memory limit is reached. What happened before is not told.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        oom::watch(&self.slots, self.record.version)
    }

    /// Removes the groups if nobody is in them and nothing is nested in them, at the price of one call each; whether
    /// they are gone.
    #[must_use]
    pub fn remove_empty(record: &Record) -> bool {
        let gone = |path: &Path| match std::fs::remove_dir(path) {
            Ok(()) => true,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        record.unit.is_none() && record.groups().into_iter().all(|(_, path, _)| gone(path))
    }

    /// Removes all groups with what is nested in them, waiting for processes that are just dying.
    pub fn remove(self) -> Result<()> {
        let stopped = self.record.unit.as_ref().map_or(Ok(()), systemd::stop);
        // Each is tried, whatever became of another.
        let removed: Vec<_> = self.slots.0.iter().map(|slot| members::remove(&slot.group)).collect();
        removed.into_iter().fold(Ok(()), Result::and).and(stopped)
    }
}

impl Record {
    /// As [`Group::is_frozen`], at the cost of a file: for `state`, which engines ask for all the time.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.groups().into_iter().filter(|(names, ..)| names.contains(&"freezer") || self.version == Version::V2).any(
            |(_, path, kind)| {
                super::group::Group::at(path.to_owned(), kind).is_ok_and(|group| freeze::is_frozen(&group))
            },
        )
    }

    /// The groups named `sub` below the container's, for `exec --cgroup`: of these v1 controllers, or of all.
    ///
    /// # Errors
    /// When it leads out of the container's group, or a controller has none.
    pub fn below(&self, controllers: Option<&str>, sub: &str) -> Result<Self> {
        let bad = |why| ContainerCgroupError::BadPath { path: sub.to_owned(), why };
        let sub = sub.trim_start_matches('/');
        if Path::new(sub).components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(bad("bad sub cgroup path"));
        }
        let mut record = self.clone();
        let named: Option<Vec<&str>> = controllers.map(|list| list.split(',').collect());
        if let Some(unknown) = named.iter().flatten().find(|name| !self.paths.contains_key(**name)) {
            return Err(bad(if unknown.is_empty() { "no controller" } else { "unknown controller" }));
        }
        let change =
            record.paths.iter_mut().filter(|(name, _)| named.as_ref().is_none_or(|list| list.contains(&name.as_str())));
        // Not `join`, which would end an empty one with a slash.
        change.for_each(|(_, path)| path.extend(Path::new(sub)));
        Ok(record)
    }

    /// As [`Self::below`], of groups that are there: a process that is put into some of them only is free of the
    /// limits of the others.
    pub fn existing_below(&self, controllers: Option<&str>, sub: &str) -> Result<Self> {
        let record = self.below(controllers, sub)?;
        match record.paths.iter().find(|(name, path)| self.paths.get(*name) != Some(path) && !path.is_dir()) {
            None => Ok(record),
            Some((_, path)) => {
                Err(ContainerCgroupError::Io { action: "open", path: path.clone(), source: nix::errno::Errno::ENOENT })
            }
        }
    }

    /// On v2, the group that this process of the container is in, to join it there: it may have moved itself to one
    /// below, after which the kernel lets nobody into the container's own. Nothing else is to be done with it.
    #[must_use]
    pub fn of_process(&self, pid: i32) -> Option<Self> {
        let mount = self.mount.as_ref().filter(|_| self.version == Version::V2)?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let path = super::detect::memberships(&text).find(|one| one.controllers.is_empty())?.path;
        if path.split('/').any(|part| part == "..") {
            return None;
        }
        let mut record = self.clone();
        record.unit = None;
        record.paths.insert(String::new(), mount.join(path.trim_start_matches('/')));
        Some(record)
    }
}

/// What can be refused before anything is made.
fn check(record: &Record, resources: Option<&oci::LinuxResources>) -> Result<()> {
    let Some(resources) = resources else { return Ok(()) };
    match record.version {
        Version::V1 => Ok(()),
        Version::V2 => v2::check(resources),
        Version::None if v2::needs(resources) => Err(without_cgroups()),
        Version::None => Ok(()),
    }
}

fn without_cgroups() -> ContainerCgroupError {
    ContainerCgroupError::Absent { why: "cannot set limits without cgroups".to_owned() }
}
