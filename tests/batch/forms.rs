//! The ways in: a table, a directory, standard input as it comes, a socket; and the library.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
};

use serde_json::{Value, json};

use crate::{
    Batch, all, assert_nothing_left, both,
    common::{Who, host},
    parse,
};

both! {
    fn a_table(who: Who) {
        let batch = Batch::new(who).args(["jobs.csv", "-q"]);
        let text = "id,code,limits.timeout,expect.stdout,stdin\na,\"import sys\nprint(sys.stdin.read())\",9s,\"hi\n\",hi\nb,print(1),,2,\n,x\n";
        batch.0.place.write("jobs.csv", text);
        let done = batch.done().expect_code(1);
        let results = parse(&done.out());
        assert_eq!(all(&results, "id"), [json!("a"), json!("b"), json!(6)], "{done}");
        assert_eq!(all(&results, "passed"), [json!(true), json!(false), Value::Null], "{done}");
        assert_eq!(results[0]["limits"]["timeout_ms"], 9000);
    }

    fn a_directory_of_scripts(who: Who) {
        let batch = Batch::new(who).args(["scripts", "-q"]);
        batch.0.place.write("scripts/b.py", "print('b')");
        batch.0.place.write("scripts/a.sh", "#!/bin/sh\necho a");
        batch.0.place.write("scripts/d/c.py", "raise SystemExit(2)");
        batch.0.place.write("scripts/.hidden", "x");
        let done = batch.done().expect_code(1);
        let results = parse(&done.out());
        assert_eq!(all(&results, "id"), ["a.sh", "b.py", "d/c.py"]);
        assert_eq!(all(&results, "verdict"), ["ok", "ok", "failed"], "{done}");
    }

    fn results_come_before_the_input_ends(who: Who) {
        let batch = Batch::new(who).args(["-", "-q"]);
        let mut child = batch.start();
        let pid = child.id();
        let mut stdin = child.stdin.take().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        for n in 0..3 {
            writeln!(stdin, "{}", json!({"cmd": format!("echo {n}")})).unwrap();
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            assert_eq!(parse(&line)[0]["stdout"], format!("{n}\n"));
        }
        drop(stdin);
        let done = batch.0.wait_for(child).expect_code(0);
        assert_nothing_left(&done, pid);
    }

    fn a_socket_gives_each_their_own(who: Who) {
        let batch = Batch::new(who).args(["unix:jobs.sock", "-q", "-j", "4"]);
        let child = batch.start();
        let pid = child.id();
        let path = batch.0.place.join("jobs.sock");
        assert!(host::eventually(|| UnixStream::connect(&path).is_ok()));
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let path = path.clone();
                std::thread::spawn(move || {
                    let mut stream = UnixStream::connect(path).unwrap();
                    for n in 0..10 {
                        writeln!(stream, "{}", json!({"id": format!("{client}/{n}"), "cmd": format!("echo {client} {n}")})).unwrap();
                    }
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                    let results: Vec<Value> =
                        BufReader::new(stream).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
                    let ids: Vec<_> = (0..10).map(|n| format!("{client}/{n}")).collect();
                    assert_eq!(all(&results, "id"), ids);
                    assert_eq!(results[9]["stdout"], format!("{client} 9\n"));
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
        let done = batch.0.wait_for(child).expect_code(143);
        assert!(!path.exists());
        assert_nothing_left(&done, pid);
    }

    fn what_jobs_leave_out_is_from_options_and_a_file(who: Who) {
        let jobs = [
            json!({"code": "import os\nprint(os.environ['A'], os.environ['B'], os.environ['C'])", "env": {"C": "job"}}),
            json!({"cmd": "cat", "limits": {"pids": 9}}),
        ];
        let batch = Batch::of(who, &jobs).args(["-q", "--env", "A=option", "--env", "B=option", "--memory", "64m", "--defaults", "d.toml", "--stdin", "in"]);
        batch.0.place.write("d.toml", "[defaults.env]\nB = \"file\"\nC = \"file\"\n[defaults.limits]\ntimeout = \"7s\"\n");
        let done = batch.done().expect_code(0);
        let results = parse(&done.out());
        assert_eq!(results[0]["stdout"], "option file job\n", "{}", results[0]);
        assert_eq!(results[1]["stdout"], "in");
        let limits = &results[1]["limits"];
        assert_eq!([&limits["memory_bytes"], &limits["timeout_ms"], &limits["pids"]], [64 << 20, 7000, 9]);
    }
}
