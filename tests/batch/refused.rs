//! Lines that are no jobs, and jobs that cannot be: results like any other.

use serde_json::{Value, json};

use crate::{Batch, both, common::Who, lines, parse};

both! {
    fn a_malformed_line_is_a_result_and_the_rest_goes_on(who: Who) {
        let batch = Batch::new(who).args(["jobs.jsonl", "-q"]);
        let wrong: [(&[u8], &str); 9] = [
            (b"{\"cdoe\": \"x\"}", "unknown field `cdoe`"),
            (b"{\"code\": ", "EOF while parsing"),
            (b"nonsense", "it is no JSON object"),
            (b"[1]", "it is no JSON object"),
            (b"\xff\xfe", ""),
            (b"{}", "nothing says what to run"),
            (b"{\"cmd\": \"a\", \"code\": \"b\"}", "`code` and `cmd` cannot be given together"),
            (b"{\"cmd\": \"a\", \"limits\": {\"memory\": \"1q\"}}", "`limits.memory`: `1q` is no size"),
            (b"{\"cmd\": \"a\", \"net\": \"host\"}", "does not get the host's own network"),
        ];
        let mut text = Vec::new();
        for (line, _) in &wrong {
            text.extend_from_slice(line);
            text.extend_from_slice(b"\n\n{\"cmd\": \"echo good\"}\n");
        }
        batch.0.place.write("jobs.jsonl", text);
        let done = batch.done().expect_code(1);
        let results = parse(&done.out());
        assert_eq!(results.len(), 18, "{done}");
        for (pair, (number, line_of)) in results.chunks(2).zip((0..).zip(wrong)) {
            let told = line_of.1;
            let line = number * 3 + 1;
            // Of what cannot be read, whether it has an id is not known.
            let id = if line_of.0.ends_with(b"}") { json!(line) } else { Value::Null };
            assert_eq!((&pair[0]["verdict"], &pair[0]["line"], &pair[0]["id"]), (&json!("setup_error"), &json!(line), &id));
            assert!(pair[0]["error"]["message"].as_str().unwrap().contains(told), "{told}: {}", pair[0]["error"]);
            assert_eq!((&pair[1]["verdict"], &pair[1]["line"], &pair[1]["stdout"]), (&json!("ok"), &json!(line + 2), &json!("good\n")));
        }
    }

    fn what_is_refused_is_known_by_its_id(who: Who) {
        let jobs = [
            json!({"id": "a", "metadata": {"b": 1}, "expect": {}, "cmd": "true", "limits": {"memory": "lots"}}),
            json!({"id": 7, "metadata": [2], "expect": {}, "cmd": "true", "cdoe": 1}),
            json!({"cmd": "true", "x".repeat(1 << 20): 1}),
            json!({"cmd": "true", "limits": {"output": "1g"}}),
        ];
        let batch = Batch::of(who, &jobs).args(["-q"]);
        let text = batch.0.place.read("jobs.jsonl") + &" ".repeat((8 << 20) + 1) + "{}\n";
        batch.0.place.write("jobs.jsonl", text);
        let done = batch.done().expect_code(1);
        let results = parse(&done.out());
        assert_eq!(crate::all(&results, "id"), [json!("a"), json!(7), json!(3), json!(4), Value::Null]);
        assert_eq!(crate::all(&results, "passed"), [json!(false), json!(false), Value::Null, Value::Null, Value::Null]);
        assert_eq!((&results[0]["metadata"], &results[1]["metadata"]), (&json!({"b": 1}), &json!([2])));
        assert!(results[2]["error"]["message"].as_str().unwrap().len() < 256);
        assert!(results[3]["error"]["message"].as_str().unwrap().contains("`limits.output`"));
        assert!(results[4]["error"]["message"].as_str().unwrap().contains("over 8 MiB"));
    }

    fn long_lines_are_jobs_too(who: Who) {
        let code = format!("# {}\nimport sys\nprint(len(sys.stdin.read()))", "x".repeat(1 << 20));
        let jobs: Vec<Value> = (0..6).map(|n| json!({"code": code, "stdin": "y".repeat((1 << 20) + n)})).collect();
        let done = Batch::of(who, &jobs).args(["-q"]).done().expect_code(0);
        for (n, result) in parse(&done.out()).iter().enumerate() {
            assert_eq!(result["stdout"], format!("{}\n", (1 << 20) + n), "{}", result["error"]);
        }
    }

    fn a_dry_run_tells_all_and_runs_nothing(who: Who) {
        let jobs = [
            json!({"cmd": "touch /sandbox/x"}),
            json!({"code": "x", "runtime": "nonesuch"}),
            json!({"cmd": "a", "get": ["x"]}),
            json!({"cmd": "a", "expect": {"stdout_regex": "("}}),
        ];
        let batch = Batch::of(who, &jobs).args(["--dry-run", "-o", "out"]);
        let done = batch.done().expect_code(1);
        let said: Vec<String> = done.out().lines().map(|line| line.split(": ").next().unwrap().to_owned()).collect();
        assert_eq!(said, ["line 2", "line 3", "line 4"], "{done}");
        assert!(!done.place().join("out").exists());
    }

    fn only_setup_errors_are_tried_again(who: Who) {
        let jobs = [json!({"code": "x", "runtime": "nonesuch"}), json!({"cmd": "exit 1"}), json!({"cmd": "true"})];
        let done = Batch::of(who, &jobs).args(["--retries", "2", "-q"]).done().expect_code(1);
        assert_eq!(crate::all(&parse(&done.out()), "attempts"), [3, 1, 1]);
    }

    fn the_first_that_is_not_good_ends_it(who: Who) {
        let mut jobs = crate::echo(3);
        jobs.push(json!({"cmd": "exit 1"}));
        jobs.extend(crate::echo(500));
        let done = Batch::of(who, &jobs).args(["--fail-fast", "-j", "1"]).done().expect_code(1);
        let results = parse(&done.out());
        assert_eq!(crate::all(&results, "verdict"), ["ok", "ok", "ok", "failed"], "{done}");
    }
}

/// Secrets and mounts are for the command line; what is like an option is said where to write.
#[test]
fn wrong_usage_is_told() {
    let Some(who) = Who::User.find("wrong_usage") else { return };
    for (args, told) in [
        (&["--resume", "j"][..], "--resume goes on with a file of results"),
        (&["--resume", "--force", "-o", "x", "j"], "cannot be given together"),
        (&["nothing-here"], "cannot read `nothing-here`"),
        (&[], "no jobs are named"),
        (&["--tty", "j"], "unknown option --tty"),
        (&["--rate", "x", "j"], "--rate: `x` is no rate"),
        (&["j.csv"], "no column `cdoe` of jobs"),
    ] {
        let batch = Batch::new(who).args(args);
        batch.0.place.write("j", lines(&[]));
        batch.0.place.write("j.csv", "cdoe\nx\n");
        batch.done().expect_error(told);
    }
}
