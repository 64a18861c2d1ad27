//! `kill -9` of fumehood itself, at any moment: the kernel ends the sandbox, `cleanup` removes what has no process.

use std::{
    process::{Child, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    both,
    common::{
        Run, Who,
        host::{self, Look, eventually},
    },
};

/// `cleanup` is for all that root, or the user, has: no two of these tests at once.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(run: &Run) -> Child {
    run.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

both! {
    fn a_killed_supervisor_leaves_nothing_that_runs_or_is_mounted(who: Who) {
        let (_alone, before) = (alone(), Look::now());
        // Spread over the time that a start takes and beyond it; the moments need not be the same each time.
        for round in 0..30_u64 {
            let run = Run::new(who).arg("--writable").cmd("sleep 1000 & setsid sleep 1000 & sleep 1000");
            let mut child = start(&run);
            std::thread::sleep(Duration::from_micros(round * round * 60));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(eventually(|| host::processes(&run.name).is_empty()), "{:#?}", host::processes(&run.name));
            let cleanup = |args: &[&str]| {
                let cleanup = Run::verb(who, "cleanup").env("XDG_RUNTIME_DIR", run.place.join("runtime-dir")).args(args);
                cleanup.done().expect_code(0)
            };
            let left = host::left_of(&run.name, &run.place);
            let listed = cleanup(&["--dry-run"]);
            // A cgroup without a record may be one of a sandbox in the making: for a minute it is left alone, and so
            // for ten seconds is a record that has not its name yet.
            let has_record = left.iter().any(|path| path.ends_with(".json"));
            assert_eq!(listed.out().contains(&run.name), has_record, "{left:?}: {listed}");
            assert_eq!(host::left_of(&run.name, &run.place), left, "a dry run removes nothing");
            let cleaned = cleanup(&[]);
            for path in host::left_of(&run.name, &run.place) {
                let nameless = format!("/.{}.", run.name);
                assert!(!has_record && (path.starts_with("cgroup ") || path.contains(&nameless)), "{path}: {cleaned}");
                match path.strip_prefix("cgroup ") {
                    // It can be removed only when it is empty.
                    Some(group) => std::fs::remove_dir(group).unwrap(),
                    None => std::fs::remove_file(&path).unwrap(),
                }
            }
        }
        before.assert_unchanged();
    }

    fn cleanup_leaves_what_runs_alone(who: Who) {
        let _alone = alone();
        let run = Run::new(who).cmd("sleep 1000");
        let mut child = start(&run);
        assert!(eventually(|| !host::left_of(&run.name, &run.place).is_empty()));
        assert!(eventually(|| {
            let list = Run::verb(who, "ps").env("XDG_RUNTIME_DIR", run.place.join("runtime-dir")).done();
            list.out().contains(&run.name)
        }));
        Run::verb(who, "cleanup").env("XDG_RUNTIME_DIR", run.place.join("runtime-dir")).done().expect_code(0);
        assert!(child.try_wait().unwrap().is_none(), "cleanup ended a sandbox that is in use");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(eventually(|| host::processes(&run.name).is_empty()));
        Run::verb(who, "cleanup").env("XDG_RUNTIME_DIR", run.place.join("runtime-dir")).done().expect_code(0);
        assert!(host::left_of(&run.name, &run.place).is_empty());
    }
}
