//! The caller's side of a run: what goes in, and who sees it happen.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use crate::{
    net::{Contact, Policy, publish::Publish},
    report::{Controls, Denial, Stream},
    request::{Limits, SandboxId},
    sys::tty,
};

/// What the program reads.
#[derive(Debug)]
pub enum Input {
    Empty,
    Bytes(Vec<u8>),
    /// Passed on as it comes; with a terminal, its window size too.
    Stream(OwnedFd),
}

impl Input {
    /// The size of the terminal that it is, if it is one.
    pub(super) fn window(&self) -> Option<libc::winsize> {
        match self {
            Self::Stream(fd) => tty::window_size(fd.as_fd()).ok(),
            Self::Empty | Self::Bytes(_) => None,
        }
    }
}

/// Sees a run as it happens. An error (a closed pipe, a full disk) ends the run as SIGPIPE would.
pub trait Observer {
    fn started(&mut self, _start: &Started<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Output with secrets masked and within its limit.
    fn output(&mut self, _stream: Stream, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn denied(&mut self, _denial: &Denial) -> io::Result<()> {
        Ok(())
    }

    /// The network has another policy from now on.
    fn policy(&mut self, _policy: &Policy) -> io::Result<()> {
        Ok(())
    }

    /// Whether [`Self::contact`] is to be called. Who is slow to take them slows the program's network.
    fn wants_contacts(&self) -> bool {
        false
    }

    /// A connection that has ended, or a question for a name, allowed or refused; behind a gateway alone.
    fn contact(&mut self, _contact: &Contact) -> io::Result<()> {
        Ok(())
    }
}

/// What is known when the program starts.
#[derive(Debug)]
pub struct Started<'a> {
    pub id: &'a SandboxId,
    pub runtime: Option<&'a str>,
    /// The sandbox's init, as the host numbers it.
    pub pid: u32,
    pub limits: &'a Limits,
    pub controls: &'a Controls,
    /// What is open on the host.
    pub ports: &'a [Publish],
}
