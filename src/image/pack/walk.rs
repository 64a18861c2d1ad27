//! A tree read by descriptor: what each directory was when it was listed is what its entries are opened in, one name at a
//! time and never through a link. Names, contents and attributes are anybody's.

use std::{
    collections::HashMap,
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use nix::dir::Dir;

use super::{
    Notes, Options, PackError, Source,
    tar::{Header, Writer},
};
use crate::{
    image::unpack::{Kind, shown},
    sys::{Errno, fs},
};

type Result<T = ()> = std::result::Result<T, PackError>;
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
/// A FIFO in its place must not keep us, and a terminal not become ours.
const FILE: i32 = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
const ENTRY: i32 = libc::O_PATH | libc::O_NOFOLLOW;
const WHITEOUT: &[u8] = b".wh.";
const CHUNK: usize = 256 << 10;

/// One that is being read: only the innermost is open, since there may be more of them than descriptors.
struct Level {
    /// Of what is left, the last one is next.
    names: Vec<CString>,
    /// The length of its path, with a slash at the end.
    length: usize,
    /// Of the directory it is in.
    above: (libc::dev_t, libc::ino_t),
}

pub(super) struct Walk<'a, W> {
    options: &'a Options,
    to: Writer<W>,
    notes: Notes,
    /// The first name of files that have several.
    linked: HashMap<(libc::dev_t, libc::ino_t), Vec<u8>>,
    /// Where we are, relative to the root.
    path: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'a, W: Write> Walk<'a, W> {
    pub(super) fn new(options: &'a Options, to: W) -> Self {
        let buffer = vec![0; CHUNK];
        let to = Writer::new(to);
        Self { options, to, notes: Notes::default(), linked: HashMap::new(), path: Vec::new(), buffer }
    }

    pub(super) fn run(mut self, root: BorrowedFd<'_>) -> Result<(Notes, W)> {
        let mut here = fs::open_in(root, c".", DIRECTORY, 0, fs::BENEATH).map_err(self.failed("open"))?;
        let mut stat = self.stat(here.as_fd())?;
        let mut levels = vec![Level { names: self.begin_directory(here.as_fd(), &stat)?, length: 0, above: id(&stat) }];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.length);
            let Some(name) = level.names.pop() else {
                let above = level.above;
                levels.pop();
                if !levels.is_empty() {
                    here = fs::open_in(here.as_fd(), c"..", DIRECTORY, 0, 0).map_err(self.failed("leave"))?;
                    stat = self.stat(here.as_fd())?;
                    if id(&stat) != above {
                        return Err(PackError::Changed { path: shown(&self.path) });
                    }
                }
                continue;
            };
            self.path.extend_from_slice(name.to_bytes());
            if let Some((inner, found)) = self.entry(here.as_fd(), &name)? {
                self.path.push(b'/');
                let names = self.begin_directory(inner.as_fd(), &found)?;
                levels.push(Level { names, length: self.path.len(), above: id(&stat) });
                (here, stat) = (inner, found);
            }
        }
        let to = self.to.finish().map_err(PackError::Write)?;
        Ok((self.notes, to))
    }

    /// Tells of one entry. A directory is returned: it is to be read next.
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<(OwnedFd, libc::stat)>> {
        let entry = fs::open_in(parent, name, ENTRY, 0, fs::BENEATH).map_err(self.failed("look at"))?;
        let found = self.stat(entry.as_fd())?;
        let kind = found.st_mode & libc::S_IFMT;
        if name.to_bytes().starts_with(WHITEOUT) {
            return Err(self.untold("in a layer, a name that begins with `.wh.` means that something was removed"));
        }
        if self.path.len() as u64 > self.options.limits.path {
            return Err(self.beyond("bytes of a path", self.options.limits.path));
        }
        match kind {
            libc::S_IFDIR => {
                let inner = fs::open_in(parent, name, DIRECTORY, 0, fs::BENEATH).map_err(self.failed("open"))?;
                let opened = self.same(inner.as_fd(), &found)?;
                return Ok(Some((inner, opened)));
            }
            libc::S_IFSOCK => self.notes.sockets_left_out += 1,
            libc::S_IFCHR if found.st_rdev == 0 => match self.options.source {
                Source::Overlay => self.white_out()?,
                Source::Tree => return Err(self.untold("the device 0:0 means to overlayfs that something was removed")),
            },
            libc::S_IFREG => self.file(parent, name, &found)?,
            libc::S_IFLNK => {
                let mut target = [0; libc::PATH_MAX as usize];
                let target = fs::read_link(entry.as_fd(), &mut target).map_err(self.failed("read the link"))?;
                self.other(&found, Kind::Symlink, target)?;
            }
            libc::S_IFIFO => self.other(&found, Kind::Fifo, b"")?,
            _ => {
                let (major, minor) = (libc::major(found.st_rdev), libc::minor(found.st_rdev));
                let device = if kind == libc::S_IFCHR { Kind::Char(major, minor) } else { Kind::Block(major, minor) };
                self.other(&found, device, b"")?;
            }
        }
        Ok(None)
    }

    /// What is now at `path`: its entry, and the names in it, the last one first.
    fn begin_directory(&mut self, directory: BorrowedFd<'_>, found: &libc::stat) -> Result<Vec<CString>> {
        let (xattrs, overlay) = self.attributes(directory)?;
        let path = if self.path.is_empty() { b"./".to_vec() } else { self.path.clone() };
        self.tell(&Header { kind: Kind::Directory, path: &path, xattrs: &xattrs, ..header(found) })?;
        if overlay.opaque {
            self.marker(&[&self.path[..], b".wh..wh..opq"].concat())?;
        }
        if self.options.without.iter().any(|left_out| *left_out == self.path.strip_suffix(b"/").unwrap_or_default()) {
            return Ok(Vec::new());
        }
        let listed = fs::open_in(directory, c".", DIRECTORY, 0, fs::BENEATH).and_then(Dir::from_fd);
        let mut names = Vec::new();
        for name in listed.map_err(self.failed("list"))?.iter() {
            let name = name.map_err(self.failed("list"))?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
            if names.len() as u64 > self.options.limits.entries {
                return Err(self.beyond("files", self.options.limits.entries));
            }
        }
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(names)
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, found: &libc::stat) -> Result {
        let file = fs::open_in(parent, name, FILE, 0, fs::BENEATH).map_err(self.failed("open"))?;
        let found = self.same(file.as_fd(), found)?;
        let (xattrs, overlay) = self.attributes(file.as_fd())?;
        let size = found.st_size as u64;
        if overlay.whiteout && size == 0 {
            return self.white_out();
        }
        if self.is_linked(&found)? {
            return Ok(());
        }
        self.notes.bytes = self.notes.bytes.saturating_add(size);
        if self.notes.bytes > self.options.limits.bytes {
            return Err(self.beyond("bytes of files", self.options.limits.bytes));
        }
        let path = self.path.clone();
        self.tell(&Header { kind: Kind::File, path: &path, size, xattrs: &xattrs, ..header(&found) })?;
        let (mut file, mut left) = (File::from(file), size);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let read = match file.read(&mut self.buffer[..most]) {
                // Longer or shorter than it was: its entry is written already.
                Ok(0) => return Err(PackError::Changed { path: shown(&self.path) }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(PackError::Read { action: "read", path: shown(&self.path), source }),
                Ok(read) => read,
            };
            self.to.data().write_all(&self.buffer[..read]).map_err(PackError::Write)?;
            left -= read as u64;
        }
        Ok(())
    }

    fn other(&mut self, found: &libc::stat, kind: Kind, link: &[u8]) -> Result {
        if self.is_linked(found)? {
            return Ok(());
        }
        let path = self.path.clone();
        self.tell(&Header { kind, path: &path, link, ..header(found) })
    }

    /// Tells of a file that was told of under another name.
    fn is_linked(&mut self, found: &libc::stat) -> Result<bool> {
        if found.st_nlink < 2 {
            return Ok(false);
        }
        match self.linked.get(&id(found)).cloned() {
            Some(first) => {
                let path = self.path.clone();
                self.tell(&Header { kind: Kind::Hardlink, path: &path, link: &first, ..header(found) })?;
                Ok(true)
            }
            None => {
                self.linked.insert(id(found), self.path.clone());
                Ok(false)
            }
        }
    }

    fn white_out(&mut self) -> Result {
        let name = self.path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (above, name) = self.path.split_at(name);
        self.notes.whiteouts += 1;
        self.marker(&[above, WHITEOUT, name].concat())
    }

    /// Nobody owns it, and it was never made.
    fn marker(&mut self, path: &[u8]) -> Result {
        let plain =
            Header { kind: Kind::File, path, link: b"", mode: 0o600, uid: 0, gid: 0, mtime: 0, size: 0, xattrs: &[] };
        self.tell(&plain)
    }

    fn tell(&mut self, header: &Header<'_>) -> Result {
        self.notes.entries += 1;
        if self.notes.entries > self.options.limits.entries {
            return Err(self.beyond("files", self.options.limits.entries));
        }
        let mtime = self.options.newest.map_or(header.mtime, |newest| header.mtime.min(newest));
        let (uid, gid) = if self.was_there(header.path) { (0, 0) } else { (header.uid, header.gid) };
        self.to.begin(&Header { mtime, uid, gid, ..header.clone() }).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => {
                PackError::Untold { path: shown(header.path), why: "its extended attributes are over 1 MiB" }
            }
            _ => PackError::Write(error),
        })
    }

    fn was_there(&self, path: &[u8]) -> bool {
        let over = self.options.over.as_ref();
        over.is_some_and(|over| over.join(OsStr::from_bytes(path)).symlink_metadata().is_ok())
    }

    /// What a layer tells of them, by name, and what overlayfs said to itself.
    fn attributes(&mut self, file: BorrowedFd<'_>) -> Result<(Attributes, Own)> {
        let mut own = Own::default();
        let mut kept = Attributes::new();
        let failed = |walk: &Self| walk.failed("read the extended attributes of");
        for name in fs::attributes(file).map_err(failed(self))? {
            let text = name.to_bytes();
            let overlay = text.strip_prefix(b"user.overlay.").or_else(|| text.strip_prefix(b"trusted.overlay."));
            match overlay {
                Some(_) if self.options.source == Source::Tree => self.notes.attributes_left_out += 1,
                Some(b"opaque") => own.opaque = fs::attribute(file, &name).map_err(failed(self))? == b"y",
                Some(b"whiteout") => own.whiteout = true,
                Some(b"redirect" | b"metacopy") => {
                    return Err(self.untold("overlayfs keeps only half of it here, and the rest in a layer below"));
                }
                // What it says to itself, and what the program would have said to one of its own.
                Some(_) => {}
                // The name ends where a value begins.
                None if text.contains(&b'=') => self.notes.attributes_left_out += 1,
                None if text == b"security.capability" || text.starts_with(b"user.") => {
                    kept.push((text.to_vec(), fs::attribute(file, &name).map_err(failed(self))?));
                }
                None => self.notes.attributes_left_out += 1,
            }
        }
        kept.sort_unstable();
        Ok((kept, own))
    }

    fn stat(&self, file: BorrowedFd<'_>) -> Result<libc::stat> {
        fs::stat(file).map_err(self.failed("look at"))
    }

    /// What was opened, if it is what was looked at.
    fn same(&self, file: BorrowedFd<'_>, was: &libc::stat) -> Result<libc::stat> {
        let found = self.stat(file)?;
        let same = id(&found) == id(was) && found.st_mode & libc::S_IFMT == was.st_mode & libc::S_IFMT;
        if same { Ok(found) } else { Err(PackError::Changed { path: shown(&self.path) }) }
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(Errno) -> PackError + use<W> {
        let path = shown(if self.path.is_empty() { b"/" } else { &self.path });
        move |errno| PackError::Read { action, path, source: errno.into() }
    }

    fn untold(&self, why: &'static str) -> PackError {
        PackError::Untold { path: shown(&self.path), why }
    }

    fn beyond(&self, what: &'static str, most: u64) -> PackError {
        PackError::Beyond { what, most, path: shown(&self.path) }
    }
}

/// What overlayfs has written down in a file's attributes.
#[derive(Debug, Default)]
struct Own {
    opaque: bool,
    whiteout: bool,
}

fn id(stat: &libc::stat) -> (libc::dev_t, libc::ino_t) {
    (stat.st_dev, stat.st_ino)
}

/// All that is the same for every kind.
fn header<'a>(stat: &libc::stat) -> Header<'a> {
    Header {
        kind: Kind::File,
        path: b"",
        link: b"",
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        size: 0,
        xattrs: &[],
    }
}
