//! Programs that people use, behind the filter as they are: each reaches what is allowed, by its own way of asking.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    both,
    common::{Run, USER, Who, host::eventually, skip},
    world::{ALLOWED, World, sandbox},
};

/// A server that ends with the test.
struct Server(Child);

impl Server {
    fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl World {
    /// Whether somebody answers there.
    #[track_caller]
    fn wait_for(&self, port: u16) {
        let answers = || std::net::TcpStream::connect(("93.184.215.14", port)).is_ok();
        assert!(eventually(answers), "nobody answers on {port}");
    }
}

/// Whether `program` is here; else it is said aloud that `test` does not run.
fn has(test: &str, program: &str) -> bool {
    let there = program.starts_with('/') && Path::new(program).exists();
    if !there {
        skip(test, &format!("there is no {program}: scripts/test installs it"));
    }
    there
}

fn done(mut command: Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

both! {
    fn downloaders_and_pythons_own_clients(who: Who) {
        let Some(_world) = World::new("downloaders_and_pythons_own_clients") else { return };
        if !has("downloaders_and_pythons_own_clients", "/usr/lib/python3/dist-packages/requests/__init__.py") { return }
        let python = format!("import urllib.request, ssl, requests, warnings; warnings.simplefilter('ignore')
c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
print(urllib.request.urlopen('http://{ALLOWED}/urllib').read().decode() + urllib.request.urlopen('https://{ALLOWED}/urllibs', context=c).read().decode(), end='')
s = requests.Session(); s.verify = False
print(s.get('http://{ALLOWED}/requests').text + s.get('https://{ALLOWED}/requestss').text, end='')");
        let run = sandbox(who, &["--allow", ALLOWED], &format!(
            "curl -sS http://{ALLOWED}/curl && curl -sSk https://{ALLOWED}/curls && wget -qO- http://{ALLOWED}/wget && \
             wget -qO- --no-check-certificate https://{ALLOWED}/wgets && curl -sSp -x http://198.18.0.1:3128 http://{ALLOWED}/connect && \
             curl -sS -x socks5h://198.18.0.1:3128 http://{ALLOWED}/socks && exec /usr/bin/python3 client.py"));
        let done = run.file("client.py", python).done().expect_code(0);
        let expected: String = ["curl", "curls", "wget", "wgets", "connect", "socks", "urllib", "urllibs", "requests", "requestss"]
            .map(|path| format!("/{path} of {ALLOWED}\n")).concat();
        assert_eq!(done.json()["stdout"], expected, "{done}");
    }

    fn packages_of_python_and_node(who: Who) {
        let Some(world) = World::new("packages_of_python_and_node") else { return };
        let run = Run::new(who).args(["--allow", &format!("{ALLOWED}:8080"), "--pids", "200"]).json_result();
        // An index and a registry are files in a directory.
        let wheel = "import zipfile, sys
with zipfile.ZipFile(sys.argv[1] + '/simple/tiny/tiny-1.0-py3-none-any.whl', 'w') as z:
    z.writestr('tiny.py', 'print(\"tiny of python\")\\n')
    z.writestr('tiny-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n')
    z.writestr('tiny-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    z.writestr('tiny-1.0.dist-info/RECORD', 'tiny.py,,\\ntiny-1.0.dist-info/METADATA,,\\ntiny-1.0.dist-info/WHEEL,,\\ntiny-1.0.dist-info/RECORD,,\\n')";
        let www = run.place.mkdir("www");
        run.place.write("www/simple/tiny/index.html", "<a href=\"tiny-1.0-py3-none-any.whl\">tiny-1.0-py3-none-any.whl</a>");
        run.place.write("www/package/package.json", r#"{"name":"tiny","version":"1.0.0","main":"main.js"}"#);
        run.place.write("www/package/main.js", "console.log('tiny of node')");
        let mut tool = Command::new("python3");
        tool.args(["-c", wheel]).arg(&www);
        done(tool);
        let mut tar = Command::new("tar");
        tar.args(["-czf", "tiny-1.0.0.tgz", "package"]).current_dir(&www);
        done(tar);
        let registry = format!(
            r#"{{"name":"tiny","dist-tags":{{"latest":"1.0.0"}},"versions":{{"1.0.0":{{"name":"tiny","version":"1.0.0","main":"main.js","dist":{{"tarball":"http://{ALLOWED}:8080/tiny-1.0.0.tgz"}}}}}}}}"#
        );
        run.place.write("www/tiny", registry);
        let mut command = world.within("python3");
        command.args(["-m", "http.server", "8080", "--directory"]).arg(&www);
        let _server = Server::start(command);
        world.wait_for(8080);
        let line = format!(
            "/usr/bin/python3 -m pip install -q --no-cache-dir --disable-pip-version-check --root-user-action=ignore --index-url http://{ALLOWED}:8080/simple \
             --trusted-host {ALLOWED} --target there tiny && PYTHONPATH=there /usr/bin/python3 -m tiny && \
             npm install --silent --no-audit --no-fund --no-update-notifier --cache /tmp/npm --registry http://{ALLOWED}:8080/ tiny && node -e 'require(\"tiny\")'"
        );
        let done = run.cmd(&line).done().expect_code(0);
        assert_eq!(done.json()["stdout"], "tiny of python\ntiny of node\n", "{done}");
    }

    fn git_by_https_and_by_ssh(who: Who) {
        let Some(world) = World::new("git_by_https_and_by_ssh") else { return };
        if !has("git_by_https_and_by_ssh", "/usr/sbin/sshd") { return }
        let run = Run::new(who).args(["--allow", &format!("{ALLOWED}:8443"), "--allow", &format!("{ALLOWED}:22")]).json_result();
        let place = run.place.path().to_owned();
        run.place.write("hello", "hello of git\n");
        let shell = "set -e; export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
git init -q -b main repo; cp hello repo/; cd repo; git add .; git -c user.name=a -c user.email=a@b commit -qm first; cd ..
git clone -q --bare repo www.git; git -C www.git update-server-info
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=test -keyout key.pem -out cert.pem 2>/dev/null
ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f user; chmod 644 user
printf '%s\\n' \"command=\\\"git-upload-pack $PWD/www.git\\\" $(cat user.pub)\" > authorized";
        let mut command = Command::new("bash");
        command.args(["-c", shell]).current_dir(&place);
        done(command);
        // Git over HTTPS as files, and sshd for whoever the tests are.
        let https = "import http.server, ssl, sys, functools
s = http.server.ThreadingHTTPServer(('', 8443), functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1]))
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain('cert.pem', 'key.pem'); s.socket = c.wrap_socket(s.socket, server_side=True, do_handshake_on_connect=False)
s.serve_forever()";
        let mut command = world.within("python3");
        command.args(["-c", https]).arg(&place).current_dir(&place);
        let _https = Server::start(command);
        fs::create_dir_all("/run/sshd").unwrap();
        let mut command = world.within("/usr/sbin/sshd");
        command.args(["-D", "-f", "/dev/null", "-p", "22", "-o", "StrictModes=no", "-o", "PidFile=none", "-o", "UsePAM=no"]);
        command.arg("-h").arg(place.join("host")).arg("-o").arg(format!("AuthorizedKeysFile={}", place.join("authorized").display()));
        let _ssh = Server::start(command);
        world.wait_for(8443);
        world.wait_for(22);
        let line = format!(
            "export HOME=/tmp GIT_SSL_NO_VERIFY=1; install -m 600 user /tmp/key; git clone -q https://{ALLOWED}:8443/www.git one && cat one/hello && \
             GIT_SSH_COMMAND='ssh -q -F none -i /tmp/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null' git clone -q ssh://root@{ALLOWED}/any two && cat two/hello"
        );
        let run = run.arg("--file").arg(place.join("user"));
        let done = run.cmd(&line).done().expect_code(0);
        assert_eq!(done.json()["stdout"], "hello of git\nhello of git\n", "{done}");
    }

    fn a_database_by_name(who: Who) {
        let Some(world) = World::new("a_database_by_name") else { return };
        if !has("a_database_by_name", "/usr/lib/postgresql/15/bin/postgres") || !has("a_database_by_name", "/usr/bin/psql") { return }
        let run = Run::new(Who::User);
        // A server of its own refuses to be root.
        let place = run.place.path().to_owned();
        let as_user = |command: &mut Command| {
            if let Some((uid, gid)) = Who::User.ids() {
                std::os::unix::process::CommandExt::gid(std::os::unix::process::CommandExt::uid(command, uid), gid);
            }
        };
        let mut command = Command::new("/usr/lib/postgresql/15/bin/initdb");
        command.args(["-A", "trust", "-U", "tester", "--no-sync", "-D"]).arg(place.join("data")).current_dir(&place);
        as_user(&mut command);
        done(command);
        run.place.write("data/pg_hba.conf", "host all all all trust\n");
        let mut command = world.within("setpriv");
        if Who::User.ids().is_some() {
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
        }
        command.arg("/usr/lib/postgresql/15/bin/postgres").arg("-D").arg(place.join("data")).current_dir(&place);
        command.args(["-c", "listen_addresses=*", "-c", "fsync=off", "-c"]).arg(format!("unix_socket_directories={}", place.display()));
        let _server = Server::start(command);
        world.wait_for(5432);
        let line = format!("psql -h {ALLOWED} -U tester -d postgres -Atc 'select 6 * 7' && psql -h 93.184.215.14 -U tester -d postgres -Atc 'select 1'");
        let done = sandbox(who, &["--allow", ALLOWED], &line).done();
        // By its address it is refused.
        assert_eq!(done.json()["stdout"], "42\n", "{done}");
        assert_ne!(done.code, 0, "{done}");
    }

    fn a_websocket_and_http_2(who: Who) {
        let Some(world) = World::new("a_websocket_and_http_2") else { return };
        if !has("a_websocket_and_http_2", "/usr/sbin/nghttpd") { return }
        let run = sandbox(who, &["--allow", ALLOWED], &format!(
            "curl -sSk --http2 -w '%{{http_version}}\\n' https://{ALLOWED}:8443/file && curl -sSk --http2 -w '%{{http_version}}\\n' https://{ALLOWED}:8443/file \
             https://{ALLOWED}:8443/file && python3 client.py"));
        run.place.write("www/file", "file\n");
        let place = run.place.path().to_owned();
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test"]);
        openssl.arg("-keyout").arg(place.join("key.pem")).arg("-out").arg(place.join("cert.pem"));
        done(openssl);
        let mut command = world.within("/usr/sbin/nghttpd");
        command.arg("-d").arg(place.join("www")).arg("8443").arg(place.join("key.pem")).arg(place.join("cert.pem"));
        let _server = Server::start(command);
        let echo = "import socket, hashlib, base64
l = socket.create_server(('', 8080))
while True:
    c, _ = l.accept(); f = c.makefile('rb')
    lines = []
    while (line := f.readline()) not in (b'', b'\\r\\n'): lines.append(line)
    if not lines: continue
    key = next(x.split()[1] for x in lines if x.lower().startswith(b'sec-websocket-key:'))
    accept = base64.b64encode(hashlib.sha1(key + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest())
    c.sendall(b'HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: ' + accept + b'\\r\\n\\r\\n')
    while head := f.read(2):
        mask, data = f.read(4), f.read(head[1] & 127)
        c.sendall(bytes([0x82, len(data)]) + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))";
        let mut command = world.within("python3");
        command.args(["-c", echo]);
        let _socket = Server::start(command);
        world.wait_for(8443);
        world.wait_for(8080);
        let client = format!("import socket
s = socket.create_connection(('{ALLOWED}', 8080), 20)
s.sendall(b'GET /chat HTTP/1.1\\r\\nHost: {ALLOWED}:8080\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n')
f = s.makefile('rb'); print(f.readline().decode().strip(), b's3pPLMBiTxaQ9kYGzzhZRbK+xOo=' in b''.join(iter(f.readline, b'\\r\\n')))
for n in range(3):
    data = b'GET http://evil/%d' % n; mask = b'abcd'
    s.sendall(bytes([0x82, 0x80 | len(data)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))); print(f.read(2 + len(data))[2:] == data)");
        let done = run.file("client.py", client).done().expect_code(0);
        let expected = "file\n2\nfile\n2\nfile\n2\nHTTP/1.1 101 Switching Protocols True\nTrue\nTrue\nTrue\n";
        assert_eq!(done.json()["stdout"], expected, "{done}");
    }
}
