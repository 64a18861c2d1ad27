//! Debian's docker-registry on a port and in a directory of its own.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::made::Made;
use crate::common::{self, LONGEST};

#[derive(Debug)]
pub struct Served {
    pub port: u16,
    dir: tempfile::TempDir,
    child: Child,
    guarded: bool,
}

/// `secret` as htpasswd keeps it (bcrypt), for the user `anna`.
const HTPASSWD: &str = "anna:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

impl Served {
    pub fn plain(test: &str) -> Option<Self> {
        Self::start(test, false)
    }

    /// With a certificate of its own authority, [`Served::authority`], and a password.
    pub fn guarded(test: &str) -> Option<Self> {
        Self::start(test, true)
    }

    fn start(test: &str, guarded: bool) -> Option<Self> {
        for tool in ["docker-registry", "skopeo", "openssl"] {
            if !Path::new("/usr/bin").join(tool).exists() {
                common::skip(test, &format!("{tool} is not installed"));
                return None;
            }
        }
        let dir = tempfile::Builder::new().prefix("fumehood-test-").tempdir_in("/tmp").unwrap();
        // An ordinary user reads the authority's certificate in it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if guarded {
            certify(dir.path());
        }
        // Somebody else may take the port between finding and using it.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut child = serve(dir.path(), port, guarded);
            if is_up(&mut child, port) {
                return Some(Self { port, dir, child, guarded });
            }
        }
        panic!("{}", fs::read_to_string(dir.path().join("log")).unwrap_or_default());
    }

    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// `127.0.0.1:PORT/name`
    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Puts an image there as others do.
    pub fn put(&self, made: &Made, name: &str) {
        let layout = tempfile::tempdir_in(self.dir.path()).unwrap();
        made.write(layout.path());
        let from = format!("oci:{}:it", layout.path().display());
        let to = format!("docker://{}", self.name(name));
        let login: &[&str] = if self.guarded { &["--dest-creds", "anna:secret"] } else { &[] };
        skopeo(
            &[&["copy", "-q", "--all", "--preserve-digests", "--dest-tls-verify=false"], login, &[&from, &to]].concat(),
        );
    }

    /// Reads an image as others do: the digests of its layers.
    pub fn layers(&self, name: &str) -> Vec<String> {
        let login: &[&str] = if self.guarded { &["--creds", "anna:secret"] } else { &[] };
        let at = format!("docker://{}", self.name(name));
        let out = skopeo(&[&["inspect", "--tls-verify=false"], login, &[&at]].concat());
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        value["Layers"].as_array().unwrap().iter().map(|layer| layer.as_str().unwrap().to_owned()).collect()
    }

    /// Every byte of an image as others fetch it, by digest.
    pub fn fetched(&self, name: &str) -> Vec<PathBuf> {
        let to = self.dir.path().join("fetched");
        let login: &[&str] = if self.guarded { &["--src-creds", "anna:secret"] } else { &[] };
        let (from, into) = (format!("docker://{}", self.name(name)), format!("dir:{}", to.display()));
        skopeo(&[&["copy", "-q", "--preserve-digests", "--src-tls-verify=false"], login, &[&from, &into]].concat());
        fs::read_dir(to).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

pub fn skopeo(args: &[&str]) -> Vec<u8> {
    // None of the credentials that this user may have.
    let done = Command::new("skopeo").args(args).env("REGISTRY_AUTH_FILE", "/none").output().unwrap();
    assert!(done.status.success(), "skopeo {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

fn serve(dir: &Path, port: u16, guarded: bool) -> Child {
    let at = |name: &str| dir.join(name).display().to_string();
    let (mut http, mut auth) = (format!("  addr: 127.0.0.1:{port}\n  secret: x\n"), String::new());
    if guarded {
        fs::write(at("htpasswd"), HTPASSWD).unwrap();
        http += &format!("  tls:\n    certificate: {}\n    key: {}\n", at("server.crt"), at("server.key"));
        auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", at("htpasswd"));
    }
    let data = at("data");
    let text = format!("version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {data}\nhttp:\n{http}{auth}");
    fs::write(at("config.yml"), text).unwrap();
    let log = fs::File::create(at("log")).unwrap();
    Command::new("docker-registry")
        .args(["serve", &at("config.yml")])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn is_up(child: &mut Child, port: u16) -> bool {
    let since = Instant::now();
    while since.elapsed() < LONGEST {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    _ = child.kill();
    _ = child.wait();
    false
}

/// An authority and its certificate for 127.0.0.1.
pub fn certify(dir: &Path) {
    let openssl = |args: &[&str]| {
        let done = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
        assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(
        &[&["req", "-x509"], &key[..], &["-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=test"]]
            .concat(),
    );
    openssl(&[&["req"], &key[..], &["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1"]].concat());
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "names",
        "-out",
        "server.crt",
    ]);
    fs::set_permissions(dir.join("ca.crt"), fs::Permissions::from_mode(0o644)).unwrap();
}
