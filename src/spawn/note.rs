//! Which sandbox each worker has: written by the worker before it makes one, read by the spawner when the worker was
//! killed. A file in memory that all of them share, with a place for each.

use std::{fs::File, io, os::unix::fs::FileExt};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::request::SandboxId;

/// An id is 128 bytes at most; no place crosses a page.
const PLACE: usize = 256;

#[derive(Debug)]
pub(super) struct Notes(File);

impl Notes {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(File::from(memfd_create(c"fumehood-notes", MFdFlags::MFD_CLOEXEC)?)))
    }

    /// From before the sandbox is begun. One that was made ahead has two: its own, and that of what it is used for.
    pub(super) fn write(&self, place: usize, ids: &[&SandboxId]) -> io::Result<()> {
        let mut text = [0; PLACE];
        let mut rest = &mut text[..];
        for id in ids {
            let id = id.as_str().as_bytes();
            let (here, after) =
                std::mem::take(&mut rest).split_at_mut_checked(id.len() + 1).ok_or(io::ErrorKind::StorageFull)?;
            here[..id.len()].copy_from_slice(id);
            rest = after;
        }
        self.put(place, &text)
    }

    /// When nothing is left of it.
    pub(super) fn clear(&self, place: usize) -> io::Result<()> {
        self.put(place, &[0; PLACE])
    }

    fn put(&self, place: usize, text: &[u8; PLACE]) -> io::Result<()> {
        self.0.write_all_at(text, (place * PLACE) as u64)
    }

    pub(super) fn read(&self, place: usize) -> Vec<SandboxId> {
        let mut text = [0; PLACE];
        if self.0.read_exact_at(&mut text, (place * PLACE) as u64).is_err() {
            return Vec::new();
        }
        let ids = text.split(|byte| *byte == 0).filter_map(|id| std::str::from_utf8(id).ok());
        ids.filter_map(|id| SandboxId::parse(id).ok()).collect()
    }

    /// For [`crate::sys::process::close_range`] to spare.
    pub(super) const fn file(&self) -> &File {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_own() {
        let notes = Notes::new().unwrap();
        let [long, short] = ["x".repeat(128), "y".to_owned()].map(|text| SandboxId::parse(&text).unwrap());
        notes.write(3, &[&long, &short]).unwrap();
        notes.write(0, &[&long]).unwrap();
        notes.write(0, &[&short]).unwrap();
        assert!(notes.write(1, &[&long, &long]).is_err());
        let all: Vec<_> = (0..5).map(|place| notes.read(place)).collect();
        assert_eq!(all, [vec![short.clone()], vec![], vec![], vec![long, short], vec![]]);
        notes.clear(3).unwrap();
        assert!(notes.read(3).is_empty());
    }
}
