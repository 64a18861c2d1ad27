//! Trying something out in a child process, so that the doctor itself stays as it was, and hearing from the
//! child which step failed and why.

use std::{
    fmt,
    io::{self, Read, Write},
};

use nix::errno::Errno;

use crate::sys::{self, clone::Cloned, probe};

/// The step at which a trial ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub stage: String,
    pub object: String,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Errno(Errno),
    /// The child died instead of answering.
    Signal(i32),
    /// A program of the host's refused, in the words that are the object.
    Refused,
    Vanished,
}

pub(super) type Trial = Result<(), Failure>;

impl Failure {
    /// The errno, where the kernel gave one.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self.why {
            Why::Errno(errno) => Some(errno),
            Why::Signal(_) | Why::Refused | Why::Vanished => None,
        }
    }

    fn encode(&self) -> String {
        let (kind, number) = match self.why {
            Why::Errno(errno) => ('e', errno as i32),
            Why::Signal(signal) => ('s', signal),
            Why::Refused => ('r', 0),
            Why::Vanished => ('v', 0),
        };
        format!("{kind}\n{number}\n{}\n{}", self.stage, self.object)
    }

    fn decode(text: &str) -> Option<Self> {
        let mut fields = text.splitn(4, '\n');
        let (kind, number) = (fields.next()?, fields.next()?.parse().ok()?);
        let why = match kind {
            "e" => Why::Errno(Errno::from_raw(number)),
            "s" => Why::Signal(number),
            "r" => Why::Refused,
            "v" => Why::Vanished,
            _ => return None,
        };
        Some(Self { stage: fields.next()?.to_owned(), object: fields.next()?.to_owned(), why })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stage, object, why } = self;
        if *why == Why::Refused {
            return write!(f, "{stage}: {object}");
        }
        if object.is_empty() { write!(f, "{stage}: {why}") } else { write!(f, "{stage} {object}: {why}") }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => f.write_str(&errno.desc().to_ascii_lowercase()),
            Self::Signal(SIGSYS) => f.write_str("killed by a seccomp filter (SIGSYS)"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Refused => f.write_str("refused"),
            Self::Vanished => f.write_str("ended without an answer"),
        }
    }
}

/// Names the step that a result belongs to.
pub(super) fn step<T>(stage: &str, object: &str, result: Result<T, impl Into<io::Error>>) -> Result<T, Failure> {
    result.map_err(|error| {
        let errno = error.into().raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
        Failure { stage: stage.to_owned(), object: object.to_owned(), why: Why::Errno(errno) }
    })
}

/// Runs `body` in a child of this process.
pub(super) fn in_child(body: impl FnOnce() -> Trial) -> Trial {
    let (answer, reply) = step("pipe", "", io::pipe())?;
    match step("fork", "", probe::fork())? {
        None => answer_and_exit(reply, body),
        Some(pid) => {
            drop(reply);
            collect(pid, answer)
        }
    }
}

/// Runs `body` in a process that has new namespaces: a user namespace in which it is root, and those of
/// `flags` (CLONE_NEW*). Made by the same call as a launch makes them, so that what forbids the one forbids
/// the other.
pub(super) fn in_namespaces(flags: i32, body: impl FnOnce() -> Trial) -> Trial {
    let flags = flags as u64 | NEW_USER;
    // In a child of its own, because after a bare clone only a process with one thread may allocate.
    in_child(|| {
        let (mut gate, mut open) = step("pipe", "", io::pipe())?;
        let (answer, reply) = step("pipe", "", io::pipe())?;
        match step("clone3", "", sys::clone::clone_process(flags, None))? {
            Cloned::Child => answer_and_exit(reply, || {
                // Our copy of the other end, which would keep the gate from ever closing.
                drop(open);
                step("read", "gate", gate.read_exact(&mut [0]))?;
                body()
            }),
            Cloned::Parent { pid, .. } => {
                drop((gate, reply));
                let opened = become_root_inside(pid).and_then(|()| step("write", "gate", open.write_all(&[0])));
                // Shut, the gate ends a child that never got through it.
                drop(open);
                let trial = collect(pid, answer);
                opened.and(trial)
            }
        }
    })
}

/// Runs `body` with the pid of a process that does nothing but keep a user namespace alive, with no ids
/// mapped yet. To be called in a child, as [`in_namespaces`]'s body is, but in the pid namespace of `/proc`.
pub(super) fn with_user_namespace(body: impl FnOnce(i32) -> Trial) -> Trial {
    let (mut gate, open) = step("pipe", "", io::pipe())?;
    match step("clone3", "", sys::clone::clone_process(NEW_USER, None))? {
        Cloned::Child => {
            drop(open);
            // Ends when the other end is closed, whoever closes it.
            let _ = gate.read(&mut [0]);
            sys::process::exit_now(0)
        }
        Cloned::Parent { pid, .. } => {
            let trial = body(pid);
            drop(open);
            step("wait", "child", sys::process::wait(pid, true))?;
            trial
        }
    }
}

const SIGSYS: i32 = nix::sys::signal::Signal::SIGSYS as i32;

const NEW_USER: u64 = nix::sched::CloneFlags::CLONE_NEWUSER.bits() as u64;

/// Maps our own ids to root's in the user namespace of `pid`: the one map that needs no privilege.
pub(super) fn become_root_inside(pid: i32) -> Trial {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        step("write", file, std::fs::write(format!("/proc/{pid}/{file}"), text))?;
    }
    Ok(())
}

fn answer_and_exit(mut reply: io::PipeWriter, body: impl FnOnce() -> Trial) -> ! {
    let trial = step("prctl", "PR_SET_PDEATHSIG", probe::die_with_parent()).and_then(|()| body());
    let text = trial.map_or_else(|failure| failure.encode(), |()| "ok".to_owned());
    // Short enough for one write; if even that fails, the parent sees that we vanished.
    let _ = reply.write_all(text.as_bytes());
    sys::process::exit_now(0)
}

fn collect(pid: i32, mut answer: io::PipeReader) -> Trial {
    let mut text = String::new();
    let read = step("read", "answer", answer.read_to_string(&mut text));
    let ended = step("wait", "child", sys::process::wait(pid, true))?;
    read?;
    if text == "ok" {
        return Ok(());
    }
    Err(Failure::decode(&text).unwrap_or_else(|| {
        let signal = ended.map_or(0, |ended| ended.status & 0x7f);
        let why = if signal == 0 { Why::Vanished } else { Why::Signal(signal) };
        Failure { stage: "run".to_owned(), object: "trial".to_owned(), why }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_childs_step_and_errno_come_back() {
        assert_eq!(in_child(|| Ok(())), Ok(()));
        let failure = in_child(|| step("mount", "/a\nb", Err::<(), _>(Errno::EPERM))).unwrap_err();
        assert_eq!(failure.errno(), Some(Errno::EPERM));
        assert_eq!((failure.stage.as_str(), failure.object.as_str()), ("mount", "/a\nb"));
        assert_eq!(failure.to_string(), "mount /a\nb: operation not permitted");
    }

    #[test]
    fn a_child_that_dies_is_no_success() {
        assert_eq!(in_child(|| sys::process::exit_now(0)).unwrap_err().why, Why::Vanished);
        let dead = in_child(|| {
            step("kill", "", nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL))?;
            Ok(())
        });
        assert_eq!(dead.unwrap_err().why, Why::Signal(9));
    }

    #[test]
    fn nonsense_is_no_answer() {
        for text in ["", "ok\n", "e", "e\n1", "e\n1\nstage", "y\n1\na\nb", "e\nx\na\nb"] {
            assert_eq!(Failure::decode(text), None, "{text:?}");
        }
    }
}
