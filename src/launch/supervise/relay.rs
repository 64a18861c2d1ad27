//! The program's streams on our side: what it is given to read, and what it prints, masked and within its limit.
//!
//! Nothing here waits. Every descriptor is non-blocking, and the poll loop says which of them is ready.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use super::{
    super::{observer::Input, starter::Mark},
    Source,
};
use crate::{
    report::{Capture, Captured, Mask, Tail},
    request::{Bytes, Secret},
    sys::{self, Errno, fs, tty},
};

const CHUNK: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Relay {
    mask: Arc<Mask>,
    limit: Bytes,
    outputs: [Output; 2],
    /// The caller's stream, as long as it has more.
    input: Option<OwnedFd>,
    /// Where input goes; closed when there is no more.
    stdin: Option<OwnedFd>,
    /// In place of the other three.
    terminal: Option<OwnedFd>,
    pending: Vec<u8>,
    /// How much of it is written already.
    fed: usize,
    /// What was read last.
    chunk: Vec<u8>,
    /// What it is given to read before its input makes it begin, and waits for [`Self::tell`].
    tells: bool,
    /// By which what is to become the program says that it could not, and why.
    mark: Option<Mark>,
    not_executed: Option<Errno>,
    /// Of gVisor's runsc, which tells its errors where the program has its own.
    last_words: Option<LastWords>,
}

/// A line of runsc's, which is the last there is. What begins as one is held back until more comes, or the end: a
/// program's own is passed on, and runsc's is told in the error.
#[derive(Debug, Default)]
struct LastWords {
    held: Vec<u8>,
    within_line: bool,
}

impl LastWords {
    const BEGIN: &[u8] = b"running container: ";

    /// Leaves in `chunk` what can be passed on.
    fn hold(&mut self, chunk: &mut Vec<u8>) {
        if !self.held.is_empty() {
            chunk.splice(..0, self.held.drain(..));
        }
        let Some((last, before)) = chunk.split_last() else { return };
        let before = if *last == b'\n' { before } else { &chunk[..] };
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if chunk[start..].starts_with(Self::BEGIN) && (start > 0 || !self.within_line) {
            self.held = chunk.split_off(start);
            self.within_line = false;
        } else {
            self.within_line = *last != b'\n';
        }
    }
}

#[derive(Debug)]
struct Output {
    from: Option<OwnedFd>,
    capture: Capture,
}

/// What became of what was read.
pub(super) enum Passed {
    On,
    /// Who was to see it failed.
    Refused,
    /// The stream is over its limit.
    Full,
}

impl Relay {
    pub(super) fn new(
        stdin: OwnedFd,
        outputs: [OwnedFd; 2],
        input: Input,
        secrets: &[Secret],
        limit: Bytes,
        tells: bool,
    ) -> sys::Result<Self> {
        let mask = Mask::new(secrets);
        let (pending, input) = match input {
            Input::Empty => (Vec::new(), None),
            Input::Bytes(bytes) => (bytes, None),
            Input::Stream(fd) => (Vec::new(), Some(fd)),
        };
        let stdin = (tells || input.is_some() || !pending.is_empty()).then_some(stdin);
        for fd in outputs.iter().chain(&stdin) {
            fs::set_nonblocking(fd.as_fd())?;
        }
        Ok(Self {
            outputs: outputs.map(|from| Output { from: Some(from), capture: Capture::new(&mask, limit) }),
            mask,
            limit,
            input,
            stdin,
            terminal: None,
            pending,
            fed: 0,
            chunk: Vec::with_capacity(CHUNK),
            tells,
            mark: None,
            not_executed: None,
            last_words: None,
        })
    }

    /// What there is to read before the program's input.
    pub(super) fn tell_first(&mut self, mut first: Vec<u8>, mark: Option<Mark>) {
        first.append(&mut self.pending);
        (self.pending, self.mark) = (first, mark);
    }

    /// All that the program finds is there.
    pub(super) const fn tell(&mut self) {
        self.tells = false;
    }

    /// Why what was to become the program did not.
    pub(super) const fn not_executed(&self) -> Option<Errno> {
        self.not_executed
    }

    /// What runsc says to its end is not the program's.
    pub(super) fn hold_back(&mut self) {
        self.last_words = Some(LastWords::default());
    }

    /// The program has a terminal, which is all its streams.
    pub(super) fn attach(&mut self, terminal: OwnedFd) -> sys::Result<()> {
        fs::set_nonblocking(terminal.as_fd())?;
        let reader =
            terminal.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        self.outputs[0].from = Some(reader);
        self.outputs[1].from = None;
        self.stdin = None;
        self.terminal = Some(terminal);
        Ok(())
    }

    /// What the poll loop is to wait for. Input is only taken once the program has `started`.
    pub(super) fn gather<'s>(&'s self, started: bool, add: &mut impl FnMut(Source, BorrowedFd<'s>, i16)) {
        for (number, output) in self.outputs.iter().enumerate() {
            if let Some(from) = &output.from {
                add(Source::Output(number), from.as_fd(), libc::POLLIN);
            }
        }
        match (self.sink(), &self.input) {
            (Some(to), _) if !self.pending.is_empty() && !self.tells => add(Source::Stdin, to, libc::POLLOUT),
            (Some(_), Some(input)) if started => add(Source::Input, input.as_fd(), libc::POLLIN),
            _ => {}
        }
    }

    fn sink(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().or(self.stdin.as_ref()).map(AsFd::as_fd)
    }

    /// Reads a stream once; whether it had something, for [`Self::pass_on`].
    pub(super) fn read(&mut self, number: usize) -> bool {
        let output = &mut self.outputs[number];
        let Some(from) = &output.from else { return false };
        self.chunk.clear();
        match fs::read_more(from.as_fd(), &mut self.chunk) {
            Ok(1..) => {
                // It is the first that is said there, or is not said.
                if let Some(mark) = self.mark.take_if(|_| number == 1) {
                    self.not_executed = mark.told(&self.chunk);
                    if self.not_executed.is_some() {
                        self.chunk.clear();
                    }
                }
                if let Some(words) = self.last_words.as_mut().filter(|_| number == usize::from(self.terminal.is_none()))
                {
                    words.hold(&mut self.chunk);
                }
                true
            }
            Err(Errno::EAGAIN | Errno::EINTR) => false,
            // EIO: nobody has the terminal open any more.
            Ok(0) | Err(_) => {
                output.from = None;
                false
            }
        }
    }

    /// Whether a stream at its end had something held back for [`Self::pass_on`], which was not `why` runsc ended.
    pub(super) fn release(&mut self, number: usize, why: Option<&str>) -> bool {
        self.chunk.clear();
        if let Some(words) = self.last_words.as_mut().filter(|_| number == usize::from(self.terminal.is_none())) {
            // It keeps its room, into which is read.
            self.chunk.append(&mut words.held);
            if why.is_some_and(|why| self.chunk.trim_ascii_end() == why.as_bytes()) {
                self.chunk.clear();
            }
        }
        !self.chunk.is_empty()
    }

    /// Hands to `to` what may be seen of what was just read of this stream.
    pub(super) fn pass_on(&mut self, number: usize, to: impl FnOnce(&[u8]) -> io::Result<()>) -> Passed {
        let capture = &mut self.outputs[number].capture;
        let shown = capture.push(&self.chunk);
        if !shown.is_empty() && to(shown).is_err() {
            Passed::Refused
        } else if capture.is_truncated() {
            Passed::Full
        } else {
            Passed::On
        }
    }

    /// All that a stream has said so far, and how much of its end is still to be passed on; from here on it is a
    /// new one.
    pub(super) fn take(&mut self, number: usize, tail: Tail) -> (Captured, Vec<u8>) {
        let fresh = Capture::new(&self.mask, self.limit);
        std::mem::replace(&mut self.outputs[number].capture, fresh).finish(tail)
    }

    /// Closes the program's input if there is nothing (more) to be read there.
    pub(super) fn close_if_done(&mut self) {
        if self.input.is_none() && self.pending.is_empty() {
            self.stdin = None;
        }
    }

    /// Reads the caller's stream once.
    pub(super) fn take_input(&mut self) {
        let Some(input) = &self.input else { return };
        self.pending.reserve(CHUNK);
        match fs::read_more(input.as_fd(), &mut self.pending) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Ok(0) | Err(_) => {
                self.input = None;
                self.stdin = None;
                if let Some(terminal) = &self.terminal {
                    // The end of input, as typed.
                    _ = fs::write(terminal.as_fd(), b"\x04");
                }
            }
            Ok(_) => self.feed(),
        }
    }

    /// Writes what is pending, as far as the program takes it.
    pub(super) fn feed(&mut self) {
        let Some(to) = self.sink() else { return };
        match fs::write(to, &self.pending[self.fed..]) {
            Ok(written) => {
                self.fed += written;
                if self.fed == self.pending.len() {
                    self.pending.clear();
                    self.fed = 0;
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => {
                // The program does not read any more.
                self.pending.clear();
                self.fed = 0;
                self.input = None;
            }
        }
        self.close_if_done();
    }

    /// Gives the program's terminal the size of the caller's.
    pub(super) fn resize(&self) {
        if let (Some(terminal), Some(input)) = (&self.terminal, &self.input)
            && let Ok(size) = tty::window_size(input.as_fd())
        {
            // A terminal that is gone has no size.
            _ = tty::set_window_size(terminal.as_fd(), size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_held_back_if_it_may_be_runscs() {
        let mut words = LastWords::default();
        let mut pass = |chunk: &str| {
            let mut chunk = chunk.as_bytes().to_vec();
            words.hold(&mut chunk);
            (String::from_utf8(chunk).unwrap(), String::from_utf8(words.held.clone()).unwrap())
        };
        let shown = |shown: &str, held: &str| (shown.to_owned(), held.to_owned());
        assert_eq!(pass("said\n"), shown("said\n", ""));
        assert_eq!(pass("no "), shown("no ", ""));
        assert_eq!(pass("running container: x\n"), shown("running container: x\n", ""));
        assert_eq!(pass("said\nrunning container: x\n"), shown("said\n", "running container: x\n"));
        assert_eq!(pass("more\n"), shown("running container: x\nmore\n", ""));
        assert_eq!(pass("running container: y"), shown("", "running container: y"));
        assert_eq!(pass(" and z\n"), shown("", "running container: y and z\n"));
        assert_eq!(pass("running container: z\n"), shown("running container: y and z\n", "running container: z\n"));
    }
}
