//! Grades many answers at once: `cargo run --example batch`.

use fumehood::{
    Batch, Sandbox,
    batch::{Case, Expect, Job, Jobs, Label},
    request::Limits,
};

fn main() -> fumehood::Result<()> {
    let answers = ["print(sum(map(int, input().split())))", "a, b = input().split(); print(a + b)", "while True: pass"];
    let case = |stdin: &str, stdout: &str| Case {
        stdin: Some(stdin.into()),
        expect: Some(Expect { stdout: Some(stdout.into()), ..Expect::default() }),
        ..Case::default()
    };
    let jobs = answers.map(|code| Job {
        id: Some(Label::Text(code.chars().take(20).collect())),
        code: Some(code.into()),
        cases: vec![case("1 2", "3\n"), case("20 22", "42\n")],
        stop_at_first: Some(true),
        ..Job::default()
    });
    let mut template = Sandbox::template();
    template.runtime("python");
    template.limits(Limits { timeout: Some(std::time::Duration::from_secs(2)), ..Limits::default() });
    let summary = Batch::new(template).run(Jobs::list(jobs), |line| {
        let result: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        println!("{:<22} {:<8} {}", result["id"], result["verdict"], result["failures"]);
    })?;
    println!("{} of {} passed", summary.passed, summary.jobs());
    Ok(())
}
