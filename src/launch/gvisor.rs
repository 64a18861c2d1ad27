//! What runsc's own log says of how the program ended, since its exit status is that of a shell: 128 and more may be a
//! signal, an exit code or an error of runsc's.
//!
//! The log is written by the runsc that waits for the program, not by gVisor's kernel, which the program may have got
//! hold of; it is read to its end and no further than a bound.

use std::{fs::File, os::unix::fs::FileExt};

use crate::sys::Errno;

/// Of its log, as much as is looked at: the end.
const MOST: u64 = 64 << 10;
/// With which it exits on an error of its own.
const ERROR_STATUS: i32 = 128;

/// How a program ended that runsc ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// As waitpid(2) tells.
    Status(i32),
    /// It was not executed.
    NotExecuted { errno: Errno, why: String },
    /// runsc says why it gave up.
    Failed(String),
}

impl End {
    /// From what runsc exited with, as waitpid(2) has it, and its log.
    pub(super) fn of(status: i32, log: Option<&File>) -> Self {
        let text = log.map(tail).unwrap_or_default();
        Self::read(status, &text)
    }

    fn read(status: i32, log: &str) -> Self {
        let after = |line: &str, mark: &str| line.split_once(mark).map(|(_, rest)| rest.trim().to_owned());
        let told = log.lines().rev().find_map(|line| after(line, "] Exiting with status: "));
        if let Some(told) = told.and_then(|told| told.parse().ok()).filter(|told| agrees(*told, status)) {
            return Self::Status(told);
        }
        if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != ERROR_STATUS {
            return Self::Status(status);
        }
        // Nothing of the kind: then the program's own code is 128.
        let Some(why) = log.lines().rev().find_map(|line| after(line, "FATAL ERROR: ")) else {
            return Self::Status(status);
        };
        let of_program = ["failed to load ", "error finding executable "].iter().any(|mark| why.contains(mark));
        let errno = [
            ("no such file or directory", Errno::ENOENT),
            ("permission denied", Errno::EACCES),
            ("exec format error", Errno::ENOEXEC),
            ("not a directory", Errno::ENOTDIR),
            ("too many levels of symbolic links", Errno::ELOOP),
            ("argument list too long", Errno::E2BIG),
        ]
        .iter()
        .find_map(|(words, errno)| why.ends_with(words).then_some(*errno));
        match errno.filter(|_| of_program) {
            Some(errno) => Self::NotExecuted { errno, why },
            None => Self::Failed(why),
        }
    }
}

/// Whether `told` is what a shell's `status` comes from.
fn agrees(told: i32, status: i32) -> bool {
    let shell = if libc::WIFSIGNALED(told) { 128 + libc::WTERMSIG(told) } else { libc::WEXITSTATUS(told) };
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == shell
}

fn tail(log: &File) -> String {
    let size = log.metadata().map_or(0, |found| found.len());
    let mut bytes = vec![0; usize::try_from(size.min(MOST)).unwrap_or(0)];
    let mut read = 0;
    let from = size.saturating_sub(MOST);
    while read < bytes.len() {
        match log.read_at(&mut bytes[read..], from + read as u64) {
            Ok(count @ 1..) => read += count,
            _ => break,
        }
    }
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXITED: fn(i32) -> i32 = |code| code << 8;

    #[test]
    fn signals_and_codes_are_told_apart() {
        let line = |number: i32| format!("I1121 21:51:59.683580 4 main.go:266] Exiting with status: {number}\n");
        for (status, log, wanted) in [
            (EXITED(0), line(0), 0),
            (EXITED(137), line(9), 9),
            (EXITED(137), line(EXITED(137)), EXITED(137)),
            (EXITED(128), line(EXITED(128)), EXITED(128)),
            (EXITED(3), String::new(), EXITED(3)),
            // A log that says another thing is no log of this.
            (EXITED(3), line(9), EXITED(3)),
            (EXITED(137), String::new(), EXITED(137)),
            (9, line(0), 9),
            (EXITED(128), "nothing of note\n".to_owned(), EXITED(128)),
        ] {
            assert_eq!(End::read(status, &log), End::Status(wanted), "{status} {log:?}");
        }
    }

    #[test]
    fn errors_are_of_the_program_or_of_runsc() {
        let log = |why: &str| format!("I1 x\nW1121 4 util.go:64] FATAL ERROR: running container: {why}\nW1 main.go:275]\n");
        for (why, errno) in [
            ("creating process: failed to load /x: no such file or directory", Errno::ENOENT),
            ("error finding executable \"x\" in PATH [/bin]: no such file or directory", Errno::ENOENT),
            ("creating process: failed to load /x: permission denied", Errno::EACCES),
            ("creating process: failed to load /x: exec format error", Errno::ENOEXEC),
        ] {
            match End::read(EXITED(128), &log(why)) {
                End::NotExecuted { errno: found, .. } => assert_eq!(found, errno),
                other => panic!("{why}: {other:?}"),
            }
        }
        let why = "cannot create sandbox: open /dev/kvm: no such file or directory";
        assert_eq!(End::read(EXITED(128), &log(why)), End::Failed(format!("running container: {why}")));
    }
}
