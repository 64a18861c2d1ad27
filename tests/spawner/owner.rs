//! The owner of a spawner, to be looked at and killed: this very program, executed again.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, ChildStdout, Command, Stdio},
};

use fumehood::{
    Observer, Sandbox,
    request::{Limits, SandboxId},
    spawn::{Jobs, SpawnError, Spawner, Worker},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::common::{
    LONGEST, Place, Who, copy_program,
    host::{self, TAG, eventually},
};

const WORKERS: &str = "FUMEHOOD_TEST_WORKERS";
const JOB: &str = "FUMEHOOD_TEST_JOB";
const ENDLESS: &str = "FUMEHOOD_TEST_ENDLESS";

pub struct Deaf;
impl Observer for Deaf {}

/// A worker's body: each job is a line of shell, with the sandbox's name before it.
pub fn work(jobs: &mut Jobs) {
    while let Some(job) = jobs.next() {
        let job = String::from_utf8(job).unwrap();
        let (name, line) = job.split_once(' ').unwrap();
        let mut sandbox = Sandbox::shell(line);
        // On a busy machine a thousand take longer to start than one may run.
        sandbox.id(SandboxId::parse(name).unwrap()).limits(Limits { timeout: None, ..Limits::default() });
        let answer = match jobs.run(&mut sandbox, &mut Deaf) {
            Ok(outcome) => format!("{} {}", outcome.verdict, String::from_utf8_lossy(&outcome.stdout.bytes)),
            Err(error) => format!("error {error}"),
        };
        jobs.answer(answer.as_bytes());
    }
}

/// Not a test: what [`Owner::start`] executes.
#[test]
#[ignore = "it is started by the tests"]
fn owner() {
    let Ok(name) = std::env::var(TAG) else { return };
    // A test that is killed leaves none behind.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
    let variable = |name| std::env::var(name).unwrap_or_default();
    let (count, job, endless) = (variable(WORKERS).parse().unwrap(), variable(JOB), variable(ENDLESS) == "1");
    let spawner = Spawner::start(work).unwrap();
    say(&format!("spawner {}", spawner.pid()));
    let mut made = 0;
    let mut next = |worker: &mut Worker| {
        made += 1;
        worker.give(format!("{name}-{made} {job}").as_bytes())
    };
    let mut workers: Vec<Worker> = (0..count).map(|_| spawner.worker().unwrap()).collect();
    for worker in &mut workers {
        // One that was killed already is told of below.
        _ = next(worker);
    }
    while workers.iter().any(Worker::is_busy) {
        let mut fds: Vec<_> = workers.iter().map(|worker| PollFd::new(worker.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::NONE).unwrap();
        let ready: Vec<_> = (0..fds.len()).filter(|at| fds[*at].any() == Some(true)).collect();
        for at in ready {
            match workers[at].take() {
                Ok(Some(answer)) => {
                    say(&format!("answer {}", String::from_utf8_lossy(&answer).trim_end()));
                    if endless && next(&mut workers[at]).is_err() {
                        say("lost");
                    }
                }
                Ok(None) => {}
                Err(SpawnError::Died) => {
                    say("died");
                    match spawner.worker() {
                        Ok(worker) => workers[at] = worker,
                        Err(_) => return say("alone"),
                    }
                    if endless && next(&mut workers[at]).is_err() {
                        say("lost");
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be left who listens.
    _ = writeln!(out, "@{word}").and_then(|()| out.flush());
}

pub struct Owner {
    pub child: Child,
    pub name: String,
    pub place: Place,
    pub spawner: i32,
    words: BufReader<ChildStdout>,
}

impl Owner {
    pub fn start(who: Who, workers: usize, job: &str, endless: bool) -> Self {
        let name = crate::common::Run::new(who).name;
        let place = Place::new(who);
        let program = place.join("owner");
        copy_program(&std::env::current_exe().unwrap(), &program);
        let mut command = Command::new(program);
        command.args(["--exact", "owner::owner", "--ignored", "--nocapture"]).current_dir(place.path()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("XDG_RUNTIME_DIR", place.join("runtime-dir"));
        command
            .env(TAG, &name)
            .env(WORKERS, workers.to_string())
            .env(JOB, job)
            .env(ENDLESS, u8::from(endless).to_string());
        if let Some((uid, gid)) = who.ids() {
            command.uid(uid).gid(gid);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let words = BufReader::new(child.stdout.take().unwrap());
        let mut owner = Self { child, name, place, spawner: 0, words };
        let word = owner.word().expect("the owner does not start");
        owner.spawner = word.strip_prefix("spawner ").unwrap().parse().unwrap();
        owner
    }

    /// What it says next.
    pub fn word(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.words.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, word)) = line.trim_end().split_once('@') {
                return Some(word.to_owned());
            }
        }
    }

    /// The workers that there are now.
    pub fn workers(&self) -> Vec<i32> {
        children(self.spawner).into_iter().filter(|pid| name_of(*pid) == "fumehood-worker").collect()
    }

    /// Waits until that many workers run a program in a sandbox.
    #[track_caller]
    pub fn wait_for_sandboxes(&self, count: usize) {
        let busy = |pid: &i32| {
            children(*pid).iter().any(|init| name_of(*init) == "fumehood-init" && !children(*init).is_empty())
        };
        assert!(eventually(|| self.workers().iter().filter(|pid| busy(pid)).count() == count), "they do not start");
    }

    pub fn kill_owner(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    #[track_caller]
    pub fn ends(&mut self) {
        let until = std::time::Instant::now() + LONGEST;
        while self.child.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < until, "the owner hangs");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub fn left(&self) -> Vec<String> {
        host::left_of(&self.name, &self.place)
    }

    /// All of it is gone, by itself.
    #[track_caller]
    pub fn leaves_nothing(&self) {
        assert!(eventually(|| self.left().is_empty()), "left behind: {:#?}", self.left());
    }

    /// No process of it is left.
    #[track_caller]
    pub fn leaves_no_process(&self) {
        let left = || host::processes(&self.name);
        assert!(eventually(|| left().is_empty()), "left behind: {:#?}", left());
    }
}

pub fn kill_now(pid: i32) {
    // One that is gone already is as good.
    _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

pub fn name_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}
