//! The directories that criu reads and writes, and what we keep there beside its images: where the three streams led.

use std::{
    ffi::CStr,
    fs::{DirBuilder, File, Metadata, Permissions},
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use super::{CriuError, InheritedFd, Result, outside::mount_id};
use crate::{host::mountinfo, sys::fs};

/// A directory that nobody but us can put anything in: criu follows the links it finds there, and believes the images.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    /// Opens it; `option` is what it was named with.
    pub fn open(path: &Path, option: &'static str) -> Result<Self> {
        let bad = |why: String| CriuError::Directory { at: format!("{option} {}", path.display()), why };
        // A slash at its end would have a link followed.
        let path: PathBuf = std::path::absolute(path).map_err(|error| bad(error.to_string()))?.components().collect();
        if path.symlink_metadata().map_err(|error| bad(error.to_string()))?.is_symlink() {
            return Err(bad("it is a link: name the directory itself".to_owned()));
        }
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let dir = File::options().read(true).custom_flags(flags).open(&path).map_err(|error| bad(error.to_string()))?;
        let found = dir.metadata().map_err(|error| bad(error.to_string()))?;
        let own = nix::unistd::geteuid().as_raw();
        if found.uid() != own {
            return Err(bad(format!(
                "it belongs to user {}, who could put links in it: it must be user {own}'s",
                found.uid()
            )));
        }
        if found.mode() & 0o022 != 0 {
            return Err(bad("others may write to it, and so put links in it".to_owned()));
        }
        Ok(Self { path, fd: dir.into() })
    }

    /// As [`Self::open`], and makes it where it is missing.
    pub fn make(path: &Path, option: &'static str) -> Result<Self> {
        let bad = |error: std::io::Error| CriuError::Directory {
            at: format!("{option} {}", path.display()),
            why: error.to_string(),
        };
        match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(bad)?;
            }
            other => _ = other.map_err(bad)?,
        }
        Self::open(path, option)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn descriptor(&self) -> &OwnedFd {
        &self.fd
    }

    /// For criu, which opens it by way of our /proc.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Itself and the images that it adds to.
    pub(super) fn and_parents(&self) -> Result<Vec<Self>> {
        let bad = |error: std::io::Error| CriuError::Directory {
            at: format!("--image-path {}", self.path.display()),
            why: error.to_string(),
        };
        let mut all = vec![Self { path: self.path.clone(), fd: self.fd.try_clone().map_err(bad)? }];
        while let Some(last) = all.last()
            && let Ok(parent) = std::fs::read_link(last.path.join("parent"))
        {
            // It may lead up, which the name of none of them shows.
            let at = last.path.join(parent);
            let real = std::fs::canonicalize(&at);
            let bad = |why: String| CriuError::Directory { at: at.display().to_string(), why };
            let real = real.map_err(|error| bad(error.to_string()))?;
            if all.len() > MOST_PARENTS {
                return Err(bad("there is no end of parents".to_owned()));
            }
            all.push(Self::open(&real, "--parent-path")?);
        }
        Ok(all)
    }

    /// Has its files read by the group that owns them, which is root's.
    pub(super) fn let_group_read(&self) -> std::io::Result<()> {
        let add = |path: &Path, found: &Metadata, mode: u32| match found.gid() == 0 && found.mode() & mode != mode {
            true => std::fs::set_permissions(path, Permissions::from_mode(found.mode() & 0o7777 | mode)),
            false => Ok(()),
        };
        // Of the directory that was looked at, whatever is called so by now.
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()));
        add(&path, &path.metadata()?, 0o050)?;
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            // Of the entry itself: links are passed over.
            let found = entry.metadata()?;
            if found.is_file() {
                add(&entry.path(), &found, 0o040)?;
            }
        }
        Ok(())
    }

    /// The same, opened in the mount namespace that we are in by now.
    pub(super) fn again(&self) -> Result<OwnedFd, String> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let open = || {
            let again = File::options().read(true).custom_flags(flags).open(&self.path)?;
            let (before, now) = (fs::stat(self.fd.as_fd())?, fs::stat(again.as_fd())?);
            match (before.st_dev, before.st_ino) == (now.st_dev, now.st_ino) {
                true => Ok(again.into()),
                false => Err(std::io::Error::other("it is another directory by now")),
            }
        };
        open().map_err(|error: std::io::Error| format!("{}: {error}", self.path.display()))
    }

    fn file(&self, name: &CStr, flags: i32) -> std::io::Result<File> {
        Ok(fs::open_in(self.fd.as_fd(), name, flags, if flags & libc::O_CREAT == 0 { 0 } else { 0o600 }, fs::BENEATH)?
            .into())
    }
}

/// Where a container's three streams led when it was saved, in the words of criu's: `pipe:[INODE]`, or
/// `file[MOUNT:INODE]` for a file outside the container.
#[derive(Debug)]
pub struct Streams(Vec<String>);

/// As many as anybody makes.
const MOST_PARENTS: usize = 256;

/// runc's name and form, so that either can restore what the other has saved.
const STREAMS: &CStr = c"descriptors.json";
const MOST: u64 = 64 << 10;

impl Streams {
    /// Those of the container's first process.
    #[must_use]
    pub fn of(init: i32) -> Self {
        let inside = mountinfo::of(&init.to_string()).unwrap_or_default();
        let name = |number: i32| {
            let link = PathBuf::from(format!("/proc/{init}/fd/{number}"));
            let leads = std::fs::read_link(&link).map(|to| to.display().to_string()).unwrap_or_default();
            let info = std::fs::read_to_string(format!("/proc/{init}/fdinfo/{number}")).unwrap_or_default();
            let mount =
                mount_id(&info).filter(|id| leads.starts_with('/') && inside.iter().all(|mount| mount.id != *id));
            match (mount, std::fs::metadata(&link)) {
                (Some(mount), Ok(found)) if found.is_file() => format!("file[{mount:x}:{:x}]", found.ino()),
                _ => leads,
            }
        };
        Self((0..3).map(name).collect())
    }

    pub fn save(&self, images: &Directory) -> Result {
        let text = serde_json::to_vec(&self.0).unwrap_or_default();
        images
            .file(STREAMS, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)
            .and_then(|mut file| file.write_all(&text))
            .map_err(|error| bad(images, &error))
    }

    pub fn load(images: &Directory) -> Result<Self> {
        let mut text = Vec::new();
        images
            .file(STREAMS, libc::O_RDONLY | libc::O_NONBLOCK)
            .and_then(|file| file.take(MOST).read_to_end(&mut text))
            .map_err(|error| bad(images, &error))?;
        serde_json::from_slice(&text).map(Self).map_err(|error| bad(images, &error))
    }

    /// What criu is not to look for inside.
    pub fn outside(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter(|name| name.starts_with("file[")).cloned()
    }

    /// Ours take their place.
    #[must_use]
    pub fn inherited(&self) -> Vec<InheritedFd> {
        let ours = self.0.iter().take(3).zip(0..);
        let leads_out = ours.filter(|(name, _)| name.starts_with("pipe:") || name.starts_with("file["));
        leads_out.map(|(name, number)| InheritedFd { key: name.clone(), number }).collect()
    }
}

fn bad(images: &Directory, why: &dyn std::error::Error) -> CriuError {
    let at = images.path().join(STREAMS.to_string_lossy().as_ref()).display().to_string();
    CriuError::Directory { at, why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_in_which_others_could_put_links_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let images = Directory::make(&dir.path().join("a/b"), "--image-path").unwrap();
        let mode = images.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        symlink(images.path(), dir.path().join("link")).unwrap();
        for link in ["link", "link/", "link/."] {
            let error = Directory::make(&dir.path().join(link), "--image-path").unwrap_err();
            assert!(error.to_string().contains("it is a link"), "{link}: {error}");
        }
        std::fs::set_permissions(images.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let error = Directory::open(images.path(), "--image-path").unwrap_err();
        assert!(error.to_string().contains("others may write to it"), "{error}");
        assert!(Directory::open(&dir.path().join("none"), "--image-path").is_err());
    }

    #[test]
    fn streams_are_kept_as_runc_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let images = Directory::make(&dir.path().join("i"), "--image-path").unwrap();
        let all = ["/dev/null", "pipe:[123]", "file[1f:a0]"].map(str::to_owned).to_vec();
        Streams(all).save(&images).unwrap();
        assert_eq!(
            std::fs::read_to_string(images.path().join("descriptors.json")).unwrap(),
            r#"["/dev/null","pipe:[123]","file[1f:a0]"]"#
        );
        let read = Streams::load(&images).unwrap();
        let inherited: Vec<_> = read.inherited().into_iter().map(|fd| (fd.key, fd.number)).collect();
        assert_eq!(inherited, [("pipe:[123]".to_owned(), 1), ("file[1f:a0]".to_owned(), 2)]);
        assert_eq!(read.outside().collect::<Vec<_>>(), ["file[1f:a0]"]);
        // What others put there leads nowhere else.
        std::fs::remove_file(images.path().join("descriptors.json")).unwrap();
        symlink("/etc/passwd", images.path().join("descriptors.json")).unwrap();
        assert!(Streams(Vec::new()).save(&images).is_err());
    }
}
