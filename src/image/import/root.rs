//! A plain archive of a root file system: an image of one layer that says nothing but for which machine it is.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    os::unix::fs::FileExt,
};

use oci_spec::image::MediaType;

use super::{Import, Imported, Result, name, source::Section};
use crate::image::{
    ImageError,
    digest::{Algorithm, Hasher, Hashing},
    made::{descriptor, put_manifest},
    store::{Incoming, Store},
    unpack,
};

pub fn import(store: &Store, file: &File, import: &Import<'_>) -> Result<Imported> {
    let failed = |error| ImageError::io("read", import.what.as_str())(error);
    let archive = |source| ImageError::Archive { what: import.what.clone(), source };
    let mut head = [0; 6];
    let length = file.read_at(&mut head, 0).map_err(failed)?;
    let packing = unpack::packing(&head[..length]).map_err(archive)?;
    // Read once: what comes through is kept, and its content looked at on the way.
    let mut incoming = store.receive(Algorithm::Sha256)?;
    let kept = Kept { from: Section::whole(file), to: &mut incoming, progress: import.progress };
    let content = unpack::open_packed(BufReader::with_capacity(BUFFER, kept)).map_err(archive)?;
    let diff_id = if packing == unpack::Packing::Plain {
        look_through(content, import)?;
        None
    } else {
        let hashing = Hashing { from: content, hasher: Hasher::new(Algorithm::Sha256) };
        Some(look_through(hashing, import)?.hasher.finish())
    };
    let (digest, size) = incoming.keep()?;
    let diff_id = diff_id.unwrap_or_else(|| digest.clone());
    let kind = match packing {
        unpack::Packing::Plain => MediaType::ImageLayer,
        unpack::Packing::Gzip => MediaType::ImageLayerGzip,
        unpack::Packing::Zstd => MediaType::ImageLayerZstd,
    };
    let mut config = serde_json::json!({
        "architecture": import.platform.architecture,
        "os": import.platform.os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    if let Some(variant) = &import.platform.variant {
        config["variant"] = variant.clone().into();
    }
    let bytes = config.to_string().into_bytes();
    let config = descriptor(MediaType::ImageConfig, bytes.len() as u64, &store.put(&bytes)?)?;
    let digest = put_manifest(store, config, vec![descriptor(kind, size, &digest)?])?;
    name(store, &digest, &[], import)
}

const BUFFER: usize = 256 << 10;

/// Reads an archive to its end: anything at all could have been given.
fn look_through<R: Read>(content: R, import: &Import<'_>) -> Result<R> {
    let archive = |source| ImageError::Archive { what: import.what.clone(), source };
    let mut entries = unpack::Archive::new(BufReader::with_capacity(BUFFER, content));
    if entries.next_entry().map_err(archive)?.is_none() {
        return Err(ImageError::Import { what: import.what.clone(), why: "there is nothing in it".to_owned() });
    }
    while entries.next_entry().map_err(archive)?.is_some() {}
    entries.drain().map_err(archive)?;
    Ok(entries.into_inner().into_inner())
}

/// What is read is written as well.
struct Kept<'a, 'b> {
    from: Section<&'a File>,
    to: &'a mut Incoming<'b>,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Read for Kept<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.to.write_all(&buffer[..read])?;
        (self.progress)(read as u64);
        Ok(read)
    }
}
