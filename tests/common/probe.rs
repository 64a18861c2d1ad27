//! `tests/helpers/probe.c`: makes system calls that no interpreter makes, and says what the kernel said.

use std::{collections::BTreeMap, path::Path, process::Command, sync::OnceLock};

use super::{Done, Run};

/// The compiled probe.
pub fn binary() -> &'static [u8] {
    static BINARY: OnceLock<Vec<u8>> = OnceLock::new();
    BINARY.get_or_init(|| helper("FUMEHOOD_TEST_PROBE", "probe.c", &["-static"]))
}

/// `tests/helpers/attacker.c`: what a hostile container does to a runtime that enters it.
pub fn attacker() -> &'static [u8] {
    static BINARY: OnceLock<Vec<u8>> = OnceLock::new();
    BINARY.get_or_init(|| helper("FUMEHOOD_TEST_ATTACKER", "attacker.c", &["-static"]))
}

/// `tests/helpers/short.c`, a program of 32 bits.
#[cfg(target_arch = "x86_64")]
pub fn short() -> &'static [u8] {
    static BINARY: OnceLock<Vec<u8>> = OnceLock::new();
    let options = ["-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-fno-stack-protector"];
    BINARY.get_or_init(|| helper("FUMEHOOD_TEST_SHORT", "short.c", &options))
}

/// Static, so that it runs in an empty root. `ready` is the variable that names one where there is no compiler.
fn helper(ready: &str, source: &str, options: &[&str]) -> Vec<u8> {
    if let Some(ready) = std::env::var_os(ready) {
        return std::fs::read(ready).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/helpers").join(source);
    let out = dir.path().join("out");
    let status =
        Command::new("cc").args(options).args(["-O1", "-Wall", "-Werror", "-o"]).arg(&out).arg(source).status();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "cc is needed for the helpers: {status:?}");
    std::fs::read(out).unwrap()
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Returned(i64),
    Errno(i32),
    Killed(i32),
}

/// A call to be made: a name for the report, its number, and its arguments in the probe's notation (a number, `@text`
/// for a string, `&` for a zeroed buffer).
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    pub number: i64,
    pub args: Vec<String>,
}

pub fn call(name: &str, number: i64, args: &[&str]) -> Call {
    Call { name: name.to_owned(), number, args: args.iter().map(|arg| (*arg).to_owned()).collect() }
}

/// Makes all calls in one sandbox, each in a process of its own.
pub fn make_calls(run: Run, calls: &[Call]) -> (BTreeMap<String, Answer>, Done) {
    let words = calls.iter().map(|call| {
        let args: String = call.args.iter().map(|arg| format!(",{arg}")).collect();
        format!("'{}:{}{args}'", call.name, call.number)
    });
    let line = format!("./probe calls {}", words.collect::<Vec<_>>().join(" "));
    let done = run.probe().json_result().cmd(&line).done().expect_verdict("ok");
    let text = done.json()["stdout"].as_str().unwrap().to_owned();
    let answers: BTreeMap<_, _> = text.lines().map(answer).collect();
    assert_eq!(answers.len(), calls.len(), "{done}");
    (answers, done)
}

fn answer(line: &str) -> (String, Answer) {
    let words: Vec<_> = line.split(' ').collect();
    let number: i64 = words[2].parse().unwrap();
    let answer = match words[1] {
        "returned" => Answer::Returned(number),
        "errno" => Answer::Errno(number as i32),
        "killed" => Answer::Killed(number as i32),
        other => panic!("{other}"),
    };
    (words[0].to_owned(), answer)
}
