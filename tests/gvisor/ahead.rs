//! A batch with sandboxes made ahead gives the results that one without gives, and leaves nothing when it is killed.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    both,
    common::{
        Run, Who,
        host::{self, eventually},
    },
    gvisor,
    killed::{Process, alone, descendants},
};

fn batch(who: Who, pool: &str) -> Run {
    let options = ["-q", "-j", "1", "--pool", pool, "--max-memory", "none", "--isolation", "gvisor"];
    Run::verb(who, "batch").args(options).args(["--secret", "KEY=s3cr3t-value", "--memory", "128m", "-"])
}

/// A batch that is written to and read from while it runs.
struct Batch {
    child: Child,
    to: Option<ChildStdin>,
    from: Lines<BufReader<ChildStdout>>,
}

impl Batch {
    fn start(run: &Run) -> Self {
        let mut command = run.command();
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()).lines());
        Self { child, to, from }
    }

    fn give(&mut self, job: &Value) -> Value {
        writeln!(self.to.as_mut().unwrap(), "{job}").unwrap();
        serde_json::from_str(&self.from.next().unwrap().unwrap()).unwrap()
    }

    fn all(&self) -> Vec<Process> {
        descendants(self.child.id())
    }

    /// Has jobs run until a sandbox waits: a worker makes one when its last two jobs wanted the same.
    fn have_one_wait(&mut self) {
        for _ in 0..20 {
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until {
                // Of jobs that have their results none runs any more.
                if self.all().iter().any(|one| one.name == "runsc-sandbox") {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            self.give(&json!({ "cmd": "true" }));
        }
        panic!("none is made ahead: {:?}", self.all());
    }

    fn end(&mut self) {
        self.to = None;
        self.child.wait().unwrap();
    }
}

/// The name of its cgroup, which no other has; without cgroups, one that nobody has.
fn group(all: &[Process]) -> String {
    let init = all.iter().find(|one| one.name == "runsc").unwrap();
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", init.pid)).unwrap();
    let leaf = groups.lines().find_map(|line| line.split_once("/fumehood/").map(|(_, leaf)| leaf.trim_matches('/')));
    leaf.unwrap_or("none-of-these").to_owned()
}

/// What of the results does not depend on time.
fn results(who: Who, pool: &str, jobs: &[Value]) -> Vec<Value> {
    let run = batch(who, pool);
    let mut batch = Batch::start(&run);
    let mut results = Vec::new();
    for job in jobs {
        if pool != "off" {
            batch.have_one_wait();
        }
        let result = batch.give(job);
        let kept = ["verdict", "exit_code", "signal", "stdout", "stderr", "limits", "controls", "error", "failures"];
        results.push(Value::Object(kept.map(|key| (key.to_owned(), result[key].clone())).into_iter().collect()));
    }
    batch.end();
    results
}

both! {
    fn results_are_those_of_one_without(who: Who) {
        if gvisor(who, "results_are_those_of_one_without").is_none() { return }
        let _alone = alone();
        // Of all that follow, the sandbox is the same.
        let jobs = [
            json!({ "cmd": "echo $0 $$ $KEY $V; cat; cat /sandbox/d/f; ls -A /tmp | cat", "stdin": "in\n", "env": { "V": "w" },
                    "files": { "/sandbox/d/f": "content\n" } }),
            json!({ "argv": ["sh", "-c", "echo out; echo err >&2; kill -9 $$"] }),
            json!({ "cmd": "sleep 1000", "limits": { "timeout": "1s" } }),
            json!({ "argv": ["no-such-program"], "stdin": "in" }),
            json!({ "argv": ["/bin/sh/x"] }),
            json!({ "cmd": "grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapEff|Seccomp)' /proc/self/status; cat /proc/mounts; pwd" }),
        ];
        let (without, with) = (results(who, "off", &jobs), results(who, "1", &jobs));
        for ((one, other), job) in without.iter().zip(&with).zip(&jobs) {
            assert_eq!(one, other, "{job}");
        }
        let first = &with[0];
        assert_eq!(first["stdout"], "/bin/sh 1 *** w\nin\ncontent\n", "{first}");
        let verdicts: Vec<_> = with.iter().map(|result| result["verdict"].as_str().unwrap()).collect();
        assert_eq!(verdicts, ["ok", "signaled", "timeout", "setup_error", "setup_error", "ok"]);
    }

    fn nothing_is_left_of_one_that_waits_when_any_is_killed(who: Who) {
        // A batch that starts does what `cleanup` does.
        let _alone = alone();
        for victim in ["runsc-sandbox", "runsc-gofer", "runsc", "fumehood-init", "fumehood-worker", "fumehood-spawn", "batch"] {
            if gvisor(who, "nothing_is_left_of_one_that_waits_when_any_is_killed").is_none() { return }
            let run = batch(who, "1");
            let mut batch = Batch::start(&run);
            batch.have_one_wait();
            let all = batch.all();
            let group = group(&all);
            let pid = all.iter().find(|one| one.name == victim).map(|one| one.pid);
            let pid = if victim == "batch" { Some(batch.child.id() as i32) } else { pid };
            kill(Pid::from_raw(pid.unwrap_or_else(|| panic!("no {victim}: {all:?}"))), Signal::SIGKILL).unwrap();
            let of_gvisor: Vec<&Process> = all.iter().filter(|one| one.name.starts_with("runsc")).collect();
            let gone = || of_gvisor.iter().all(|one| !one.lives());
            assert!(eventually(gone), "{victim}: {of_gvisor:?}");
            if !["batch", "fumehood-spawn"].contains(&victim) {
                // The next job has another.
                let result = batch.give(&json!({ "cmd": "echo next" }));
                assert_eq!(result["stdout"], "next\n", "{victim}: {result}");
            }
            batch.end();
            assert!(eventually(|| all.iter().all(|one| !one.lives())), "{victim}: {all:?}");
            assert!(eventually(|| host::cgroups(&group).is_empty()), "{victim}: {:?}", host::cgroups(&group));
        }
    }
}
