//! A worker as its owner has it.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use super::{
    CANCEL, Control, KILL, SpawnError,
    stream::{self, Came, Incoming},
};
use crate::sys::{Errno, fs, process};

/// A process that does what it is given, one thing at a time. Dropped, it ends, and its sandbox with it.
#[derive(Debug)]
pub struct Worker {
    number: u64,
    socket: OwnedFd,
    incoming: Incoming,
    owes: usize,
    control: Arc<Control>,
}

impl Worker {
    pub(super) fn new(number: u64, socket: OwnedFd, control: Arc<Control>) -> Result<Self, SpawnError> {
        fs::set_nonblocking(socket.as_fd()).map_err(|errno| SpawnError::Worker { errno })?;
        Ok(Self { number, socket, incoming: Incoming::default(), owes: 0, control })
    }

    /// Gives it something to do, and does not wait. It is done in the order in which it was given; a worker that has not
    /// taken a few small jobs yet takes no more.
    ///
    /// # Errors
    /// When it is gone: it was killed, or went by itself; the job was not begun.
    pub fn give(&mut self, job: &[u8]) -> Result<(), SpawnError> {
        stream::send(self.socket.as_fd(), job).map_err(gone)?;
        self.owes += 1;
        Ok(())
    }

    /// Gives it something that it does not answer.
    ///
    /// # Errors
    /// As [`Self::give`].
    pub fn tell(&mut self, word: &[u8]) -> Result<(), SpawnError> {
        stream::send(self.socket.as_fd(), word).map_err(gone)
    }

    /// Its next answer, if that has come as a whole; does not wait.
    ///
    /// # Errors
    /// When it is gone, and what it was given last will never be answered.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, SpawnError> {
        loop {
            match self.incoming.read(self.socket.as_fd()) {
                Ok(Came::Whole(answer)) => {
                    self.owes = self.owes.saturating_sub(1);
                    return Ok(Some(answer));
                }
                Ok(Came::Part) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Ok(Came::End) => return Err(SpawnError::Died),
                Err(errno) => return Err(gone(errno)),
            }
        }
    }

    /// As [`Self::take`], but waits.
    pub fn wait(&mut self) -> Result<Vec<u8>, SpawnError> {
        loop {
            if let Some(answer) = self.take()? {
                return Ok(answer);
            }
            let mut ready = [libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            process::poll(&mut ready, None).map_err(|errno| SpawnError::Speak { errno })?;
        }
    }

    /// Ends what it does, in order: its answer is that of a run that was cancelled, if it ran one. It may be gone after
    /// that.
    pub fn cancel(&self) {
        self.control.say(CANCEL, self.number);
    }

    /// Kills it, and its sandbox. [`Self::take`] tells of its end.
    pub fn kill(&self) {
        self.control.say(KILL, self.number);
    }

    /// Whether an answer is to come.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.owes > 0
    }
}

/// Readable when there is something to [`Worker::take`], its end among that.
impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that waits for more sees the end of its socket.
        if self.is_busy() {
            self.kill();
        }
    }
}

fn gone(errno: Errno) -> SpawnError {
    match errno {
        Errno::EPIPE | Errno::ECONNRESET => SpawnError::Died,
        errno => SpawnError::Speak { errno },
    }
}
