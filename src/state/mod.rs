//! Which sandboxes are running: one small file each, for `ps`, `kill` and `cleanup`; and, below [`root`], a directory
//! a container of `fumehood-oci`.
//!
//! A record is locked by the supervisor for as long as it lives (flock(2)), so one that can be locked belongs
//! to nobody. It names its process by pid and start time: a number that was given to another is not killed.

pub mod container;
pub mod control;
pub(crate) mod process;
pub mod root;

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use self::control::Door;
use crate::{
    net::publish::Publish,
    plan::Plan,
    request::SandboxId,
    sys::{Errno, fs, process as sys_process},
};

/// A sandbox as `ps` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    /// The sandbox's init, as the host numbers it.
    pub pid: i32,
    /// Clock ticks after boot at which it started (proc_pid_stat(5), starttime).
    pub start_time: u64,
    pub runtime: Option<String>,
    pub command: String,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    pub memory_bytes: u64,
    pub network: String,
    /// The name of the socket, in the same directory, at which the supervisor hears what it is told of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// What of it is open on the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Publish>,
}

/// The record of a running sandbox; dropped, it is removed.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    record: Record,
    locked: File,
    door: Option<Door>,
}

/// All that an entry needs and that is known before the sandbox's program is.
#[derive(Debug)]
pub struct Reserved {
    dir: PathBuf,
    pid: i32,
    start_time: u64,
    door: Option<Door>,
}

/// No record of ours comes near this.
const MOST: u64 = 64 << 10;
const COMMAND_LENGTH: usize = 200;
/// Beside the records, in the same directory.
const LOGS: &str = "logs";
/// Each has a few kilobytes, and 8 MiB at the most.
const MOST_LOGS: usize = 16;
/// How long a killed sandbox may take to be gone: its memory has to be freed.
const DYING: Duration = Duration::from_secs(2);

impl Reserved {
    /// `pid`: the sandbox's init. With a filtered network it can be spoken to.
    pub fn new(plan: &Plan, pid: i32) -> Result<Self, StateError> {
        Self::called(plan, pid, |start_time| format!("{pid}-{start_time:x}"))
    }

    /// Of one that waits for its job, and has no record yet: by its id alone, a random one, [`forget`] finds the rest.
    pub fn ahead(plan: &Plan, pid: i32) -> Result<Self, StateError> {
        Self::called(plan, pid, |_| plan.id.to_string())
    }

    fn called(plan: &Plan, pid: i32, door: impl Fn(u64) -> String) -> Result<Self, StateError> {
        let dir = directory()?;
        let start_time = process::start_time(pid).unwrap_or(0);
        let door = plan.egress.is_some().then(|| Door::make(&dir, &door(start_time))).transpose()?;
        Ok(Self { dir, pid, start_time, door })
    }
}

impl Entry {
    pub fn create(
        reserved: Reserved,
        plan: &Plan,
        runtime: Option<&str>,
        ports: &[Publish],
    ) -> Result<Self, StateError> {
        let Reserved { dir, pid, start_time, door } = reserved;
        let run = plan.steps.last();
        let mut command: String = run.map(|step| step.argv.join(" ")).unwrap_or_default();
        if command.len() > COMMAND_LENGTH {
            command = command.chars().take(COMMAND_LENGTH).chain(['…']).collect();
        }
        let record = Record {
            id: plan.id.to_string(),
            pid,
            start_time,
            runtime: runtime.map(str::to_owned),
            command,
            created_ms: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64,
            memory_bytes: plan.limits.memory.get(),
            network: plan.network.to_owned(),
            ports: ports.to_vec(),
            control: door.as_ref().map(|door| door.name.clone()),
        };
        let path = dir.join(format!("{}.json", plan.id));
        let locked = place(&path, &record, rename_new)?;
        Ok(Self { path, record, locked, door })
    }

    /// Where the supervisor hears what it is told; taken once.
    pub fn listener(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.door.as_ref().map(|door| door.listener.as_fd())
    }

    /// Says that the network is another now.
    pub fn set_network(&mut self, network: &str) -> Result<(), StateError> {
        network.clone_into(&mut self.record.network);
        self.locked = place(&self.path, &self.record, |from, to| std::fs::rename(from, to))?;
        Ok(())
    }
}

/// Writes a record, locked; nobody sees it before it is whole.
fn place(
    path: &Path,
    record: &Record,
    rename: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> Result<File, StateError> {
    let failed = |source| StateError::Write { path: path.to_owned(), source };
    let unseen = path.with_file_name(format!(".{}.{}", record.id, record.pid));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&unseen).map_err(failed)?;
    let placed = (|| {
        fs::lock(file.as_fd())?;
        file.write_all(&serde_json::to_vec(record)?)?;
        rename(&unseen, path)
    })();
    match placed {
        Ok(()) => Ok(file),
        Err(error) => {
            _ = std::fs::remove_file(&unseen);
            Err(match error.kind() {
                io::ErrorKind::AlreadyExists => StateError::Taken(record.id.clone()),
                _ => failed(error),
            })
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Gone already is as good.
        _ = std::fs::remove_file(&self.path);
    }
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
    fs::rename_new(&text(from)?, &text(to)?).map_err(io::Error::from)
}

/// A record is unseen for less than this.
const UNSEEN: Duration = Duration::from_secs(10);

/// Every record, and whether somebody still stands by it.
pub fn list() -> Result<Vec<(Record, Liveness)>, StateError> {
    let dir = directory()?;
    let failed = |source| StateError::Read { path: dir.clone(), source };
    let mut records = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let unseen = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let age =
            std::fs::symlink_metadata(&path).and_then(|found| found.modified()).ok().and_then(|at| at.elapsed().ok());
        let logs = path.file_name().is_some_and(|name| name == LOGS);
        if logs || control::is_door(&path) || (unseen && age.is_none_or(|age| age < UNSEEN)) {
            continue;
        }
        let id = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        // Another may remove it at any moment.
        let Some((mut file, held)) = look(&path) else { continue };
        let mut text = String::new();
        _ = Read::by_ref(&mut file).take(MOST).read_to_string(&mut text);
        match serde_json::from_str::<Record>(&text) {
            Ok(record) if held => records.push((record, Liveness::Running)),
            Ok(record) => {
                let files =
                    [Some(path), record.door(&dir).filter(|door| door.exists())].into_iter().flatten().collect();
                records.push((record, Liveness::Abandoned(files)));
            }
            // Written this moment, or left half-written by a killed supervisor.
            Err(_) if held => {}
            Err(_) => records.push((Record::unknown(id), Liveness::Abandoned(vec![path]))),
        }
    }
    records.sort_by(|(a, _), (b, _)| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
    Ok(records)
}

/// Kills the sandbox of this name if nobody stands by it any more, and removes what there is of its record. `false`:
/// somebody stands by it.
pub fn forget(id: &SandboxId) -> Result<bool, StateError> {
    let dir = directory()?;
    let path = dir.join(format!("{id}.json"));
    if let Some((mut file, held)) = look(&path) {
        if held {
            return Ok(false);
        }
        let mut text = String::new();
        _ = Read::by_ref(&mut file).take(MOST).read_to_string(&mut text);
        if let Ok(record) = serde_json::from_str::<Record>(&text) {
            record.kill()?;
            _ = record.door(&dir).map(std::fs::remove_file);
        }
        _ = std::fs::remove_file(&path);
        return Ok(true);
    }
    // There may be one that was not whole yet, or was to come.
    _ = std::fs::remove_file(dir.join(control::door_of(id)));
    let unseen = format!(".{id}.");
    let failed = |source| StateError::Read { path: dir.clone(), source };
    for entry in std::fs::read_dir(&dir).map_err(failed)?.flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(&unseen));
        if rest.is_some_and(|pid| pid.parse::<i32>().is_ok()) {
            _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(true)
}

/// A record, and whether somebody holds it; `None`: there is none, or none that can be read.
fn look(path: &Path) -> Option<(File, bool)> {
    loop {
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path).ok()?;
        if fs::try_lock(file.as_fd()).is_err() {
            return Some((file, true));
        }
        // Nobody holds this one; but it may be what the path led to before another took its place.
        let (found, named) = (file.metadata().ok()?, std::fs::symlink_metadata(path).ok()?);
        if (found.dev(), found.ino()) == (named.dev(), named.ino()) {
            return Some((file, false));
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Liveness {
    Running,
    /// The files to remove.
    Abandoned(Vec<PathBuf>),
}

impl Record {
    /// Of a sandbox of which no more is known than its id. It names no process.
    #[must_use]
    pub fn unknown(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// Kills the sandbox by its init and waits until it is dead. `false`: it was gone already.
    pub fn kill(&self) -> Result<bool, StateError> {
        let failed = |errno: Errno| StateError::Kill { id: self.id.clone(), source: errno.into() };
        let Some(init) = self.init().map_err(failed)? else { return Ok(false) };
        match sys_process::signal(init.as_fd(), libc::SIGKILL) {
            Err(Errno::ESRCH) => return Ok(false),
            other => other.map_err(failed)?,
        }
        process::dies(&init, DYING).map(|_| true).map_err(failed)
    }

    /// Whether its init lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.init().is_ok_and(|init| init.is_some())
    }

    /// The init as a pidfd, unless it is dead or its number is another's by now.
    fn init(&self) -> Result<Option<OwnedFd>, Errno> {
        process::open(self.pid, self.start_time)
    }
}

/// `/run/fumehood` for root, `$XDG_RUNTIME_DIR/fumehood` or `/tmp/fumehood-UID` for everyone else: a
/// directory that belongs to the user alone, or an error.
fn directory() -> Result<PathBuf, StateError> {
    let uid = nix::unistd::geteuid().as_raw();
    let dir = match (uid, runtime_dir()) {
        (0, _) => PathBuf::from("/run/fumehood"),
        (_, Some(dir)) => dir.join("fumehood"),
        (_, None) => PathBuf::from(format!("/tmp/fumehood-{uid}")),
    };
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(StateError::Write { path: dir, source: error });
        }
        _ => {}
    }
    ours_alone(&dir)?;
    Ok(dir)
}

/// Keeps a log for who wants to know why a sandbox failed, in place of the oldest one.
pub fn keep_log(id: &str, bytes: &[u8]) -> Result<PathBuf, StateError> {
    let dir = directory()?.join(LOGS);
    let failed = |source| StateError::Write { path: dir.clone(), source };
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => ours_alone(&dir)?,
    }
    let logs = std::fs::read_dir(&dir).map_err(failed)?.flatten();
    let mut logs: Vec<_> = logs.filter_map(|log| Some((log.metadata().ok()?.modified().ok()?, log.path()))).collect();
    logs.sort();
    for (_, old) in logs.iter().rev().skip(MOST_LOGS - 1) {
        // Another one, who keeps a log as well, may have been quicker.
        _ = std::fs::remove_file(old);
    }
    let path = dir.join(format!("{id}.log"));
    // One of that name may be there, and be longer.
    _ = std::fs::remove_file(&path);
    let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(bytes))
        .map_err(|source| StateError::Write { path: path.clone(), source })?;
    Ok(path)
}

/// `$XDG_RUNTIME_DIR`, if there is such a directory.
fn runtime_dir() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from).filter(|dir| dir.is_dir())
}

/// A directory that somebody else made, or can write to, is not trusted.
fn ours_alone(dir: &Path) -> Result<(), StateError> {
    let found = std::fs::symlink_metadata(dir).map_err(|source| StateError::Read { path: dir.to_owned(), source })?;
    let ours = found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if ours { Ok(()) } else { Err(StateError::NotOurs(dir.to_owned())) }
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the state of container `{id}` cannot be read: {why}")]
    Broken { id: String, why: String },
    // The next two begin as the errors of runc do: engines look for these words.
    #[error("container with given ID already exists: `{0}`")]
    ContainerExists(String),
    #[error("container does not exist: `{0}`")]
    ContainerMissing(String),
    #[error("invalid container ID format: `{id}`: {why}")]
    Id { id: String, why: &'static str },
    #[error("cannot kill sandbox {id}: {source}")]
    Kill { id: String, source: io::Error },
    #[error("`{}` is not a directory that belongs to you alone", .0.display())]
    NotOurs(PathBuf),
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot speak with the supervisor of sandbox {id}: {source}")]
    Speak { id: String, source: io::Error },
    #[error("there is a sandbox called {0} already")]
    Taken(String),
    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl crate::error::Hint for StateError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Broken { id, .. } => Some(format!("`fumehood-oci delete --force {id}` removes what is left of it")),
            Self::NotOurs(dir) => {
                Some(format!("somebody else made it; remove {} or set XDG_RUNTIME_DIR", dir.display()))
            }
            Self::Taken(_) => {
                Some("`fumehood ps` lists them; if it was killed, `fumehood cleanup` removes what is left".to_owned())
            }
            Self::ContainerExists(_)
            | Self::ContainerMissing(_)
            | Self::Id { .. }
            | Self::Kill { .. }
            | Self::Read { .. }
            | Self::Speak { .. }
            | Self::Write { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_record_that_is_replaced_is_never_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let record = Record::unknown("x");
        let locked = place(&path, &record, rename_new).unwrap();
        let mut entry = Entry { path: path.clone(), record, locked, door: None };
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let mut unheld = 0;
                while !over.load(Ordering::Relaxed) {
                    unheld += usize::from(look(&path).is_none_or(|(_, held)| !held));
                }
                unheld
            });
            for _ in 0..20_000 {
                entry.set_network("web").unwrap();
            }
            over.store(true, Ordering::Relaxed);
            assert_eq!(looking.join().unwrap(), 0);
        });
        drop(entry);
        assert!(look(&path).is_none());
        // What nobody holds is told as such.
        std::fs::write(&path, b"{}").unwrap();
        assert!(look(&path).is_some_and(|(_, held)| !held));
    }
}
