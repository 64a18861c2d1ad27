//! Signals: one lets what runs end, a second one kills it.

use std::io::{BufRead, BufReader};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    Batch, all, assert_nothing_left, both,
    common::{Who, host},
    parse,
};

/// The first are quick; then come some that wait until they are let go, and some that are not to be begun.
fn jobs(wait: &str) -> Vec<Value> {
    let mut jobs: Vec<_> = (0..3).map(|n| json!({"id": n, "cmd": format!("echo {n}")})).collect();
    jobs.extend((3..5).map(|n| json!({"id": n, "cmd": wait, "limits": {"timeout": "none"}})));
    jobs.extend((5..400).map(|n| json!({"id": n, "cmd": format!("echo {n}")})));
    jobs
}

/// Their sleeps are told apart.
fn mark(who: Who) -> u32 {
    1 + u32::from(who == Who::User)
}

both! {
    fn once_lets_what_runs_end(who: Who) {
        let batch = Batch::of(who, &jobs(&format!("sleep 3.{}; echo whole", mark(who)))).args(["-j", "2"]);
        let mut child = batch.start();
        let pid = child.id();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        for _ in 0..3 {
            out.read_line(&mut text).unwrap();
        }
        let running = || host::processes(&format!("sleep\x003.{}", mark(who))).len() >= 2;
        assert!(host::eventually(running));
        kill(Pid::from_raw(pid as i32), Signal::SIGINT).unwrap();
        std::io::Read::read_to_string(&mut out, &mut text).unwrap();
        let done = batch.0.wait_for(child);
        let results = parse(&text);
        assert_eq!(all(&results, "id"), [0, 1, 2, 3, 4], "{done}");
        assert_eq!(results[4]["stdout"], "whole\n", "{}", results[4]);
        assert!(done.err().contains("once more kills them"), "{done}");
        assert_nothing_left(&done, pid);
        done.expect_code(130);
    }

    fn twice_kills_it(who: Who) {
        let batch = Batch::of(who, &jobs(&format!("sleep 1000.{}", mark(who)))).args(["-j", "2", "-o", "out"]);
        let child = batch.start();
        let pid = child.id();
        let ours = || host::processes(&format!("sleep\x001000.{}", mark(who))).len() >= 2;
        assert!(host::eventually(ours));
        kill(Pid::from_raw(pid as i32), Signal::SIGINT).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        kill(Pid::from_raw(pid as i32), Signal::SIGINT).unwrap();
        let done = batch.0.wait_for(child);
        assert_eq!(crate::read(&done.place().join("out")).len(), 3, "{done}");
        assert_nothing_left(&done, pid);
        done.expect_code(130);
    }
}
