//! The library, from a process with many threads: between clone3 and exec the child may own a lock of another
//! thread's, and must not need it.

use std::{
    os::unix::process::CommandExt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use fumehood::{Sandbox, Verdict, request::Limits};

use crate::common::{Place, Who, host, skip};

fn twenty_at_once() {
    static OVER: AtomicBool = AtomicBool::new(false);
    let before = host::Look::now();
    std::thread::scope(|scope| {
        // These hold the allocator's and the environment's locks at nearly any moment.
        let busy = || {
            while !OVER.load(Ordering::Relaxed) {
                let text: Vec<String> = (0..50).map(|n| format!("{n}{:?}", std::env::var_os("PATH"))).collect();
                std::hint::black_box(text);
                std::thread::sleep(Duration::from_micros(100));
            }
        };
        scope.spawn(busy);
        scope.spawn(busy);
        let runs: Vec<_> = (0..20)
            .map(|thread| {
                scope.spawn(move || {
                    for round in 0..5 {
                        let mut sandbox =
                            Sandbox::shell(format!("echo {thread} {round}; echo e{thread} >&2; exit {thread}"));
                        let outcome = sandbox.output().unwrap_or_else(|error| panic!("{error}: {:?}", error.hint()));
                        assert_eq!(String::from_utf8_lossy(&outcome.stdout.bytes), format!("{thread} {round}\n"));
                        assert_eq!(String::from_utf8_lossy(&outcome.stderr.bytes), format!("e{thread}\n"));
                        assert_eq!(outcome.exit_code, Some(thread));
                        assert_eq!(outcome.verdict, if thread == 0 { Verdict::Ok } else { Verdict::Failed });
                    }
                    let mut sandbox = Sandbox::shell("sleep 1000");
                    sandbox.limits(Limits { timeout: Some(Duration::from_millis(300)), ..Limits::default() });
                    assert_eq!(sandbox.output().unwrap().verdict, Verdict::Timeout);
                })
            })
            .collect();
        let results: Vec<_> = runs.into_iter().map(|run| run.join()).collect();
        OVER.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    before.assert_unchanged();
}

#[test]
fn twenty_threads_as_root() {
    if Who::Root.find("twenty_threads").is_some() {
        twenty_at_once();
    }
}

/// The library runs as who the process is, so this test is run once more as the other.
#[test]
fn twenty_threads_as_user() {
    let Some(who) = Who::User.find("twenty_threads") else { return };
    let Some((uid, gid)) = who.ids() else { return twenty_at_once() };
    let place = Place::new(who);
    let copy = place.join("tests");
    crate::common::copy_program(&std::env::current_exe().unwrap(), &copy);
    let mut command = std::process::Command::new(copy);
    command.args(["--exact", "concurrency::twenty_threads_as_user", "--nocapture"]).current_dir(place.path());
    command.env_clear().env("PATH", "/usr/bin:/bin").env("XDG_RUNTIME_DIR", place.join("runtime-dir"));
    let output = command.uid(uid).gid(gid).output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if !String::from_utf8_lossy(&output.stdout).contains("1 passed") {
        skip("twenty_threads_as_user", "the test was not run again");
    }
}
