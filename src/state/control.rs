//! The socket by which a running sandbox's supervisor is told and asked: records, in the state directory.
//!
//! Who may enter that directory may speak; and the supervisor asks the kernel who it is that speaks. A sandbox's program
//! has its user's id where that user is an ordinary one, so the id alone says nothing.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::{
    socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, setsockopt, socket,
        sockopt,
    },
    time::{TimeVal, TimeValLike},
};

use super::{Record, StateError, UNSEEN, directory};
use crate::sys::{Errno, socket as sys_socket};

/// What one record holds at most: a policy with a few thousand rules.
pub const MOST: usize = 128 << 10;
/// What an answer holds at most: any policy that can be set, in other words around it.
pub const ANSWER: usize = MOST + 64;
/// Supervisors answer at once.
const PATIENCE: i64 = 10;
const EXTENSION: &str = "sock";

/// Where a supervisor listens; dropped, the name is gone.
#[derive(Debug)]
pub(super) struct Door {
    pub listener: OwnedFd,
    pub name: String,
    dir: PathBuf,
}

impl Door {
    /// `own`: what nobody else's is called.
    pub fn make(dir: &Path, own: &str) -> Result<Self, StateError> {
        let name = door_of(own);
        Ok(Self { listener: open(dir, &name)?, name, dir: dir.to_owned() })
    }
}

/// Listens at that name, in the place of one who is dead; it stays as long as the directory does.
pub(super) fn open(dir: &Path, name: &str) -> Result<OwnedFd, StateError> {
    let failed = |source: io::Error| StateError::Write { path: dir.join(name), source };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(|e| failed(e.into()))?;
    // The directory may have a longer path than a socket's address has room for.
    let opened = File::open(dir).map_err(failed)?;
    let address = address(&opened, name).map_err(failed)?;
    let bound = match bind(listener.as_raw_fd(), &address) {
        // Whoever had this name is dead, and left it: it is that of a process, with the time of its start.
        Err(Errno::EADDRINUSE) if refuses(&opened, name) => {
            std::fs::remove_file(dir.join(name)).map_err(failed)?;
            bind(listener.as_raw_fd(), &address)
        }
        other => other,
    };
    bound.map_err(|errno| failed(errno.into()))?;
    let listening = std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o600)).and_then(|()| {
        let waiting = Backlog::new(16).unwrap_or(Backlog::MAXCONN);
        Ok(listen(&listener, waiting)?)
    });
    if listening.is_err() {
        _ = std::fs::remove_file(dir.join(name));
    }
    listening.map_err(failed)?;
    Ok(listener)
}

impl Drop for Door {
    fn drop(&mut self) {
        _ = std::fs::remove_file(self.dir.join(&self.name));
    }
}

fn address(dir: &File, name: &str) -> io::Result<UnixAddr> {
    Ok(UnixAddr::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).as_str())?)
}

/// The next who has come, if they may speak.
pub fn caller(listener: BorrowedFd<'_>) -> Option<OwnedFd> {
    while let Ok(caller) = sys_socket::accept(listener) {
        if may_speak(&caller).unwrap_or(false) && crate::sys::fs::set_nonblocking(caller.as_fd()).is_ok() {
            return Some(caller);
        }
    }
    None
}

/// Root, or this user outside of any sandbox. A supervisor that is root itself hears nobody of another user namespace:
/// where that has one id alone, its sandbox's program has no other.
fn may_speak(caller: &OwnedFd) -> io::Result<bool> {
    let who = getsockopt(caller, sockopt::PeerCredentials)?;
    let own = nix::unistd::geteuid().as_raw();
    if who.uid() == 0 && own != 0 {
        return Ok(true);
    }
    if who.uid() != own {
        return Ok(false);
    }
    // As long as the process is there, its number is not another's.
    let process = sys_socket::peer_process(caller, who.pid())?;
    let namespace = |of: &str| std::fs::metadata(format!("/proc/{of}/ns/user")).map(|found| (found.dev(), found.ino()));
    let same = namespace(&who.pid().to_string())? == namespace("self")?;
    Ok(same && !super::process::dies(&process, Duration::ZERO)?)
}

/// Says one thing to who listens at that name, on behalf of what is called `id`, and hears the answer.
pub(super) fn say(dir: &Path, name: &str, id: &str, words: &[u8]) -> Result<Vec<u8>, StateError> {
    let failed = |source: io::Error| StateError::Speak { id: id.to_owned(), source };
    if words.len() > MOST {
        return Err(failed(io::Error::other(format!("more than {MOST} bytes are not taken at once"))));
    }
    let opened = File::open(dir).map_err(failed)?;
    let address = address(&opened, name).map_err(failed)?;
    let said = (|| {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        let patience = TimeVal::seconds(PATIENCE);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        setsockopt(&socket, sockopt::SendTimeout, &patience)?;
        connect(socket.as_raw_fd(), &address)?;
        sys_socket::send(socket.as_fd(), words, None)?;
        let mut answer = vec![0; ANSWER];
        let (length, _) = sys_socket::receive(socket.as_fd(), &mut answer)?;
        answer.truncate(length);
        Ok::<_, Errno>(answer)
    })();
    match said {
        Ok(answer) if answer.is_empty() => Err(failed(io::Error::other("it did not listen"))),
        Ok(answer) => Ok(answer),
        Err(errno) => Err(failed(errno.into())),
    }
}

impl Record {
    /// Says one thing to the supervisor and hears the answer; `None` where it does not listen at all.
    pub fn say(&self, words: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let Some(name) = &self.control else { return Ok(None) };
        say(&directory()?, name, &self.id, words).map(Some)
    }

    /// What is to be removed with the record of a supervisor that was killed.
    pub(super) fn door(&self, dir: &Path) -> Option<PathBuf> {
        let name = Path::new(self.control.as_ref()?);
        // A name alone, whatever the file says.
        let plain = name.components().count() == 1 && is_door(name);
        plain.then(|| dir.join(name))
    }
}

pub(super) fn door_of(own: impl std::fmt::Display) -> String {
    format!("{own}.{EXTENSION}")
}

pub(super) fn is_door(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// Sockets without a record at which nobody listens.
pub fn shut_doors() -> Result<Vec<PathBuf>, StateError> {
    let dir = directory()?;
    let failed = |source| StateError::Read { path: dir.clone(), source };
    let opened = File::open(&dir).map_err(failed)?;
    let mut shut = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let age = || std::fs::symlink_metadata(&path).ok()?.modified().ok()?.elapsed().ok();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| is_door(&path)) else { continue };
        // One that is being made has no listener yet.
        if age().is_some_and(|age| age >= UNSEEN) && refuses(&opened, name) {
            shut.push(path);
        }
    }
    Ok(shut)
}

fn refuses(dir: &File, name: &str) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let Ok(socket) = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None) else { return false };
    let Ok(address) = address(dir, name) else { return false };
    connect(socket.as_raw_fd(), &address) == Err(Errno::ECONNREFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_heard_and_the_name_goes_with_the_door() {
        let dir = tempfile::tempdir().unwrap();
        let door = Door::make(dir.path(), "1-2").unwrap();
        let opened = File::open(dir.path()).unwrap();
        assert!(Door::make(dir.path(), "1-2").is_err());
        let ours = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        // That knocked, to find out whether somebody is there.
        drop(caller(door.listener.as_fd()).unwrap());
        assert!(caller(door.listener.as_fd()).is_none());
        connect(ours.as_raw_fd(), &address(&opened, &door.name).unwrap()).unwrap();
        let theirs = caller(door.listener.as_fd()).unwrap();
        sys_socket::send(ours.as_fd(), b"hello", None).unwrap();
        let mut words = [0; 16];
        assert_eq!(sys_socket::receive(theirs.as_fd(), &mut words).unwrap().0, 5);
        assert!(!refuses(&opened, &door.name));
        let name = door.name.clone();
        drop(door);
        assert!(!dir.path().join(&name).exists());
        // What somebody killed left is not in the way.
        let dead = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(dead.as_raw_fd(), &address(&opened, &name).unwrap()).unwrap();
        drop(dead);
        assert!(Door::make(dir.path(), "1-2").is_ok());
    }

    #[test]
    fn a_record_leads_to_no_other_place() {
        let dir = Path::new("/run/fumehood");
        let door = |name: &str| Record { control: Some(name.to_owned()), ..Record::unknown("x") }.door(dir);
        assert_eq!(door("1-2.sock"), Some(dir.join("1-2.sock")));
        for bad in ["../x.sock", "/x.sock", "a/b.sock", "x.json", "", ".."] {
            assert_eq!(door(bad), None, "{bad}");
        }
    }
}
