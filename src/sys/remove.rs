//! Removing a tree, however deep it is and whatever rights it has: what is in it is anybody's.

use std::os::fd::{AsFd, BorrowedFd};

use nix::{
    dir::Dir,
    sys::stat::{FchmodatFlags, Mode, fchmodat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{Errno, Result, fs};

const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// Removes all that is in a directory, which nobody else changes. No link is followed, and only one directory below it is
/// open at a time: a tree may be deeper than there are descriptors. `open_up`: its owner, whom rights of directories may
/// keep out, gives these to themselves.
pub fn remove_all(dir: BorrowedFd<'_>, open_up: bool) -> Result<()> {
    let mut here = fs::open_in(dir, c".", DIRECTORY, 0, fs::BENEATH)?;
    let mut names = Vec::new();
    loop {
        let listed = Dir::from_fd(fs::open_in(here.as_fd(), c".", DIRECTORY, 0, fs::BENEATH)?)?;
        let mut inner = None;
        for entry in listed {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match unlinkat(&here, name, UnlinkatFlags::NoRemoveDir) {
                Err(Errno::EISDIR | Errno::EPERM) => {}
                done => {
                    done?;
                    continue;
                }
            }
            match unlinkat(&here, name, UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
                    inner = Some(name.to_owned());
                    break;
                }
                done => done?,
            }
        }
        match inner {
            Some(name) => {
                if open_up {
                    fchmodat(&here, name.as_c_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
                }
                here = fs::open_in(here.as_fd(), &name, DIRECTORY, 0, fs::BENEATH)?;
                names.push(name);
            }
            None => {
                let Some(name) = names.pop() else { return Ok(()) };
                here = fs::open_in(here.as_fd(), c"..", DIRECTORY, 0, 0)?;
                unlinkat(&here, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::OwnedFd, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn nothing_is_left_however_deep_it_was() {
        let place = tempfile::tempdir().unwrap();
        let marker = place.path().join("marker");
        std::fs::write(&marker, "untouched").unwrap();
        let root = place.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        for name in ["f", "a/f", "a/b/f"] {
            std::fs::write(root.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(place.path(), root.join("a/link")).unwrap();
        std::fs::set_permissions(root.join("a/b"), std::fs::Permissions::from_mode(0o0)).unwrap();
        let mut at: OwnedFd = File::open(&root).unwrap().into();
        for _ in 0..2000 {
            fs::make_dir(at.as_fd(), c"deep", 0o700).unwrap();
            at = fs::open_in(at.as_fd(), c"deep", libc::O_PATH | libc::O_DIRECTORY, 0, 0).unwrap();
        }
        drop(at);
        remove_all(File::open(&root).unwrap().as_fd(), true).unwrap();
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(marker).unwrap(), "untouched");
    }
}
