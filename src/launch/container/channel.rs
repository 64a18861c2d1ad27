//! What the runtime process and the process that becomes the container's say to each other until that one runs.
//!
//! Orders go inwards as [`super::super::protocol`] has them; outwards go words of this kind, each one record. The
//! runtime has one thread, so unlike a sandbox's init this child may allocate, and tells its failure as text.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::{
    launch::protocol::Order,
    sys::{self, fs, socket},
};

const MOST: usize = 8 << 10;

#[derive(Debug)]
pub enum Word {
    /// The process behind this pid (in the runtime's own pid namespace) goes on in my place.
    Successor(i32),
    /// The tree is built and not entered yet: the hooks of the runtime's side are due.
    Hooks,
    /// The seccomp listener, for the agent that the spec names.
    Listener(OwnedFd),
    /// All that can fail has been done; only `start` is waited for.
    Ready,
    Failed(String),
}

/// The child's end.
#[derive(Debug, Clone, Copy)]
pub struct ChildEnd<'a>(pub BorrowedFd<'a>);

impl ChildEnd<'_> {
    pub fn successor(self, pid: i32) -> sys::Result<()> {
        let mut record = [b'P', 0, 0, 0, 0];
        record[1..].copy_from_slice(&pid.to_ne_bytes());
        socket::send(self.0, &record, None)
    }

    pub fn hooks(self) -> sys::Result<()> {
        socket::send(self.0, b"H", None)
    }

    pub fn listener(self, listener: BorrowedFd<'_>) -> sys::Result<()> {
        socket::send(self.0, b"L", Some(listener))
    }

    /// With write(2), which every filter that is loaded by now lets by, as [`Self::released`] with read(2). A runtime
    /// that is gone ends us.
    pub fn ready(self) -> sys::Result<()> {
        fs::write_all(self.0, b"R")
    }

    /// Waits until the runtime has put the container on record; false when it is gone.
    pub fn released(self) -> bool {
        let mut byte = [0];
        matches!(fs::read(self.0, &mut byte), Ok(1)) && byte[0] == Order::Next as u8
    }

    pub fn failed(self, text: &str) {
        // A runtime that is gone does not want to know.
        _ = socket::send(self.0, &Self::failure(text), None);
    }

    /// As [`Self::failed`], with write(2): see [`Self::ready`].
    pub fn failed_confined(self, text: &str) {
        _ = fs::write_all(self.0, &Self::failure(text));
    }

    fn failure(text: &str) -> Vec<u8> {
        let mut record = vec![b'F'];
        record.extend(text.bytes().take(MOST - 1));
        record
    }
}

/// The next word; `None` when the child has executed its program, or is gone.
pub fn hear(control: &OwnedFd) -> Option<Word> {
    let mut buffer = [0; MOST];
    let (length, fd) = socket::receive(control.as_fd(), &mut buffer).ok()?;
    let (tag, rest) = buffer[..length].split_first()?;
    match (tag, rest, fd) {
        (b'P', pid, None) => Some(Word::Successor(i32::from_ne_bytes(pid.try_into().ok()?))),
        (b'H', [], None) => Some(Word::Hooks),
        (b'L', [], Some(listener)) => Some(Word::Listener(listener)),
        (b'R', [], None) => Some(Word::Ready),
        (b'F', text, None) => Some(Word::Failed(String::from_utf8_lossy(text).into_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_were_sent() {
        let (ours, theirs) = socket::record_pair().unwrap();
        let end = ChildEnd(theirs.as_fd());
        end.successor(70_000).unwrap();
        assert!(matches!(hear(&ours), Some(Word::Successor(70_000))));
        end.hooks().unwrap();
        assert!(matches!(hear(&ours), Some(Word::Hooks)));
        end.listener(theirs.as_fd()).unwrap();
        assert!(matches!(hear(&ours), Some(Word::Listener(_))));
        end.failed(&"x".repeat(MOST * 2));
        assert!(matches!(hear(&ours), Some(Word::Failed(text)) if text.len() == MOST - 1));
        drop(theirs);
        assert!(hear(&ours).is_none());
    }
}
