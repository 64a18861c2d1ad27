//! Debian's docker-registry on a port and in a directory of its own.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::made::Made;
use crate::common;

#[derive(Debug)]
pub struct Served {
    pub port: u16,
    dir: tempfile::TempDir,
    child: Child,
    tls: bool,
    login: Option<&'static str>,
}

/// `secret` as htpasswd keeps it (bcrypt), for the user `anna`.
const HTPASSWD: &str = "anna:$2y$05$abcdefghijklmnopqrstuuZVZ0tSMSlPRvDCxpfSLBvX0u4UGvtXK\n";

impl Served {
    pub fn plain(test: &str) -> Option<Self> {
        Self::start(test, false, None)
    }

    /// With a certificate of its own authority, [`Served::authority`], and a password.
    pub fn guarded(test: &str) -> Option<Self> {
        Self::start(test, true, Some("anna:secret"))
    }

    fn start(test: &str, tls: bool, login: Option<&'static str>) -> Option<Self> {
        for tool in ["docker-registry", "skopeo", "openssl"] {
            if !["/usr/bin", "/usr/local/bin"].iter().any(|dir| Path::new(dir).join(tool).exists()) {
                common::skip(test, &format!("{tool} is not installed"));
                return None;
            }
        }
        let dir = tempfile::Builder::new().prefix("fumehood-test-").tempdir_in("/tmp").unwrap();
        // Others look for the certificate in it.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        if tls {
            certify(dir.path());
        }
        // Somebody else may take the port between finding and using it.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let child = serve(dir.path(), port, tls, login.is_some());
            let mut served = Self { port, dir, child, tls, login };
            if served.wait() {
                return Some(served);
            }
            let log = fs::read_to_string(served.path("log")).unwrap_or_default();
            assert!(log.contains("address already in use"), "{log}");
            // Not dropped: the directory is needed.
            _ = served.child.wait();
            dir_of(served, &mut |moved| dir_slot(moved)).map_or_else(|| (), |_| ());
            return None;
        }
        None
    }
}
