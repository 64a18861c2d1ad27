//! A container's process in the foreground of whoever called: signals are passed on, a terminal is relayed, and its
//! exit status becomes ours.

use std::{
    io::IsTerminal,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::sys::termios::{self, SetArg, Termios};

use super::{Child, program::failed};
use crate::sys::{Errno, fs, process, socket, tty};

/// What is passed on to the program. SIGCHLD is ours, and what the kernel sends for our own faults.
const FORWARDED: [i32; 12] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
];

/// Made before the process is, so that no signal is lost in between.
#[derive(Debug)]
pub struct Foreground {
    signals: OwnedFd,
    /// Where the terminal's master arrives, and the end that the container sends it from.
    console: Option<(OwnedFd, Option<OwnedFd>)>,
}

impl Foreground {
    pub fn new(terminal: bool) -> Result<Self, String> {
        let signals = process::take_signals(&FORWARDED).map_err(failed("take signals"))?;
        let console = if terminal {
            let (ours, theirs) = socket::record_pair().map_err(failed("make a socket pair"))?;
            Some((ours, Some(theirs)))
        } else {
            None
        };
        Ok(Self { signals, console })
    }

    /// For the container to send its terminal's master to.
    #[must_use]
    pub fn console(&self) -> Option<BorrowedFd<'_>> {
        self.console.as_ref()?.1.as_ref().map(AsFd::as_fd)
    }

    /// Waits for the end of `child`; its exit status, as a shell has it.
    pub fn attend(mut self, child: Child) -> Result<i32, String> {
        let mut relay = match self.console.take() {
            Some((ours, theirs)) => {
                drop(theirs);
                let (_, master) =
                    socket::receive(ours.as_fd(), &mut [0; 64]).map_err(failed("receive the terminal"))?;
                master.map(Relay::new)
            }
            None => None,
        };
        loop {
            while let Some(signal) = process::read_signal(self.signals.as_fd()) {
                match &relay {
                    Some(relay) if signal == libc::SIGWINCH => relay.resize(),
                    // ESRCH: it has just ended, as we shall see.
                    _ => _ = process::signal(child.pidfd.as_fd(), signal),
                }
            }
            let (input, master) = relay.as_ref().map_or((-1, -1), Relay::waits_for);
            let fds = [child.pidfd.as_raw_fd(), self.signals.as_raw_fd(), master, input];
            let mut fds = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
            process::poll(&mut fds, None).map_err(failed("wait"))?;
            if let Some(relay) = &mut relay {
                relay.carry(fds[2].revents != 0, fds[3].revents != 0);
            }
            if fds[0].revents != 0 {
                if let Some(mut relay) = relay {
                    relay.drain();
                }
                return child.keep().1.wait();
            }
        }
    }
}

/// The caller's terminal on one side, the container's on the other.
#[derive(Debug)]
struct Relay {
    master: OwnedFd,
    /// To be put back.
    before: Option<Termios>,
    input_ended: bool,
    output_ended: bool,
}

impl Relay {
    fn new(master: OwnedFd) -> Self {
        let stdin = std::io::stdin();
        let before = if stdin.is_terminal() { termios::tcgetattr(&stdin).ok() } else { None };
        if let Some(before) = &before {
            let mut raw = before.clone();
            termios::cfmakeraw(&mut raw);
            _ = termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw);
        }
        _ = fs::set_nonblocking(master.as_fd());
        let relay = Self { master, before, input_ended: false, output_ended: false };
        relay.resize();
        relay
    }

    fn resize(&self) {
        // Without a terminal of our own it keeps the size it has.
        if let Ok(size) = tty::window_size(std::io::stdin().as_fd()) {
            _ = tty::set_window_size(self.master.as_fd(), size);
        }
    }

    fn waits_for(&self) -> (i32, i32) {
        let stdin = if self.input_ended { -1 } else { 0 };
        (stdin, if self.output_ended { -1 } else { self.master.as_raw_fd() })
    }

    fn carry(&mut self, output: bool, input: bool) {
        let mut buffer = [0; 8192];
        if output {
            match fs::read(self.master.as_fd(), &mut buffer) {
                Ok(read) if read > 0 => _ = fs::write_all(std::io::stdout().as_fd(), &buffer[..read]),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // EIO: nobody has the other side open any more.
                _ => self.output_ended = true,
            }
        }
        if input {
            match fs::read(std::io::stdin().as_fd(), &mut buffer) {
                Ok(0) => {
                    // What a terminal makes of control-D.
                    _ = fs::write_all(self.master.as_fd(), &[4]);
                    self.input_ended = true;
                }
                Ok(read) => _ = fs::write_all(self.master.as_fd(), &buffer[..read]),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => self.input_ended = true,
            }
        }
    }

    fn drain(&mut self) {
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = fs::read(self.master.as_fd(), &mut buffer) {
            _ = fs::write_all(std::io::stdout().as_fd(), &buffer[..read]);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}
