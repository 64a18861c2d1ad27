//! How a batch is run: what is the same for all of its jobs.

use std::{num::NonZeroUsize, path::PathBuf};

use super::job::Job;
use crate::{Sandbox, request::Bytes};

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

/// What the one who hands out the jobs knows besides.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// At once; by default one for each CPU.
    pub(super) workers: Option<NonZeroUsize>,
    /// Of all jobs that run at once, by their limits.
    pub(super) memory: Option<Bytes>,
    /// Jobs begun in a second.
    pub(super) rate: Option<f64>,
    pub(super) ordered: bool,
    pub(super) fail_fast: bool,
    pub(super) retries: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { workers: None, memory: None, rate: None, ordered: true, fail_fast: false, retries: 0 }
    }
}
