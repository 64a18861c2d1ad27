//! UDP: in `open` relayed to public addresses, in every other mode refused.

use crate::{
    both,
    common::{Run, Who},
    world::{ALLOWED, OTHER, REBOUND, World},
};

/// `said(host, port, data)`: what comes back, and from where; by one socket for all.
const CLIENT: &str = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def said(host, port, data=b'hello', patience=20):
    s.settimeout(patience)
    try:
        to = (socket.gethostbyname(host), port)
        s.sendto(data, to)
        back, place = s.recvfrom(65535)
        return back == data and place == to
    except OSError as e: return type(e).__name__
";

both! {
    fn it_goes_out_where_all_is_open(who: Who) {
        let Some(world) = World::new("it_goes_out_where_all_is_open") else { return };
        let code = format!(
            "{CLIENT}for host in ('{ALLOWED}', '{OTHER}', '1.1.1.1'):\n    \
             print(*[said(host, port, data) for port in (443, 9999) for data in (b'a', b'x' * 60000, b'b')])"
        );
        let run = Run::new(who).args(["--net", "open", "--log-network", "log"]).json_result().python(&code);
        let done = run.done().expect_code(0);
        assert_eq!(done.json()["stdout"], "True True True True True True\n".repeat(3), "{done}");
        // Each flow is told of, with what went either way.
        let log = done.place().read("log");
        let flows = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let flows: Vec<_> = flows.filter(|flow| flow["protocol"] == "udp").collect();
        assert_eq!(flows.len(), 6, "{log}");
        for flow in flows {
            assert_eq!((&flow["verdict"], &flow["rule"]), (&"allowed".into(), &"--net open".into()), "{flow}");
            assert_eq!((&flow["sent_bytes"], &flow["received_bytes"]), (&60002.into(), &60002.into()), "{flow}");
            assert!(flow["address"].is_string(), "{flow}");
        }
        assert!(world.reached().contains(&"93.184.215.15:443 udp 60000".to_owned()), "{:?}", world.reached());
    }

    fn what_is_private_is_not_reached_by_it_either(who: Who) {
        let Some(world) = World::new("what_is_private_is_not_reached_by_it_either") else { return };
        let code = format!(
            "{CLIENT}for host in ('10.9.9.9', '{REBOUND}', '169.254.169.254', '5.5.5.1', '198.18.0.1'):\n    \
             print(said(host, 9999, b'x', 1))\nprint(said('{OTHER}', 443, b'x', 1), said('{ALLOWED}', 443))"
        );
        let options = ["--net", "open", "--allow-private", "10.9.9.9:9999", "--deny", "93.184.215.15"];
        let done = Run::new(who).args(options).json_result().python(&code).done().expect_code(0);
        let json = done.json();
        assert_eq!(json["stdout"], "TimeoutError\n".repeat(5) + "TimeoutError True\n", "{done}");
        let denials = json["denials"].as_array().unwrap();
        let told = |target: &str| denials.iter().any(|denial| denial["target"] == target);
        for target in ["10.9.9.9:9999".to_owned(), format!("{REBOUND}:9999"), format!("{OTHER}:443")] {
            assert!(told(&target), "{target}: {done}");
        }
        let udp: Vec<_> = world.reached().into_iter().filter(|line| line.contains("udp")).collect();
        assert_eq!(udp, ["93.184.215.14:443 udp 5"]);
    }

    fn it_is_no_way_around_rules_that_read(who: Who) {
        let Some(world) = World::new("it_is_no_way_around_rules_that_read") else { return };
        let code = format!("{CLIENT}print(said('{ALLOWED}', 443, b'x', 1), said('1.1.1.1', 9999, b'x', 1))");
        for (rule, expected) in [
            (["--allow".to_owned(), format!("GET https://{ALLOWED}/*")], "TimeoutError True\n"),
            (["--deny".to_owned(), "*.evil.example".to_owned()], "TimeoutError TimeoutError\n"),
        ] {
            let done = Run::new(who).args(["--net", "open", "-q"]).args(rule).python(&code).done();
            done.expect_code(0).expect_out(expected);
        }
        drop(world);
    }

    fn a_flow_of_the_setup_is_cut_at_its_end(who: Who) {
        let Some(world) = World::new("a_flow_of_the_setup_is_cut_at_its_end") else { return };
        // The program sends from the same port to the same address, which are a flow's only marks.
        let send = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7777)); s.settimeout(1)\n\
            s.sendto(WORD, ('1.1.1.1', 443))\ntry: print(s.recv(99))\nexcept OSError as e: print(type(e).__name__)\n";
        let setup = format!("python3 -c \"{}\"", send.replace("WORD", "b'from the setup'"));
        let code = send.replace("WORD", "b'from the program'");
        let run = Run::new(who).args(["--setup", &setup, "--setup-net", "open", "--net", "filtered", "--log-network", "log"]);
        let done = run.json_result().python(&code).done().expect_code(0);
        assert_eq!(done.json()["setup"]["stdout"], "b'from the setup'\n", "{done}");
        assert_eq!(done.json()["stdout"], "TimeoutError\n", "{done}");
        let log = done.place().read("log");
        assert!(log.lines().any(|line| line.contains(r#""verdict":"allowed","protocol":"udp""#)), "{log}");
        let reached: Vec<_> = world.reached().into_iter().filter(|line| line.contains("udp")).collect();
        assert_eq!(reached, ["1.1.1.1:443 udp 14"]);
    }

    fn what_was_sent_at_the_very_end_is_told_of(who: Who) {
        let Some(_world) = World::new("what_was_sent_at_the_very_end_is_told_of") else { return };
        let question = r"\0\1\1\0\0\1\0\0\0\0\0\0\4evil\7example\0\0\1\0\1";
        let code = format!(
            "import os, socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             dns = [l.split()[1] for l in open('/etc/resolv.conf') if l.startswith('nameserver')][0]\n\
             s.sendto(b'{question}', (dns, 53)); s.sendto(b'x', ('10.9.9.9', 9999)); os._exit(0)"
        );
        for round in 0..20 {
            let run = Run::new(who).args(["--net", "open", "--deny", "evil.example"]).json_result().python(&code);
            let done = run.done().expect_code(0);
            let json = done.json();
            let denials = json["denials"].as_array().unwrap();
            for target in ["evil.example", "10.9.9.9:9999"] {
                assert!(denials.iter().any(|denial| denial["target"] == target), "{round}: {target}: {done}");
            }
        }
    }

    fn it_goes_out_in_no_other_mode(who: Who) {
        let Some(world) = World::new("it_goes_out_in_no_other_mode") else { return };
        let code = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)\n\
            s.connect(('1.1.1.1', 443)); s.send(b'x')\ntry: print(s.recv(9))\nexcept OSError as e: print(type(e).__name__)";
        for mode in ["public", "web", "filtered"] {
            let done = Run::new(who).args(["--net", mode, "--allow", "1.1.1.1", "-q"]).python(code).done();
            done.expect_code(0).expect_out("ConnectionRefusedError\n");
        }
        world.assert_untouched();
    }
}
