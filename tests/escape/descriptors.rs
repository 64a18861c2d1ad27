//! Open files that come from outside (CVE-2016-9962, CVE-2024-21626).

use crate::{
    both,
    common::{Run, Who},
};

/// `number:what` of each descriptor, but the one that the list is read by.
const LIST: &str = "import os\nfor n in range(0, 4096):\n  try: print(n, os.readlink(f'/proc/self/fd/{n}').split(':')[0])\n  except OSError: pass";

/// A shell that leaks a directory and a file of the host as 3 to 50, and then becomes fumehood.
fn leaking(dir: &str) -> [String; 4] {
    let script = format!(
        "for n in $(seq 3 2 50); do eval \"exec $n<{dir}\"; eval \"exec $((n+1))<>{dir}/marker\"; done; exec \"$@\""
    );
    ["bash".to_owned(), "-c".to_owned(), script, "bash".to_owned()]
}

both! {
    fn only_the_three_standard_ones_are_open(who: Who) {
        for file in ["", "out"] {
            let mut run = Run::new(who);
            if !file.is_empty() {
                run = run.args(["--get", "nothing*", "-i"]);
            }
            let done = run.python(LIST).done();
            let out = done.out();
            let lines: Vec<_> = out.lines().collect();
            assert_eq!(lines, ["0 pipe", "1 pipe", "2 pipe"], "{done}");
        }
    }

    fn cve_2024_21626_leaked_descriptors_are_closed(who: Who) {
        let run = Run::new(who);
        let wrapper = leaking(&run.place.text(""));
        let done = run.wrapped(wrapper).python(LIST).done().expect_code(0);
        assert_eq!(done.out(), "0 pipe\n1 pipe\n2 pipe\n", "{done}");
    }

    fn a_compiler_has_no_more_than_its_program(who: Who) {
        let code = "#include <stdio.h>\n#include <unistd.h>\n#include <fcntl.h>\nint main(void) { for (int n = 0; n < 4096; n++) if (fcntl(n, F_GETFD) != -1) printf(\"%d \", n); }";
        let run = Run::new(who);
        let wrapper = leaking(&run.place.text(""));
        run.wrapped(wrapper).eval("c", code).done().expect_code(0).expect_out("0 1 2 ");
    }

    /// The working directory by way of a descriptor that points outside.
    fn cve_2024_21626_workdir_in_proc_self_fd(who: Who) {
        for number in 0..25 {
            let run = Run::new(who);
            let wrapper = leaking(&run.place.text(""));
            let run = run.wrapped(wrapper).args(["--workdir", &format!("/proc/self/fd/{number}")]);
            let done = run.cmd("pwd -P; ls -l ../../../..; cat marker ../marker").done();
            assert_eq!(done.code, 125, "fd {number}: {done}");
            assert!(!done.out().contains("untouched"), "{done}");
        }
        for dir in ["/proc/1/cwd", "/proc/1/root", "/proc/self/root", "/proc/thread-self/fd/8", "/dev/fd/8"] {
            let run = Run::new(who);
            let wrapper = leaking(&run.place.text(""));
            let done = run.wrapped(wrapper).args(["--workdir", dir]).cmd("pwd -P; cat /marker marker; ls /").done();
            assert!(!done.out().contains("untouched") && !done.out().contains("fumehood-test"), "{dir}: {done}");
            assert!(done.code == 125 || done.out().starts_with('/'), "{dir}: {done}");
        }
    }

    /// The same by a link in a hostile root.
    fn cve_2024_21626_workdir_link_in_a_rootfs(who: Who) {
        for number in [3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 20] {
            let run = Run::new(who);
            run.place.write_executable("root/p", crate::common::probe::binary());
            run.place.symlink(format!("/proc/self/fd/{number}"), "root/link");
            let (wrapper, root) = (leaking(&run.place.text("")), run.place.text("root"));
            let run = run.wrapped(wrapper).args(["--rootfs", &root, "--workdir", "/link"]);
            // getcwd(2) of a directory outside the root would begin with "(unreachable)", and openat(".") would list it.
            let done = run.program_args(["/p", "calls", "open:2,@marker,0", "parent:2,@../marker,0"]).done();
            assert!(!done.out().contains("returned"), "{number}: {done}");
        }
    }

    /// A file of the caller's as a standard stream could be read, truncated or opened anew through /proc/self/fd.
    fn the_standard_streams_are_not_the_callers(who: Who) {
        let run = Run::new(who).arg("-i").python(LIST);
        let path = run.place.write("stream", "callers own words\n");
        let file = std::fs::File::options().append(true).read(true).open(&path).unwrap();
        let mut command = run.command();
        let status = command.stdin(file.try_clone().unwrap()).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        assert!(status.success());
        assert_eq!(run.place.read("stream"), "callers own words\n0 pipe\n1 pipe\n2 pipe\n");
    }

    fn closed_standard_streams_are_no_way_in(who: Who) {
        // Without 0-2 the next files opened get these numbers.
        let wrapper = ["bash", "-c", "exec \"$@\" 0<&- 1>&-", "bash"];
        let done = Run::new(who).wrapped(wrapper).cmd("ls -l /proc/self/fd >&2").done();
        assert!(!done.err().contains("/etc") && !done.err().contains("fumehood"), "{done}");
    }
}
