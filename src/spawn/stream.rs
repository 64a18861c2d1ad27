//! Messages of any length over a stream socket: the length, then the bytes; large ones in a file of memory instead, whose
//! descriptor comes along, so that who sends never waits for who reads.

use std::{
    ffi::CStr,
    fs::File,
    io::{Read, Seek, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sys::{self, Errno, fs, socket};

/// More than this goes into a file: a socket's buffer holds several times as much.
const INLINE: usize = 16 << 10;
const LENGTH: usize = size_of::<u64>();
/// Whether the bytes are in a file.
const IN_FILE: u64 = 1 << 63;
const NAME: &CStr = c"fumehood-message";

/// Sends one message; it must fit into the socket's buffer or a file.
pub(super) fn send(to: BorrowedFd<'_>, message: &[u8]) -> sys::Result<()> {
    if message.len() <= INLINE {
        let whole = [&(message.len() as u64).to_ne_bytes(), message].concat();
        return socket::send_all(to, &whole);
    }
    let file = in_file(message).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    socket::send(to, &(message.len() as u64 | IN_FILE).to_ne_bytes(), Some(file.as_fd()))
}

fn in_file(message: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(NAME, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(message)?;
    file.rewind()?;
    Ok(file)
}

/// What has come of the next message.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    file: Option<OwnedFd>,
}

#[derive(Debug)]
pub(super) enum Came {
    Whole(Vec<u8>),
    Part,
    End,
}

impl Incoming {
    /// Reads once, no more than belongs to this message.
    pub(super) fn read(&mut self, from: BorrowedFd<'_>) -> sys::Result<Came> {
        if self.bytes.len() < LENGTH {
            let mut length = [0; LENGTH];
            let room = &mut length[self.bytes.len()..];
            let (read, file) = socket::receive(from, room)?;
            if read == 0 {
                return Ok(Came::End);
            }
            self.bytes.extend_from_slice(&room[..read]);
            self.file = self.file.take().or(file);
        } else {
            let wanted = self.wanted() - self.bytes.len();
            let held = self.bytes.len();
            self.bytes.resize(held + wanted, 0);
            let read = fs::read(from, &mut self.bytes[held..]);
            self.bytes.truncate(held + read.unwrap_or(0));
            if read? == 0 {
                return Ok(Came::End);
            }
        }
        if self.bytes.len() < LENGTH || self.bytes.len() < self.wanted() {
            return Ok(Came::Part);
        }
        let mut whole = std::mem::take(self);
        match whole.file.take() {
            None if whole.head() & IN_FILE == 0 => Ok(Came::Whole(whole.bytes[LENGTH..].to_vec())),
            // There was no room for its descriptor.
            None => Err(Errno::EMFILE),
            Some(file) => {
                let mut bytes = Vec::with_capacity((whole.head() & !IN_FILE) as usize);
                let read = File::from(file).read_to_end(&mut bytes);
                read.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
                Ok(Came::Whole(bytes))
            }
        }
    }

    fn head(&self) -> u64 {
        let mut head = [0; LENGTH];
        head.copy_from_slice(&self.bytes[..LENGTH]);
        u64::from_ne_bytes(head)
    }

    /// All of it that comes over the socket.
    fn wanted(&self) -> usize {
        let head = self.head();
        LENGTH + if head & IN_FILE == 0 { head as usize } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_all_lengths_come_as_they_went() {
        let (a, b) = socket::stream_pair().unwrap();
        for length in [0, 1, 7, 8, INLINE - 1, INLINE, INLINE + 1, 3 << 20] {
            let message: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            send(a.as_fd(), &message).unwrap();
            send(a.as_fd(), b"next").unwrap();
            let mut incoming = Incoming::default();
            for wanted in [&message[..], b"next"] {
                let got = loop {
                    match incoming.read(b.as_fd()).unwrap() {
                        Came::Whole(got) => break got,
                        Came::Part => {}
                        Came::End => panic!("{length}"),
                    }
                };
                assert!(got == wanted, "{length}");
            }
        }
        drop(a);
        assert!(matches!(Incoming::default().read(b.as_fd()), Ok(Came::End)));
    }
}
