//! The caller's terminal while a program has one of its own: every key goes to the program.

use std::io::{IsTerminal, Stdin, stdin};

use fumehood::{Error, Result, error::Hint};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::usage::UsageError;

/// Raw mode; dropped, the terminal is as it was.
#[derive(Debug)]
pub struct RawMode {
    terminal: Stdin,
    before: Termios,
}

impl RawMode {
    pub fn enter() -> Result<Self> {
        let terminal = stdin();
        if !terminal.is_terminal() {
            return Err(UsageError::NoTerminal.into_error());
        }
        let failed = |errno: nix::errno::Errno| Error::new(format!("terminal: {}", errno.desc()));
        let before = tcgetattr(&terminal).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSADRAIN, &raw).map_err(failed)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that hung up needs no restoring.
        _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}
