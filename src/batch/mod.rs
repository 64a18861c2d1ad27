//! Many jobs, each in a sandbox of its own: a line in, a line out.
//!
//! ```text
//! Jobs ──► Job ──► Crew (workers of the spawner) ──► Finished ──► Order ──► Output
//! ```
//!
//! One thread reads jobs, hands them to workers, and writes results; a worker makes the sandbox that a job means, runs it,
//! judges it by what was expected, and makes the whole line of the result. What is held in between is bounded: jobs are
//! read only as they are needed, and nothing is begun while results wait for too long.
//!
//! Invariant: each job that was read has exactly one result, whatever it was, unless the batch was ended before; and a
//! result is in the file as a whole or not at all, so that another run can go on from any end.

mod apply;
mod artifacts;
mod attempt;
mod bounded;
mod crew;
mod error;
mod expect;
mod idle;
mod job;
mod journal;
mod lines;
mod output;
mod record;
mod run;
mod schema;
mod settings;
mod socket;
mod source;
mod summary;
mod table;
mod together;

use std::{
    fs::File,
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

pub use error::{BatchError, JobError};
pub use expect::{Compare, Expect, FileContent};
pub use job::{Case, Content, Job, JobLimits, Kernel, Label, Net, NetRules, Quantity};
pub use journal::Existing;
pub use schema::{JOB as JOB_SCHEMA, RESULT as RESULT_SCHEMA};
pub use source::{Format, Jobs};
pub use summary::Summary;
pub use table::Columns;
pub use together::Together;

use crate::{Error, Sandbox, cgroup::Cohort, error::Hint, request::Bytes};
use journal::{Done, Journal};
use output::{Output, Stream};
use settings::{Pace, Settings};
use source::Next;

/// How far a batch is.
#[derive(Debug)]
pub struct Progress<'a> {
    pub summary: &'a Summary,
    /// All jobs, where their number is known.
    pub total: Option<u64>,
    pub running: usize,
}

/// Sees a batch as it goes.
pub trait Watch {
    fn progress(&mut self, _progress: &Progress<'_>) {}

    /// Told once that a signal has come, and how many jobs are waited for.
    fn interrupted(&mut self, _running: usize) {}

    /// Whether to be told some times a second even where nothing happens.
    fn ticks(&self) -> bool {
        false
    }

    /// Whether the jobs of a file are to be counted first.
    fn wants_total(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Blind;

impl Watch for Blind {}

/// Runs many jobs, each in a sandbox of its own, by a template that says what they leave out.
///
/// ```no_run
/// use fumehood::{Batch, Sandbox, batch::{Job, Jobs}};
///
/// let jobs = (0..100).map(|n| Job { code: Some(format!("print({n} * 2)").as_str().into()), ..Job::default() });
/// let mut batch = Batch::new(Sandbox::template());
/// let summary = batch.run(Jobs::list(jobs), |line| println!("{line}"))?;
/// assert!(summary.is_success());
/// # Ok::<(), fumehood::Error>(())
/// ```
///
/// It forks the process that makes the sandboxes when it starts: best before there are threads.
#[derive(Debug)]
pub struct Batch {
    settings: Settings,
    pace: Pace,
}

impl Batch {
    #[must_use]
    pub fn new(template: Sandbox) -> Self {
        let settings = Settings {
            owner: std::process::id(),
            template,
            defaults: Job::default(),
            store: None,
            artifacts: None,
            ahead: crate::pool::Settings::default(),
        };
        Self { settings, pace: Pace::default() }
    }

    /// What jobs leave out; over the template.
    pub fn defaults(&mut self, job: Job) -> &mut Self {
        self.settings.defaults = job;
        self
    }

    /// So many at once; by default one for each CPU, if there is memory for as many that leave out their limit of it.
    pub fn workers(&mut self, workers: NonZeroUsize) -> &mut Self {
        self.pace.workers = Some(workers);
        self
    }

    /// What jobs that run at once may have of memory together; by default what is available. Their limits come to no more,
    /// and where there are cgroups, the kernel holds them to it. `u64::MAX` bytes are no bound.
    pub fn memory(&mut self, most: Bytes) -> &mut Self {
        self.pace.memory = Some(most);
        self
    }

    /// What jobs that run at once may have of CPU time together: so many CPUs. It takes a cgroup.
    pub fn cpus(&mut self, most: f64) -> &mut Self {
        self.pace.cpus = Some(most);
        self
    }

    /// Begins no more than this in a second.
    pub fn rate(&mut self, per_second: f64) -> &mut Self {
        self.pace.rate = Some(per_second).filter(|rate| *rate > 0.0);
        self
    }

    /// Gives results as they come instead of in the order of their jobs.
    pub fn unordered(&mut self, unordered: bool) -> &mut Self {
        self.pace.ordered = !unordered;
        self
    }

    /// Begins nothing after the first job that is not good.
    pub fn fail_fast(&mut self, fail_fast: bool) -> &mut Self {
        self.pace.fail_fast = fail_fast;
        self
    }

    /// Runs a job again, so many times at most, that ended with `setup_error`.
    pub fn retries(&mut self, retries: u32) -> &mut Self {
        self.pace.retries = retries;
        self
    }

    /// How sandboxes are made ahead of their jobs; by default as many wait as there are CPUs.
    pub fn ahead(&mut self, settings: crate::pool::Settings) -> &mut Self {
        self.settings.ahead = settings;
        self
    }

    /// Writes what each job leaves to a directory of its own below this one.
    pub fn artifacts(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        self.settings.artifacts = Some(dir.into());
        self
    }

    /// Where the images are that jobs name.
    pub fn store(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        self.settings.store = Some(dir.into());
        self
    }

    /// Runs all jobs, and gives `result` the line of each result.
    ///
    /// # Errors
    /// When the jobs cannot be read, or no sandboxes be made at all. How a job ended is never an error.
    pub fn run(&mut self, jobs: Jobs, mut result: impl FnMut(&str)) -> crate::Result<Summary> {
        let output = Output::Taker(Box::new(|line: &[u8]| result(&String::from_utf8_lossy(line))));
        self.go(jobs, output, (Path::new(""), Done::default()), Summary::default(), None, &mut Blind)
            .map_err(Hint::into_error)
    }

    /// Runs all jobs, with the results in a file. It is its own journal: see [`Existing::Resume`].
    pub fn run_to_file(
        &mut self,
        jobs: Jobs,
        path: &Path,
        existing: Existing,
        signals: Option<BorrowedFd<'_>>,
        watch: &mut dyn Watch,
    ) -> Result<Summary, BatchError> {
        if path.exists() && !path.is_file() {
            let failed = |source| BatchError::Write { path: path.to_owned(), source };
            return self.run_to_stream(jobs, File::options().write(true).open(path).map_err(failed)?, signals, watch);
        }
        let mut summary = Summary::default();
        let (journal, done) = Journal::open(path, existing, &mut summary)?;
        done.check(&jobs, path)?;
        self.go(jobs, Output::Journal(journal), (path, done), summary, signals, watch)
    }

    /// Runs all jobs, with the results written to what somebody reads; those that came over a socket, to who sent them.
    pub fn run_to_stream(
        &mut self,
        jobs: Jobs,
        stream: File,
        signals: Option<BorrowedFd<'_>>,
        watch: &mut dyn Watch,
    ) -> Result<Summary, BatchError> {
        let output = match jobs.connections() {
            Some(hub) => Output::Connections(hub),
            None => Output::Stream(Stream::new(stream)),
        };
        self.go(jobs, output, (Path::new(""), Done::default()), Summary::default(), signals, watch)
    }

    fn go<'a>(
        &'a self,
        jobs: Jobs,
        output: Output<'a>,
        done: (&Path, Done),
        mut summary: Summary,
        signals: Option<BorrowedFd<'a>>,
        watch: &'a mut dyn Watch,
    ) -> Result<Summary, BatchError> {
        if let Some(dir) = &self.settings.artifacts {
            std::fs::create_dir_all(dir).map_err(|source| BatchError::Write { path: dir.clone(), source })?;
        }
        // Removed when the spawner has ended.
        let (together, cohort) = Together::hold(&self.pace, self.settings.usual_memory())?;
        summary.together = Some(together.clone());
        let spawner = crew::start(&self.settings, cohort.as_ref().map(Cohort::place))?;
        run::Run::new(&self.settings, &self.pace, together, jobs, spawner, output, done, summary, signals, watch).run()
    }

    /// Looks at all jobs as far as that can be done without running them, and tells of each that could not be run by its
    /// line. Returns how many there are.
    pub fn check(&self, mut jobs: Jobs, mut tell: impl FnMut(u64, &Error)) -> Result<u64, BatchError> {
        let mut images = apply::Images::default();
        let mut count = 0;
        loop {
            let job = match jobs.next(&|_| 0)? {
                Next::Some(job) => job,
                Next::End => return Ok(count),
                Next::Wait => {
                    let ready = jobs.fds(true, &|_| 0).into_iter();
                    let mut ready: Vec<_> = ready.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 }).collect();
                    crate::sys::process::poll(&mut ready, None)
                        .map_err(|errno| BatchError::Input { source: errno.into() })?;
                    continue;
                }
            };
            count += 1;
            let checked = job
                .job
                .map_err(|(_, error)| error)
                .and_then(|(one, _)| attempt::check(&one.over(&self.settings.defaults), &self.settings, &mut images));
            if let Err(error) = checked {
                tell(job.line, &error);
            }
        }
    }
}
