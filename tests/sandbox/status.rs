//! Exit statuses (DESIGN.md §4).

use crate::{
    both,
    common::{Run, Who},
};

both! {
    fn the_programs_own(who: Who) {
        for code in [0, 1, 42, 124, 125, 137, 255] {
            Run::new(who).cmd(&format!("exit {code}")).done().expect_code(code);
        }
    }

    fn out_of_time(who: Who) {
        let done = Run::new(who).args(["--timeout", "300ms"]).cmd("echo before; sleep 1000").done().expect_code(124).expect_out("before\n");
        assert_eq!(done.err().lines().count(), 1, "one line says why: {done}");
    }

    fn not_found(who: Who) {
        Run::new(who).program_args(["no-such-program"]).done().expect_code(127);
        Run::new(who).program_args(["/sandbox/none"]).done().expect_code(127);
        let json = Run::new(who).json_result().program_args(["no-such-program"]).done().expect_code(127).json();
        assert_eq!((&json["verdict"], &json["error"]["kind"]), (&"setup_error".into(), &"not_found".into()), "{json}");
        let run = Run::new(who);
        let script = run.place.write_executable("script", "#!/no/such/interpreter\n");
        run.arg("--file").arg(script).program_args(["./script"]).done().expect_code(127);
    }

    fn cannot_run(who: Who) {
        Run::new(who).file("plain", "text").program_args(["./plain"]).done().expect_code(126);
        Run::new(who).program_args(["/sandbox"]).done().expect_code(126);
        let json = Run::new(who).json_result().program_args(["/etc/passwd"]).done().expect_code(126).json();
        assert_eq!(json["error"]["kind"], "cannot_run", "{json}");
    }

    fn killed_by_a_signal(who: Who) {
        for (name, number) in [("KILL", 9), ("SEGV", 11), ("TERM", 15), ("USR1", 10), ("ABRT", 6), ("INT", 2)] {
            let done = Run::new(who).json_result().cmd(&format!("kill -{name} $$; sleep 5")).done().expect_code(128 + number);
            assert_eq!(done.json()["signal"], number, "{done}");
            assert_eq!(done.json()["verdict"], "signaled", "{done}");
            assert!(done.json()["exit_code"].is_null(), "{done}");
        }
    }

    fn a_child_killed_is_not_the_program_killed(who: Who) {
        Run::new(who).json_result().cmd("sh -c 'kill -9 $$'; exit 0").done().expect_code(0).expect_verdict("ok");
    }

    fn its_own_error(who: Who) {
        Run::new(who).args(["--no-such-flag"]).done().expect_error("no-such-flag").expect_hint();
    }
}
