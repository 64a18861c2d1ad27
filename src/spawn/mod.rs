//! The spawner: a small process with one thread that makes workers for one owner, each of which supervises one sandbox
//! after another, as `fumehood run`'s own process does for one.
//!
//! ```text
//! owner ──control──► spawner ──fork──► worker ──clone3──► init ──► program
//!   └───────────────jobs and answers──────┘
//! ```
//!
//! The owner (a batch, a service) may have threads, a large heap and many descriptors; none of that is copied for a
//! sandbox. A worker is told what to do by bytes over a socket of its own, and answers in bytes; what they mean is between
//! the owner and the function that it started the spawner with.
//!
//! Invariant: nothing outlives the owner. The spawner sees its end by a pidfd, ends its workers, waits for all of them
//! and all of their sandboxes (it adopts those of workers that were killed), and removes what they left: their notes say
//! which sandboxes they had. Workers see the spawner's end by a signal, and inits that of their worker by their socket.
//! Who is left when all three are killed at once is nobody; the cgroups and records that are left then are removed by
//! whoever starts next, or by `fumehood cleanup`.

mod crew;
mod jobs;
mod note;
mod process;
mod stream;
mod worker;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

pub use jobs::Jobs;
pub use worker::Worker;

use crate::{
    cgroup::Place,
    error::Hint,
    sys::{Errno, clone, process as sys_process, socket},
};

/// What is said over the control socket: a word and the number of a worker.
type Record = [u8; 9];
const MAKE: u8 = b'M';
const CANCEL: u8 = b'C';
const KILL: u8 = b'K';
/// The answer to [`MAKE`]: with the worker's number and its socket, or with an errno.
const MADE: u8 = b'm';
const FAILED: u8 = b'f';

fn record(word: u8, number: u64) -> Record {
    let mut record = [word; size_of::<Record>()];
    record[1..].copy_from_slice(&number.to_ne_bytes());
    record
}

fn parts(record: Record) -> (u8, u64) {
    let [word, number @ ..] = record;
    (word, u64::from_ne_bytes(number))
}

/// The owner's end of a spawner. Dropped, it ends the spawner, all workers and their sandboxes, and waits for that.
#[derive(Debug)]
pub struct Spawner {
    pid: i32,
    pidfd: OwnedFd,
    control: Arc<Control>,
}

/// The control socket, which many may speak on.
#[derive(Debug)]
struct Control(Mutex<OwnedFd>);

impl Spawner {
    /// Forks the spawner. Each worker that it makes calls `body` once, in a process of its own with a copy of what `body`
    /// holds now, and ends when it returns. Call this first: a process that has threads hands on whatever locks they
    /// hold, for good.
    ///
    /// ```no_run
    /// use fumehood::{Sandbox, spawn::{Jobs, Spawner}};
    ///
    /// let spawner = Spawner::start(|jobs: &mut Jobs| {
    ///     while let Some(code) = jobs.next() {
    ///         let printed = jobs.run(Sandbox::code(code).runtime("python"), &mut Deaf);
    ///         jobs.answer(&printed.map_or_else(|error| error.to_string().into(), |outcome| outcome.stdout.bytes));
    ///     }
    /// })?;
    /// let mut worker = spawner.worker()?;
    /// worker.give(b"print(6 * 7)")?;
    /// assert_eq!(worker.wait()?, b"42\n");
    /// # struct Deaf;
    /// # impl fumehood::Observer for Deaf {}
    /// # Ok::<(), fumehood::spawn::SpawnError>(())
    /// ```
    pub fn start(body: impl FnMut(&mut Jobs)) -> Result<Self, SpawnError> {
        Self::start_within(None, body)
    }

    /// As [`Self::start`], where all sandboxes are made in this cohort, which goes with the spawner.
    pub(crate) fn start_within(cohort: Option<&Place>, body: impl FnMut(&mut Jobs)) -> Result<Self, SpawnError> {
        let failed = |errno| SpawnError::Start { errno };
        let (ours, theirs) = socket::record_pair().map_err(failed)?;
        let owner = sys_process::open_process(sys_process::id()).map_err(failed)?;
        let Some(pid) = clone::fork().map_err(failed)? else {
            drop(ours);
            // What unwinds must not come out of here as if it were the owner.
            let ended = catch_unwind(AssertUnwindSafe(|| process::Process::live(owner, theirs, cohort.cloned(), body)));
            sys_process::exit_now(i32::from(!matches!(ended, Ok(Ok(())))));
        };
        // Nobody else waits for it, so the number is its own.
        let pidfd = sys_process::open_process(pid).map_err(failed)?;
        Ok(Self { pid, pidfd, control: Arc::new(Control(Mutex::new(ours))) })
    }

    /// Makes a worker.
    ///
    /// # Errors
    /// When there are too many processes or descriptors, or the spawner is gone.
    pub fn worker(&self) -> Result<Worker, SpawnError> {
        let socket = self.control.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = |_| SpawnError::Lost;
        socket::send(socket.as_fd(), &record(MAKE, 0), None).map_err(lost)?;
        let mut answer = Record::default();
        let (length, fd) = socket::receive(socket.as_fd(), &mut answer).map_err(lost)?;
        drop(socket);
        match (length, parts(answer), fd) {
            (0, ..) => Err(SpawnError::Lost),
            (_, (MADE, number), Some(fd)) => Worker::new(number, fd, Arc::clone(&self.control)),
            // The descriptor did not fit into our table.
            (_, (MADE, number), None) => {
                self.control.say(KILL, number);
                Err(SpawnError::Worker { errno: Errno::EMFILE })
            }
            (_, (_, errno), _) => Err(SpawnError::Worker { errno: Errno::from_raw(errno as i32) }),
        }
    }

    /// The spawner's own process.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }
}

/// Readable when the spawner is gone, and with it, or soon after it, all workers.
impl AsFd for Spawner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        use std::os::fd::AsRawFd;
        self.control.end();
        let until = Instant::now() + process::LONGEST;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut gone = [libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            match sys_process::poll(&mut gone, Some(left)) {
                // A signal came.
                Ok(0) if !left.is_zero() => {}
                Ok(1..) => break,
                // One that was stopped would never end; what it has goes as if it had been killed.
                _ => {
                    _ = sys_process::signal(self.pidfd.as_fd(), libc::SIGKILL);
                    break;
                }
            }
        }
        _ = sys_process::wait(self.pid, true);
    }
}

impl Control {
    fn say(&self, word: u8, number: u64) {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A spawner that is gone has no workers.
        _ = socket::send(socket.as_fd(), &record(word, number), None);
    }

    fn end(&self) {
        use std::os::fd::AsRawFd;
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    #[error("cannot start the spawner: {}", errno.desc())]
    Start { errno: Errno },
    #[error("cannot start a worker: {}", errno.desc())]
    Worker { errno: Errno },
    #[error("the spawner is gone")]
    Lost,
    #[error("the worker is gone")]
    Died,
    #[error("cannot speak with a worker: {}", errno.desc())]
    Speak { errno: Errno },
}

impl Hint for SpawnError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Worker { errno: Errno::EAGAIN } => {
                Some("each sandbox takes three processes: raise `ulimit -u`, or run fewer at once".to_owned())
            }
            Self::Worker { errno: Errno::EMFILE | Errno::ENFILE } => {
                Some("raise `ulimit -n`, or run fewer at once".to_owned())
            }
            Self::Lost => Some("it was killed, perhaps for want of memory: see `dmesg`".to_owned()),
            _ => None,
        }
    }
}
