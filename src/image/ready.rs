//! An image that is ready to be run: unpacked, held, and what it says of itself.
//!
//! All of it is hostile. Its files are data to us: paths that it names are looked up within its own tree, by descriptor,
//! and what it says becomes part of a spec, which is checked as any other.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use super::{
    ImageError,
    digest::Digest,
    kept::Image,
    store::{Store, Tree},
    users::{self, Who},
};
use crate::{
    request::mounts::inside_path,
    sys::{Errno, fs},
};

type Result<T> = std::result::Result<T, ImageError>;

/// As many links as path_resolution(7) follows.
const MOST_LINKS: usize = 40;
/// More volumes than any image has.
const MOST_VOLUMES: usize = 64;
/// What is mounted or hidden there is not an image's to choose.
const RESERVED: [&str; 3] = ["/proc", "/dev", "/sys"];

/// As long as this lives, nobody removes its tree: `image prune` and `image rm` leave it for the next time.
#[derive(Debug)]
pub struct Ready {
    digest: Digest,
    tree: Tree,
    says: oci_spec::image::Config,
}

impl PartialEq for Ready {
    fn eq(&self, other: &Self) -> bool {
        (&self.digest, &self.tree.root) == (&other.digest, &other.tree.root)
    }
}

impl Eq for Ready {}

impl Ready {
    /// The image of this name in the store, unpacked now if it was not: `progress` is told of packed bytes then.
    pub fn find(store: &Store, name: &str, progress: &(dyn Fn(u64) + Sync)) -> Result<Self> {
        Self::of(store, &Image::find(store, name)?, progress)
    }

    pub fn of(store: &Store, image: &Image, progress: &(dyn Fn(u64) + Sync)) -> Result<Self> {
        let tree = image.tree(store, progress)?;
        Ok(Self { digest: image.digest.clone(), tree, says: image.config.config().clone().unwrap_or_default() })
    }

    /// Of the manifest.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.tree.root
    }

    #[must_use]
    pub fn entrypoint(&self) -> &[String] {
        self.says.entrypoint().as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn cmd(&self) -> &[String] {
        self.says.cmd().as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn env(&self) -> &[String] {
        self.says.env().as_deref().unwrap_or_default()
    }

    /// Absolute; one that is not is below `/`, as engines take it.
    #[must_use]
    pub fn workdir(&self) -> Option<PathBuf> {
        let dir = self.says.working_dir().as_deref().filter(|dir| !dir.is_empty())?;
        Some(Path::new("/").join(dir))
    }

    /// Who it wants to be, by its own files; nobody in particular, if it does not say.
    pub fn user(&self) -> Result<Option<Who>> {
        let user = self.says.user().as_deref().filter(|user| !user.is_empty());
        user.map(|user| users::find(user, self.root())).transpose()
    }

    /// Where its own /etc/passwd says that this user is at home.
    #[must_use]
    pub fn home(&self, uid: u32) -> Option<String> {
        users::find(&uid.to_string(), self.root()).ok().and_then(|who| who.home)
    }

    /// Its volumes where they really are, shorter ones first, and those that it cannot have.
    pub fn volumes(&self) -> Result<(Vec<PathBuf>, Vec<String>)> {
        let (mut volumes, mut refused) = (Vec::new(), Vec::new());
        let all = self.says.volumes().as_deref().unwrap_or_default();
        if all.len() > MOST_VOLUMES {
            let why = format!("{} volumes, and {MOST_VOLUMES} are the most", all.len());
            return Err(ImageError::Import { what: format!("image {}", self.digest.short()), why });
        }
        for volume in all {
            let found = match inside_path(Path::new(volume)) {
                Some(path) => Some(self.resolve(&path)?),
                None => None,
            };
            match found {
                Some(path) if path != Path::new("/") && !RESERVED.iter().any(|reserved| path.starts_with(reserved)) => {
                    volumes.push(path);
                }
                _ => refused.push(format!("volume {}", volume.escape_debug().take(100).collect::<String>())),
            }
        }
        volumes.sort_unstable();
        volumes.dedup();
        Ok((volumes, refused))
    }

    /// Whether a program of this name is in its PATH: a guess at what exec will find.
    #[must_use]
    pub fn has_program(&self, name: &str) -> bool {
        let path = self.env().iter().find_map(|assignment| assignment.strip_prefix("PATH="));
        let path = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        path.split(':').filter(|dir| dir.starts_with('/')).any(|dir| self.open(&Path::new(dir).join(name)).is_ok())
    }

    /// Whether the path leads to something inside.
    #[must_use]
    pub fn has(&self, path: &Path) -> bool {
        self.open(path).is_ok()
    }

    /// Where `path` leads, links followed within the tree. What is not there is below what is (CVE-2018-15664).
    pub fn resolve(&self, path: &Path) -> Result<PathBuf> {
        resolve(self.root(), path)
    }

    fn open(&self, path: &Path) -> std::result::Result<File, Errno> {
        open(self.root(), path)
    }
}

/// Where `path` leads within `root`, as [`Ready::resolve`].
pub fn resolve(root: &Path, path: &Path) -> Result<PathBuf> {
    let failed = |source: io::Error| ImageError::Io { action: "find", path: path.to_owned(), source };
    let name = |file: &File| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed);
    let top = name(&File::open(root).map_err(failed)?)?;
    // Links that lead nowhere are followed by hand, and only to where something can be made.
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match dangling(root, &path) {
            Some(next) => path = next,
            None => break,
        }
    }
    for above in path.ancestors() {
        match open(root, above) {
            Ok(found) => {
                let found = name(&found)?;
                let inside = found.strip_prefix(&top).map_err(|_| failed(io::ErrorKind::NotFound.into()))?;
                let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
                // Joined with nothing it would end with a slash.
                return Ok(Path::new("/").join(inside).join(rest).components().collect());
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Err(failed(io::ErrorKind::NotFound.into()))
}

/// Where `path` leads one link further, if it is a link to what is not there.
fn dangling(root: &Path, path: &Path) -> Option<PathBuf> {
    let (above, last) = (path.parent()?, path.file_name()?);
    if open(root, path).is_ok() {
        return None;
    }
    let above_it = open(root, above).ok()?;
    let last = CString::new(last.as_bytes()).ok()?;
    let link = fs::open_in(above_it.as_fd(), &last, libc::O_PATH | libc::O_NOFOLLOW, 0, fs::BENEATH).ok()?;
    let mut buffer = [0; libc::PATH_MAX as usize];
    let target = fs::read_link(link.as_fd(), &mut buffer).ok()?;
    let mut inside = PathBuf::from("/");
    for part in above.join(Path::new(std::ffi::OsStr::from_bytes(target))).components() {
        match part {
            Component::ParentDir => _ = inside.pop(),
            Component::Normal(name) => inside.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(inside)
}

fn open(root: &Path, path: &Path) -> std::result::Result<File, Errno> {
    let root = File::open(root).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    let inside = path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes();
    let inside = CString::new(if inside.is_empty() { b"." } else { inside }).map_err(|_| Errno::EINVAL)?;
    fs::open_in(root.as_fd(), &inside, libc::O_PATH, 0, fs::LINKS_IN_ROOT).map(File::from)
}
