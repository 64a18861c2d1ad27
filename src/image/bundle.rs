//! An image as an OCI bundle: `rootfs` and a config.json that does what the image says (image-spec `conversion.md`).

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    ImageError,
    kept::Image,
    store::{self, Store},
    unpack::{self, Limits, Notes},
    users,
};

use crate::spec::container::{TEMPLATE, template};

type Result<T = ()> = std::result::Result<T, ImageError>;

/// The directory that is to be a bundle; what was put there is removed unless it became one.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    /// It was not there before.
    ours: bool,
    done: bool,
}

/// A directory in the destination for what is only needed meanwhile.
#[derive(Debug)]
pub struct PutBy(PathBuf);

impl PutBy {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for PutBy {
    fn drop(&mut self) {
        _ = store::remove(&self.0);
    }
}

const PUT_BY: &str = ".fumehood";

impl Destination {
    /// Only the owner may enter it: what has set-id bits in it is not for the host's other users (CVE-2021-41103).
    pub fn make(path: &Path) -> Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => Ok(Self { path: path.to_owned(), ours: true, done: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                close(path)?;
                let mut entries = fs::read_dir(path).map_err(ImageError::io("read", path))?;
                if entries.next().is_some() {
                    return Err(ImageError::NotEmpty { path: path.to_owned() });
                }
                Ok(Self { path: path.to_owned(), ours: false, done: false })
            }
            Err(error) => Err(ImageError::io("make", path)(error)),
        }
    }

    pub fn put_by(&self) -> Result<PutBy> {
        let path = self.path.join(PUT_BY);
        DirBuilder::new().mode(0o700).create(&path).map_err(ImageError::io("make", &path))?;
        Ok(PutBy(path))
    }
}

/// Keeps everybody else out of a directory of the caller's.
fn close(path: &Path) -> Result {
    let options = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path);
    let dir = options.map_err(ImageError::io("open", path))?;
    let found = dir.metadata().map_err(ImageError::io("look at", path))?;
    if found.uid() != nix::unistd::geteuid().as_raw() {
        let why = "it is somebody else's, who would have all that is in the image".to_owned();
        return Err(ImageError::Import { what: format!("`{}`", path.display()), why });
    }
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    dir.set_permissions(Permissions::from_mode(0o700)).map_err(ImageError::io("close", path))
}

impl Drop for Destination {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if self.ours {
            _ = store::remove(&self.path);
        } else {
            _ = store::remove(&self.path.join("rootfs"));
            _ = fs::remove_file(self.path.join("config.json"));
        }
    }
}

/// What is to be told of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    pub notes: Notes,
    /// The image names another user, whom an ordinary user's bundle cannot have.
    pub runs_as_root: bool,
}

/// Unpacks the image into the destination, and says how to run it.
pub fn unpack(
    store: &Store,
    image: &Image,
    mut destination: Destination,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Unpacked> {
    let root = destination.path.join("rootfs");
    DirBuilder::new().mode(0o755).create(&root).map_err(ImageError::io("make", &root))?;
    let into = File::open(&root).map_err(ImageError::io("open", &root))?;
    let notes = unpack::unpack(image.layers(store)?, into.into(), Limits::default(), progress)
        .map_err(super::store::StoreError::from)?;
    let (config, runs_as_root) = config(image, &root)?;
    let path = destination.path.join("config.json");
    let file = File::options().write(true).create_new(true).mode(0o644).open(&path);
    let written = file.and_then(|mut file| {
        serde_json::to_writer_pretty(&mut file, &config)?;
        file.write_all(b"\n")
    });
    written.map_err(ImageError::io("write", path))?;
    destination.done = true;
    Ok(Unpacked { notes, runs_as_root })
}

/// The config.json: what `fumehood-oci spec` writes, with the image's own choices. Its labels are no annotations:
/// those are for the runtime to obey (CVE-2026-53488).
fn config(image: &Image, root: &Path) -> Result<(Value, bool)> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let template = match uid.is_root() {
        true => TEMPLATE.to_owned(),
        false => template::rootless(uid.as_raw(), gid.as_raw()),
    };
    let mut spec: Value = serde_json::from_str(&template)
        .map_err(|error| ImageError::Import { what: "config.json".to_owned(), why: error.to_string() })?;
    let empty = oci_spec::image::Config::default();
    let config = image.config.config().as_ref().unwrap_or(&empty);
    let who = users::find(config.user().as_deref().unwrap_or_default(), root)?;
    let argv: Vec<&String> = config.entrypoint().iter().flatten().chain(config.cmd().iter().flatten()).collect();
    let process = &mut spec["process"];
    process["terminal"] = false.into();
    process["args"] = if argv.is_empty() { json!(["sh"]) } else { json!(argv) };
    // An ordinary user has one id, and all the files are that one's.
    let only_root = !uid.is_root() && (who.uid, who.gid) != (0, 0);
    process["user"] = match uid.is_root() {
        true => json!({ "uid": who.uid, "gid": who.gid, "additionalGids": who.groups }),
        false => json!({ "uid": 0, "gid": 0 }),
    };
    let mut env = config.env().clone().unwrap_or_default();
    env.retain(|entry| entry.find('=').is_some_and(|at| at > 0));
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    }
    process["env"] = json!(env);
    let cwd = config.working_dir().as_deref().filter(|dir| dir.starts_with('/')).unwrap_or("/");
    process["cwd"] = cwd.into();
    // Nothing in it is newer, and old runtimes ask.
    spec["ociVersion"] = "1.0.2".into();
    spec["root"] = json!({ "path": "rootfs", "readonly": false });
    spec["hostname"] = "fumehood".into();
    Ok((spec, only_root))
}
