//! How much an image may bring: what is asked of it before anything is done for it.

use super::error::LayerError;

/// Beyond any image there is a use for, and well below what a disk or a memory has to fear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, directories and links, of all layers together.
    pub entries: u64,
    /// Of all files of all layers together, as they are when unpacked; holes count.
    pub bytes: u64,
    /// Bytes of a path.
    pub path: u64,
    /// Bytes of what is remembered of directories until the end: their paths, and [`OF_DIRECTORY`] for each.
    pub directories: u64,
    /// How many bytes one byte of a layer may become, once there are more than [`RATIO_FROM`].
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 2_000_000, bytes: 128 << 30, path: 4095, directories: 32 << 20, ratio: 1000 }
    }
}

pub const OF_DIRECTORY: u64 = 64;

/// Below it nobody is hurt, and a layer may well be one file of zeroes.
pub const RATIO_FROM: u64 = 256 << 20;

/// What is left of them.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    limits: Limits,
    entries: u64,
    bytes: u64,
    directories: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Budget {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, entries: 0, bytes: 0, directories: 0 }
    }

    pub(in crate::image) fn entry(&mut self, path: usize) -> Result<(), LayerError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(LayerError::Beyond { what: "files", most: self.limits.entries });
        }
        if path as u64 > self.limits.path {
            return Err(LayerError::Beyond { what: "bytes of a path", most: self.limits.path });
        }
        Ok(())
    }

    pub(super) fn directory(&mut self, path: usize) -> Result<(), LayerError> {
        self.directories += path as u64 + OF_DIRECTORY;
        if self.directories > self.limits.directories {
            return Err(LayerError::Beyond { what: "bytes of directories' paths", most: self.limits.directories });
        }
        Ok(())
    }

    pub(in crate::image) fn bytes(&mut self, size: u64) -> Result<(), LayerError> {
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.bytes {
            return Err(LayerError::Beyond { what: "bytes of files", most: self.limits.bytes });
        }
        Ok(())
    }

    /// Checks how much came out of a layer so far for what went in.
    pub(super) fn expansion(limits: &Limits, packed: u64, unpacked: u64) -> Result<(), LayerError> {
        if unpacked > RATIO_FROM && unpacked / packed.max(1) > limits.ratio {
            return Err(LayerError::Beyond { what: "times its packed size", most: limits.ratio });
        }
        Ok(())
    }
}
