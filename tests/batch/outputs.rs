//! Where results go: full disks, readers that go away, files that are there, directories of artifacts.

use std::io::{BufRead, BufReader, Write};

use serde_json::{Value, json};

use crate::{Batch, all, assert_nothing_left, both, common::Who, echo, parse, read};

#[test]
fn a_full_disk_ends_it_and_it_goes_on_when_there_is_room() {
    let Some(who) = Who::Root.find("a_full_disk") else { return };
    let script = "mkdir -p small && mount -t tmpfs -o size=32k none small || exit 99
        \"$@\"; echo \"status $?\" >&2
        wc -l < small/out >&2; tail -c 1 small/out | od -c >&2
        mount -o remount,size=10m none small
        \"$@\" --resume >&2; echo \"status $?\" >&2
        cat small/out";
    let batch = Batch::of(who, &echo(60)).args(["-o", "small/out", "-q"]);
    let run = batch.0.wrapped(["unshare", "-m", "sh", "-c", script, "sh"]);
    let done = run.done();
    let said = done.err();
    assert!(said.contains("error: cannot write `small/out`: No space left on device"), "{done}");
    assert!(said.contains("status 125") && said.contains("status 0") && said.contains("--resume"), "{done}");
    assert!(said.contains("\\n"), "it ends with a whole line: {done}");
    let results = parse(&done.out());
    assert_eq!(all(&results, "line"), (1..=60).collect::<Vec<_>>());
}

both! {
    fn a_reader_that_goes_away_ends_it_quietly(who: Who) {
        let batch = Batch::of(who, &echo(2000)).args(["-q"]);
        let mut child = batch.start();
        let pid = child.id();
        let mut first = String::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let done = batch.0.wait_for(child);
        assert_eq!(parse(&first)[0]["stdout"], "0\n");
        assert_eq!((done.err().as_str(), done.code), ("", 141), "{done}");
        assert_nothing_left(&done, pid);
    }

    fn what_is_there_is_not_overwritten(who: Who) {
        let done = Batch::of(who, &echo(2)).args(["-o", "out", "-q"]).done().expect_code(0);
        let whole = done.place().read("out");
        let output = done.run.command().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125));
        assert!(said.starts_with("error: `out` is there already\nhint: --resume"), "{said}");
        assert_eq!(done.place().read("out"), whole);
        assert!(done.run.command().arg("--force").output().unwrap().status.success());
        assert_eq!(read(&done.place().join("out")).len(), 2);
    }

    fn two_at_once_are_two(who: Who) {
        let first = Batch::of(who, &echo(40)).args(["-q"]);
        let second = Batch::of(who, &echo(40)).args(["-q"]);
        let (one, two) = (first.start(), second.start());
        let pids = [one.id(), two.id()];
        for (done, pid) in [first.0.wait_for(one), second.0.wait_for(two)].into_iter().zip(pids) {
            assert_eq!(all(&parse(&done.out()), "id"), (0..40).collect::<Vec<_>>());
            assert_nothing_left(&done, pid);
            done.expect_code(0);
        }
    }

    fn two_do_not_write_the_same_file(who: Who) {
        let batch = Batch::new(who).args(["-", "-o", "out", "-q"]);
        let mut child = batch.start();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{}", json!({"cmd": "echo a"})).unwrap();
        let out = batch.0.place.join("out");
        assert!(crate::common::host::eventually(|| std::fs::read_to_string(&out).is_ok_and(|text| text.ends_with('\n'))));
        let output = batch.0.command().arg("--resume").stdin(std::process::Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(String::from_utf8_lossy(&output.stderr).contains("another batch writes to `out`"), "{output:?}");
        drop(stdin);
        batch.0.wait_for(child).expect_code(0);
    }

    fn artifacts_are_where_no_id_can_lead_them(who: Who) {
        let ids = ["../../marker", "/etc/x", "a/b", "..", "é\u{1b}", ""];
        let jobs: Vec<Value> = ids
            .iter()
            .map(|id| json!({"id": id, "cmd": "echo out; echo err >&2; mkdir d; echo f > d/f; echo g > g; ln -s /etc/passwd l", "get": ["d/*", "g"]}))
            .collect();
        let done = Batch::of(who, &jobs).args(["--artifacts", "kept", "-q"]).done().expect_code(0);
        let results = parse(&done.out());
        assert_eq!(all(&results, "id"), ids);
        let mut names: Vec<_> =
            std::fs::read_dir(done.place().join("kept")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(
            names,
            ["000001-.._.._marker", "000002-_etc_x", "000003-a_b", "000004-..", "000005-__", "000006-"]
        );
        for name in names {
            let read = |file: &str| done.place().read(format!("kept/{name}/{file}"));
            assert_eq!([read("stdout"), read("stderr"), read("files/d/f"), read("files/g")], ["out\n", "err\n", "f\n", "g\n"]);
        }
    }
}
