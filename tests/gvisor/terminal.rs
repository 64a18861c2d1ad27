//! `-t`: a terminal of the sandbox's own, which gVisor's kernel hands on to the program.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    both,
    common::{
        Run, Who, host,
        terminal::{OWN_SESSION, Session},
    },
    gvisor, knows_systrap,
};

fn session(run: Run) -> (Run, Session) {
    let run = run.arg("-t").wrapped(OWN_SESSION);
    let session = Session::start(&run);
    (run, session)
}

both! {
    fn a_shell_has_one_and_its_jobs(who: Who) {
        let Some(run) = gvisor(who, "a_shell_has_one_and_its_jobs") else { return };
        let (run, mut session) = session(run.program_args(["bash", "--norc", "-i"]));
        session.type_in("test -t 0 && test -t 1 && test -t 2 && echo all-$((1+1)); stty size; echo $TERM\n");
        session.expect("all-2");
        session.expect("33 111");
        session.expect("xterm");
        // What has the terminal is stopped from it, comes back, and is ended from it; the shell is not. Not with the
        // release of 2022.
        if knows_systrap() {
            session.type_in("sleep 1000\n");
            session.expect("sleep 1000\r\n");
            // Typed before it has the terminal, it would be for the shell.
            std::thread::sleep(Duration::from_secs(1));
            session.type_in("\x1a");
            session.expect("Stopped");
            session.type_in("fg\n");
            session.expect("fg\r\n");
            std::thread::sleep(Duration::from_secs(1));
            session.type_in("\x03");
            session.expect("^C");
            session.type_in("echo it-was-$?\n");
            session.expect("it-was-130");
        }
        session.type_in("exit 7\n");
        assert_eq!(session.end(), 7, "{}", session.text());
        assert!(host::left_of(&run.name, &run.place).is_empty());
    }

    fn its_size_follows_the_callers(who: Who) {
        let Some(run) = gvisor(who, "its_size_follows_the_callers") else { return };
        // The release of 2022 changes the size, and tells nobody.
        let wait = if knows_systrap() { "signal.sigwait([signal.SIGWINCH])" } else { "time.sleep(0.1)" };
        let code = format!(
            "import os, signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])\nprint('ready', flush=True)\n\
            while os.get_terminal_size().columns != 77: {wait}\nprint('now', os.get_terminal_size().columns, flush=True)"
        );
        let (_run, mut session) = session(run.python(&code));
        session.expect("ready");
        // stty acts on its standard input.
        let terminal = Stdio::from(session.master.try_clone().unwrap());
        assert!(Command::new("stty").args(["rows", "20", "columns", "77"]).stdin(terminal).status().unwrap().success());
        session.expect("now 77");
        assert_eq!(session.end(), 0, "{}", session.text());
    }

    fn what_is_typed_is_signals(who: Who) {
        let Some(run) = gvisor(who, "what_is_typed_is_signals") else { return };
        let (run, mut session) = session(run.cmd("trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"));
        session.expect("ready");
        session.type_in("\x03");
        if knows_systrap() {
            session.expect("caught");
            assert_eq!(session.end(), 9, "{}", session.text());
        } else {
            // Its file server has the terminal as well, and dies of it.
            assert_ne!(session.end(), 0, "{}", session.text());
        }
        assert!(host::left_of(&run.name, &run.place).is_empty());
    }
}
