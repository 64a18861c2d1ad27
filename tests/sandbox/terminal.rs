//! `-t`: a terminal of the sandbox's own, tied to the caller's.

use nix::{
    pty::Winsize,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    both,
    common::{
        Run, Who, host,
        terminal::{OWN_SESSION, Session},
    },
};

fn session(run: Run) -> (Run, Session) {
    let run = run.arg("-t").wrapped(OWN_SESSION);
    let session = Session::start(&run);
    (run, session)
}

both! {
    fn an_interactive_shell(who: Who) {
        let (run, mut session) = session(Run::new(who).program_args(["bash", "--norc"]));
        session.type_in("tty; test -t 0 && test -t 1 && test -t 2 && echo all-$((1+1))\n");
        session.expect("all-2");
        session.expect("/dev/pts/");
        session.type_in("exit 7\n");
        assert_eq!(session.end(), 7, "{}", session.text());
        assert!(host::left_of(&run.name, &run.place).is_empty());
    }

    fn its_size_is_the_callers_and_follows_it(who: Who) {
        let code = "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])\n\
            print('size', os.get_terminal_size().columns, os.get_terminal_size().lines, flush=True)\n\
            columns = 0\nwhile columns != 77:\n  signal.sigwait([signal.SIGWINCH])\n  columns = os.get_terminal_size().columns\n  \
            print('now', columns, flush=True)";
        let (_run, mut session) = session(Run::new(who).python(code));
        session.expect("size 111 33");
        resize(&session, 77);
        session.expect("now 77");
        assert_eq!(session.end(), 0, "{}", session.text());
    }

    fn control_c_goes_to_the_program(who: Who) {
        let (_run, mut session) = session(Run::new(who).cmd("trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"));
        session.expect("ready");
        session.type_in("\x03");
        session.expect("caught");
        assert_eq!(session.end(), 9, "{}", session.text());
    }

    fn a_hang_up_ends_it(who: Who) {
        let (run, mut session) = session(Run::new(who).cmd("trap '' HUP; echo ready; sleep 1000; sleep 1000"));
        session.expect("ready");
        kill(Pid::from_raw(session.child.id() as i32), Signal::SIGHUP).unwrap();
        session.end();
        assert!(host::eventually(|| host::left_of(&run.name, &run.place).is_empty()), "{:?}", host::left_of(&run.name, &run.place));
    }

    fn the_callers_terminal_is_as_it_was_afterwards(who: Who) {
        use nix::sys::termios::tcgetattr;
        let (_run, mut session) = session(Run::new(who).cmd("stty raw -echo; echo ready"));
        let before = session.before.clone();
        session.expect("ready");
        session.end();
        let after = tcgetattr(&session.master).unwrap();
        assert_eq!((before.local_flags, before.input_flags, before.output_flags), (after.local_flags, after.input_flags, after.output_flags));
    }

    fn without_a_terminal_there_is_none_to_give(who: Who) {
        let done = Run::new(who).arg("-t").cmd("echo x").done();
        assert_eq!(done.code, 125, "{done}");
    }
}

fn resize(session: &Session, columns: u16) {
    // stty acts on its standard input.
    let size = Winsize { ws_row: 20, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let status = std::process::Command::new("stty")
        .args(["rows", &size.ws_row.to_string(), "columns", &size.ws_col.to_string()])
        .stdin(session.master.try_clone().unwrap())
        .status();
    assert!(status.unwrap().success());
}
