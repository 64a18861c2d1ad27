//! The file of results, which is its own journal: a job is done when its line is in it, whole.
//!
//! Invariant: whenever this process dies, the file is whole lines and at most one torn one at the end, which the next one
//! cuts off. A line is appended by one write(2); what could only be written in part is taken back.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    error::BatchError,
    expect,
    source::{Jobs, Next},
    summary::Summary,
};
use crate::{Verdict, sys};

/// What is done with a file that is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Existing {
    /// An error.
    #[default]
    Refuse,
    /// Go on where it ends.
    Resume,
    /// Begin anew.
    Replace,
}

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
}

/// What an earlier run has done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// By line; the hash is cut to half.
    lines: Vec<(u64, [u8; 16])>,
}

/// What is read of a result.
#[derive(Deserialize)]
struct Line {
    line: u64,
    job_sha256: String,
    verdict: String,
    passed: Option<bool>,
    duration_ms: f64,
    setup_ms: f64,
    error: Option<IgnoredAny>,
}

impl Journal {
    pub(super) fn open(path: &Path, existing: Existing, summary: &mut Summary) -> Result<(Self, Done), BatchError> {
        let failed = |source| BatchError::Write { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(existing != Existing::Refuse).create_new(existing == Existing::Refuse);
        let file = options.open(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => BatchError::Exists { path: path.to_owned() },
            _ => failed(source),
        })?;
        // Held as long as the file is open.
        sys::fs::try_lock(file.as_fd()).map_err(|errno| match errno {
            sys::Errno::EWOULDBLOCK => BatchError::Locked { path: path.to_owned() },
            errno => failed(errno.into()),
        })?;
        let mut journal = Self { path: path.to_owned(), file, length: 0 };
        let mut done = Done::default();
        match existing {
            Existing::Refuse => {}
            Existing::Replace => journal.file.set_len(0).map_err(failed)?,
            Existing::Resume => done = journal.read(summary)?,
        }
        Ok((journal, done))
    }

    fn read(&mut self, summary: &mut Summary) -> Result<Done, BatchError> {
        let failed = |path: &Path, source| BatchError::Write { path: path.to_owned(), source };
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        reader.seek(SeekFrom::Start(0)).map_err(|error| failed(&self.path, error))?;
        let mut lines = Vec::new();
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            let length = reader.read_until(b'\n', &mut text).map_err(|error| failed(&self.path, error))?;
            if length == 0 || text.pop() != Some(b'\n') {
                break;
            }
            let foreign = |why: String| BatchError::Foreign { path: self.path.clone(), line: number, why };
            let result: Line = serde_json::from_slice(&text).map_err(|error| foreign(error.to_string()))?;
            let half = half(&result.job_sha256).ok_or_else(|| foreign("`job_sha256` is none".to_owned()))?;
            let verdict = expect::verdict(&result.verdict);
            let verdict = verdict.ok_or_else(|| foreign(format!("there is no verdict `{}`", result.verdict)))?;
            let took = Duration::try_from_secs_f64((result.duration_ms + result.setup_ms) / 1000.0).unwrap_or_default();
            let good = result.passed.unwrap_or(verdict == Verdict::Ok && result.error.is_none());
            summary.add(verdict, result.passed, good, took);
            lines.push((result.line, half));
            self.length += length as u64;
        }
        self.file.set_len(self.length).map_err(|error| failed(&self.path, error))?;
        summary.resumed = lines.len() as u64;
        lines.sort_unstable();
        if let Some(twice) = lines.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let why = format!("it is the second one for line {} of the jobs", twice[0].0);
            return Err(BatchError::Foreign { path: self.path.clone(), line: 0, why });
        }
        Ok(Done { lines })
    }

    /// Appends a line, with its end.
    pub(super) fn write(&mut self, line: &[u8]) -> Result<(), BatchError> {
        match self.file.write_all(line) {
            Ok(()) => {
                self.length += line.len() as u64;
                Ok(())
            }
            Err(source) => {
                // Should this fail too, the next one cuts it off.
                _ = self.file.set_len(self.length);
                Err(BatchError::Write { path: self.path.clone(), source })
            }
        }
    }

    /// Has all of it on the disk.
    pub(super) fn finish(&self) -> Result<(), BatchError> {
        match self.file.sync_data() {
            // Not every kind of file can be told to.
            Err(source) if source.kind() != io::ErrorKind::InvalidInput => {
                Err(BatchError::Write { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

fn half(hash: &str) -> Option<[u8; 16]> {
    let mut half = [0; 16];
    if hash.len() != 64 || !hash.is_ascii() {
        return None;
    }
    for (byte, digits) in half.iter_mut().zip(hash.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(half)
}

impl Done {
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether this job has been done.
    ///
    /// # Errors
    /// When another one was in its place.
    pub(super) fn has(&self, line: u64, sha256: &[u8; 32], path: &Path) -> Result<bool, BatchError> {
        match self.lines.binary_search_by_key(&line, |(line, _)| *line) {
            Ok(at) if sha256.starts_with(&self.lines[at].1) => Ok(true),
            Ok(_) => Err(BatchError::Changed { path: path.to_owned(), line, why: "is another job than it was" }),
            Err(_) => Ok(false),
        }
    }

    /// Looks through jobs that can be read twice before any of them is run.
    pub(super) fn check(&self, jobs: &Jobs, path: &Path) -> Result<(), BatchError> {
        let Some(again) = jobs.again().filter(|_| !self.is_empty()) else { return Ok(()) };
        let mut again = again?;
        let mut found = 0;
        loop {
            match again.next_raw()? {
                Next::Some(raw) => found += usize::from(self.has(raw.line, &raw.sha256, path)?),
                // Of a file there is always more to be had.
                Next::Wait => {}
                Next::End => break,
            }
        }
        match self.lines.last() {
            Some((line, _)) if found < self.lines.len() => {
                Err(BatchError::Changed { path: path.to_owned(), line: *line, why: "or one before it is gone" })
            }
            _ => Ok(()),
        }
    }
}
