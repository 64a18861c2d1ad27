//! Sandboxes made ahead and used once: the time that a sandbox takes to be made, and an interpreter to start, is spent
//! before there is a job for it.
//!
//! A [`Pool`] learns from the jobs that it is given which sandboxes are wanted, and has some ready; a job that none of
//! them fits gets one of its own, as without a pool. What a sandbox that was made ahead is used for is all that a
//! sandbox of its own would have been used for, and it is used for nothing else: there is no cleaning.
//!
//! ```text
//! Sandbox ──► plan ──► Shelf: one that waits, if one fits ──► Prepared::go
//!                        │ none                       ▲
//!                        └──► launch         a thread makes more
//! ```

mod boot;
mod shelf;
mod single;

use std::{
    os::fd::BorrowedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use shelf::Settings;
use shelf::{Order, Shelf};
pub use single::Single;

use crate::{Result, Sandbox, launch::Observer, report::Outcome};

/// Sandboxes that wait for their jobs, made by threads of its own. Any number of threads may run jobs.
///
/// ```no_run
/// use fumehood::{Pool, Sandbox, pool::Settings};
///
/// let pool = Pool::new(Settings::default());
/// pool.expect(&mut Sandbox::code("").runtime("python"), 2)?;
/// for number in 0..100 {
///     let outcome = pool.output(Sandbox::code("import sys; print(sys.argv[1])").arg(number.to_string()))?;
///     assert_eq!(outcome.stdout.bytes, format!("{number}\n").as_bytes());
/// }
/// # Ok::<(), fumehood::Error>(())
/// ```
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    filler: Option<JoinHandle<()>>,
}

/// Whoever has something for it to do wakes it.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There is something to make, or the end has come.
    wanted: Condvar,
    /// Something was made, or could not be.
    made: Condvar,
}

#[derive(Debug)]
struct State {
    shelf: Shelf,
    over: bool,
    /// Jobs that run.
    running: usize,
    /// Who waits until some are made, whatever runs.
    expecting: usize,
    cpus: usize,
}

impl State {
    /// What is to be made next. While every CPU has a job that would only take from the jobs what it saves them.
    fn next_order(&mut self) -> Option<Order> {
        if self.expecting == 0 && self.running >= self.cpus { None } else { self.shelf.next_order() }
    }
}

/// A job that runs.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        // There may be a CPU to make one.
        self.0.wanted.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self) {
        let mut state = self.lock();
        while !state.over {
            let Some(order) = state.next_order() else {
                // What nobody has wanted for long goes.
                let patience = state.shelf.shrink();
                state = match self.wanted.wait_timeout(state, patience.unwrap_or(LONG)) {
                    Ok((state, _)) => state,
                    Err(poisoned) => poisoned.into_inner().0,
                };
                continue;
            };
            drop(state);
            let made = order.make();
            state = self.lock();
            state.shelf.put(made);
            self.made.notify_all();
        }
    }
}

impl Pool {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let state = Mutex::new(State { shelf: Shelf::new(settings), over: false, running: 0, expecting: 0, cpus });
        let shared = Arc::new(Shared { state, wanted: Condvar::new(), made: Condvar::new() });
        let its = Arc::clone(&shared);
        let filler = std::thread::Builder::new().name("fumehood-pool".to_owned()).spawn(move || its.fill()).ok();
        Self { shared, filler }
    }

    /// Has `count` sandboxes made for jobs that are as this one but for their code, arguments, input, files and variables,
    /// and waits until they are there. Fewer, if not so many may be; the answer is how many.
    ///
    /// # Errors
    /// When there can be no such sandbox.
    pub fn expect(&self, like: &mut Sandbox, count: usize) -> Result<usize> {
        let mut state = self.shared.lock();
        let Some(kind) = state.shelf.expect(like, count)? else { return Ok(0) };
        state.expecting += 1;
        self.shared.wanted.notify_all();
        while state.shelf.is_making(kind) {
            state = self.shared.made.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.expecting -= 1;
        Ok(state.shelf.waiting(kind))
    }

    /// As [`Sandbox::output`], in a sandbox that was made ahead if there is one.
    ///
    /// # Errors
    /// As [`Sandbox::output`].
    pub fn output(&self, sandbox: &mut Sandbox) -> Result<Outcome> {
        struct Deaf;
        impl Observer for Deaf {}
        self.run(sandbox, None, &mut Deaf)
    }

    /// As [`Sandbox::run`], in a sandbox that was made ahead if there is one.
    ///
    /// # Errors
    /// As [`Sandbox::run`].
    pub fn run(
        &self,
        sandbox: &mut Sandbox,
        signals: Option<BorrowedFd<'_>>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let began = Instant::now();
        let job = shelf::Job::of(sandbox, observer.wants_contacts())?;
        let (found, hierarchy) = {
            let mut state = self.shared.lock();
            let found = state.shelf.take(&job);
            state.running += 1;
            (found, state.shelf.hierarchy())
        };
        let _running = Running(&self.shared);
        // One more is wanted now, or there never was one.
        self.shared.wanted.notify_one();
        job.run(found, sandbox, &hierarchy, signals, began, observer, None)
    }

    /// How many jobs found a sandbox that waited for them, and how many did not.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        self.shared.lock().shelf.counts()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.wanted.notify_all();
        if let Some(filler) = self.filler.take() {
            _ = filler.join();
        }
    }
}
