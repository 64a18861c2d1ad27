//! A directory or an archive that has an image's files in it, each read by its name.

use std::{
    borrow::Borrow,
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
};

use super::{Import, Result};
use crate::{
    image::{
        ImageError,
        unpack::{Archive, Kind, clean},
    },
    sys::fs,
};

/// No image has more files: two or three for each layer and some for the whole.
const MOST_FILES: usize = 20_000;
/// Bytes of a name that one of them has, and of what a link among them leads to.
const LONGEST_NAME: usize = 256;
/// No buffer is read anew for less than this to be passed over.
const BUFFER: usize = 64 << 10;

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
    pub fn archive(file: File, import: &Import<'_>) -> Result<Self> {
        let archive = |source| ImageError::Archive { what: import.what.clone(), source };
        let mut places = HashMap::new();
        let from = Section::whole(&file);
        let mut counting = Archive::new(Position { from: BufReader::with_capacity(BUFFER, from), at: 0 });
        while let Some(entry) = counting.next_entry().map_err(archive)? {
            let at = counting.inner().at;
            if entry.kind == Kind::File && entry.pieces.is_none() {
                // The bytes of a large file are not looked at.
                counting.pass_data(|position, length| position.pass_over(length)).map_err(archive)?;
            }
            let path = clean(&entry.path);
            if path.len() > LONGEST_NAME || entry.link.len() > LONGEST_NAME {
                continue;
            }
            match entry.kind {
                Kind::File if entry.pieces.is_some() => {}
                Kind::File => drop(places.insert(path, Entry::Bytes { at, size: entry.size })),
                Kind::Hardlink => drop(places.insert(path, Entry::Link(clean(&entry.link)))),
                // Relative to where it is, as `docker save` writes them.
                Kind::Symlink => {
                    let above = path.iter().rposition(|byte| *byte == b'/').map_or(&path[..0], |slash| &path[..=slash]);
                    let target = clean(&[above, &entry.link].concat());
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
    pub fn open(&self, name: &str) -> Result<(Section<File>, u64)> {
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
                Ok((Section { file, at: 0, end: found.len() }, found.len()))
            }
            Self::Archive { file, places } => {
                let missing = || failed(io::ErrorKind::NotFound.into());
                let mut path = clean(name.as_bytes());
                // Each link leads to a file: what leads on and on leads nowhere.
                for _ in 0..4 {
                    match places.get(&path).ok_or_else(missing)? {
                        Entry::Link(target) => path = target.clone(),
                        Entry::Bytes { at, size } => {
                            let file = file.try_clone().map_err(failed)?;
                            return Ok((Section { file, at: *at, end: at + size }, *size));
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
        let (mut from, size) = self.open(name)?;
        if size > MOST {
            return Err(ImageError::Import {
                what: name.to_owned(),
                why: format!("a document of {size} bytes is none"),
            });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        from.read_to_end(&mut bytes).map_err(ImageError::io("read", name))?;
        Ok(bytes)
    }
}

/// A part of a file, read from where it is without a word to others who read the file.
#[derive(Debug)]
pub struct Section<F> {
    file: F,
    at: u64,
    end: u64,
}

impl<F> Section<F> {
    pub fn whole(file: F) -> Self {
        Self { file, at: 0, end: u64::MAX }
    }
}

impl<F: Borrow<File>> Read for Section<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.borrow().read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Position<BufReader<Section<&File>>> {
    /// Passes over so many bytes, unless the file ends before.
    fn pass_over(&mut self, length: u64) -> io::Result<bool> {
        let end = self.at + length;
        if self.from.get_ref().file.metadata()?.len() < end {
            return Ok(false);
        }
        let buffered = self.from.buffer().len();
        if length <= buffered as u64 {
            self.from.consume(length as usize);
        } else {
            let buffer = self.from.buffer().len();
            self.from.consume(buffer);
            self.from.get_mut().at = end;
        }
        self.at = end;
        Ok(true)
    }
}

/// Knows how far it has been read.
#[derive(Debug)]
pub struct Position<R> {
    from: R,
    at: u64,
}

impl<R: BufRead> Read for Position<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Position<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.from.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        self.at += length as u64;
        self.from.consume(length);
    }
}
