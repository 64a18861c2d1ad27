//! What gVisor cannot hold is refused by name.

use crate::{both, common::Who, gvisor, knows_systrap};

both! {
    fn what_does_not_hold_is_refused(who: Who) {
        for (options, named) in [
            (&["--pids-limit", "5"][..], "--pids-limit does not hold"),
            (&["--profile", "strict"], "--profile does not hold"),
            (&["--net", "host", "--quiet"], "--net host does not hold"),
            (&["--mount", "/usr/share:/sys/kernel/x"], "--mount …:/sys does not hold"),
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

    fn a_platform_that_it_does_not_have_is_told(who: Who) {
        let Some(run) = gvisor(who, "a_platform_that_it_does_not_have_is_told") else { return };
        let run = run.args(["--gvisor-platform", "systrap"]).cmd("echo ran");
        if knows_systrap() {
            run.done().expect_code(0).expect_out("ran\n");
        } else {
            run.done().expect_error("has only kvm and ptrace").expect_hint();
        }
        let Some(run) = gvisor(who, "a_platform_that_it_does_not_have_is_told") else { return };
        run.args(["--gvisor-platform", "ptrace"]).cmd("echo ran").done().expect_code(0).expect_out("ran\n");
    }
}
