//! Takes files out of a sandbox whose processes are all dead.
//!
//! Every name and link in there was made by the program. Directories are walked by descriptor and no link is
//! followed, inside or out; only regular files are taken (a FIFO would block, a device would act); on the host
//! a file is made anew beside its name and renamed over it, so a link there is replaced and not followed
//! (CVE-2024-28185, CVE-2024-28189, CVE-2018-15664).

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::LaunchError;
use crate::{
    report::ProducedFile,
    request::Fetch,
    spec::WORKDIR,
    sys::{Errno, fs},
};

/// A pattern looks at no more than this many names, this deep.
const MAX_NAMES: usize = 100_000;
const MAX_DEPTH: usize = 64;

/// What was fetched, and the first thing that could not be.
pub(super) fn fetch(root: BorrowedFd<'_>, wanted: &[Fetch]) -> (Vec<ProducedFile>, Option<LaunchError>) {
    let mut files = Vec::new();
    let result = wanted.iter().try_for_each(|fetch| {
        let pattern = Path::new(WORKDIR).join(&fetch.pattern);
        let many = fetch.pattern.contains(['*', '?', '[', '{']);
        find(root, &pattern)?.iter().try_for_each(|path| {
            files.push(copy(root, path, &target(fetch, path, many), many)?);
            Ok(())
        })
    });
    (files, result.err())
}

/// The regular files that match, or an error when there is none.
fn find(root: BorrowedFd<'_>, pattern: &Path) -> Result<Vec<PathBuf>, LaunchError> {
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
        let Ok(fd) = open(root, &dir, libc::O_RDONLY | libc::O_DIRECTORY) else { continue };
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

/// Where a file goes: into the directory given, or to the name given.
fn target(fetch: &Fetch, path: &Path, many: bool) -> PathBuf {
    let name = path.file_name().unwrap_or(OsStr::new("file"));
    match &fetch.to {
        None => PathBuf::from(name),
        Some(to) if many || to.is_dir() || to.as_os_str().as_bytes().ends_with(b"/") => {
            // Files of a pattern keep their place below the working directory, so that none hides another.
            let below = path.strip_prefix(WORKDIR).unwrap_or(Path::new(name));
            to.join(if many { below } else { Path::new(name) })
        }
        Some(to) => to.clone(),
    }
}

fn copy(root: BorrowedFd<'_>, path: &Path, target: &Path, make_dirs: bool) -> Result<ProducedFile, LaunchError> {
    let failed = |why: String| LaunchError::Fetch { path: path.to_owned(), why };
    let fd = open(root, path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY).map_err(|errno| {
        failed(match errno {
            Errno::ELOOP => "it is, or lies behind, a symlink".to_owned(),
            Errno::ENOENT => "no such file in the sandbox".to_owned(),
            errno => errno.desc().to_owned(),
        })
    })?;
    let stat = fs::stat(fd.as_fd()).map_err(|errno| failed(errno.desc().to_owned()))?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(failed("it is not a regular file".to_owned()));
    }
    let written = |error: std::io::Error| failed(format!("cannot write `{}`: {error}", target.display()));
    if make_dirs && let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(written)?;
    }
    let mut partial = target.as_os_str().to_owned();
    partial.push(format!(".fumehood-{}", std::process::id()));
    let mut out = File::options().write(true).create_new(true).open(&partial).map_err(written)?;
    let mut file = File::from(fd);
    let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0, vec![0u8; 64 << 10]);
    let copied = loop {
        match file.read(&mut chunk) {
            Ok(0) => break std::fs::rename(&partial, target),
            Err(error) => break Err(error),
            Ok(length) => {
                hash.update(&chunk[..length]);
                bytes += length as u64;
                if let Err(error) = out.write_all(&chunk[..length]) {
                    break Err(error);
                }
            }
        }
    };
    if let Err(error) = copied {
        // What was written is no use to anybody.
        _ = std::fs::remove_file(&partial);
        return Err(written(error));
    }
    let shown = path.strip_prefix(WORKDIR).unwrap_or(path).to_owned();
    Ok(ProducedFile { path: shown, bytes, sha256: hash.finalize().into() })
}

fn open(root: BorrowedFd<'_>, path: &Path, flags: i32) -> Result<std::os::fd::OwnedFd, Errno> {
    let path: CString = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let path: &CStr = &path;
    fs::open_in(root, path, flags, 0, fs::IN_ROOT)
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
        let (files, error) = fetch(root.as_fd(), &[Fetch { pattern: pattern.to_owned(), to: Some(to.to_owned()) }]);
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
