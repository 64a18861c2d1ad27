//! How a batch is run: what is the same for all of its jobs.

use std::{num::NonZeroUsize, path::PathBuf};

use super::{
    apply,
    job::{Job, Kernel},
};
use crate::{Result, Sandbox, plan::gvisor, report::Isolation, request::Bytes};

/// What every worker knows.
#[derive(Debug)]
pub(super) struct Settings {
    /// The process whose batch it is: what its sandboxes are known by.
    pub(super) owner: u32,
    pub(super) template: Sandbox,
    pub(super) defaults: Job,
    pub(super) store: Option<PathBuf>,
    pub(super) artifacts: Option<PathBuf>,
    /// Sandboxes that workers make ahead while they have nothing to do. `most`: workers beside those that run jobs.
    pub(super) ahead: crate::pool::Settings,
}

impl Settings {
    /// The most memory that a job takes, with that of a kernel of its own.
    pub(super) fn memory(&self, job: &Job) -> Result<Bytes> {
        let own = apply::limits(job, self.template.its_limits())?.memory;
        let isolation = match job.isolation {
            Some(Kernel::Gvisor) => Isolation::Gvisor,
            Some(Kernel::Native) => Isolation::Native,
            None => self.template.isolation(),
        };
        Ok(match isolation {
            Isolation::Gvisor => Bytes::new(own.get().saturating_add(gvisor::MEMORY.get())),
            Isolation::Native => own,
        })
    }

    /// Of a job that says nothing of it.
    pub(super) fn usual_memory(&self) -> Bytes {
        self.memory(&self.defaults).unwrap_or(self.template.its_limits().memory)
    }
}

/// What the one who hands out the jobs knows besides.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// At once; by default one for each CPU.
    pub(super) workers: Option<NonZeroUsize>,
    /// Of all jobs that run at once together; by default what is available.
    pub(super) memory: Option<Bytes>,
    pub(super) cpus: Option<f64>,
    /// Jobs begun in a second.
    pub(super) rate: Option<f64>,
    pub(super) ordered: bool,
    pub(super) fail_fast: bool,
    pub(super) retries: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { workers: None, memory: None, cpus: None, rate: None, ordered: true, fail_fast: false, retries: 0 }
    }
}

impl Pace {
    /// Memory without a bound.
    pub(super) const ALL: Bytes = Bytes::new(u64::MAX);
}
