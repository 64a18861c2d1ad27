//! Writes tar archives that say the same bytes for the same tree: ustar headers, and PAX records for what does not fit
//! into these (POSIX.1-2017 `pax`). No time but the file's own, no names of users, nothing of the writer's.

use std::io::{self, Write};

use crate::image::unpack::Kind;

const BLOCK: usize = 512;
/// What fits into a header's fields: names, ids of seven and sizes and times of eleven octal digits.
const NAME: usize = 100;
const MOST_ID: u32 = 0o7_777_777;
const MOST_NUMBER: u64 = 0o77_777_777_777;
/// Of one extended header. Readers take no larger ones, ours among them.
const MOST_EXTENDED: usize = 1 << 20;

/// What a header tells.
#[derive(Debug, Clone)]
pub struct Header<'a> {
    pub kind: Kind,
    /// With a slash at its end if it is a directory's.
    pub path: &'a [u8],
    /// Where a link leads.
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    pub size: u64,
    /// In their order here.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// An archive being written.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    padding: usize,
}

impl<W: Write> Writer<W> {
    pub fn new(to: W) -> Self {
        Self { to, padding: 0 }
    }

    /// Begins an entry. A file's data, as much as `size` says, is written to [`Self::data`] next.
    pub fn begin(&mut self, header: &Header<'_>) -> io::Result<()> {
        self.pad()?;
        let mut extended = Vec::new();
        if header.path.len() > NAME {
            record(&mut extended, b"path", header.path);
        }
        if header.link.len() > NAME {
            record(&mut extended, b"linkpath", header.link);
        }
        if header.size > MOST_NUMBER {
            record(&mut extended, b"size", header.size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], header.uid), (b"gid", header.gid)] {
            if id > MOST_ID {
                record(&mut extended, key, id.to_string().as_bytes());
            }
        }
        if !(0..=MOST_NUMBER.cast_signed()).contains(&header.mtime) {
            record(&mut extended, b"mtime", header.mtime.to_string().as_bytes());
        }
        for (name, value) in header.xattrs {
            record(&mut extended, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if extended.len() > MOST_EXTENDED {
            let why = "its extended attributes are more than a layer can tell";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        if !extended.is_empty() {
            self.to.write_all(&block(
                &Header {
                    kind: Kind::File,
                    path: b"PaxHeader",
                    link: b"",
                    mode: 0o644,
                    uid: 0,
                    gid: 0,
                    mtime: 0,
                    size: extended.len() as u64,
                    xattrs: &[],
                },
                b'x',
            ))?;
            self.to.write_all(&extended)?;
            self.padding = padding(extended.len() as u64);
            self.pad()?;
        }
        let flag = match header.kind {
            Kind::File => b'0',
            Kind::Hardlink => b'1',
            Kind::Symlink => b'2',
            Kind::Char(..) => b'3',
            Kind::Block(..) => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.to.write_all(&block(header, flag))?;
        self.padding = padding(header.size);
        Ok(())
    }

    /// Where the data of the entry goes.
    pub fn data(&mut self) -> &mut W {
        &mut self.to
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.pad()?;
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }

    fn pad(&mut self) -> io::Result<()> {
        let length = std::mem::take(&mut self.padding);
        self.to.write_all(&[0; BLOCK][..length])
    }
}

fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

fn block(header: &Header<'_>, flag: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let cut = |bytes: &mut [u8], text: &[u8]| {
        let length = text.len().min(bytes.len());
        bytes[..length].copy_from_slice(&text[..length]);
    };
    cut(&mut block[..NAME], header.path);
    octal(&mut block[100..108], u64::from(header.mode));
    octal(&mut block[108..116], u64::from(if header.uid > MOST_ID { 0 } else { header.uid }));
    octal(&mut block[116..124], u64::from(if header.gid > MOST_ID { 0 } else { header.gid }));
    octal(&mut block[124..136], if header.size > MOST_NUMBER { 0 } else { header.size });
    octal(&mut block[136..148], u64::try_from(header.mtime).ok().filter(|at| *at <= MOST_NUMBER).unwrap_or(0));
    block[156] = flag;
    cut(&mut block[157..157 + NAME], header.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    let (major, minor) = match header.kind {
        Kind::Char(major, minor) | Kind::Block(major, minor) => (major, minor),
        _ => (0, 0),
    };
    octal(&mut block[329..337], u64::from(major));
    octal(&mut block[337..345], u64::from(minor));
    // Summed up with blanks in its own place.
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * 32;
    octal(&mut block[148..155], sum);
    block[155] = b' ';
    block
}

/// Octal digits with a NUL at their end; the number fits.
fn octal(field: &mut [u8], mut number: u64) {
    let digits = field.len() - 1;
    for place in field[..digits].iter_mut().rev() {
        *place = b'0' + (number & 7) as u8;
        number >>= 3;
    }
}

/// `LENGTH KEY=VALUE\n`, of which the length is a part.
fn record(into: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    into.extend_from_slice(length.to_string().as_bytes());
    into.push(b' ');
    into.extend_from_slice(key);
    into.push(b'=');
    into.extend_from_slice(value);
    into.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_long_as_it_says() {
        for length in 0..2000 {
            let mut bytes = Vec::new();
            record(&mut bytes, b"path", &vec![b'x'; length]);
            let said: usize = String::from_utf8_lossy(&bytes).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, bytes.len());
        }
    }
}
