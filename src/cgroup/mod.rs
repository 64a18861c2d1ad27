//! One leaf cgroup per sandbox, under one parent (`fumehood`); those of a batch are in a [`Cohort`] there that caps them
//! together.
//!
//! A [`Hierarchy`] is detected once and passed by reference. [`Hierarchy::create`] makes a [`Leaf`]
//! with its limits in force before any process is in it; the launcher then starts the process *in*
//! the leaf, it never moves one there from outside: writing another process's pid to `cgroup.procs`
//! waits for an RCU grace period, several milliseconds. On v2 that is `clone3(CLONE_INTO_CGROUP)` with
//! [`Leaf::clone_into`], and a cgroup namespace made by the same call is rooted at the leaf. On v1 the
//! child's first act is to write `0` to each of [`Leaf::join_fds`], for which the kernel skips that
//! lock; only after that may it unshare its cgroup namespace, which is rooted where the process is.
//!
//! Invariants: creation is all or nothing; a leaf that is dropped is removed; the parent lies under
//! the caller's own cgroup, or the nearest one above it that the kernel lets hold children, so that
//! whatever caps the caller caps its sandboxes too; no limit is left out silently.
//!
//! v1 is ours rather than the `cgroups-rs` crate's: that one joins by pid only, works from the root of
//! each tree, outside what caps the caller, and takes several times as long to create and remove.

mod cohort;
pub mod container;
mod detect;
mod group;
mod kept;
mod owner;
mod room;
#[cfg(test)]
mod tests;
mod usage;
mod v1;
mod v2;

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::errno::Errno;

use crate::{
    error::Hint,
    request::{id::SandboxId, limits::Bytes},
};

pub use cohort::{Cohort, Place};
use owner::Owner;
pub use usage::{Events, Shortage, Usage};
pub use v1::OomWatch;

/// The group all sandboxes of this user live in.
const PARENT: &str = "fumehood";

/// Where this host lets this process make cgroups.
#[derive(Debug, Clone)]
pub enum Hierarchy {
    /// One unified tree (cgroups(7), "CGROUPS VERSION 2").
    V2(Arc<v2::Tree>),
    /// A tree per controller: a v1 host, or a hybrid one whose v2 tree has no controllers.
    V1(Arc<v1::Tree>),
    /// None this process may write to.
    None { why: String },
}

impl Hierarchy {
    /// Looks at `/sys/fs/cgroup` and `/proc/self/cgroup`; changes nothing.
    #[must_use]
    pub fn detect() -> Self {
        detect::detect()
    }

    /// As [`Self::detect`], and leaves are made in this cohort, and looked for there, if there is one.
    #[must_use]
    pub fn detect_within(cohort: Option<&Place>) -> Self {
        Self::detect().within(cohort)
    }

    /// As [`Self::detect_within`], for one who runs one sandbox after another: on v1, leaves that are removed are used again, as
    /// long as this is there.
    #[must_use]
    pub fn detect_keeping(cohort: Option<&Place>) -> Self {
        Self::detect_within(cohort).keeping()
    }

    fn keeping(mut self) -> Self {
        // Not of one that others have too.
        if let Self::V1(tree) = &mut self
            && let Some(tree) = Arc::get_mut(tree)
        {
            tree.keep();
        }
        self
    }

    fn within(mut self, cohort: Option<&Place>) -> Self {
        if let Some(place) = cohort {
            match &mut self {
                Self::V2(tree) => _ = Arc::get_mut(tree).map(|tree| tree.move_to(place)),
                Self::V1(tree) => _ = Arc::get_mut(tree).map(|tree| tree.move_to(place)),
                Self::None { .. } => {}
            }
        }
        self
    }

    /// The v2 tree at and below `path`, whatever the calling process is in.
    #[must_use]
    pub fn at_v2(path: impl Into<PathBuf>) -> Self {
        v2::Tree::at(path.into()).map_or_else(|why| Self::None { why }, |tree| Self::V2(Arc::new(tree)))
    }

    /// Whether a leaf can hold this controller's limit.
    #[must_use]
    pub fn can(&self, controller: Controller) -> bool {
        match self {
            Self::V2(tree) => tree.has().contains(controller),
            Self::V1(tree) => tree.has().contains(controller),
            Self::None { .. } => false,
        }
    }

    /// `v2`, `v1` or `none`, as the result's `controls` say it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::V2(_) => "v2",
            Self::V1(_) => "v1",
            Self::None { .. } => "none",
        }
    }

    /// Makes the leaf `fumehood/<id>`, or that of a cohort, with these limits in force, or nothing.
    ///
    /// # Errors
    /// When a cap cannot be held ([`Self::can`] tells beforehand), when a leaf of that name exists,
    /// or when the kernel refuses.
    pub fn create(&self, id: &SandboxId, caps: &Caps) -> Result<Leaf, CgroupError> {
        self.check(caps)?;
        let name = self.leaf(id);
        match self {
            Self::V2(tree) => v2::Leaf::create(tree, name, caps).map(|leaf| Leaf(Kind::V2(leaf))),
            Self::V1(tree) => v1::Leaf::create(tree, name, caps).map(|leaf| Leaf(Kind::V1(leaf))),
            Self::None { why } => Err(CgroupError::Absent { why: why.clone() }),
        }
    }

    /// Makes a group whose sandboxes may use no more than this together, or nothing. It is this process's. `spare` is for the
    /// memory that the kernel has not given back yet of leaves that have ended: where the limits of all leaves come to no more than
    /// the cap, each can use up its own.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn cohort(&self, caps: &Caps, spare: Bytes) -> Result<Cohort, CgroupError> {
        self.check(caps)?;
        Cohort::create(self, caps, spare)
    }

    /// Removes a cohort whose sandboxes have ended, and what is left of them.
    pub(crate) fn remove_cohort(&self, place: &Place) {
        // What cannot be removed is found by who cleans up.
        _ = match self {
            Self::V2(tree) => tree.remove(&place.name, DYING),
            Self::V1(tree) => tree.remove(&place.name, DYING),
            Self::None { .. } => Ok(()),
        };
    }

    /// Leaves with no process in them that have been there for at least `age`: what a killed fumehood
    /// left behind. A leaf in the making is empty too, hence `age`. Those that are kept to be used again are told by
    /// whether their keeper lives, and so are cohorts, with all that is in them.
    #[must_use]
    pub fn leftovers(&self, age: Duration) -> Vec<Leftover> {
        let age = |name: &str| match Owner::of(owner::KEPT, name).and_then(Owner::is_alive) {
            _ if Owner::of(owner::COHORT, name).is_some() => None,
            Some(true) => None,
            Some(false) => Some(Duration::ZERO),
            None => Some(age),
        };
        let mut found = Vec::new();
        for parent in self.paths(PARENT) {
            for cohort in group::below(&parent).filter(|path| is_abandoned(path)) {
                found.extend(group::empty_below(&cohort, |_| Some(Duration::ZERO)));
                if group::below(&cohort).all(|leaf| group::is_vacant(&leaf)) {
                    found.push(cohort);
                }
            }
            found.extend(group::empty_below(&parent, age));
        }
        found.into_iter().map(Leftover).collect()
    }

    /// The names of the leaves that this process, which is dead, has kept.
    pub(crate) fn kept_by(&self, pid: i32) -> Vec<SandboxId> {
        let parents = self.paths(self.parent());
        let groups = parents.iter().flat_map(|parent| group::below(parent));
        let names = groups.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        let its = |name: &String| {
            Owner::of(owner::KEPT, name).is_some_and(|owner| owner.pid == pid && owner.is_alive() == Some(false))
        };
        let names: std::collections::BTreeSet<String> = names.filter(its).collect();
        names.iter().filter_map(|name| SandboxId::parse(name).ok()).collect()
    }

    /// Removes what is left of the leaf of a sandbox whose supervisor was killed, and kills what is in it where the
    /// kernel does that at once (v2). Waits up to 100 ms for processes that are just dying.
    pub fn remove(&self, id: &SandboxId) -> Result<(), CgroupError> {
        self.remove_within(id, Duration::from_millis(100))
    }

    /// As [`Self::remove`], for one who can come back.
    pub(crate) fn remove_now(&self, id: &SandboxId) -> Result<(), CgroupError> {
        // Once more for what is nested in it.
        self.remove_within(id, Duration::from_nanos(1))
    }

    fn remove_within(&self, id: &SandboxId, patience: Duration) -> Result<(), CgroupError> {
        let name = self.leaf(id);
        match self {
            Self::V2(tree) => tree.remove(&name, patience),
            Self::V1(tree) => tree.remove(&name, patience),
            Self::None { .. } => Ok(()),
        }
    }

    /// Removes the parent group where it has no leaf. A creator that runs at the same time makes it
    /// again.
    pub fn remove_parent(&self) {
        for parent in self.paths(PARENT) {
            let _ = std::fs::remove_dir(parent);
        }
    }

    fn parent(&self) -> &str {
        match self {
            Self::V2(tree) => tree.parent(),
            Self::V1(tree) => tree.parent(),
            Self::None { .. } => PARENT,
        }
    }

    fn leaf(&self, id: &SandboxId) -> String {
        format!("{}/{id}", self.parent())
    }

    /// Of the group of this name, in each tree.
    fn paths(&self, name: &str) -> Vec<PathBuf> {
        match self {
            Self::V2(tree) => vec![tree.path(name)],
            Self::V1(tree) => tree.paths(name).collect(),
            Self::None { .. } => Vec::new(),
        }
    }

    fn check(&self, caps: &Caps) -> Result<(), CgroupError> {
        if let Self::None { why } = self {
            return Err(CgroupError::Absent { why: why.clone() });
        }
        match Controller::ALL.into_iter().find(|c| caps.needs().contains(*c) && !self.can(*c)) {
            Some(controller) => Err(CgroupError::NoController { controller }),
            None => Ok(()),
        }
    }
}

/// Whether this is a cohort of a process that is dead. Of one in another pid namespace nobody can say: that is not, however
/// long nothing may have been in it.
fn is_abandoned(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Owner::of(owner::COHORT, name).and_then(Owner::is_alive) == Some(false)
}

/// How long the leaf of a sandbox that has ended may have processes that are just dying.
const DYING: Duration = Duration::from_secs(3);

/// What a group of processes may use together; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    /// Memory of processes and tmpfs files; swap is counted in, so that it adds nothing.
    pub memory: Option<Bytes>,
    /// Processes and threads at once, the sandbox's own first process included.
    pub pids: Option<u32>,
    pub cpu: Option<CpuBandwidth>,
    /// Have [`Usage::cpu_time`] counted; on v1 that takes a group more.
    pub count_cpu_time: bool,
}

impl Caps {
    fn needs(&self) -> Controllers {
        Controllers::of([
            (Controller::Memory, self.memory.is_some()),
            (Controller::Pids, self.pids.is_some()),
            (Controller::Cpu, self.cpu.is_some()),
            (Controller::CpuTime, self.count_cpu_time),
        ])
    }
}

/// CPU time per period, over all CPUs (`cpu.max`, `cpu.cfs_quota_us`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuBandwidth {
    quota_us: u64,
    period_us: u64,
}

impl CpuBandwidth {
    const DEFAULT_PERIOD: u64 = 100_000;

    /// `cpus` CPUs' worth of each 100 ms, at least the kernel's minimum of 0.01.
    #[must_use]
    pub fn cpus(cpus: f64) -> Self {
        Self::new((cpus * Self::DEFAULT_PERIOD as f64).round() as u64, Self::DEFAULT_PERIOD)
    }

    /// Microseconds of CPU time per microseconds of wall time, drawn into the range the kernel takes:
    /// a quota of at least 1 ms, a period of 1 ms to 1 s.
    #[must_use]
    pub fn new(quota_us: u64, period_us: u64) -> Self {
        Self { quota_us: quota_us.clamp(1_000, 1 << 40), period_us: period_us.clamp(1_000, 1_000_000) }
    }
}

/// What a cgroup can limit or count for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    Memory,
    Pids,
    Cpu,
    /// CPU time used: `cpuacct` on v1, always there on v2.
    CpuTime,
}

impl Controller {
    const ALL: [Self; 4] = [Self::Memory, Self::Pids, Self::Cpu, Self::CpuTime];

    /// The kernel's name of it on v1.
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::CpuTime => "cpuacct",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of [`Controller`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Controllers(u8);

impl Controllers {
    fn of(wanted: [(Controller, bool); 4]) -> Self {
        wanted.into_iter().filter(|(_, on)| *on).fold(Self(0), |set, (c, _)| set.with(c))
    }

    fn with(self, controller: Controller) -> Self {
        Self(self.0 | 1 << controller as u8)
    }

    fn contains(self, controller: Controller) -> bool {
        self.0 & (1 << controller as u8) != 0
    }

    fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The cgroup of one sandbox. Dropping it removes it, once its processes are gone.
#[derive(Debug)]
pub struct Leaf(Kind);

#[derive(Debug)]
enum Kind {
    V2(v2::Leaf),
    V1(v1::Leaf),
}

impl Leaf {
    /// The directory to give `clone3` as `cgroup` (v2).
    #[must_use]
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Kind::V2(leaf) => Some(leaf.dir()),
            Kind::V1(_) => None,
        }
    }

    /// Open files, close-on-exec, to each of which the child writes `0` before anything else (v1).
    pub fn join_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let fds = match &self.0 {
            Kind::V2(_) => &[][..],
            Kind::V1(leaf) => leaf.tasks(),
        };
        fds.iter().map(AsFd::as_fd)
    }

    /// For v1, where running out of memory kills one process only: how to notice and kill the rest.
    /// `None` on v2, where the kernel kills the whole leaf (`memory.oom.group`), and without a memory
    /// cap. An OOM before this call is not noticed by the watch, only by [`Self::events`].
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, CgroupError> {
        match &self.0 {
            Kind::V2(_) => Ok(None),
            Kind::V1(leaf) => leaf.watch_oom(),
        }
    }

    /// Changes the memory limit. Lowering it below what is in use fails on v1 (`EBUSY`) and kills on v2.
    pub fn set_memory(&self, memory: Bytes) -> Result<(), CgroupError> {
        self.set(&Caps { memory: Some(memory), ..Caps::default() })
    }

    /// Changes the limit of processes and threads. Those above it live on; new ones are refused.
    pub fn set_pids(&self, pids: u32) -> Result<(), CgroupError> {
        self.set(&Caps { pids: Some(pids), ..Caps::default() })
    }

    pub fn set_cpu(&self, cpu: CpuBandwidth) -> Result<(), CgroupError> {
        self.set(&Caps { cpu: Some(cpu), ..Caps::default() })
    }

    /// Which limits were hit so far.
    pub fn events(&self) -> Result<Events, CgroupError> {
        match &self.0 {
            Kind::V2(leaf) => leaf.events(),
            Kind::V1(leaf) => leaf.events(),
        }
    }

    /// What was used so far; what this kernel does not count, or was not asked to, is `None`.
    #[must_use]
    pub fn usage(&self) -> Usage {
        match &self.0 {
            Kind::V2(leaf) => leaf.usage(),
            Kind::V1(leaf) => leaf.usage(),
        }
    }

    /// Whose limit it was, where [`Self::events`] tells of a kill for want of memory.
    #[must_use]
    pub fn shortage(&self) -> Shortage {
        match &self.0 {
            Kind::V2(leaf) => leaf.shortage(),
            Kind::V1(leaf) => leaf.shortage(),
        }
    }

    /// The processes in it, as pids of the caller's pid namespace.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        match &self.0 {
            Kind::V2(leaf) => leaf.pids(),
            Kind::V1(leaf) => leaf.pids(),
        }
    }

    /// Kills every process in it, atomically (`cgroup.kill`, Linux 5.14). `false` where there is no
    /// such thing (v1): kill the first process of the sandbox's pid namespace instead.
    pub fn kill(&self) -> Result<bool, CgroupError> {
        match &self.0 {
            Kind::V2(leaf) => leaf.kill(),
            Kind::V1(_) => Ok(false),
        }
    }

    /// Removes it, or keeps it for [the next](Hierarchy::detect_keeping), waiting for processes that are just dying: where a
    /// thousand die at once that takes its time, and nobody would come back for it.
    pub fn remove(self) -> Result<(), CgroupError> {
        match self.0 {
            Kind::V2(mut leaf) => leaf.remove(),
            Kind::V1(leaf) => leaf.give_back(),
        }
    }

    fn set(&self, caps: &Caps) -> Result<(), CgroupError> {
        match &self.0 {
            Kind::V2(leaf) => leaf.set(caps),
            Kind::V1(leaf) => leaf.set(caps),
        }
    }
}

/// A leaf that nobody removed, in one tree: on v1 a sandbox may have left several.
#[derive(Debug)]
pub struct Leftover(PathBuf);

impl Leftover {
    /// The sandbox's id, as far as the name can be trusted.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it and what is nested in it; the kernel refuses if a process has come in since.
    pub fn remove(self) -> Result<(), CgroupError> {
        group::remove_tree(&self.0).map_err(|source| CgroupError::Io { action: "remove", path: self.0, source })
    }
}

/// Why a cgroup could not be had or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroup for the sandbox's limits: {why}")]
    Absent { why: String },
    #[error("the {controller} cgroup controller is not available to this process")]
    NoController { controller: Controller },
    #[error("cgroup {path} exists already")]
    Exists { path: PathBuf },
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: Errno },
}

impl Hint for CgroupError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Absent { .. } => {
                "run it as `systemd-run --user --scope -p Delegate=yes fumehood …`, or as root; v1 hosts need root"
            }
            Self::NoController { .. } => {
                "have systemd delegate it: `Delegate=cpu memory pids` under [Service] in user@.service"
            }
            Self::Exists { .. } => "if that sandbox is gone, `fumehood cleanup` removes its cgroup",
            Self::Io { source: Errno::ENOENT, action: "create", .. } => {
                "the group that it was to be in is gone: begin again, a batch with --resume"
            }
            Self::Io { source: Errno::EBUSY, action: "remove", .. } => "a process is still in it; see its cgroup.procs",
            Self::Io { .. } => return None,
        };
        Some(text.to_owned())
    }
}
