//! Where the containers of `fumehood-oci` are kept: `<root>/<id>/`, a directory each.
//!
//! A directory is made whole under its name, exclusively, before anything else of a container is; it is removed as
//! the last step of `delete`. What a killed runtime left is therefore always found by its id. Locks are taken on the
//! directory itself (flock(2)), which needs no file; readers take none, so that `state` never waits for a `create`.

use std::{
    ffi::CString,
    fmt,
    fs::{DirBuilder, File, Permissions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use super::{StateError, container::Record, ours_alone, runtime_dir};
use crate::sys::{Errno, fs};

/// A container's name, as runc allows it: it is also the name of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// NAME_MAX: no directory has a longer name.
const LONGEST_ID: usize = 255;

impl ContainerId {
    pub fn parse(text: &str) -> Result<Self, StateError> {
        let bad = |why| Err(StateError::Id { id: text.escape_debug().to_string(), why });
        match text {
            "" => return bad("it is empty"),
            "." | ".." => return bad("it is a directory's name"),
            _ if text.len() > LONGEST_ID => return bad("it is longer than 255 characters"),
            _ => {}
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
        match text.bytes().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => bad("letters, digits and _ + . - are allowed"),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ContainerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for ContainerId {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

/// The directory of all containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRoot {
    path: PathBuf,
    kind: Kind,
}

/// Who chose the directory, and so what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `--root`, or root's own.
    Given,
    /// In $XDG_RUNTIME_DIR, from where old files without the sticky bit are cleaned away (basedir-spec).
    RuntimeDir,
    /// In /tmp, where anybody may have made it.
    Temporary,
}

impl StateRoot {
    /// `path`, or where this user's containers are: `/run/fumehood-oci`, `$XDG_RUNTIME_DIR/fumehood-oci` for all but
    /// the host's root. Nothing is made yet.
    pub fn at(path: Option<&Path>) -> Result<Self, StateError> {
        const NAME: &str = "fumehood-oci";
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|source| StateError::Read { path: path.to_owned(), source })
        };
        if let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) {
            return Ok(Self { path: absolute(path)?, kind: Kind::Given });
        }
        let uid = nix::unistd::geteuid().as_raw();
        Ok(match (uid, runtime_dir()) {
            (_, Some(dir)) if uid != 0 || is_mapped_root() => {
                Self { path: absolute(&dir)?.join(NAME), kind: Kind::RuntimeDir }
            }
            (0, _) => Self { path: Path::new("/run").join(NAME), kind: Kind::Given },
            _ => Self { path: PathBuf::from(format!("/tmp/{NAME}-{uid}")), kind: Kind::Temporary },
        })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the container's directory; there is none of that name.
    pub fn create(&self, id: &ContainerId) -> Result<Dir, StateError> {
        let path = self.path.join(id);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make()?;
                DirBuilder::new().mode(0o700).create(&path)
            }
            made => made,
        }
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => StateError::ContainerExists(id.to_string()),
            _ => StateError::Write { path: path.clone(), source },
        })?;
        if self.kind == Kind::Temporary {
            ours_alone(&self.path)?;
        }
        self.open(id)
    }

    /// The root itself, with the directories above it.
    fn make(&self) -> Result<(), StateError> {
        let failed = |source| StateError::Write { path: self.path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(failed)?;
        if self.kind == Kind::RuntimeDir {
            std::fs::set_permissions(&self.path, Permissions::from_mode(0o1700)).map_err(failed)?;
        }
        Ok(())
    }

    pub fn open(&self, id: &ContainerId) -> Result<Dir, StateError> {
        let path = self.path.join(id);
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        match File::options().read(true).custom_flags(flags).open(&path) {
            Ok(file) => {
                if self.kind == Kind::Temporary {
                    ours_alone(&self.path)?;
                }
                Ok(Dir { id: id.clone(), path, fd: file.into() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StateError::ContainerMissing(id.to_string())),
            Err(source) => Err(StateError::Read { path, source }),
        }
    }

    /// All containers, by name; those of which there is a directory only, too.
    pub fn list(&self) -> Result<Vec<ContainerId>, StateError> {
        let failed = |source| StateError::Read { path: self.path.clone(), source };
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        if self.kind == Kind::Temporary {
            ours_alone(&self.path)?;
        }
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let id = entry.file_name().to_str().and_then(|name| ContainerId::parse(name).ok());
            if let Some(id) = id
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
            {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }
}

/// Root of a user namespace, as rootless Podman runs us, whose own directory is the user's. The root of a
/// container that has a user namespace of its own is told by its name, as runc tells it.
fn is_mapped_root() -> bool {
    let named_root = std::env::var_os("USER").is_some_and(|user| user == "root");
    !named_root && !crate::host::in_initial_user_namespace()
}

/// A container's directory, open: its name may be another's by the time it is looked at again.
#[derive(Debug)]
pub struct Dir {
    id: ContainerId,
    path: PathBuf,
    /// `O_PATH`.
    fd: OwnedFd,
}

/// The one who changes a container holds this. Given up when dropped.
///
/// A lock belongs to the open file, so a child that was not closed out of it holds it too, until it is let go of
/// here or the last of them ends.
#[derive(Debug)]
pub struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        fs::unlock(self.0.as_fd());
    }
}

const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";
const DOOR: &str = "egress.sock";
/// No record and no config.json that was let in comes near this.
const MOST: u64 = 8 << 20;

impl Dir {
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Waits until nobody else changes the container. It may have been removed while we waited, and then is missing.
    pub fn lock(&self) -> Result<Lock, StateError> {
        let lock = self.lockable()?;
        fs::lock(lock.as_fd()).map_err(|errno| self.unreadable(errno))?;
        self.locked(Lock(lock))
    }

    /// As [`Dir::lock`], but `None` where somebody else holds it.
    pub fn try_lock(&self) -> Result<Option<Lock>, StateError> {
        let lock = self.lockable()?;
        match fs::try_lock(lock.as_fd()) {
            Err(Errno::EWOULDBLOCK) => Ok(None),
            other => {
                other.map_err(|errno| self.unreadable(errno))?;
                self.locked(Lock(lock)).map(Some)
            }
        }
    }

    fn lockable(&self) -> Result<OwnedFd, StateError> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        match fs::open_in(self.fd(), c".", flags, 0, 0) {
            Ok(fd) => Ok(fd),
            Err(Errno::ENOENT) => Err(StateError::ContainerMissing(self.id.to_string())),
            Err(errno) => Err(self.unreadable(errno)),
        }
    }

    fn locked(&self, lock: Lock) -> Result<Lock, StateError> {
        let links = fs::stat(lock.0.as_fd()).map_err(|errno| self.unreadable(errno))?.st_nlink;
        if links == 0 { Err(StateError::ContainerMissing(self.id.to_string())) } else { Ok(lock) }
    }

    fn unreadable(&self, errno: Errno) -> StateError {
        StateError::Read { path: self.path.clone(), source: errno.into() }
    }

    /// What is known of the container. One that was being made when its maker was killed has none.
    pub fn load(&self) -> Result<Record, StateError> {
        let bytes = self.read(RECORD)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| StateError::Broken { id: self.id.to_string(), why: error.to_string() })
    }

    /// Readers see the old record or the new one, whole.
    pub fn save(&self, record: &Record) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(record).map_err(|error| self.unwritable(RECORD, error.into()))?;
        self.replace(RECORD, &bytes)
    }

    /// Where who filters the container's network listens, for as long as the directory is there.
    pub fn open_door(&self) -> Result<OwnedFd, StateError> {
        super::control::open(&self.path, DOOR)
    }

    /// Says one thing to who filters the container's network, and hears the answer.
    pub fn say(&self, words: &[u8]) -> Result<Vec<u8>, StateError> {
        super::control::say(&self.path, DOOR, self.id.as_str(), words)
    }

    /// The config.json as it was when the container was made: the bundle's may have been changed since.
    pub fn write_config(&self, bytes: &[u8]) -> Result<(), StateError> {
        self.write(CONFIG, bytes).map_err(|source| self.unwritable(CONFIG, source))
    }

    pub fn read_config(&self) -> Result<Vec<u8>, StateError> {
        self.read(CONFIG)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StateError> {
        let failed = |source: io::Error| match source.kind() {
            // A directory without them is a container that is being made, or that was not made to its end.
            io::ErrorKind::NotFound => StateError::ContainerMissing(self.id.to_string()),
            _ => StateError::Read { path: self.path.join(name), source },
        };
        let file = self.open_file(name, libc::O_RDONLY).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len().min(MOST);
        let mut bytes = Vec::with_capacity(length as usize + 1);
        file.take(MOST).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let unseen = format!(".{name}");
        let renamed = self.write(&unseen, bytes).and_then(|()| {
            let (from, to) = (CString::new(unseen)?, CString::new(name)?);
            fs::rename_over(self.fd(), &from, &to).map_err(io::Error::from)
        });
        renamed.map_err(|source| self.unwritable(name, source))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.open_file(name, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)?.write_all(bytes)
    }

    fn open_file(&self, name: &str, flags: i32) -> io::Result<File> {
        let mode = if flags & libc::O_CREAT == 0 { 0 } else { 0o600 };
        Ok(fs::open_in(self.fd(), &CString::new(name)?, flags, mode, fs::BENEATH)?.into())
    }

    fn unwritable(&self, name: &str, source: io::Error) -> StateError {
        match source.kind() {
            io::ErrorKind::NotFound => StateError::ContainerMissing(self.id.to_string()),
            _ => StateError::Write { path: self.path.join(name), source },
        }
    }

    /// Removes the directory with all that is in it, so that the name is free.
    pub fn remove(self) -> Result<(), StateError> {
        // What is nearly always all there is, at the price of three calls.
        for name in [CONFIG, RECORD] {
            _ = CString::new(name).map(|name| fs::remove_file(self.fd(), &name));
        }
        if std::fs::remove_dir(&self.path).is_ok() {
            return Ok(());
        }
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| StateError::Write { path: self.path.clone(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, sync::mpsc, thread, time::Duration};

    use super::*;
    use crate::state::container::{Init, Status, tests::record};

    fn root() -> (tempfile::TempDir, StateRoot) {
        let dir = tempfile::tempdir().unwrap();
        let root = StateRoot::at(Some(&dir.path().join("a/b"))).unwrap();
        (dir, root)
    }

    fn id(text: &str) -> ContainerId {
        ContainerId::parse(text).unwrap()
    }

    #[test]
    fn an_id_is_a_plain_name() {
        let longest = "x".repeat(255);
        for text in ["a", "A_1+b.c-d", ".hidden", "...", "0", &longest] {
            assert_eq!(id(text).as_str(), text);
        }
        let longer = "x".repeat(300);
        let slashes = format!("{}/x", "y".repeat(10));
        for text in ["", ".", "..", "a/b", "/", "../x", &slashes, "a\0b", "a b", "a\n", "a,b", "a:b", "ä", &longer] {
            let error = ContainerId::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("invalid container ID format: ") && !error.contains(['\n', '\0']), "{error:?}");
        }
    }

    #[test]
    fn a_name_is_given_once_and_is_free_when_it_is_removed() {
        let (_dir, root) = root();
        assert!(root.list().unwrap().is_empty());
        assert!(matches!(root.open(&id("a")), Err(StateError::ContainerMissing(_))));
        let dir = root.create(&id("a")).unwrap();
        assert!(matches!(root.create(&id("a")), Err(StateError::ContainerExists(_))));
        root.create(&id("B")).unwrap();
        for path in [root.path(), dir.path()] {
            assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o7777, 0o700, "{}", path.display());
        }
        assert_eq!(root.list().unwrap(), [id("B"), id("a")]);
        dir.save(&record("a")).unwrap();
        dir.write_config(b"{}").unwrap();
        dir.remove().unwrap();
        assert_eq!(root.list().unwrap(), [id("B")]);
        root.create(&id("a")).unwrap();
    }

    #[test]
    fn a_link_or_a_file_is_no_container() {
        let (_dir, root) = root();
        root.create(&id("real")).unwrap();
        std::os::unix::fs::symlink("real", root.path().join("link")).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(root.open(&id("link")).is_err());
        assert!(root.open(&id("file")).is_err());
        assert_eq!(root.list().unwrap(), [id("real")]);
    }

    #[test]
    fn a_record_is_read_as_it_was_saved() {
        let (_dir, root) = root();
        let dir = root.create(&id("a")).unwrap();
        assert!(matches!(dir.load(), Err(StateError::ContainerMissing(_))), "one in the making has no record");
        let mut saved = record("a");
        dir.save(&saved).unwrap();
        assert_eq!(dir.load().unwrap(), saved);
        saved.init = Some(Init { pid: 1, start_time: 2 });
        saved.started = true;
        dir.save(&saved).unwrap();
        assert_eq!(root.open(&id("a")).unwrap().load().unwrap(), saved);
        assert_eq!(std::fs::metadata(dir.path().join("state.json")).unwrap().mode() & 0o777, 0o600);
        std::fs::write(dir.path().join("state.json"), "{").unwrap();
        assert!(matches!(dir.load(), Err(StateError::Broken { .. })));
    }

    #[test]
    fn the_configuration_is_the_one_it_was_made_with() {
        let (_dir, root) = root();
        let dir = root.create(&id("a")).unwrap();
        assert!(dir.read_config().is_err());
        dir.write_config(b"{\"a\": 1}").unwrap();
        assert_eq!(dir.read_config().unwrap(), b"{\"a\": 1}");
    }

    #[test]
    fn one_changes_a_container_and_the_others_wait() {
        let (_dir, root) = root();
        let dir = root.create(&id("a")).unwrap();
        dir.save(&record("a")).unwrap();
        let held = dir.lock().unwrap();
        assert!(root.open(&id("a")).unwrap().try_lock().unwrap().is_none());
        // Who only looks does not wait.
        assert_eq!(root.open(&id("a")).unwrap().load().unwrap().status(), Status::Creating);
        let (told, tells) = mpsc::channel();
        let other = root.clone();
        let waiting = thread::spawn(move || {
            let dir = other.open(&id("a")).unwrap();
            let lock = dir.lock();
            told.send(()).unwrap();
            lock.is_ok()
        });
        assert!(tells.recv_timeout(Duration::from_millis(50)).is_err());
        drop(held);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn who_waited_for_one_that_was_removed_finds_it_missing() {
        let (_dir, root) = root();
        let dir = root.create(&id("a")).unwrap();
        let late = root.open(&id("a")).unwrap();
        let held = dir.lock().unwrap();
        dir.remove().unwrap();
        drop(held);
        assert!(matches!(late.lock(), Err(StateError::ContainerMissing(_))));
        assert!(matches!(late.save(&record("a")), Err(StateError::ContainerMissing(_))));
        // And does not find another of that name, either.
        root.create(&id("a")).unwrap();
        assert!(matches!(late.lock(), Err(StateError::ContainerMissing(_))));
    }
}
