//! gVisor's runsc in a container's enclosure: the init that stays with it as process 1, and calls of its verbs.
//!
//! All that runsc starts is in the init's pid namespace, and ends with it, whatever of it is killed. The init starts
//! runsc when the engine says `start`, is told what failed in runsc's own words, and ends as gVisor's kernel does, with
//! the program's exit status. What it is sent it hands on to that kernel, which hands it on to the program.

use std::{
    convert::Infallible,
    ffi::{CStr, CString},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use serde::Deserialize;

use super::{
    super::{grace, program::install},
    channel::ChildEnd,
    pipes::Pipes,
    program::{self, Program, failed},
};
use crate::{
    plan::{
        Filter,
        container::{gvisor::Guest, process::Process},
        gvisor::ROOT,
    },
    sys::{Errno, clone, fs, process},
};

/// What is handed on. The rest is the kernel's to send to us, or cannot be taken.
const FORWARDED: [i32; 16] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
    libc::SIGURG,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGCHLD,
];
const RUNSC: &CStr = c"/runsc";
/// Where runsc writes the number of gVisor's kernel, and what it knows of it.
const PID_FILE: &str = "/run/pid";
/// As a shell has it of a program that was killed.
const KILLED: i32 = 128 + libc::SIGKILL;
/// How long a kernel may take to end after its files have.
const DYING: std::time::Duration = std::time::Duration::from_secs(2);
/// What it says in one go.
const MOST: usize = 16 << 10;

/// A call of one of runsc's verbs in a container that runs.
#[derive(Debug)]
pub struct Call<'a> {
    pub words: Vec<String>,
    /// What `words` speak of by number.
    pub passed: Vec<BorrowedFd<'a>>,
    /// Whether it is for a program of the container's, which is looked for first.
    pub program: bool,
}

/// One line of runsc's log.
#[derive(Debug, Deserialize)]
struct Line {
    msg: String,
}

/// What a call has told on the pipe that it was given for its log and for the number of what it has started.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    Started,
    Failed(String),
}

impl Told {
    /// Reads until it is known. An end without a word is told as nothing.
    #[must_use]
    pub fn read(pipe: BorrowedFd<'_>) -> Option<Self> {
        let mut said = Vec::new();
        let mut buffer = [0; 1024];
        while said.len() < MOST {
            match fs::read(pipe, &mut buffer) {
                Ok(0) => break,
                Ok(length) => said.extend_from_slice(&buffer[..length]),
                Err(Errno::EINTR) => continue,
                Err(_) => break,
            }
            if said.first().is_some_and(u8::is_ascii_digit) {
                return Some(Self::Started);
            }
        }
        words(&said).map(Self::Failed)
    }
}

/// The last of what a log says, with what engines look for.
fn words(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    let said = serde_json::from_str(line).map_or_else(|_| line.to_owned(), |line: Line| line.msg);
    Some(format!("runsc: {}", said.trim()))
}

/// Becomes the container's init. Never returns but with what kept it from that.
pub(super) fn run(
    guest: &Guest,
    process: &Process,
    start: Option<&Pipes>,
    image: Option<BorrowedFd<'_>>,
    end: ChildEnd<'_>,
) -> Result<Infallible, String> {
    prepare(process)?;
    end.ready().map_err(failed("tell that the container is ready"))?;
    // Only a container that is on record may outlive the runtime that made it.
    if !end.released() || !start.is_none_or(Pipes::wait) {
        process::exit_now(1);
    }
    let signals = process::take_signals(&FORWARDED).map_err(failed("take signals"))?;
    let kernel = match boot(guest, image, signals.as_fd()) {
        Ok(kernel) => kernel,
        Err(why) => {
            match start {
                Some(start) => start.tell(&why),
                None => end.failed(&why),
            }
            process::exit_now(128);
        }
    };
    // Whoever waits for the program to run learns it by this, and its streams are held by gVisor's kernel.
    program::close_all_but(vec![signals.as_fd()], 0).map_err(failed("close descriptors"))?;
    if let Ok(null) = fs::open_in(fs::cwd(), c"/dev/null", libc::O_RDWR | libc::O_NOCTTY, 0, fs::NO_LINKS) {
        for number in 0..3 {
            _ = process::install_fd(null.as_fd(), number);
        }
    }
    // As a program that is executed is: an ordinary user finds its namespaces by it. There is nothing of the host's in it
    // any more, and nobody inside of gVisor can name it.
    process::set_dumpable().map_err(failed("set dumpable"))?;
    process::exit_now(attend(&kernel, signals.as_fd()))
}

/// What runsc has as its own, and what can be said before there is one.
fn prepare(process: &Process) -> Result<(), String> {
    find(process)?;
    let program = Program { process, label: None, keep: 0, hooked: false };
    program.own_streams();
    process::set_limit(libc::RLIMIT_CORE as _, 1, 1).map_err(failed("set the limit of core files"))?;
    fs::open_in(fs::cwd(), c"/", libc::O_PATH | libc::O_DIRECTORY, 0, 0)
        .and_then(|root| fs::change_dir(root.as_fd()))
        .map_err(failed("enter the enclosure"))?;
    // gVisor makes namespaces of its own with the rights that it has; nothing it executes has more.
    process::set_no_new_privileges().map_err(failed("set no_new_privs"))
}

/// The program is looked up in the container's tree, so that a missing one is told while somebody listens.
fn find(process: &Process) -> Result<CString, String> {
    let tree = fs::open_in(fs::cwd(), ROOT, libc::O_PATH | libc::O_DIRECTORY, 0, fs::NO_LINKS)
        .map_err(failed("open the container's tree"))?;
    program::find(process, &|path| {
        let absolute = path.to_bytes().starts_with(b"/");
        let path = match absolute {
            true => path.to_owned(),
            false => {
                CString::new([process.cwd.as_bytes(), b"/", path.to_bytes()].concat()).map_err(|_| Errno::EINVAL)?
            }
        };
        let file = fs::open_in(tree.as_fd(), &path, libc::O_PATH, 0, fs::LINKS_IN_ROOT)?;
        match fs::stat(file.as_fd())?.st_mode {
            mode if mode & libc::S_IFMT == libc::S_IFDIR => Err(Errno::EISDIR),
            mode if mode & 0o111 == 0 => Err(Errno::EACCES),
            _ => Ok(()),
        }
    })
}

/// gVisor's kernel, with the container's program in it.
struct Kernel {
    pid: i32,
    /// It serves the kernel its files, without which it is none.
    files: Option<i32>,
    /// How it has ended, if it has.
    ended: Option<i32>,
    /// What was sent before it was there.
    waiting: Vec<i32>,
}

/// Where runsc's record of the container is; the names of its fields have not changed since 2018.
#[derive(Debug, Deserialize)]
struct State {
    #[serde(rename = "goferPid", default)]
    files: i32,
}

/// Has runsc make the sandbox and start the program in it, or bring back what is in `image`.
fn boot(guest: &Guest, image: Option<BorrowedFd<'_>>, signals: BorrowedFd<'_>) -> Result<Kernel, String> {
    let (log, telling) = fs::pipe().map_err(failed("make a pipe"))?;
    fs::set_nonblocking(log.as_fd()).map_err(failed("set up a pipe"))?;
    let mut words = vec![format!("--log=/proc/self/fd/{}", telling.as_raw_fd())];
    words.extend(guest.options.iter().cloned());
    words.push(if image.is_some() { "restore" } else { "run" }.to_owned());
    if let Some(image) = image {
        words.push(format!("--image-path=/proc/self/fd/{}", image.as_raw_fd()));
    }
    words.extend(["--detach", "--bundle=/bundle/0"].map(str::to_owned));
    words.extend([format!("--pid-file={PID_FILE}"), guest.name.clone()]);
    let Some(runsc) = clone::fork().map_err(failed("fork"))? else {
        process::unblock_signals();
        // What is typed at the container's terminal is for the program, and not for gVisor's file server.
        _ = process::new_session();
        let high = grace::high_descriptor();
        let passed = [Some(telling.as_fd()), image, high.as_ref().map(AsFd::as_fd)];
        let passed: Vec<_> = passed.into_iter().flatten().collect();
        let errno = execute(&words, &passed, guest.no_registration.as_ref());
        _ = fs::write_all(telling.as_fd(), format!("cannot be executed: {}", errno.desc().to_lowercase()).as_bytes());
        process::exit_now(127);
    };
    drop(telling);
    let (mut ended, mut waiting) = (Vec::new(), Vec::new());
    let status = loop {
        wait_for_signal(signals)?;
        while let Some(signal) = process::read_signal(signals) {
            waiting.push(signal);
        }
        while let Ok(Some(one)) = process::wait(-1, false) {
            ended.push(one);
        }
        if let Some(runsc) = ended.iter().find(|one| one.pid == runsc) {
            break runsc.status;
        }
    };
    if status != 0 {
        let mut said = vec![0; MOST];
        let length = fs::read(log.as_fd(), &mut said).unwrap_or(0);
        let why = words_or(&said[..length], || format!("runsc ended with {}", shown(status)));
        return Err(why);
    }
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("runsc: {path}: {error}"));
    let pid: i32 = read(PID_FILE)?.trim().parse().map_err(|_| "runsc tells no number of a process".to_owned())?;
    let state = read(&format!("/run/{name}_sandbox:{name}.state", name = guest.name));
    let files = state.ok().and_then(|text| serde_json::from_str::<State>(&text).ok()).map(|state| state.files);
    let ended = ended.iter().find(|one| one.pid == pid).map(|one| one.status);
    let files = files.filter(|pid| *pid > 0);
    waiting.retain(|signal| *signal != libc::SIGCHLD);
    Ok(Kernel { pid, files, ended, waiting })
}

fn words_or(log: &[u8], otherwise: impl FnOnce() -> String) -> String {
    words(log).unwrap_or_else(otherwise)
}

fn shown(status: i32) -> String {
    match libc::WIFSIGNALED(status) {
        true => format!("signal {}", libc::WTERMSIG(status)),
        false => format!("exit status {}", libc::WEXITSTATUS(status)),
    }
}

/// Until the kernel ends. Returns its exit status, which is the program's.
fn attend(kernel: &Kernel, signals: BorrowedFd<'_>) -> i32 {
    if let Some(status) = kernel.ended {
        return of_shell(status);
    }
    // It is a child of ours that nobody else waits for: its number is its own.
    let Ok(pidfd) = process::open_process(kernel.pid) else { return KILLED };
    for signal in &kernel.waiting {
        _ = process::signal(pidfd.as_fd(), *signal);
    }
    loop {
        while let Ok(Some(ended)) = process::wait(-1, false) {
            if ended.pid == kernel.pid {
                return of_shell(ended.status);
            }
            if kernel.files == Some(ended.pid) {
                return without_files(kernel.pid, &pidfd);
            }
        }
        if wait_for_signal(signals).is_err() {
            return KILLED;
        }
        while let Some(signal) = process::read_signal(signals) {
            if signal != libc::SIGCHLD {
                _ = process::signal(pidfd.as_fd(), signal);
            }
        }
    }
}

/// The file server ends when the kernel does, and may be the first to be seen to. A kernel that goes on has no files, and
/// would give its program errors for ever.
fn without_files(pid: i32, pidfd: &OwnedFd) -> i32 {
    let mut fds = [libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    _ = process::poll(&mut fds, Some(DYING));
    process::wait(pid, false).ok().flatten().map_or(KILLED, |ended| of_shell(ended.status))
}

fn of_shell(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

fn wait_for_signal(signals: BorrowedFd<'_>) -> Result<(), String> {
    let mut fds = [libc::pollfd { fd: signals.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    process::poll(&mut fds, None).map(drop).map_err(failed("wait for runsc"))
}

/// Becomes runsc; returns why it does not.
fn execute(words: &[String], passed: &[BorrowedFd<'_>], filter: Option<&Filter>) -> Errno {
    let mut argv = vec![c"runsc".to_owned()];
    for word in words {
        let Ok(word) = CString::new(word.as_str()) else { return Errno::EINVAL };
        argv.push(word);
    }
    if let Err(errno) = process::close_on_exec_from(3) {
        return errno;
    }
    for fd in passed {
        if let Err(errno) = process::install_fd(*fd, fd.as_raw_fd()) {
            return errno;
        }
    }
    if let Some(Err(errno)) = filter.map(|filter| install(filter.program.quiet(), 0)) {
        return errno;
    }
    process::exec(RUNSC, &process::StringVector::new(argv), &process::StringVector::new(Vec::new()))
}

/// Becomes a runsc that is called in a container, of which all namespaces are entered.
pub(super) fn call(call: &Call<'_>, process: &Process) -> Result<Infallible, String> {
    if call.program {
        prepare(process)?;
    } else {
        process::set_no_new_privileges().map_err(failed("set no_new_privs"))?;
    }
    // It is no kernel, on whatever platform.
    let errno = execute(&call.words, &call.passed, Some(&Filter::no_registration()));
    Err(format!("runsc: {}", errno.desc().to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Option<Told> {
        let (reader, writer) = fs::pipe().unwrap();
        fs::write_all(writer.as_fd(), text.as_bytes()).unwrap();
        drop(writer);
        Told::read(reader.as_fd())
    }

    #[test]
    fn a_call_tells_a_number_or_why_not() {
        assert_eq!(told("2"), Some(Told::Started));
        assert_eq!(told(""), None);
        let line = r#"{"msg":"executing: error finding executable \"x\" in PATH [/bin]: no such file or directory","level":"error"}"#;
        let why = "runsc: executing: error finding executable \"x\" in PATH [/bin]: no such file or directory";
        assert_eq!(told(&format!("{line}\n")), Some(Told::Failed(why.to_owned())));
        assert_eq!(told("plain words\n"), Some(Told::Failed("runsc: plain words".to_owned())));
    }
}
