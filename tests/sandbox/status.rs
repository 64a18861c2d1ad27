//! Exit statuses (DESIGN.md §4).

use crate::{
    both,
    common::{Run, Who, probe},
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

    /// Docker's statuses, one line that says why, and one that says what to do.
    fn what_is_no_program(who: Who) {
        // A machine that nobody emulates.
        let mut elsewhere = probe::binary().to_vec();
        elsewhere[18..20].copy_from_slice(&0x7000u16.to_le_bytes());
        for (name, code, why) in [
            ("/usr", 126, "`/usr` is a directory, not a program"),
            (".", 126, "`.` is a directory, not a program"),
            ("./closed", 126, "`./closed` is not executable"),
            ("./text", 126, "`./text` is text without a `#!` line"),
            ("./empty", 126, "`./empty` is an empty file"),
            ("./data", 126, "`./data` is no program"),
            ("./elsewhere", 126, "`./elsewhere` is made for another machine (ELF number 28672), and this is "),
            ("./cut", 126, "`./cut` is damaged"),
            ("./lost", 127, "`./lost` is a script, and its `#!` interpreter is not there"),
            ("./windows", 127, "`./windows` has a `#!` line that ends in a carriage return"),
            ("./missing", 127, "`./missing`: no such file or directory inside"),
            ("missing", 127, "`missing`: executable file not found"),
            ("/etc/passwd/x", 127, "`/etc/passwd/x`: no such file or directory inside"),
            ("", 127, "the program's name is empty"),
        ] {
            let mut run = Run::new(who);
            let content: &[u8] = match name {
                "./text" => b"echo hi\n",
                "./data" => b"MZ\x90\0\x03",
                "./elsewhere" => &elsewhere,
                "./cut" => &probe::binary()[..100],
                "./lost" => b"#!/no/such/interpreter\n",
                "./windows" => b"#!/bin/sh\r\necho hi\r\n",
                _ => b"",
            };
            match name {
                "./closed" => run = run.file("closed", "#!/bin/sh\n"),
                "./text" | "./empty" | "./data" | "./elsewhere" | "./cut" | "./lost" | "./windows" => {
                    let file = run.place.write_executable(name, content);
                    run = run.arg("--file").arg(file);
                }
                _ => {}
            }
            let done = run.program_args([name]).done().expect_code(code);
            let err = done.err();
            let lines: Vec<_> = err.lines().collect();
            assert!(lines[0].starts_with(&format!("error: {why}")), "{done}");
            assert!(lines.len() == 2 && lines[1].starts_with("hint: "), "{done}");
        }
    }

    fn a_program_that_is_only_on_the_host(who: Who) {
        let run = Run::new(who);
        run.place.write_executable("script", "#!/bin/sh\n");
        let done = run.program_args(["./script"]).done().expect_code(127);
        assert!(done.err().contains("fumehood run --file ./script -- ./script"), "{done}");
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
