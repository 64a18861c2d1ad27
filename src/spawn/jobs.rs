//! A worker, as it sees itself: what it is given, and the way back.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{
    note::Notes,
    stream::{self, Came, Incoming},
};
use crate::{
    Error, Observer, Outcome, Result, Sandbox,
    pool::Single,
    request::SandboxId,
    sys::{self, Errno, process},
};

/// What a worker is given. It hears of the end of its spawner and of being cancelled by [`Self::signals`].
#[derive(Debug)]
pub struct Jobs<'a> {
    pub(super) socket: OwnedFd,
    pub(super) signals: OwnedFd,
    pub(super) spawner: i32,
    pub(super) notes: &'a Notes,
    pub(super) place: usize,
    /// What is left of a sandbox that could not be removed. It stays noted: the spawner tries again when this worker ends.
    pub(super) stuck: Vec<SandboxId>,
    /// There is nobody any more who would hear an answer.
    pub(super) alone: bool,
}

impl Jobs<'_> {
    /// Waits for the next one. `None`: there will be no more, and it is time to end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let mut incoming = Incoming::default();
        loop {
            if self.alone {
                return None;
            }
            self.ready(libc::POLLIN).ok()?;
            match incoming.read(self.socket.as_fd()) {
                Ok(Came::Whole(job)) => return Some(job),
                Ok(Came::Part) | Err(Errno::EINTR) => {}
                Ok(Came::End) | Err(_) => return None,
            }
        }
    }

    /// Answers it. An owner that is gone, or that lets go of this worker, hears nothing, and there is no next job.
    pub fn answer(&mut self, answer: &[u8]) {
        // What was ended because the spawner was is no answer.
        self.alone |= self.is_orphan() || stream::send(self.socket.as_fd(), answer).is_err();
    }

    /// Readable when what is done now is to end: for [`Sandbox::run`].
    #[must_use]
    pub fn signals(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// Says that a sandbox of this name is about to be made, so that what is left of it is found should this process be
    /// killed. [`Self::run`] says so by itself.
    pub fn begin(&mut self, id: &SandboxId) -> Result<()> {
        self.note(&[id]).map_err(|error| Error::new(format!("no note of sandbox {id}: {error}")))
    }

    /// Says that nothing is left of it.
    pub fn end(&mut self) {
        // At worst it is looked for in vain.
        _ = if self.stuck.is_empty() { self.notes.clear(self.place) } else { self.note(&[]) };
    }

    /// [`Sandbox::run`], noted, and ended when the worker is cancelled.
    pub fn run(&mut self, sandbox: &mut Sandbox, observer: &mut dyn Observer) -> Result<Outcome> {
        let id = sandbox.known_as()?;
        self.begin(&id)?;
        let outcome = sandbox.run(Some(self.signals.as_fd()), observer);
        self.end();
        outcome
    }

    /// As [`Self::run`], in the sandbox that was made ahead if there is one that fits. What is left of it is removed, and
    /// noted until then, when the job has been answered: by [`Self::tidy`].
    pub fn run_ahead(
        &mut self,
        ahead: &mut Single,
        sandbox: &mut Sandbox,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let id = sandbox.known_as()?;
        // Of an earlier case of the same job.
        self.put_away(ahead);
        let noted = |ids: &[&SandboxId]| {
            self.note(ids).map_err(|error| Error::new(format!("no note of sandbox {id}: {error}")))
        };
        ahead.run(sandbox, &id, Some(self.signals.as_fd()), observer, &noted)
    }

    /// Removes what is left of the last sandbox. What cannot be removed is left to the spawner, as that of a worker that was
    /// killed; no job is told of it, as its own has been answered, and the next is another's.
    pub fn tidy(&mut self, ahead: &mut Single) {
        self.put_away(ahead);
        self.end();
    }

    fn put_away(&mut self, ahead: &mut Single) {
        if ahead.tidy().is_err() {
            self.stuck = self.notes.read(self.place);
        }
    }

    fn note(&self, ids: &[&SandboxId]) -> std::io::Result<()> {
        let all: Vec<_> = ids.iter().copied().chain(&self.stuck).collect();
        // What could not be removed before is the first to be left to `fumehood cleanup`, if there is room for one of them.
        self.notes.write(self.place, &all).or_else(|_| self.notes.write(self.place, ids))
    }

    /// Makes a sandbox for the next job, if that is likely to want one such as the last ones did, and has not come yet.
    pub fn make_ahead(&mut self, ahead: &mut Single) {
        let waits = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        if self.alone || process::poll(&mut [waits], Some(std::time::Duration::ZERO)) != Ok(0) {
            return;
        }
        ahead.make(Some(self.signals.as_fd()), &|id| self.note(&[id]).is_ok());
        if !ahead.has_one() {
            self.end();
        }
    }

    fn is_orphan(&self) -> bool {
        nix::unistd::getppid().as_raw() != self.spawner
    }

    /// Waits for the socket; fails when it is time to end.
    fn ready(&self, events: i16) -> sys::Result<()> {
        loop {
            let watched = [(self.socket.as_fd(), events), (self.signals.as_fd(), libc::POLLIN)];
            let mut ready = watched.map(|(fd, events)| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
            process::poll(&mut ready, None)?;
            if ready[1].revents != 0 {
                return Err(Errno::ECANCELED);
            }
            if ready[0].revents != 0 {
                return Ok(());
            }
        }
    }
}
