//! One sandbox that waits, for who does one thing after another: a worker of the spawner.

use std::{os::fd::BorrowedFd, time::Instant};

use super::shelf::{Job, Recipe, Settings};
use crate::{
    Result, Sandbox,
    cgroup::{Hierarchy, Place},
    launch::{LaunchError, Observer, Prepared, Remains},
    report::Outcome,
    request::SandboxId,
};

/// Of the kind that the last jobs wanted, or none.
#[derive(Debug)]
pub struct Single {
    settings: Settings,
    cohort: Option<Place>,
    hierarchy: Option<Hierarchy>,
    /// What the last job would have wanted, and how many in a row.
    last: Option<(Recipe, u32)>,
    waiting: Option<Prepared>,
    /// Of the sandbox whose job has ended.
    remains: Option<Remains>,
}

/// So many jobs in a row want the same before one is made for the next.
const IN_A_ROW: u32 = 2;

impl Single {
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self { settings, cohort: None, hierarchy: None, last: None, waiting: None, remains: None }
    }

    /// Its sandboxes are some of this cohort.
    pub(crate) fn join(&mut self, cohort: Option<Place>) {
        self.cohort = cohort;
    }

    #[must_use]
    pub const fn has_one(&self) -> bool {
        self.waiting.is_some()
    }

    /// As [`Sandbox::run`], but what is left of the sandbox may be there until [`Self::tidy`], which is to come before the
    /// next. `note` is told by which names
    /// it is known from here on.
    pub fn run(
        &mut self,
        sandbox: &mut Sandbox,
        id: &SandboxId,
        signals: Option<BorrowedFd<'_>>,
        observer: &mut dyn Observer,
        note: &dyn Fn(&[&SandboxId]) -> Result<()>,
    ) -> Result<Outcome> {
        let began = Instant::now();
        let job = Job::of(sandbox, observer.wants_contacts())?;
        let found = self.waiting.take().filter(|prepared| job.fits(prepared));
        match &found {
            Some(prepared) => note(&[prepared.id(), id]).or_else(|_| note(&[id]))?,
            None => note(&[id])?,
        }
        let detect = || Hierarchy::detect_keeping(self.cohort.as_ref());
        let hierarchy = self.hierarchy.get_or_insert_with(detect).clone();
        if self.settings.most > 0 {
            self.learn(&job, &hierarchy);
        }
        job.run(found, sandbox, &hierarchy, signals, began, observer, Some(&mut self.remains))
    }

    /// Removes what is left of the sandbox that ran last: nobody waits for that.
    ///
    /// # Errors
    /// When its cgroup cannot be removed.
    pub fn tidy(&mut self) -> Result<()> {
        self.remains.take().map_or(Ok(()), Remains::remove).map_err(LaunchError::explain)
    }

    fn learn(&mut self, job: &Job, hierarchy: &Hierarchy) {
        if let Some((recipe, times)) = &mut self.last
            && recipe.serves(job)
        {
            *times = times.saturating_add(1);
        } else {
            self.last = job.recipe(&self.settings, hierarchy).map(|recipe| (recipe, 1));
        }
    }

    /// Makes one for the next job, if there is reason to. `note` is told its name before.
    pub fn make(&mut self, signals: Option<BorrowedFd<'_>>, note: &dyn Fn(&SandboxId) -> bool) {
        let (None, Some((recipe, IN_A_ROW..))) = (&self.waiting, &mut self.last) else { return };
        let Ok(id) = SandboxId::random() else { return };
        let detect = || Hierarchy::detect_keeping(self.cohort.as_ref());
        let hierarchy = self.hierarchy.get_or_insert_with(detect);
        if !note(&id) {
            return;
        }
        match recipe.clone().make(id, hierarchy, signals) {
            Ok(prepared) => self.waiting = Some(prepared),
            // Without an interpreter it may do, or not at all.
            Err(_) if recipe.has_interpreter() => recipe.leave_interpreter_out(),
            Err(_) => self.last = None,
        }
    }
}
