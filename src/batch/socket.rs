//! Jobs that come over a socket, from any number of connections: each gets the results of what it has sent, in its order,
//! and the end when it has said that there is no more and has them all.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fs,
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    error::BatchError,
    lines::{Lines, Raw},
};

/// Results that a connection leaves unread, or that wait for one before them; beyond it nothing is read of it.
pub(super) const MOST_WAITING: usize = 8 << 20;

pub(super) type Shared = Rc<RefCell<Hub>>;

#[derive(Debug)]
pub(super) struct Hub {
    path: PathBuf,
    listener: UnixListener,
    connections: BTreeMap<u64, Connection>,
    count: u64,
    /// Whose turn it is.
    turn: u64,
    /// There was no descriptor for one more.
    crowded: bool,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    lines: Lines,
    /// There will be no more of it.
    ended: bool,
    waiting: VecDeque<u8>,
    /// When it last read something, or had nothing to read.
    read: Instant,
    /// Results that it has not been given yet.
    owed: u64,
}

impl Hub {
    /// Makes the socket, for its owner alone. One that nobody listens on any more is replaced.
    pub(super) fn listen(path: &Path) -> Result<Shared, BatchError> {
        let failed = |source| BatchError::Listen { path: path.to_owned(), source };
        let stale = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
            && UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        if stale {
            fs::remove_file(path).map_err(failed)?;
        }
        let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        nix::sys::stat::umask(mask);
        let listener = listener.map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let connections = BTreeMap::new();
        Ok(Rc::new(RefCell::new(Self {
            path: path.to_owned(),
            listener,
            connections,
            count: 0,
            turn: 0,
            crowded: false,
        })))
    }

    /// A job of some connection, if one has come; not of one of whose results too much is `held`.
    pub(super) fn next(&mut self, held: &dyn Fn(u64) -> usize) -> Result<Option<(u64, Raw)>, BatchError> {
        self.accept()?;
        let after = self.connections.range(self.turn + 1..).map(|(number, _)| *number);
        let order: Vec<u64> = after.chain(self.connections.range(..=self.turn).map(|(number, _)| *number)).collect();
        for number in order {
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            if connection.waiting.len() + held(number) >= MOST_WAITING {
                continue;
            }
            if let Some(raw) = connection.next() {
                self.turn = number;
                connection.owed += 1;
                return Ok(Some((number, raw)));
            }
        }
        self.close_done();
        Ok(None)
    }

    fn accept(&mut self) -> Result<(), BatchError> {
        self.crowded = false;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true).map_err(|source| BatchError::Input { source })?;
                    self.count += 1;
                    let lines = Lines::new(false);
                    let (waiting, read) = (VecDeque::new(), Instant::now());
                    let connection = Connection { stream, lines, ended: false, waiting, read, owed: 0 };
                    self.connections.insert(self.count, connection);
                }
                // It went away before it was taken.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                // It is taken when there is room again.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    self.crowded = true;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(source) => return Err(BatchError::Input { source }),
            }
        }
    }

    pub(super) fn write(&mut self, number: u64, line: &[u8]) {
        // One that is gone does not want it.
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.owed -= 1;
            if connection.waiting.is_empty() {
                connection.read = Instant::now();
            }
            connection.waiting.extend(line);
            connection.waiting.push_back(b'\n');
        }
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        self.connections.retain(|_, connection| connection.flush().is_ok());
        self.close_done();
    }

    fn close_done(&mut self) {
        self.connections
            .retain(|_, connection| !connection.ended || connection.owed > 0 || !connection.waiting.is_empty());
    }

    pub(super) fn waiting(&self) -> usize {
        self.connections.values().map(|connection| connection.waiting.len()).sum()
    }

    pub(super) fn waiting_of(&self, number: u64) -> usize {
        self.connections.get(&number).map_or(0, |connection| connection.waiting.len())
    }

    /// Whether somebody waits to be taken that there is no descriptor for.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// Lets go of those that do not read what they are given.
    pub(super) fn drop_idle(&mut self, patience: Duration) {
        self.connections.retain(|_, connection| connection.waiting.is_empty() || connection.read.elapsed() < patience);
    }

    /// What to wait for.
    pub(super) fn fds(&self, more: bool, held: &dyn Fn(u64) -> usize) -> Vec<(RawFd, i16)> {
        let accepts = more && !self.crowded;
        let mut fds = vec![(self.listener.as_raw_fd(), if accepts { libc::POLLIN } else { 0 })];
        fds.extend(self.connections.iter().map(|(number, connection)| {
            let unread = connection.waiting.len() + held(*number);
            let reads = more && !connection.ended && unread < MOST_WAITING;
            let writes = !connection.waiting.is_empty();
            let events = if reads { libc::POLLIN } else { 0 } | if writes { libc::POLLOUT } else { 0 };
            // A hang-up is told unasked, again and again.
            (if events == 0 { -1 } else { connection.stream.as_raw_fd() }, events)
        }));
        fds
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Somebody may have removed it.
        _ = fs::remove_file(&self.path);
    }
}

impl Connection {
    /// Reads once at most: others have their turn too.
    fn next(&mut self) -> Option<Raw> {
        loop {
            if let Some(raw) = self.lines.next() {
                return Some(raw);
            }
            if self.ended {
                return None;
            }
            let mut chunk = vec![0; 64 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.ended = true;
                    return self.lines.last();
                }
                Ok(length) => {
                    self.lines.push(&chunk[..length]);
                    return self.lines.next();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => self.ended = true,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let (first, _) = self.waiting.as_slices();
            match self.stream.write(first) {
                Ok(length) => {
                    self.waiting.drain(..length);
                    self.read = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
