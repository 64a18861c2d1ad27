//! What a sandbox that was made ahead learns when it is used, as bytes in memory that its init shares with the
//! supervisor: what to place, what to run, for how long.
//!
//! The init is a fork that allocates nothing: it reads strings where they lie. The supervisor is trusted, and still
//! nothing is read beyond the end.

use std::{ffi::CStr, time::Duration};

use super::{
    build::{Builder, Supply},
    program::Program,
    protocol::{Failure, Stage},
};
use crate::{
    plan::{
        Step,
        path::BoxPath,
        setup::{Owner, SetupOp},
    },
    sys::{Errno, process::Strings},
};

/// All words of a job, at most: execve takes no more than a few hundred thousand, and nobody has so many.
pub(super) const MOST_WORDS: usize = 4096;
const NEVER: u64 = u64::MAX;

/// Writes a job.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// `removed`: files to be removed before, each with the directory that it is alone in. `placed`: operations with
    /// their places in the plan. `message`: for the interpreter that waits for one.
    pub(super) fn write(
        removed: &[BoxPath],
        placed: &[(usize, &SetupOp)],
        steps: &[Step],
        longest: Option<Duration>,
        message: &[u8],
    ) -> Option<Vec<u8>> {
        // In front is how long it is.
        let mut to = Self(vec![0; 8]);
        to.number(longest.map_or(NEVER, |longest| longest.as_nanos().try_into().unwrap_or(NEVER)));
        to.number(removed.len() as u64);
        for path in removed {
            to.path(path);
        }
        to.number(placed.len() as u64);
        for (index, operation) in placed {
            let (path, mode, owner, content) = match operation {
                SetupOp::Dir { path, mode, owner } => (path, *mode, *owner, None),
                SetupOp::File { path, mode, owner, content } => (path, *mode, *owner, Some(&content.0)),
                _ => return None,
            };
            to.number(*index as u64);
            to.path(path);
            to.number(mode.into());
            to.number((owner == Owner::Program).into());
            to.number(content.is_some().into());
            to.bytes(content.map_or(&[], |content| content));
        }
        to.number(steps.len() as u64);
        let mut words = 0;
        for step in steps {
            to.string(step.cwd.as_bytes())?;
            for list in [&step.candidates, &step.argv, &step.env] {
                words += list.len() + 1;
                let length = list.iter().map(|text| text.len() + 1).sum::<usize>();
                to.number(length as u64);
                for text in list {
                    if text.contains('\0') {
                        return None;
                    }
                    to.0.extend_from_slice(text.as_bytes());
                    to.0.push(0);
                }
            }
        }
        to.bytes(message);
        let length = to.0.len() as u64;
        to.0[..8].copy_from_slice(&length.to_ne_bytes());
        (words <= MOST_WORDS).then_some(to.0)
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_ne_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn string(&mut self, text: &[u8]) -> Option<()> {
        if text.contains(&0) {
            return None;
        }
        self.number(text.len() as u64 + 1);
        self.0.extend_from_slice(text);
        self.0.push(0);
        Some(())
    }

    fn path(&mut self, path: &BoxPath) {
        self.bytes(path.parent().to_bytes_with_nul());
        self.bytes(path.name().to_bytes_with_nul());
    }
}

/// Reads one, from the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// `all` may have more behind it.
    pub(super) fn new(all: &'a [u8]) -> Option<Self> {
        let (length, _) = all.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_ne_bytes(*length)).ok()?;
        Some(Self(all.get(8..length)?))
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*number))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn string(&mut self) -> Option<&'a CStr> {
        CStr::from_bytes_with_nul(self.bytes()?).ok()
    }

    pub(super) fn longest(&mut self) -> Option<Option<Duration>> {
        let longest = self.number()?;
        Some((longest != NEVER).then(|| Duration::from_nanos(longest)))
    }

    /// Removes what is to be removed, and places what is to be placed.
    pub(super) fn place<S: Supply>(&mut self, builder: &mut Builder<'a, S>) -> Result<(), Failure> {
        let garbled = |_: ()| at(usize::from(u16::MAX))(Errno::EBADMSG);
        self.remove(builder).ok_or(()).map_err(garbled)?;
        let count = self.number().ok_or(()).map_err(garbled)?;
        for _ in 0..count {
            let mut read = || {
                let index = usize::try_from(self.number()?).ok()?;
                let (parent, name) = (self.string()?, self.string()?);
                let mode = u32::try_from(self.number()?).ok()?;
                let owner = if self.number()? == 1 { Owner::Program } else { Owner::Setup };
                let is_file = self.number()? == 1;
                Some((index, parent, name, mode, owner, is_file, self.bytes()?))
            };
            let (index, parent, name, mode, owner, is_file, content) = read().ok_or(()).map_err(garbled)?;
            let content = is_file.then_some(content);
            builder.place((parent, name), mode, owner, content).map_err(at(index))?;
        }
        Ok(())
    }

    /// What cannot be removed is in nobody's way.
    fn remove<S: Supply>(&mut self, builder: &Builder<'a, S>) -> Option<()> {
        for _ in 0..self.number()? {
            let (parent, name) = (self.string()?, self.string()?);
            builder.remove(parent, name);
        }
        Some(())
    }

    /// The programs to be run, in order.
    pub(super) fn programs(
        &mut self,
        mut room: &'a mut [*const libc::c_char],
    ) -> Option<([Option<Program<'a>>; 3], usize)> {
        let count = usize::try_from(self.number()?).ok()?;
        let mut programs = [None; 3];
        for program in programs.get_mut(..count)? {
            let cwd = self.string()?;
            let mut next = || {
                let text = self.bytes()?;
                let (strings, left) = Strings::lay_out(text, std::mem::take(&mut room))?;
                room = left;
                Some(strings)
            };
            let (candidates, argv, env) = (next()?, next()?, next()?);
            *program = Some(Program { inside: None, candidates, argv, env, cwd });
        }
        Some((programs, count))
    }

    pub(super) fn message(&mut self) -> Option<&'a [u8]> {
        self.bytes()
    }
}

fn at(index: usize) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { stage: Stage::Setup, index: index.min(usize::from(u16::MAX)) as u16, errno }
}
