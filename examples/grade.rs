//! Runs somebody's solution on a few inputs, each in a sandbox of its own, and says how it did:
//! `cargo run --example grade -- solution.py`. Without a file it grades one of its own.

use std::time::Duration;

use fumehood::{
    Sandbox, Stdin, Verdict,
    request::{Bytes, Limits},
};

const CASES: [(&str, &str); 3] = [("1 2\n", "3\n"), ("20 22\n", "42\n"), ("-1 1\n", "0\n")];
const SOLUTION: &str = "a, b = map(int, input().split())\nprint(a + b if a >= 0 else 'negative')";

fn main() -> fumehood::Result<()> {
    let limits = Limits { memory: Bytes::mib(64), timeout: Some(Duration::from_secs(2)), pids: 8, ..Limits::default() };
    for (input, wanted) in CASES {
        let mut sandbox = match std::env::args_os().nth(1) {
            Some(file) => Sandbox::file(file),
            None => Sandbox::code(SOLUTION),
        };
        sandbox.limits(limits.clone()).stdin(Stdin::Bytes(input.into()));
        let outcome = sandbox.output()?;
        let answer = match outcome.verdict {
            Verdict::Ok if outcome.stdout.bytes == wanted.as_bytes() => "right".to_owned(),
            Verdict::Ok => format!("wrong: {}", String::from_utf8_lossy(&outcome.stdout.bytes).trim()),
            verdict => verdict.to_string(),
        };
        println!("{:8} {answer}, in {:.1?}", input.trim(), outcome.duration);
    }
    Ok(())
}
