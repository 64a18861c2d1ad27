//! What the sandbox's init and its supervisor say to each other, over one record socket.
//!
//! Records are fixed, so that the init can write them without allocating; an error travels as the place in
//! the plan and an errno, and the supervisor, who has the plan, finds the words.

use std::{
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};

use crate::sys::{self, Errno, socket};

/// From the init.
#[derive(Debug)]
pub enum Report {
    /// Nothing after this: the init ends.
    Failed(Failure),
    /// The seccomp listener of the program (seccomp_unotify(2)).
    Listener(OwnedFd),
    /// The master of the program's terminal.
    Terminal(OwnedFd),
    /// The sandbox's root directory, to fetch files from.
    Root(OwnedFd),
    /// What the sandbox writes to its root.
    Upper(OwnedFd),
    /// runsc's log of the step that ends next.
    Log(OwnedFd),
    /// All is made, and waits for [`Order::Go`].
    Ready,
    /// The program of this step is running.
    Started,
    /// The program of this step has ended, with a waitpid(2) status.
    Ended { status: i32, disk_full: bool },
    /// And so have all that it left. They and those of the steps before have used so much.
    Over { cpu: Duration },
}

/// Where in the plan it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub stage: Stage,
    /// Which operation, limit or layer of the stage; of [`Stage::Exec`], what was in the way.
    pub index: u16,
    pub errno: Errno,
}

/// The stages of an init, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    Descriptors,
    Identity,
    Session,
    Network,
    Setup,
    Terminal,
    ProgramIo,
    WorkingDirectory,
    ResourceLimit,
    Landlock,
    Capabilities,
    ProgramIdentity,
    NoNewPrivileges,
    Seccomp,
    Exec,
    Spawn,
}

const STAGES: [Stage; 16] = [
    Stage::Descriptors,
    Stage::Identity,
    Stage::Session,
    Stage::Network,
    Stage::Setup,
    Stage::Terminal,
    Stage::ProgramIo,
    Stage::WorkingDirectory,
    Stage::ResourceLimit,
    Stage::Landlock,
    Stage::Capabilities,
    Stage::ProgramIdentity,
    Stage::NoNewPrivileges,
    Stage::Seccomp,
    Stage::Exec,
    Stage::Spawn,
];

/// To the init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// The id maps are written: build.
    Build = b'b',
    /// Attach the mount that comes with this.
    Mount = b'm',
    /// Enter the v1 cgroup whose `tasks` file comes with this.
    Enter = b'c',
    /// There is no more cgroup to enter.
    Entered = b'd',
    /// Run the next step.
    Next = b'n',
    /// What is to be done is known: do it.
    Go = b'g',
}

/// A record: a tag, a stage, an index, a number, a time in microseconds.
type Record = [u8; 16];

fn record(tag: u8, stage: u8, index: u16, number: i32) -> Record {
    timed(tag, stage, index, number, Duration::ZERO)
}

fn timed(tag: u8, stage: u8, index: u16, number: i32, time: Duration) -> Record {
    let ([i, j], [a, b, c, d]) = (index.to_ne_bytes(), number.to_ne_bytes());
    let mut record = [tag, stage, i, j, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0];
    record[8..].copy_from_slice(&(time.as_micros() as u64).to_ne_bytes());
    record
}

/// The init's end.
#[derive(Debug, Clone, Copy)]
pub struct InitEnd<'a>(pub BorrowedFd<'a>);

impl InitEnd<'_> {
    pub fn failed(self, failure: Failure) {
        // The supervisor may be gone; then nobody wants to know.
        _ = socket::send(self.0, &record(b'F', failure.stage as u8, failure.index, failure.errno as i32), None);
    }

    pub fn ready(self) -> sys::Result<()> {
        socket::send(self.0, &record(b'Y', 0, 0, 0), None)
    }

    pub fn started(self) -> sys::Result<()> {
        socket::send(self.0, &record(b'S', 0, 0, 0), None)
    }

    pub fn ended(self, status: i32, disk_full: bool) -> sys::Result<()> {
        socket::send(self.0, &record(b'E', u8::from(disk_full), 0, status), None)
    }

    pub fn over(self, cpu: Duration) -> sys::Result<()> {
        socket::send(self.0, &timed(b'O', 0, 0, 0, cpu), None)
    }

    pub fn listener(self, fd: BorrowedFd<'_>) -> sys::Result<()> {
        socket::send(self.0, &record(b'L', 0, 0, 0), Some(fd))
    }

    pub fn terminal(self, fd: BorrowedFd<'_>) -> sys::Result<()> {
        socket::send(self.0, &record(b'T', 0, 0, 0), Some(fd))
    }

    pub fn root(self, fd: BorrowedFd<'_>) -> sys::Result<()> {
        socket::send(self.0, &record(b'R', 0, 0, 0), Some(fd))
    }

    pub fn upper(self, fd: BorrowedFd<'_>) -> sys::Result<()> {
        socket::send(self.0, &record(b'U', 0, 0, 0), Some(fd))
    }

    pub fn log(self, fd: BorrowedFd<'_>) -> sys::Result<()> {
        socket::send(self.0, &record(b'G', 0, 0, 0), Some(fd))
    }

    /// The next mount that only the supervisor can make.
    pub fn next_mount(self) -> sys::Result<OwnedFd> {
        let mut byte = [0];
        match socket::receive(self.0, &mut byte)? {
            (1, Some(tree)) if byte[0] == Order::Mount as u8 => Ok(tree),
            _ => Err(Errno::EPIPE),
        }
    }

    /// The next v1 cgroup to enter, as its open `tasks` file, until the supervisor says that it was the last.
    pub fn next_cgroup(self) -> sys::Result<Option<OwnedFd>> {
        let mut byte = [0];
        match socket::receive(self.0, &mut byte)? {
            (1, Some(tasks)) if byte[0] == Order::Enter as u8 => Ok(Some(tasks)),
            (1, None) if byte[0] == Order::Entered as u8 => Ok(None),
            _ => Err(Errno::EPIPE),
        }
    }

    /// Waits for exactly this order; anything else, or the supervisor's end, is false.
    #[must_use]
    pub fn wait_for(self, order: Order) -> bool {
        let mut byte = [0];
        matches!(socket::receive(self.0, &mut byte), Ok((1, None)) if byte[0] == order as u8)
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub struct SupervisorEnd(pub OwnedFd);

impl SupervisorEnd {
    pub fn order(&self, order: Order) -> sys::Result<()> {
        use std::os::fd::AsFd;
        socket::send(self.0.as_fd(), &[order as u8], None)
    }

    pub fn mount(&self, tree: BorrowedFd<'_>) -> sys::Result<()> {
        use std::os::fd::AsFd;
        socket::send(self.0.as_fd(), &[Order::Mount as u8], Some(tree))
    }

    pub fn enter_cgroup(&self, tasks: BorrowedFd<'_>) -> sys::Result<()> {
        use std::os::fd::AsFd;
        socket::send(self.0.as_fd(), &[Order::Enter as u8], Some(tasks))
    }

    /// The next record; `None` when the init is gone or says what no init of ours says.
    pub fn receive(&self) -> Option<Report> {
        use std::os::fd::AsFd;
        let mut bytes: Record = [0; 16];
        let (length, fd) = socket::receive(self.0.as_fd(), &mut bytes).ok()?;
        if length != bytes.len() {
            return None;
        }
        let [tag, stage, i, j, a, b, c, d, time @ ..] = bytes;
        let (index, number) = (u16::from_ne_bytes([i, j]), i32::from_ne_bytes([a, b, c, d]));
        Some(match (tag, fd) {
            (b'F', None) => {
                let stage = *STAGES.get(usize::from(stage))?;
                Report::Failed(Failure { stage, index, errno: Errno::from_raw(number) })
            }
            (b'Y', None) => Report::Ready,
            (b'S', None) => Report::Started,
            (b'E', None) => Report::Ended { status: number, disk_full: stage == 1 },
            (b'O', None) => Report::Over { cpu: Duration::from_micros(u64::from_ne_bytes(time)) },
            (b'L', Some(fd)) => Report::Listener(fd),
            (b'T', Some(fd)) => Report::Terminal(fd),
            (b'R', Some(fd)) => Report::Root(fd),
            (b'U', Some(fd)) => Report::Upper(fd),
            (b'G', Some(fd)) => Report::Log(fd),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn records_arrive_as_they_were_sent() {
        let (ours, theirs) = socket::record_pair().unwrap();
        let (supervisor, init) = (SupervisorEnd(ours), InitEnd(theirs.as_fd()));
        for (number, stage) in STAGES.iter().enumerate() {
            assert_eq!(number, *stage as usize);
            let failure = Failure { stage: *stage, index: 513, errno: Errno::EACCES };
            init.failed(failure);
            assert!(matches!(supervisor.receive(), Some(Report::Failed(got)) if got == failure));
        }
        init.ended(-1, true).unwrap();
        assert!(matches!(supervisor.receive(), Some(Report::Ended { status: -1, disk_full: true })));
        let spent = Duration::from_micros(u64::MAX >> 8);
        init.over(spent).unwrap();
        assert!(matches!(supervisor.receive(), Some(Report::Over { cpu }) if cpu == spent));
        init.root(theirs.as_fd()).unwrap();
        assert!(matches!(supervisor.receive(), Some(Report::Root(_))));
        supervisor.order(Order::Build).unwrap();
        assert!(init.wait_for(Order::Build));
        supervisor.order(Order::Next).unwrap();
        assert!(!init.wait_for(Order::Build));
        drop(supervisor);
        assert!(!init.wait_for(Order::Build));
        assert_eq!(init.started(), Err(Errno::EPIPE));
    }

    #[test]
    fn last_words_are_heard_of_an_init_that_did_not_listen() {
        let (ours, theirs) = socket::record_pair().unwrap();
        let supervisor = SupervisorEnd(ours);
        supervisor.order(Order::Build).unwrap();
        let failure = Failure { stage: Stage::Setup, index: 1, errno: Errno::EACCES };
        InitEnd(theirs.as_fd()).failed(failure);
        drop(theirs);
        assert!(matches!(supervisor.receive(), Some(Report::Failed(got)) if got == failure));
        assert!(supervisor.receive().is_none());
    }

    #[test]
    fn nonsense_is_the_end_and_no_panic() {
        let (ours, theirs) = socket::record_pair().unwrap();
        let supervisor = SupervisorEnd(ours);
        for bytes in [&b""[..], b"F", b"L000000000000000", b"F\xff00000000000000", b"S000000000000000 and more"] {
            socket::send(theirs.as_fd(), bytes, None).unwrap();
            assert!(supervisor.receive().is_none() || bytes.len() > 16, "{bytes:?}");
        }
    }
}
