//! Where a run's output goes while it runs: to the caller's streams, into a file, or out as events.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use fumehood::{
    Error, Observer, Outcome, Result,
    launch::Started,
    report::{Denial, Events, Stream},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::low::Low;

/// The caller's view of a run.
#[derive(Debug)]
pub struct View {
    kind: Kind,
    /// `--out`.
    file: Option<File>,
}

#[derive(Debug)]
enum Kind {
    Plain {
        stdout: Sink,
        stderr: Sink,
    },
    /// The result tells all, at the end.
    Json,
    Events(Box<Events<Sink>>),
}

impl View {
    pub fn new(low: &Low, began: Instant) -> Result<Self> {
        if low.events {
            return Ok(Self { file: create(low)?, ..Self::events(began)? });
        }
        let kind = if low.json {
            Kind::Json
        } else {
            Kind::Plain { stdout: Sink::new(io::stdout().as_fd())?, stderr: Sink::new(io::stderr().as_fd())? }
        };
        Ok(Self { kind, file: create(low)? })
    }

    /// Events on stdout.
    pub fn events(began: Instant) -> Result<Self> {
        Ok(Self { kind: Kind::Events(Box::new(Events::new(Sink::new(io::stdout().as_fd())?, began))), file: None })
    }

    /// Ends the stream of events with the result.
    pub fn finish(&mut self, outcome: &Outcome) -> io::Result<()> {
        match &mut self.kind {
            Kind::Events(events) => events.exit(outcome),
            Kind::Plain { .. } | Kind::Json => Ok(()),
        }
    }
}

fn create(low: &Low) -> Result<Option<File>> {
    let create = |path: &std::path::PathBuf| {
        File::create(path).map_err(|error| Error::new(format!("--out: cannot write `{}`: {error}", path.display())))
    };
    low.out.as_ref().map(create).transpose()
}

impl Observer for View {
    fn started(&mut self, start: &Started<'_>) -> io::Result<()> {
        match &mut self.kind {
            Kind::Events(events) => {
                events.start(start.id, start.runtime, Some(start.pid), start.limits, start.controls)
            }
            Kind::Plain { .. } | Kind::Json => Ok(()),
        }
    }

    fn output(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if let (Stream::Stdout, Some(file)) = (stream, &mut self.file) {
            file.write_all(bytes)?;
            if matches!(self.kind, Kind::Plain { .. }) {
                return Ok(());
            }
        }
        match (&mut self.kind, stream) {
            (Kind::Plain { stdout, .. }, Stream::Stdout) => stdout.write_all(bytes),
            (Kind::Plain { stderr, .. }, Stream::Stderr) => stderr.write_all(bytes),
            (Kind::Events(events), stream) => events.output(stream, bytes),
            (Kind::Json, _) => Ok(()),
        }
    }

    fn denied(&mut self, denial: &Denial) -> io::Result<()> {
        match &mut self.kind {
            Kind::Events(events) => events.denial(denial),
            Kind::Plain { .. } | Kind::Json => Ok(()),
        }
    }
}

/// A stream of ours, unbuffered; waits where it was given to us non-blocking.
#[derive(Debug)]
struct Sink(File);

impl Sink {
    fn new(stream: BorrowedFd<'_>) -> Result<Self> {
        let failed = |error| Error::new(format!("standard streams: {error}"));
        stream.try_clone_to_owned().map(|fd| Self(fd.into())).map_err(failed)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
