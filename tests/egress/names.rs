//! Ways around the filter by names: n07, n08, and the rest of n09.

use crate::{
    both,
    bypass::attempt,
    common::{Run, Who},
    world::{ALLOWED, OTHER, World},
};

/// Names by hand, to the resolver and to the proxy for those that know of one; every answer as a word.
const ASK: &str = "
def counted(width, data): return len(data).to_bytes(width, 'big') + data
def dns(*labels):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); s.connect(('8.8.8.8', 53))
    s.send(b'\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0' + b''.join(counted(1, l) for l in labels) + b'\\0\\0\\x01\\0\\x01'); r = s.recv(512)
    return (r[3] & 15, r[7])
def socks(kind, host, port=80):
    s = socket.create_connection(('198.18.0.1', 3128), 20); s.sendall(b'\\x05\\x01\\0'); s.recv(2)
    s.sendall(b'\\x05\\x01\\0' + bytes([kind]) + (counted(1, host) if kind == 3 else host) + port.to_bytes(2, 'big'))
    r = s.recv(10); return r[1] if len(r) > 1 else 'ended'
def connect(authority):
    s = socket.create_connection(('198.18.0.1', 3128), 20)
    s.sendall(b'CONNECT ' + authority + b' HTTP/1.1\\r\\nHost: ' + authority + b'\\r\\n\\r\\n'); return s.makefile('rb').readline()[9:10]
def host(name): return ask((ALLOWED, 80), b'GET /as HTTP/1.1\\r\\nHost: ' + name + b'\\r\\n\\r\\n')[9:12]
";

fn code(attempts: &str) -> String {
    format!("ALLOWED, OTHER = '{ALLOWED}', '{OTHER}'\n{ASK}\na, o = ALLOWED.encode(), OTHER.encode()\n{attempts}")
}

both! {
    fn n07_odd_names(who: Who) {
        let Some(world) = World::new("n07") else { return };
        // What is no name is refused, and in no place cut to one that is allowed.
        let attempts = "print({dns(*l) for l in ((o + b'\\0' + a, b'org'), (a,), (b'allowed\\0', b'example', b'org'), (b'allo wed', b'example', b'org'),
    ('\\u0430llowed'.encode(), b'example', b'org'), (b'allowed%2eexample', b'org'), (b'allowed', b'example', b'org\\0'))})
long = b'a' * 60 + b'.' + b'b' * 60 + b'.' + b'c' * 60 + b'.' + b'd' * 60 + b'.'
for name in (a + b'\\0', a + b'\\0.' + o, o + b'\\0.' + a, a + b'..', b'.' + a, a + b' ', a + b'%00.' + o, '\\u0430llowed.example.org'.encode(), long + a[:10], a + b':80', b'@' + a, b''):
    assert socks(3, name) in (1, 2, 4, 8, 'ended'), name
for name in (a + b'@' + o + b':80', a + b'\\0' + o + b':80', a + b'%00.' + o + b':80', a + b'..:80', a + b':80:80', a + b':', a + b' :80', o + b'/' + a + b':80', b'http://' + a + b':80'):
    assert connect(name) == b'4', name
for name in (a + b'@' + o, o + b'@' + a, a + b'\\0', a + b'..', a + b'%00', a + b',' + o, a + b' ' + o, a + b'/' + o, a + b':81', '\\u0430llowed.example.org'.encode()):
    assert tried(lambda: host(name)) in (b'403', b'400', 'ConnectionResetError'), name
print(dns(b'ALLOWED', b'Example', b'org'), socks(3, a.upper()), socks(3, a + b'.'), host(a.upper()), host(a + b'.'), host(a + b':80'))";
        attempt(who, &[], &code(attempts), "{(3, 0)}\n(0, 1) 0 0 b'200' b'200' b'200'\n");
        assert!(!world.reached().iter().any(|line| line.contains("93.184.215.15")), "{:?}", world.reached());
    }

    fn n08_names_that_look_like_a_wildcards(who: Who) {
        let Some(world) = World::new("n08") else { return };
        // Below it, by whole labels; not itself, nor what is around it.
        let attempts = "print({dns(*name.split(b'.')) for name in (b'example.org', b'evilexample.org', b'a.evilexample.org', b'org', b'example.org.evil.net', b'a.example.org.evil.net', b'aexample.org')})
print(dns(b'a', b'example', b'org'), dns(b'a', b'b', b'example', b'org'))
for name in (b'evilexample.org', b'example.org', b'a.example.org.evil.net'): print(socks(3, name))";
        attempt_wild(who, &code(attempts), "{(3, 0)}\n(0, 1) (0, 1)\n2\n2\n2\n");
        world.assert_untouched();
        for rule in ["*", "*.", "*.*", "*.com", "*.co.uk", "*.github.io", "a.*", "*a.example.org", "*.*.example.org"] {
            Run::new(who).args(["--allow", rule]).cmd("true").done().expect_error("").expect_hint();
        }
    }

    fn n09_addresses_within_addresses(who: Who) {
        let Some(world) = World::new("n09") else { return };
        // Mapped, compatible, translated, tunnelled; all of them would lead to 10.9.9.9.
        let attempts = "import ipaddress
for text in ('::ffff:10.9.9.9', '::10.9.9.9', '64:ff9b::a09:909', '64:ff9b:1::a09:909', '2002:a09:909::1', '2001:0:a09:909::1', 'fec0::1', 'fd00:ec2::254', '::1', '::'):
    packed = ipaddress.ip_address(text).packed
    print(socks(4, packed, 2222), connect(b'[' + text.encode() + b']:2222'))
for text in (b'0x0a090909', b'168364297', b'012.011.011.011', b'10.0x90909', b'10.591113', b'0x7f.1', b'127.1', b'0'):
    print(socks(3, text, 2222), connect(text + b':2222'))";
        let done = Run::new(who).args(["--net", "open", "--allow", "0.0.0.0/0", "-q"]).python(&format!("import socket\n{}", code(attempts))).done();
        let done = done.expect_code(0);
        let out = done.out();
        assert_eq!(out.lines().count(), 18, "{done}");
        assert!(out.lines().all(|line| !line.starts_with("0 ") && line.ends_with("b'4'")), "{done}");
        world.assert_untouched();
    }
}

fn attempt_wild(who: Who, code: &str, expected: &str) {
    let done = Run::new(who).args(["--allow", "*.example.org", "-q"]).python(&format!("import socket\n{code}")).done();
    done.expect_code(0).expect_out(expected);
}
