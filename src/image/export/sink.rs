//! Where the files of an image go: into an archive, or into a directory.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::Result;
use crate::image::ImageError;

#[expect(missing_debug_implementations, reason = "an archive's builder has none")]
pub enum Sink<W: Write> {
    Archive(Box<tar::Builder<W>>),
    Directory(PathBuf),
}

impl Sink<File> {
    /// A directory that is not there yet, or empty.
    pub fn directory(path: &Path) -> Result<Self> {
        match DirBuilder::new().create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut entries = fs::read_dir(path).map_err(ImageError::io("read", path))?;
                if entries.next().is_some() {
                    return Err(ImageError::NotEmpty { path: path.to_owned() });
                }
            }
            made => made.map_err(ImageError::io("make", path))?,
        }
        Ok(Self::Directory(path.to_owned()))
    }
}

impl<W: Write> Sink<W> {
    pub fn archive(to: W) -> Self {
        Self::Archive(Box::new(tar::Builder::new(to)))
    }

    pub(super) fn document(&mut self, name: &str, bytes: &[u8]) -> Result {
        self.file(name, &mut &*bytes, bytes.len() as u64)
    }

    /// In an archive; in a directory it is made with what is in it.
    pub(super) fn entry_for_directory(&mut self, name: &str) -> Result {
        let Self::Archive(archive) = self else { return Ok(()) };
        let mut header = header(0, 0o755);
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, name, io::empty()).map_err(ImageError::io("write", name))
    }

    /// So many bytes, no less.
    pub(super) fn file(&mut self, name: &str, from: &mut impl Read, size: u64) -> Result {
        let mut from = from.take(size);
        let written = match self {
            Self::Archive(archive) => {
                let mut header = header(size, 0o644);
                archive.append_data(&mut header, name, &mut from)
            }
            Self::Directory(path) => {
                let path = path.join(name);
                path.parent()
                    .map_or(Ok(()), |above| DirBuilder::new().recursive(true).create(above))
                    .and_then(|()| File::create_new(&path))
                    .and_then(|mut file| io::copy(&mut from, &mut file).map(drop))
            }
        };
        let written = written.and_then(|()| match from.limit() {
            0 => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        });
        written.map_err(ImageError::io("write", name))
    }

    pub(super) fn finish(self) -> Result {
        match self {
            Self::Archive(archive) => {
                archive.into_inner().and_then(|mut to| to.flush()).map_err(ImageError::io("write", "the archive"))
            }
            Self::Directory(_) => Ok(()),
        }
    }
}

/// The same for the same image, whoever exports it and when.
fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
