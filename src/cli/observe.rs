//! Where a run's output goes while it runs: to the caller's streams, into a file, or out as events.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, ErrorKind, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    time::Instant,
};

use fumehood::{
    Error, Observer, Outcome, Result,
    launch::Started,
    net::{Contact, Policy},
    report::{Denial, Events, Stream},
    sys::process,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{low::Low, message};

/// The caller's view of a run.
#[derive(Debug)]
pub struct View<'a> {
    kind: Kind<'a>,
    /// `--out`.
    file: Option<File>,
    /// `--log-network`.
    log: Option<Log<'a>>,
    tells_ports: bool,
    /// Bytes that contacts took so far.
    logged: usize,
    /// Why something could not be written, which ended the run.
    failure: Option<Error>,
    signals: Option<BorrowedFd<'a>>,
    /// The signal that came while a stream kept us waiting.
    interrupted: Option<i32>,
    over: bool,
}

/// A program asks as often as it likes, and each time is a line: one that fills the host's disk with them is ended.
const LARGEST_LOG: usize = 64 << 20;

#[derive(Debug)]
enum Log<'a> {
    /// Whose reader may keep us waiting.
    Stream(Sink<'a>),
    File(File),
}

impl<'a> Log<'a> {
    fn open(path: &OsStr, signals: Option<BorrowedFd<'a>>) -> Result<Self> {
        let failed = |error: io::Error| {
            let wrong = format!("--log-network: cannot write `{}`: ", path.to_string_lossy());
            match error.raw_os_error() {
                Some(libc::ENXIO) => Error::new(wrong + "it is a pipe or a socket that nobody reads")
                    .with_hint("start its reader first, or name a file"),
                _ => Error::new(wrong + &error.to_string()),
            }
        };
        // Opening a pipe would wait for its reader otherwise, and no signal would end that.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = File::options().append(true).create(true).custom_flags(flags).open(path).map_err(failed)?;
        Ok(match file.metadata().map_err(failed)?.is_file() {
            true => Self::File(file),
            false => Self::Stream(Sink { stream: file, signals }),
        })
    }
}

#[derive(Debug)]
enum Kind<'a> {
    Plain {
        stdout: Sink<'a>,
        stderr: Sink<'a>,
    },
    /// The result tells all, at the end.
    Json,
    Events(Box<Events<Sink<'a>>>),
}

impl<'a> View<'a> {
    /// What can be read from `signals` ends any waiting for the caller's streams.
    pub fn new(low: &Low, began: Instant, signals: Option<BorrowedFd<'a>>) -> Result<Self> {
        let kind = if low.json {
            Kind::Json
        } else if low.events {
            Kind::events(began, signals)?
        } else {
            let stdout = Sink::new(io::stdout().as_fd(), signals)?;
            Kind::Plain { stdout, stderr: Sink::new(io::stderr().as_fd(), signals)? }
        };
        let log = match &low.log_network {
            None => None,
            Some(path) if path == "-" => Some(Log::Stream(Sink::new(io::stderr().as_fd(), signals)?)),
            Some(path) => Some(Log::open(path, signals)?),
        };
        Ok(Self { file: create(low)?, log, tells_ports: !low.quiet && !low.events, signals, ..Self::of(kind) })
    }

    /// For the events of a run that could not be.
    pub fn events(began: Instant) -> Result<Self> {
        Kind::events(began, None).map(Self::of)
    }

    fn of(kind: Kind<'a>) -> Self {
        Self {
            kind,
            file: None,
            log: None,
            tells_ports: false,
            logged: 0,
            failure: None,
            signals: None,
            interrupted: None,
            over: false,
        }
    }

    /// Ends the stream of events with the result.
    pub fn finish(&mut self, outcome: &Outcome) -> io::Result<()> {
        match &mut self.kind {
            Kind::Events(events) => events.exit(outcome),
            Kind::Plain { .. } | Kind::Json => Ok(()),
        }
    }

    /// Why the run was ended from here, where a person has to know: a reader that went away knows.
    pub fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// The signal that ended the run while a reader kept us waiting, and that the run did not hear of.
    pub fn interrupted(&self) -> Option<i32> {
        self.interrupted
    }

    /// Nothing more is passed on after the first failure: what is left in the pipes may be much.
    fn write(&mut self, what: &str, write: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if self.over {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let result = write(self);
        if let Err(error) = &result {
            self.over = true;
            match error.kind() {
                ErrorKind::ConnectionAborted => self.interrupted = self.signals.and_then(process::read_signal),
                ErrorKind::BrokenPipe => {}
                _ => self.failure = Some(Error::new(format!("{what}: {error}"))),
            }
        }
        result
    }
}

impl<'a> Kind<'a> {
    fn events(began: Instant, signals: Option<BorrowedFd<'a>>) -> Result<Self> {
        let stdout = Sink::new(io::stdout().as_fd(), signals)?;
        Ok(Self::Events(Box::new(Events::new(stdout, began))))
    }
}

fn create(low: &Low) -> Result<Option<File>> {
    let create = |path: &std::path::PathBuf| {
        File::create(path).map_err(|error| Error::new(format!("--out: cannot write `{}`: {error}", path.display())))
    };
    low.out.as_ref().map(create).transpose()
}

impl Observer for View<'_> {
    fn started(&mut self, start: &Started<'_>) -> io::Result<()> {
        self.write("standard output", |view| match &mut view.kind {
            Kind::Events(events) => {
                events.start(start.id, start.runtime, Some(start.pid), start.limits, start.controls, start.ports)
            }
            Kind::Plain { .. } | Kind::Json => Ok(()),
        })?;
        for publish in start.ports.iter().filter(|_| self.tells_ports) {
            // Who waits for a port that was picked has no other way to know it.
            message::note(&format!("port {} is at {}", publish.port, publish.at()));
        }
        Ok(())
    }

    fn output(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let file = stream == Stream::Stdout && self.file.is_some();
        if file {
            self.write("--out", |view| view.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes)))?;
        }
        let name = if stream == Stream::Stderr { "standard error" } else { "standard output" };
        self.write(name, |view| match (&mut view.kind, stream) {
            (Kind::Plain { .. }, Stream::Stdout) if file => Ok(()),
            (Kind::Plain { stdout, .. }, Stream::Stdout) => stdout.write_all(bytes),
            (Kind::Plain { stderr, .. }, Stream::Stderr) => stderr.write_all(bytes),
            (Kind::Events(events), stream) => events.output(stream, bytes),
            (Kind::Json, _) => Ok(()),
        })
    }

    fn denied(&mut self, denial: &Denial) -> io::Result<()> {
        self.write("standard output", |view| match &mut view.kind {
            Kind::Events(events) => events.denial(denial),
            Kind::Plain { .. } | Kind::Json => Ok(()),
        })
    }

    fn policy(&mut self, policy: &Policy) -> io::Result<()> {
        self.write("standard output", |view| match &mut view.kind {
            Kind::Events(events) => events.policy(policy),
            Kind::Plain { .. } | Kind::Json => Ok(()),
        })
    }

    fn wants_contacts(&self) -> bool {
        self.log.is_some() || matches!(self.kind, Kind::Events(_))
    }

    fn contact(&mut self, contact: &Contact) -> io::Result<()> {
        let mut line = serde_json::to_vec(contact)?;
        line.push(b'\n');
        self.logged += line.len();
        let full = self.logged > LARGEST_LOG;
        self.write("the log of the network", |view| match &mut view.log {
            _ if full => Err(io::Error::other(format!("the program made more than {} MiB of it", LARGEST_LOG >> 20))),
            Some(Log::Stream(stream)) => stream.write_all(&line),
            Some(Log::File(file)) => file.write_all(&line),
            None => Ok(()),
        })?;
        self.write("standard output", |view| match &mut view.kind {
            Kind::Events(events) => events.contact(contact),
            Kind::Plain { .. } | Kind::Json => Ok(()),
        })
    }
}

/// A stream of ours, unbuffered. A reader that does not read keeps us waiting, but not from heeding a signal.
#[derive(Debug)]
struct Sink<'a> {
    stream: File,
    signals: Option<BorrowedFd<'a>>,
}

/// What a pipe that is ready takes without blocking (pipe(7), PIPE_BUF).
const CHUNK: usize = 4096;

impl<'a> Sink<'a> {
    fn new(stream: BorrowedFd<'_>, signals: Option<BorrowedFd<'a>>) -> Result<Self> {
        let failed = |error| Error::new(format!("standard streams: {error}"));
        let stream = stream.try_clone_to_owned().map_err(failed)?.into();
        Ok(Self { stream, signals })
    }

    fn wait(&self) -> io::Result<()> {
        let stream = PollFd::new(self.stream.as_fd(), PollFlags::POLLOUT);
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        match self.signals {
            None => _ = poll(&mut [stream], PollTimeout::NONE)?,
            Some(signals) => {
                let mut both = [stream, PollFd::new(signals, PollFlags::POLLIN)];
                poll(&mut both, PollTimeout::NONE)?;
                if !ready(&both[0]) && ready(&both[1]) {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
            }
        }
        Ok(())
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait()?;
            match self.stream.write(&bytes[..bytes.len().min(CHUNK)]) {
                // Given to us non-blocking, and another filled it.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fumehood::net::Protocol;

    use super::*;

    #[test]
    fn a_log_has_an_end_and_so_has_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let low = Low { log_network: Some(path.clone().into()), ..Low::default() };
        let mut view = View::new(&low, Instant::now(), None).unwrap();
        let contact = Contact::new(Protocol::Dns, "x".repeat(64 << 10), String::new());
        let mut lines = 0;
        while view.contact(&contact).is_ok() {
            lines += 1;
        }
        let written = std::fs::metadata(&path).unwrap().len() as usize;
        assert!(lines > 1000 && written <= LARGEST_LOG && written > LARGEST_LOG - (65 << 10), "{lines} {written}");
        assert!(view.failure().unwrap().message().contains("more than 64 MiB"));
    }
}
