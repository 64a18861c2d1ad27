//! What gVisor cannot hold is refused by name.

use crate::{both, common::Who, gvisor};

both! {
    fn what_does_not_hold_is_refused(who: Who) {
        for (options, named) in [
            (&["--pids-limit", "5"][..], "--pids-limit does not hold"),
            (&["--profile", "strict"], "--profile does not hold"),
            (&["--net", "host", "--quiet"], "--net host does not hold"),
            // This release does not know it.
            (&["--gvisor-platform", "xen"], "there is no `xen`"),
        ] {
            let Some(run) = gvisor(who, "what_does_not_hold_is_refused") else { return };
            run.args(options).cmd("true").done().expect_error(named).expect_hint();
        }
    }

    fn a_runsc_that_is_none_is_told(who: Who) {
        let Some(run) = gvisor(who, "a_runsc_that_is_none_is_told") else { return };
        run.env("FUMEHOOD_RUNSC", "/etc/passwd").cmd("true").done().expect_error("`/etc/passwd` is no program");
        let Some(run) = gvisor(who, "a_runsc_that_is_none_is_told") else { return };
        let done = run.env("FUMEHOOD_RUNSC", "/bin/false").cmd("true").done().expect_code(125);
        assert!(done.err().starts_with("error: gVisor did not run the program: runsc"), "{done}");
    }

    fn a_platform_that_is_not_to_be_had_is_told(who: Who) {
        let Some(run) = gvisor(who, "a_platform_that_is_not_to_be_had_is_told") else { return };
        let known = std::process::Command::new("runsc").arg("flags").output().unwrap();
        let known = String::from_utf8_lossy(&[known.stdout, known.stderr].concat()).contains("systrap");
        let done = run.args(["--gvisor-platform", "systrap"]).cmd("echo ran").done();
        assert_eq!((done.code, done.out().as_str()), if known { (0, "ran\n") } else { (125, "") }, "{done}");
    }
}
