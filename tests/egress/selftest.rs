//! `fumehood selftest egress`: that it finds the filter whole, and that it would find each hole.

use serde_json::Value;

use crate::{
    both,
    common::{Done, Run, Who, host},
};

/// What nobody can block.
const NOT_TRIED: [u64; 2] = [25, 30];

fn selftest(who: Who, filter: &str) -> Done {
    let run = Run::verb(who, "selftest").args(["egress", "--json", "--filter", filter]);
    // It copies itself into each sandbox: what is for debuggers alone would be most of that.
    let (binary, stripped) = (run.place.binary(), run.place.join("stripped"));
    let strip = std::process::Command::new("strip").arg("-o").arg(&stripped).arg(&binary).status();
    if strip.is_ok_and(|status| status.success()) {
        std::fs::rename(stripped, binary).unwrap();
    }
    run.done()
}

fn verdicts(done: &Done) -> Vec<(u64, String)> {
    let report = done.json();
    let row = |row: &Value| (row["number"].as_u64().unwrap(), row["verdict"].as_str().unwrap().to_owned());
    report["rows"].as_array().unwrap().iter().map(row).collect()
}

both! {
    fn the_filter_blocks_what_gets_through_without_it(who: Who) {
        let done = selftest(who, "real").expect_code(0);
        assert_eq!(done.json()["passed"], true);
        let verdicts = verdicts(&done);
        assert!(verdicts.iter().map(|(number, _)| *number).eq(1..=30), "{done}");
        for (number, verdict) in verdicts {
            let expected = if NOT_TRIED.contains(&number) { "out_of_scope" } else { "blocked" };
            assert_eq!(verdict, expected, "{number}: {done}");
        }
    }

    fn every_row_can_fail(who: Who) {
        let done = selftest(who, "none").expect_code(1);
        assert_eq!(done.json()["passed"], false);
        for (number, verdict) in verdicts(&done) {
            assert_eq!(verdict == "not_blocked", !NOT_TRIED.contains(&number), "{number}: {verdict}: {done}");
        }
    }
}

both! {
    fn who_interrupts_it_is_left_with_nothing(who: Who) {
        use std::process::Stdio;
        let run = Run::verb(who, "selftest").args(["egress"]);
        let place = run.place.mkdir("tmp");
        let run = run.env("TMPDIR", &place);
        let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let left = || std::fs::read_dir(&place).unwrap().count();
        assert!(host::eventually(|| left() > 0));
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
        assert_eq!(left(), 0);
    }

    fn the_probe_tries_nothing_on_a_network_of_somebodys(who: Who) {
        let done = Run::verb(who, "selftest-probe").args(["names", "salt"]).done();
        assert!(done.err().contains("for the inside of"), "{done}");
        done.expect_code(1).expect_out("");
    }
}

/// The same sandbox with a policy that is too wide: what is about the names is not blocked, the rest still is.
#[test]
fn a_hole_in_the_filter_is_found() {
    let Some(who) = Who::User.find("a_hole_in_the_filter_is_found") else { return };
    let done = selftest(who, "public").expect_code(1);
    let open: Vec<_> = verdicts(&done).into_iter().filter(|(_, verdict)| verdict == "not_blocked").collect();
    let open: Vec<_> = open.into_iter().map(|(number, _)| number).collect();
    assert_eq!(open, [1, 2, 8, 9, 13, 22, 23], "{done}");
}
