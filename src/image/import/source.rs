//! A directory or an archive that has an image's files in it, each read by its name.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Take},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

use super::{Import, Result};
use crate::{
    image::{
        ImageError,
        unpack::{Archive, Kind},
    },
    sys::fs,
};

/// No image has more files: two for each layer and some for the whole.
const MOST_FILES: usize = 100_000;

#[derive(Debug)]
pub enum Source {
    Directory { dir: OwnedFd },
    Archive { file: File, places: HashMap<Vec<u8>, Entry> },
}

#[derive(Debug, Clone)]
pub enum Entry {
    /// Where its bytes are in the file.
    Bytes { at: u64, size: u64 },
    /// The name of another.
    Link(Vec<u8>),
}

impl Source {
    pub fn directory(path: &Path) -> Result<Self> {
        let dir = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(path);
        Ok(Self::Directory { dir: dir.map_err(ImageError::io("open", path))?.into() })
    }

    /// Reads the names and where their bytes are, of a plain archive in a file.
    pub fn archive(mut file: File, import: &Import<'_>) -> Result<Self> {
        let archive = |source| ImageError::Archive { what: import.what.clone(), source };
        file.rewind().map_err(ImageError::io("read", import.what.as_str()))?;
        let mut places = HashMap::new();
        let mut counting = Archive::new(Position { from: BufReader::with_capacity(64 << 10, &file), at: 0 });
        while let Some(entry) = counting.next_entry().map_err(archive)? {
            let at = counting.inner().at;
            let path = cleaned(&entry.path);
            match entry.kind {
                Kind::File => drop(places.insert(path, Entry::Bytes { at, size: entry.size })),
                Kind::Hardlink => drop(places.insert(path, Entry::Link(cleaned(&entry.link)))),
                // Relative to where it is, as `docker save` writes them.
                Kind::Symlink => {
                    let above = path.iter().rposition(|byte| *byte == b'/').map_or(&path[..0], |slash| &path[..=slash]);
                    let target = cleaned(&[above, &entry.link].concat());
                    places.insert(path, Entry::Link(target));
                }
                _ => {}
            }
            // A root file system has more, and is not looked for by name.
            if places.len() > MOST_FILES {
                places.retain(|path, _| !path.contains(&b'/'));
                break;
            }
        }
        drop(counting);
        Ok(Self::Archive { file, places })
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory { .. } => self.open(name).is_ok(),
            Self::Archive { places, .. } => places.contains_key(name.as_bytes()),
        }
    }

    /// The file's bytes, and how many.
    pub fn open(&self, name: &str) -> Result<(Take<File>, u64)> {
        let failed = |error: io::Error| ImageError::Io { action: "open", path: name.into(), source: error };
        match self {
            Self::Directory { dir } => {
                let path = std::ffi::CString::new(name).map_err(|error| failed(error.into()))?;
                let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
                let file =
                    fs::open_in(dir.as_fd(), &path, flags, 0, fs::BENEATH).map_err(|errno| failed(errno.into()))?;
                let file = File::from(file);
                let found = file.metadata().map_err(failed)?;
                if !found.is_file() {
                    return Err(failed(io::Error::other("it is no regular file")));
                }
                Ok((file.take(found.len()), found.len()))
            }
            Self::Archive { file, places } => {
                let missing = || failed(io::ErrorKind::NotFound.into());
                let mut path = cleaned(name.as_bytes());
                // Each link leads to a file: what leads on and on leads nowhere.
                for _ in 0..4 {
                    match places.get(&path).ok_or_else(missing)? {
                        Entry::Link(target) => path = target.clone(),
                        Entry::Bytes { at, size } => {
                            let mut file = reopened(file).map_err(failed)?;
                            file.seek(SeekFrom::Start(*at)).map_err(failed)?;
                            return Ok((file.take(*size), *size));
                        }
                    }
                }
                Err(missing())
            }
        }
    }

    /// A document, of no more than the size that documents have.
    pub fn document(&self, name: &str) -> Result<Vec<u8>> {
        const MOST: u64 = 4 << 20;
        let (from, size) = self.open(name)?;
        if size > MOST {
            return Err(ImageError::Import {
                what: name.to_owned(),
                why: format!("a document of {size} bytes is none"),
            });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        let mut from = from;
        from.read_to_end(&mut bytes).map_err(ImageError::io("read", name))?;
        Ok(bytes)
    }

    /// The archive itself.
    pub fn into_file(self) -> File {
        match self {
            Self::Directory { dir } => dir.into(),
            Self::Archive { file, .. } => file,
        }
    }
}

/// With a position of its own.
fn reopened(file: &File) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn cleaned(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    kept.join(&b'/')
}

/// Knows how far it has been read.
#[derive(Debug)]
pub struct Position<R> {
    from: R,
    at: u64,
}

impl<R: io::BufRead> Read for Position<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<R: io::BufRead> io::BufRead for Position<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.from.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.at += length as u64;
        self.from.consume(length);
    }
}
