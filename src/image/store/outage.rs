//! What a power cut leaves of an unpacked tree.
//!
//! Nothing is written through to the disk before it is used: that would take longer than unpacking does, and every
//! other writer would wait, too. File systems keep names and lose what was written last, so a tree may be there with
//! files that are empty or short. So it is known how much there was in it, and the first who uses it after the machine
//! was started anew looks whether it is still there. Blobs need no such look: each is checked when it is used.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

/// How much there is in a tree, as its owner sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    entries: u64,
    bytes: u64,
}

impl Extent {
    /// Of what cannot be read, nothing is known now, nor will it be then.
    pub fn of(root: &Path) -> Self {
        let mut extent = Self::default();
        let mut left = vec![root.to_owned()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let Ok(found) = entry.metadata() else { continue };
                extent.entries += 1;
                if found.is_dir() {
                    left.push(entry.path());
                } else if found.is_file() {
                    extent.bytes += found.len();
                }
            }
        }
        extent
    }
}

/// A tree as it was, and since when the machine has not been off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    extent: Extent,
    boot: String,
}

impl Mark {
    /// `None` where it is not known when the machine was started.
    pub fn of(root: &Path) -> Option<Self> {
        Some(Self { extent: Extent::of(root), boot: boot()? })
    }

    /// It was seen since the machine was started.
    pub fn is_of_now(&self) -> bool {
        boot().is_none_or(|boot| boot == self.boot)
    }

    /// The mark for now, if all is there that was.
    pub fn renewed(&self, root: &Path) -> Option<Self> {
        Self::of(root).filter(|now| now.extent == self.extent)
    }
}

/// Another after every start of the machine (random(4)).
fn boot() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}
