//! On gVisor's kernel: what is run in a sandbox that was made ahead is as it is in one of its own, and nothing of one that
//! waits is left.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use fumehood::{
    Pool, Sandbox, Stdin, Verdict,
    pool::Settings,
    request::{Bytes, Limits, gvisor::Gvisor, gvisor::Platform},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    common::{Who, granted_ids, host::eventually},
    corpus::Program,
    same,
    waiting::{are_measured, inits},
};

/// With the runsc of the distribution, or another (`FUMEHOOD_TEST_RUNSC`).
pub fn found(test: &str) -> Option<Gvisor> {
    let runsc = std::env::var("FUMEHOOD_TEST_RUNSC").unwrap_or_else(|_| "/usr/bin/runsc".to_owned());
    if !fs::exists(&runsc).unwrap() {
        crate::skip(test, "runsc is not installed: apt install runsc");
        return None;
    }
    if !nix::unistd::geteuid().is_root() {
        granted_ids(Who::User, test)?;
    }
    Some(Gvisor::find(Platform::Auto, Some(runsc.as_ref())).unwrap())
}

fn pool(boots: bool) -> Pool {
    Pool::new(Settings { most: 3, boots, ..Settings::default() })
}

/// A part of the programs: each start takes gVisor some tenths of a second. All with `FUMEHOOD_LONG` set.
fn both_ways(runtime: &str, every: usize, boots: bool) {
    let Some(gvisor) = found(runtime) else { return };
    let every = if std::env::var_os("FUMEHOOD_LONG").is_some() { 1 } else { every };
    // What is there for an ordinary user is no other.
    let every = if nix::unistd::geteuid().is_root() { every } else { every * 4 };
    // runsc hands variables on in an order of its own, another each time.
    let all = Program::all(runtime).into_iter().filter(|program| !program.name.starts_with("environment"));
    let programs: Vec<_> = all.step_by(every).collect();
    let all = programs.len() as u64;
    let settings = Settings { most: 2, boots, ..Settings::default() };
    let counts = same::compare(programs, settings, 1, &|sandbox| _ = sandbox.gvisor(gvisor.clone()));
    if let Some((found, missed)) = counts {
        assert!(found >= all / 2, "{missed} of {} found none that waited", found + missed);
    }
}

#[test]
fn python() {
    both_ways("python", 16, true);
}

#[test]
fn python_that_is_not_started_ahead() {
    both_ways("python", 37, false);
}

#[test]
fn node() {
    both_ways("node", 9, true);
}

#[test]
fn bash() {
    both_ways("bash", 7, true);
}

#[test]
fn ruby() {
    both_ways("ruby", 9, true);
}

/// A job for each, its outcome, and that it found what waited.
fn used(pool: &Pool, make: &dyn Fn() -> Sandbox) -> fumehood::Outcome {
    let found = pool.counts().0;
    assert!(pool.expect(&mut make(), 1).unwrap() >= 1);
    let outcome = pool.output(&mut make()).unwrap();
    assert_eq!(pool.counts().0, found + 1, "{outcome:?}");
    outcome
}

#[test]
fn limits_and_ends_are_the_jobs() {
    let Some(gvisor) = found("limits_and_ends_are_the_jobs") else { return };
    let line = |line: &'static str| {
        let gvisor = gvisor.clone();
        move || {
            let mut sandbox = Sandbox::shell(line);
            let limits = Limits { memory: Bytes::mib(64), output: Bytes::new(5000), ..Limits::default() };
            sandbox.gvisor(gvisor.clone()).limits(limits);
            sandbox
        }
    };
    let pool = pool(true);
    for (of, verdict, code, signal) in [
        ("exit 137", Verdict::Failed, Some(137), None),
        ("kill -9 $$", Verdict::Signaled, None, Some(9)),
        ("yes", Verdict::OutputLimit, None, Some(9)),
    ] {
        let outcome = used(&pool, &line(of));
        assert_eq!((outcome.verdict, outcome.exit_code, outcome.signal), (verdict, code, signal), "{of}: {outcome:?}");
    }
    if are_measured() {
        let outcome = used(&pool, &line("x=x; while :; do x=$x$x; done"));
        assert_eq!(outcome.verdict, Verdict::Oom, "{outcome:?}");
    }
    // Time counts from when it is used.
    let limits = Limits { timeout: Some(Duration::from_secs(3)), ..Limits::default() };
    let make = |of: &str| {
        let mut sandbox = Sandbox::shell(of);
        sandbox.gvisor(gvisor.clone()).limits(limits.clone());
        sandbox
    };
    pool.expect(&mut make("sleep 1"), 1).unwrap();
    std::thread::sleep(Duration::from_millis(3500));
    let outcome = used(&pool, &|| make("sleep 1; echo done"));
    assert_eq!((outcome.verdict, &outcome.stdout.bytes[..]), (Verdict::Ok, &b"done\n"[..]), "{outcome:?}");
    let outcome = used(&pool, &|| make("echo before; sleep 1000"));
    assert_eq!((outcome.verdict, &outcome.stdout.bytes[..]), (Verdict::Timeout, &b"before\n"[..]), "{outcome:?}");
}

#[test]
fn what_cannot_be_executed_is_told_as_ever() {
    let Some(gvisor) = found("what_cannot_be_executed_is_told_as_ever") else { return };
    let pool = pool(true);
    for program in ["no-such-program", "/etc/passwd", "/usr/bin", "/none/x"] {
        let make = || {
            let mut sandbox = Sandbox::command(program);
            sandbox.gvisor(gvisor.clone()).stdin(Stdin::Bytes(b"input".to_vec()));
            sandbox
        };
        let (alone, pooled) = (make().output().unwrap(), used(&pool, &make));
        assert_eq!(pooled.verdict, Verdict::SetupError, "{pooled:?}");
        assert_eq!(pooled.exit_status(), alone.exit_status(), "{program}: {alone:?} {pooled:?}");
        assert_eq!(format!("{:?}", alone.error), format!("{:?}", pooled.error));
        assert_eq!((alone.stderr.bytes, pooled.stderr.bytes), (Vec::new(), Vec::new()));
    }
}

#[test]
fn words_and_input_of_any_size_arrive() {
    let Some(gvisor) = found("words_and_input_of_any_size_arrive") else { return };
    let pool = pool(true);
    let input: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    for length in [1, 60_000, 100_000] {
        let make = || {
            let mut sandbox =
                Sandbox::shell("echo ${#1} ${#VAR} $(ls -A1 /sandbox /tmp 2>&1 | grep -c fumehood); cksum");
            sandbox.gvisor(gvisor.clone()).arg("x".repeat(length)).env("VAR", "y".repeat(length));
            sandbox.stdin(Stdin::Bytes(input.clone()));
            sandbox
        };
        let (alone, pooled) = (make().output().unwrap(), used(&pool, &make));
        assert_eq!(String::from_utf8_lossy(&alone.stdout.bytes), String::from_utf8_lossy(&pooled.stdout.bytes));
        assert!(pooled.stdout.bytes.starts_with(format!("{length} {length} 0\n").as_bytes()), "{pooled:?}");
    }
}

#[test]
fn what_is_compiled_gets_one_of_its_own() {
    const NAME: &str = "what_is_compiled_gets_one_of_its_own";
    let Some(gvisor) = found(NAME) else { return };
    if !fs::exists("/usr/bin/gcc").unwrap() {
        return crate::skip(NAME, "there is no gcc");
    }
    let pool = pool(true);
    let make = || {
        let mut sandbox = Sandbox::code("int main(void) { return 3; }");
        sandbox.runtime("c").gvisor(gvisor.clone());
        sandbox
    };
    assert_eq!(pool.expect(&mut make(), 1).unwrap(), 0);
    assert_eq!(pool.output(&mut make()).unwrap().exit_code, Some(3));
    assert_eq!(pool.counts(), (0, 1));
}

/// All that descend from a process of this one's, by their commands.
fn family(pid: i32) -> Vec<(i32, String)> {
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let name = match command.split('\0').next() {
        Some(first) if first.starts_with("runsc") => first.to_owned(),
        _ => fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned(),
    };
    let mut all = vec![(pid, name)];
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().flat_map(|child| family(child.parse().unwrap())));
    }
    all
}

fn lives(pid: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Alone in a process, so that all children are this pool's.
fn alone(name: &str) -> Option<Command> {
    if std::env::var_os("FUMEHOOD_TEST_ALONE").is_some() {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env("FUMEHOOD_TEST_ALONE", "1");
    Some(command)
}

#[test]
fn whatever_of_one_that_waits_is_killed_another_is_made() {
    let Some(gvisor) = found("whatever_of_one_that_waits_is_killed_another_is_made") else { return };
    if let Some(mut command) = alone("gvisor::whatever_of_one_that_waits_is_killed_another_is_made") {
        assert!(command.status().unwrap().success());
        return;
    }
    let make = || {
        let mut sandbox = Sandbox::code("print(input())");
        sandbox.gvisor(gvisor.clone()).stdin(Stdin::Bytes(b"hi\n".to_vec()));
        sandbox
    };
    let pool = pool(true);
    for victim in ["runsc-sandbox", "runsc-gofer", "runsc", "fumehood-init"] {
        // The release of 2022 does not look after its file server: what it serves is there, or nothing is.
        assert!(pool.expect(&mut make(), 1).unwrap() >= 1);
        let all: Vec<_> = inits().into_iter().flat_map(family).collect();
        let of_victim: Vec<_> = all.iter().filter(|(_, name)| name == victim).collect();
        assert!(!of_victim.is_empty(), "{victim}: {all:?}");
        for (pid, _) in &of_victim {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
        }
        assert!(eventually(|| all.iter().all(|(pid, _)| !lives(*pid))), "{victim}: {all:?}");
        let outcome = pool.output(&mut make()).unwrap();
        assert_eq!((outcome.verdict, &outcome.stdout.bytes[..]), (Verdict::Ok, &b"hi\n"[..]), "{victim}: {outcome:?}");
    }
    pool.expect(&mut make(), 1).unwrap();
    drop(pool);
    assert!(inits().is_empty());
}

#[test]
fn nothing_is_left_of_those_that_wait_when_their_owner_is_killed() {
    let Some(gvisor) = found("nothing_is_left_of_those_that_wait_when_their_owner_is_killed") else { return };
    for boots in [true, false] {
        let Some(mut command) = alone("gvisor::nothing_is_left_of_those_that_wait_when_their_owner_is_killed") else {
            let pool = pool(std::env::var_os("FUMEHOOD_TEST_BOOTS").is_some());
            assert_eq!(pool.expect(Sandbox::code("").gvisor(gvisor), 2).unwrap(), 2);
            println!("they wait");
            std::thread::sleep(Duration::from_secs(1000));
            return;
        };
        if boots {
            command.env("FUMEHOOD_TEST_BOOTS", "1");
        }
        let mut owner = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(owner.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("they wait")));
        let all = family(owner.id() as i32);
        for name in ["runsc-sandbox", "runsc-gofer", "runsc", "fumehood-init"] {
            assert_eq!(all.iter().filter(|(_, known)| known == name).count(), 2, "{name}: {all:?}");
        }
        owner.kill().unwrap();
        owner.wait().unwrap();
        assert!(eventually(|| all.iter().all(|(pid, _)| !lives(*pid))), "{all:?}");
    }
}
