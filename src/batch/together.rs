//! What all jobs of a batch that run at once may use together, and who holds them to it.
//!
//! What their memory limits come to is kept within it by whoever hands out the jobs. Where there are cgroups, the kernel holds
//! them to it besides, whatever each may use by itself: by a group around all of them.

use std::fs;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{error::BatchError, settings::Pace};
use crate::{
    Error,
    cgroup::{Caps, Cohort, Controller, CpuBandwidth, Hierarchy},
    report::Means,
    request::Bytes,
};

#[derive(Debug, Clone, PartialEq)]
pub struct Together {
    /// Without one there is no bound.
    pub memory: Option<Bytes>,
    /// Whether that was asked for by name.
    pub asked: bool,
    pub cpus: Option<f64>,
    /// How many are run at once.
    pub workers: usize,
    pub memory_by: Means,
    pub cpu_by: Means,
    /// Why the kernel does not hold the memory.
    pub why: Option<String>,
}

impl Together {
    /// Has it held, as long as the cohort is there. `job` is what a job may have of memory that does not say it.
    pub(super) fn hold(pace: &Pace, job: Bytes) -> Result<(Self, Option<Cohort>), BatchError> {
        let hierarchy = Hierarchy::detect();
        let memory = match pace.memory {
            Some(Pace::ALL) => None,
            Some(most) => Some(most),
            None => available_memory().into_iter().chain(hierarchy.room()).min().map(in_mebibytes),
        };
        let by_kernel = hierarchy.can(Controller::Memory);
        let why = match &hierarchy {
            _ if by_kernel => None,
            Hierarchy::None { why } => Some(why.clone()),
            Hierarchy::V1(_) | Hierarchy::V2(_) => {
                Some("the memory cgroup controller is not available here".to_owned())
            }
        };
        if pace.cpus.is_some() && !hierarchy.can(Controller::Cpu) {
            let why = why.unwrap_or_else(|| "the cpu cgroup controller is not available here".to_owned());
            return Err(BatchError::Unheld { flag: "--max-cpus", why });
        }
        let caps =
            Caps { memory: memory.filter(|_| by_kernel), cpu: pace.cpus.map(CpuBandwidth::cpus), ..Caps::default() };
        let memory_by = match memory {
            None => Means::None,
            Some(_) if by_kernel => Means::Cgroup,
            Some(_) => Means::Watched,
        };
        let cpu_by = if pace.cpus.is_some() { Means::Cgroup } else { Means::None };
        let asked = memory.is_some() && pace.memory.is_some();
        let mut together = Self { memory, asked, cpus: pace.cpus, workers: 1, memory_by, cpu_by, why };
        together.workers = pace.workers.map_or_else(|| together.best(cpus(), job), usize::from);
        let cohort = match &hierarchy {
            Hierarchy::None { .. } => None,
            hierarchy => Some(hierarchy.cohort(&caps, together.spare()).map_err(BatchError::Cgroup)?),
        };
        Ok((together, cohort))
    }

    /// How many are best run at once: one for each CPU that there is to use, and no more than there is memory for, if a job
    /// may have so much of it.
    fn best(&self, cpus: usize, job: Bytes) -> usize {
        let by_cpu = self.cpus.map_or(cpus, |most| cpus.min(most.ceil() as usize));
        let by_memory = self.memory.map_or(u64::MAX, |most| most.get() / job.get().max(1));
        by_cpu.min(usize::try_from(by_memory).unwrap_or(usize::MAX)).max(1)
    }

    /// What may be left of those that have ended, a little of each that a worker had: none of those that run lacks it.
    fn spare(&self) -> Bytes {
        let left = Bytes::mib(16).get().saturating_add(Bytes::mib(4).get().saturating_mul(self.workers as u64));
        Bytes::new(left.min(self.memory.map_or(0, |most| most.get() / 8)))
    }

    /// A job that may by itself have more is run alone, and the kernel gives it no more. Where it does not, nobody would.
    pub(super) fn admit(&self, job: Bytes) -> Result<Bytes, Error> {
        match self.memory.filter(|most| self.asked && self.memory_by != Means::Cgroup && job > *most) {
            None => Ok(job),
            Some(most) => {
                let error = Error::new(format!("it may use {job} of memory, more than the {most} of --max-memory"));
                Err(error.with_hint("give it less memory: without a cgroup nothing but its own limit holds it"))
            }
        }
    }
}

impl Serialize for Together {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Controls {
            memory: Means,
            cpu: Means,
        }
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("jobs", &self.workers)?;
        map.serialize_entry("memory_bytes", &self.memory)?;
        map.serialize_entry("cpus", &self.cpus)?;
        map.serialize_entry("controls", &Controls { memory: self.memory_by, cpu: self.cpu_by })?;
        map.end()
    }
}

pub(super) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the kernel says can be had without swapping.
fn available_memory() -> Option<Bytes> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Bytes::new(kibibytes << 10))
}

/// A number that can be read when it is told.
fn in_mebibytes(memory: Bytes) -> Bytes {
    Bytes::mib((memory.get() >> 20).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn together(memory: Option<u64>, cpus: Option<f64>) -> Together {
        let memory = memory.map(Bytes::mib);
        Together { memory, asked: true, cpus, workers: 4, memory_by: Means::Watched, cpu_by: Means::None, why: None }
    }

    #[test]
    fn as_many_as_cpus_and_memory_allow() {
        for (memory, cpus, workers) in [
            (None, None, 8),
            (Some(8192), None, 8),
            (Some(1500), None, 2),
            (Some(100), None, 1),
            (None, Some(0.5), 1),
            (None, Some(2.5), 3),
            (Some(1024), Some(64.0), 2),
        ] {
            assert_eq!(together(memory, cpus).best(8, Bytes::mib(512)), workers, "{memory:?} {cpus:?}");
        }
    }

    #[test]
    fn what_is_spared_is_little() {
        let spares = [None, Some(64), Some(1 << 20)].map(|memory| together(memory, None).spare());
        assert_eq!(spares, [0, 8, 32].map(Bytes::mib));
    }

    #[test]
    fn what_nothing_would_hold_is_refused() {
        let all = together(Some(512), None);
        assert!(all.admit(Bytes::mib(512)).is_ok());
        assert!(all.admit(Bytes::mib(513)).is_err_and(|error| error.hint().is_some()));
        let held = Together { memory_by: Means::Cgroup, ..all.clone() };
        assert!(held.admit(Bytes::mib(4096)).is_ok());
        assert!(Together { asked: false, ..all }.admit(Bytes::mib(4096)).is_ok());
    }

    #[test]
    fn there_is_memory() {
        assert!(available_memory().is_some_and(|memory| memory > Bytes::mib(1)));
    }
}
