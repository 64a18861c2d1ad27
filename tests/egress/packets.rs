//! Ways around the filter below names and connections: n17 to n19, n22 to n30.
//!
//! n23, rules that become tighter, and connections that they forbid: src/net/proxy/tests, since a run's rules do not change.
//! n25, data sent to an allowed host, is what allowing it means: docs/network.md says so, and nothing can be tried. n26 and
//! n27, credentials and certificates of the proxy's, have no feature yet that they could be tried on. n30, covert channels by
//! time and caches, nobody can block.

use std::{io::Read, net::TcpListener};

use crate::{
    both,
    bypass::attempt,
    common::{Run, Who},
    world::{ALLOWED, World},
};

both! {
    fn n17_fragments_options_and_extension_headers(who: Who) {
        let Some(world) = World::new("n17") else { return };
        // As far as anybody without raw sockets gets; and those there are none of (n15).
        let code = "
def udp(to, *options, size=9, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(20)
    for option in options: s.setsockopt(*option)
    s.connect(to); s.send(bytes(size)); return s.recv(1)
def tcp(to, *options):
    s = socket.socket(); s.settimeout(20)
    for option in options: s.setsockopt(*option)
    s.connect(to); s.sendall(b'\\0'); return s.recv(1)
route = (socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([131, 7, 4, 93, 184, 215, 14, 0]))
strict = (socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([137, 7, 4, 93, 184, 215, 14, 0]))
record = (socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([7, 7, 4, 0, 0, 0, 0, 0]))
fragment = (socket.IPPROTO_IP, 10, 0)
for work in (lambda: udp(('93.184.215.14', 443), size=65000), lambda: udp(('93.184.215.14', 443), fragment, size=65507),
             lambda: udp(('93.184.215.14', 443), route), lambda: udp(('93.184.215.14', 443), strict), lambda: udp(('93.184.215.14', 443), record),
             lambda: tcp(('93.184.215.14', 443), route), lambda: tcp(('93.184.215.14', 443), record),
             lambda: udp(('2606:2800:220:1::1', 443), (socket.IPPROTO_IPV6, 59, bytes([0, 0, 1, 4, 0, 0, 0, 0])), family=socket.AF_INET6),
             lambda: udp(('2606:2800:220:1::1', 443), (socket.IPPROTO_IPV6, 57, bytes([0, 2, 0, 1]) + bytes(20)), family=socket.AF_INET6)):
    print(isinstance(tried(work), str))";
        attempt(who, &[], code, &"True\n".repeat(9));
        world.assert_untouched();
    }

    fn n18_anothers_address_neighbours_and_the_gateways_services(who: Who) {
        let Some(world) = World::new("n18") else { return };
        // A datagram from another's address is answered by nobody, a refusal could not find back.
        let code = "
for port in (1, 22, 80, 443, 3129, 5353): print(isinstance(tried(lambda: ask(('198.18.0.1', port), b'\\0')), str))
for neighbour in ('198.18.0.3', '198.18.0.6', '198.19.255.255', '5.5.5.1', '5.5.5.2'): print(isinstance(tried(lambda: ask((neighbour, 80), b'\\0')), str))
for kind, to in ((socket.SOCK_DGRAM, ('93.184.215.14', 443)), (socket.SOCK_DGRAM, ('8.8.8.8', 53)), (socket.SOCK_STREAM, ('93.184.215.14', 443))):
    s = socket.socket(socket.AF_INET, kind); s.setsockopt(socket.IPPROTO_IP, 15, 1); s.settimeout(0.3)
    def spoofed():
        s.bind(('93.184.215.77', 0)); s.connect(to); s.send(bytes(20)); return s.recv(1)
    print(isinstance(tried(spoofed), str))
print(tried(lambda: socket.socket().setsockopt(socket.IPPROTO_IP, 19, 1)))";
        let expected = "True\n".repeat(14) + "PermissionError\n";
        attempt(who, &[], code, &expected);
        world.assert_untouched();
    }

    fn n19_sockets_of_the_host_and_inherited_descriptors(who: Who) {
        let Some(world) = World::new("n19") else { return };
        // One that has no file, one that has; and what the shell that starts fumehood has left open.
        let name = format!("fumehood-test-{}", std::process::id());
        use std::os::{linux::net::SocketAddrExt, unix::net::{SocketAddr, UnixListener}};
        let _hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let code = format!("
import glob
def unix(path):
    s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(path); return 'connected'
print(tried(lambda: unix('\\0{name}')))
for path in ('/run/docker.sock', '/var/run/docker.sock', '/run/dbus/system_bus_socket', '/run/containerd/containerd.sock', '/run/systemd/private', '/tmp/fumehood-test.sock'):
    print(tried(lambda: unix(path)))
print([os.readlink(f) for f in glob.glob('/proc/self/fd/*') if os.path.islink(f) and os.readlink(f).startswith(('socket:', 'net:'))])
print(tried(lambda: os.fstat(9)))");
        let run = Run::new(who).args(["--allow", ALLOWED, "-q"]);
        let socket = run.place.join("host.sock");
        let _file = UnixListener::bind(&socket).unwrap();
        let code = code.replace("/tmp/fumehood-test.sock", socket.to_str().unwrap());
        let script = format!("exec 9<>/dev/tcp/127.0.0.1/{port}; exec \"$@\"");
        let prelude = "import socket, os\ndef tried(work):\n    try: return work()\n    except OSError as e: return type(e).__name__\n";
        let done = run.wrapped(["bash", "-c", &script, "bash"]).python(&format!("{prelude}{code}")).done().expect_code(0);
        let out = done.out();
        assert!(!out.contains("connected"), "{done}");
        assert!(out.contains("\n[]\nOSError\n"), "{done}");
        assert_eq!(out.lines().count(), 9, "{done}");
        world.assert_untouched();
    }

    /// Programs whose first act is to send, seen from where it would come out: 50 starts, 1000 with `FUMEHOOD_LONG` set.
    fn n22_nothing_passes_before_there_are_rules(who: Who) {
        let Some(world) = World::new("n22") else { return };
        let starts = if std::env::var_os("FUMEHOOD_LONG").is_some() { 1000 } else { 50 };
        let line = "exec 2>&-; echo x >/dev/udp/93.184.215.14/443; echo x >/dev/udp/1.1.1.1/853; echo x >/dev/tcp/93.184.215.14/80";
        for _ in 0..starts {
            let run = Run::new(who).args(["--allow", ALLOWED, "-q", "--", "bash", "-c", line]);
            let command = run.command();
            let done = run.finish(command);
            assert!((0..125).contains(&done.code), "{done}");
        }
        world.assert_untouched();
        // And that what comes out is seen.
        let code = format!("print(ask(('{ALLOWED}', 80), b'GET /seen HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\n\\r\\n')[9:12])");
        attempt(who, &[], &code, "b'200'\n");
        assert!(!world.packets().is_empty());
    }

    fn n24_being_called_back(who: Who) {
        let Some(world) = World::new("n24") else { return };
        // What a helper of conntrack would read: active FTP, and IRC's DCC. Whoever asked from the host's address is
        // connected back to at the port that it named.
        let run = Run::new(who).args(["--allow", &format!("{ALLOWED}:21"), "--allow", &format!("{ALLOWED}:6667"), "-q"]);
        let mut server = world.within("python3");
        server.args(["-c", "
import socket, sys, threading
def serve(port):
    l = socket.create_server(('', port), reuse_port=True)
    print('ready', flush=True)
    while True:
        c, a = l.accept()
        c.sendall(b'220 ready\\r\\n')
        n = int(c.recv(99).split()[-1])
        try: socket.create_connection((a[0], n), 2).sendall(b'back'); c.sendall(b'connected')
        except OSError: c.sendall(b'refused')
for p in (21, 6667): threading.Thread(target=serve, args=(p,)).start()
"]);
        let mut server = server.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = [0; "ready\nready\n".len()];
        server.stdout.as_mut().unwrap().read_exact(&mut lines).unwrap();
        let code = format!("
import socket
for port, line in ((21, 'PORT 198,18,0,2,%d,%d %d'), (6667, 'PRIVMSG x :\\x01DCC SEND f 3323068418 %d %d\\x01 %d')):
    own = socket.create_server(('', 0)); n = own.getsockname()[1]
    s = socket.create_connection(('{ALLOWED}', port), 20); s.recv(99); s.sendall((line % (n >> 8, n & 255, n)).encode() + b'\\r\\n')
    print(s.recv(99)); own.settimeout(0)
    try: own.accept(); print('called back')
    except BlockingIOError: print('alone')");
        let done = run.python(&code).done();
        _ = server.kill();
        _ = server.wait();
        done.expect_code(0).expect_out("b'refused'\nalone\nb'refused'\nalone\n");
    }

    fn n29_wearing_out_the_proxy(who: Who) {
        let Some(_world) = World::new("n29") else { return };
        // More connections than there may be: those beyond are reset, the others served, and there is room again after.
        let code = format!("
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
def banner(s):
    s.settimeout(20)
    return tried(lambda: s.recv(4))
# A handshake that was not answered in time is sent again.
def opened():
    s = socket.socket(); s.settimeout(60); return tried(lambda: (s.connect(('{ALLOWED}', 2222)), s)[1])
open = [opened() for _ in range(1000)]
heard = [banner(s) if not isinstance(s, str) else s for s in open]
print(sorted(set(map(str, heard))), heard.count(b'SSH-'))
for s in open:
    if not isinstance(s, str): s.close()
def again():
    while True:
        s = opened()
        if not isinstance(s, str) and banner(s) == b'SSH-': return True
print(again())
# Heads and hellos that are too long are refused, and what is allowed is served meanwhile.
print(ask(('{ALLOWED}', 80), b'GET / HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\nA: ' + b'x' * 40000)[9:12])
print(ask(('{ALLOWED}', 80), b'GET /after HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\n\\r\\n')[9:12])");
        let most = most_connections();
        attempt(who, &[], &code, &format!("['ConnectionResetError', \"b'SSH-'\"] {most}\nTrue\nb'403'\nb'200'\n"));
    }
}

/// As many as fumehood may have descriptors for.
fn most_connections() -> u64 {
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    (soft.saturating_sub(128) / 2).min(512)
}
