//! What runsc's own logs say of how the program ended, since its exit status is that of a shell: 128 and more may be a
//! signal, an exit code or an error of runsc's, and a kernel that crashed has a code as well.
//!
//! One is written by the runsc that waits for the program, the other by gVisor's kernel, which a program may have got
//! hold of; of each the end is read, up to a bound.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf};

use crate::{
    report::{Capture, Mask, Tail},
    request::{Bytes, SandboxId, Secret},
    state,
    sys::Errno,
};

/// Of its log, as much as is looked at: the end.
const MOST: u64 = 4 << 20;
/// Of what it died of, this many characters are told.
const WORDS: usize = 300;
/// With which it exits on an error of its own.
const ERROR_STATUS: i32 = 128;

/// How a program ended that runsc ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// As waitpid(2) tells.
    Status(i32),
    /// It was not executed.
    NotExecuted { errno: Errno, why: String },
    /// It did not run, or gVisor's kernel ended under it.
    Failed(String),
    /// This kernel gave gVisor's no more threads, of which it ended.
    OutOfThreads,
}

impl End {
    /// From what runsc exited with, as waitpid(2) has it, and its log.
    pub(super) fn of(status: i32, logs: &[File]) -> Self {
        if status == 0 {
            return Self::Status(status);
        }
        let text = |number: usize| logs.get(number).map(tail).unwrap_or_default();
        Self::read(status, &text(0), &text(1))
    }

    /// What runsc itself said last, if it did not run the program.
    pub(super) fn words(&self) -> Option<&str> {
        match self {
            Self::NotExecuted { why, .. } | Self::Failed(why) => Some(why),
            Self::Status(_) | Self::OutOfThreads => None,
        }
    }

    fn read(status: i32, log: &str, of_kernel: &str) -> Self {
        let after = |line: &str, mark: &str| line.split_once(mark).map(|(_, rest)| rest.trim().to_owned());
        let of_kernel = since_start(of_kernel);
        // A runsc that asks too late how the program ended takes its kernel's exit status for it, which is a shell's too.
        let told = [of_kernel, log].into_iter().find_map(|log| {
            let told =
                log.lines().rev().find_map(|line| said_by(line, "main.go")?.strip_prefix("Exiting with status: "))?;
            told.trim().parse().ok().filter(|told| agrees(*told, status))
        });
        if let Some(told) = told {
            return died(of_kernel).unwrap_or(Self::Status(told));
        }
        let fatal = log.lines().rev().find_map(|line| after(line, "FATAL ERROR: "));
        let why = match fatal {
            Some(why) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == ERROR_STATUS => why,
            _ if log.contains("Sandbox started") => return Self::Status(status),
            _ => return Self::Failed("runsc ended before it had made a sandbox".to_owned()),
        };
        let of_program = ["failed to load ", "error finding executable "].iter().any(|mark| why.contains(mark));
        let errno = [
            ("no such file or directory", Errno::ENOENT),
            ("permission denied", Errno::EACCES),
            ("exec format error", Errno::ENOEXEC),
            // As without gVisor, where a path that leads through a file is one at which nothing is.
            ("not a directory", Errno::ENOENT),
            ("too many levels of symbolic links", Errno::ELOOP),
            ("argument list too long", Errno::E2BIG),
            ("invalid argument", Errno::EINVAL),
        ]
        .iter()
        .find_map(|(words, errno)| why.ends_with(words).then_some(*errno));
        match errno.filter(|_| of_program) {
            Some(errno) => Self::NotExecuted { errno, why },
            None => Self::Failed(why),
        }
    }
}

/// Keeps what the logs say for who wants to know why, and says where. The error stands without it.
pub(super) fn keep(logs: &[File], id: &SandboxId, secrets: &[Secret]) -> Option<PathBuf> {
    let mask = Mask::new(secrets);
    let mut kept = Vec::new();
    for log in logs {
        let mut shown = Capture::new(&mask, Bytes::new(MOST));
        kept.extend_from_slice(shown.push(tail(log).as_bytes()));
        kept.append(&mut shown.finish(Tail::Whole).1);
    }
    if kept.is_empty() {
        return None;
    }
    state::keep_log(id.as_str(), &kept).ok()
}

/// What gVisor's kernel wrote since its program ran. Before come words of the program's: it logs the command.
fn since_start(of_kernel: &str) -> &str {
    of_kernel.rsplit_once("] Process should have started").map_or(of_kernel, |(_, since)| since)
}

/// What a line of a log says, if it is one of that source file's.
fn said_by<'a>(line: &'a str, file: &str) -> Option<&'a str> {
    let (head, said) = line.split_once("] ")?;
    let number = head.rsplit(' ').next()?.strip_prefix(file)?.strip_prefix(':')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(said)
}

/// Why gVisor's kernel ended, if it was not that its program had.
fn died(of_kernel: &str) -> Option<End> {
    let said = |line: &str, file, what| said_by(line, file).is_some_and(|said| said.starts_with(what));
    // Without a log of it there is nothing to be told.
    if of_kernel.is_empty() || of_kernel.lines().any(|line| said(line, "boot.go", "application exiting with ")) {
        return None;
    }
    let reason = of_kernel.lines().find(|line| {
        ["panic: ", "fatal error: "].iter().any(|mark| line.starts_with(mark)) || said(line, "util.go", "FATAL ERROR: ")
    });
    let Some(line) = reason else { return Some(End::Failed("its kernel was killed".to_owned())) };
    if ["newosproc", "resource temporarily unavailable", "createSysmsgThread: failed to get clone"]
        .iter()
        .any(|words| line.contains(words))
    {
        return Some(End::OutOfThreads);
    }
    Some(End::Failed(format!("its kernel ended: {}", line.trim().chars().take(WORDS).collect::<String>())))
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

    const STARTED: &str = "I1121 21:51:59.374340 4 sandbox.go:917] Sandbox started, PID: 13\n";

    #[test]
    fn signals_and_codes_are_told_apart() {
        let line = |number: i32| format!("I1121 21:51:59.683580 4 main.go:266] Exiting with status: {number}\n");
        for (status, log, wanted) in [
            (EXITED(137), line(9), 9),
            (EXITED(137), line(EXITED(137)), EXITED(137)),
            (EXITED(128), line(EXITED(128)), EXITED(128)),
            (EXITED(3), STARTED.to_owned(), EXITED(3)),
            // A log that says another thing is no log of this.
            (EXITED(3), STARTED.to_owned() + &line(9), EXITED(3)),
            (EXITED(137), STARTED.to_owned(), EXITED(137)),
            (9, STARTED.to_owned() + &line(0), 9),
            (EXITED(128), STARTED.to_owned(), EXITED(128)),
        ] {
            assert_eq!(End::read(status, &log, ""), End::Status(wanted), "{status} {log:?}");
        }
        assert!(matches!(End::read(EXITED(128), "", ""), End::Failed(_)));
    }

    #[test]
    fn a_kernel_that_ended_is_no_program_that_did() {
        let log = format!("{STARTED}I1 main.go:266] Exiting with status: 512\n");
        let failed = |kernel: &str| match End::read(EXITED(2), &log, kernel) {
            End::Failed(why) => why,
            other => panic!("{kernel}: {other:?}"),
        };
        assert_eq!(
            failed("I1 x\npanic: unable to make a stub\n\ngoroutine 1:\n"),
            "its kernel ended: panic: unable to make a stub"
        );
        assert_eq!(failed("I1 x\n"), "its kernel was killed");
        assert_eq!(End::read(EXITED(2), &log, "I1 x\nfatal error: newosproc\n"), End::OutOfThreads);
        let ended = "I1 boot.go:389] application exiting with exit status 2\n";
        assert_eq!(End::read(EXITED(2), &log, ended), End::Status(EXITED(2)));
        let late =
            format!("{STARTED}W1 sandbox.go:957] Wait RPC failed\nI1 main.go:266] Exiting with status: {}\n", 137 << 8);
        let ended =
            "I1 boot.go:389] application exiting with killed by signal 9\nI1 main.go:266] Exiting with status: 9\n";
        assert_eq!(End::read(EXITED(137), &late, ended), End::Status(9));
    }

    #[test]
    fn what_the_program_is_called_with_is_not_believed() {
        let log = format!("{STARTED}I1 main.go:266] Exiting with status: 512\n");
        let kernel = |end: &str| {
            format!(
                "I1 kernel.go:791] EXEC: [/x application exiting with \npanic: newosproc\nI1 boot.go:1] application \
                 exiting with exit status 2\nI1 main.go:1] Exiting with status: 512]\n\
                 I1 loader.go:689] Process should have started...\n{end}"
            )
        };
        assert_eq!(End::read(EXITED(2), &log, &kernel("")), End::Failed("its kernel was killed".to_owned()));
        assert_eq!(End::read(EXITED(2), &log, &kernel("fatal error: newosproc\n")), End::OutOfThreads);
        let ended = kernel("I1 boot.go:389] application exiting with exit status 2\n");
        assert_eq!(End::read(EXITED(2), &log, &ended), End::Status(EXITED(2)));
    }

    #[test]
    fn errors_are_of_the_program_or_of_runsc() {
        let log =
            |why: &str| format!("I1 x\nW1121 4 util.go:64] FATAL ERROR: running container: {why}\nW1 main.go:275]\n");
        for (why, errno) in [
            ("creating process: failed to load /x: no such file or directory", Errno::ENOENT),
            ("error finding executable \"x\" in PATH [/bin]: no such file or directory", Errno::ENOENT),
            ("creating process: failed to load /x: permission denied", Errno::EACCES),
            ("creating process: failed to load /x: exec format error", Errno::ENOEXEC),
            ("creating process: failed to load /x/y: not a directory", Errno::ENOENT),
        ] {
            match End::read(EXITED(128), &log(why), "") {
                End::NotExecuted { errno: found, .. } => assert_eq!(found, errno),
                other => panic!("{why}: {other:?}"),
            }
        }
        let why = "cannot create sandbox: open /dev/kvm: no such file or directory";
        assert_eq!(End::read(EXITED(128), &log(why), ""), End::Failed(format!("running container: {why}")));
    }
}
