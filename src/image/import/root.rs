//! A plain archive of a root file system: an image of one layer that says nothing but for which machine it is.

use std::{
    fs::File,
    io::{BufReader, Read, Seek},
};

use oci_spec::image::MediaType;

use super::{Import, Imported, Result, docker, name};
use crate::image::{
    ImageError,
    digest::{Algorithm, Hasher, Hashing},
    store::Store,
    unpack,
};

pub fn import(store: &Store, mut file: File, import: &Import<'_>) -> Result<Imported> {
    let failed = |error| ImageError::io("read", import.what.as_str())(error);
    let archive = |source| ImageError::Archive { what: import.what.clone(), source };
    file.rewind().map_err(failed)?;
    let mut incoming = store.receive(Algorithm::Sha256)?;
    super::copy(&mut file, &mut incoming, import.progress).map_err(|error| incoming.failed(error))?;
    // Named only if it is an archive: anything at all could be given.
    file.rewind().map_err(failed)?;
    let mut head = [0; 6];
    let length = file.read(&mut head).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let packing = unpack::packing(&head[..length]).map_err(archive)?;
    let content = unpack::open_packed(BufReader::with_capacity(256 << 10, &file)).map_err(archive)?;
    let hashing = Hashing { from: content, hasher: Hasher::new(Algorithm::Sha256) };
    let mut entries = unpack::Archive::new(BufReader::with_capacity(256 << 10, hashing));
    let mut count = 0_u64;
    while entries.next_entry().map_err(archive)?.is_some() {
        count += 1;
    }
    if count == 0 {
        return Err(ImageError::Import { what: import.what.clone(), why: "there is nothing in it".to_owned() });
    }
    entries.drain().map_err(archive)?;
    let diff_id = entries.into_inner().into_inner().hasher.finish();
    let (digest, size) = incoming.keep()?;
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
    let config = docker::descriptor(MediaType::ImageConfig, bytes.len() as u64, &store.put(&bytes)?)?;
    let digest = docker::put_manifest(store, config, vec![docker::descriptor(kind, size, &digest)?])?;
    name(store, &digest, &[], import)
}
