//! Decompression, by what the bytes themselves say they are, and the pipe from the thread that does it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use flate2::bufread::MultiGzDecoder;

use super::{
    CHUNK,
    error::ArchiveError,
    limits::{Budget, Limits},
};
use crate::image::digest::{Algorithm, Digest, Hasher};

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Frames that hold no content, which may come first (RFC 8878 §3.1.2): 0x184D2A50 to 0x184D2A5F.
const ZSTD_SKIPPED: &[u8] = &[0x2a, 0x4d, 0x18];
/// 32 MiB, as level 20 asks for. A layer may not ask for more of our memory.
pub(super) const ZSTD_WINDOW: u32 = 25;
/// 8 MiB, as all levels below 20 ask for: so much there is room for in each of the layers that are worked on at once.
const USUAL_WINDOW: u64 = 8 << 20;

/// Chunks that are decompressed and not hashed.
const UNHASHED: usize = 4;
/// Packed bytes.
const WORTH_A_THREAD: u64 = 1 << 20;

/// What can be told of a layer by its first bytes.
pub fn packing(head: &[u8]) -> Result<Packing, ArchiveError> {
    const OTHERS: [(&[u8], &str); 3] = [
        (b"\xfd7zXZ\0", "it is packed with xz; gzip, zstd and plain tar are supported"),
        (b"BZh", "it is packed with bzip2; gzip, zstd and plain tar are supported"),
        (&[0x04, 0x22, 0x4d, 0x18], "it is packed with lz4; gzip, zstd and plain tar are supported"),
    ];
    if let Some((_, why)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(ArchiveError::Malformed(why));
    }
    Ok(match head {
        _ if head.starts_with(GZIP) => Packing::Gzip,
        _ if head.starts_with(ZSTD) => Packing::Zstd,
        [first, rest @ ..] if first & 0xf0 == 0x50 && rest.starts_with(ZSTD_SKIPPED) => Packing::Zstd,
        _ => Packing::Plain,
    })
}

/// What the bytes are when they are unpacked.
pub fn open<'a>(mut from: impl BufRead + Send + 'a) -> Result<Box<dyn Read + Send + 'a>, ArchiveError> {
    let head = from.fill_buf().map_err(ArchiveError::Read)?;
    Ok(match packing(head)? {
        Packing::Plain => Box::new(from),
        Packing::Gzip => Box::new(MultiGzDecoder::new(from)),
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(from).map_err(ArchiveError::Read)?;
            decoder.window_log_max(ZSTD_WINDOW).map_err(ArchiveError::Read)?;
            Box::new(decoder)
        }
    })
}

/// Whether its first frame asks for so much memory that no other layer may be worked on with it (RFC 8878 §3.1.1.1).
pub(super) fn is_large(file: &File) -> bool {
    use std::os::unix::fs::FileExt;
    let mut head = [0; 18];
    let Ok(length) = file.read_at(&mut head, 0) else { return true };
    let head = &head[..length];
    if !head.starts_with(ZSTD) {
        // Frames to be skipped may hide what comes after them.
        return packing(head).is_ok_and(|packing| packing == Packing::Zstd);
    }
    let (Some(descriptor), Some(window)) = (head.get(4), head.get(5)) else { return false };
    // With its content in one segment, that is the window, and it is rarely this small.
    if descriptor & 0x20 != 0 {
        return descriptor >> 6 > 1;
    }
    let base = 1_u64 << (10 + (window >> 3));
    base + base / 8 * u64::from(window & 7) > USUAL_WINDOW
}

/// Sends a layer's content, and returns its digest; `None` when nobody wants the rest. Buffers come back by `empty`.
///
/// Decompressing takes the longest of all that is done for a lone layer, so hashing a large one has a thread of its own.
pub(super) fn decompress(
    file: File,
    algorithm: Algorithm,
    limits: Limits,
    send: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Option<Digest>, ArchiveError> {
    if file.metadata().map_err(ArchiveError::Read)?.len() < WORTH_A_THREAD {
        let (mut hasher, mut wanted) = (Hasher::new(algorithm), true);
        let pass = |chunk: Vec<u8>| {
            hasher.update(&chunk);
            wanted = send.send(chunk).is_ok();
            wanted
        };
        inflate(file, limits, pass, empty, progress)?;
        return Ok(wanted.then(|| hasher.finish()));
    }
    let (pass, passed) = sync_channel(UNHASHED);
    thread::scope(|scope| {
        let work = move || hash(Hasher::new(algorithm), &passed, send);
        let hashing = thread::Builder::new().name("digest".to_owned()).spawn_scoped(scope, work);
        let hashing = hashing.map_err(ArchiveError::Read)?;
        let whole = inflate(file, limits, move |chunk| pass.send(chunk).is_ok(), empty, progress);
        let digest = hashing.join().map_err(|_| ArchiveError::Malformed("its thread panicked"))?;
        whole.map(|()| digest)
    })
}

/// Until the end of what is packed, or until `pass` says that nobody wants more.
fn inflate(
    file: File,
    limits: Limits,
    mut pass: impl FnMut(Vec<u8>) -> bool,
    empty: &Receiver<Vec<u8>>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), ArchiveError> {
    let packed = AtomicU64::new(0);
    let counting = Counting { from: file, count: &packed, progress };
    let mut content = open(BufReader::with_capacity(CHUNK, counting))?;
    let mut count = 0;
    loop {
        let mut chunk = empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
        chunk.resize(CHUNK, 0);
        let mut length = 0;
        while length < CHUNK {
            match content.read(&mut chunk[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
        if length == 0 {
            return Ok(());
        }
        chunk.truncate(length);
        count += length as u64;
        Budget::expansion(&limits, packed.load(Relaxed), count)?;
        if !pass(chunk) {
            return Ok(());
        }
    }
}

/// The digest of all that passed; `None` if it was not let pass.
fn hash(mut hasher: Hasher, from: &Receiver<Vec<u8>>, to: &SyncSender<Vec<u8>>) -> Option<Digest> {
    for chunk in from {
        hasher.update(&chunk);
        to.send(chunk).ok()?;
    }
    Some(hasher.finish())
}

struct Counting<'a> {
    from: File,
    count: &'a AtomicU64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.count.fetch_add(read as u64, Relaxed);
        (self.progress)(read as u64);
        Ok(read)
    }
}

/// The other end: the chunks as one stream.
#[derive(Debug)]
pub(super) struct Chunks {
    from: Receiver<Vec<u8>>,
    give_back: SyncSender<Vec<u8>>,
    now: Vec<u8>,
    at: usize,
}

impl Chunks {
    pub(super) fn new(from: Receiver<Vec<u8>>, give_back: SyncSender<Vec<u8>>) -> Self {
        Self { from, give_back, now: Vec::new(), at: 0 }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let length = chunk.len().min(buffer.len());
        buffer[..length].copy_from_slice(&chunk[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.now.len() {
            // A sender that is gone has sent all there is; whether that was the whole is its own to tell.
            let next = self.from.recv().unwrap_or_default();
            let used = std::mem::replace(&mut self.now, next);
            _ = self.give_back.try_send(used);
            self.at = 0;
        }
        Ok(&self.now[self.at..])
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}
