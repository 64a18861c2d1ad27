//! The caller's terminal: nothing can be typed into it from inside.

use crate::{
    both,
    common::{
        Run, Who,
        terminal::{OWN_SESSION, Session},
    },
};

/// TIOCSTI, TIOCLINUX and TIOCSETD on every descriptor and on /dev/tty, plain and with bits above the 32 that the
/// kernel reads (CVE-2019-10063).
const TYPE_IN: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
fds = [0, 1, 2]
try: fds.append(os.open('/dev/tty', os.O_RDWR))
except OSError as e: print('no tty', e.errno)
answers = set()
for fd in fds:
    for request in (0x5412, 0x541c, 0x5423):
        for high in (0, 1 << 32, 1 << 40, 0xffffffff << 32):
            ctypes.set_errno(0)
            argument = ctypes.create_string_buffer(b'\x0ftyped-in')
            result = libc.syscall(16, fd, ctypes.c_ulong(request | high), argument)
            answers.add((result, ctypes.get_errno()))
print('answers', sorted(answers))
"#;

both! {
    fn cve_2017_5226_tiocsti_without_a_terminal(who: Who) {
        // fumehood's own streams are a terminal; the program's are pipes, and the terminal is not its controlling one.
        let run = Run::new(who).wrapped(OWN_SESSION).python(TYPE_IN);
        let mut session = Session::start(&run);
        session.expect("answers");
        assert_eq!(session.end(), 0, "{}", session.text());
        assert!(session.text().contains("no tty"), "{}", session.text());
        assert!(session.text().contains("answers [(-1, 1)]"), "{}", session.text());
        assert!(!session.text().contains("typed-in"), "{}", session.text());
    }

    fn cve_2019_10063_tiocsti_with_a_terminal_of_its_own(who: Who) {
        let run = Run::new(who).wrapped(OWN_SESSION).arg("-t").python(TYPE_IN);
        let mut session = Session::start(&run);
        session.expect("answers");
        assert_eq!(session.end(), 0, "{}", session.text());
        assert!(session.text().contains("answers [(-1, 1)]"), "{}", session.text());
    }

    fn cve_2023_28100_the_same_as_root_inside(who: Who) {
        let run = Run::new(who).wrapped(OWN_SESSION).args(["-t", "--user", "0", "--profile", "dev"]).python(TYPE_IN);
        let mut session = Session::start(&run);
        session.expect("answers");
        assert_eq!(session.end(), 0, "{}", session.text());
        assert!(session.text().contains("answers [(-1, 1)]"), "{}", session.text());
    }

    /// The terminal inside is not the caller's: other devices, and no others of the host's in sight.
    fn the_terminal_is_another(who: Who) {
        let run = Run::new(who).wrapped(OWN_SESSION).arg("-t").cmd("ls /dev/pts; tty; stat -c %d /dev/pts; echo end");
        let mut session = Session::start(&run);
        session.expect("end");
        session.end();
        let text = session.text();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("0  ptmx"), "{text}");
        assert_eq!(lines.next(), Some("/dev/pts/0"), "{text}");
    }

    /// What the program sets on its terminal stays there.
    fn modes_of_the_terminal_do_not_spread(who: Who) {
        use nix::sys::termios::tcgetattr;
        let run = Run::new(who).wrapped(OWN_SESSION).cmd("stty -F /dev/stderr -echo raw; stty -F /dev/tty -echo; echo end");
        let mut session = Session::start(&run);
        let before = tcgetattr(&session.master).unwrap();
        session.expect("end");
        session.end();
        assert_eq!(before.local_flags, tcgetattr(&session.master).unwrap().local_flags);
    }
}
