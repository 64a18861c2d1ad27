//! The filter under strain: killed, crowded, kept waiting, and given a lot to carry. What passes is whole, what must not
//! pass does not, and the host is as it was. With `FUMEHOOD_LONG` set there is more of it, as in n22.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
};

use crate::{
    both,
    bypass::attempt,
    common::{
        Run, Who,
        host::{self, eventually},
    },
    world::{ALLOWED, World, on_gvisor, sandbox},
};

/// What tests ask for with `FUMEHOOD_LONG`, and what they make do with.
fn amount(long: usize, short: usize) -> usize {
    if std::env::var_os("FUMEHOOD_LONG").is_some() { long } else { short }
}

/// Servers of other manners than the world's own: each has a port, and what it has seen is told at 7000.
const SERVERS: &str = r#"
import hashlib, socket, struct, sys, threading
seen, turn = [], threading.Condition()
def tell(what):
    with turn: seen.append(what); turn.notify_all()
def told(c):
    with turn:
        turn.wait_for(lambda: seen); c.sendall(seen.pop(0).encode())
def until_end(c):
    data = b''
    while part := c.recv(65536): data += part
    return data
def counts(c): c.sendall(b'%d' % len(until_end(c)))
def ends_first(c):
    c.sendall(b'bye'); c.shutdown(socket.SHUT_WR); tell(str(len(until_end(c))))
def resets(c):
    c.recv(1); c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
def is_reset(c):
    c.sendall(b'go')
    try: until_end(c); tell('ended')
    except ConnectionResetError: tell('reset')
block = hashlib.sha256(b'block').digest() * 32768
def gives(c):
    size = int(c.makefile('rb').readline()); digest = hashlib.sha256()
    for number in range(size):
        part = number.to_bytes(8, 'big') + block[8:]; digest.update(part); c.sendall(part)
    c.sendall(digest.digest())
def takes(c):
    f = c.makefile('rb'); size = int(f.readline()); digest = hashlib.sha256()
    for _ in range(size): digest.update(f.read(1 << 20))
    c.sendall(digest.digest())
def serve(listener, work):
    def one(c):
        with c: work(c)
    while True: threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()
for port, work in enumerate((told, counts, ends_first, resets, is_reset, gives, takes), 7000):
    threading.Thread(target=serve, args=(socket.create_server(('', port), backlog=512), work), daemon=True).start()
print('ready', flush=True)
threading.Event().wait()
"#;

struct Servers(Child);

impl Servers {
    fn start(world: &World) -> Self {
        let mut command = world.within("python3");
        command.args(["-c", SERVERS]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut servers = Self(command.spawn().unwrap());
        servers.0.stdout.as_mut().unwrap().read_exact(&mut [0; "ready\n".len()]).unwrap();
        servers
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

both! {
    fn ends_and_resets_are_passed_on_as_they_are(who: Who) {
        let Some(world) = World::new("ends_and_resets_are_passed_on_as_they_are") else { return };
        let _servers = Servers::start(&world);
        let code = format!("
def to(port): return socket.create_connection(('{ALLOWED}', port), 60)
s = to(7001); s.sendall(b'\\0' * 100000); s.shutdown(socket.SHUT_WR); print(s.recv(99), s.recv(99))
s = to(7002); print(s.recv(99), s.recv(99)); s.sendall(b'\\0' * 100000); s.shutdown(socket.SHUT_WR); print(to(7000).recv(99))
s = to(7003); s.sendall(b'\\0'); print(tried(lambda: s.recv(1)))
s = to(7004); print(s.recv(2)); s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close(); print(to(7000).recv(99))");
        attempt(who, &[], &code, "b'100000' b''\nb'bye' b''\nb'100000'\nConnectionResetError\nb'go'\nb'reset'\n");
    }

    /// 256 MiB each way, a GiB with `FUMEHOOD_LONG` set.
    fn a_lot_arrives_byte_for_byte(who: Who) {
        let Some(world) = World::new("a_lot_arrives_byte_for_byte") else { return };
        let _servers = Servers::start(&world);
        let size = amount(1024, 256);
        let code = format!("
import hashlib
def to(port):
    s = socket.create_connection(('{ALLOWED}', port), 200); s.sendall(b'{size}\\n'); return s
s = to(7005); f = s.makefile('rb'); digest = hashlib.sha256()
for _ in range({size}): digest.update(f.read(1 << 20))
print(f.read() == digest.digest())
block = hashlib.sha256(b'block').digest() * 32768
s = to(7006); digest = hashlib.sha256()
for number in range({size}):
    part = number.to_bytes(8, 'big') + block[8:]; digest.update(part); s.sendall(part)
print(s.makefile('rb').read() == digest.digest())");
        attempt(who, &["--timeout", "230s"], &code, "True\nTrue\n");
    }

    fn many_names_each_have_an_address(who: Who) {
        let Some(world) = World::new("many_names_each_have_an_address") else { return };
        let code = format!("
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); s.connect(('198.18.0.1', 53))
def question(name): return b'\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0' + b''.join(bytes([len(l)]) + l for l in name.encode().split(b'.')) + b'\\0\\0\\x01\\0\\x01'
def address(name): s.send(question(name)); return s.recv(512)[-4:]
first = address('{ALLOWED}')
found = set()
for n in range(0, 10000, 50):
    for m in range(n, n + 50): s.send(question(f'n{{m}}.example.org'))
    found |= {{s.recv(512)[-4:] for _ in range(50)}}
print(len(found), first in found, address('{ALLOWED}') == first, {{a[:1] for a in found}})
print(ask((socket.inet_ntoa(first), 80), b'GET / HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\n\\r\\n')[9:12])");
        let timeout = ["--allow", "*.example.org", "--timeout", "230s"];
        attempt(who, &timeout, &code, "10000 False True {b'\\xc6'}\nb'200'\n");
        // No resolver was asked for any.
        assert!(!world.packets().iter().any(|packet| packet.ends_with("protocol 17")));
    }

    fn slow_clients_hold_up_nobody_and_are_cut(who: Who) {
        let Some(world) = World::new("slow_clients_hold_up_nobody_and_are_cut") else { return };
        // Heads, hellos, and the beginning of either; and clients that only connect, who may.
        let code = format!("
def to(port, begin):
    s = socket.create_connection(('{ALLOWED}', port), 60); s.sendall(begin); return s
heads = [to(80, b'GET / HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\nA: ') for _ in range(40)]
hellos = [to(443, b'\\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xfc\\x03\\x03') for _ in range(40)]
begun = [to(80, b'GE') for _ in range(40)]
silent = [to(80, b'') for _ in range(40)]
def served(): return ask(('{ALLOWED}', 80), b'GET / HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\n\\r\\n')[9:12]
print(served())
# A byte now and then is no progress.
for s in heads: s.sendall(b'x')
print({{str(tried(lambda: s.recv(12))) for s in heads}}, {{tried(lambda: s.recv(12)) for s in hellos}}, {{tried(lambda: s.recv(12)) for s in begun}})
for s in silent: s.sendall(b'GET / HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\n\\r\\n')
print({{s.recv(12) for s in silent}}, served())");
        let expected = "b'200'\n{\"b'HTTP/1.1 403'\"} {'ConnectionResetError'} {'ConnectionResetError'}\n{b'HTTP/1.1 200'} b'200'\n";
        attempt(who, &["--timeout", "230s"], &code, expected);
        // Of what was cut, nothing was passed on.
        assert_eq!(world.reached().iter().filter(|line| line.contains(" / ")).count(), 42);
    }

    fn a_killed_fumehood_lets_nothing_out(who: Who) {
        let Some(world) = World::new("a_killed_fumehood_lets_nothing_out") else { return };
        let line = format!("setsid bash -c 'while :; do curl -s -m 9 http://{ALLOWED}/on >/dev/null; curl -s -m 9 http://93.184.215.15/; done' & \
            while :; do curl -s -m 9 http://{ALLOWED}/on >/dev/null; done");
        let run = Run::new(who).args(["--allow", ALLOWED, "-q"]).cmd(&line);
        let mut command = run.command();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert!(eventually(|| world.reached().iter().any(|line| line.contains("/on"))));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(eventually(|| host::processes(&run.name).is_empty()), "{:#?}", host::processes(&run.name));
        // What was under way is there by now; no more comes.
        let ended = || world.packets().is_empty();
        assert!(eventually(ended));
        let reached = world.reached();
        assert!(!reached.iter().any(|line| line.contains("93.184.215.15")), "{reached:?}");
        let cleanup = Run::verb(who, "cleanup").env("XDG_RUNTIME_DIR", run.place.join("runtime-dir"));
        cleanup.done().expect_code(0);
        assert_eq!(world.packets(), [""; 0]);
        assert_eq!(world.reached(), reached);
    }

    /// 40 of them, 200 with `FUMEHOOD_LONG` set, fewer of gVisor's kernels, each of which starts for seconds where all start
    /// at once; what the host has of networks is the same before, meanwhile and after.
    fn many_sandboxes_at_once_each_have_their_own(who: Who) {
        let Some(world) = World::new("many_sandboxes_at_once_each_have_their_own") else { return };
        let before = network_of_the_host();
        let many = if on_gvisor() { amount(40, 8) } else { amount(200, 40) };
        let gate = Run::new(who);
        let dir = gate.place.mkdir("gate");
        let line = |number: usize| format!(
            "curl -fsS --retry 9 http://{ALLOWED}/first{number} && while [ ! -e /gate/open ]; do sleep 0.2; done && curl -fsS --retry 9 http://{ALLOWED}/then{number}");
        let mut running = Vec::new();
        for number in 0..many {
            let run = sandbox(who, &["--allow", ALLOWED, "--timeout", "230s", "--mount", &format!("{}:/gate", dir.display())], &line(number));
            let mut command = run.command();
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            running.push((run, command.spawn().unwrap()));
        }
        let first = || world.reached().iter().filter(|line| line.contains("/first")).count();
        assert!(eventually(|| first() == many), "{} of {many}", first());
        assert_eq!(network_of_the_host(), before);
        gate.place.write("gate/open", "");
        for (number, (run, child)) in running.into_iter().enumerate() {
            let done = run.wait_for(child).expect_code(0);
            let expected = format!("/first{number} of {ALLOWED}\n/then{number} of {ALLOWED}\n");
            assert_eq!(done.json()["stdout"], expected, "{done}");
            done.check_nothing_left();
        }
        assert_eq!(network_of_the_host(), before);
    }
}

/// Rules, routes, devices, sockets that listen, and settings. The kernel itself makes its addresses of the sixth version.
fn network_of_the_host() -> String {
    let shell = "ip -br link; ip -4 addr; ip -4 route show table all; ip rule; ip -6 rule; nft list ruleset; ip netns; \
        cat /proc/net/protocols | cut -d' ' -f1; cat /proc/net/tcp | awk '$4 == \"0A\" {print $2}'; \
        find /proc/sys/net -type f ! -name nf_conntrack_count ! -name flush | sort | xargs grep -s ''";
    let mut child =
        Command::new("sh").args(["-c", shell]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    _ = child.wait();
    assert!(text.contains("net/ipv4/ip_forward"), "{text}");
    text
}
