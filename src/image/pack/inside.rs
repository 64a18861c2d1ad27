//! A tree packed as those see it who live in another user namespace.
//!
//! Its files belong to ids that are nobody's here, and their rights may keep even the caller out. A process of our own
//! enters the namespace, where it is root and nothing else of the host is its own, and reads from there: owners come out
//! as they are inside, and what is hostile in the tree meets no more privilege than its makers had.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::{Deserialize, Serialize};

use super::{Notes, Options, PackError, pack};
use crate::{
    error::Hint,
    sys::{clone, fs, process},
};

/// What the other process says at its end.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Done(Notes),
    Failed { what: String, hint: Option<String> },
}

const MOST_WORDS: u64 = 64 << 10;
const CHUNK: usize = 256 << 10;

/// As [`pack`], from within the user namespace, which the caller made. Nobody else may be in it any more.
pub fn pack_inside(
    namespace: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    options: &Options,
    to: &mut dyn Write,
) -> Result<Notes, PackError> {
    let ((archive, archive_in), (words, words_in)) = match (fs::pipe(), fs::pipe()) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(errno), _) | (_, Err(errno)) => return Err(PackError::Write(errno.into())),
    };
    let Some(pid) = clone::fork().map_err(|errno| PackError::Write(errno.into()))? else {
        // Else whoever reads would wait for ourselves.
        drop((archive, words));
        let told = catch_unwind(AssertUnwindSafe(|| {
            let said = match work(namespace, root, options, File::from(archive_in)) {
                Ok(notes) => Said::Done(notes),
                Err(error) => Said::Failed { what: told(&error), hint: error.hint() },
            };
            serde_json::to_writer(File::from(words_in), &said).is_ok()
        }));
        process::exit_now(i32::from(told.is_err()));
    };
    drop((archive_in, words_in));
    let copied = copy(File::from(archive), to);
    let mut said = Vec::new();
    // A writer that failed leaves the other process with nobody who reads: it ends by that.
    let heard = if copied.is_ok() { File::from(words).take(MOST_WORDS).read_to_end(&mut said) } else { Ok(0) };
    // It has ended or ends now, and nobody else waits for it.
    _ = process::wait(pid, true);
    copied?;
    let lost = |_| PackError::Elsewhere {
        what: "the process that reads the files ended in the middle".to_owned(),
        hint: None,
    };
    heard.map_err(lost)?;
    match serde_json::from_slice(&said) {
        Ok(Said::Done(notes)) => Ok(notes),
        Ok(Said::Failed { what, hint }) => Err(PackError::Elsewhere { what, hint }),
        Err(_) => Err(lost(io::ErrorKind::UnexpectedEof.into())),
    }
}

fn work(namespace: BorrowedFd<'_>, root: BorrowedFd<'_>, options: &Options, to: File) -> Result<Notes, PackError> {
    clone::enter_user_namespace(namespace).map_err(|errno| PackError::Read {
        action: "enter the user namespace of",
        path: "/".to_owned(),
        source: errno.into(),
    })?;
    let to = io::BufWriter::with_capacity(CHUNK, to);
    let (notes, to) = pack(root.as_fd(), options, to)?;
    to.into_inner().map_err(|error| PackError::Write(error.into_error()))?;
    Ok(notes)
}

fn copy(mut from: File, to: &mut dyn Write) -> Result<(), PackError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(PackError::Write(error)),
            Ok(read) => to.write_all(&buffer[..read]).map_err(PackError::Write)?,
        }
    }
}

/// With its causes, as they are told in one line.
fn told(error: &PackError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
