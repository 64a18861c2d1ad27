//! A real terminal around fumehood, or an engine.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    sys::termios::{Termios, tcgetattr},
};

use super::{LONGEST, Run};

/// fumehood with this terminal as its controlling one.
#[derive(Debug)]
pub struct Session {
    pub master: File,
    pub child: Child,
    pub seen: Vec<u8>,
    /// As the terminal was before anything ran on it.
    pub before: Termios,
    _slave: OwnedFd,
}

impl Session {
    pub fn start(run: &Run) -> Self {
        Self::around(run.command())
    }

    pub fn around(mut command: Command) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        // Held open by another test's child, it would never hang up.
        for end in [&pty.master, &pty.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let before = tcgetattr(&pty.slave).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        Self { master: File::from(pty.master), child, seen: Vec::new(), before, _slave: pty.slave }
    }

    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Reads until `part` has been shown.
    #[track_caller]
    pub fn expect(&mut self, part: &str) {
        let until = Instant::now() + LONGEST;
        while !self.text().contains(part) {
            assert!(Instant::now() < until, "`{part}` was never shown: {}", self.text());
            let ended = self.child.try_wait().unwrap().is_some();
            let more = self.read_some(Duration::from_millis(100));
            assert!(
                more || !ended || self.text().contains(part),
                "`{part}` was not shown, and it ended: {}",
                self.text()
            );
        }
    }

    fn read_some(&mut self, patience: Duration) -> bool {
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(patience).unwrap();
        if poll(&mut fds, patience).unwrap() == 0 {
            return false;
        }
        let mut chunk = [0; 4096];
        match self.master.read(&mut chunk) {
            Ok(length) => self.seen.extend_from_slice(&chunk[..length]),
            Err(_) => return false,
        }
        true
    }

    /// The exit status, once it has ended; what it showed is in `seen`.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let until = Instant::now() + LONGEST;
        loop {
            self.read_some(Duration::from_millis(20));
            if let Some(status) = self.child.try_wait().unwrap() {
                while self.read_some(Duration::ZERO) {}
                return status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
            }
            if Instant::now() > until {
                _ = self.child.kill();
                panic!("it does not end; shown so far: {}", self.text());
            }
        }
    }
}

/// Makes the terminal on its standard input the controlling one.
pub const OWN_SESSION: [&str; 2] = ["setsid", "-c"];
