//! The sandboxes that wait, by kind, and how many of which there should be. Makes none by itself: [`Shelf::next_order`]
//! says which is wanted next, so that whoever has the time makes it.

use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use super::boot;
use crate::{
    Result, Sandbox,
    cgroup::{Controller, Hierarchy},
    launch::{self, Boot, Extras, LaunchError, Observer, Prepared, Remains, is_looked_at},
    plan::Plan,
    report::Outcome,
    request::SandboxId,
};

/// How a pool is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Sandboxes that wait, of all kinds together; none, and all are made when they are wanted.
    pub most: usize,
    /// Whether interpreters are started ahead, and not only their sandboxes made.
    pub boots: bool,
    /// Modules that interpreters import ahead, beside those that they import anyway.
    pub preload: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self { most: cpus, boots: true, preload: Vec::new() }
    }
}

/// A kind that nobody wanted for so long has one waiting less.
const PATIENCE: Duration = Duration::from_secs(10);
/// Kinds that are remembered.
const MOST_KINDS: usize = 64;

#[derive(Debug)]
pub struct Shelf {
    settings: Settings,
    hierarchy: Hierarchy,
    kinds: Vec<Kind>,
    next_kind: u64,
    found: u64,
    missed: u64,
}

/// One kind of sandbox.
#[derive(Debug)]
struct Kind {
    number: u64,
    recipe: Recipe,
    waiting: Vec<Prepared>,
    making: usize,
    wanted: usize,
    asked: u64,
    last: Instant,
    /// It could not be made.
    failed: bool,
}

/// All that is needed to make one.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    plan: Plan,
    boot: Option<Boot>,
    logs: bool,
}

/// One that is wanted.
#[derive(Debug)]
pub struct Order {
    kind: u64,
    recipe: Recipe,
    hierarchy: Hierarchy,
}

/// What became of an order.
#[derive(Debug)]
pub struct Done {
    kind: u64,
    result: std::result::Result<Prepared, LaunchError>,
}

impl Order {
    /// Makes it.
    pub fn make(self) -> Done {
        let id = SandboxId::random().map_err(|_| LaunchError::Lost);
        let result = id.and_then(|id| self.recipe.make(id, &self.hierarchy, None));
        Done { kind: self.kind, result }
    }
}

impl Recipe {
    pub(super) fn make(
        self,
        id: SandboxId,
        hierarchy: &Hierarchy,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> std::result::Result<Prepared, LaunchError> {
        Prepared::make(self.plan, id, hierarchy, self.boot.as_ref(), self.logs, interrupt)
    }

    pub(super) const fn has_interpreter(&self) -> bool {
        self.boot.is_some()
    }

    pub(super) fn leave_interpreter_out(&mut self) {
        self.boot = None;
        self.plan.steps.clear();
    }

    /// Whether its sandboxes are such as this job wants.
    pub(super) fn serves(&self, job: &Job) -> bool {
        if self.logs != job.logs || !self.plan.makes_the_same(&job.plan) {
            return false;
        }
        match (&self.boot, &self.plan.steps[..], &job.plan.steps[..]) {
            (None, ..) => true,
            (Some(_), [own], [step]) => {
                own.cwd == step.cwd && step.argv.starts_with(&own.argv) && step.env.starts_with(&own.env)
            }
            _ => false,
        }
    }
}

/// What is to be run, planned.
#[derive(Debug)]
pub struct Job {
    plan: Plan,
    runtime: Option<String>,
    logs: bool,
    /// What of the program's words and variables is the caller's.
    own_args: usize,
    own_variables: Vec<Vec<u8>>,
}

impl Job {
    pub fn of(sandbox: &mut Sandbox, logs: bool) -> Result<Self> {
        let (plan, runtime) = sandbox.planned(false)?;
        let (own_args, variables) = sandbox.own_words();
        let own_variables = variables.map(<[u8]>::to_vec).collect();
        Ok(Self { plan, runtime, logs, own_args, own_variables })
    }

    pub(super) fn fits(&self, prepared: &Prepared) -> bool {
        prepared.waits() && prepared.fits(&self.plan, self.logs)
    }

    /// Runs it where it was found to fit, or else in a sandbox of its own.
    #[allow(clippy::too_many_arguments, reason = "each is another thing")]
    pub fn run(
        self,
        found: Option<Prepared>,
        sandbox: &mut Sandbox,
        hierarchy: &Hierarchy,
        signals: Option<BorrowedFd<'_>>,
        began: Instant,
        observer: &mut dyn Observer,
        remains: Option<&mut Option<Remains>>,
    ) -> Result<Outcome> {
        let input = sandbox.take_input()?;
        let mut extras = Extras { remains, ..sandbox.extras(self.runtime, input, signals, began) };
        let mut plan = self.plan;
        if let Some(prepared) = found {
            match prepared.go(plan, extras, observer).map_err(LaunchError::explain)? {
                Ok(outcome) => return Ok(outcome),
                Err(gone) => (plan, extras) = (gone.plan, gone.extras),
            }
        }
        launch::launch(&plan, hierarchy, extras, observer).map_err(LaunchError::explain)
    }

    /// The sandbox without the job; `None` where there is none that others could use.
    pub(super) fn recipe(&self, settings: &Settings, hierarchy: &Hierarchy) -> Option<Recipe> {
        if !self.plan.can_be_made_ahead() {
            return None;
        }
        let mut plan = self.plan.clone();
        plan.without_late();
        // Without a cgroup nobody measures what runs in it before its job is there.
        let boots = settings.boots && hierarchy.can(Controller::Memory) && plan.steps.len() == 1;
        let boot = self.runtime.as_deref().filter(|_| boots);
        let boot = boot.and_then(|runtime| boot::boot(runtime, &settings.preload)).and_then(std::result::Result::ok);
        let boot = boot.filter(|_| self.strip(&mut plan));
        if boot.is_none() {
            plan.steps.clear();
        }
        Some(Recipe { plan, boot, logs: self.logs })
    }

    /// Takes what is the caller's out of the program's words. False: an interpreter that is started ahead would have to
    /// know of it.
    fn strip(&self, plan: &mut Plan) -> bool {
        let [step] = &mut plan.steps[..] else { return false };
        let own = |variable: &String| {
            let name = variable.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
            self.own_variables.iter().any(|own| own == name)
        };
        if step.env.iter().any(|variable| own(variable) && is_looked_at(variable)) {
            return false;
        }
        step.env.retain(|variable| !own(variable));
        step.argv.truncate(step.argv.len().saturating_sub(self.own_args));
        true
    }
}

impl Shelf {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, hierarchy: Hierarchy::detect(), kinds: Vec::new(), next_kind: 0, found: 0, missed: 0 }
    }

    #[must_use]
    pub fn hierarchy(&self) -> Hierarchy {
        self.hierarchy.clone()
    }

    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.found, self.missed)
    }

    /// One that waits for this job, or such a job; if there is none, there will be.
    pub fn take(&mut self, job: &Job) -> Option<Prepared> {
        let now = Instant::now();
        let fits = |kind: &&mut Kind| kind.recipe.serves(job);
        if let Some(kind) = self.kinds.iter_mut().find(fits) {
            kind.asked += 1;
            kind.last = now;
            let found = loop {
                match kind.waiting.pop() {
                    Some(prepared) if job.fits(&prepared) => break Some(prepared),
                    // One that is not for this job is for another: it has loaded what this one brings.
                    Some(prepared) if prepared.waits() => {
                        kind.waiting.push(prepared);
                        break None;
                    }
                    Some(_) => {}
                    None => break None,
                }
            };
            if found.is_none() {
                kind.wanted += 1;
                self.missed += 1;
            } else {
                self.found += 1;
            }
            return found;
        }
        self.missed += 1;
        if let Some(recipe) = job.recipe(&self.settings, &self.hierarchy) {
            self.remember(recipe, 0);
        }
        None
    }

    /// So many of the kind that jobs like this one want.
    pub fn expect(&mut self, like: &mut Sandbox, count: usize) -> Result<Option<u64>> {
        let job = Job::of(like, false)?;
        let count = count.min(self.settings.most);
        if let Some(kind) = self.kinds.iter_mut().find(|kind| kind.recipe.serves(&job)) {
            kind.wanted = kind.wanted.max(count);
            (kind.last, kind.asked) = (Instant::now(), kind.asked.max(2));
            return Ok(Some(kind.number));
        }
        let Some(recipe) = job.recipe(&self.settings, &self.hierarchy) else { return Ok(None) };
        Ok(Some(self.remember(recipe, count)))
    }

    fn remember(&mut self, recipe: Recipe, wanted: usize) -> u64 {
        if self.kinds.len() >= MOST_KINDS
            && let Some(oldest) = (0..self.kinds.len()).min_by_key(|at| self.kinds[*at].last)
        {
            self.kinds.swap_remove(oldest);
        }
        let number = self.next_kind;
        self.next_kind += 1;
        // A kind that is wanted once may never be again.
        let asked = if wanted > 0 { 2 } else { 1 };
        let (last, waiting) = (Instant::now(), Vec::new());
        self.kinds.push(Kind { number, recipe, waiting, making: 0, wanted: wanted.max(1), asked, last, failed: false });
        number
    }

    /// What is to be made next, if anything is.
    pub fn next_order(&mut self) -> Option<Order> {
        let there: usize = self.kinds.iter().map(|kind| kind.waiting.len() + kind.making).sum();
        if there >= self.settings.most {
            return None;
        }
        let kind = self.kinds.iter_mut().filter(|kind| kind.lacks()).max_by_key(|kind| kind.last)?;
        kind.making += 1;
        Some(Order { kind: kind.number, recipe: kind.recipe.clone(), hierarchy: self.hierarchy.clone() })
    }

    pub fn put(&mut self, done: Done) {
        let Some(kind) = self.kinds.iter_mut().find(|kind| kind.number == done.kind) else { return };
        kind.making -= 1;
        match done.result {
            Ok(prepared) => kind.waiting.push(prepared),
            // Without an interpreter it may do.
            Err(_) if kind.recipe.boot.is_some() => {
                kind.recipe.leave_interpreter_out();
            }
            Err(_) => kind.failed = true,
        }
    }

    /// Lets go of what nobody has wanted for long; when to look again.
    pub fn shrink(&mut self) -> Option<Duration> {
        let most = self.settings.most;
        let mut next: Option<Duration> = None;
        for kind in &mut self.kinds {
            kind.wanted = kind.wanted.min(most);
            if kind.waiting.is_empty() && kind.wanted <= 1 {
                continue;
            }
            let idle = kind.last.elapsed();
            if idle >= PATIENCE {
                kind.last = Instant::now();
                kind.wanted = kind.wanted.saturating_sub(1);
                kind.waiting.truncate(kind.wanted);
            }
            let left = PATIENCE.saturating_sub(idle).max(Duration::from_millis(100));
            next = Some(next.map_or(left, |next| next.min(left)));
        }
        next
    }

    #[must_use]
    pub fn is_making(&self, number: u64) -> bool {
        let there: usize = self.kinds.iter().map(|kind| kind.waiting.len() + kind.making).sum();
        let kind = self.kinds.iter().find(|kind| kind.number == number);
        kind.is_some_and(|kind| kind.making > 0 || (kind.lacks() && there < self.settings.most))
    }

    #[must_use]
    pub fn waiting(&self, number: u64) -> usize {
        self.kinds.iter().find(|kind| kind.number == number).map_or(0, |kind| kind.waiting.len())
    }
}

impl Kind {
    const fn lacks(&self) -> bool {
        !self.failed && self.asked > 1 && self.waiting.len() + self.making < self.wanted
    }
}
