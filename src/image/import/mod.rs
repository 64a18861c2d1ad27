//! Images from files: OCI layouts and archives of them, Docker's archives, and plain root file systems.
//!
//! What kind it is, is told by what is in it. Everything lands in the store with its digest checked, and the image
//! gets its name last: half an import leaves blobs that `prune` removes, and no image.

mod docker;
mod layout;
mod root;
mod source;

use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use super::{ImageError, digest::Digest, manifest::Wanted, reference::Reference, store::Store, unpack};
use source::{Section, Source};
use unpack::Limits;

type Result<T> = std::result::Result<T, ImageError>;

/// How an import is done.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "whom progress is told has none")]
pub struct Import<'a> {
    /// What it is called in errors.
    pub what: String,
    /// Instead of the names that it brings.
    pub name: Option<Reference>,
    pub platform: Wanted,
    /// Told how many bytes have been read since it was last told.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// An image that was imported, with the names it was given.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Imported {
    pub digest: Digest,
    pub names: Vec<String>,
}

/// From a directory or a file.
pub fn from_path(store: &Store, path: &Path, import: &Import<'_>) -> Result<Vec<Imported>> {
    let found = std::fs::metadata(path).map_err(ImageError::io("open", path))?;
    if found.is_dir() {
        let source = Source::directory(path)?;
        return layout::import(store, &source, import);
    }
    let file = File::open(path).map_err(ImageError::io("open", path))?;
    if !found.is_file() {
        return from_stream(store, file, import);
    }
    from_file(store, file, import)
}

/// From bytes that come once: they are put by first.
pub fn from_stream(store: &Store, mut from: impl Read, import: &Import<'_>) -> Result<Vec<Imported>> {
    let mut file = store.scratch()?;
    let copied = io::copy(&mut from, &mut file);
    copied.map_err(ImageError::io("put by", import.what.as_str()))?;
    from_file(store, file, import)
}

fn from_file(store: &Store, file: File, import: &Import<'_>) -> Result<Vec<Imported>> {
    let archive = |source| ImageError::Archive { what: import.what.clone(), source };
    let failed = |error| ImageError::io("read", import.what.as_str())(error);
    let mut head = [0; 6];
    let length = file.read_at(&mut head, 0).map_err(failed)?;
    let packed = unpack::packing(&head[..length]).map_err(archive)? != unpack::Packing::Plain;
    let source = if packed {
        // Looking for a manifest in a packed root file system would unpack all of it to nothing.
        if !is_archive(&file, import)? {
            return root::import(store, &file, import).map(|image| vec![image]);
        }
        let mut plain = store.scratch()?;
        let mut content = unpack::open_packed(BufReader::new(Section::whole(&file))).map_err(archive)?;
        copy_some(&mut content, &mut plain, file.metadata().map_err(failed)?.len()).map_err(failed)?;
        Source::archive(plain, import)?
    } else {
        Source::archive(file.try_clone().map_err(failed)?, import)?
    };
    if source.has("oci-layout") || source.has("index.json") {
        layout::import(store, &source, import)
    } else if source.has("manifest.json") {
        docker::import(store, &source, import)
    } else {
        root::import(store, &file, import).map(|image| vec![image])
    }
}

/// Whether a packed archive is one of an image, as far as its first entries tell.
fn is_archive(file: &File, import: &Import<'_>) -> Result<bool> {
    let archive = |source| ImageError::Archive { what: import.what.clone(), source };
    let content = unpack::open_packed(BufReader::new(Section::whole(file))).map_err(archive)?;
    let mut entries = unpack::Archive::new(BufReader::new(content));
    for _ in 0..64 {
        let Some(entry) = entries.next_entry().map_err(archive)? else { break };
        let path = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
        let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
        // What older archives call layers and configurations by, with or without .tar and .json.
        let named = first.len() >= 64 && first[..64].iter().all(u8::is_ascii_hexdigit);
        if named || [&b"oci-layout"[..], b"index.json", b"manifest.json", b"repositories", b"blobs"].contains(&first) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// As much as may come of so many packed bytes.
fn copy_some(from: &mut impl Read, to: &mut impl io::Write, packed: u64) -> io::Result<()> {
    let most = packed.saturating_mul(Limits::default().ratio).max(unpack::RATIO_FROM);
    let mut limited = from.take(most);
    io::copy(&mut limited, to)?;
    if limited.limit() > 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it unpacks to more than a thousand times its size"))
}

/// Gives the image the name that was asked for, or the ones it brings.
fn name(store: &Store, digest: &Digest, brought: &[String], import: &Import<'_>) -> Result<Imported> {
    let mut names = Vec::new();
    match &import.name {
        Some(name) => names.push(name.to_string()),
        // A name that is none is not the image's fault alone: it is passed over.
        None => {
            names.extend(brought.iter().filter_map(|name| name.parse::<Reference>().ok()).map(|name| name.to_string()))
        }
    }
    if names.is_empty() {
        return Err(ImageError::Import {
            what: import.what.clone(),
            why: "it brings no name; give it one with --name".to_owned(),
        });
    }
    for name in &names {
        store.set_name(name, digest)?;
    }
    Ok(Imported { digest: digest.clone(), names })
}

fn copy(from: &mut impl Read, to: &mut impl io::Write, progress: &(dyn Fn(u64) + Sync)) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        to.write_all(&buffer[..read])?;
        progress(read as u64);
    }
}
