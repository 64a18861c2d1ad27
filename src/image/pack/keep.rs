//! A layer on its way into the store: packed, counted and hashed as it comes.

use std::{
    fmt,
    io::{self, Write},
};

use flate2::{GzBuilder, write::GzEncoder};
use oci_spec::image::MediaType;
use serde::{Deserialize, Serialize};

use super::PackError;
use crate::{
    error::Hint,
    image::{
        digest::{Algorithm, Digest, Hasher},
        store::{Incoming, Store, StoreError},
        unpack::{Limits, RATIO_FROM},
    },
};

/// How a layer is packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    None,
    /// What every engine reads.
    #[default]
    Gzip,
    Zstd,
}

/// A layer that is in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLayer {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
    /// Of what it is unpacked.
    pub diff_id: Digest,
}

/// Why a layer is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the layer has {bytes} bytes, and {packed} when packed: nothing would take it for anything but a bomb")]
    Bomb { bytes: u64, packed: u64 },
}

impl Hint for KeepError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Pack(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Bomb { .. } => {
                Some("it is files of zeroes: remove them, or make them where they are used".to_owned())
            }
        }
    }
}

/// Keeps the archive that `write` writes. Nothing is kept when it fails.
pub fn keep<T, E>(
    store: &Store,
    compression: Compression,
    write: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<(NewLayer, T), E>
where
    E: From<KeepError>,
{
    let failed = |error: StoreError| E::from(KeepError::Store(error));
    let incoming = store.receive(Algorithm::Sha256).map_err(failed)?;
    let mut packer = Packer {
        packing: Packing::new(compression, incoming).map_err(failed)?,
        hasher: Hasher::new(Algorithm::Sha256),
        piece: Vec::with_capacity(PIECE),
    };
    let done = write(&mut packer)?;
    let (bytes, diff_id) = (packer.hasher.count(), packer.hasher.clone().finish());
    let incoming = packer.finish().map_err(failed)?;
    let packed = incoming.count();
    if bytes > RATIO_FROM && bytes / packed.max(1) > Limits::default().ratio {
        return Err(KeepError::Bomb { bytes, packed }.into());
    }
    let (digest, size) = incoming.keep().map_err(failed)?;
    let kind = match compression {
        Compression::None => MediaType::ImageLayer,
        Compression::Gzip => MediaType::ImageLayerGzip,
        Compression::Zstd => MediaType::ImageLayerZstd,
    };
    Ok((NewLayer { digest, size, media_type: kind.to_string(), diff_id }, done))
}

/// What is written through it is hashed, and packed. What comes of packing depends on the pieces that it is given, so
/// they are always the same: how an archive came out of a pipe must not show.
struct Packer<'a> {
    packing: Packing<'a>,
    hasher: Hasher,
    piece: Vec<u8>,
}

const PIECE: usize = 128 << 10;

impl<'a> Packer<'a> {
    fn pack(&mut self) -> io::Result<()> {
        match &mut self.packing {
            Packing::None(to) => to.write_all(&self.piece),
            Packing::Gzip(to) => to.write_all(&self.piece),
            Packing::Zstd(to) => to.write_all(&self.piece),
        }?;
        self.piece.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Incoming<'a>, StoreError> {
        self.pack().map_err(failed)?;
        self.packing.finish()
    }
}

impl Write for Packer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = &bytes[..bytes.len().min(PIECE - self.piece.len())];
        self.piece.extend_from_slice(taken);
        self.hasher.update(taken);
        if self.piece.len() == PIECE {
            self.pack()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Packing<'a> {
    None(Incoming<'a>),
    Gzip(GzEncoder<Incoming<'a>>),
    Zstd(zstd::stream::write::Encoder<'static, Incoming<'a>>),
}

impl fmt::Debug for Packing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Packing")
    }
}

fn failed(source: io::Error) -> StoreError {
    StoreError::Io { action: "pack", path: "the layer".into(), source }
}

impl<'a> Packing<'a> {
    fn new(compression: Compression, to: Incoming<'a>) -> Result<Self, StoreError> {
        Ok(match compression {
            Compression::None => Self::None(to),
            // Without a time and a name in its header; 255 is for "unknown", as on every machine.
            Compression::Gzip => {
                Self::Gzip(GzBuilder::new().mtime(0).operating_system(255).write(to, flate2::Compression::new(6)))
            }
            Compression::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(to, 3).map_err(failed)?),
        })
    }

    fn finish(self) -> Result<Incoming<'a>, StoreError> {
        match self {
            Self::None(to) => Ok(to),
            Self::Gzip(to) => to.finish().map_err(failed),
            Self::Zstd(to) => to.finish().map_err(failed),
        }
    }
}
