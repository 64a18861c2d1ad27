//! `kill -9` of any of the processes, at any moment: nothing is left.

use std::{
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    both,
    common::{
        Run, Who,
        host::{self, Look, eventually},
    },
    gvisor,
};

/// All that descend from `pid`, by their commands.
fn descendants(pid: u32) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    let mut pending = vec![pid];
    while let Some(pid) = pending.pop() {
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace() {
                let command = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
                let first = command.split(|byte| *byte == 0).next().unwrap_or_default();
                found.push((child.parse().unwrap(), String::from_utf8_lossy(first).into_owned()));
                pending.push(child.parse().unwrap());
            }
        }
    }
    found
}

fn start(run: &Run) -> Child {
    run.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

both! {
    fn whatever_is_killed_nothing_is_left(who: Who) {
        let before = Look::now();
        let mut struck = 0;
        for round in 0..20_u64 {
            let Some(run) = gvisor(who, "whatever_is_killed_nothing_is_left") else { return };
            let run = run.cmd("sleep 1000 & sleep 1000");
            let mut child = start(&run);
            // While it starts, and when it runs: that takes a fifth of a second where nothing else does.
            std::thread::sleep(Duration::from_millis(round * 25));
            let all = descendants(child.id());
            let wanted = ["runsc-sandbox", "runsc-gofer", "runsc", ""][round as usize % 4];
            let victim = all.iter().find(|(_, name)| if wanted.is_empty() { false } else { name == wanted });
            match victim.or(all.first()) {
                Some((pid, _)) => {
                    struck += 1;
                    _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
                    // The supervisor tells it and cleans up.
                    child.wait().unwrap();
                }
                None => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                }
            }
            assert!(eventually(|| host::processes(&run.name).is_empty()), "{:#?}", host::processes(&run.name));
            assert!(eventually(|| all.iter().all(|(pid, _)| !alive(*pid))), "{all:?}");
            if struck > 0 && !all.is_empty() {
                let left = host::left_of(&run.name, &run.place);
                assert!(left.is_empty(), "round {round}: {left:#?}");
            }
        }
        assert!(struck > 10, "only {struck} processes were there to be killed");
        before.assert_unchanged();
    }

    fn a_killed_supervisor_ends_gvisor(who: Who) {
        let before = Look::now();
        for round in 0..10_u64 {
            let Some(run) = gvisor(who, "a_killed_supervisor_ends_gvisor") else { return };
            let run = run.cmd("sleep 1000 & sleep 1000");
            let mut child = start(&run);
            std::thread::sleep(Duration::from_millis(round * 50));
            let all = descendants(child.id());
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(eventually(|| all.iter().all(|(pid, _)| !alive(*pid))), "{all:?}");
            assert!(eventually(|| host::processes(&run.name).is_empty()), "{:#?}", host::processes(&run.name));
        }
        before.assert_unchanged();
    }
}

/// Whether there is such a process that still runs; a number that another has by now is not ours to wait for.
fn alive(pid: i32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.starts_with(b"runsc")
}
