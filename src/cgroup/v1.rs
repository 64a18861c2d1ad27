//! cgroup v1: a tree per controller, a leaf in each tree that a cap needs.
//!
//! Source of file names and meanings: the kernel's `admin-guide/cgroup-v1/{memory,pids,cpuacct}.rst`
//! and `scheduler/sched-bwc.rst`.

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::eventfd::{EfdFlags, EventFd},
};

use super::{
    Caps, CgroupError, Controller, Controllers, CpuBandwidth, Events, PARENT, Place, Shortage, Usage,
    group::{self, Group},
    kept::{Kept, Shelf},
    usage::{keyed, number},
};
use crate::request::limits::Bytes;

/// The kernel charges memory in steps of this size as long as they fit.
const LAST_STEP: u64 = 256 << 10;

/// The caller's own group in each tree it may write to.
#[derive(Debug)]
pub struct Tree {
    mounts: Vec<Mount>,
    /// Memory and swap can be limited together.
    memsw: bool,
    /// What leaves are made in, in each tree, if that is not the parent of all.
    cohort: Option<Place>,
    /// Leaves that wait to be used again, where they are.
    shelf: Option<Shelf>,
}

/// One tree. `cpu` and `cpuacct` often share one.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) group: Group,
    pub(super) holds: Controllers,
}

impl Tree {
    pub(super) fn new(mounts: Vec<Mount>) -> Self {
        let memory = mounts.iter().find(|mount| mount.holds.contains(Controller::Memory));
        let memsw = memory.is_some_and(|mount| mount.group.has("memory.memsw.limit_in_bytes"));
        Self { mounts, memsw, cohort: None, shelf: None }
    }

    /// Leaves that are removed are kept from here on, as far as they can be, until the tree is dropped.
    pub(super) fn keep(&mut self) {
        self.shelf = Shelf::new();
    }

    pub(super) fn has(&self) -> Controllers {
        Controllers(self.mounts.iter().fold(0, |all, mount| all | mount.holds.0))
    }

    pub(super) fn paths(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        self.mounts.iter().map(move |mount| mount.group.path(name))
    }

    /// Of the caller's own group in the tree of this controller.
    pub(super) fn path(&self, controller: Controller) -> Option<PathBuf> {
        self.group(controller).ok().map(|group| group.path(""))
    }

    pub(super) fn remove(&self, name: &str, patience: Duration) -> Result<(), CgroupError> {
        let mut result = Ok(());
        // One that stays does not keep the others.
        for mount in &self.mounts {
            result = result.and(mount.group.remove(name, patience));
        }
        result
    }

    pub(super) fn parent(&self) -> &str {
        self.cohort.as_ref().map_or(PARENT, |place| &place.name)
    }

    pub(super) fn move_to(&mut self, place: &Place) {
        self.cohort = Some(place.clone());
    }

    /// In all trees: a leaf may come to be in any.
    pub(super) fn make_cohort(&self, name: &str, caps: &Caps) -> Result<(), CgroupError> {
        let made =
            self.mounts.iter().try_for_each(|mount| self.make(mount, name)).and_then(|()| self.apply(name, caps));
        made.inspect_err(|_| _ = self.remove(name, super::DYING))
    }

    fn group(&self, controller: Controller) -> Result<&Group, CgroupError> {
        let mount = self.mounts.iter().find(|mount| mount.holds.contains(controller));
        mount.map(|mount| &mount.group).ok_or(CgroupError::NoController { controller })
    }

    fn make(&self, mount: &Mount, name: &str) -> Result<(), CgroupError> {
        group::undisturbed(|| match mount.group.make(name) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => Err(CgroupError::Exists { path: mount.group.path(name) }),
            Err(errno) => {
                // The parent is made when missed, as it nearly always exists.
                if errno == Errno::ENOENT {
                    match mount.group.make(PARENT) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(errno) => return Err(mount.group.failed("create", PARENT)(errno)),
                    }
                }
                Err(mount.group.failed("create", name)(errno))
            }
        })
    }

    fn apply(&self, name: &str, caps: &Caps) -> Result<(), CgroupError> {
        if let Some(memory) = caps.memory {
            self.set_memory(name, memory)?;
        }
        if let Some(pids) = caps.pids {
            self.write(Controller::Pids, name, "pids.max", &pids.to_string())?;
        }
        if let Some(cpu) = caps.cpu {
            self.set_cpu(name, cpu)?;
        }
        Ok(())
    }

    /// Memory never exceeds memory and swap, so the order depends on the direction.
    fn set_memory(&self, name: &str, memory: Bytes) -> Result<(), CgroupError> {
        let limit = memory.get().to_string();
        let memory = |limit| self.write(Controller::Memory, name, "memory.limit_in_bytes", limit);
        if !self.memsw {
            memory(&limit)?;
            // The nearest thing to no swap: reclaim does not swap this group's pages out.
            return self.write(Controller::Memory, name, "memory.swappiness", "0");
        }
        let both = |limit| self.write(Controller::Memory, name, "memory.memsw.limit_in_bytes", limit);
        match memory(&limit) {
            Ok(()) => both(&limit),
            Err(CgroupError::Io { source: Errno::EINVAL, .. }) => both(&limit).and_then(|()| memory(&limit)),
            Err(error) => Err(error),
        }
    }

    pub(super) fn set_cpu(&self, name: &str, cpu: CpuBandwidth) -> Result<(), CgroupError> {
        if cpu.period_us != CpuBandwidth::DEFAULT_PERIOD {
            self.write(Controller::Cpu, name, "cpu.cfs_period_us", &cpu.period_us.to_string())?;
        }
        match self.write(Controller::Cpu, name, "cpu.cfs_quota_us", &cpu.quota_us.to_string()) {
            // v1 refuses more than a group above may use. Both numbers are in range by construction,
            // so that is what it means: what was asked for is held already, by that group.
            Err(CgroupError::Io { source: Errno::EINVAL, .. }) => Ok(()),
            result => result,
        }
    }

    pub(super) fn write(&self, controller: Controller, name: &str, file: &str, value: &str) -> Result<(), CgroupError> {
        let group = self.group(controller)?;
        let path = format!("{name}/{file}");
        group.write(&path, value).map_err(group.failed("write", &path))
    }

    pub(super) fn read_number(&self, controller: Controller, name: &str, file: &str) -> Option<u64> {
        number(&self.group(controller).ok()?.read(&format!("{name}/{file}")).ok()?)
    }

    /// The most that was ever used at once: of memory alone, and, where that is counted, of it and swap.
    fn peaks(&self) -> impl Iterator<Item = &'static str> {
        ["memory.max_usage_in_bytes", "memory.memsw.max_usage_in_bytes"].into_iter().take(1 + usize::from(self.memsw))
    }

    pub(super) fn forget_peaks(&self, name: &str) -> Result<(), CgroupError> {
        self.peaks().try_for_each(|file| self.write(Controller::Memory, name, file, "0"))
    }

    /// Whether a group was ever at its limit of memory, as far as that can be seen: `memory.failcnt` would say so, and is
    /// always 0 on some kernels.
    fn was_full(&self, name: &str) -> Option<bool> {
        let number = |file| self.read_number(Controller::Memory, name, file);
        let limit = number("memory.limit_in_bytes")?.saturating_sub(LAST_STEP);
        let mut peaks = self.peaks().map(number);
        peaks.try_fold(false, |full, peak| Some(full || peak? >= limit))
    }

    /// Whether no process is in its group in this tree.
    pub(super) fn is_vacant(&self, index: usize, name: &str) -> bool {
        let group = self.mounts.get(index).map(|mount| &mount.group);
        group.is_some_and(|group| group.read(&format!("{name}/cgroup.procs")).is_ok_and(|pids| pids.is_empty()))
    }

    /// In all trees, or as before.
    pub(super) fn rename(&self, kept: &mut Kept, name: &str) -> Result<(), CgroupError> {
        for (done, index) in kept.made.iter().enumerate() {
            let Some(Mount { group, .. }) = self.mounts.get(*index) else { continue };
            if let Err(errno) = group.rename(&kept.name, name) {
                for index in &kept.made[..done] {
                    _ = self.mounts.get(*index).map(|mount| mount.group.rename(name, &kept.name));
                }
                return Err(group.failed("rename", &kept.name)(errno));
            }
        }
        name.clone_into(&mut kept.name);
        Ok(())
    }

    /// Removes it as far as it can be removed.
    pub(super) fn forget(&self, kept: Kept) {
        for mount in kept.made.iter().filter_map(|index| self.mounts.get(*index)) {
            _ = mount.group.remove(&kept.name, Duration::ZERO);
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let waiting = self.shelf.as_mut().map(Shelf::drain).unwrap_or_default();
        waiting.into_iter().for_each(|kept| self.forget(kept));
    }
}

#[derive(Debug)]
pub(super) struct Leaf {
    tree: Arc<Tree>,
    name: String,
    /// The trees, by index, that it exists in.
    made: Vec<usize>,
    tasks: Vec<OwnedFd>,
    /// As it was made.
    caps: Caps,
    born: Instant,
    changed: AtomicBool,
}

impl Leaf {
    pub(super) fn create(tree: &Arc<Tree>, name: String, caps: &Caps) -> Result<Self, CgroupError> {
        let (tree, changed) = (Arc::clone(tree), AtomicBool::new(false));
        if let Some(kept) = tree.shelf.as_ref().and_then(|shelf| shelf.take(&tree, caps)) {
            let Kept { name, made, tasks, caps, born } = kept;
            return Ok(Self { tree, name, made, tasks, caps, born, changed });
        }
        let trees = tree.mounts.len();
        let (made, tasks) = (Vec::with_capacity(trees), Vec::with_capacity(trees));
        let mut leaf = Self { tree, name, made, tasks, caps: *caps, born: Instant::now(), changed };
        let tree = Arc::clone(&leaf.tree);
        let needs = caps.needs();
        for (index, mount) in tree.mounts.iter().enumerate().filter(|(_, mount)| mount.holds.overlaps(needs)) {
            tree.make(mount, &leaf.name)?;
            leaf.made.push(index);
            // Not `cgroup.procs`: only a thread that moves itself alone is spared the lock.
            let path = format!("{}/tasks", leaf.name);
            let tasks = mount.group.open_file(&path, OFlag::O_WRONLY);
            leaf.tasks.push(tasks.map_err(mount.group.failed("open", &path))?);
        }
        tree.apply(&leaf.name, caps)?;
        Ok(leaf)
    }

    #[cfg(test)]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn tasks(&self) -> &[OwnedFd] {
        &self.tasks
    }

    /// Fails for a controller that the leaf was made without.
    pub(super) fn set(&self, caps: &Caps) -> Result<(), CgroupError> {
        let needs = caps.needs();
        match Controller::ALL.into_iter().find(|c| needs.contains(*c) && self.group(*c).is_none()) {
            Some(controller) => Err(CgroupError::NoController { controller }),
            None => {
                self.changed.store(true, Ordering::Relaxed);
                self.tree.apply(&self.name, caps)
            }
        }
    }

    pub(super) fn watch_oom(&self) -> Result<Option<OomWatch>, CgroupError> {
        let Some(group) = self.group(Controller::Memory) else { return Ok(None) };
        OomWatch::on(group, &self.name).map(Some)
    }

    pub(super) fn events(&self) -> Result<Events, CgroupError> {
        let count = |controller, file, key| match self.group(controller) {
            Some(group) => self.read(group, file).map(|text| keyed(&text, key)),
            None => Ok(0),
        };
        Ok(Events {
            oom_kills: count(Controller::Memory, "memory.oom_control", "oom_kill")?,
            pids_max_hits: count(Controller::Pids, "pids.events", "max")?,
        })
    }

    /// v1 counts kills where a process was, and not whose limit was why: one that was never reached was not.
    pub(super) fn shortage(&self) -> Shortage {
        let tree = &self.tree;
        if tree.was_full(&self.name) != Some(false) {
            return Shortage::Own;
        }
        match &tree.cohort {
            Some(Place { name, memory: Some(most) }) if tree.was_full(name) != Some(false) => {
                Shortage::Cohort { most: *most }
            }
            _ => Shortage::Above,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let count = |controller, file| number(&self.read(self.group(controller)?, file).ok()?);
        Usage {
            peak_memory: count(Controller::Memory, "memory.max_usage_in_bytes").map(Bytes::new),
            cpu_time: count(Controller::CpuTime, "cpuacct.usage").map(Duration::from_nanos),
        }
    }

    pub(super) fn pids(&self) -> Vec<i32> {
        let first = self.made.first().and_then(|index| self.tree.mounts.get(*index));
        first.and_then(|mount| self.read(&mount.group, "cgroup.procs").ok()).map_or_else(Vec::new, |t| group::pids(&t))
    }

    pub(super) fn remove(&mut self) -> Result<(), CgroupError> {
        let mut result = Ok(());
        for mount in self.made.drain(..).filter_map(|index| self.tree.mounts.get(index)) {
            result = result.and(mount.group.remove(&self.name, super::DYING));
        }
        result
    }

    /// As [`Self::remove`], unless it is kept to be used again.
    pub(super) fn give_back(mut self) -> Result<(), CgroupError> {
        let tree = Arc::clone(&self.tree);
        if let Some(shelf) = tree.shelf.as_ref().filter(|_| !self.changed.load(Ordering::Relaxed)) {
            let (name, made, tasks) = (self.name.clone(), self.made.clone(), std::mem::take(&mut self.tasks));
            match shelf.put(&tree, &self, Kept { name, made, tasks, caps: self.caps, born: self.born }) {
                None => {
                    self.made.clear();
                    return Ok(());
                }
                Some(kept) => self.name = kept.name,
            }
        }
        self.remove()
    }

    fn group(&self, controller: Controller) -> Option<&Group> {
        let mut made = self.made.iter().filter_map(|index| self.tree.mounts.get(*index));
        made.find(|mount| mount.holds.contains(controller)).map(|mount| &mount.group)
    }

    fn read(&self, group: &Group, file: &str) -> Result<String, CgroupError> {
        let path = format!("{}/{file}", self.name);
        group.read(&path).map_err(group.failed("read", &path))
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// Becomes readable when the leaf, or a group above it, runs out of memory, and when the leaf is removed.
#[derive(Debug)]
pub struct OomWatch {
    event: EventFd,
    control: File,
}

impl OomWatch {
    pub(super) fn on(group: &Group, name: &str) -> Result<Self, CgroupError> {
        let path = format!("{name}/memory.oom_control");
        let control = group.open_file(&path, OFlag::O_RDONLY).map_err(group.failed("open", &path))?;
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(group.failed("watch", &path))?;
        let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        group.write(&format!("{name}/cgroup.event_control"), &line).map_err(group.failed("watch", &path))?;
        Ok(Self { event, control: File::from(control) })
    }

    /// Takes the notice, if there is one, and waits for what it announces.
    pub(super) fn settle(&self, settled: impl Fn() -> bool) {
        if self.event.read().is_ok() {
            (0..20).find(|_| {
                settled() || {
                    thread::sleep(Duration::from_millis(1));
                    false
                }
            });
        }
    }

    /// Tells whether one of the leaf's own processes was killed, once the watch has become readable,
    /// and readies it for the next time. The notice comes just before the kill, and it comes to every
    /// leaf when their parent runs out, so this waits for the counter, 20 ms at most.
    #[must_use]
    pub fn struck(&self) -> bool {
        let _ = self.event.read();
        (0..20).any(|turn| {
            if turn > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            let mut text = [0; 256];
            let length = self.control.read_at(&mut text, 0).unwrap_or(0);
            keyed(&String::from_utf8_lossy(&text[..length]), "oom_kill") > 0
        })
    }
}

/// To poll for `POLLIN`.
impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
