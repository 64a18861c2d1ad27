//! A run ends when its program does, and all of it ends with it.
//!
//! That nothing is left is asserted by [`Run::done`]; that output is not held open, by its reading to the end.

use std::time::{Duration, Instant};

use crate::{
    both,
    common::{Run, Who},
};

/// Everything a process can do to stay.
const STAY: &str = r#"
import os, signal, sys, time
def stay():
    for s in range(1, 65):
        try: signal.signal(s, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True:
        try: time.sleep(1000)
        except BaseException: pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        stay()
    os._exit(0)
"#;

both! {
    fn a_daemon_does_not_outlive_its_program(who: Who) {
        let began = Instant::now();
        Run::new(who).python(&format!("{STAY}\nprint('leaving')")).done().expect_code(0).expect_out("leaving\n");
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    fn a_daemon_does_not_outlive_the_time(who: Who) {
        Run::new(who).args(["--timeout", "500ms"]).python(&format!("{STAY}\nstay()")).done().expect_code(124);
    }

    fn nohup_does_not_help(who: Who) {
        Run::new(who).cmd("nohup setsid sleep 1000 > /dev/null 2>&1 & echo leaving").done().expect_code(0).expect_out("leaving\n");
        // Its output would be held open.
        Run::new(who).cmd("nohup setsid sleep 1000 2>&1 & echo leaving").done().expect_code(0);
    }

    fn stopping_itself_does_not_help(who: Who) {
        let done = Run::new(who).args(["--timeout", "500ms", "--json"]).cmd("kill -STOP $$; echo woken").done();
        done.expect_code(124).expect_verdict("timeout");
        Run::new(who).cmd("sh -c 'kill -STOP $$' & sleep 0.1; echo leaving").done().expect_code(0).expect_out("leaving\n");
    }

    fn closing_its_output_does_not_end_it(who: Who) {
        let run = Run::new(who).args(["--get", "done"]);
        let done = run.cmd("exec 1>&- 2>&-; sleep 0.5; echo yes > done").done().expect_code(0);
        assert_eq!(done.place().read("done"), "yes\n");
    }

    fn the_callers_signal_ends_it(who: Who) {
        use nix::{sys::signal::{Signal, kill}, unistd::Pid};
        use std::{io::{BufRead, BufReader}, process::Stdio};
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            // Whoever runs the tests in the background may have had them ignore some of these.
            let run = Run::new(who).wrapped(["env", "--default-signal=TERM,INT,HUP"]);
            let run = run.cmd("trap '' TERM INT HUP; echo ready; sleep 1000; sleep 1000");
            let mut command = run.command();
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n");
            kill(Pid::from_raw(child.id() as i32), signal).unwrap();
            let done = run.wait_for(child);
            done.check_nothing_left();
            assert!(done.code == 128 + signal as i32 || done.code == -(signal as i32), "{signal}: {done}");
        }
    }

    fn ps_and_kill(who: Who) {
        use std::{io::{BufRead, BufReader}, process::Stdio};
        let run = Run::new(who).cmd("echo ready; sleep 1000");
        let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let again = |verb, args: &[&str]| {
            let other = Run::verb(who, verb).env("XDG_RUNTIME_DIR", run.place.join("runtime-dir")).args(args);
            other.done()
        };
        let list = again("ps", &[]).expect_code(0);
        assert!(list.out().contains(&run.name), "{list}");
        // The name is taken while it runs.
        let same = Run::new(who).named(&run.name).env("XDG_RUNTIME_DIR", run.place.join("runtime-dir")).cmd("true");
        let same = same.finish(run.command());
        assert_eq!(same.code, 125, "{same}");
        again("kill", &["no-such-sandbox"]).expect_error("no-such-sandbox");
        again("kill", &[&run.name]).expect_code(0);
        let done = run.wait_for(child);
        done.check_nothing_left();
        assert_eq!(done.code, 137, "{done}");
    }
}
