//! A registry behind TLS that leads elsewhere.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{liar::Liar, served::certify};
use crate::common;

pub struct Secure {
    pub port: u16,
    dir: tempfile::TempDir,
    child: Child,
}

/// Leads whoever asks for what has the word in its path to the second port, without TLS, and brings all else from the
/// first one.
const SERVER: &str = r#"
import http.server, ssl, sys, urllib.error, urllib.request
behind, elsewhere, word = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def do_HEAD(self): self.do_GET()
    def log_message(self, *_): pass
    def do_GET(self):
        if word in self.path and self.path != "/v2/":
            self.send_response(307)
            self.send_header("Location", f"http://127.0.0.1:{elsewhere}{self.path}")
            return self.end_headers()
        with urllib.request.urlopen(f"http://127.0.0.1:{behind}{self.path}") as answer:
            self.send_response(200)
            for name in ["Content-Type", "Content-Length", "Docker-Content-Digest"]:
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(answer.read())
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.crt", "server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

impl Secure {
    /// `word`: what is led elsewhere; nothing is everything.
    pub fn start(behind: &Liar, elsewhere: &Liar, word: &str) -> Option<Self> {
        for tool in ["python3", "openssl"] {
            if !Path::new("/usr/bin").join(tool).exists() {
                common::skip("registry::hostile", &format!("{tool} is not installed"));
                return None;
            }
        }
        let dir = tempfile::Builder::new().prefix("fumehood-test-").tempdir_in("/tmp").unwrap();
        // An ordinary user reads the authority's certificate in it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        certify(dir.path());
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", SERVER, &behind.port.to_string(), &elsewhere.port.to_string(), word])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Some(Self { port: line.trim().parse().unwrap(), dir, child })
    }

    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
