//! One piece of work for `criu swrk`: a request, notifications each of which it waits to have answered, and a response.

use std::{
    ffi::CString,
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::PathBuf,
};

use prost::Message;

use super::{
    Criu, CriuError, Options, Result, Root,
    messages::{Features, Kind, Notification, Request, Response},
    reason, talk,
};
use crate::sys::{
    Errno,
    clone::{self, Cloned},
    fs, process, socket,
};

/// The socket's number in criu; what it inherits comes after.
const SOCKET: i32 = 3;
pub const FIRST_INHERITED: i32 = SOCKET + 1;
/// As large as runc's: it answers with a few words.
const LARGEST: usize = 40 << 10;
const LARGEST_LOG: u64 = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    Save,
    PreDump,
    Restore,
}

impl Job {
    const fn kind(self) -> Kind {
        match self {
            Self::Save => Kind::Dump,
            Self::PreDump => Kind::PreDump,
            Self::Restore => Kind::Restore,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Save => "save the container",
            Self::PreDump => "save the container's memory",
            Self::Restore => "restore the container",
        }
    }

    #[must_use]
    pub const fn log_file(self) -> &'static str {
        match self {
            Self::Save | Self::PreDump => "dump.log",
            Self::Restore => "restore.log",
        }
    }
}

/// What criu tells on its way, and waits for.
#[derive(Debug)]
pub enum Event {
    /// The namespaces of the process with this pid are there, and nothing of it runs.
    Namespaces(i32),
    /// All is restored, in the process with this pid and those below it, and will run next.
    Restored(i32),
    /// The master of the container's terminal.
    Terminal(OwnedFd),
    /// The page server can be asked for memory.
    Ready,
}

/// A criu that waits for work. Dropped, it is ended.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    waited: bool,
    /// [`Root::directories`].
    directories: Vec<OwnedFd>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.waited {
            // ESRCH: it has ended.
            _ = process::signal(self.pidfd.as_fd(), libc::SIGKILL);
            _ = process::wait(self.pid, true);
        }
    }
}

impl Criu {
    /// Starts it with our three streams and with `inherited`, from [`FIRST_INHERITED`] on; with a `root`, in a mount
    /// namespace of its own in which that is one.
    pub fn start(&self, inherited: &[BorrowedFd<'_>], root: Option<&Root<'_>>) -> Result<Session> {
        let (ours, theirs) = socket::record_pair().map_err(talk("make a socket pair"))?;
        let (word, telling) = fs::pipe().map_err(talk("make a pipe"))?;
        let path = CString::new(self.path.as_os_str().as_bytes()).unwrap_or_default();
        let words = [path.clone(), c"swrk".to_owned(), CString::new(SOCKET.to_string()).unwrap_or_default()];
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok());
        let (words, variables) =
            (process::StringVector::new(words.into()), process::StringVector::new(variables.collect()));
        match clone::clone_process(0, None).map_err(talk("start criu"))? {
            Cloned::Parent { pid, pidfd } => {
                let mut session = Session { socket: ours, pid, pidfd, waited: false, directories: Vec::new() };
                drop((theirs, telling));
                let mut said = String::new();
                _ = std::fs::File::from(word).read_to_string(&mut said);
                if !said.is_empty() {
                    return Err(CriuError::Talk { what: "start criu", why: said });
                }
                for _ in 0..if root.is_some() { 2 } else { 0 } {
                    let (_, dir) = socket::receive(session.socket.as_fd(), &mut [0]).map_err(talk("talk to criu"))?;
                    session.directories.extend(dir);
                }
                Ok(session)
            }
            Cloned::Child => {
                // Ours has to be told of a failure by a number that nothing else takes.
                let telling = process::copy_above(telling.as_fd(), FIRST_INHERITED + inherited.len() as i32);
                let Ok(telling) = telling else { process::exit_now(1) };
                let Err(why) = become_criu(&path, &words, &variables, theirs.as_fd(), inherited, root);
                _ = fs::write_all(telling.as_fd(), why.as_bytes());
                process::exit_now(1)
            }
        }
    }

    /// Whether it and the kernel can track what of memory changes, and fetch it when it is used.
    fn features(&self) -> Result<Features> {
        let mut session = self.start(&[], None)?;
        let wanted = Features { memory_tracking: Some(true), lazy_pages: Some(true) };
        let request = Request { kind: Kind::FeatureCheck as i32, features: Some(wanted), ..Request::default() };
        session.send(&request)?;
        let (response, _) = session.receive()?;
        session.end()?;
        Ok(response.features.unwrap_or_default())
    }

    pub fn need_memory_tracking(&self) -> Result {
        let has = self.features()?.memory_tracking == Some(true);
        if has {
            Ok(())
        } else {
            Err(CriuError::Feature("tracking of memory, which --pre-dump and --parent-path need"))
        }
    }

    pub fn need_lazy_pages(&self) -> Result {
        let has = self.features()?.lazy_pages == Some(true);
        if has { Ok(()) } else { Err(CriuError::Feature("memory that is fetched when it is used (--lazy-pages)")) }
    }
}

/// The new process, up to execve. It has a copy of the runtime's one thread, so it may allocate.
fn become_criu(
    path: &CString,
    words: &process::StringVector,
    variables: &process::StringVector,
    socket: BorrowedFd<'_>,
    inherited: &[BorrowedFd<'_>],
    root: Option<&Root<'_>>,
) -> Result<std::convert::Infallible, String> {
    // Out of the way of the numbers that they will have.
    let text = |errno: Errno| errno.desc().to_owned();
    let last = SOCKET + inherited.len() as i32;
    let copies = [socket].into_iter().chain(inherited.iter().copied());
    let copies = copies.map(|fd| process::copy_above(fd, last + 1).map_err(text)).collect::<Result<Vec<_>, _>>()?;
    process::reset_signals();
    process::unblock_signals();
    if let Some(root) = root {
        root.mount()?;
        for dir in root.directories()? {
            socket::send(socket, b"d", Some(dir.as_fd())).map_err(text)?;
        }
    }
    for (number, copy) in (SOCKET..).zip(copies) {
        process::install_fd(copy.as_fd(), number).map_err(text)?;
    }
    process::close_on_exec_from((last + 1) as u32).map_err(text)?;
    let errno = process::exec(path, words, variables);
    Err(format!("{}: {}", path.to_string_lossy(), errno.desc()))
}

impl Session {
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Those of images and of work, for criu's options, where it was started with a root.
    #[must_use]
    pub fn directories(&self) -> Option<[i32; 2]> {
        let [images, work] = &self.directories[..] else { return None };
        Some([images.as_raw_fd(), work.as_raw_fd()])
    }

    /// Has it do its work. `hear` is told of what happens on the way; should it fail, so does the work, and what was
    /// begun is taken back. Returns the pid of what was restored. `log` is where criu writes what it does.
    pub fn work(
        mut self,
        job: Job,
        options: Options,
        log: PathBuf,
        mut hear: impl FnMut(Event) -> Result<(), String>,
    ) -> Result<Option<i32>> {
        let request = Request { kind: job.kind() as i32, options: Some(options), ..Request::default() };
        let mut refused = None;
        let response = self.send(&request).and_then(|()| self.answer(job, &mut hear, &mut refused));
        let failed = |why: String| CriuError::Failed { what: job.what(), why, log: log.clone() };
        let ended = self.end();
        match (refused, response) {
            (Some(why), _) => Err(failed(why)),
            (None, Ok(response)) if response.success => {
                // It ends with an error after a pre-dump, as it waits for a dump that does not come.
                if job != Job::PreDump && !ended? {
                    return Err(failed(complaint(&log).unwrap_or_else(|| "it ended with an error".to_owned())));
                }
                Ok(response.restore.map(|restored| restored.pid))
            }
            (None, Ok(response)) => {
                let errno = response.errno.map_or("no reason given", |errno| Errno::from_raw(errno).desc());
                Err(failed(complaint(&log).or(response.error).unwrap_or_else(|| errno.to_owned())))
            }
            (None, Err(error)) => Err(complaint(&log).map_or(error, failed)),
        }
    }

    fn answer(
        &mut self,
        job: Job,
        hear: &mut impl FnMut(Event) -> Result<(), String>,
        refused: &mut Option<String>,
    ) -> Result<Response> {
        loop {
            let (response, fd) = self.receive()?;
            if response.kind != Kind::Notify as i32 || !response.success {
                return match !response.success || response.kind == job.kind() as i32 {
                    true => Ok(response),
                    false => Err(CriuError::Talk { what: "talk to criu", why: "it answers something else".to_owned() }),
                };
            }
            let heard = match event(response.notify.unwrap_or_default(), fd) {
                Some(event) if refused.is_none() => hear(event),
                _ => Ok(()),
            };
            let answer = Request {
                kind: Kind::Notify as i32,
                notify_success: Some(heard.is_ok() && refused.is_none()),
                ..Request::default()
            };
            if let Err(why) = heard {
                *refused = Some(why);
            }
            self.send(&answer)?;
        }
    }

    fn send(&self, request: &Request) -> Result {
        socket::send(self.socket.as_fd(), &request.encode_to_vec(), None).map_err(talk("talk to criu"))
    }

    fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        let mut buffer = vec![0; LARGEST];
        let (length, fd) = socket::receive(self.socket.as_fd(), &mut buffer).map_err(talk("talk to criu"))?;
        let strange = |why: &str| CriuError::Talk { what: "talk to criu", why: why.to_owned() };
        match length {
            0 => Err(strange("it has ended without an answer")),
            LARGEST => Err(strange("it answers too much")),
            _ => {
                Response::decode(&buffer[..length]).map(|response| (response, fd)).map_err(|e| strange(&e.to_string()))
            }
        }
    }

    /// There is no more work. Whether it ended well.
    fn end(&mut self) -> Result<bool> {
        _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Write);
        let ended = process::wait(self.pid, true).map_err(talk("wait for criu"))?;
        self.waited = true;
        Ok(ended.is_some_and(|ended| ended.status == 0))
    }
}

fn event(notification: Notification, fd: Option<OwnedFd>) -> Option<Event> {
    let pid = notification.pid.unwrap_or(0);
    match (notification.script.as_deref()?, fd) {
        ("setup-namespaces", _) => Some(Event::Namespaces(pid)),
        ("post-restore", _) => Some(Event::Restored(pid)),
        ("orphan-pts-master", Some(fd)) => Some(Event::Terminal(fd)),
        ("status-ready", _) => Some(Event::Ready),
        _ => None,
    }
}

/// What the log complains of.
fn complaint(log: &PathBuf) -> Option<String> {
    let file = std::fs::File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(log).ok()?;
    let mut said = Vec::new();
    file.take(LARGEST_LOG).read_to_end(&mut said).ok()?;
    let said = String::from_utf8_lossy(&said);
    said.contains("Error (").then(|| reason(&said))
}
