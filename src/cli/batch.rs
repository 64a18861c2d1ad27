//! `fumehood batch`.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{IsTerminal, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use fumehood::{
    Batch, Error, Result,
    batch::{BatchError, Existing, Format, Job, Jobs, Progress, Summary, Watch},
    error::Hint,
    pool,
    sys::process,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};

use super::{
    help, high,
    low::{self, Low, Many, Verb},
    message,
    usage::UsageError,
};

const SIGNALS: [i32; 3] = [Signal::SIGINT as i32, Signal::SIGTERM as i32, Signal::SIGHUP as i32];
/// Some jobs did not pass.
const NOT_GOOD: u8 = 1;

pub fn run(words: Vec<OsString>) -> ExitCode {
    let low = match low::parse(Verb::Batch, words) {
        Ok(low) if low.help => return message::print(&help::text(Verb::Batch)),
        Ok(low) => low,
        Err(error) => return message::fail(&error),
    };
    attempt(low).unwrap_or_else(|error| message::fail(&error))
}

fn attempt(mut low: Low) -> Result<ExitCode> {
    let Some(name) = low.file.take() else { return Err(UsageError::NoJobs.into_error()) };
    let many = std::mem::take(&mut low.batch);
    let mut batch = Batch::new(high::sandbox(Verb::Batch, &mut low)?);
    settings(&mut batch, &low, &many)?;
    let socket = name.as_encoded_bytes().starts_with(b"unix:");
    if socket && (many.output.is_some() || many.dry_run || many.format == Some(Format::Csv)) {
        return Err(Error::new("results of what comes over a socket go back over it, and jobs are lines of JSON")
            .with_hint("leave -o, --dry-run and --format out"));
    }
    if many.resume && many.output.is_none() {
        return Err(
            Error::new("--resume goes on with a file of results, and none is named").with_hint("name it with -o")
        );
    }
    let jobs = jobs(&name, many.format).map_err(Hint::into_error)?;
    if many.dry_run {
        return check(&batch, jobs);
    }
    raise_descriptors();
    let signals = process::take_signals(&SIGNALS).map_err(|errno| Error::new(format!("signals: {}", errno.desc())))?;
    let mut view = View::new(low.quiet);
    let ended = go(&mut batch, jobs, &many, signals.as_fd(), &mut view);
    view.finish();
    match ended {
        Ok(summary) => {
            if !low.quiet {
                tell(&summary);
            }
            if let Some(path) = &many.summary {
                write_summary(path, &summary)?;
            }
            Ok(status(&summary))
        }
        // Whoever read the results has what they wanted.
        Err(error) if error.is_reader_gone() => Ok(message::printed(Err(std::io::ErrorKind::BrokenPipe.into()))),
        Err(error) => Err(error.into_error()),
    }
}

fn settings(batch: &mut Batch, low: &Low, many: &Many) -> Result<()> {
    if let Some((path, text)) = &many.defaults {
        let toml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
        let defaults =
            Job::defaults(text, toml).map_err(|error| Error::new(format!("`{}`: {error}", path.display())))?;
        batch.defaults(defaults);
    }
    if let Some(workers) = many.workers {
        batch.workers(workers);
    }
    if let Some(memory) = many.memory {
        batch.memory(memory);
    }
    if let Some(cpus) = many.cpus {
        batch.cpus(cpus);
    }
    if let Some(rate) = many.rate {
        batch.rate(rate);
    }
    if let Some(dir) = &many.artifacts {
        batch.artifacts(dir);
    }
    if let Some(dir) = &low.store {
        batch.store(dir);
    }
    let ahead = pool::Settings::default();
    batch.ahead(pool::Settings {
        most: many.pool.unwrap_or(many.workers.map_or(ahead.most, |workers| workers.get().min(ahead.most))),
        preload: many.preload.clone(),
        ..ahead
    });
    batch.unordered(many.unordered).fail_fast(many.fail_fast).retries(many.retries);
    Ok(())
}

fn jobs(name: &OsString, format: Option<Format>) -> Result<Jobs, BatchError> {
    if name == "-" {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(|source| BatchError::Input { source })?;
        return Ok(Jobs::stream(File::from(stdin), format.unwrap_or(Format::Jsonl)));
    }
    if let Some(path) = name.as_encoded_bytes().strip_prefix(b"unix:") {
        return Jobs::socket(Path::new(OsStr::from_bytes(path)));
    }
    Jobs::file(Path::new(name), format)
}

fn go(
    batch: &mut Batch,
    jobs: Jobs,
    many: &Many,
    signals: BorrowedFd<'_>,
    view: &mut View,
) -> Result<Summary, BatchError> {
    let Some(path) = &many.output else {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned().map_err(|source| BatchError::Output { source })?;
        return batch.run_to_stream(jobs, File::from(stdout), Some(signals), view);
    };
    let existing = match (many.resume, many.force) {
        (true, _) => Existing::Resume,
        (false, true) => Existing::Replace,
        (false, false) => Existing::Refuse,
    };
    batch.run_to_file(jobs, path, existing, Some(signals), view)
}

/// Says what is wrong with which line.
fn check(batch: &Batch, jobs: Jobs) -> Result<ExitCode> {
    let mut wrong = 0u64;
    let mut out = std::io::stdout().lock();
    let count = batch.check(jobs, |line, error| {
        wrong += 1;
        let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
        // Nobody who reads it is left to be told.
        _ = writeln!(out, "line {line}: {}", message::plain(&format!("{}{hint}", error.message())));
    });
    let count = count.map_err(Hint::into_error)?;
    message::note(&format!("{count} jobs, {wrong} of them wrong"));
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

/// Each worker takes one, and the usual bound is low.
fn raise_descriptors() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // With those that there are it goes on.
        _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn status(summary: &Summary) -> ExitCode {
    match summary.interrupted {
        Some(signal) => ExitCode::from(128 + u8::try_from(signal).unwrap_or(0)),
        None if summary.is_success() => ExitCode::SUCCESS,
        None => ExitCode::from(NOT_GOOD),
    }
}

fn write_summary(path: &Path, summary: &Summary) -> Result<()> {
    let failed = |why: String| Error::new(format!("cannot write `{}`: {why}", path.display()));
    let text = serde_json::to_string_pretty(summary).map_err(|error| failed(error.to_string()))?;
    std::fs::write(path, text + "\n").map_err(|error| failed(error.to_string()))
}

fn tell(summary: &Summary) {
    let verdicts: Vec<_> = summary.verdicts().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    let mut line = format!("{} jobs", summary.jobs());
    if summary.resumed > 0 {
        line.push_str(&format!(", {} of them done before", summary.resumed));
    }
    if !verdicts.is_empty() {
        line.push_str(&format!(": {}", verdicts.join(", ")));
    }
    if summary.passed + summary.unmet > 0 {
        line.push_str(&format!("; {} passed, {} did not", summary.passed, summary.unmet));
    }
    message::note(&line);
    let time = |share| summary.quantile(share).map_or_else(|| "-".to_owned(), super::verdict::time);
    message::note(&format!(
        "{} in all, {:.1} a second; p50 {}, p95 {}, p99 {}",
        super::verdict::time(Duration::from_millis(summary.wall().as_millis() as u64)),
        summary.per_second(),
        time(0.5),
        time(0.95),
        time(0.99)
    ));
    if let Some(why) = summary.together.as_ref().filter(|together| together.asked).and_then(|all| all.why.as_ref()) {
        message::note(&format!("--max-memory was held by each job's own limit, and not by a cgroup around all: {why}"));
    }
    if summary.stopped {
        message::note("ended at the first job that was not good (--fail-fast)");
    }
}

/// What somebody sees meanwhile: a bar on a terminal, a line now and then elsewhere.
#[derive(Debug)]
struct View {
    bar: Option<ProgressBar>,
    quiet: bool,
    told: Instant,
}

const EVERY: Duration = Duration::from_secs(10);

impl View {
    fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::no_length();
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            bar
        });
        Self { bar, quiet, told: Instant::now() }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Watch for View {
    fn progress(&mut self, progress: &Progress<'_>) {
        let summary = progress.summary;
        let bad = summary.jobs() - summary.good;
        match &self.bar {
            Some(bar) => {
                if bar.length().is_none() {
                    let known = progress.total.is_some();
                    let style = if known { "{wide_bar} {pos}/{len} {msg} {eta}" } else { "{spinner} {pos} {msg}" };
                    bar.set_length(progress.total.unwrap_or(u64::MAX));
                    if let Ok(style) = ProgressStyle::with_template(style) {
                        bar.set_style(style);
                    }
                }
                bar.set_message(format!("{:.0}/s, {bad} not good, {} running", summary.per_second(), progress.running));
                bar.set_position(summary.jobs());
            }
            None if !self.quiet && self.told.elapsed() >= EVERY => {
                self.told = Instant::now();
                let of = progress.total.map_or_else(String::new, |total| format!(" of {total}"));
                message::note(&format!(
                    "{}{of} jobs, {bad} not good, {:.1} a second",
                    summary.jobs(),
                    summary.per_second()
                ));
            }
            None => {}
        }
    }

    fn interrupted(&mut self, running: usize) {
        if !self.quiet {
            self.finish();
            message::note(&format!("waiting for {running} jobs that run; once more kills them"));
        }
    }

    fn ticks(&self) -> bool {
        !self.quiet
    }

    fn wants_total(&self) -> bool {
        !self.quiet
    }
}
