//! `kill -9` of any of the processes at any moment, and one that hangs: nothing is left.

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    both,
    common::{
        LONGEST, Run, Who,
        host::{self, Look, eventually},
    },
    gvisor,
};

/// `cleanup` is for all that root, or the user, has: no two of these tests at once.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All that descend from `pid`, by their commands, with the namespaces of their networks and mounts.
pub fn descendants(pid: u32) -> Vec<Process> {
    let mut found = Vec::new();
    let mut pending = vec![pid as i32];
    while let Some(pid) = pending.pop() {
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace() {
                let pid = child.parse().unwrap();
                found.push(Process::look(pid));
                pending.push(pid);
            }
        }
    }
    found
}

#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// `runsc`, `runsc-gofer` or `runsc-sandbox`, or `fumehood-init` once it has built.
    pub name: String,
    /// Clock ticks after boot: a number that another has by now is another process.
    started: String,
}

impl Process {
    fn look(pid: i32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (head, rest) = stat.rsplit_once(") ").unwrap_or_default();
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = String::from_utf8_lossy(command.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        let name =
            if first.starts_with("runsc") { first } else { head.split_once('(').unwrap_or_default().1.to_owned() };
        Self { pid, name, started: rest.split(' ').nth(19).unwrap_or_default().to_owned() }
    }

    pub fn lives(&self) -> bool {
        let now = Self::look(self.pid);
        // One that nobody has waited for yet is as dead.
        let state = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // Of one that was gone before it was looked at, nothing is known but that.
        !self.started.is_empty()
            && now.started == self.started
            && !state.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
    }
}

fn start(run: &Run) -> Child {
    run.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The links and the mounts of this host, of which a sandbox makes none.
fn links() -> BTreeSet<String> {
    let all = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    all.map(|link| link.file_name().to_string_lossy().into_owned()).collect()
}

/// Numbers that look as if by chance (xorshift), from a seed that is told if the test fails.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = now.as_nanos() as u64 | 1;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

fn cleanup(who: Who, run: &Run) {
    let cleanup = Run::verb(who, "cleanup").env("XDG_RUNTIME_DIR", run.place.join("runtime-dir"));
    cleanup.done().expect_code(0);
}

const VICTIMS: [&str; 5] = ["runsc-sandbox", "runsc-gofer", "runsc", "fumehood-init", "fumehood"];

both! {
    /// 20 rounds, 200 with `FUMEHOOD_LONG` set.
    fn whatever_is_killed_nothing_is_left(who: Who) {
        let (_alone, before, links_before) = (alone(), Look::now(), links());
        let rounds = if std::env::var_os("FUMEHOOD_LONG").is_some() { 200 } else { 20 };
        let mut chance = Chance::new();
        let mut struck = Vec::new();
        for round in 0..rounds {
            let Some(run) = gvisor(who, "whatever_is_killed_nothing_is_left") else { return };
            let network: &[&str] = if round % 4 == 0 { &["--allow", "example.com"] } else { &[] };
            let run = run.args(network).cmd("sleep 1000 & sleep 1000");
            let mut child = start(&run);
            let victim = VICTIMS[chance.below(VICTIMS.len() as u64) as usize];
            // Most are there only later; then until they are.
            std::thread::sleep(Duration::from_millis(chance.below(600)));
            let until = Instant::now() + LONGEST;
            let own = Process::look(child.id() as i32);
            let mut all = descendants(child.id());
            let killed = loop {
                let found = if victim == "fumehood" { Some(&own) } else { all.iter().find(|one| one.name == victim) };
                if let Some(found) = found {
                    _ = kill(Pid::from_raw(found.pid), Signal::SIGKILL);
                    break true;
                }
                if child.try_wait().unwrap().is_some() || Instant::now() > until {
                    break false;
                }
                all = descendants(child.id());
            };
            assert!(killed, "there was no {victim} in round {round}: {all:?}");
            struck.push(victim);
            child.wait().unwrap();
            let alive = || all.iter().filter(|one| one.lives()).collect::<Vec<_>>();
            assert!(eventually(|| alive().is_empty()), "{victim}, round {round}: {:?}", alive());
            assert!(eventually(|| host::processes(&run.name).is_empty()), "{victim}: {:#?}", host::processes(&run.name));
            if victim == "fumehood" {
                // Nobody is left to remove the cgroup and the record but who is asked to; and for a minute it may be
                // a sandbox in the making to them.
                cleanup(who, &run);
                for path in host::left_of(&run.name, &run.place) {
                    match path.strip_prefix("cgroup ") {
                        // It can be removed only when it is empty.
                        Some(group) => fs::remove_dir(group).unwrap(),
                        None => assert!(path.contains(&format!("/.{}.", run.name)), "round {round}: {path}"),
                    }
                }
            } else {
                let left = host::left_of(&run.name, &run.place);
                assert!(left.is_empty(), "{victim}, round {round}: {left:#?}");
            }
        }
        assert!(VICTIMS.iter().filter(|victim| struck.contains(victim)).count() >= 3, "{struck:?}");
        assert!(links().is_subset(&links_before), "{:?}, and before {links_before:?}", links());
        before.assert_unchanged();
    }

    /// One that is stopped is there and answers nothing, as one that hangs.
    fn whatever_hangs_the_time_is_limited(who: Who) {
        for victim in ["runsc-sandbox", "runsc-gofer", "runsc", "fumehood-init"] {
            let Some(run) = gvisor(who, "whatever_hangs_the_time_is_limited") else { return };
            let run = run.args(["--timeout", "3s"]).cmd("while :; do ls / >/dev/null; done");
            let mut child = start(&run);
            let all = || descendants(child.id());
            // All are there, and the time has not run out yet.
            assert!(eventually(|| all().iter().any(|one| one.name == "runsc-sandbox")), "{:?}", all());
            let all = all();
            let found = all.iter().find(|one| one.name == victim).unwrap_or_else(|| panic!("no {victim}: {all:?}"));
            kill(Pid::from_raw(found.pid), Signal::SIGSTOP).unwrap();
            let until = Instant::now() + LONGEST;
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                assert!(Instant::now() < until, "{victim} is stopped, and it does not end");
                std::thread::sleep(Duration::from_millis(20));
            };
            assert_eq!(status.code(), Some(124), "{victim}");
            assert!(eventually(|| all.iter().all(|one| !one.lives())), "{victim}: {all:?}");
            let left = host::left_of(&run.name, &run.place);
            assert!(left.is_empty(), "{victim}: {left:#?}");
        }
    }
}
