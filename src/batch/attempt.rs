//! A worker's side: one job from its line to the line of its result.

use std::{borrow::Cow, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    apply::{self, Images},
    artifacts,
    expect::{verdict_number, verdict_of},
    job::{Case, Job, Known, Label},
    record::{CaseRecord, Record},
    settings::Settings,
};
use crate::{
    Error, Observer, Outcome, Result, Sandbox, Stdin, Verdict,
    error::Hint,
    report::{Captured, Compile, Failure, Isolation},
    request::{Bytes, Limits, SandboxId},
};

/// What a compiler may leave for the cases.
const MOST_COMPILED: Bytes = Bytes::mib(64);

/// A job on its way to a worker: what is known of it, a line end, and the job itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Task {
    /// Whose it is, where there are several who send them; 0 where not.
    pub(super) from: u64,
    pub(super) line: u64,
    pub(super) sha256: String,
    pub(super) attempt: u32,
}

impl Task {
    pub(super) fn pack(&self, job: &[u8]) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(job);
        bytes
    }

    fn unpack(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        Some((serde_json::from_slice(&bytes[..end]).ok()?, &bytes[end + 1..]))
    }
}

/// A result, and what is said of it without reading it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finished {
    pub(super) verdict: Verdict,
    pub(super) passed: Option<bool>,
    /// What was expected, or, where nothing was, that it ended with `ok`.
    pub(super) good: bool,
    /// From the request to the program's end.
    pub(super) took: Duration,
    /// The result, without a line end.
    pub(super) line: Vec<u8>,
}

const HEADER: usize = 11;

impl Finished {
    pub(super) fn pack(self) -> Vec<u8> {
        let passed = self.passed.map_or(2, u8::from);
        let mut bytes = vec![verdict_number(self.verdict), passed, u8::from(self.good)];
        bytes.extend_from_slice(&(self.took.as_micros() as u64).to_le_bytes());
        bytes.extend(self.line);
        bytes
    }

    pub(super) fn unpack(mut bytes: Vec<u8>) -> Option<Self> {
        let line = bytes.split_off_checked(HEADER)?;
        let took = u64::from_le_bytes(bytes[3..].try_into().ok()?);
        Some(Self {
            verdict: verdict_of(bytes[0]),
            passed: (bytes[1] < 2).then_some(bytes[1] == 1),
            good: bytes[2] == 1,
            took: Duration::from_micros(took),
            line,
        })
    }
}

trait SplitOffChecked: Sized {
    fn split_off_checked(&mut self, at: usize) -> Option<Self>;
}

impl SplitOffChecked for Vec<u8> {
    fn split_off_checked(&mut self, at: usize) -> Option<Self> {
        (self.len() >= at).then(|| self.split_off(at))
    }
}

/// How a sandbox is run: by a worker, which is seen to by the spawner, or by the caller.
pub(super) type RunSandbox<'a> = dyn FnMut(&mut Sandbox) -> Result<Outcome> + 'a;

pub(super) struct Deaf;

impl Observer for Deaf {}

/// Runs a task to its result, whatever happens.
pub(super) fn run(task: &[u8], settings: &Settings, images: &mut Images, run: &mut RunSandbox<'_>) -> Vec<u8> {
    let Some((task, bytes)) = Task::unpack(task) else { return Vec::new() };
    let job = match Job::parse(bytes) {
        Ok(job) => job.over(&settings.defaults),
        Err(error) => {
            let error = error.into_error();
            let known = Known::of(bytes).map_or(Refused::Unknown, Refused::Known);
            return refused(&task, &known, &error, settings.template.its_limits()).pack();
        }
    };
    match attempt(&task, &job, settings, images, run) {
        Ok(finished) => finished.pack(),
        Err(error) => {
            let job = Refused::Job(Box::new(job));
            refused(&task, &job, &error, settings.template.its_limits()).pack()
        }
    }
}

/// What there is to be told of a job that could not be begun.
pub(super) enum Refused {
    Job(Box<Job>),
    Known(Known),
    /// It could not even be read.
    Unknown,
}

/// The result of a job that could not be begun.
pub(super) fn refused(task: &Task, refused: &Refused, error: &Error, limits: &Limits) -> Finished {
    let limits = match refused {
        Refused::Job(job) => apply::limits(job, limits).ok(),
        Refused::Known(_) | Refused::Unknown => None,
    }
    .unwrap_or_else(|| limits.clone());
    let outcome = setup_error(error, limits);
    let (about, expects) = match refused {
        Refused::Job(job) => (About::of(task, job), expects_anything(job)),
        Refused::Known(known) => {
            (About { id: Some(named(task, known.id.as_ref())), metadata: known.metadata.as_ref() }, known.expects)
        }
        Refused::Unknown => (About { id: None, metadata: None }, false),
    };
    finish(task, &about, &outcome, expects.then_some(false), &[], None, Duration::ZERO)
}

/// What a result says of its job: `id` is none where that is not known.
struct About<'a> {
    id: Option<Cow<'a, Label>>,
    metadata: Option<&'a Value>,
}

impl<'a> About<'a> {
    fn of(task: &Task, job: &'a Job) -> Self {
        Self { id: Some(named(task, job.id.as_ref())), metadata: job.metadata.as_ref() }
    }
}

fn named<'a>(task: &Task, id: Option<&'a Label>) -> Cow<'a, Label> {
    id.map_or_else(|| Cow::Owned(Label::Number(i64::try_from(task.line).unwrap_or(i64::MAX))), Cow::Borrowed)
}

fn setup_error(error: &Error, limits: Limits) -> Outcome {
    // What never ran has no sandbox, and what has a record shows the job's id.
    let nobody = SandboxId::parse("none").or_else(|_| SandboxId::random().map_err(|_| ()));
    match nobody {
        Ok(id) => Outcome::setup_error(id, None, Isolation::Native, limits, Failure::setup(error)),
        Err(()) => unreachable!("`none` is an id"),
    }
}

fn expects_anything(job: &Job) -> bool {
    job.expect.is_some() || job.cases.iter().any(|case| case.expect.is_some())
}

fn finish(
    task: &Task,
    about: &About<'_>,
    outcome: &Outcome,
    passed: Option<bool>,
    failures: &[String],
    cases: Option<&[CaseRecord]>,
    took: Duration,
) -> Finished {
    let record = Record {
        id: about.id.as_deref(),
        line: task.line,
        sha256: &task.sha256,
        outcome,
        passed,
        failures,
        metadata: about.metadata,
        cases,
        attempts: task.attempt,
    };
    let all_ok = cases.is_none_or(|cases| cases.iter().all(|case| case.outcome.verdict == Verdict::Ok));
    Finished {
        verdict: outcome.verdict,
        passed,
        good: passed.unwrap_or(outcome.verdict == Verdict::Ok && outcome.error.is_none() && all_ok),
        took,
        line: serde_json::to_vec(&record).unwrap_or_default(),
    }
}

fn attempt(
    task: &Task,
    job: &Job,
    settings: &Settings,
    images: &mut Images,
    run: &mut RunSandbox<'_>,
) -> Result<Finished> {
    let base = apply::sandbox(job, settings, images)?;
    let out = settings.artifacts.as_deref().map(|all| artifacts::dir(all, (task.from, task.line), job.id.as_ref()));
    if let Some(out) = &out {
        artifacts::make(out).map_err(|error| cannot_write(out, &error))?;
    }
    if job.cases.is_empty() {
        let outcome = one((settings, task, job), None, base, out.as_deref(), run)?;
        let (passed, failures) = judge(job, None, &outcome);
        let took = took(&outcome);
        return Ok(finish(task, &About::of(task, job), &outcome, passed, &failures, None, took));
    }
    cases((settings, task, job), base, out.as_deref(), run)
}

/// Whether the job could be begun, as far as that can be told without doing it.
pub(super) fn check(job: &Job, settings: &Settings, images: &mut Images) -> Result<()> {
    let base = apply::sandbox(job, settings, images)?;
    if settings.artifacts.is_none()
        && let Some(text) = job.get.iter().flatten().next()
    {
        return Err(Error::new(format!("`get`: there is no place for `{text}`")).with_hint("name one with --artifacts"));
    }
    base.clone().spec()?;
    for case in &job.cases {
        let mut sandbox = base.clone();
        apply::case(case, &mut sandbox)?;
        sandbox.spec()?;
    }
    Ok(())
}

/// `b<process>-<line>-<random>`: by its name in `fumehood ps` a sandbox is known to be of this batch, and of which job.
fn name(settings: &Settings, task: &Task, sandbox: &mut Sandbox) -> Result<()> {
    let random = SandboxId::random().map_err(|error| Error::new(format!("no random sandbox id: {error}")))?;
    let id = SandboxId::parse(&format!("b{}-{}-{random}", settings.owner, task.line));
    sandbox.id(id.map_err(crate::request::RequestError::from).map_err(Hint::into_error)?);
    Ok(())
}

fn one(
    (settings, task, job): (&Settings, &Task, &Job),
    case: Option<&Case>,
    mut sandbox: Sandbox,
    out: Option<&Path>,
    run: &mut RunSandbox<'_>,
) -> Result<Outcome> {
    name(settings, task, &mut sandbox)?;
    if let Some(case) = case {
        apply::case(case, &mut sandbox)?;
    }
    apply::fetch(job, case, out, &mut sandbox)?;
    let mut outcome = run(&mut sandbox).or_else(|error| sandbox.failed(&error))?;
    if let Some(out) = out
        && let Err(error) = artifacts::write(out, &outcome)
    {
        outcome.error.get_or_insert(Failure::fetch(&cannot_write(out, &error)));
    }
    Ok(outcome)
}

fn cannot_write(out: &Path, error: &std::io::Error) -> Error {
    Error::new(format!("cannot write to `{}`: {error}", out.display()))
}

fn judge(job: &Job, case: Option<&Case>, outcome: &Outcome) -> (Option<bool>, Vec<String>) {
    let Some(expect) = job.expects(case) else { return (None, Vec::new()) };
    let mut failures = expect.unmet(outcome);
    if let (Some(error), true) = (&outcome.error, failures.is_empty())
        && outcome.verdict != Verdict::SetupError
    {
        failures.push(format!("error: {}", error.message));
    }
    (Some(failures.is_empty()), failures)
}

fn took(outcome: &Outcome) -> Duration {
    let before = [&outcome.compile, &outcome.prepared].into_iter().flatten().map(|step| step.duration);
    outcome.setup + outcome.duration + before.sum::<Duration>()
}

/// Compiles once, if there is something to be compiled, and runs each case in a sandbox of its own.
fn cases(
    (settings, task, job): (&Settings, &Task, &Job),
    mut base: Sandbox,
    out: Option<&Path>,
    run: &mut RunSandbox<'_>,
) -> Result<Finished> {
    let mut spent = Duration::ZERO;
    let mut compile = None;
    if let Some(mut compiler) = base.compiler(MOST_COMPILED)? {
        name(settings, task, &mut compiler)?;
        let mut outcome = run(&mut compiler).or_else(|error| compiler.failed(&error))?;
        spent += took(&outcome);
        if outcome.verdict != Verdict::Ok || outcome.error.is_some() {
            if outcome.verdict != Verdict::SetupError {
                outcome.compile = Some(compiled(&outcome));
            }
            outcome.files.clear();
            if outcome.verdict == Verdict::Ok {
                // What it made could not be had.
                outcome.verdict = Verdict::SetupError;
            }
            let passed = expects_anything(job).then_some(false);
            let failures = ["compile: it did not succeed".to_owned()];
            let failures = if passed.is_some() { &failures[..] } else { &[] };
            return Ok(finish(task, &About::of(task, job), &outcome, passed, failures, Some(&[]), spent));
        }
        let made: Vec<_> =
            outcome.files.iter().filter_map(|file| Some((file.path.clone(), file.content.clone()?))).collect();
        compile = Some(compiled(&outcome));
        base = base.compiled(&made);
        base.stdin(job.stdin.as_ref().map_or(Stdin::Empty, |stdin| Stdin::Bytes(stdin.0.clone())));
    }
    let mut records: Vec<CaseRecord> = Vec::with_capacity(job.cases.len());
    let mut room = usize::try_from(apply::MOST_OUTPUT.get()).unwrap_or(usize::MAX);
    for (number, case) in (1..).zip(&job.cases) {
        let out = out.map(|out| out.join(format!("case-{number:03}")));
        if let Some(out) = &out {
            artifacts::make(out).map_err(|error| cannot_write(out, &error))?;
        }
        let mut outcome = one((settings, task, job), Some(case), base.clone(), out.as_deref(), run)?;
        spent += took(&outcome);
        let (passed, failures) = judge(job, Some(case), &outcome);
        // It has been judged by all of it.
        cut(&mut outcome.stdout, &mut room);
        cut(&mut outcome.stderr, &mut room);
        let id = case.id.clone().unwrap_or(Label::Number(number));
        let good = passed.unwrap_or(outcome.verdict == Verdict::Ok);
        records.push(CaseRecord { id, outcome, passed, failures });
        if !good && job.stop_at_first == Some(true) {
            break;
        }
    }
    let decides = |record: &&CaseRecord| !record.passed.unwrap_or(record.outcome.verdict == Verdict::Ok);
    let Some(decided) = records.iter().find(decides).or(records.last()) else {
        return Err(Error::new("`cases` is empty"));
    };
    let mut outcome = decided.outcome.clone();
    outcome.compile = compile.or(outcome.compile);
    let failures: Vec<String> = records
        .iter()
        .filter(|record| record.passed == Some(false))
        .flat_map(|record| record.failures.iter().map(|failure| format!("case {}: {failure}", record.id)))
        .take(MOST_FAILURES)
        .collect();
    let passed = expects_anything(job).then(|| records.iter().all(|record| record.passed != Some(false)));
    Ok(finish(task, &About::of(task, job), &outcome, passed, &failures, Some(&records), spent))
}

/// What all cases of a job have printed is in one result.
fn cut(captured: &mut Captured, room: &mut usize) {
    captured.truncated |= captured.bytes.len() > *room;
    captured.bytes.truncate(*room);
    *room -= captured.bytes.len();
}

/// The cases have their own; these are for who looks at the job.
const MOST_FAILURES: usize = 100;

fn compiled(outcome: &Outcome) -> Compile {
    Compile {
        verdict: outcome.verdict,
        exit_code: outcome.exit_code,
        signal: outcome.signal,
        stdout: outcome.stdout.clone(),
        stderr: outcome.stderr.clone(),
        duration: outcome.duration,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cases_print_is_bounded_together() {
        let mut room = 10;
        let all = [6, 3, 0, 2, 1].map(|length| {
            let mut captured = Captured { bytes: vec![b'x'; length], truncated: false };
            cut(&mut captured, &mut room);
            (captured.bytes.len(), captured.truncated)
        });
        assert_eq!(all, [(6, false), (3, false), (0, false), (1, true), (0, true)]);
    }
}
