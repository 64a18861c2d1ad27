//! The spawner's own process: one thread, one poll loop.

use std::{
    fs::OpenOptions,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use super::{CANCEL, FAILED, Jobs, KILL, MADE, MAKE, Record, crew::Crew, parts, record};
use crate::{
    cgroup::Place,
    cleanup,
    sys::{self, Errno, attributes, clone, process, socket},
};

/// When the spawner ends, how long none of the workers that end what they do in order may have come to its end.
const GRACE: Duration = Duration::from_secs(1);
/// How long none of all that is left after that may have: only what the kernel itself cannot end takes longer.
const DYING: Duration = Duration::from_secs(5);
/// How long there may be workers that end in order, and anything at all: a thousand take their time.
const ORDERLY: Duration = Duration::from_secs(10);
const ENDING: Duration = Duration::from_secs(60);
/// What the end may take in all, with time to spare.
pub(super) const LONGEST: Duration = Duration::from_secs(ENDING.as_secs() + 2 * DYING.as_secs());
/// How often what is left of killed workers is looked at.
const LOOK: Duration = Duration::from_millis(10);

pub(super) struct Process<F> {
    control: OwnedFd,
    children: OwnedFd,
    crew: Crew,
    body: F,
}

impl<F: FnMut(&mut Jobs)> Process<F> {
    /// Serves until the owner has let go or is gone.
    pub(super) fn live(owner: OwnedFd, control: OwnedFd, cohort: Option<Place>, body: F) -> sys::Result<()> {
        process::new_session()?;
        process::set_name(c"fumehood-spawn");
        process::reset_signals();
        process::ignore_signal(libc::SIGPIPE);
        attributes::adopt_orphans()?;
        keep_only(&[owner.as_fd(), control.as_fd()])?;
        let children = process::take_signals(&[libc::SIGCHLD, libc::SIGTERM])?;
        let crew = Crew::new(cohort).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        if let Ok(None) = clone::fork() {
            // What others left that were killed with all of theirs. Nobody waits for this.
            _ = catch_unwind(|| cleanup::clean(false));
            process::exit_now(0);
        }
        let mut spawner = Self { control, children, crew, body };
        while spawner.turn(owner.as_fd())? {}
        spawner.end()
    }

    fn turn(&mut self, owner: BorrowedFd<'_>) -> sys::Result<bool> {
        let fds = [self.control.as_fd(), self.children.as_fd(), owner];
        let mut ready = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        process::poll(&mut ready, self.crew.has_fallen().then_some(LOOK))?;
        self.bury()?;
        if ready[2].revents != 0 {
            return Ok(false);
        }
        if ready[0].revents == 0 {
            return Ok(true);
        }
        let mut said = Record::default();
        match socket::receive(self.control.as_fd(), &mut said) {
            Ok((length, _)) if length == said.len() => self.heed(parts(said)),
            _ => Ok(false),
        }
    }

    fn heed(&mut self, said: (u8, u64)) -> sys::Result<bool> {
        match said {
            (MAKE, _) => {
                let (word, number, socket) = match self.make() {
                    Ok((number, socket)) => (MADE, number, Some(socket)),
                    Err(errno) => (FAILED, errno as i32 as u64, None),
                };
                let sent = socket::send(self.control.as_fd(), &record(word, number), socket.as_ref().map(AsFd::as_fd));
                return Ok(sent.is_ok());
            }
            (CANCEL, number) => self.crew.signal(number, libc::SIGTERM),
            (KILL, number) => self.crew.signal(number, libc::SIGKILL),
            _ => {}
        }
        Ok(true)
    }

    fn make(&mut self) -> sys::Result<(u64, OwnedFd)> {
        let (ours, theirs) = socket::stream_pair()?;
        let place = self.crew.place();
        let spawner = process::id();
        match clone::fork()? {
            Some(pid) => Ok((self.crew.add(pid, place), ours)),
            None => {
                drop(ours);
                let ended = catch_unwind(AssertUnwindSafe(|| self.work(theirs, spawner, place)));
                process::exit_now(i32::from(!matches!(ended, Ok(Ok(())))));
            }
        }
    }

    /// A worker's whole life.
    fn work(&mut self, socket: OwnedFd, spawner: i32, place: usize) -> sys::Result<()> {
        process::set_name(c"fumehood-worker");
        process::reset_signals();
        process::ignore_signal(libc::SIGPIPE);
        keep_only(&[socket.as_fd(), self.crew.notes.file().as_fd()])?;
        let signals = process::take_signals(&[libc::SIGTERM])?;
        if process::hear_of_end(spawner, libc::SIGTERM)? {
            (self.body)(&mut Jobs {
                socket,
                signals,
                spawner,
                notes: &self.crew.notes,
                place,
                stuck: Vec::new(),
                alone: false,
            });
        }
        Ok(())
    }

    /// Waits for children that have ended: workers, and what killed ones left.
    fn bury(&mut self) -> sys::Result<()> {
        while process::read_signal(self.children.as_fd()).is_some() {}
        while let Ok(Some(ended)) = process::wait(-1, false) {
            self.crew.lost(&ended);
        }
        self.crew.tidy();
        Ok(())
    }

    /// Ends all of it.
    fn end(mut self) -> sys::Result<()> {
        let began = Instant::now();
        let mut left = (self.crew.left(), began);
        self.crew.signal_all(libc::SIGTERM);
        let mut killed = false;
        loop {
            self.bury()?;
            let alone = matches!(process::wait(-1, false), Err(Errno::ECHILD));
            let passed = began.elapsed();
            if self.crew.left() != left.0 {
                left = (self.crew.left(), Instant::now());
            }
            let stuck = left.1.elapsed();
            if (alone && !self.crew.has_fallen()) || (killed && stuck > DYING) || passed > ENDING {
                self.crew.disband();
                return Ok(());
            }
            if (stuck > GRACE || passed > ORDERLY) && !killed {
                self.crew.signal_all(libc::SIGKILL);
                killed = true;
                left.1 = Instant::now();
            }
            let mut ready = [libc::pollfd { fd: self.children.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            process::poll(&mut ready, Some(LOOK))?;
        }
    }
}

/// Of the owner's descriptors there are left: these, what is printed in distress, and nothing to read or to write.
fn keep_only(kept: &[BorrowedFd<'_>]) -> sys::Result<()> {
    let mut numbers: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.sort_unstable();
    process::close_others(&numbers)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    for number in 0..2 {
        process::install_fd(null.as_fd(), number)?;
    }
    // What is closed there would be taken for something else.
    if nix::fcntl::fcntl(std::io::stderr().as_fd(), nix::fcntl::FcntlArg::F_GETFD).is_err() {
        process::install_fd(null.as_fd(), 2)?;
    }
    Ok(())
}
