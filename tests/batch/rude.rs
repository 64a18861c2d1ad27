//! Jobs, inputs and clients that would keep a batch from going on, or from ending.

use std::{
    io::{BufRead, BufReader, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    Batch, all, assert_nothing_left, both,
    common::{Who, host},
    parse,
};

/// As a line of a result it is many times as long as what is printed.
fn long() -> Value {
    json!({"cmd": "head -c 5000000 /dev/zero", "limits": {"output": "5m"}})
}

fn end(pid: u32) {
    kill(Pid::from_raw(pid as i32), Signal::SIGTERM).unwrap();
}

/// The first job's first sandbox cannot be removed for a while.
fn held_up(who: Who, cases: &Value) {
    let first = json!({"cmd": "sleep 1; echo 1", "cases": cases});
    let jobs = [first, json!({"cmd": "echo 2"}), json!({"cmd": "echo 3"})];
    let batch = Batch::of(who, &jobs).args(["-q", "-j", "1", "-o", "out"]);
    let child = batch.start();
    let pid = child.id();
    let mut groups = Vec::new();
    assert!(host::eventually(|| {
        groups = host::cgroups(&format!("b{pid}-1-"));
        !groups.is_empty()
    }));
    // Somebody else's process is in one of them: it cannot be removed while that runs.
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(groups[0].join("cgroup.procs"), stranger.id().to_string()).unwrap();
    let out = batch.0.place.join("out");
    let results = || std::fs::read_to_string(&out).map_or_else(|_| Vec::new(), |text| parse(&text));
    let all_told = host::eventually(|| results().len() == jobs.len());
    let held = groups[0].exists();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let done = batch.0.wait_for(child).expect_code(0);
    assert!(all_told && held, "{held}: {done}");
    assert_eq!(all(&results(), "verdict"), ["ok"; 3]);
    assert_nothing_left(&done, pid);
}

both! {
    fn what_is_tried_again_is_not_waited_for_in_vain(who: Who) {
        let mut jobs = vec![json!({"cmd": "sleep 3", "cases": [{}, {"env": {"A=B": "x"}}]})];
        jobs.extend([long(), long(), json!({"cmd": "echo last"})]);
        let done = Batch::of(who, &jobs).args(["-q", "-j", "2", "--retries", "1", "-o", "out"]).done().expect_code(1);
        let results = crate::read(&done.place().join("out"));
        assert_eq!(all(&results, "line"), [1, 2, 3, 4]);
        assert_eq!(all(&results, "attempts"), [2, 1, 1, 1]);
    }

    fn a_cgroup_that_cannot_be_removed_costs_no_result(who: Who) {
        if !who.has_cgroup() {
            return;
        }
        for cases in [json!([{}]), json!([{}, {}, {}])] {
            held_up(who, &cases);
        }
    }

    fn input_without_end_can_be_ended(who: Who) {
        for chunk in ["\n", "x"] {
            let batch = Batch::new(who).args(["-", "-q"]);
            let mut child = batch.start();
            let pid = child.id();
            let mut stdin = child.stdin.take().unwrap();
            let writer = std::thread::spawn(move || {
                let chunk = chunk.repeat(1 << 16);
                let mut written = 0;
                while stdin.write_all(chunk.as_bytes()).is_ok() {
                    written += 1;
                    if written == 64 {
                        end(pid);
                    }
                }
            });
            batch.0.wait_for(child).expect_code(143);
            writer.join().unwrap();
        }
    }

    fn clients_are_not_in_the_way_of_others(who: Who) {
        let batch = Batch::new(who).args(["unix:jobs.sock", "-q", "-j", "2", "--artifacts", "all"]);
        let child = batch.start();
        let pid = child.id();
        let path = batch.0.place.join("jobs.sock");
        assert!(host::eventually(|| UnixStream::connect(&path).is_ok()));
        // One does not read, one says nothing without end.
        let mut deaf = UnixStream::connect(&path).unwrap();
        (0..3).for_each(|_| writeln!(deaf, "{}", long()).unwrap());
        let mut empty = UnixStream::connect(&path).unwrap();
        let writer = std::thread::spawn(move || while empty.write_all(&[b'\n'; 1 << 16]).is_ok() {});
        let mut stream = UnixStream::connect(&path).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for n in 0..6 {
            writeln!(stream, "{}", json!({"cmd": format!("echo {n}")})).unwrap();
            let result = &parse(&lines.next().unwrap().unwrap())[0];
            assert_eq!((&result["stdout"], &result["line"]), (&json!(format!("{n}\n")), &json!(n + 1)));
        }
        let first = std::fs::read_dir(batch.0.place.join("all")).unwrap();
        let first = first.filter(|dir| dir.as_ref().unwrap().file_name().to_str().unwrap().ends_with("-000001"));
        assert_eq!(first.count(), 2);
        end(pid);
        let done = batch.0.wait_for(child).expect_code(143);
        writer.join().unwrap();
        assert_nothing_left(&done, pid);
    }

    fn few_descriptors_make_few_workers(who: Who) {
        let jobs: Vec<_> = (0..40).map(|n| json!({"cmd": format!("echo {n}"), "stdin": "x".repeat(17 << 10), "limits": {"nofile": 16}})).collect();
        let batch = Batch::of(who, &jobs).args(["-q", "-j", "24", "--max-memory", "none"]);
        let done = batch.0.wrapped(["sh", "-c", "ulimit -n 24; exec \"$@\"", "sh"]).done().expect_code(0);
        assert_eq!(parse(&done.out()).len(), 40, "{done}");
    }

    fn a_socket_that_nobody_reads_ends_it(who: Who) {
        let batch = Batch::new(who).args(["-", "-q"]);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = batch.0.command();
        command.stdin(Stdio::piped()).stdout(OwnedFd::from(theirs)).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(command);
        // There could be more of it as long as this is there.
        let stdin = child.stdin.take().unwrap();
        drop(ours);
        let done = batch.0.wait_for(child);
        drop(stdin);
        assert_eq!(done.err(), "", "{done}");
    }
}
