//! The control side: policies from files, the log of what was asked for, policies that change while a sandbox runs.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Child, ChildStdout, Stdio},
};

use serde_json::{Value, json};

use crate::{
    both,
    common::{Run, Who, host},
    world::{ALLOWED, OTHER, World, on_gvisor, sandbox},
};

/// Quick to give up; prints the status and curl's own code.
const CURL: &str = "curl -s -o /dev/null --max-time 20 -w '%{http_code} '";

both! {
    fn a_policy_is_a_file(who: Who) {
        let Some(_world) = World::new("a_policy_is_a_file") else { return };
        let line = format!("{CURL} http://{ALLOWED}/; {CURL} http://{OTHER}/; {CURL} http://{ALLOWED}:2222/; true");
        let policy = r#"{"mode": "web", "deny": ["other.example.org"]}"#;
        let place = Run::new(who).place;
        place.write("policy.json", policy);
        place.write("rules", "# what is needed\n\n  allowed.example.org:80  # its port\n");
        place.write("shut", "/other.*/\n");
        let at = |name: &str| format!("@{}", place.join(name).display());
        for (options, network) in [
            (vec!["--net".to_owned(), at("policy.json")], "web"),
            (vec!["--allow".to_owned(), at("rules"), "--allow".to_owned(), "@packages".to_owned()], "filtered"),
            (vec!["--net".to_owned(), "web".to_owned(), "--deny".to_owned(), at("shut")], "web"),
        ] {
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            let done = sandbox(who, &options, &line).done().expect_code(0);
            assert_eq!(done.json()["stdout"], "200 000 403 ", "{done}");
            assert_eq!(done.json()["controls"]["network"], network);
        }
    }

    fn all_that_is_asked_for_is_in_the_log(who: Who) {
        let Some(_world) = World::new("all_that_is_asked_for_is_in_the_log") else { return };
        let line = format!(
            "{CURL} http://{ALLOWED}/some/path; {CURL} -k https://{ALLOWED}/; {CURL} http://{OTHER}/; \
             {CURL} http://1.1.1.1/; {CURL} http://{ALLOWED}:81/; \
             python3 -c 'import socket; s = socket.create_connection((\"{ALLOWED}\", 2222)); s.recv(99); s.sendall(b\"x\" * 50); s.recv(99)'"
        );
        let run = sandbox(who, &["--allow", ALLOWED, "--log-network", "log"], &line);
        let done = run.done().expect_code(0);
        let text = done.place().read("log");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told = |wanted: Value| {
            let wanted = wanted.as_object().unwrap();
            lines.iter().filter(|line| wanted.iter().all(|(key, value)| &line[key] == value)).cloned().collect::<Vec<_>>()
        };
        let rule = format!("--allow {ALLOWED}");
        let http = told(json!({"verdict": "allowed", "protocol": "http", "host": ALLOWED, "port": 80, "rule": rule}));
        assert_eq!(http.len(), 1, "{text}\n{done}");
        assert_eq!(http[0]["address"], "93.184.215.14");
        assert!(http[0]["sent_bytes"].as_u64().unwrap() > "GET /some/path HTTP/1.1".len() as u64, "{text}");
        assert!(http[0]["received_bytes"].as_u64().unwrap() > "HTTP/1.0 200 OK".len() as u64, "{text}");
        assert!(http[0]["duration_ms"].is_u64() && http[0]["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(told(json!({"verdict": "allowed", "protocol": "tls", "host": ALLOWED, "port": 443})).len(), 1, "{text}");
        let failed = told(json!({"verdict": "allowed", "host": ALLOWED, "port": 81, "received_bytes": 0}));
        assert!(failed[0]["error"].as_str().unwrap().contains("refused"), "{text}");
        let banner = told(json!({"protocol": "tcp", "port": 2222, "sent_bytes": 50, "received_bytes": 14 + 50}));
        assert_eq!(banner.len(), 1, "{text}");
        assert!(!told(json!({"verdict": "allowed", "protocol": "dns", "host": ALLOWED, "port": null})).is_empty());
        let denied = told(json!({"verdict": "denied", "protocol": "dns", "host": OTHER, "rule": "--net filtered"}));
        assert!(!denied.is_empty(), "{text}");
        assert_eq!(told(json!({"verdict": "denied", "host": "1.1.1.1", "port": 80})).len(), 1, "{text}");
        assert_eq!(told(json!({"host": OTHER, "verdict": "allowed"})), [] as [Value; 0]);
    }

    fn a_connection_is_told_although_it_is_open_at_the_end(who: Who) {
        let Some(_world) = World::new("a_connection_is_told_although_it_is_open_at_the_end") else { return };
        let code = format!(
            "import os, socket, time\ns = socket.create_connection(('{ALLOWED}', 2222), 20)\ns.recv(99)\nos.kill(os.getpid(), 9)"
        );
        let done = Run::new(who).args(["--allow", ALLOWED, "--log-network", "-", "-q"]).python(&code).done();
        let told = done.err().lines().filter(|line| line.contains(r#""port":2222"#)).count();
        assert_eq!(told, 1, "{done}");
        let done = Run::new(who).args(["--allow", ALLOWED, "--events"]).python(&code).done();
        let events: Vec<Value> = done.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let network: Vec<_> = events.iter().filter(|event| event["event"] == "network").collect();
        assert!(network.iter().any(|event| event["port"] == 2222 && event["received_bytes"] == 14), "{done}");
        assert_eq!(events[0]["event"], "start");
        assert_eq!(events.last().unwrap()["event"], "exit");
    }

    fn a_log_that_cannot_be_is_an_error(who: Who) {
        for (options, message) in [
            (&["--log-network", "log"][..], "--net none"),
            (&["--log-network", "log", "--net", "host"], "--net host"),
            (&["--log-network", "no/such/log", "--net", "filtered"], "no/such/log"),
        ] {
            Run::new(who).args(options).cmd("true").done().expect_error(message);
        }
        let run = Run::new(who).args(["--net", "filtered", "--log-network", "pipe"]).cmd("true");
        pipe(&run);
        run.done().expect_error("that nobody reads").expect_hint();
    }

    fn a_log_that_is_not_read_keeps_nobody_from_ending_a_run(who: Who) {
        let Some(_world) = World::new("a_log_that_is_not_read_keeps_nobody_from_ending_a_run") else { return };
        // More than a pipe holds.
        let code = "import socket\nprint('here', flush=True)\nfor n in range(5000):\n    \
            try: socket.getaddrinfo(f'{\"x\" * 60}.{n}.{\"y\" * 60}.example', 80)\n    \
            except OSError: pass";
        let run = Run::new(who).args(["--net", "filtered", "--log-network", "pipe", "--timeout", "none", "-q"]);
        let run = run.python(code);
        pipe(&run);
        let path = run.place.join("pipe");
        let reader = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let (mut child, mut lines) = begin(&run);
        assert_eq!(next(&mut lines), "here");
        // Its pages are not filled to the last byte.
        let mut before = 0;
        assert!(host::eventually(|| std::mem::replace(&mut before, unread(&reader)) == unread(&reader) && before > 56 << 10));
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
        assert_eq!(host::left_of(&run.name, &run.place), [] as [String; 0]);
    }

    fn a_policy_that_cannot_be_read_is_an_error(who: Who) {
        let place = Run::new(who).place;
        place.write("broken.json", r#"{"mode": "web", "alow": []}"#);
        place.write("wide.json", r#"{"allow": ["*.co.uk"]}"#);
        place.write("rules", "good.example\nbad..example\n");
        let at = |name: &str| format!("@{}", place.join(name).display());
        for (flag, value, message) in [
            ("--net", at("broken.json"), "alow"),
            ("--net", at("wide.json"), "*.co.uk"),
            ("--net", at("nothing.json"), "nothing.json"),
            ("--allow", at("rules"), "bad..example"),
            ("--deny", at("rules"), "bad..example"),
            ("--allow", "@package".to_owned(), "package"),
        ] {
            Run::new(who).args([flag, &value]).cmd("true").done().expect_error(message).expect_hint();
        }
    }

    fn a_running_sandbox_gets_another_policy(who: Who) {
        let Some(_world) = World::new("a_running_sandbox_gets_another_policy") else { return };
        let code = format!(
            "import socket, time\ns = socket.create_connection(('{ALLOWED}', 2222), 20); s.recv(99); print('open', flush=True)\n\
             try: print(s.recv(99))\nexcept ConnectionResetError: print('cut', flush=True)\n\
             while True:\n    \
             try: print(socket.create_connection(('{OTHER}', 2222), 20).recv(99), flush=True); break\n    \
             except OSError: time.sleep(0.05)"
        );
        let run = Run::new(who).args(["--allow", ALLOWED, "--timeout", "none", "-q"]).python(&code);
        let (mut child, mut lines) = begin(&run);
        let told = |run: &Run, words: &[&str]| beside(run, "net").args(words).done().expect_code(0);
        assert_eq!(next(&mut lines), "open");
        let shown: Value = serde_json::from_str(&told(&run, &["show", &run.name]).out()).unwrap();
        assert_eq!(shown, json!({"mode": "filtered", "allow": [ALLOWED]}));
        told(&run, &["set", &run.name, "--net", "none"]);
        assert_eq!(next(&mut lines), "cut");
        told(&run, &["set", &run.name, "--net", "web", "--allow", &format!("{OTHER}:2222")]);
        assert_eq!(next(&mut lines), r"b'SSH-2.0-test\r\n'");
        assert!(child.wait().unwrap().success());
        assert_eq!(host::left_of(&run.name, &run.place), [] as [String; 0]);
    }

    fn what_is_said_of_a_policy_that_changed(who: Who) {
        let Some(_world) = World::new("what_is_said_of_a_policy_that_changed") else { return };
        let code = "import sys; print('here', flush=True); sys.stdin.read()";
        let run = Run::new(who).args(["--net", "filtered", "--timeout", "none", "--events", "-i"]).python(code);
        let (mut child, mut lines) = begin(&run);
        let mut event = |kind: &str| loop {
            let event: Value = serde_json::from_str(&next(&mut lines)).unwrap();
            if event["event"] == kind {
                break event;
            }
        };
        assert_eq!(event("stdout")["data"], "here\n");
        beside(&run, "net").args(["set", &run.name, "--net", "web", "--deny", OTHER]).done().expect_code(0);
        assert_eq!(event("policy")["policy"], json!({"mode": "web", "deny": [OTHER]}));
        let list = beside(&run, "ps").arg("--json").done().json();
        let record = list.as_array().unwrap().iter().find(|record| record["id"] == run.name.as_str()).unwrap().clone();
        assert_eq!(record["network"], "web");
        drop(child.stdin.take());
        assert_eq!(event("exit")["controls"]["network"], "web");
        child.wait().unwrap();
    }

    fn a_policy_is_as_large_as_it_can_be_told(who: Who) {
        let run = Run::new(who).args(["--net", "filtered", "--timeout", "none"]).cmd("echo here; exec sleep 1000");
        let (mut child, mut lines) = begin(&run);
        assert_eq!(next(&mut lines), "here");
        // As one record: the largest that is taken, and one byte more.
        for (bytes, fits) in [((128 << 10) - 1, true), (128 << 10, true), ((128 << 10) + 1, false)] {
            let policy = policy_of(bytes);
            run.place.write("policy.json", policy.to_string());
            let at = format!("@{}", run.place.join("policy.json").display());
            let done = beside(&run, "net").args(["set", &run.name, "--net", &at]).done();
            if !fits {
                done.expect_error("more than 131072 bytes");
                continue;
            }
            done.expect_code(0);
            let shown: Value = serde_json::from_str(&beside(&run, "net").args(["show", &run.name]).done().expect_code(0).out()).unwrap();
            assert!(shown == policy, "{bytes}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(host::eventually(|| host::processes(&run.name).is_empty()));
        beside(&run, "cleanup").done().expect_code(0);
        // One that a sandbox was started with may be larger.
        let run = Run::new(who).args(["--timeout", "none"]);
        run.place.write("policy.json", policy_of(300 << 10).to_string());
        let at = format!("@{}", run.place.join("policy.json").display());
        let run = run.args(["--net", &at]).cmd("echo here; exec sleep 1000");
        let (mut child, mut lines) = begin(&run);
        assert_eq!(next(&mut lines), "here");
        beside(&run, "net").args(["show", &run.name]).done().expect_error("are told at once");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(host::eventually(|| host::processes(&run.name).is_empty()));
        beside(&run, "cleanup").done().expect_code(0);
    }

    fn who_is_killed_leaves_a_socket_and_cleanup_none(who: Who) {
        let run = Run::new(who).args(["--net", "filtered"]).cmd("echo here; exec sleep 1000");
        let (mut child, mut lines) = begin(&run);
        assert_eq!(next(&mut lines), "here");
        let list = beside(&run, "ps").arg("--json").done().json();
        let record = list.as_array().unwrap().iter().find(|record| record["id"] == run.name.as_str()).unwrap().clone();
        let dir = if who == Who::Root { "/run/fumehood".into() } else { run.place.join("runtime-dir/fumehood") };
        let socket = dir.join(record["control"].as_str().unwrap());
        assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(host::eventually(|| host::processes(&run.name).is_empty()));
        assert!(socket.exists());
        let done = beside(&run, "net").args(["show", &run.name]).done();
        done.expect_error("no sandbox called").expect_hint();
        let cleaned = beside(&run, "cleanup").done().expect_code(0);
        assert!(cleaned.out().contains(&socket.display().to_string()), "{cleaned}");
        assert!(!socket.exists());
        assert_eq!(host::left_of(&run.name, &run.place), [] as [String; 0]);
    }

    fn doctor_makes_a_gateway_to_know_that_it_can(who: Who) {
        let done = Run::verb(who, "doctor").arg("--json").done();
        let checks = done.json()["checks"].as_array().unwrap().clone();
        let check = checks.iter().find(|check| check["name"] == "egress").unwrap();
        assert_eq!(check["status"], "ok", "{check}");
        // One network namespace is enough for a sandbox, and two are needed for a gateway.
        let limit = "echo 1 > /proc/sys/user/max_net_namespaces && exec \"$@\"";
        let within = ["unshare", "--map-root-user", "sh", "-c", limit, "sh"];
        let done = Run::verb(who, "doctor").arg("--json").wrapped(within).done();
        let checks = done.json()["checks"].as_array().unwrap().clone();
        let check = checks.iter().find(|check| check["name"] == "egress").unwrap();
        assert_eq!(check["status"], "degraded", "{check}");
        assert!(check["detail"].as_str().unwrap().contains("user.max_*_namespaces"), "{check}");
        assert!(check["fix"].is_string(), "{check}");
    }

    fn a_policy_needs_a_gateway(who: Who) {
        let run = Run::new(who).cmd("echo here; exec sleep 1000");
        let (mut child, mut lines) = begin(&run);
        assert_eq!(next(&mut lines), "here");
        for (words, message) in [
            (vec!["set", &run.name, "--net", "web"], "--net none"),
            (vec!["show", &run.name], "--net none"),
            (vec!["show", "no-such-sandbox"], "no-such-sandbox"),
            (vec!["set", &run.name, "--net", "host"], "--net host"),
            (vec!["set", &run.name, "--allow", "*.com"], "*.com"),
            (vec!["set", &run.name], "--net"),
        ] {
            beside(&run, "net").args(words).done().expect_error(message).expect_hint();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(host::eventually(|| host::processes(&run.name).is_empty()));
        beside(&run, "cleanup").done().expect_code(0);
    }
}

both! {
    fn a_port_is_open_on_the_host_and_nothing_else_is(who: Who) {
        let Some(world) = World::new("a_port_is_open_on_the_host_and_nothing_else_is") else { return };
        let code = "import http.server, threading, socketserver\n\
            class H(http.server.BaseHTTPRequestHandler):\n    \
            def do_POST(self):\n        \
            body = self.rfile.read(int(self.headers['Content-Length'])); self.send_response(200)\n        \
            self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)\n        \
            self.log_message('%s', self.client_address[0]); over.set()\n    \
            def log_message(self, f, *a): print(*a, flush=True)\n\
            over = threading.Event()\n\
            servers = [socketserver.ThreadingTCPServer(('0.0.0.0', port), H) for port in (8000, 8001)]\n\
            for s in servers: s.daemon_threads = True; threading.Thread(target=s.serve_forever, daemon=True).start()\n\
            print('listening', flush=True); over.wait()";
        // gVisor's network stack ends with its program, and with it what it has not sent yet: there, the program waits until
        // it is hung up on.
        let hung_up = "self.connection.shutdown(1); self.rfile.read(); over.set()";
        let code = if on_gvisor() { code.replacen("over.set()", hung_up, 1) } else { code.to_owned() };
        let run = Run::new(who).args(["-p", "0:8000", "--timeout", "none", "--events"]).python(&code);
        let (mut child, mut lines) = begin(&run);
        let mut event = |kind: &str| loop {
            let event: Value = serde_json::from_str(&next(&mut lines)).unwrap();
            if event["event"] == kind {
                break event;
            }
        };
        let start = event("start");
        assert_eq!(start["controls"]["network"], "filtered");
        let port = start["ports"][0]["host_port"].as_u64().unwrap();
        assert_eq!(start["ports"], json!([{"address": "127.0.0.1", "host_port": port, "port": 8000}]));
        assert_eq!(event("stdout")["data"], "listening\n");
        let list = beside(&run, "ps").arg("--json").done().json();
        let record = list.as_array().unwrap().iter().find(|record| record["id"] == run.name.as_str()).unwrap().clone();
        assert_eq!(record["ports"], start["ports"]);
        // On no other address of the host's, and no other port of the sandbox's.
        let open = |at: &str| std::net::TcpStream::connect(at).is_ok();
        assert!(!open(&format!("5.5.5.1:{port}")));
        assert!(!open("127.0.0.1:8001") && !open("127.0.0.1:8000"));
        let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let head = format!("POST / HTTP/1.0\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut sending = stream.try_clone().unwrap();
        let sent = body.clone();
        let sender = std::thread::spawn(move || {
            sending.write_all(head.as_bytes()).unwrap();
            sending.write_all(&sent).unwrap();
        });
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        sender.join().unwrap();
        drop(stream);
        assert!(answer.ends_with(&body), "{} bytes", answer.len());
        let told = event("network");
        let rule = format!("--publish 127.0.0.1:{port}:8000");
        assert_eq!((&told["host"], &told["port"], &told["rule"]), (&json!("127.0.0.1"), &json!(8000), &json!(rule)));
        for bytes in ["sent_bytes", "received_bytes"] {
            assert!(told[bytes].as_u64().unwrap() > body.len() as u64, "{told}");
        }
        let exit = event("exit");
        assert_eq!((&exit["verdict"], &exit["ports"]), (&json!("ok"), &start["ports"]));
        assert!(exit["denials"].as_array().unwrap().is_empty(), "{exit}");
        assert!(child.wait().unwrap().success());
        assert!(!open(&format!("127.0.0.1:{port}")));
        assert_eq!(host::left_of(&run.name, &run.place), [] as [String; 0]);
        world.assert_untouched();
    }

    fn a_port_that_cannot_be_opened_is_an_error_before_anything_runs(who: Who) {
        let Some(_world) = World::new("a_port_that_cannot_be_opened_is_an_error_before_anything_runs") else { return };
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        for (options, message) in [
            (vec!["-p".to_owned(), format!("{port}:80")], format!("127.0.0.1:{port}")),
            (vec!["-p".to_owned(), "9.9.9.9:8080:80".to_owned()], "9.9.9.9:8080".to_owned()),
            (vec!["-p".to_owned(), "http".to_owned()], "http".to_owned()),
            (vec!["-p".to_owned(), "80/udp".to_owned()], "TCP".to_owned()),
            (vec!["-p".to_owned(), "0:80".to_owned(), "--net".to_owned(), "host".to_owned()], "host".to_owned()),
        ] {
            let run = Run::new(who).args(options).arg("-q").cmd("echo it ran");
            run.done().expect_error(&message).expect_hint();
        }
        let done = Run::new(who).args(["-p", "0.0.0.0:0:80"]).cmd("true").done().expect_code(0);
        assert!(done.err().contains("open to all") && done.err().contains("port 80 is at 0.0.0.0:"), "{done}");
    }

    fn what_connects_to_nobody_is_reset_and_what_is_killed_leaves_no_helper(who: Who) {
        let Some(_world) = World::new("what_connects_to_nobody_is_reset") else { return };
        let run = Run::new(who).args(["-p", "0:81", "--events"]).cmd("echo here; exec sleep 1000");
        let (mut child, mut lines) = begin(&run);
        let start: Value = serde_json::from_str(&next(&mut lines)).unwrap();
        let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{}", start["ports"][0]["host_port"])).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        let helper = |run: &Run| host::processes(&run.name).len();
        assert!(helper(&run) >= 2);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(host::eventually(|| helper(&run) == 0), "{:?}", host::processes(&run.name));
        beside(&run, "cleanup").done().expect_code(0);
        assert_eq!(host::left_of(&run.name, &run.place), [] as [String; 0]);
    }
}

both! {
    fn a_setup_has_a_network_and_the_program_another(who: Who) {
        let Some(world) = World::new("a_setup_has_a_network_and_the_program_another") else { return };
        // What is left running and open by the setup is no way for the program.
        let setup = format!(
            "curl -s http://{ALLOWED}/installed > got; cat; echo in the setup; (exec 9<>/dev/tcp/{ALLOWED}/2222; sleep 1000) & \
             setsid bash -c 'exec 9<>/dev/tcp/{ALLOWED}/2222; head -n 1 <&9; echo $$ > held; exec sleep 1000' & \
             while [ ! -s held ]; do sleep 0.02; done"
        );
        let setup = format!("bash -c '{}'", setup.replace('\'', "'\\''"));
        let line = format!("cat got; cat; ls /proc | grep -c '^[0-9]'; {CURL} http://{ALLOWED}/code; {CURL} http://{OTHER}/; true");
        for (net, codes) in [(&["--net", "none"][..], "000 000 "), (&["--allow", OTHER], "000 200 ")] {
            let policy = format!(r#"{{"allow": ["{ALLOWED}"]}}"#);
            let run = sandbox(who, &["--setup", &setup, "--stdin", "the program reads this", "--log-network", "log"], &line);
            run.place.write("setup.json", policy);
            let at = format!("@{}", run.place.join("setup.json").display());
            let done = run.args(["--setup-net", &at]).args(net).done().expect_code(0);
            let json = done.json();
            let stdout = json["stdout"].as_str().unwrap();
            assert!(stdout.starts_with(&format!("/installed of {ALLOWED}\nthe program reads this")), "{done}");
            assert!(stdout.ends_with(codes), "{done}");
            assert_eq!(json["setup"]["verdict"], "ok", "{done}");
            assert!(json["setup"]["stdout"].as_str().unwrap().contains("in the setup"), "{done}");
            assert_eq!(json["controls"]["network"], "filtered");
            // Its connections were told when they were cut, one with the greeting that it had.
            let log = done.place().read("log");
            assert!(log.lines().any(|line| line.contains(r#""port":2222"#) && line.contains(r#""received_bytes":14"#)), "{log}");
            let denials = json["denials"].as_array().unwrap();
            assert!(denials.iter().any(|denial| denial["target"] == ALLOWED), "{done}");
        }
        assert!(!world.reached().iter().any(|line| line.contains("/code")), "{:?}", world.reached());
    }

    fn what_a_failing_setup_sent_last_arrives(who: Who) {
        let Some(_world) = World::new("what_a_failing_setup_sent_last_arrives") else { return };
        const BYTES: usize = 2_000_000;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // One that does not read yet when the sandbox has ended.
            std::thread::sleep(std::time::Duration::from_millis(300));
            let mut got = Vec::new();
            stream.read_to_end(&mut got).map(|_| got.len())
        });
        let run = Run::new(who);
        let policy = json!({ "mode": "filtered", "allow_private": [format!("localhost:{port}")] });
        run.place.write("setup.json", policy.to_string());
        let at = format!("@{}", run.place.join("setup.json").display());
        let setup = format!("head -c {BYTES} /dev/zero > /dev/tcp/host.fumehood.internal/{port}; exit 7");
        let setup = format!("bash -c '{setup}'");
        let done = run.args(["--setup", &setup, "--setup-net", &at, "--json", "--", "true"]).done();
        assert_eq!(done.json()["exit_code"], 7, "{done}");
        assert_eq!(server.join().unwrap().unwrap(), BYTES, "{done}");
    }

    fn a_setup_that_fails_is_the_end(who: Who) {
        let Some(world) = World::new("a_setup_that_fails_is_the_end") else { return };
        let run = |options: &[&str]| Run::new(who).args(options).arg("--setup").arg("echo went wrong >&2; exit 7");
        let done = run(&["--json"]).cmd("echo it ran").done().expect_code(7).expect_verdict("failed");
        let json = done.json();
        assert_eq!((&json["exit_code"], &json["setup"]["exit_code"], &json["stdout"]), (&json!(7), &json!(7), &json!("")));
        assert_eq!(json["stderr"], "went wrong\n");
        let done = run(&[]).cmd("echo it ran").done().expect_code(7).expect_out("");
        assert!(done.err().contains("failed: the setup ended with status 7 (--setup)"), "{done}");
        for (options, message) in [
            (&["--setup", "true", "--net", "host"][..], "setup"),
            (&["--setup", "true", "--setup-net", "host"], "setup"),
            (&["--setup-net", "web"], "--setup-net"),
        ] {
            Run::new(who).args(options).arg("-q").cmd("true").done().expect_error(message).expect_hint();
        }
        let done = Run::new(who).args(["--setup", "echo $PWD > here", "--setup-net", "none"]).cmd("cat here").done();
        done.expect_code(0).expect_out("/sandbox\n");
        world.assert_untouched();
    }
}

/// A program with its user's own id, and the directory given by name: it is not the user.
#[test]
fn a_program_does_not_change_its_own_policy() {
    let Some(who) = Who::User.find("a_program_does_not_change_its_own_policy") else { return };
    let run = Run::new(who).args(["--net", "filtered"]);
    run.place.mkdir("runtime-dir/fumehood");
    std::fs::set_permissions(run.place.join("runtime-dir/fumehood"), PermissionsExt::from_mode(0o700)).unwrap();
    let mount = format!("{}:/state:rw", run.place.join("runtime-dir/fumehood").display());
    let code = "import glob, socket\nfor words in (b'\"show\"', b'{\"set\":{\"mode\":\"web\"}}'):\n    \
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(glob.glob('/state/*.sock')[0])\n    \
        try: s.send(words); print(s.recv(9999))\n    \
        except OSError: print(b'')";
    let done = run.args(["--mount", &mount]).json_result().python(code).done().expect_code(0);
    assert_eq!(done.json()["stdout"], "b''\nb''\n", "{done}");
    assert_eq!(done.json()["controls"]["network"], "filtered");
}

/// The supervisor is root of a user namespace that has one id, which is the program's too.
#[test]
fn a_program_of_a_root_with_one_id_does_not_change_its_own_policy() {
    let name = "a_program_of_a_root_with_one_id_does_not_change_its_own_policy";
    let Some(who) = Who::Root.find(name) else { return };
    let run = Run::new(who).args(["--net", "filtered", "--mount", "/run/fumehood:/state"]);
    let code = "import glob, socket\nheard = 0\nfor path in glob.glob('/state/*.sock'):\n    \
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n    \
        try: s.connect(path); s.send(b'{\"set\":{\"mode\":\"web\"}}'); heard += len(s.recv(9999))\n    \
        except OSError as error: print(error)\nprint('heard', heard, len(glob.glob('/state/*.sock')) > 0)";
    let run = run.json_result().python(code);
    let private = "mount -t tmpfs none /run && mkdir -m 700 /run/fumehood && exec \"$@\"";
    let done = run.wrapped(["unshare", "--map-root-user", "--mount", "sh", "-c", private, "sh"]).done().expect_code(0);
    assert!(done.json()["stdout"].as_str().unwrap().ends_with("heard 0 True\n"), "{done}");
    assert_eq!(done.json()["controls"]["network"], "filtered");
}

/// Another command of the same user, on the same sandboxes.
pub fn beside(run: &Run, verb: &'static str) -> Run {
    Run::verb(run.who, verb).env("XDG_RUNTIME_DIR", run.place.join("runtime-dir"))
}

/// One that takes so many bytes where it is set.
fn policy_of(bytes: usize) -> Value {
    const EACH: usize = 60;
    let policy = |names: Vec<String>| json!({"mode": "filtered", "allow": names});
    let taken = |policy: &Value| json!({ "set": policy }).to_string().len();
    let name = |number: usize, length: usize| {
        let tail = format!("{number:05}.example");
        let labels = (0..length - tail.len()).map(|at| if at % 50 == 49 { '.' } else { 'x' });
        labels.collect::<String>() + &tail
    };
    // With two quotes and a comma for each but the last, which has no comma.
    let room = bytes - taken(&policy(Vec::new())) + 1;
    let count = room / (EACH + 3) - 1;
    let names = (0..count).map(|number| name(number, EACH)).chain([name(count, room - count * (EACH + 3) - 3)]);
    let policy = policy(names.collect());
    assert_eq!(taken(&policy), bytes);
    policy
}

fn pipe(run: &Run) {
    let path = run.place.join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    run.place.own(&path);
}

fn unread(pipe: &std::fs::File) -> usize {
    fumehood::sys::socket::unread(pipe).unwrap()
}

pub fn begin(run: &Run) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = run.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

pub fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    lines.next().unwrap().unwrap()
}
