//! What of a container's tree comes from outside of it: criu saves a name for each such mount, not what is in it, and
//! is told what to mount for the name when it restores.
//!
//! A mount is known by the file it shows, on which file system: its place in the container is the container's to
//! change, and with it could be changed what is mounted there later. What is mounted for a name comes from config.json
//! and from this host, never from an image.

use std::{
    ffi::CStr,
    fs::File,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use super::{CriuError, ExternalMount, Result};
use crate::{
    cgroup::container::Record as Cgroups,
    host::mountinfo::{self, Mounted},
    plan::{container::operations::From, setup::SetupOp},
};

/// What stands for a masked file, as runc calls it.
const NULL: &str = "/dev/null";
const DELETED: &str = "//deleted";

#[derive(Debug)]
struct Entry {
    name: String,
    source: PathBuf,
    /// The file system and the file on it; unknown of a source that is not there.
    shown: Option<(String, PathBuf)>,
    read_only: bool,
}

/// All mounts of a container that come from outside.
#[derive(Debug)]
pub struct Outside(Vec<Entry>);

impl Outside {
    /// What a container with this tree and these groups may have.
    pub fn of<'a>(setup: impl Iterator<Item = &'a SetupOp>, cgroups: Option<&Cgroups>) -> Result<Self> {
        let host = mountinfo::of("self")
            .map_err(|error| CriuError::Mount { at: "/proc/self/mountinfo".to_owned(), why: error.to_string() })?;
        let mut all = Self(Vec::new());
        for operation in setup {
            match operation {
                SetupOp::Mount(mount) => {
                    let name = text(mount.path.full());
                    let read_only = mount.attributes.read_only() || mount.recursive.read_only();
                    match &mount.from {
                        From::Bind { source, recursive, .. } => {
                            all.add(&host, name, path(source.as_c_str()), *recursive, read_only)?;
                        }
                        From::New(system) => {
                            if let Some(instead) = &system.instead {
                                all.add(&host, name, path(instead.source.as_c_str()), true, instead.read_only)?;
                            }
                        }
                        From::CgroupsV1 { .. } | From::Remount { .. } => {}
                    }
                }
                SetupOp::Node(node) if node.bind => {
                    all.add(&host, text(node.path.full()), path(node.host.as_c_str()), false, false)?;
                }
                _ => {}
            }
        }
        all.add(&host, NULL.to_owned(), Path::new(NULL), false, false)?;
        for (names, path) in cgroups.into_iter().flat_map(Cgroups::directories) {
            all.add(&host, format!("cgroup/{names}"), path, false, false)?;
        }
        Ok(all)
    }

    fn add(&mut self, host: &[Mounted], name: String, source: &Path, recursive: bool, read_only: bool) -> Result {
        let found = look(source, host).map_err(|why| CriuError::Mount { at: source.display().to_string(), why })?;
        if let (true, Some((real, _))) = (recursive, &found) {
            for mounted in host {
                if let Ok(below) = mounted.target.strip_prefix(real)
                    && !below.as_os_str().is_empty()
                {
                    self.0.push(Entry {
                        name: Path::new(&name).join(below).display().to_string(),
                        source: mounted.target.clone(),
                        shown: Some((mounted.device.clone(), mounted.root.clone())),
                        read_only: false,
                    });
                }
            }
        }
        self.0.push(Entry { name, source: source.to_owned(), shown: found.map(|(_, shown)| shown), read_only });
        Ok(())
    }

    /// The name of each mount that the container with this first process has from outside.
    pub fn to_save(&self, init: i32) -> Result<Vec<ExternalMount>> {
        let mounts = mountinfo::of(&init.to_string())
            .map_err(|error| CriuError::Mount { at: "the container's mounts".to_owned(), why: error.to_string() })?;
        let mut named = Vec::new();
        for mounted in mounts.iter().filter(|mounted| mounted.target != Path::new("/")) {
            if let Some(entry) = self.find(mounted)? {
                let key = mounted.target.display().to_string();
                named.push(ExternalMount { key, value: entry.name.clone() });
            }
        }
        Ok(named)
    }

    fn find(&self, mounted: &Mounted) -> Result<Option<&Entry>> {
        let here = |entry: &&Entry| Path::new(&entry.name) == mounted.target;
        let shows = |entry: &&Entry| {
            entry.shown.as_ref().is_some_and(|(device, root)| *device == mounted.device && *root == mounted.root)
        };
        let found = self.0.iter().filter(shows);
        if let Some(entry) = found.clone().find(here).or_else(|| found.clone().next()) {
            return Ok(Some(entry));
        }
        // The host has another file of that name by now, as of /etc/resolv.conf. What is mounted later keeps the
        // flags it has here, so those of another place may not be taken for its own.
        if !mounted.root.as_os_str().as_bytes().ends_with(DELETED.as_bytes()) {
            return Ok(None);
        }
        let writable = mounted.attributes.split(',').all(|word| word != "ro");
        match self.0.iter().find(here) {
            Some(entry) if entry.read_only && writable => Err(CriuError::Mount {
                at: entry.name.clone(),
                why: "what is mounted there is not read-only, and not what config.json wants there".to_owned(),
            }),
            found => Ok(found),
        }
    }

    /// What is to be mounted for each name.
    #[must_use]
    pub fn to_restore(&self) -> Vec<ExternalMount> {
        let external =
            |entry: &Entry| ExternalMount { key: entry.name.clone(), value: entry.source.display().to_string() };
        self.0.iter().map(external).collect()
    }
}

type Found = (PathBuf, (String, PathBuf));

/// Where `path` really is, and what it is of which file system; `None` if there is nothing.
fn look(path: &Path, host: &[Mounted]) -> std::result::Result<Option<Found>, String> {
    let file = match File::options().read(true).custom_flags(libc::O_PATH).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| error.to_string())?,
    };
    let number = file.as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).map_err(|error| error.to_string())?;
    let real = std::fs::read_link(format!("/proc/self/fd/{number}")).map_err(|error| error.to_string())?;
    let Some(mounted) = mount_id(&info).and_then(|id| host.iter().find(|mounted| mounted.id == id)) else {
        return Err("it is on no mount that is seen here".to_owned());
    };
    let below = real.strip_prefix(&mounted.target).map_err(|_| "it has been moved".to_owned())?;
    // Not `join`, which would end an empty one with a slash.
    let mut root = mounted.root.clone();
    root.extend(below);
    let device = mounted.device.clone();
    Ok(Some((real, (device, root))))
}

/// Of proc_pid_fdinfo(5).
pub(super) fn mount_id(info: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

fn path(text: &CStr) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(text.to_bytes()))
}

/// A path inside as config.json has it, which begins with a slash.
fn text(inside: &CStr) -> String {
    let text = inside.to_string_lossy();
    format!("/{}", text.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(device: &str, root: &str, target: &str, attributes: &str) -> Mounted {
        let (device, root, target) = (device.to_owned(), root.into(), target.into());
        Mounted {
            id: 1,
            device,
            root,
            target,
            attributes: attributes.to_owned(),
            kind: "ext4".to_owned(),
            options: String::new(),
        }
    }

    fn entry(name: &str, root: &str, read_only: bool) -> Entry {
        let (name, source) = (name.to_owned(), root.into());
        Entry { name, source, shown: Some(("8:1".to_owned(), root.into())), read_only }
    }

    /// A container that renames what is above its mounts has what is mounted there taken for what it is.
    #[test]
    fn a_mount_is_what_it_shows_wherever_it_is() {
        let all = Outside(vec![entry("/a", "/secret", true), entry("/b", "/data", false), entry("/c", "/data", false)]);
        let name = |root, target, attributes| {
            all.find(&mounted("8:1", root, target, attributes)).map(|found| found.map(|entry| entry.name.as_str()))
        };
        assert_eq!(name("/secret", "/a", "ro").unwrap(), Some("/a"));
        assert_eq!(name("/data", "/a", "rw").unwrap(), Some("/b"), "not what its place is for");
        assert_eq!(name("/data", "/c", "rw").unwrap(), Some("/c"), "of two alike the one in its place");
        assert_eq!(name("/other", "/a", "rw").unwrap(), None);
        assert!(all.find(&mounted("8:2", "/secret", "/a", "ro")).unwrap().is_none());
        assert_eq!(name("/old//deleted", "/a", "ro").unwrap(), Some("/a"));
        assert_eq!(name("/old//deleted", "/b", "rw").unwrap(), Some("/b"));
        assert!(name("/old//deleted", "/a", "rw").is_err());
    }

    #[test]
    fn what_a_path_shows_is_found() {
        let host = mountinfo::of("self").unwrap();
        let (real, (device, root)) = look(Path::new("/dev/null"), &host).unwrap().unwrap();
        assert_eq!(real, Path::new("/dev/null"));
        assert!(root.ends_with("null") && device.contains(':'), "{root:?} {device}");
        assert!(look(Path::new("/nowhere/at/all"), &host).unwrap().is_none());
    }
}
