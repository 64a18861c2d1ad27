//! What goes wrong with a whole batch, and with one job's line.

use std::{io, path::PathBuf};

use crate::{cgroup::CgroupError, error::Hint, spawn::SpawnError};

/// A line that is no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct JobError {
    why: String,
    hint: Option<String>,
}

/// Of what a parser said, which may repeat what it was given.
const MOST_SAID: usize = 512;

impl JobError {
    /// Longer names are no mistyped ones, and not repeated.
    pub(super) const LONGEST_NAME: usize = 64;

    /// As much of what somebody wrote as is told back.
    pub(super) fn clip(text: &str) -> String {
        match text.char_indices().nth(Self::LONGEST_NAME) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text.to_owned(),
        }
    }

    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), hint: None }
    }

    pub(super) fn no_object() -> Self {
        let hint = Some("a job is one, on a line of its own".to_owned());
        Self { why: "it is no JSON object".to_owned(), hint }
    }

    /// From what a parser said of the field at `path`.
    pub(super) fn misread(path: &str, said: String) -> Self {
        // What is known comes last, and names of fields have no quotes in them.
        let unknown = said.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
        let mut field = path.to_owned();
        let mut hint = None;
        let why = match unknown {
            Some((name, rest)) => {
                // The path ends in the field that there is none of.
                field = field.strip_suffix(name).unwrap_or(&field).trim_end_matches('.').to_owned();
                let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
                hint = match name.len() > Self::LONGEST_NAME {
                    true => None,
                    false => elsewhere(name, &field).or_else(|| near(name, &known)),
                };
                format!("unknown field `{}`", Self::clip(name))
            }
            None if said.len() > MOST_SAID => {
                let end = (0..=MOST_SAID).rev().find(|end| said.is_char_boundary(*end)).unwrap_or(0);
                format!("{}…", &said[..end])
            }
            None => said,
        };
        let field = if field.len() > MOST_SAID { Self::clip(&field) } else { field };
        let why = if field.is_empty() || field == "." { why } else { format!("`{field}`: {why}") };
        Self { why, hint }
    }
}

fn elsewhere(name: &str, field: &str) -> Option<String> {
    const LIMITS: [&str; 9] = ["memory", "cpu", "pids", "timeout", "cpu_time", "output", "disk", "tmp", "nofile"];
    let top = field.is_empty() || field == ".";
    match name {
        "secret" | "secrets" => Some("a file of jobs is no place for secrets: give them with --secret".to_owned()),
        "mount" | "mounts" => Some("what is mounted is for all jobs: give it with --mount".to_owned()),
        name if top && LIMITS.contains(&name) => {
            Some(format!("limits are below it: {{\"limits\": {{\"{name}\": …}}}}"))
        }
        _ => None,
    }
}

fn near(name: &str, known: &[&str]) -> Option<String> {
    let reach = if name.len() < 4 { 1 } else { 2 };
    let near = known.iter().map(|known| (strsim::osa_distance(name, known), known));
    match near.filter(|(distance, _)| *distance <= reach).min() {
        Some((_, known)) => Some(format!("did you mean `{known}`?")),
        None if known.is_empty() => None,
        None => Some(format!("there are {}", known.join(", "))),
    }
}

impl Hint for JobError {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// Why a batch cannot start, or cannot go on. What has been written by then is whole, and can be resumed from.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("defaults: {why}")]
    Defaults { why: String },
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot read the jobs: {source}")]
    Input { source: io::Error },
    #[error("the table has no column `{name}` of jobs")]
    Column { name: String, hint: Option<String> },
    #[error("the table's first line: {why}")]
    Header { why: String },
    #[error("`{}` is there already", path.display())]
    Exists { path: PathBuf },
    #[error("another batch writes to `{}`", path.display())]
    Locked { path: PathBuf },
    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot write the results: {source}")]
    Output { source: io::Error },
    #[error("`{}` has what is no result of a batch, in line {line}: {why}", path.display())]
    Foreign { path: PathBuf, line: u64, why: String },
    #[error("the jobs are not those of `{}`: line {line} {why}", path.display())]
    Changed { path: PathBuf, line: u64, why: &'static str },
    #[error("cannot listen on `{}`: {source}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("no group for all jobs together: {0}")]
    Cgroup(CgroupError),
    #[error("{flag} cannot be held on this host: {why}")]
    Unheld { flag: &'static str, why: String },
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
}

impl BatchError {
    /// Whether it is only that nobody reads the results any more.
    #[must_use]
    pub fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Output { source } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Hint for BatchError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Column { hint, .. } => return hint.clone(),
            Self::Exists { .. } => "--resume goes on where it ended, --force begins anew".to_owned(),
            Self::Locked { .. } => "wait for it, or name another file".to_owned(),
            Self::Write { source, .. } if is_full(source) => {
                "make room, and run it again with --resume: what is written is whole".to_owned()
            }
            Self::Foreign { .. } => "name the file of results with -o, or begin anew with --force".to_owned(),
            Self::Changed { .. } => "resume with the same jobs, or begin anew with --force".to_owned(),
            Self::Cgroup(error) => return error.hint(),
            Self::Unheld { flag, .. } => {
                format!("leave {flag} out, or run as root or with a delegated cgroup; `fumehood doctor` tells more")
            }
            Self::Spawn(error) => return error.hint(),
            _ => return None,
        })
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
