//! Who asks a running sandbox's supervisor for the network's policy, or gives it another: one record each, and an answer.
//!
//! Nothing here waits: callers say what they want in one record, and a silent one makes room for the next.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use serde::{Deserialize, Serialize};

use crate::{
    net::Policy,
    state::control::{ANSWER, MOST, caller},
    sys::{Errno, socket},
};

/// Callers at once that have not said yet what they want.
const CALLERS: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    Show,
    Set(Box<Policy>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What is in force now.
    Policy(Box<Policy>),
    /// It is in force.
    Done,
    Error(String),
}

#[derive(Debug)]
pub struct Control {
    listener: OwnedFd,
    callers: VecDeque<OwnedFd>,
}

impl Control {
    pub fn new(listener: OwnedFd) -> Self {
        Self { listener, callers: VecDeque::new() }
    }

    /// What to wait for.
    pub fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(&self.listener).chain(&self.callers).map(AsFd::as_fd)
    }

    /// Hears whoever has something to say.
    pub fn serve(&mut self, mut answer: impl FnMut(Request) -> Answer) {
        while let Some(caller) = caller(self.listener.as_fd()) {
            self.callers.push_back(caller);
            if self.callers.len() > CALLERS {
                self.callers.pop_front();
            }
        }
        self.callers.retain(|caller| {
            // Of a longer record the rest would be cut off, and nobody would know.
            let mut words = vec![0; MOST + 1];
            let length = match socket::receive(caller.as_fd(), &mut words) {
                Err(Errno::EAGAIN) => return true,
                Ok((length @ 1.., None)) => length,
                _ => return false,
            };
            let answer = match serde_json::from_slice(&words[..length]) {
                _ if length > MOST => Answer::Error(format!("more than {MOST} bytes are not taken at once")),
                Ok(request) => answer(request),
                Err(error) => Answer::Error(format!("it is not understood: {error}")),
            };
            // Who does not listen needs no answer.
            _ = answer.words().map(|words| socket::send(caller.as_fd(), &words, None));
            false
        });
    }
}

impl Answer {
    /// As one record.
    fn words(&self) -> serde_json::Result<Vec<u8>> {
        let words = serde_json::to_vec(self)?;
        if words.len() <= ANSWER {
            return Ok(words);
        }
        let why = format!("its policy takes {} bytes, and no more than {ANSWER} are told at once", words.len());
        serde_json::to_vec(&Self::Error(why))
    }
}
