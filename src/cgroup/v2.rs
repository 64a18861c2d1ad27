//! cgroup v2: one tree, one leaf.
//!
//! Source of file names and meanings: the kernel's `admin-guide/cgroup-v2.rst`.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::{errno::Errno, fcntl::OFlag, sys::statfs::CGROUP2_SUPER_MAGIC};

use super::{
    Caps, CgroupError, Controller, Controllers, Events, PARENT, Place, Shortage, Usage,
    group::{self, Group},
    usage::{keyed, number},
};
use crate::request::limits::Bytes;

const CONTROL: &str = "cgroup.subtree_control";

/// The group that the parent of all leaves is in.
#[derive(Debug)]
pub struct Tree {
    base: Group,
    /// The groups above it that this process may write to, topmost first: to have a controller in
    /// `base`, it must be enabled in each of them.
    above: Vec<Group>,
    has: Controllers,
    /// What leaves are made in, if that is not the parent of all.
    cohort: Option<Place>,
}

impl Tree {
    /// The base is the nearest group, from `own` upwards, that may have children with controllers:
    /// one without processes (the "no internal process" rule), or the root.
    pub(super) fn above(own: &Path) -> Result<Self, String> {
        let mut above: Vec<Group> = Vec::new();
        let mut why = None;
        for path in own.ancestors() {
            // Past the mount point.
            let Ok(group) = Group::open(path.to_owned(), CGROUP2_SUPER_MAGIC) else { break };
            match if above.is_empty() { fit(&group) } else { writable(&group) } {
                Ok(()) => above.push(group),
                Err(reason) if above.is_empty() => _ = why.get_or_insert(reason),
                Err(_) => break,
            }
        }
        above.reverse();
        let base = above.pop().ok_or_else(|| why.unwrap_or_else(|| format!("{} is no cgroup", own.display())))?;
        Self::new(base, above)
    }

    pub(super) fn at(path: PathBuf) -> Result<Self, String> {
        let base = Group::open(path, CGROUP2_SUPER_MAGIC)?;
        fit(&base)?;
        Self::new(base, Vec::new())
    }

    fn new(base: Group, above: Vec<Group>) -> Result<Self, String> {
        let top = above.first().unwrap_or(&base);
        let list = top.read("cgroup.controllers").map_err(|errno| {
            format!("{} cannot be read: {}", top.path("cgroup.controllers").display(), errno.desc())
        })?;
        let on = |controller: Controller| list.split_ascii_whitespace().any(|name| name == controller.name());
        let has = Controllers::of(Controller::ALL.map(|c| (c, on(c) || c == Controller::CpuTime)));
        Ok(Self { base, above, has, cohort: None })
    }

    pub(super) fn has(&self) -> Controllers {
        self.has
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.base.path(name)
    }

    pub(super) fn remove(&self, name: &str, patience: Duration) -> Result<(), CgroupError> {
        // Before 5.14 there is no such file; what is in there dies by itself.
        _ = self.base.write(&format!("{name}/cgroup.kill"), "1");
        self.base.remove(name, patience)
    }

    pub(super) fn parent(&self) -> &str {
        self.cohort.as_ref().map_or(PARENT, |place| &place.name)
    }

    pub(super) fn move_to(&mut self, place: &Place) {
        self.cohort = Some(place.clone());
    }

    pub(super) fn make_cohort(&self, name: &str, caps: &Caps) -> Result<(), CgroupError> {
        self.make(name)?;
        self.apply(name, caps).inspect_err(|_| _ = self.base.remove(name, super::DYING))
    }

    fn make(&self, name: &str) -> Result<(), CgroupError> {
        group::undisturbed(|| match self.base.make(name) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => Err(CgroupError::Exists { path: self.path(name) }),
            Err(errno) => {
                // The parent is made when missed, as it nearly always exists.
                if errno == Errno::ENOENT {
                    match self.base.make(PARENT) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(errno) => return Err(self.base.failed("create", PARENT)(errno)),
                    }
                }
                Err(self.base.failed("create", name)(errno))
            }
        })
    }

    fn apply(&self, name: &str, caps: &Caps) -> Result<(), CgroupError> {
        if let Some(memory) = caps.memory {
            self.write(Controller::Memory, name, "memory.max", &memory.get().to_string())?;
            match self.write(Controller::Memory, name, "memory.swap.max", "0") {
                // A kernel without swap, or one told not to account for it.
                Err(CgroupError::Io { source: Errno::ENOENT, .. }) => {}
                result => result?,
            }
        }
        if let Some(pids) = caps.pids {
            self.write(Controller::Pids, name, "pids.max", &pids.to_string())?;
        }
        if let Some(cpu) = caps.cpu {
            self.write(Controller::Cpu, name, "cpu.max", &format!("{} {}", cpu.quota_us, cpu.period_us))?;
        }
        Ok(())
    }

    /// Writes a controller's file. That it is missing is how one learns, at no cost when all is well,
    /// that the controller is not enabled yet.
    fn write(&self, controller: Controller, name: &str, file: &str, value: &str) -> Result<(), CgroupError> {
        let path = format!("{name}/{file}");
        match self.base.write(&path, value) {
            Err(Errno::ENOENT) => {
                self.enable(controller)?;
                self.base.write(&path, value)
            }
            result => result,
        }
        .map_err(self.base.failed("write", &path))
    }

    /// Enabling twice, or by two processes at once, does no harm.
    fn enable(&self, controller: Controller) -> Result<(), CgroupError> {
        let value = format!("+{controller}");
        for group in self.above.iter().chain([&self.base]) {
            group.write(CONTROL, &value).map_err(group.failed("enable a controller in", CONTROL))?;
        }
        // The cohort after what it is in.
        let cohort = self.cohort.as_ref().map(|place| place.name.as_str());
        for name in [PARENT].into_iter().chain(cohort) {
            let control = format!("{name}/{CONTROL}");
            self.base.write(&control, &value).map_err(self.base.failed("enable a controller in", &control))?;
        }
        Ok(())
    }
}

/// Whether sandboxes can live below this group, or why not.
fn fit(group: &Group) -> Result<(), String> {
    writable(group)?;
    // The root, of all groups, has no type.
    if !group.has("cgroup.type") {
        return Ok(());
    }
    match group.read("cgroup.procs") {
        Ok(text) if text.is_empty() => Ok(()),
        Ok(_) => Err(format!(
            "{} has processes of its own, so the kernel lets no group below it",
            group.own_path().display()
        )),
        Err(errno) => Err(format!("{} cannot be read: {}", group.path("cgroup.procs").display(), errno.desc())),
    }
}

/// Starting a process in a group below this one takes write access to its `cgroup.procs` as well.
fn writable(group: &Group) -> Result<(), String> {
    [".", "cgroup.procs", CONTROL]
        .iter()
        .try_for_each(|name| group.writable(name))
        .map_err(|errno| format!("{} is not ours to change: {}", group.own_path().display(), errno.desc()))
}

#[derive(Debug)]
pub(super) struct Leaf {
    tree: Arc<Tree>,
    name: String,
    dir: OwnedFd,
    removed: bool,
}

impl Leaf {
    pub(super) fn create(tree: &Arc<Tree>, name: String, caps: &Caps) -> Result<Self, CgroupError> {
        tree.make(&name)?;
        let dir = tree.base.open_file(&name, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(|errno| {
            let _ = tree.base.remove(&name, super::DYING);
            tree.base.failed("open", &name)(errno)
        })?;
        let leaf = Self { tree: Arc::clone(tree), name, dir, removed: false };
        tree.apply(&leaf.name, caps)?;
        if caps.memory.is_some() {
            // A sandbox that lost one process at random would go on in a state nobody foresaw.
            tree.write(Controller::Memory, &leaf.name, "memory.oom.group", "1")?;
        }
        Ok(leaf)
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(super) fn set(&self, caps: &Caps) -> Result<(), CgroupError> {
        self.tree.apply(&self.name, caps)
    }

    pub(super) fn events(&self) -> Result<Events, CgroupError> {
        let count = |file: &str, key| {
            let path = self.file(file);
            match self.tree.base.read(&path) {
                Ok(text) => Ok(keyed(&text, key)),
                // The controller is not enabled, so it holds no limit that could be hit.
                Err(Errno::ENOENT) if self.tree.base.has(&self.name) => Ok(0),
                Err(errno) => Err(self.tree.base.failed("read", &path)(errno)),
            }
        };
        Ok(Events { oom_kills: count("memory.events", "oom_kill")?, pids_max_hits: count("pids.events", "max")? })
    }

    /// `memory.events` has, beside the kills for whatever reason, how often this very limit was why.
    pub(super) fn shortage(&self) -> Shortage {
        let ran_out = |path: &str| self.tree.base.read(path).ok().map(|text| keyed(&text, "oom") > 0);
        if ran_out(&self.file("memory.events")) != Some(false) {
            return Shortage::Own;
        }
        match &self.tree.cohort {
            Some(Place { name, memory: Some(most) })
                if ran_out(&format!("{name}/memory.events.local")) != Some(false) =>
            {
                Shortage::Cohort { most: *most }
            }
            _ => Shortage::Above,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let read = |file| self.tree.base.read(&self.file(file)).ok();
        Usage {
            // Linux 5.19.
            peak_memory: read("memory.peak").and_then(|text| number(&text)).map(Bytes::new),
            cpu_time: read("cpu.stat").map(|text| Duration::from_micros(keyed(&text, "usage_usec"))),
        }
    }

    pub(super) fn pids(&self) -> Vec<i32> {
        self.tree.base.read(&self.file("cgroup.procs")).map_or_else(|_| Vec::new(), |text| group::pids(&text))
    }

    pub(super) fn kill(&self) -> Result<bool, CgroupError> {
        let path = self.file("cgroup.kill");
        match self.tree.base.write(&path, "1") {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) if self.tree.base.has(&self.name) => Ok(false),
            Err(errno) => Err(self.tree.base.failed("write", &path)(errno)),
        }
    }

    pub(super) fn remove(&mut self) -> Result<(), CgroupError> {
        // Once only: the name may be another's afterwards.
        if std::mem::replace(&mut self.removed, true) {
            Ok(())
        } else {
            self.tree.base.remove(&self.name, super::DYING)
        }
    }

    fn file(&self, file: &str) -> String {
        format!("{}/{file}", self.name)
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}
