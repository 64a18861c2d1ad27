//! Ring 4: batches of real sandboxes, run by the real command, as root and as an ordinary user.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "../common/mod.rs"]
mod common;

mod alive;
mod forms;
mod interrupted;
mod judged;
mod killed;
mod mixed;
mod outputs;
mod refused;
mod rude;
mod together;

use std::{
    path::Path,
    process::{Child, Stdio},
};

use common::{Done, Run, Who, host};
use serde_json::{Value, json};

/// One call of `fumehood batch`.
#[derive(Debug)]
pub struct Batch(pub Run);

impl Batch {
    pub fn new(who: Who) -> Self {
        Self(Run::verb(who, "batch"))
    }

    /// With these jobs in a file.
    pub fn of(who: Who, jobs: &[Value]) -> Self {
        let batch = Self::new(who);
        batch.0.place.write("jobs.jsonl", lines(jobs));
        batch.args(["jobs.jsonl"])
    }

    pub fn args(self, args: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Self {
        Self(self.0.args(args))
    }

    pub fn start(&self) -> Child {
        let mut command = self.0.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs it to its end; nothing of it may be left.
    pub fn done(self) -> Done {
        let before = host::Look::now();
        let child = self.start();
        let pid = child.id();
        let done = self.0.wait_for(child);
        assert_nothing_left(&done, pid);
        before.assert_unchanged();
        done
    }
}

/// Of a batch that was this process.
#[track_caller]
pub fn assert_nothing_left(done: &Done, pid: u32) {
    done.check_nothing_left();
    let prefix = format!("b{pid}-");
    let left = host::left_of(&prefix, done.place());
    assert!(left.is_empty(), "left behind: {left:#?}\n{done}");
    let groups = together::around(pid);
    assert!(groups.is_empty(), "left behind: {groups:#?}\n{done}");
}

pub fn lines(jobs: &[Value]) -> String {
    jobs.iter().map(|job| format!("{job}\n")).collect()
}

pub fn parse(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

pub fn read(path: &Path) -> Vec<Value> {
    parse(&std::fs::read_to_string(path).unwrap())
}

/// Their field of this name, of all of them.
pub fn all(results: &[Value], field: &str) -> Vec<Value> {
    results.iter().map(|result| result[field].clone()).collect()
}

pub fn echo(count: u64) -> Vec<Value> {
    (0..count).map(|n| json!({"id": n, "cmd": format!("echo {n}"), "expect": {"stdout": format!("{n}\n")}})).collect()
}
