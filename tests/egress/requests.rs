//! Rules about requests: real TLS servers of this host, whose authority the host trusts, and real clients inside.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use crate::{
    both,
    common::{Done, Place, Run, Who},
    control::{begin, beside, next},
};

const NAME: &str = "host.fumehood.internal";
const SECRET: &str = "sk-hunter2-hunter2-hunter2";

/// Prints its ports, those of a server with the good certificate, one with a bad one, and one without TLS; writes a line
/// for each request.
const SERVER: &str = r#"
import base64, gzip, hashlib, http.server, socketserver, ssl, sys, threading
log = open(sys.argv[1], "a", buffering=1)
gate = threading.Event()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        asked = self.rfile.read(int(self.headers["Content-Length"] or 0))
        key = self.headers["Authorization"] or "none"
        log.write(f"{self.command} {self.path} {key}\n")
        if self.headers["Upgrade"] or self.path == "/101":
            said = (self.headers["Sec-WebSocket-Key"] or "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(said.encode()).digest())
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
            self.wfile.write((b"Sec-WebSocket-Accept: " + accept if self.path == "/ws" else b"X: y") + b"\r\n\r\n")
            while said := self.rfile.readline():
                self.wfile.write(said + key.encode() + b"\n")
            return
        if self.path == "/go":
            gate.set()
        if self.path == "/paused":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\ndata: one\n\n\r\n")
            gate.wait(20)
            return self.wfile.write(b"b\r\ndata: two\n\n\r\n0\r\n\r\n")
        if self.path in ("/clean", "/unclean"):
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            if self.path == "/clean":
                self.connection.unwrap()
            return
        body = f"{self.command} {self.path} {asked.decode()} {key}\n".encode()
        self.send_response(200)
        self.send_header("X-Key", key)
        if self.path.endswith("/chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for byte in body:
                self.wfile.write(b"1\r\n%c\r\n" % byte)
                self.wfile.flush()
            return self.wfile.write(b"0\r\n\r\n")
        if self.path.endswith("/packed"):
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for at in range(0, len(body), 7):
            self.wfile.write(body[at:at + 7])
            self.wfile.flush()
    do_POST = do_DELETE = do_GET
    def log_message(self, *args): pass
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128
    def handle_error(self, request, address): pass
def server(certificate):
    made = Server(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        made.socket = context.wrap_socket(made.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return made.server_address[1]
print(*map(server, [sys.argv[2], sys.argv[3], None]), flush=True)
sys.stdin.read()
"#;

struct Servers {
    process: Child,
    place: Place,
    good: u16,
    bad: u16,
    plain: u16,
}

impl Servers {
    fn new(who: Who) -> Self {
        let place = Place::new(who);
        let openssl = |words: &str| {
            let mut command = Command::new("openssl");
            let done = command.args(words.split(' ')).current_dir(place.path()).output().unwrap();
            assert!(done.status.success(), "{words}: {done:?}");
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!("req -x509 {key} -subj /CN=authority -keyout ca.key -out ca.pem"));
        place.write("names", format!("subjectAltName=DNS:{NAME}\n"));
        openssl(&format!("req {key} -subj /CN=good -keyout good.key -out good.csr"));
        openssl("x509 -req -in good.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile names -out good.crt");
        openssl(&format!(
            "req -x509 {key} -subj /CN=bad -addext subjectAltName=DNS:{NAME} -keyout bad.key -out bad.crt"
        ));
        for name in ["good", "bad"] {
            let text = place.read(format!("{name}.crt")) + &place.read(format!("{name}.key"));
            place.write(format!("{name}.pem"), text);
        }
        let (log, script) = (place.write("log", ""), place.write("server.py", SERVER));
        let mut command = Command::new("python3");
        command.arg(script).arg(log).args([place.join("good.pem"), place.join("bad.pem")]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ports = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ports).unwrap();
        let ports: Vec<u16> = ports.split_whitespace().map(|port| port.parse().unwrap()).collect();
        let [good, bad, plain] = ports[..] else { panic!("{ports:?}") };
        Self { process, place, good, bad, plain }
    }

    fn run(&self, who: Who, options: &[&str]) -> Run {
        let mut run = Run::new(who).env("SSL_CERT_FILE", self.place.join("ca.pem")).env("KEY", SECRET);
        for port in [self.good, self.bad, self.plain] {
            run = run.args(["--allow-private".to_owned(), format!("localhost:{port}")]);
        }
        let inject = format!("{NAME}:{}:Authorization=Bearer $KEY", self.good);
        run.args(["--inject", &inject]).args(options).json_result()
    }

    fn log(&self) -> String {
        self.place.read("log")
    }

    fn good(&self, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.good)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

#[track_caller]
fn out(done: &Done) -> String {
    assert!(!format!("{}{}", done.out(), done.err()).contains("hunter2"), "{done}");
    done.json()["stdout"].as_str().unwrap().to_owned()
}

const OFFER: &str =
    "Connection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n";

const CURL: &str = "curl -sS --max-time 20 --path-as-is";

both! {
    fn a_header_is_added_and_its_value_stays_outside(who: Who) {
        let servers = Servers::new(who);
        let stars = "*".repeat(SECRET.len());
        let (url, chunked) = (servers.good("/a"), servers.good("/chunked"));
        let look = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>&- | tr '\\0' '\\n' | grep -c hunter[2]; \
            grep -rl hunter[2] /etc /sandbox /tmp /run 2>&-; env | grep -c hunter[2]; \
            cat /proc/1/environ /proc/1/mem 2>&- | grep -c hunter[2]";
        let line = format!("{CURL} -i {url} | grep -e X-Key -e GET; {CURL} {chunked}; {look}");
        let done = servers.run(who, &[]).cmd(&line).done().expect_code(1);
        let expected = format!(
            "X-Key: Bearer {stars}\r\nGET /a  Bearer {stars}\nGET /chunked  Bearer {stars}\n0\n0\n0\n"
        );
        assert_eq!(out(&done), expected, "{done}");
        assert_eq!(servers.log(), format!("GET /a Bearer {SECRET}\nGET /chunked Bearer {SECRET}\n"));
        // What the program says in that place is not sent, in any spelling.
        let line = format!("{CURL} -H 'authorization: mine' -H 'AUTHORIZATION: mine' {url}");
        out(&servers.run(who, &[]).cmd(&line).done().expect_code(0));
        assert!(!servers.log().contains("mine"), "{}", servers.log());
    }

    fn python_and_proxies_find_the_same(who: Who) {
        let servers = Servers::new(who);
        let (url, proxy) = (servers.good("/py"), "http://198.18.0.1:3128");
        let code = format!(
            "import urllib.request as u\nprint(u.urlopen('{url}', timeout=20).status)\n\
             o = u.build_opener(u.ProxyHandler({{'https': '{proxy}'}}))\nprint(o.open('{url}', timeout=20).status)\n"
        );
        let done = servers.run(who, &[]).python(&code).done().expect_code(0);
        assert_eq!(out(&done), "200\n200\n", "{done}");
        assert_eq!(servers.log().matches(SECRET).count(), 2);
    }

    fn methods_and_paths_hold_for_each_request(who: Who) {
        let servers = Servers::new(who);
        let rule = format!("GET,POST {}", servers.good("/repos/*"));
        let code = format!(
            "import http.client, ssl\n\
             def asked(method, path, **headers):\n    \
                 c.request(method, path, headers=headers); a = c.getresponse(); return a.status, a.read()[:5]\n\
             for method, path, headers in [('GET', '/other', {{}}), ('DELETE', '/repos/a', {{}}), ('GET', '/repos/../a', {{}}),\n        \
                 ('GET', '/repos/%2e%2e/a', {{}}), ('GET', '/repos/a%2fb', {{}}), ('GET', '/repos//a', {{}}), ('GET', '/repos', {{}}),\n        \
                 ('POST', '/repos/a', {{'X-HTTP-Method-Override': 'DELETE'}}), ('GET', '/repos/a', {{'Host': 'other.example'}})]:\n    \
                 c = http.client.HTTPSConnection('{NAME}', {}, context=ssl.create_default_context(), timeout=20)\n    \
                 print(*asked('GET', '/repos/%61?x=../y'), *asked(method, path, **headers))\n",
            servers.good
        );
        let done = servers.run(who, &["--allow", &rule]).python(&code).done().expect_code(0);
        assert_eq!(out(&done), "200 b'GET /' 403 b'fumeh'\n".repeat(9), "{done}");
        assert_eq!(servers.log(), format!("GET /repos/a?x=../y Bearer {SECRET}\n").repeat(9));
        assert_eq!(done.json()["denials"][0]["rule"], format!("only --allow {rule}"), "{done}");
    }

    fn rules_hold_in_plain_text_and_secrets_are_not_sent_there(who: Who) {
        let servers = Servers::new(who);
        let url = |path: &str| format!("http://{NAME}:{}{path}", servers.plain);
        let rule = format!("GET {}", url("/a/*"));
        let inject = format!("{NAME}:{}:Authorization=Bearer $KEY", servers.plain);
        let line = format!("{CURL} {} {}; {CURL} -x http://198.18.0.1:3128 {} {}", url("/a/1"), url("/b"), url("/a/2"), url("/b"));
        let done = servers.run(who, &["--allow", &rule, "--inject", &inject]).cmd(&line).done().expect_code(0);
        let text = out(&done);
        assert_eq!(text.matches("GET /a/").count(), 2, "{done}");
        assert_eq!(text.matches("fumehood: denied").count(), 2, "{done}");
        assert_eq!(servers.log(), "GET /a/1 none\nGET /a/2 none\n");
    }

    fn a_server_without_a_good_certificate_is_asked_nothing(who: Who) {
        let servers = Servers::new(who);
        let url = format!("https://{NAME}:{}/x", servers.bad);
        let inject = format!("{NAME}:{}:Authorization=Bearer $KEY", servers.bad);
        let line = format!("{CURL} -k -w '%{{http_code}}' {url}");
        let done = servers.run(who, &["--inject", &inject]).cmd(&line).done().expect_code(0);
        let text = out(&done);
        assert!(text.ends_with("502") && text.contains("certificate is not to be trusted"), "{done}");
        assert_eq!(servers.log(), "");
        assert_eq!(done.json()["denials"][0]["target"], format!("{NAME}:{}", servers.bad), "{done}");
    }

    fn an_answer_that_cannot_be_searched_is_not_passed_on(who: Who) {
        let servers = Servers::new(who);
        let line = format!("{CURL} --compressed {}", servers.good("/packed"));
        let done = servers.run(who, &[]).cmd(&line).done().expect_code(0);
        assert!(out(&done).contains("compressed"), "{done}");
    }

    fn other_connections_are_not_looked_into(who: Who) {
        let servers = Servers::new(who);
        let code = format!("import ssl\nprint(ssl.get_server_certificate(('{NAME}', {})))", servers.bad);
        let done = servers.run(who, &[]).python(&code).done().expect_code(0);
        let whole = fs::read_to_string(servers.place.join("bad.crt")).unwrap();
        assert_eq!(out(&done).trim(), whole.trim(), "{done}");
        // Nor does a sandbox without such rules trust anybody new.
        let plain = Run::new(who).args(["--allow", "a.example"]).cmd("env | grep -c CA_BUNDLE; ls /etc/fumehood-ca.pem");
        plain.done().expect_code(2).expect_out("0\n");
    }

    fn a_websocket_is_a_request_to_get(who: Who) {
        let servers = Servers::new(who);
        let code = format!(
            "import socket, ssl\n\
             c = ssl.create_default_context().wrap_socket(socket.create_connection(('{NAME}', {0}), 20), server_hostname='{NAME}')\n\
             c.sendall(b'GET /ws HTTP/1.1\\r\\nHost: {NAME}:{0}\\r\\n{OFFER}\\r\\n')\n\
             f = c.makefile('rb')\nprint(f.readline()[9:12])\n\
             while f.readline() not in (b'\\r\\n', b''): pass\n\
             c.sendall(b'hello\\n'); print(f.readline(), f.readline()[:9])\n",
            servers.good
        );
        let done = servers.run(who, &[]).python(&code).done().expect_code(0);
        assert_eq!(out(&done), "b'101'\nb'hello\\n' b'Bearer **'\n", "{done}");
        let rule = format!("POST {}", servers.good("/*"));
        let done = servers.run(who, &["--allow", &rule]).python(code.split("while").next().unwrap()).done().expect_code(0);
        assert_eq!(out(&done), "b'403'\n", "{done}");
    }

    fn what_switches_to_nothing_is_looked_into(who: Who) {
        let servers = Servers::new(who);
        let code = format!(
            "import socket, ssl\n\
             for path, offer in [('/fake', '{OFFER}'), ('/101', '')]:\n    \
             c = ssl.create_default_context().wrap_socket(socket.create_connection(('{NAME}', {0}), 20), server_hostname='{NAME}')\n    \
             c.sendall(f'GET {{path}} HTTP/1.1\\r\\nHost: {NAME}:{0}\\r\\n{{offer}}\\r\\n'.encode())\n    \
             print(c.makefile('rb').readline()[9:12])\n",
            servers.good
        );
        let done = servers.run(who, &[]).python(&code).done().expect_code(0);
        assert_eq!(out(&done), "b'502'\nb'502'\n", "{done}");
    }

    fn what_is_held_back_comes_when_nothing_follows(who: Who) {
        let servers = Servers::new(who);
        let code = format!(
            "import http.client, ssl\n\
             def ask(path):\n    \
             c = http.client.HTTPSConnection('{NAME}', {}, context=ssl.create_default_context(), timeout=15)\n    \
             c.request('GET', path); return c.getresponse()\n\
             events = ask('/paused'); print(events.readline(), events.readline()); ask('/go').read(); print(events.read())",
            servers.good
        );
        let done = servers.run(who, &[]).python(&code).done().expect_code(0);
        assert_eq!(out(&done), "b'data: one\\n' b'\\n'\nb'data: two\\n\\n'\n", "{done}");
    }

    fn an_answer_that_is_cut_does_not_look_whole(who: Who) {
        let servers = Servers::new(who);
        // Python takes TLS that stops for an end.
        let [clean, unclean] = ["/clean", "/unclean"].map(|path| servers.good(path));
        let line = format!("{CURL} {clean} && echo; {CURL} {unclean} >/dev/null 2>&1 || echo cut");
        let done = servers.run(who, &[]).cmd(&line).done().expect_code(0);
        assert_eq!(out(&done), "half\ncut\n", "{done}");
    }

    fn what_goes_on_is_held_against_a_new_policy(who: Who) {
        let servers = Servers::new(who);
        let at = format!("http://{NAME}:{}/*", servers.plain);
        let private = format!("localhost:{}", servers.plain);
        let code = format!(
            "import socket, sys\nc = socket.create_connection(('{NAME}', {0}), 20)\n\
             c.sendall(b'GET /ws HTTP/1.1\\r\\nHost: {NAME}:{0}\\r\\n{OFFER}\\r\\n')\n\
             f = c.makefile('rb')\nprint(f.readline()[9:12].decode(), flush=True)\n\
             while f.readline() not in (b'\\r\\n', b''): pass\n\
             sys.stdin.readline(); c.sendall(b'hello\\n'); print(f.readline().decode().strip(), flush=True); f.readline()\n\
             try: print(f.readline())\nexcept ConnectionResetError: print('cut')",
            servers.plain
        );
        let run = Run::new(who).args(["--allow", &format!("GET {at}"), "--allow-private", &private, "--timeout", "none"]);
        let run = run.args(["-q", "-i"]).python(&code);
        let (mut child, mut lines) = begin(&run);
        let set = |rules: &[&str]| {
            let set = beside(&run, "net").args(["set", &run.name, "--allow-private", &private]).args(rules);
            set.done().expect_code(0);
        };
        assert_eq!(next(&mut lines), "101");
        // What it may go on with goes on.
        set(&["--allow", &format!("GET {at}"), "--allow", "other.example"]);
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(next(&mut lines), "hello");
        set(&["--allow", &format!("POST {at}")]);
        assert_eq!(next(&mut lines), "cut");
        assert!(child.wait().unwrap().success());
    }

    fn what_is_looked_into_is_told_as_that(who: Who) {
        let servers = Servers::new(who);
        let line = format!("{CURL} {} {}", servers.good("/a"), format_args!("http://{NAME}:{}/b", servers.plain));
        let rule = format!("GET http://{NAME}:{}/*", servers.plain);
        let done = servers.run(who, &["--allow", &rule, "--log-network", "log"]).cmd(&line).done().expect_code(0);
        let log = done.place().read("log");
        let told = |protocol: &str, port: u16| {
            let words = [format!(r#""protocol":"{protocol}""#), format!(r#""port":{port}"#)];
            log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
        };
        assert_eq!((told("https", servers.good), told("http", servers.plain)), (1, 1), "{log}");
    }

    fn a_value_is_shown_nowhere(who: Who) {
        let inject = "api.example.com:Authorization=Bearer $KEY";
        let explain = |options: &[&str]| {
            let run = Run::verb(who, "explain").env("KEY", SECRET).args(["--inject", inject]).args(options).cmd("true");
            run.done().expect_code(0)
        };
        for options in [&[][..], &["--json"]] {
            let done = explain(options);
            assert!(!format!("{}{}", done.out(), done.err()).contains("hunter2"), "{done}");
            assert!(!done.out().contains("BEGIN"), "{done}");
        }
        // Nor by what goes wrong.
        for wrong in ["api.example.com:Host=$KEY", "*.example.com:A=sk-hunter2", "sk-hunter2", "a.example:A=$NOBODY sk-hunter2"] {
            let done = Run::new(who).env("KEY", SECRET).args(["--inject", wrong]).cmd("true").done().expect_code(125);
            assert!(wrong == "sk-hunter2" || !done.err().contains("hunter2"), "{done}");
        }
    }
}
