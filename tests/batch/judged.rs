//! What judges and evaluations do: a prompt and its tests, a program and its cases; and what results look like.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::{
    Batch, all, both,
    common::{Who, skip},
    parse,
};

fn prompts() -> Vec<Value> {
    let prompt = "def add(a: int, b: int) -> int:\n    \"\"\"The sum of both.\"\"\"\n";
    let tests =
        "\n\ndef check(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(-1, 1) == 0\n\ncheck(add)\n";
    [
        ("    return a + b\n", "ok"),
        ("    return a - b\n", "failed"),
        ("    retrun a\n", "failed"),
        ("    while True: pass\n", "timeout"),
    ]
    .into_iter()
    .map(|(body, verdict)| {
        json!({"id": "HumanEval/53", "code": format!("{prompt}{body}{tests}"), "limits": {"timeout": "4s"},
                   "metadata": {"verdict": verdict}, "expect": {}})
    })
    .collect()
}

fn sums(runtime: &str, code: &str) -> Value {
    json!({
        "id": runtime, "runtime": runtime, "code": code,
        "expect": {"compare": "lines"},
        "limits": {"timeout": "5s"},
        "cases": [
            {"stdin": "1 2\n", "expect": {"stdout": "3"}},
            {"stdin": "20 22\n", "expect": {"stdout": "42"}},
            {"stdin": "1 1\n", "expect": {"stdout": "3"}},
            {"id": "last", "stdin": "-5 5\n", "expect": {"stdout": "0"}},
        ],
    })
}

const C: &str = "#include <stdio.h>\nint main(){int a,b;scanf(\"%d %d\",&a,&b);printf(\"%d\\n\",a+b);return 0;}";
const CPP: &str = "#include <iostream>\nint main(){int a,b;std::cin>>a>>b;std::cout<<a+b<<std::endl;}";
const PYTHON: &str = "print(sum(map(int, input().split())))";

both! {
    fn prompts_with_tests(who: Who) {
        let jobs = prompts();
        let done = Batch::of(who, &jobs).args(["-q"]).done().expect_code(1);
        let results = parse(&done.out());
        for (result, job) in results.iter().zip(&jobs) {
            assert_eq!(result["verdict"], job["metadata"]["verdict"], "{result}");
            assert_eq!(result["passed"], job["metadata"]["verdict"] == "ok");
        }
        assert_eq!(all(&results, "id"), ["HumanEval/53"; 4], "an id need not be the only one");
    }

    fn programs_with_cases(who: Who) {
        let jobs = [sums("c", C), sums("c++", CPP), sums("python", PYTHON), sums("c", "int main( {"), {
            let mut first = sums("python", PYTHON);
            first["cases"].as_array_mut().unwrap().swap(0, 2);
            first["stop_at_first"] = json!(true);
            first
        }];
        let done = Batch::of(who, &jobs).args(["-q"]).done().expect_code(1);
        let results = parse(&done.out());
        for result in &results[..3] {
            let cases = result["cases"].as_array().unwrap();
            assert_eq!(all(cases, "passed"), [true, true, false, true], "{result}");
            assert_eq!(all(cases, "id"), [json!(1), json!(2), json!(3), json!("last")]);
            assert_eq!((&result["passed"], &result["stdout"]), (&json!(false), &json!("2\n")), "the case that decides");
            assert_eq!(result["failures"], json!(["case 3: stdout: it differs in line 1"]));
        }
        assert_eq!(results[0]["compile"]["verdict"], "ok", "compiled, and once: {}", results[0]);
        let broken = &results[3];
        assert_eq!((&broken["verdict"], &broken["passed"], &broken["cases"]), (&json!("failed"), &json!(false), &json!([])));
        assert!(broken["compile"]["stderr"].as_str().unwrap().contains("error"), "{broken}");
        assert_eq!(results[4]["cases"].as_array().unwrap().len(), 1, "{}", results[4]);
    }

    /// No case sees what another left, nor changes the program for it.
    fn cases_do_not_see_each_other(who: Who) {
        let code = "#include <stdio.h>\n#include <unistd.h>\nint main(){int seen=access(\"seen\",F_OK)==0;fclose(fopen(\"seen\",\"w\"));\
                    FILE*f=fopen(\"main\",\"r+\");puts(seen?\"seen\":\"new\");return 0;}";
        let job = json!({"runtime": "c", "code": code, "cases": [{}, {}, {"files": {"seen": ""}}], "files": {"shared.txt": "x"}});
        let done = Batch::of(who, &[job]).args(["-q"]).done().expect_code(0);
        let results = parse(&done.out());
        assert_eq!(all(results[0]["cases"].as_array().unwrap(), "stdout"), ["new\n", "new\n", "seen\n"], "{}", results[0]);
    }

    fn files_are_looked_at(who: Who) {
        let cmd = "echo a > a; mkdir d; printf b > d/b; ln -s /etc/passwd link; mkfifo pipe";
        let hash = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d";
        let files = |files: Value| json!({"cmd": cmd, "expect": {"files": files}});
        let jobs = [
            files(json!({"a": "a\n", "d/b": {"sha256": hash}, "/sandbox/a": "a\n"})),
            files(json!({"a": "a"})),
            files(json!({"gone": "", "a": "a\n"})),
            files(json!({"link": "", "pipe": ""})),
        ];
        let done = Batch::of(who, &jobs).args(["-q"]).done().expect_code(1);
        let results = parse(&done.out());
        assert_eq!(all(&results, "passed"), [true, false, false, false], "{done}");
        assert_eq!(results[2]["failures"], json!(["files: there is no gone"]));
        assert_eq!(all(&results, "verdict"), ["ok"; 4]);
    }

    fn a_path_may_be_written_in_many_ways(who: Who) {
        let job = json!({
            "cmd": "echo x > out.txt; echo y > out.txt:; echo z > /tmp/z", "get": ["gone"],
            "expect": {"files": {"./out.txt": "x\n", "out.txt:": "y\n", "/tmp/./z": "z\n", "/sandbox//out.txt": "x\n"}},
        });
        let done = Batch::of(who, &[job]).args(["-q", "--artifacts", "kept"]).done().expect_code(1);
        let result = &parse(&done.out())[0];
        assert_eq!(result["failures"].as_array().unwrap().len(), 1, "{done}");
        assert!(result["failures"][0].as_str().unwrap().starts_with("error: "), "{done}");
    }
}

/// Real lines, held against the published schemas by a program that is not ours.
#[test]
fn jobs_and_results_are_as_the_schemas_say() {
    let Some(who) = Who::User.find("schemas") else { return };
    if !Command::new("python3").args(["-c", "import jsonschema"]).status().is_ok_and(|status| status.success()) {
        return skip("jobs_and_results_are_as_the_schemas_say", "apt install python3-jsonschema");
    }
    let mut jobs = prompts();
    jobs.extend([sums("c", C), sums("c", "x"), sums("python", PYTHON)]);
    jobs.extend([
        json!({"id": 5, "argv": ["printf", "\\377"], "limits": {"memory": 64 << 20, "timeout": "none"}}),
        json!({"cmd": "echo x > f", "get": ["f"], "expect": {"files": {"f": "x\n"}}, "net": {"allow": ["example.com"]}}),
        json!({"code": {"base64": "cHJpbnQoMSk="}, "env": {"A": "b"}, "files": {"x": {"base64": "/w=="}}, "user": "0", "isolation": "native"}),
        json!({"code": "x", "runtime": "nonesuch"}),
    ]);
    let wrong =
        [json!({"cdoe": 1}), json!({"code": 1}), json!({"limits": {"time": 1}}), json!({"expect": {"exit_code": 256}})];
    let done = Batch::of(who, &jobs).args(["-q", "--artifacts", "kept"]).done();
    let place = done.place();
    let schema = |what: &str| {
        let output = Command::new(place.binary()).args(["schema", what]).output().unwrap();
        place.write(format!("{what}.json"), output.stdout);
    };
    schema("job");
    schema("result");
    place.write("results.jsonl", &done.stdout);
    place.write("wrong.jsonl", crate::lines(&wrong));
    let script = "
import json, sys
from jsonschema import Draft202012Validator as V
def load(name): return [json.loads(line) for line in open(name)]
job, result = (json.load(open(name)) for name in ('job.json', 'result.json'))
for schema in (job, result): V.check_schema(schema)
for line in load('jobs.jsonl'): V(job).validate(line)
for line in load('wrong.jsonl'): assert not V(job).is_valid(line), line
results = load('results.jsonl')
for line in results: V(result).validate(line)
seen = set().union(*(line.keys() for line in results))
assert seen | {'stderr_base64'} == set(result['properties']), seen ^ set(result['properties'])
print(len(results))";
    let child = Command::new("python3")
        .args(["-c", script])
        .current_dir(place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let output = child.unwrap().wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), jobs.len().to_string());
}
