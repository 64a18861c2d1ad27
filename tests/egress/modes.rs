//! What is allowed is reached, by real clients; what is not is refused at once and told.

use serde_json::json;

use crate::{
    both,
    common::{LONGEST, Run, Who},
    world::{ALLOWED, OTHER, World, sandbox},
};

/// Quick to give up, and says why.
const CURL: &str = "curl -sS --max-time 20";

both! {
    fn what_is_allowed_is_reached_by_name(who: Who) {
        let Some(world) = World::new("what_is_allowed_is_reached_by_name") else { return };
        let line = format!("{CURL} http://{ALLOWED}/plain && {CURL} -k https://{ALLOWED}/tls");
        let done = sandbox(who, &["--allow", ALLOWED], &line).done().expect_code(0);
        let json = done.json();
        assert_eq!(json["stdout"], format!("/plain of {ALLOWED}\n/tls of {ALLOWED}\n"), "{done}");
        assert_eq!(json["controls"]["network"], "filtered");
        assert_eq!(json["denials"], json!([]), "{done}");
        assert!(world.reached().contains(&format!("93.184.215.14 /plain {ALLOWED}")), "{:?}", world.reached());
    }

    fn what_is_not_allowed_is_refused_and_told(who: Who) {
        let Some(world) = World::new("what_is_not_allowed_is_refused_and_told") else { return };
        // curl: 6 could not resolve, 7 could not connect, 56 reset.
        let line = format!("{CURL} http://{OTHER}/; echo $?; {CURL} -k https://93.184.215.15/ ; echo $?; \
            {CURL} http://93.184.215.15/");
        let done = sandbox(who, &["--allow", ALLOWED], &line).done().expect_code(0);
        let json = done.json();
        let stdout = json["stdout"].as_str().unwrap();
        assert!(stdout.starts_with("6\n35\n") || stdout.starts_with("6\n56\n"), "{done}");
        // Over plain HTTP a person can read why.
        assert!(stdout.contains("--allow 93.184.215.15"), "{done}");
        let denials = json["denials"].as_array().unwrap();
        let told = |target: &str, hint: &str| {
            denials.iter().any(|d| d["kind"] == "network" && d["target"] == target && d["hint"] == hint)
        };
        assert!(told(OTHER, &format!("--allow {OTHER}")), "{done}");
        assert!(told("93.184.215.15:443", "--allow 93.184.215.15"), "{done}");
        world.assert_untouched();
    }

    fn the_modes_are_what_they_say(who: Who) {
        let Some(_world) = World::new("the_modes_are_what_they_say") else { return };
        let line = format!("{CURL} http://{OTHER}/; echo $?; bash -c 'exec 3<>/dev/tcp/{OTHER}/2222 && head -1 <&3'; echo $?");
        for (mode, http, other) in [("web", true, false), ("public", true, true), ("packages", false, false)] {
            let done = sandbox(who, &["--net", mode], &line).done();
            let stdout = done.json()["stdout"].as_str().unwrap().to_owned();
            assert_eq!(stdout.contains(&format!("/ of {OTHER}")), http, "{mode}: {done}");
            assert_eq!(stdout.contains("SSH-2.0-test"), other, "{mode}: {done}");
            assert_eq!(done.json()["controls"]["network"], mode);
        }
    }

    fn servers_that_speak_first_are_heard(who: Who) {
        let Some(_world) = World::new("servers_that_speak_first_are_heard") else { return };
        let code = format!(
            "import socket\ns = socket.create_connection(('{ALLOWED}', 2222), 20)\nprint(s.recv(99))\ns.sendall(b'SSH-2.0-me\\r\\n')\nprint(s.recv(99))"
        );
        let done = Run::new(who).args(["--allow", ALLOWED]).python(&code).done();
        done.expect_code(0).expect_out("b'SSH-2.0-test\\r\\n'\nb'SSH-2.0-me\\r\\n'\n");
    }

    fn requests_and_bodies_arrive_byte_for_byte(who: Who) {
        let Some(_world) = World::new("requests_and_bodies_arrive_byte_for_byte") else { return };
        let code = format!(
            "import hashlib, http.client, random, socket\n\
             s = socket.create_connection(('{ALLOWED}', 80), 60)\n\
             s.sendall(b''.join(b'GET /%d HTTP/1.1\\r\\nHost: {ALLOWED}\\r\\n\\r\\n' % n for n in range(50)))\n\
             f = s.makefile('rb')\n\
             for n in range(50):\n    \
             head = b''.join(iter(f.readline, b'\\r\\n'))\n    \
             length = int(head.split(b'Content-Length: ')[1].split()[0])\n    \
             assert f.read(length) == b'/%d of {ALLOWED}\\n' % n, n\n\
             body = random.Random(1).randbytes(8 << 20)\n\
             c = http.client.HTTPConnection('{ALLOWED}', timeout=60)\n\
             parts = lambda: (body[at:at + 50001] for at in range(0, len(body), 50001))\n\
             for part in (body, parts()):\n    \
             c.request('POST', '/', part, {{}}, encode_chunked=part is not body)\n    \
             print(c.getresponse().read().decode() == f'{{len(body)}} {{hashlib.sha256(body).hexdigest()}}\\n')"
        );
        let done = Run::new(who).args(["--allow", ALLOWED]).python(&code).done();
        done.expect_code(0).expect_out("True\nTrue\n");
    }

    fn one_port_of_the_host_can_be_opened(who: Who) {
        let Some(_world) = World::new("one_port_of_the_host_can_be_opened") else { return };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, shut) = (listener.local_addr().unwrap().port(), other.local_addr().unwrap().port());
        std::thread::spawn(move || {
            use std::io::Write;
            while let Ok((mut stream, _)) = listener.accept() {
                _ = stream.write_all(b"the host's own");
            }
        });
        let code = format!(
            "import socket\nprint(socket.create_connection(('host.fumehood.internal', {port}), 20).recv(99))\n\
             try: print(socket.create_connection(('host.fumehood.internal', {shut}), 20).recv(99))\n\
             except OSError as e: print(type(e).__name__)"
        );
        let done = Run::new(who).args(["--allow-private", &format!("localhost:{port}")]).python(&code).done();
        done.expect_code(0).expect_out("b\"the host's own\"\nConnectionResetError\n");
        other.set_nonblocking(true).unwrap();
        assert!(other.accept().is_err());
    }

    fn what_a_program_sends_at_its_end_gets_there(who: Who) {
        let Some(_world) = World::new("what_a_program_sends_at_its_end_gets_there") else { return };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, got) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            use std::io::Read;
            while let Ok((mut stream, _)) = listener.accept() {
                let mut all = Vec::new();
                let ended = stream.read_to_end(&mut all).is_ok();
                _ = sender.send((all, ended));
            }
        });
        for _ in 0..6 {
            let line = format!("exec bash -c 'echo 0123456789 > /dev/tcp/host.fumehood.internal/{port}'");
            Run::new(who).args(["--allow-private", &format!("localhost:{port}")]).cmd(&line).done().expect_code(0);
            assert_eq!(got.recv_timeout(LONGEST).unwrap(), (b"0123456789\n".to_vec(), true));
        }
    }

    fn the_hosts_network_is_as_it_was(who: Who) {
        let Some(_world) = World::new("the_hosts_network_is_as_it_was") else { return };
        let look = || {
            // The kernel itself still makes its addresses of the sixth version.
            let shell = "ip -br link; ip -4 addr; ip -4 route; ip rule; nft list ruleset; \
                cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/rp_filter";
            let output = std::process::Command::new("sh").args(["-c", shell]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let before = look();
        let run = Run::new(who).args(["--allow", ALLOWED]);
        let gate = run.place.mkdir("gate");
        let line = format!("{CURL} http://{ALLOWED}/ && while [ ! -e /gate/open ]; do sleep 0.05; done");
        let run = run.args(["--mount", &format!("{}:/gate", gate.display())]).cmd(&line);
        let mut command = run.command();
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        {
            use std::io::Read;
            let mut answer = vec![0; "/ of ".len()];
            child.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        }
        assert_eq!(look(), before);
        run.place.write("gate/open", "");
        run.wait_for(child).expect_code(0).check_nothing_left();
        assert_eq!(look(), before);
    }

    /// An ordinary user's ids are mapped through /proc, which is read-only here: an error, and nobody waits for anybody.
    fn what_cannot_be_made_is_an_error(who: Who) {
        let Some(_world) = World::new("what_cannot_be_made_is_an_error") else { return };
        // The mount namespace is the test's own.
        let flags = nix::mount::MsFlags::MS_BIND | nix::mount::MsFlags::MS_REC;
        nix::mount::mount(Some("/proc"), "/proc", None::<&str>, flags, None::<&str>).unwrap();
        let flags = nix::mount::MsFlags::MS_BIND | nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(None::<&str>, "/proc", None::<&str>, flags, None::<&str>).unwrap();
        let run = Run::new(who).args(["--allow", ALLOWED]).cmd("echo it runs");
        let command = run.command();
        let done = run.finish(command).expect_code(125);
        assert!(done.err().contains("error: "), "{done}");
        done.check_nothing_left();
    }

    fn rules_that_cannot_be_are_refused(who: Who) {
        for (options, message) in [
            (&["--allow", "*.co.uk"][..], "*.co.uk"),
            (&["--allow", "10.0.0.0/8"], "10.0.0.0/8"),
            (&["--allow", "a_b-.c!"], "a_b-.c!"),
            (&["--allow", "/(/"], "/(/"),
            (&["--net", "none", "--allow", "a.org"], "--allow"),
            (&["--net", "host", "--deny", "a.org"], "--deny"),
            (&["--net", "everything"], "everything"),
        ] {
            let done = Run::new(who).args(options).cmd("true").done().expect_code(125);
            assert!(done.err().contains(message), "{done}");
            assert!(done.err().contains("hint: "), "{done}");
        }
    }
}
