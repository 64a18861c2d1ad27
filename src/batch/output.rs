//! Where results go. Whoever reads them may be slow; what waits for them is counted, and nothing new is begun meanwhile.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use super::{error::BatchError, journal::Journal, socket::Shared};
use crate::sys::{Errno, fs, process};

/// What a write to a pipe that poll(2) calls writable never waits for (PIPE_BUF).
const AT_ONCE: usize = 4096;

/// Takes one line, without its end.
pub(super) type Taker<'a> = Box<dyn FnMut(&[u8]) + 'a>;

/// Where the lines of results go.
pub(super) enum Output<'a> {
    Journal(Journal),
    Stream(Stream),
    Taker(Taker<'a>),
    Connections(Shared),
}

/// Something that is read as it is written, such as a pipe.
#[derive(Debug)]
pub(super) struct Stream {
    file: File,
    waiting: VecDeque<u8>,
}

impl Stream {
    pub(super) fn new(file: File) -> Self {
        Self { file, waiting: VecDeque::new() }
    }

    /// Writes what can be written now.
    pub(super) fn flush(&mut self) -> Result<(), BatchError> {
        let failed = |errno: Errno| BatchError::Output { source: errno.into() };
        while !self.waiting.is_empty() {
            let mut ready = [libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLOUT, revents: 0 }];
            if process::poll(&mut ready, Some(std::time::Duration::ZERO)).map_err(failed)? == 0 {
                return Ok(());
            }
            let (first, _) = self.waiting.as_slices();
            match fs::write(self.file.as_fd(), &first[..first.len().min(AT_ONCE)]) {
                Ok(length) => _ = self.waiting.drain(..length),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }
}

impl Output<'_> {
    pub(super) fn write(&mut self, from: u64, mut line: Vec<u8>) -> Result<(), BatchError> {
        match self {
            Self::Taker(take) => take(&line),
            Self::Connections(hub) => hub.borrow_mut().write(from, &line),
            Self::Journal(journal) => {
                line.push(b'\n');
                journal.write(&line)?;
            }
            Self::Stream(stream) => {
                stream.waiting.extend(line);
                stream.waiting.push_back(b'\n');
                stream.flush()?;
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), BatchError> {
        match self {
            Self::Stream(stream) => stream.flush(),
            Self::Connections(hub) => {
                hub.borrow_mut().flush();
                Ok(())
            }
            Self::Journal(_) | Self::Taker(_) => Ok(()),
        }
    }

    /// Bytes that nobody has taken yet.
    pub(super) fn waiting(&self) -> usize {
        match self {
            Self::Stream(stream) => stream.waiting.len(),
            Self::Connections(hub) => hub.borrow().waiting(),
            Self::Journal(_) | Self::Taker(_) => 0,
        }
    }

    /// Of these, what is for one of those who send jobs.
    pub(super) fn waiting_of(&self, from: u64) -> usize {
        match self {
            Self::Connections(hub) => hub.borrow().waiting_of(from),
            _ => self.waiting(),
        }
    }

    /// Whether there will soon be something to do that nothing tells of.
    pub(super) fn is_crowded(&self) -> bool {
        matches!(self, Self::Connections(hub) if hub.borrow().is_crowded())
    }

    /// Lets go of connections that do not read; there is nobody else who could be.
    pub(super) fn drop_idle(&mut self, patience: Duration) {
        if let Self::Connections(hub) = self {
            hub.borrow_mut().drop_idle(patience);
        }
    }

    /// What becomes writable when somebody reads, and fails when nobody will.
    pub(super) fn fd(&self) -> Option<(BorrowedFd<'_>, i16)> {
        match self {
            Self::Stream(stream) if stream.waiting.is_empty() => Some((stream.file.as_fd(), 0)),
            Self::Stream(stream) => Some((stream.file.as_fd(), libc::POLLOUT)),
            Self::Journal(_) | Self::Taker(_) | Self::Connections(_) => None,
        }
    }

    pub(super) fn finish(&mut self) -> Result<(), BatchError> {
        match self {
            Self::Journal(journal) => journal.finish(),
            Self::Stream(_) | Self::Taker(_) | Self::Connections(_) => Ok(()),
        }
    }
}

/// Puts results back into the order of their jobs.
#[derive(Debug)]
pub(super) struct Order<T> {
    given: u64,
    next: u64,
    held: BTreeMap<u64, (usize, T)>,
    /// What is held comes to.
    size: usize,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self { given: 0, next: 0, held: BTreeMap::new(), size: 0 }
    }
}

impl<T> Order<T> {
    /// The place of the next job.
    pub(super) fn number(&mut self) -> u64 {
        self.given += 1;
        self.given - 1
    }

    pub(super) fn put(&mut self, number: u64, size: usize, result: T) {
        self.held.insert(number, (size, result));
        self.size += size;
    }

    pub(super) fn next(&mut self) -> Option<T> {
        let (size, result) = self.held.remove(&self.next)?;
        self.next += 1;
        self.size -= size;
        Some(result)
    }

    /// How much waits for a result before it.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Whether all that is held waits for this one.
    pub(super) fn is_next(&self, number: u64) -> bool {
        self.next == number
    }

    /// Whether all that was to come has come.
    pub(super) fn is_idle(&self) -> bool {
        self.given == self.next
    }
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn results_come_out_in_the_order_of_their_jobs() {
        let mut order = Order::default();
        assert_eq!([0; 4].map(|_| order.number()), [0, 1, 2, 3]);
        for number in [2, 0, 3] {
            order.put(number, 10, vec![number as u8; 10]);
        }
        assert_eq!((order.next(), order.next()), (Some(vec![0; 10]), None));
        order.put(1, 0, Vec::new());
        assert!(order.size() == 20 && order.is_next(1));
        assert_eq!(std::iter::from_fn(|| order.next()).map(|line| line.len()).collect::<Vec<_>>(), [0, 10, 10]);
        assert!(order.is_idle() && order.size() == 0);
    }
}
