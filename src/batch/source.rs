//! Where jobs come from, one at a time and as they arrive.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsRawFd, RawFd},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    error::{BatchError, JobError},
    job::{Job, Known, Label},
    lines::{LONGEST, Lines, Raw},
    socket::{Hub, Shared},
    table::Columns,
};
use crate::{Error, error::Hint, sys::process};

/// What is read at a time in search of a job.
const MOST_AT_ONCE: usize = 1 << 20;

/// The jobs of a batch.
pub struct Jobs(pub(super) From);

pub(super) enum From {
    Stream { file: File, again: Option<PathBuf>, lines: Box<Lines>, columns: Option<Option<Columns>>, ended: bool },
    Scripts { dir: PathBuf, paths: VecDeque<PathBuf>, taken: u64 },
    List { jobs: Box<dyn Iterator<Item = Job>>, taken: u64 },
    Socket(Shared),
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            From::Stream { .. } => "Jobs::stream",
            From::Scripts { .. } => "Jobs::scripts",
            From::List { .. } => "Jobs::list",
            From::Socket(..) => "Jobs::socket",
        })
    }
}

/// How the jobs of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line.
    Jsonl,
    /// A table with a line of names.
    Csv,
}

/// A job that has come.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Whose it is, where there are several who send them.
    pub(super) from: u64,
    pub(super) line: u64,
    pub(super) sha256: [u8; 32],
    /// The job, and as what it goes to a worker; or what can be told of it, and why it is none.
    pub(super) job: Result<(Job, Vec<u8>), (Option<Known>, Error)>,
}

pub(super) enum Next<T> {
    Some(T),
    /// Not yet.
    Wait,
    End,
}

impl Jobs {
    /// The jobs of a file; `None` for its format goes by its extension.
    pub fn file(path: &Path, format: Option<Format>) -> Result<Self, BatchError> {
        let failed = |source| BatchError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if found.is_dir() {
            return Self::scripts(path);
        }
        let csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let format = format.unwrap_or(if csv { Format::Csv } else { Format::Jsonl });
        let Self(mut from) = Self::stream(file, format);
        if let From::Stream { again, .. } = &mut from {
            *again = found.is_file().then(|| path.to_owned());
        }
        Ok(Self(from))
    }

    /// The jobs that arrive on a stream.
    #[must_use]
    pub fn stream(file: File, format: Format) -> Self {
        let table = format == Format::Csv;
        let lines = Box::new(Lines::new(table));
        Self(From::Stream { file, again: None, lines, columns: table.then_some(None), ended: false })
    }

    /// All files below a directory, in the order of their names; not those that are hidden, nor links.
    pub fn scripts(dir: &Path) -> Result<Self, BatchError> {
        let mut paths = Vec::new();
        let mut pending = vec![dir.to_owned()];
        while let Some(dir) = pending.pop() {
            let failed = |source| BatchError::Read { path: dir.clone(), source };
            for entry in fs::read_dir(&dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let kind = entry.file_type().map_err(failed)?;
                if entry.file_name().to_string_lossy().starts_with('.') {
                    continue;
                }
                if kind.is_dir() {
                    pending.push(entry.path());
                } else if kind.is_file() {
                    paths.push(entry.path());
                }
            }
        }
        paths.sort();
        Ok(Self(From::Scripts { dir: dir.to_owned(), paths: paths.into(), taken: 0 }))
    }

    /// The jobs of all who connect to a socket that is made here; they end with a signal alone.
    pub fn socket(path: &Path) -> Result<Self, BatchError> {
        Ok(Self(From::Socket(Hub::listen(path)?)))
    }

    pub(super) fn connections(&self) -> Option<Shared> {
        match &self.0 {
            From::Socket(hub) => Some(hub.clone()),
            _ => None,
        }
    }

    /// Jobs made by a program.
    pub fn list(jobs: impl IntoIterator<Item = Job, IntoIter: 'static>) -> Self {
        Self(From::List { jobs: Box::new(jobs.into_iter()), taken: 0 })
    }

    /// The same jobs from the beginning, where they can be read twice.
    pub(super) fn again(&self) -> Option<Result<Self, BatchError>> {
        match &self.0 {
            From::Stream { again: Some(path), columns, .. } => {
                Some(Self::file(path, Some(if columns.is_some() { Format::Csv } else { Format::Jsonl })))
            }
            From::Scripts { dir, .. } => Some(Self::scripts(dir)),
            From::Stream { .. } | From::List { .. } | From::Socket(..) => None,
        }
    }

    /// How many there are, where that can be told ahead.
    pub fn count(&self) -> Option<u64> {
        match &self.0 {
            From::Scripts { paths, .. } => Some(paths.len() as u64),
            From::List { jobs, .. } => jobs.size_hint().1.map(|most| most as u64),
            From::Socket(..) => None,
            From::Stream { .. } => {
                let mut again = self.again()?.ok()?;
                let mut count = 0;
                loop {
                    match again.next_raw() {
                        Ok(Next::Some(_)) => count += 1,
                        // Of a file there is always more to be had.
                        Ok(Next::Wait) => {}
                        Ok(Next::End) | Err(_) => return Some(count),
                    }
                }
            }
        }
    }

    /// What to wait for: whether for more jobs, of who has no more `held` than is right, or only for who reads.
    pub(super) fn fds(&self, more: bool, held: &dyn Fn(u64) -> usize) -> Vec<(RawFd, i16)> {
        match &self.0 {
            From::Stream { file, ended: false, .. } if more => vec![(file.as_raw_fd(), libc::POLLIN)],
            From::Socket(hub) => hub.borrow().fds(more, held),
            _ => Vec::new(),
        }
    }

    /// The next job, but of nobody of whose results too much is `held`. It looks at a bounded part of what has come.
    pub(super) fn next(&mut self, held: &dyn Fn(u64) -> usize) -> Result<Next<Incoming>, BatchError> {
        if let From::List { jobs, taken } = &mut self.0 {
            let Some(job) = jobs.next() else { return Ok(Next::End) };
            *taken += 1;
            let bytes = packed(&job);
            let sha256 = Sha256::digest(&bytes).into();
            return Ok(Next::Some(Incoming { from: 0, line: *taken, sha256, job: Ok((job, bytes)) }));
        }
        if let From::Socket(hub) = &self.0 {
            let Some((from, raw)) = hub.borrow_mut().next(held)? else { return Ok(Next::Wait) };
            let (line, sha256) = (raw.line, raw.sha256);
            return Ok(Next::Some(Incoming { from, line, sha256, job: self.read(raw) }));
        }
        Ok(match self.next_raw()? {
            Next::Some(raw) => {
                let (line, sha256) = (raw.line, raw.sha256);
                Next::Some(Incoming { from: 0, line, sha256, job: self.read(raw) })
            }
            Next::Wait => Next::Wait,
            Next::End => Next::End,
        })
    }

    pub(super) fn next_raw(&mut self) -> Result<Next<Raw>, BatchError> {
        let mut looked_at = 0;
        match &mut self.0 {
            From::Stream { file, lines, columns, ended, .. } => loop {
                let raw = match lines.next() {
                    None if *ended => lines.last(),
                    raw => raw,
                };
                match (raw, &mut *columns) {
                    (Some(raw), Some(columns @ None)) => *columns = Some(Columns::parse(&raw.bytes)?),
                    (Some(raw), _) => return Ok(Next::Some(raw)),
                    (None, _) if *ended => return Ok(Next::End),
                    // Empty lines without end, or a line without one, are not all there is to be seen to.
                    (None, _) if looked_at >= MOST_AT_ONCE => return Ok(Next::Wait),
                    (None, _) => match read_some(file)? {
                        Some(bytes) if bytes.is_empty() => *ended = true,
                        Some(bytes) => {
                            looked_at += bytes.len();
                            lines.push(&bytes);
                        }
                        None => return Ok(Next::Wait),
                    },
                }
            },
            From::Scripts { dir, paths, taken } => {
                let Some(path) = paths.pop_front() else { return Ok(Next::End) };
                *taken += 1;
                // What it holds is part of what it is.
                let mut hash = Sha256::new();
                hash.update(path.strip_prefix(dir).unwrap_or(&path).as_os_str().as_encoded_bytes());
                hash.update([0]);
                let failed = |source| BatchError::Read { path: path.clone(), source };
                io::copy(&mut File::open(&path).map_err(failed)?, &mut hash).map_err(failed)?;
                let bytes = path.into_os_string().into_encoded_bytes();
                Ok(Next::Some(Raw { line: *taken, bytes, sha256: hash.finalize().into(), too_long: false }))
            }
            From::List { .. } | From::Socket(..) => Ok(Next::End),
        }
    }

    fn read(&self, raw: Raw) -> Result<(Job, Vec<u8>), (Option<Known>, Error)> {
        let nameless = |error: JobError| (Some(Known::default()), error.into_error());
        if raw.too_long {
            return Err((None, JobError::new(format!("the line is over {} MiB", LONGEST >> 20)).into_error()));
        }
        match &self.0 {
            From::Stream { columns: Some(Some(columns)), .. } => {
                let job = columns.job(&raw.bytes).map_err(|error| (columns.known(&raw.bytes), error.into_error()))?;
                let bytes = packed(&job);
                Ok((job, bytes))
            }
            From::Scripts { dir, .. } => {
                let path = String::from_utf8(raw.bytes)
                    .map_err(|_| nameless(JobError::new("the name of the file is not UTF-8")))?;
                let path = PathBuf::from(path);
                let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
                let job = Job { id: Some(Label::Text(name)), file: Some(path), ..Job::default() };
                let bytes = packed(&job);
                Ok((job, bytes))
            }
            From::Stream { .. } | From::List { .. } | From::Socket(..) => match Job::parse(&raw.bytes) {
                Ok(job) => Ok((job, raw.bytes)),
                Err(error) => Err((Known::of(&raw.bytes), error.into_error())),
            },
        }
    }
}

fn packed(job: &Job) -> Vec<u8> {
    // Maps with text for keys, and nothing that could fail.
    serde_json::to_vec(job).unwrap_or_default()
}

/// What is there now: nothing at the end, `None` for not yet.
fn read_some(file: &mut File) -> Result<Option<Vec<u8>>, BatchError> {
    let failed = |source| BatchError::Input { source };
    let mut ready = [libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    let now = Some(std::time::Duration::ZERO);
    if process::poll(&mut ready, now).map_err(|errno| failed(errno.into()))? == 0 {
        return Ok(None);
    }
    let mut chunk = vec![0; 256 << 10];
    loop {
        match file.read(&mut chunk) {
            Ok(length) => {
                chunk.truncate(length);
                return Ok(Some(chunk));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
    }
}
