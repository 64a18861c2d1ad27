//! What goes in by standard input and the arguments, and what comes out.

use crate::{
    both,
    common::{Run, Who, raw},
};

const ECHO_ARGS: &str = "import sys, os\nsys.stdout.buffer.write(b'|'.join(os.fsencode(a) for a in sys.argv[1:]))";

both! {
    fn input_is_empty_unless_asked(who: Who) {
        Run::new(who).cmd("cat; echo end").input("secret").done().expect_code(0).expect_out("end\n");
    }

    fn input_given_as_text(who: Who) {
        Run::new(who).args(["--stdin", "a b\n"]).cmd("cat").done().expect_code(0).expect_out("a b\n");
    }

    fn input_passed_on(who: Who) {
        let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let done = Run::new(who).arg("-i").cmd("cat").input(bytes.clone()).done().expect_code(0);
        assert!(done.stdout == bytes, "{} of {} bytes came back", done.stdout.len(), bytes.len());
    }

    fn input_that_nobody_reads_does_not_hang(who: Who) {
        Run::new(who).arg("-i").cmd("exec 0<&-; echo done").input(vec![b'x'; 4 << 20]).done().expect_code(0).expect_out("done\n");
    }

    fn arguments_arrive_as_they_are(who: Who) {
        let args = ["", " ", "a b", "-x", "--", "--json", "é\u{1F600}", "\"'$(id)`\\", "new\nline", "*"];
        let done = Run::new(who).python(ECHO_ARGS).program_args(args).done().expect_code(0);
        assert_eq!(done.out().split('|').collect::<Vec<_>>(), args, "{done}");
    }

    fn a_shell_line_takes_arguments(who: Who) {
        Run::new(who).cmd("printf '<%s>' \"$@\"").program_args(["a b", ""]).done().expect_code(0).expect_out("<a b><>");
    }

    fn a_command_alone(who: Who) {
        Run::new(who).program_args(["printf", "%s.", "a b", "c"]).done().expect_code(0).expect_out("a b.c.");
    }

    fn both_streams_keep_apart_and_exact(who: Who) {
        let code = "import sys\nsys.stdout.buffer.write(bytes(range(256)))\nsys.stderr.buffer.write(b'\\xff\\x00err')";
        let done = Run::new(who).python(code).done().expect_code(0);
        assert_eq!(done.stdout, (0..=255).collect::<Vec<u8>>());
        assert_eq!(done.stderr, b"\xff\0err");
    }

    fn output_streams_as_it_is_written(who: Who) {
        use std::{io::{BufRead, BufReader, Write}, process::Stdio};
        let run = Run::new(who).arg("-i").cmd("echo ready; read line; echo got $line");
        let mut child = run.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It waits for what is only typed when its first line has been seen.
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        child.stdin.take().unwrap().write_all(b"it\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "got it");
        assert!(child.wait().unwrap().success());
    }

    fn a_reader_that_goes_away_ends_it(who: Who) {
        let run = Run::new(who);
        let line = format!("{} run --name {} --cmd 'while echo y; do :; done' | head -n 1", run.place.binary().display(), run.name);
        let mut command = run.command();
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", &line]).env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        std::mem::swap(&mut command, &mut shell);
        if let Some((uid, gid)) = who.ids() {
            use std::os::unix::process::CommandExt;
            command.uid(uid).gid(gid);
        }
        let done = run.finish(command);
        assert_eq!(done.out(), "y\n", "{done}");
        done.check_nothing_left();
    }

    fn output_can_go_to_a_file(who: Who) {
        let run = Run::new(who);
        let out = run.place.text("out.txt");
        let done = run.args(["--out", &out]).cmd("echo to file; echo to err >&2").done().expect_code(0).expect_out("");
        assert_eq!(done.place().read("out.txt"), "to file\n");
        assert!(done.err().contains("to err"), "{done}");
    }

    fn an_argument_that_is_no_text_is_an_error_and_no_crash(who: Who) {
        let done = Run::new(who).python(ECHO_ARGS).program_args([raw(b"\xff\xfe")]).done();
        assert!(done.code == 0 && done.stdout == b"\xff\xfe" || done.code == 125, "{done}");
        if done.code == 125 {
            done.expect_error("");
        }
    }
}
