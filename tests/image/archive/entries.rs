//! Tar archives entry by entry, also such as no tool would make.

#![allow(dead_code, reason = "no test uses all of it")]

use std::io::Write;

use tar::{EntryType, Header};

/// A header as its writer wants it, be it allowed or not.
pub fn header(kind: EntryType, path: &str, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(nix::unistd::geteuid().as_raw().into());
    header.set_gid(nix::unistd::getegid().as_raw().into());
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    header
}

pub fn raw(header: &Header, data: &[u8]) -> Vec<u8> {
    let mut header = header.clone();
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub fn file(path: &str, data: &str) -> Vec<u8> {
    raw(&header(EntryType::Regular, path, "", data.len() as u64), data.as_bytes())
}

pub fn dir(path: &str) -> Vec<u8> {
    raw(&header(EntryType::Directory, path, "", 0), b"")
}

pub fn symlink(path: &str, to: &str) -> Vec<u8> {
    raw(&header(EntryType::Symlink, path, to, 0), b"")
}

pub fn hard_link(path: &str, to: &str) -> Vec<u8> {
    raw(&header(EntryType::Link, path, to, 0), b"")
}

pub fn with(kind: EntryType, path: &str, change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = header(kind, path, "", 0);
    change(&mut header);
    raw(&header, b"")
}

pub fn extended(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len() + 1;
        while length != rest.len() + length.to_string().len() {
            length += 1;
        }
        text += &format!("{length}{rest}");
    }
    raw(&header(EntryType::XHeader, "pax", "", text.len() as u64), text.as_bytes())
}

pub fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}
