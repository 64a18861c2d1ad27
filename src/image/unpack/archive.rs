//! A tar archive, entry by entry, from bytes nobody vouches for: ustar, PAX and GNU headers (POSIX.1-2017 `pax`,
//! "ustar Interchange Format"; GNU tar manual, "Basic Tar Format").
//!
//! Only headers are held in memory, and no more of them than [`MOST_HEADER`]. What an entry's data is read into is the
//! caller's; what it leaves is passed over.

use std::io::{self, BufRead};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::error::ArchiveError;

type Result<T> = std::result::Result<T, ArchiveError>;

const BLOCK: usize = 512;
/// Of one extended header: long names and all extended attributes of a file are a few KiB.
const MOST_HEADER: u64 = 1 << 20;
/// Of one sparse file. Each is at least a block of the file, so a file of a GiB with every other page missing fits.
const MOST_PIECES: usize = 1 << 18;
const NANOS: i64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanos: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    /// As it was written: neither cleaned nor checked, but without a NUL byte.
    pub path: Vec<u8>,
    /// Where a link leads.
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Of the file as it will be, holes included.
    pub size: u64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Which parts of a sparse file there is data for: offset and length.
    pub pieces: Option<Vec<(u64, u64)>>,
}

/// What a PAX header says of the next entry.
#[derive(Debug, Clone, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Sparse,
}

/// `GNU.sparse.*`, in its three versions.
#[derive(Debug, Clone, Default)]
struct Sparse {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    version_one: bool,
    pieces: Vec<(u64, u64)>,
    offset: Option<u64>,
}

#[derive(Debug)]
pub struct Archive<R> {
    from: R,
    /// Of the current entry, with padding.
    data_left: u64,
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    pub fn new(from: R) -> Self {
        Self { from, data_left: 0, padding: 0 }
    }

    pub fn inner(&self) -> &R {
        &self.from
    }

    pub fn into_inner(self) -> R {
        self.from
    }

    /// The next entry; what was not read of the one before is passed over. `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        let (mut long_path, mut long_link) = (None, None);
        loop {
            self.pass_over()?;
            let Some(header) = self.header()? else {
                return if extended.path.is_some() || long_path.is_some() {
                    Err(ArchiveError::Malformed("an extended header without an entry"))
                } else {
                    Ok(None)
                };
            };
            let size = header.entry_size().map_err(|_| ArchiveError::Malformed("a size that is no number"))?;
            self.expect(size)?;
            match header.entry_type() {
                EntryType::GNULongName => long_path = Some(until_nul(self.small()?)),
                EntryType::GNULongLink => long_link = Some(until_nul(self.small()?)),
                // The last one counts.
                EntryType::XHeader => extended = read_extended(&self.small()?)?,
                // No engine heeds what it says of all entries, and all must see the same tree.
                EntryType::XGlobalHeader => _ = read_extended(&self.small()?)?,
                kind => {
                    extended.path = extended.sparse.name.take().or(extended.path).or(long_path);
                    extended.link = extended.link.or(long_link);
                    if let Some(entry) = self.entry(&header, kind, extended)? {
                        return Ok(Some(entry));
                    }
                    extended = Extended::default();
                    (long_path, long_link) = (None, None);
                }
            }
        }
    }

    /// `None` for what no layer needs: a volume's name, say.
    fn entry(&mut self, header: &Header, kind: EntryType, extended: Extended) -> Result<Option<Entry>> {
        let old = header.as_old();
        // Writers leave empty what they have nothing to say about.
        let number = |field: &[u8], value: io::Result<u64>, what| match value {
            _ if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
            value => value.map_err(|_| ArchiveError::Malformed(what)),
        };
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended.link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default();
        if let Some(size) = extended.size {
            self.expect(size)?;
        }
        let device = || -> Result<(u32, u32)> {
            let bad = ArchiveError::Malformed("a device number that is none");
            match (header.device_major(), header.device_minor()) {
                (Ok(major), Ok(minor)) => Ok((major.unwrap_or(0), minor.unwrap_or(0))),
                _ => Err(bad),
            }
        };
        let (mut pieces, mut old_size) = (None, None);
        let kind = match kind {
            // A name with a slash at its end is a directory's in archives of before POSIX.
            EntryType::Regular if path.ends_with(b"/") && self.data_left > 0 => {
                return Err(ArchiveError::Malformed("a directory that has data like a file"));
            }
            EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::GNUSparse => {
                let (real, list) = self.old_sparse(header)?;
                (old_size, pieces) = (Some(real), Some(list));
                Kind::File
            }
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::Hardlink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => device().map(|(major, minor)| Kind::Char(major, minor))?,
            EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
            // POSIX: what is not known is to be taken for a file. What these are is known.
            other => match other.as_byte() {
                b'V' | b'M' | b'D' | b'N' => return Ok(None),
                _ => Kind::File,
            },
        };
        if kind != Kind::File {
            // As every engine reads it, whatever size is given: else they and we would not see the same entries.
            self.expect(0)?;
        }
        let mut size = old_size.unwrap_or(self.data_left);
        if kind == Kind::File && pieces.is_none() {
            if extended.sparse.version_one {
                let (list, taken) = self.sparse_map()?;
                self.data_left =
                    self.data_left.checked_sub(taken).ok_or(ArchiveError::Malformed("a sparse map without an end"))?;
                pieces = Some(list);
            } else if !extended.sparse.pieces.is_empty() || extended.sparse.size.is_some() {
                pieces = Some(extended.sparse.pieces);
            }
            if pieces.is_some() {
                size = extended.sparse.size.ok_or(ArchiveError::Malformed("a sparse file without a size"))?;
            }
        }
        if let Some(pieces) = &pieces {
            check_pieces(pieces, size, self.data_left)?;
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(ArchiveError::Malformed("a name with a NUL byte"));
        }
        let id = |value: Option<u64>, field: &[u8], of_header: io::Result<u64>| {
            let id = value.map_or_else(|| number(field, of_header, "an id that is no number"), Ok)?;
            // The highest means "unchanged" to chown(2).
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(ArchiveError::Malformed("an id out of range"))
        };
        let mtime = match extended.mtime {
            Some(time) => time,
            None => {
                let seconds = number(&old.mtime, header.mtime(), "a time that is no number")?;
                // Before 1970, as GNU tar writes it.
                Time { seconds: seconds.cast_signed(), nanos: 0 }
            }
        };
        let mode = number(&old.mode, header.mode().map(u64::from), "a mode that is no number")? as u32 & 0o7777;
        let (uid, gid) = (id(extended.uid, &old.uid, header.uid())?, id(extended.gid, &old.gid, header.gid())?);
        Ok(Some(Entry { kind, path, link, mode, uid, gid, mtime, size, xattrs: extended.xattrs, pieces }))
    }

    /// Passes the current entry's data on in pieces as they come, at most `most` bytes; returns how many there were.
    pub fn data(&mut self, most: u64, mut to: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let wanted = most.min(self.data_left);
        let mut left = wanted;
        while left > 0 {
            let chunk = self.from.fill_buf().map_err(ArchiveError::Read)?;
            if chunk.is_empty() {
                return Err(ArchiveError::Truncated);
            }
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            to(&chunk[..length])?;
            self.from.consume(length);
            left -= length as u64;
            self.data_left -= length as u64;
        }
        Ok(wanted)
    }

    /// Has the current entry's data passed over by whoever knows a faster way than to read it; `false` from it means
    /// that there is less.
    pub fn pass_data(&mut self, pass: impl FnOnce(&mut R, u64) -> io::Result<bool>) -> Result<()> {
        let length = std::mem::take(&mut self.data_left);
        match pass(&mut self.from, length).map_err(ArchiveError::Read)? {
            true => Ok(()),
            false => Err(ArchiveError::Truncated),
        }
    }

    /// All that follows the end, so that whoever counts or hashes the bytes gets all of them.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            let length = self.from.fill_buf().map_err(ArchiveError::Read)?.len();
            if length == 0 {
                return Ok(());
            }
            self.from.consume(length);
        }
    }

    fn expect(&mut self, size: u64) -> Result<()> {
        self.data_left = size;
        let blocks =
            size.checked_next_multiple_of(BLOCK as u64).ok_or(ArchiveError::Malformed("a size out of range"))?;
        self.padding = blocks - size;
        Ok(())
    }

    fn pass_over(&mut self) -> Result<()> {
        self.data(u64::MAX, |_| Ok(()))?;
        self.data_left = std::mem::take(&mut self.padding);
        match self.data(u64::MAX, |_| Ok(())) {
            // Of the last file some writers leave it out, as umoci's `insert` does, and no reader misses it.
            Err(ArchiveError::Truncated) => self.data_left = 0,
            other => _ = other?,
        }
        Ok(())
    }

    /// `None` at the end: two blocks of zeroes, or for writers that save them, the end of the bytes.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        for nth in 0..2 {
            if !self.fill(header.as_mut_bytes())? {
                return Ok(None);
            }
            let bytes = header.as_bytes();
            if bytes.iter().any(|byte| *byte != 0) {
                if nth > 0 {
                    // Some readers would stop there, and some go on.
                    return Err(ArchiveError::Malformed("a lone block of zeroes in the middle"));
                }
                let sum: u32 =
                    bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
                let said = header.cksum().map_err(|_| ArchiveError::NotTar)?;
                return if said == sum { Ok(Some(header)) } else { Err(ArchiveError::NotTar) };
            }
        }
        Ok(None)
    }

    /// Fills the block; `false` where there is nothing any more.
    fn fill(&mut self, block: &mut [u8]) -> Result<bool> {
        let mut done = 0;
        while done < block.len() {
            match self.from.read(&mut block[done..]).map_err(ArchiveError::Read)? {
                0 if done == 0 => return Ok(false),
                0 => return Err(ArchiveError::Truncated),
                read => done += read,
            }
        }
        Ok(true)
    }

    /// The current entry's data, which is a header's.
    fn small(&mut self) -> Result<Vec<u8>> {
        if self.data_left > MOST_HEADER {
            return Err(ArchiveError::Malformed("an extended header of more than 1 MiB"));
        }
        let mut bytes = Vec::with_capacity(self.data_left as usize);
        self.data(u64::MAX, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// GNU's own header type: four pieces in the header, 21 in each block that follows it.
    fn old_sparse(&mut self, header: &Header) -> Result<(u64, Vec<(u64, u64)>)> {
        let bad = || ArchiveError::Malformed("a sparse header that is none");
        let header = header.as_gnu().ok_or_else(bad)?;
        let mut pieces = Vec::new();
        let mut add = |list: &[tar::GnuSparseHeader]| -> Result<()> {
            for piece in list.iter().filter(|piece| !piece.is_empty()) {
                pieces.push((piece.offset().map_err(|_| bad())?, piece.length().map_err(|_| bad())?));
            }
            if pieces.len() > MOST_PIECES { Err(bad()) } else { Ok(()) }
        };
        add(&header.sparse)?;
        let mut more = header.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            if !self.fill(block.as_mut_bytes())? {
                return Err(ArchiveError::Truncated);
            }
            add(block.sparse())?;
            more = block.is_extended();
        }
        Ok((header.real_size().map_err(|_| bad())?, pieces))
    }

    /// Version 1.0: the map is decimal lines at the head of the data, filled up to a block.
    fn sparse_map(&mut self) -> Result<(Vec<(u64, u64)>, u64)> {
        let bad = || ArchiveError::Malformed("a sparse map that is none");
        let (mut numbers, mut digits, mut taken) = (Vec::new(), Vec::new(), 0_u64);
        let mut wanted = 1_usize;
        while numbers.len() < wanted {
            let mut block = [0; BLOCK];
            if !self.fill(&mut block)? {
                return Err(ArchiveError::Truncated);
            }
            taken += BLOCK as u64;
            for byte in block {
                match byte {
                    b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                    b'\n' if numbers.len() < wanted => {
                        let number: u64 = decimal(&digits).ok_or_else(bad)?;
                        digits.clear();
                        if numbers.is_empty() {
                            let count = usize::try_from(number).ok().filter(|count| *count <= MOST_PIECES);
                            wanted = 1 + 2 * count.ok_or_else(bad)?;
                        }
                        numbers.push(number);
                    }
                    0 if numbers.len() == wanted => {}
                    _ => return Err(bad()),
                }
            }
        }
        Ok((numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), taken))
    }
}

/// In order, without overlap, within the file, and all of the data.
fn check_pieces(pieces: &[(u64, u64)], size: u64, data: u64) -> Result<()> {
    let bad = ArchiveError::Malformed("a sparse file whose pieces do not fit");
    let (mut at, mut sum) = (0_u64, 0_u64);
    for (offset, length) in pieces {
        let Some(end) = offset.checked_add(*length).filter(|end| *offset >= at && *end <= size) else {
            return Err(bad);
        };
        (at, sum) = (end, sum + length);
    }
    if sum == data { Ok(()) } else { Err(bad) }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `1700000000.123456789`, also negative.
fn time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: i64 = format!("{part:0<9.9}").parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some(Time { seconds: seconds.checked_sub(1)?, nanos: NANOS - nanos });
    }
    Some(Time { seconds, nanos })
}

/// Lines of `LENGTH KEY=VALUE\n`, where LENGTH counts all of it; a value may hold anything.
fn read_extended(mut text: &[u8]) -> Result<Extended> {
    let mut into = Extended::default();
    let bad = || ArchiveError::Malformed("an extended header that is none");
    while !text.is_empty() {
        let space = text.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length = decimal(&text[..space]).and_then(|length| usize::try_from(length).ok()).ok_or_else(bad)?;
        if length > text.len() || length < space + 3 || text[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &text[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        one_extended(&record[..equals], &record[equals + 1..], &mut into)?;
        text = &text[length..];
    }
    Ok(into)
}

fn one_extended(key: &[u8], value: &[u8], into: &mut Extended) -> Result<()> {
    let number =
        || decimal(value).ok_or(ArchiveError::Malformed("an extended header with no number where one must be"));
    match key {
        b"path" => into.path = Some(value.to_vec()),
        b"linkpath" => into.link = Some(value.to_vec()),
        b"size" => into.size = Some(number()?),
        b"uid" => into.uid = Some(number()?),
        b"gid" => into.gid = Some(number()?),
        b"mtime" => into.mtime = Some(time(value).ok_or(ArchiveError::Malformed("a time that is no number"))?),
        b"GNU.sparse.name" => into.sparse.name = Some(value.to_vec()),
        b"GNU.sparse.major" => into.sparse.version_one = number()? == 1,
        b"GNU.sparse.size" | b"GNU.sparse.realsize" => into.sparse.size = Some(number()?),
        b"GNU.sparse.offset" => into.sparse.offset = Some(number()?),
        b"GNU.sparse.numbytes" => {
            let offset =
                into.sparse.offset.take().ok_or(ArchiveError::Malformed("a sparse piece without an offset"))?;
            into.sparse.pieces.push((offset, number()?));
        }
        b"GNU.sparse.map" => {
            let numbers: Option<Vec<u64>> = value.split(|byte| *byte == b',').map(decimal).collect();
            let numbers = numbers.filter(|numbers| numbers.len() % 2 == 0);
            let numbers = numbers.ok_or(ArchiveError::Malformed("a sparse map that is none"))?;
            into.sparse.pieces = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        }
        _ => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                into.xattrs.push((name.to_vec(), value.to_vec()));
            }
        }
    }
    Ok(())
}
