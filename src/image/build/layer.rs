//! Layers of our own making: packed into the store, hashed on the way.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder, write::GzEncoder};

use super::{BuildError, Result};
use crate::image::{
    digest::{Algorithm, Hasher, Hashing},
    store::{Built, Incoming, Store},
};

/// An archive on its way into the store.
pub struct Packer<'a>(Hashing<GzEncoder<Incoming<'a>>>);

impl<'a> Packer<'a> {
    pub fn new(store: &'a Store) -> Result<Self> {
        let incoming = store.receive(Algorithm::Sha256)?;
        // No time and no name in its header: the same archive is the same bytes.
        let from = GzBuilder::new().write(incoming, Compression::default());
        Ok(Self(Hashing { from, hasher: Hasher::new(Algorithm::Sha256) }))
    }

    pub fn finish(self) -> Result<Built> {
        let diff_id = self.0.hasher.finish();
        let incoming = self.0.from.finish().map_err(BuildError::io("pack", "layer"))?;
        let (digest, size) = incoming.keep()?;
        Ok(Built { digest, size, diff_id })
    }
}

impl Write for Packer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
