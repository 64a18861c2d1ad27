//! Ways around the filter by what TLS begins with: n04 and n05.

use crate::{
    both,
    bypass::attempt,
    common::Who,
    world::{ALLOWED, OTHER, World},
};

/// Makes hellos byte by byte: none of these is one that a library would send.
const HELLO: &str = "
def counted(width, data): return len(data).to_bytes(width, 'big') + data
def hello(name=None, extra=(), record=16384):
    ext = [(43, b'\\x02\\x03\\x04'), (10, b'\\0\\x02\\0\\x1d'), (13, b'\\0\\x02\\x04\\x03'), (51, b'\\0\\x24\\0\\x1d\\0\\x20' + b'\\x07' * 32)]
    ext += list(extra)
    if name is not None: ext.append((0, counted(2, b'\\0' + counted(2, name))))
    ext = b''.join(kind.to_bytes(2, 'big') + counted(2, data) for kind, data in ext)
    body = b'\\x03\\x03' + b'\\x09' * 32 + b'\\0' + b'\\0\\x02\\x13\\x01' + b'\\x01\\0' + counted(2, ext)
    message = b'\\x01' + counted(3, body)
    return b''.join(b'\\x16\\x03\\x01' + counted(2, message[at:at + record]) for at in range(0, len(message), record))
def greet(port, data, step=None):
    s = socket.create_connection((ALLOWED, port), 20)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(data), step or len(data)): s.sendall(data[at:at + (step or len(data))])
    return s.recv(1)
";

/// The prelude's own begins a line.
fn code(attempts: &str) -> String {
    format!("ALLOWED, OTHER = '{ALLOWED}', '{OTHER}'\n{HELLO}\n{attempts}")
}

both! {
    fn n04_no_name_or_a_hidden_one(who: Who) {
        let Some(_world) = World::new("n04") else { return };
        // A hidden name counts by the one on its outside, which is GREASE more often than not.
        let attempts = "o, a = OTHER.encode(), ALLOWED.encode()
for data in (hello(), hello(b''), hello(None, [(0xfe0d, bytes(200))]), hello(o, [(0xfe0d, bytes(200))]), hello(None, [(0x0a0a, b'')]),
             hello(a, [(0, counted(2, b'\\0' + counted(2, o)))]), hello(None, [(0, counted(2, b'\\0' + counted(2, o) + b'\\0' + counted(2, a)))]),
             hello(None, [(0, counted(2, b'\\x01' + counted(2, a)))])):
    print(tried(lambda: greet(443, data)))
for data in (hello(a), hello(a, [(0xfe0d, bytes(200))])): print(greet(443, data))
q = b''.join(counted(1, l.encode()) for l in ALLOWED.split('.')) + b'\\0'
for kind in (64, 65, 28, 16, 255):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); s.connect(('8.8.8.8', 53))
    s.send(b'\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0' + q + kind.to_bytes(2, 'big') + b'\\0\\x01'); r = s.recv(512)
    print(r[3] & 15, r[6:8] == b'\\0\\0')";
        let expected = "ConnectionResetError\n".repeat(8) + &"b'\\x16'\n".repeat(2) + &"0 True\n".repeat(5);
        attempt(who, &[], &code(attempts), &expected);
    }

    fn n05_a_hello_in_pieces_too_long_or_elsewhere(who: Who) {
        let Some(world) = World::new("n05") else { return };
        // In segments and in records of any length; over 16 KiB; over what is looked at; on ports of other things.
        let attempts = "o, a = OTHER.encode(), ALLOWED.encode()
for data, step in ((hello(o), 1), (hello(o, record=1), None), (hello(o, record=7), 3), (hello(o, [(21, bytes(20000))]), None),
                   (hello(o, [(21, bytes(60000)), (0x1a1a, bytes(5000))], 100), None), (hello(o, record=60)[:65] + b'\\x17\\x03\\x03\\0\\x01x' + hello(o, record=60)[65:], None)):
    print(tried(lambda: greet(443, data, step)))
for port in (80, 8443): print(tried(lambda: greet(port, hello(o))))
for data, step in ((hello(a), 1), (hello(a, record=1), None), (hello(a, record=7), 3), (hello(a, [(21, bytes(20000))]), None)):
    print(greet(443, data, step))";
        let expected = "ConnectionResetError\n".repeat(8) + &"b'\\x16'\n".repeat(4);
        attempt(who, &[], &code(attempts), &expected);
        // The one server that is no TLS would have told of a hello.
        assert!(!world.reached().iter().any(|line| line.contains('/')), "{:?}", world.reached());
    }
}
