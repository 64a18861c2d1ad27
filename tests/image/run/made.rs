//! An image that a test makes: a few files around busybox, and whatever configuration is wanted.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Output},
};

use fumehood::image::digest::Digest;
use serde_json::{Value, json};

use crate::common::{Place, Run, Who, skip};

/// What is in a layer: path, owner, mode, and bytes, or where a link leads; nothing else makes a directory.
#[derive(Debug)]
pub struct Entry<'a> {
    pub path: &'a str,
    pub owner: (u64, u64),
    pub mode: u32,
    pub kind: Kind<'a>,
}

#[derive(Debug)]
pub enum Kind<'a> {
    Dir,
    File(&'a [u8]),
    Link(&'a str),
}

pub const fn dir(path: &str, mode: u32) -> Entry<'_> {
    Entry { path, owner: (0, 0), mode, kind: Kind::Dir }
}

pub const fn file<'a>(path: &'a str, mode: u32, bytes: &'a [u8]) -> Entry<'a> {
    Entry { path, owner: (0, 0), mode, kind: Kind::File(bytes) }
}

pub const fn link<'a>(path: &'a str, to: &'a str) -> Entry<'a> {
    Entry { path, owner: (0, 0), mode: 0o777, kind: Kind::Link(to) }
}

impl Entry<'_> {
    pub const fn owned(self, uid: u64, gid: u64) -> Self {
        Self { owner: (uid, gid), ..self }
    }
}

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nsvc:x:7:8::/srv:/bin/sh\nme:x:1000:1001::/home/me:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:\nsvc:x:8:\nextra:x:50:svc\nme:x:1001:\n";

/// A store with an image called `made`.
#[derive(Debug)]
pub struct Made {
    pub place: Place,
    who: Who,
}

impl Made {
    /// `None`, said aloud, where there is no busybox. What is in `more` stands over what all have.
    pub fn new(who: Who, test: &str, config: &Value, more: &[Entry<'_>]) -> Option<Self> {
        let busybox = busybox();
        if busybox.is_empty() {
            skip(test, "apt install busybox-static");
            return None;
        }
        let made = Self { place: Place::new(who), who };
        let mut entries = vec![
            dir("bin", 0o755),
            dir("etc", 0o755),
            dir("srv", 0o755),
            dir("home", 0o755),
            dir("tmp", 0o1777),
            dir("root", 0o700),
            dir("home/me", 0o700).owned(1000, 1001),
            file("bin/busybox", 0o755, &busybox),
            file("etc/passwd", 0o644, PASSWD),
            file("etc/group", 0o644, GROUP),
            file("etc/os", 0o644, b"small\n"),
            file("root/secret", 0o600, b"hidden\n"),
        ];
        let applets =
            ["sh", "cat", "echo", "id", "ls", "touch", "stat", "env", "pwd", "rm", "dd", "mkdir", "readlink", "true"];
        let applets = applets.map(|applet| format!("bin/{applet}"));
        entries.extend(applets.iter().map(|path| link(path, "busybox")));
        entries.retain(|entry| !more.iter().any(|other| other.path == entry.path));
        made.layout(&layer(entries.iter().chain(more)), config);
        assert_eq!(
            text(&made.call(&["image", "import", "layout", "--name", "made"]).stdout),
            "docker.io/library/made:latest\n"
        );
        Some(made)
    }

    /// The OCI layout of one layer and this configuration.
    fn layout(&self, layer: &[u8], config: &Value) {
        let blob = |bytes: &[u8]| {
            let digest = Digest::of(bytes).to_string();
            self.place.write(format!("layout/blobs/{}", digest.replace(':', "/")), bytes);
            (digest, bytes.len())
        };
        let (layer, layer_size) = blob(layer);
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({"architecture": arch, "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer]}});
        let (config, config_size) = blob(config.to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_size}]});
        let (manifest, size) = blob(manifest.to_string().as_bytes());
        let index = json!({"schemaVersion": 2, "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": size}]});
        self.place.write("layout/index.json", index.to_string());
        self.place.write("layout/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    }

    pub fn store(&self) -> PathBuf {
        self.place.join("store")
    }

    /// A call beside the sandboxes, which succeeds.
    #[track_caller]
    pub fn call(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.place.binary());
        command.args(args).current_dir(self.place.path()).env_clear().env("FUMEHOOD_STORE", self.store());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.place.path());
        if let Some((uid, gid)) = self.who.ids() {
            use std::os::unix::process::CommandExt;
            command.uid(uid).gid(gid);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        output
    }

    pub fn run(&self) -> Run {
        self.verb("run")
    }

    pub fn verb(&self, verb: &'static str) -> Run {
        Run::verb(self.who, verb).env("FUMEHOOD_STORE", self.store()).args(["--image", "made"])
    }

    /// The directories of unpacked images.
    pub fn trees(&self) -> Vec<PathBuf> {
        fs::read_dir(self.store().join("trees")).unwrap().map(|entry| entry.unwrap().path().join("root")).collect()
    }
}

fn layer<'a>(entries: impl Iterator<Item = &'a Entry<'a>>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(entry.owner.0);
        header.set_gid(entry.owner.1);
        header.set_mtime(1_700_000_000);
        match entry.kind {
            Kind::Dir => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                tar.append_data(&mut header, entry.path, &b""[..]).unwrap();
            }
            Kind::File(bytes) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, entry.path, bytes).unwrap();
            }
            Kind::Link(to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, entry.path, to).unwrap();
            }
        }
    }
    let mut bytes = tar.into_inner().unwrap();
    bytes.flush().unwrap();
    bytes
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn busybox() -> Vec<u8> {
    ["/usr/bin/busybox", "/bin/busybox"].iter().find_map(|path| fs::read(path).ok()).unwrap_or_default()
}
