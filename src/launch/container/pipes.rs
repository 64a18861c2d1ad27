//! Where a created container waits for `start`: two named pipes in its state directory.
//!
//! `start` writes a byte into one and reads the other, whose end inside goes with execve: nothing read means that the
//! program runs. The init needs read(2) and write(2) for it and nothing else, whatever filter it is under by then.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::sys::{Errno, fs};

const GO: &CStr = c"start";
const WORD: &CStr = c"word";
const MOST: usize = 8 << 10;

/// The container's ends.
#[derive(Debug)]
pub struct Pipes {
    go: OwnedFd,
    word: OwnedFd,
}

impl Pipes {
    pub fn make(dir: BorrowedFd<'_>) -> Result<Self, Errno> {
        fs::make_pipe(dir, GO, 0o600)?;
        fs::make_pipe(dir, WORD, 0o600)?;
        let open = |name, flags| fs::open_in(dir, name, flags, 0, fs::BENEATH);
        // For reading and writing: else it would end when the first writer does, or wait for one.
        let go = open(GO, libc::O_RDWR)?;
        let reader = open(WORD, libc::O_RDONLY | libc::O_NONBLOCK)?;
        let word = open(WORD, libc::O_WRONLY)?;
        drop(reader);
        Ok(Self { go, word })
    }

    pub(super) fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.go.as_fd(), self.word.as_fd()]
    }

    /// What [`call`] returns.
    pub(super) fn tell(&self, why: &str) {
        _ = fs::write_all(self.word.as_fd(), why.as_bytes());
    }

    /// Waits for [`call`].
    pub(super) fn wait(&self) -> bool {
        let mut byte = [0];
        loop {
            match fs::read(self.go.as_fd(), &mut byte) {
                Err(Errno::EINTR) => {}
                read => return read == Ok(1),
            }
        }
    }
}

/// Lets the container whose state directory this is go, and returns what it has to complain of before its program
/// runs: nothing, when all is well.
pub fn call(dir: BorrowedFd<'_>) -> Result<String, Errno> {
    let open = |name, flags| fs::open_in(dir, name, flags | libc::O_NONBLOCK, 0, fs::BENEATH);
    let word = open(WORD, libc::O_RDONLY)?;
    // ENXIO: nobody waits.
    let go = open(GO, libc::O_WRONLY)?;
    fs::set_blocking(word.as_fd())?;
    fs::write_all(go.as_fd(), b"s")?;
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    while said.len() < MOST {
        match fs::read(word.as_fd(), &mut buffer) {
            Ok(0) => break,
            Ok(length) => said.extend_from_slice(&buffer[..length]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn start_is_heard_and_told_what_failed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = File::open(dir.path()).unwrap();
        let pipes = Pipes::make(dir.as_fd()).unwrap();
        assert!(Pipes::make(dir.as_fd()).is_err(), "a name is taken once");
        let said = std::thread::scope(|scope| {
            let caller = scope.spawn(|| call(dir.as_fd()));
            assert!(pipes.wait());
            pipes.tell("because");
            drop(pipes);
            caller.join().unwrap()
        });
        assert_eq!(said, Ok("because".to_owned()));
        assert_eq!(call(dir.as_fd()), Err(Errno::ENXIO));
    }
}
