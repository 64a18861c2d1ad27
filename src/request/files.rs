//! Files in before the run (`FILE`, `--file`, `--dir`) and out after it (`--get`).
//!
//! What goes in is read here, once, by descriptor: a FIFO, device or socket is refused before a byte is
//! read, and nothing can be swapped between the check and the use.

use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::dir::Dir;

use super::{Bytes, mounts::inside_path};
use crate::sys::{Errno, fs};

/// One thing written into the sandbox before the program starts.
#[derive(Debug, Clone)]
pub enum Placed {
    Dir {
        path: PathBuf,
        mode: u32,
    },
    File {
        path: PathBuf,
        mode: u32,
        content: Arc<[u8]>,
    },
    /// Mounted read-only over the file that is there, which stays as it was.
    Over {
        path: PathBuf,
        content: Arc<[u8]>,
    },
}

/// A directory copied in at most this deep, and with at most this many entries.
const MAX_DEPTH: usize = 64;
const MAX_ENTRIES: usize = 100_000;

/// What to read out of the sandbox after the run, and where to put it on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Relative to `/sandbox` or absolute; may have `*`, `?`, `[…]`, `{…}` and `**`.
    pub pattern: String,
    /// A file, or a directory when it exists as one or ends in `/`. `None`: the current directory.
    pub to: Option<PathBuf>,
    pub how: Fetched,
}

/// What becomes of a file that is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fetched {
    /// It is copied to the host. That there is none is an error.
    #[default]
    Copied,
    /// It is measured and hashed, if there is one.
    Hashed,
    /// It is in the result, if there is one; an error, if it is longer.
    Held(Bytes),
}

impl Fetch {
    /// Whether it may stand for several files.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        self.pattern.contains(['*', '?', '[', '{'])
    }

    /// `PATH[:HOST]`.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let (pattern, to) = match text.rsplit_once(':') {
            Some((pattern, to)) if !to.is_empty() => (pattern, Some(PathBuf::from(to))),
            _ => (text.trim_end_matches(':'), None),
        };
        Ok(Self { to, ..Self::inside(pattern)? })
    }

    /// Without a place on the host: all of it is the path or the pattern.
    pub fn inside(pattern: &str) -> Result<Self, FileError> {
        if pattern.is_empty() || pattern.split('/').any(|part| part == "..") || pattern.contains('\0') {
            return Err(FileError::Pattern { text: pattern.to_owned() });
        }
        Ok(Self { pattern: pattern.to_owned(), to: None, how: Fetched::default() })
    }
}

/// `HOST[:BOX]`: a host path and where it goes, relative to `/sandbox` unless absolute.
pub fn parse_pair(text: &str) -> Result<(PathBuf, Option<PathBuf>), FileError> {
    match text.split_once(':') {
        None if !text.is_empty() => Ok((PathBuf::from(text), None)),
        Some((host, inside)) if !host.is_empty() && !inside.is_empty() => {
            Ok((PathBuf::from(host), Some(PathBuf::from(inside))))
        }
        _ => Err(FileError::Pair { text: text.to_owned() }),
    }
}

/// Where `inside` is in the sandbox; by default `/sandbox/<name of host>`.
pub fn place(host: &Path, inside: Option<&Path>) -> Result<PathBuf, FileError> {
    let base = Path::new(crate::spec::WORKDIR);
    let wanted = match (inside, host.file_name()) {
        (Some(inside), _) => base.join(inside),
        (None, Some(name)) => base.join(name),
        (None, None) => return Err(FileError::Name { path: host.to_owned() }),
    };
    match inside_path(&wanted) {
        Some(path) if path.starts_with(base) && path != base => Ok(path),
        _ => Err(FileError::Outside { path: wanted }),
    }
}

/// Reads a regular file of at most `most` bytes.
pub fn read(path: &Path, most: Bytes) -> Result<(Arc<[u8]>, u32), FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    // Non-blocking: opening a FIFO must not wait for a writer that never comes.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if found.is_dir() {
        return Err(FileError::Directory { path: path.to_owned() });
    }
    if !found.is_file() {
        return Err(FileError::Special { path: path.to_owned() });
    }
    let content = read_at_most(file, found.size(), most).map_err(failed)?;
    let content = content.ok_or_else(|| FileError::TooLarge { path: path.to_owned(), most })?;
    Ok((content, found.permissions().mode() & 0o777))
}

/// Reads all of `from`, or `None` when it has more than `most` bytes. Only `size_hint` is allocated ahead.
pub fn read_at_most(from: impl Read, size_hint: u64, most: Bytes) -> std::io::Result<Option<Arc<[u8]>>> {
    if size_hint > most.get() {
        return Ok(None);
    }
    let mut content = Vec::with_capacity(size_hint as usize + 1);
    from.take(most.get() + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= most.get()).then(|| content.into()))
}

/// Everything below `host`, as it is to be below `inside`. Links are left out: they could lead anywhere. Each
/// directory is opened below the one before it, so that none that is swapped for a link meanwhile is followed.
pub fn read_dir(host: &Path, inside: &Path, most: Bytes) -> Result<Vec<Placed>, FileError> {
    let mut placed = vec![Placed::Dir { path: inside.to_owned(), mode: 0o755 }];
    let mut left = most.get();
    let top = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(host);
    let top = top.map_err(|source| FileError::Read { path: host.to_owned(), source })?;
    let mut pending = vec![(OwnedFd::from(top), host.to_owned(), inside.to_owned(), 0)];
    while let Some((dir, from, to, depth)) = pending.pop() {
        let failed = |errno: Errno| FileError::Read { path: from.clone(), source: errno.into() };
        let names = Dir::from_fd(dir.try_clone().map_err(|source| FileError::Read { path: from.clone(), source })?);
        for entry in names.map_err(failed)?.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if placed.len() == MAX_ENTRIES || depth == MAX_DEPTH {
                return Err(FileError::TooMany { path: host.to_owned() });
            }
            let part = Path::new(OsStr::from_bytes(name.to_bytes()));
            let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
            let at = |errno: Errno| FileError::Read { path: from.join(part), source: errno.into() };
            let fd = match fs::open_in(dir.as_fd(), name, flags, 0, fs::BENEATH) {
                // A link, or a socket: neither is copied. Or gone since it was listed.
                Err(Errno::ELOOP | Errno::ENXIO | Errno::ENOENT) => continue,
                found => found.map_err(at)?,
            };
            let found = fs::stat(fd.as_fd()).map_err(at)?;
            let path = to.join(part);
            match found.st_mode & libc::S_IFMT {
                libc::S_IFDIR => {
                    placed.push(Placed::Dir { path: path.clone(), mode: 0o755 });
                    pending.push((fd, from.join(part), path, depth + 1));
                }
                libc::S_IFREG => {
                    let content = read_at_most(File::from(fd), found.st_size as u64, Bytes::new(left));
                    let content = content.map_err(|source| FileError::Read { path: from.join(part), source })?;
                    let content = content.ok_or_else(|| FileError::TooLarge { path: host.to_owned(), most })?;
                    left -= content.len() as u64;
                    placed.push(Placed::File { path, mode: found.st_mode & 0o777, content });
                }
                _ => {}
            }
        }
    }
    Ok(placed)
}

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("`{}` is a directory", path.display())]
    Directory { path: PathBuf },
    #[error("`{}` has no name to use inside", path.display())]
    Name { path: PathBuf },
    #[error("`{}` is not below /sandbox", path.display())]
    Outside { path: PathBuf },
    #[error("`{text}` is not HOST or HOST:BOX")]
    Pair { text: String },
    #[error("`{text}` is no path or pattern inside the sandbox")]
    Pattern { text: String },
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not a regular file", path.display())]
    Special { path: PathBuf },
    #[error("`{}` is over {most} bytes, which is what /sandbox holds", path.display())]
    TooLarge { path: PathBuf, most: Bytes },
    #[error("`{}` has over {MAX_ENTRIES} entries or is over {MAX_DEPTH} levels deep", path.display())]
    TooMany { path: PathBuf },
}

impl crate::error::Hint for FileError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Directory { path } => Some(format!("copy it in with --dir {}", path.display())),
            Self::Special { .. } => {
                Some("pipes, sockets and devices are not read; `-` reads standard input".to_owned())
            }
            Self::TooLarge { .. } => Some("raise --sandbox-size, or bind it with --mount".to_owned()),
            Self::TooMany { path } => Some(format!("bind it with --mount {}:/data", path.display())),
            Self::Outside { .. } => Some("files go below /sandbox; --mount reaches other places".to_owned()),
            Self::Name { path } => Some(format!("give it one: {}:NAME", path.display())),
            Self::Pair { .. } | Self::Pattern { .. } | Self::Read { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_a_device_and_a_directory_are_told_apart_without_blocking() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&fifo, Bytes::mib(1)), Err(FileError::Special { .. })));
        assert!(matches!(read(Path::new("/dev/zero"), Bytes::mib(1)), Err(FileError::Special { .. })));
        assert!(matches!(read(dir.path(), Bytes::mib(1)), Err(FileError::Directory { .. })));
        assert!(matches!(read(&dir.path().join("gone"), Bytes::mib(1)), Err(FileError::Read { .. })));
    }

    #[test]
    fn too_much_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let big = dir.path().join("big");
        File::create(&big).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(read(&big, Bytes::mib(1)), Err(FileError::TooLarge { .. })));
        assert!(read_at_most(std::io::repeat(0), 0, Bytes::new(10)).unwrap().is_none());
    }

    #[test]
    fn files_stay_below_the_working_directory() {
        let at = |host: &str, inside: Option<&str>| place(Path::new(host), inside.map(Path::new));
        assert_eq!(at("a/b.txt", None).unwrap(), Path::new("/sandbox/b.txt"));
        assert_eq!(at("b.txt", Some("d/e")).unwrap(), Path::new("/sandbox/d/e"));
        for bad in ["../x", "/etc/passwd", "/sandbox", "/sandbox/../etc", "a/../../b"] {
            assert!(at("b", Some(bad)).is_err(), "{bad}");
        }
        assert!(at("/", None).is_err());
    }

    #[test]
    fn a_directory_is_copied_without_its_links() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/f"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("d/link")).unwrap();
        let placed = read_dir(dir.path(), Path::new("/sandbox/in"), Bytes::mib(1)).unwrap();
        assert_eq!(placed.len(), 3);
        assert!(matches!(&placed[2], Placed::File { path, .. } if path == Path::new("/sandbox/in/d/f")));
    }
}
