//! Two hosts: the one that the test runs on, and the world beyond, where the servers are.
//!
//! Both are network namespaces that end with the test, so no test sees another's, and none the machine's own. Addresses
//! are those that real hosts have, since others are denied.

use std::{
    fs::{self, File},
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt},
};

use crate::common::{Place, Run, Who, host::eventually, skip};

/// Where the names are that tests use, and what else is out there.
pub const ALLOWED: &str = "allowed.example.org";
pub const OTHER: &str = "other.example.org";
pub const REBOUND: &str = "rebound.example.org";
const HOSTS: &str = "127.0.0.1 localhost
93.184.215.14 allowed.example.org
93.184.215.15 other.example.org
10.9.9.9 rebound.example.org
127.0.0.1 rebound-to-loopback.example.org
169.254.169.254 rebound-to-metadata.example.org
5.5.5.1 rebound-to-host.example.org
";
const ADDRESSES: [&str; 6] = ["93.184.215.14", "93.184.215.15", "10.9.9.9", "169.254.169.254", "1.1.1.1", "8.8.8.8"];

/// A script of busybox's shell that tries everything, and tells each that came to nothing.
#[allow(dead_code, reason = "for the rings about containers")]
pub const TRY: &str = r#"
get() {
    address=$1
    case $1 in *.org) address=$(busybox nslookup -type=a $1 2>&1 | busybox awk "/^Name:/ { found = 1 } found && /^Address/ { print \$2 }") ;; esac
    busybox timeout 20 busybox wget -q -O - --header "Host: $1" "http://${address:-0.0.0.0}$2" 2>/dev/null || echo "not $1"
}
get allowed.example.org /a
get other.example.org /b
get rebound.example.org /c
get 1.1.1.1 /d
get 10.9.9.9 /e
get 169.254.169.254 /f
get 5.5.5.1 /g
get 127.0.0.1 /h
get 198.18.0.1 /i
busybox timeout 2 busybox tftp -g -r x -l /dev/null 1.1.1.1 9999 2>/dev/null
busybox timeout 2 busybox tftp -g -r x -l /dev/null 93.184.215.14 443 2>/dev/null
busybox ping -c 1 -W 1 1.1.1.1 >/dev/null 2>&1 && echo ping
true
"#;
/// What it says where [`ALLOWED`] is allowed, and whatever is at [`REBOUND`].
#[allow(dead_code, reason = "for the rings about containers")]
pub const OUTCOME: &str = "/a of allowed.example.org\nnot other.example.org\nnot rebound.example.org\nnot 1.1.1.1\n\
not 10.9.9.9\nnot 169.254.169.254\nnot 5.5.5.1\nnot 127.0.0.1\nnot 198.18.0.1\n";

/// Answers each request with what it was asked, over HTTP and HTTPS, and writes a line for whatever reaches it.
const SERVER: &str = r#"
import hashlib, http.server, socket, socketserver, ssl, sys, threading
log = open(sys.argv[1], "a", buffering=1)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{self.path} of {self.headers['Host']}\n".encode()
        log.write(f"{self.connection.getsockname()[0]} {self.path} {self.headers['Host']}\n")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        if self.headers["Transfer-Encoding"] == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = f"{len(body)} {hashlib.sha256(body).hexdigest()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *args): pass
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024
    def get_request(self):
        connection, address = super().get_request()
        log.write(f"{connection.getsockname()[0]} connected\n")
        return connection, address
    def handle_error(self, request, address): pass
plain, secure = Server(("0.0.0.0", 80), Handler), Server(("0.0.0.0", 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])
secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
banner = Server(("0.0.0.0", 2222), type("Banner", (socketserver.BaseRequestHandler,), {
    "handle": lambda self: (self.request.sendall(b"SSH-2.0-test\r\n"), self.request.sendall(self.request.recv(99)))}))
def echo(address, port):
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.bind((address, port))
    while True:
        said, client = end.recvfrom(65535)
        log.write(f"{address}:{port} udp {len(said)}\n")
        end.sendto(said, client)
for place in [(a, p) for a in ("93.184.215.14", "93.184.215.15", "10.9.9.9", "1.1.1.1") for p in (443, 9999)]:
    threading.Thread(target=echo, args=place, daemon=True).start()
for server in (plain, secure, banner): threading.Thread(target=server.serve_forever, daemon=True).start()
log.write("ready\n")
threading.Event().wait()
"#;

pub struct World {
    servers: Child,
    log: PathBuf,
    /// Sees every packet that comes there.
    wire: OwnedFd,
    beyond: String,
    _open: File,
    /// Lets the thread end that holds the other host's namespace.
    _end: mpsc::Sender<()>,
    _place: Place,
}

impl World {
    /// For the calling thread, and the threads and processes that it will start; `None`, said aloud, where the kernel
    /// does not allow that.
    pub fn new(test: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip(test, "networks for it are made by root alone");
            return None;
        }
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let (end, ended) = mpsc::channel::<()>();
        let (made, making) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let wire = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
            setsockopt(&wire, sockopt::RcvBufForce, &(64 << 20)).unwrap();
            made.send((File::open("/proc/thread-self/ns/net").unwrap(), wire)).unwrap();
            _ = ended.recv();
        });
        let (beyond, wire) = making.recv().unwrap();
        // As long as the test, and the name with it.
        let open = beyond;
        let beyond = format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd());
        ip("link set lo up");
        ip(&format!("link add up0 type veth peer name down0 netns {beyond}"));
        ip("addr add 5.5.5.1/24 dev up0");
        ip("link set up0 up");
        ip("route add default via 5.5.5.2");
        let within = |words: &str| {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={beyond}")).args(words.split(' '));
            command
        };
        for words in ["link set lo up", "addr add 5.5.5.2/24 dev down0", "link set down0 up"] {
            run(within(&format!("ip {words}")));
        }
        for address in ADDRESSES {
            run(within(&format!("ip addr add {address}/32 dev lo")));
        }
        let place = Place::new(Who::Root);
        place.write("hosts", HOSTS);
        place.write("resolv.conf", "nameserver 93.184.215.53\noptions timeout:1 attempts:1\n");
        for file in ["hosts", "resolv.conf"] {
            let to = fs::canonicalize(format!("/etc/{file}")).unwrap();
            mount(Some(&place.join(file)), &to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        }
        let key = place.text("key.pem");
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"]);
        openssl.args(["/CN=test", "-keyout", &key, "-out", &key]).stderr(Stdio::null());
        run(openssl);
        let log = place.write("log", "");
        let script = place.write("server.py", SERVER);
        let mut servers = within("python3");
        let servers = servers.arg(script).arg(&log).arg(key).stdin(Stdio::null()).spawn().unwrap();
        let world = Self { servers, log, wire, beyond: beyond.clone(), _open: open, _end: end, _place: place };
        assert!(eventually(|| world.reached().iter().any(|line| line == "ready")));
        Some(world)
    }

    /// A line for each connection, and for each request.
    pub fn reached(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect()
    }

    /// The network namespace that it is.
    #[allow(dead_code, reason = "the egress ring does not need it")]
    pub fn namespace(&self) -> &str {
        &self.beyond
    }

    /// A command that runs there.
    pub fn within(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.beyond)).arg(program);
        command
    }

    /// Where the packets of IP were going that came since the last time, but for those by which kernels find each other.
    pub fn packets(&self) -> Vec<String> {
        let mut packets = Vec::new();
        let mut frame = [0; 2048];
        while let Ok(length) = recv(self.wire.as_raw_fd(), &mut frame, MsgFlags::MSG_TRUNC) {
            let frame = &frame[..length.min(2048)];
            match frame.get(12..14) {
                Some([0x08, 0x00]) => packets.push(format!("{:?} protocol {}", &frame[30..34], frame[23])),
                // Hop-by-hop options are those of MLD.
                Some([0x86, 0xdd]) if ![0, 58].contains(&frame[20]) => packets.push(format!("{:x?}", &frame[38..54])),
                _ => {}
            }
        }
        packets
    }

    /// Nobody there was reached, and not one packet came.
    #[track_caller]
    pub fn assert_untouched(&self) {
        assert_eq!(self.reached(), ["ready"]);
        assert_eq!(self.packets(), [""; 0]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        _ = self.servers.kill();
        _ = self.servers.wait();
    }
}

pub fn ip(words: &str) {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    run(command);
}

#[track_caller]
pub fn run(mut command: Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// Whether the ring is run again on gVisor's kernel (`scripts/test gvisor-rings`).
pub fn on_gvisor() -> bool {
    std::env::var_os("FUMEHOOD_TEST_ISOLATION").is_some_and(|isolation| isolation == "gvisor")
}

/// A run with these options, of a line of shell.
pub fn sandbox(who: Who, options: &[&str], line: &str) -> Run {
    Run::new(who).args(options).json_result().cmd(line)
}
