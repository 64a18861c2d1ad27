//! Takes files out of a sandbox whose processes are all dead.
//!
//! Every name and link in there was made by the program. Directories are walked by descriptor and no link is
//! followed, inside or out; only regular files are taken (a FIFO would block, a device would act); on the host
//! all happens below a directory that was opened before the program ran, and a file is made anew and renamed
//! over its name, so a link there is replaced and not followed
//! (CVE-2024-28185, CVE-2024-28189, CVE-2018-15664).

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::LaunchError;
use crate::{
    report::ProducedFile,
    request::{Bytes, Fetch, Fetched},
    spec::WORKDIR,
    sys::{
        Errno,
        clone::{self, Cloned},
        fs, process, socket,
    },
};

/// A pattern looks at no more than this many names, this deep.
const MAX_NAMES: usize = 100_000;
const MAX_DEPTH: usize = 64;

/// A wish, and the directory that its files go to: opened before the program ran, since a mount may have given
/// the program that very place to plant links in.
#[derive(Debug)]
pub(super) struct Target<'a> {
    fetch: &'a Fetch,
    /// None where nothing is written.
    dir: Option<OwnedFd>,
    /// The file's name there; `None` keeps its own.
    name: Option<OsString>,
}

impl<'a> Target<'a> {
    pub(super) fn open(fetch: &'a Fetch) -> Result<Self, LaunchError> {
        if fetch.how != Fetched::Copied {
            return Ok(Self { fetch, dir: None, name: None });
        }
        let to = fetch.to.clone().unwrap_or_else(|| PathBuf::from("."));
        let failed = |path: &Path, error: &std::io::Error| LaunchError::Fetch {
            path: PathBuf::from(&fetch.pattern),
            why: format!("cannot write to `{}`: {error}", path.display()),
        };
        let is_dir = fetch.is_pattern() || to.is_dir() || to.as_os_str().as_bytes().ends_with(b"/");
        if is_dir && !to.is_dir() {
            std::fs::create_dir(&to).map_err(|error| failed(&to, &error))?;
        }
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (dir, name) = if is_dir { (to.as_path(), None) } else { (parent, to.file_name().map(OsStr::to_owned)) };
        let opened = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(dir);
        Ok(Self { fetch, dir: Some(opened.map_err(|error| failed(dir, &error))?.into()), name })
    }
}

/// The sandbox's root, and a user namespace whose root may read what the caller may not: the files of a program
/// that has a subordinate id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inside<'a> {
    root: BorrowedFd<'a>,
    namespace: Option<BorrowedFd<'a>>,
}

impl<'a> Inside<'a> {
    pub(super) const fn new(root: BorrowedFd<'a>, namespace: Option<BorrowedFd<'a>>) -> Self {
        Self { root, namespace }
    }

    fn open(self, path: &Path, flags: i32) -> Result<OwnedFd, Errno> {
        let path = c_string(path.as_os_str())?;
        match (fs::open_in(self.root, &path, flags, 0, fs::IN_ROOT), self.namespace) {
            (Err(Errno::EACCES), Some(namespace)) => open_as_root_of(namespace, self.root, &path, flags),
            (opened, _) => opened,
        }
    }
}

/// Opens a file in a process that enters the namespace for it: with threads around us, we cannot.
fn open_as_root_of(namespace: BorrowedFd<'_>, root: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    let (ours, theirs) = socket::record_pair()?;
    let Cloned::Parent { pid, .. } = clone::clone_process(0, None)? else {
        let opened =
            clone::enter_user_namespace(namespace).and_then(|()| fs::open_in(root, path, flags, 0, fs::IN_ROOT));
        _ = match opened {
            Ok(fd) => socket::send(theirs.as_fd(), &[0; 4], Some(fd.as_fd())),
            Err(errno) => socket::send(theirs.as_fd(), &(errno as i32).to_ne_bytes(), None),
        };
        process::exit_now(0);
    };
    drop(theirs);
    let mut answer = [0; 4];
    let received = socket::receive(ours.as_fd(), &mut answer);
    // It has answered or is gone, and nobody else waits for it.
    _ = process::wait(pid, true);
    match received? {
        (4, Some(fd)) => Ok(fd),
        (4, None) => Err(Errno::from_raw(i32::from_ne_bytes(answer))),
        _ => Err(Errno::EIO),
    }
}

/// What was fetched, at most `most` bytes together, and the first thing that could not be.
pub(super) fn fetch(
    inside: Inside<'_>,
    targets: &[Target<'_>],
    most: Bytes,
) -> (Vec<ProducedFile>, Option<LaunchError>) {
    let mut files: Vec<ProducedFile> = Vec::new();
    let mut left = most.get();
    let result = targets.iter().try_for_each(|target| {
        let found = match find(inside, &Path::new(WORKDIR).join(&target.fetch.pattern)) {
            Err(_) if target.fetch.how != Fetched::Copied => return Ok(()),
            found => found?,
        };
        found.iter().try_for_each(|path| {
            let file = match copy(inside, path, target, left, most) {
                Err(_) if target.fetch.how == Fetched::Hashed => return Ok(()),
                file => file?,
            };
            left -= file.bytes;
            files.push(file);
            Ok(())
        })
    });
    (files, result.err())
}

/// The regular files that match, or an error when there is none.
fn find(inside: Inside<'_>, pattern: &Path) -> Result<Vec<PathBuf>, LaunchError> {
    let nothing = || LaunchError::Fetch { path: pattern.to_owned(), why: "no such file in the sandbox".to_owned() };
    let text = pattern.as_os_str().as_bytes();
    let Some(first) = text.iter().position(|byte| b"*?[{".contains(byte)) else {
        return Ok(vec![pattern.to_owned()]);
    };
    let start = Path::new(OsStr::from_bytes(&text[..first]));
    let start = if text[..first].ends_with(b"/") { start } else { start.parent().unwrap_or(Path::new("/")) };
    let mut found = Vec::new();
    let mut seen = 0;
    let mut pending = vec![(start.to_owned(), 0)];
    while let Some((dir, depth)) = pending.pop() {
        let Ok(fd) = inside.open(&dir, libc::O_RDONLY | libc::O_DIRECTORY) else { continue };
        let Ok(entries) = nix::dir::Dir::from_fd(fd) else { continue };
        for entry in entries.into_iter().flatten() {
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            seen += 1;
            if seen > MAX_NAMES || depth > MAX_DEPTH {
                return Err(LaunchError::Fetch {
                    path: pattern.to_owned(),
                    why: format!("over {MAX_NAMES} names to look at"),
                });
            }
            let path = dir.join(OsStr::from_bytes(name));
            match entry.file_type() {
                Some(nix::dir::Type::Directory) => pending.push((path, depth + 1)),
                Some(nix::dir::Type::File) if fast_glob::glob_match(text, path.as_os_str().as_bytes()) => {
                    found.push(path)
                }
                _ => {}
            }
        }
    }
    found.sort();
    if found.is_empty() { Err(nothing()) } else { Ok(found) }
}

fn copy(
    inside: Inside<'_>,
    path: &Path,
    target: &Target<'_>,
    left: u64,
    most: Bytes,
) -> Result<ProducedFile, LaunchError> {
    let failed = |why: String| LaunchError::Fetch { path: path.to_owned(), why };
    let fd = inside.open(path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY).map_err(|errno| {
        failed(match errno {
            Errno::ELOOP => "it is, or lies behind, a symlink".to_owned(),
            Errno::ENOENT => "no such file in the sandbox".to_owned(),
            errno => errno.desc().to_owned(),
        })
    })?;
    let stat = fs::stat(fd.as_fd()).map_err(|errno| failed(errno.desc().to_owned()))?;
    // The files of /proc are answers of the kernel, and some are about us.
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG || fs::is_proc(fd.as_fd()) {
        return Err(failed("it is not a regular file".to_owned()));
    }
    // A sparse one is as long as it says once it is copied.
    if stat.st_size as u64 > left {
        return Err(failed(format!("what is fetched is over {most} bytes (--sandbox-size)")));
    }
    let shown = path.strip_prefix(WORKDIR).unwrap_or(path).to_owned();
    let Some(target_dir) = &target.dir else {
        return hold(shown, File::from(fd), target.fetch.how, left, most).map_err(failed);
    };
    let written = |errno: Errno| failed(format!("cannot write it: {}", errno.desc()));
    // Files of a pattern keep their place below the working directory, so that none hides another.
    let kept =
        if target.fetch.is_pattern() { shown.as_path() } else { Path::new(path.file_name().unwrap_or_default()) };
    let (dir, name) = match &target.name {
        Some(name) => (target_dir.try_clone().map_err(|error| failed(error.to_string()))?, name.as_os_str()),
        None => (make_dirs(target_dir.as_fd(), kept.parent()).map_err(written)?, kept.file_name().unwrap_or_default()),
    };
    let name = c_string(name).map_err(written)?;
    let partial = c_string(OsStr::new(&format!(".fumehood-{}", std::process::id()))).map_err(written)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let out = fs::open_in(dir.as_fd(), &partial, flags, 0o666, fs::BENEATH).map_err(written)?;
    let copied = read_all(File::from(fd), left, |chunk| fs::write_all(out.as_fd(), chunk))
        .and_then(|done| fs::rename_over(dir.as_fd(), &partial, &name).map(|()| done));
    if copied.is_err() {
        // What was written is no use to anybody.
        _ = fs::remove_file(dir.as_fd(), &partial);
    }
    let (bytes, sha256) = copied.map_err(written)?;
    Ok(ProducedFile { path: shown, bytes, sha256, content: None })
}

/// What a file is, with or without its content.
fn hold(path: PathBuf, from: File, how: Fetched, left: u64, most: Bytes) -> Result<ProducedFile, String> {
    let mut content = match how {
        Fetched::Held(_) => Some(Vec::new()),
        Fetched::Copied | Fetched::Hashed => None,
    };
    let (bound, told) = match how {
        Fetched::Held(held) if held.get() < left => (held.get(), held),
        _ => (left, most),
    };
    let read = read_all(from, bound, |chunk| {
        content.iter_mut().for_each(|content| content.extend_from_slice(chunk));
        Ok(())
    });
    match read {
        Ok((bytes, sha256)) => Ok(ProducedFile { path, bytes, sha256, content: content.map(Arc::from) }),
        Err(Errno::EFBIG) => Err(format!("what is fetched is over {told} bytes")),
        Err(errno) => Err(errno.desc().to_owned()),
    }
}

fn read_all(
    mut from: File,
    most: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), Errno>,
) -> Result<(u64, [u8; 32]), Errno> {
    let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0, vec![0u8; 64 << 10]);
    loop {
        let length =
            from.read(&mut chunk).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        bytes += length as u64;
        if length == 0 {
            return Ok((bytes, hash.finalize().into()));
        }
        if bytes > most {
            return Err(Errno::EFBIG);
        }
        hash.update(&chunk[..length]);
        take(&chunk[..length])?;
    }
}

/// The directory `path` below `dir`, made where it is missing; a link on the way is an error.
fn make_dirs(dir: BorrowedFd<'_>, path: Option<&Path>) -> Result<OwnedFd, Errno> {
    let open =
        |dir: BorrowedFd<'_>, name: &CStr| fs::open_in(dir, name, libc::O_RDONLY | libc::O_DIRECTORY, 0, fs::BENEATH);
    path.into_iter().flat_map(Path::components).try_fold(open(dir, c".")?, |dir, part| {
        let Component::Normal(name) = part else { return Ok(dir) };
        let name = c_string(name)?;
        match fs::make_dir(dir.as_fd(), &name, 0o777) {
            Err(Errno::EEXIST) | Ok(()) => open(dir.as_fd(), &name),
            Err(errno) => Err(errno),
        }
    })
}

fn c_string(name: &OsStr) -> Result<CString, Errno> {
    CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("sandbox/d")).unwrap();
        std::fs::write(dir.path().join("sandbox/a.txt"), "abc").unwrap();
        std::fs::write(dir.path().join("sandbox/d/b.txt"), "de").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("sandbox/link.txt")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("sandbox/dir")).unwrap();
        let root = File::open(dir.path()).unwrap();
        (dir, root)
    }

    fn get(root: &File, pattern: &str, to: &Path) -> Result<Vec<ProducedFile>, LaunchError> {
        let wish = Fetch { pattern: pattern.to_owned(), to: Some(to.to_owned()), how: Fetched::Copied };
        let (files, error) = fetch(Inside::new(root.as_fd(), None), &[Target::open(&wish)?], Bytes::mib(1));
        error.map_or(Ok(files), Err)
    }

    #[test]
    fn files_come_out_whole() {
        let (_dir, root) = sandbox();
        let out = tempfile::tempdir().unwrap();
        let files = get(&root, "**/*.txt", out.path()).unwrap();
        assert_eq!(files.iter().map(|f| f.path.to_str().unwrap()).collect::<Vec<_>>(), ["a.txt", "d/b.txt"]);
        assert_eq!(std::fs::read(out.path().join("d/b.txt")).unwrap(), b"de");
        assert_eq!(files[0].sha256[..4], [0xba, 0x78, 0x16, 0xbf]);
        get(&root, "/sandbox/a.txt", &out.path().join("renamed")).unwrap();
        assert_eq!(std::fs::read(out.path().join("renamed")).unwrap(), b"abc");
    }

    #[test]
    fn cve_2024_28185_links_are_followed_on_neither_side() {
        let (_dir, root) = sandbox();
        let out = tempfile::tempdir().unwrap();
        for planted in ["link.txt", "dir/passwd", "/sandbox/dir/passwd"] {
            assert!(get(&root, planted, out.path()).is_err(), "{planted}");
        }
        let victim = out.path().join("victim");
        std::fs::write(&victim, "marker").unwrap();
        std::os::unix::fs::symlink(&victim, out.path().join("a.txt")).unwrap();
        get(&root, "a.txt", out.path()).unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"marker");
    }

    #[test]
    fn what_is_not_for_the_host_is_measured_or_held() {
        let (_dir, root) = sandbox();
        let wish = |pattern: &str, how| Fetch { pattern: pattern.to_owned(), to: None, how };
        let wishes = [
            wish("gone", Fetched::Hashed),
            wish("link.txt", Fetched::Hashed),
            wish("a.txt", Fetched::Hashed),
            wish("d/*", Fetched::Held(Bytes::new(2))),
        ];
        let targets: Vec<_> = wishes.iter().map(|wish| Target::open(wish).unwrap()).collect();
        let (files, error) = fetch(Inside::new(root.as_fd(), None), &targets, Bytes::mib(1));
        assert!(error.is_none(), "{error:?}");
        assert_eq!((files.len(), files[0].bytes, &files[0].content), (2, 3, &None));
        assert_eq!(files[1].content.as_deref(), Some(&b"de"[..]));
        let long = wish("a.txt", Fetched::Held(Bytes::new(2)));
        let (files, error) = fetch(Inside::new(root.as_fd(), None), &[Target::open(&long).unwrap()], Bytes::mib(1));
        assert!(files.is_empty() && error.unwrap().to_string().ends_with("over 2 bytes"));
    }

    #[test]
    fn a_link_planted_where_files_go_is_not_followed() {
        let (_dir, root) = sandbox();
        let (out, victim) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(victim.path(), out.path().join("d")).unwrap();
        assert!(get(&root, "d/*.txt", out.path()).is_err());
        assert_eq!(std::fs::read_dir(victim.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_sparse_file_does_not_fill_the_disk() {
        let (dir, root) = sandbox();
        File::create(dir.path().join("sandbox/big")).unwrap().set_len(1 << 40).unwrap();
        let out = tempfile::tempdir().unwrap();
        assert!(get(&root, "big", out.path()).is_err());
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_regular_file_stays_inside() {
        let (dir, root) = sandbox();
        nix::unistd::mkfifo(&dir.path().join("sandbox/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let out = tempfile::tempdir().unwrap();
        for odd in ["fifo", "d", "gone", "*.gone"] {
            assert!(get(&root, odd, out.path()).is_err(), "{odd}");
        }
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    }
}
