//! What workers do for their owner.

use std::{fs, os::fd::AsFd, path::PathBuf};

use fumehood::spawn::{SpawnError, Spawner};

use crate::{
    both,
    common::{Who, host::eventually},
    owner::{Owner, children, work},
};

/// Signals above are the C library's own.
const THEIRS: u64 = (1 << 31) - 1;
const BLOCKED_ONLY: [(&str, u64); 2] = [("fumehood-spawn", 1 << 16 | 1 << 14), ("fumehood-worker", 1 << 14)];

both! {
    fn every_job_is_answered_once(who: Who) {
        let mut owner = Owner::start(who, 5, "echo $((6 * 7))", false);
        let answers: Vec<_> = std::iter::from_fn(|| owner.word()).collect();
        assert_eq!(answers, vec!["answer ok 42"; 5]);
        owner.ends();
        owner.leaves_nothing();
    }

    fn nothing_of_the_owner_is_inherited_but_what_is_needed(who: Who) {
        let mut owner = Owner::start(who, 1, "sleep 1000", false);
        owner.wait_for_sandboxes(1);
        let worker = owner.workers()[0];
        let own = owner.child.id() as i32;
        let session = |pid: i32| nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap();
        for (pid, (name, blocked)) in [owner.spawner, worker].into_iter().zip(BLOCKED_ONLY) {
            assert_eq!(session(pid).as_raw(), owner.spawner, "{name}");
            assert_ne!(session(pid), session(own));
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                u64::from_str_radix(line.trim(), 16).unwrap() & THEIRS
            };
            let broken_pipes = 1 << 12;
            assert_eq!((field("SigBlk:"), field("SigIgn:"), field("SigCgt:")), (blocked, broken_pipes, 0), "{name}");
            let open: Vec<PathBuf> = fs::read_dir(format!("/proc/{pid}/fd"))
                .unwrap()
                .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
                .collect();
            let owners = fs::read_link(format!("/proc/{own}/fd/1")).unwrap();
            assert!(!open.contains(&owners), "{name} holds the owner's output: {open:?}");
        }
        owner.kill_owner();
        owner.leaves_nothing();
    }
}

fn echo() -> Spawner {
    Spawner::start(|jobs| {
        let mut count = 0_u32;
        while let Some(job) = jobs.next() {
            count += 1;
            match &job[..] {
                b"crash" => nix::sys::signal::raise(nix::sys::signal::Signal::SIGABRT).unwrap(),
                b"panic" => panic!("as the test wants"),
                b"count" => jobs.answer(&count.to_ne_bytes()),
                _ => jobs.answer(&job),
            }
        }
    })
    .unwrap()
}

#[test]
fn jobs_and_answers_may_be_large() {
    let spawner = echo();
    let mut worker = spawner.worker().unwrap();
    for length in [0, 1, 16 << 10, (16 << 10) + 1, 5 << 20] {
        let job: Vec<u8> = (0..length).map(|at| (at % 241) as u8).collect();
        worker.give(&job).unwrap();
        assert!(worker.is_busy());
        assert!(worker.wait().unwrap() == job, "{length}");
        assert!(!worker.is_busy());
    }
    // It is the same process for all of them.
    worker.give(b"count").unwrap();
    assert_eq!(worker.wait().unwrap(), 6_u32.to_ne_bytes());
}

#[test]
fn a_job_that_ends_its_worker_ends_no_other() {
    let spawner = echo();
    let mut other = spawner.worker().unwrap();
    for job in [b"crash", b"panic"] {
        let mut worker = spawner.worker().unwrap();
        worker.give(job).unwrap();
        assert_eq!(worker.wait(), Err(SpawnError::Died));
        assert!(eventually(|| worker.give(b"more") == Err(SpawnError::Died)));
    }
    other.give(b"still here").unwrap();
    assert_eq!(other.wait().unwrap(), b"still here");
}

#[test]
fn a_program_that_reads_nothing_ends_no_worker() {
    let spawner = Spawner::start(|jobs| {
        while let Some(input) = jobs.next() {
            let mut sandbox = fumehood::Sandbox::shell("exec true");
            sandbox.stdin(fumehood::Stdin::Bytes(input));
            let verdict = jobs.run(&mut sandbox, &mut crate::owner::Deaf).map(|outcome| outcome.verdict.to_string());
            jobs.answer(verdict.unwrap_or_else(|error| error.to_string()).as_bytes());
        }
    })
    .unwrap();
    let mut worker = spawner.worker().unwrap();
    for _ in 0..5 {
        worker.give(&vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(worker.wait().unwrap(), b"ok");
    }
}

#[test]
fn a_worker_that_is_let_go_is_gone() {
    let spawner = echo();
    let worker = spawner.worker().unwrap();
    assert!(eventually(|| children(spawner.pid()).len() == 1));
    drop(worker);
    assert!(eventually(|| children(spawner.pid()).is_empty()));
}

#[test]
fn a_spawner_that_is_gone_is_told() {
    let spawner = echo();
    let mut worker = spawner.worker().unwrap();
    crate::owner::kill_now(spawner.pid());
    assert_eq!(worker.wait(), Err(SpawnError::Died));
    let mut gone = [nix::poll::PollFd::new(spawner.as_fd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut gone, nix::poll::PollTimeout::NONE).unwrap();
    assert_eq!(spawner.worker().unwrap_err(), SpawnError::Lost);
}

#[test]
fn what_is_cancelled_answers_and_what_is_killed_does_not() {
    let spawner = Spawner::start(work).unwrap();
    let name = format!("t{}-cancel", std::process::id());
    let start = |number| {
        let mut worker = spawner.worker().unwrap();
        worker.give(format!("{name}-{number} echo begun; exec sleep 1000").as_bytes()).unwrap();
        worker
    };
    let mut workers = [start(1), start(2)];
    let running = || {
        let workers = children(spawner.pid());
        workers.iter().filter(|pid| children(**pid).iter().any(|init| !children(*init).is_empty())).count()
    };
    assert!(eventually(|| running() == 2));
    workers[0].cancel();
    let answer = String::from_utf8(workers[0].wait().unwrap()).unwrap();
    assert!(answer.starts_with("signaled"), "{answer}");
    workers[1].kill();
    assert_eq!(workers[1].wait(), Err(SpawnError::Died));
    assert!(eventually(|| crate::common::host::cgroups(&name).is_empty()));
}
