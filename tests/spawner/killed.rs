//! `kill -9` of the owner, the spawner, a worker, or all of them, at any moment: nothing is left.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    both,
    common::{
        Run, Who,
        host::{Look, eventually},
    },
    owner::{Owner, kill_now},
};

const LONG: &str = "sleep 1000 & setsid sleep 1000 & sleep 1000";

/// Every spawner that starts removes what is nobody's, and so does `cleanup`: no two of these tests at once.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

both! {
    fn of_the_owner(who: Who) {
        let (_alone, before) = (alone(), Look::now());
        let mut owner = Owner::start(who, 3, LONG, false);
        owner.wait_for_sandboxes(3);
        owner.kill_owner();
        owner.leaves_nothing();
        before.assert_unchanged();
    }

    fn of_the_spawner(who: Who) {
        let _alone = alone();
        let mut owner = Owner::start(who, 3, LONG, false);
        owner.wait_for_sandboxes(3);
        kill_now(owner.spawner);
        // What was cut off is no answer, and there is nobody who would make another worker.
        assert_eq!(owner.word().as_deref(), Some("died"));
        assert_eq!(owner.word().as_deref(), Some("alone"));
        owner.ends();
        owner.leaves_nothing();
    }

    fn of_a_worker(who: Who) {
        let _alone = alone();
        let mut owner = Owner::start(who, 3, LONG, true);
        owner.wait_for_sandboxes(3);
        let (workers, left) = (owner.workers(), owner.left());
        kill_now(workers[1]);
        assert_eq!(owner.word().as_deref(), Some("died"));
        // The spawner lives, and sees to what the killed one left; the others are as they were.
        owner.wait_for_sandboxes(3);
        // Its socket is shut a moment before it is gone.
        assert!(eventually(|| !owner.workers().contains(&workers[1])));
        let now = owner.workers();
        assert!(now.contains(&workers[0]) && now.contains(&workers[2]), "{workers:?} {now:?}");
        // At first there was one that looked for what others had left.
        let kept = |all: &[String]| all.iter().filter(|what| !what.starts_with("process")).count();
        let as_before = |now: Vec<String>| now.len() <= left.len() && kept(&now) == kept(&left);
        assert!(eventually(|| as_before(owner.left())), "{left:#?}\n{:#?}", owner.left());
        owner.kill_owner();
        owner.leaves_nothing();
    }

    fn of_all_at_once(who: Who) {
        let _alone = alone();
        let mut owner = Owner::start(who, 3, LONG, false);
        owner.wait_for_sandboxes(3);
        let workers = owner.workers();
        // None of them sees the others die.
        for pid in workers.iter().copied().chain([owner.spawner, owner.child.id() as i32]) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
        }
        workers.iter().copied().chain([owner.spawner]).for_each(kill_now);
        owner.kill_owner();
        owner.leaves_no_process();
        // The next one to start removes the rest.
        let mut next = Owner::start(who, 1, "true", false);
        next.ends();
        if who != Who::Root {
            // It has a directory of records of its own.
            Run::verb(who, "cleanup").env("XDG_RUNTIME_DIR", owner.place.join("runtime-dir")).done().expect_code(0);
        }
        owner.leaves_nothing();
        next.leaves_nothing();
    }

    fn of_any_at_any_moment(who: Who) {
        let (_alone, before) = (alone(), Look::now());
        for round in 0..24_u64 {
            let mut owner = Owner::start(who, 2, "sh -c 'true & true'", true);
            std::thread::sleep(Duration::from_micros(7_000 + round * round * 331 % 50_000));
            let victims = [vec![owner.child.id() as i32], vec![owner.spawner], owner.workers()];
            victims[round as usize % 3].iter().copied().for_each(kill_now);
            if round % 3 == 2 {
                // New ones take their place.
                let died = (0..1000).filter_map(|_| owner.word()).any(|word| word == "died");
                assert!(died || victims[2].is_empty());
                assert!((0..1000).filter_map(|_| owner.word()).any(|word| word.starts_with("answer ok")));
            }
            owner.kill_owner();
            owner.leaves_no_process();
            owner.leaves_nothing();
        }
        before.assert_unchanged();
    }
}
