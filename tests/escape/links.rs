//! Links and special files that a program plants where fumehood reads and writes (CVE-2024-28185, CVE-2024-28189,
//! CVE-2018-15664).

use std::{fs, os::unix::fs::FileTypeExt};

use crate::{
    both,
    common::{Run, Who},
};

both! {
    fn cve_2024_28185_a_link_in_place_of_what_is_fetched(who: Who) {
        for plant in [
            "ln -s /etc/passwd out", "ln -s MARKER out", "ln -s /proc/self/environ out", "ln -s ../../../../../..MARKER out", "ln -s out out",
            "ln -s /proc/1/root/etc/shadow out", "ln -s /sandbox/other out; echo x > other",
        ] {
            let run = Run::new(who);
            let plant = plant.replace("MARKER", &run.place.text("marker"));
            let done = run.args(["--get", "out"]).cmd(&plant).done();
            assert_ne!(done.code, 0, "{done}");
            assert!(!done.place().join("out").exists(), "{plant}: {done}");
        }
    }

    fn cve_2018_15664_a_linked_directory_above_what_is_fetched(who: Who) {
        let run = Run::new(who);
        let dir = run.place.path().display().to_string();
        let done = run.args(["--get", "d/marker:stolen"]).cmd(&format!("ln -s {dir} d")).done();
        assert!(done.code != 0 && !done.place().join("stolen").exists(), "{done}");
        let run = Run::new(who);
        let done = run.args(["--get", "**/passwd:stolen/"]).cmd("ln -s /etc d; ln -s / e").done();
        assert!(done.code != 0, "{done}");
        assert_eq!(std::fs::read_dir(done.place().join("stolen")).unwrap().count(), 0, "{done}");
    }

    /// Names swapped between a file and a link as fast as can be, up to the end.
    fn cve_2018_15664_a_race_on_what_is_fetched(who: Who) {
        let code = "import ctypes, os, subprocess, sys\nlibc = ctypes.CDLL(None)\nopen('out', 'w').write('mine')\nos.symlink('/etc/hosts', 'link')\n\
            if os.fork() == 0:\n  os.setsid()\n  while True: libc.renameat2(-100, b'out', -100, b'link', 2)\nimport time; time.sleep(0.1)";
        for _ in 0..5 {
            let done = Run::new(who).args(["--get", "out"]).python(code).done();
            if done.code == 0 {
                assert_eq!(done.place().read("out"), "mine", "{done}");
            }
        }
    }

    fn special_files_are_not_fetched(who: Who) {
        for plant in ["mkfifo out", "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('out')\"", "mkdir out", "mknod out c 1 3"] {
            let done = Run::new(who).args(["--get", "out"]).cmd(plant).done();
            assert_ne!(done.code, 0, "{plant}: {done}");
            assert!(!done.place().join("out").exists(), "{plant}: {done}");
        }
        for device in ["/dev/zero", "/dev/random", "/dev/pts/ptmx", "/proc/self/mem", "/proc/1/environ"] {
            let done = Run::new(who).args(["--get", &format!("{device}:out")]).cmd("true").done();
            assert_ne!(done.code, 0, "{device}: {done}");
            assert!(fs::symlink_metadata(done.place().join("out")).is_err(), "{device}: {done}");
        }
    }

    /// What lies at the target on the host is replaced, never followed and never opened.
    fn cve_2024_28185_links_and_pipes_at_the_target(who: Who) {
        let run = Run::new(who);
        let victim = run.place.write("victim", "victim");
        run.place.symlink(&victim, "out");
        let done = run.args(["--get", "out"]).cmd("echo new > out").done();
        assert_eq!(done.place().read("victim"), "victim", "{done}");
        let run = Run::new(who);
        let pipe = run.place.join("out");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        run.place.own(&pipe);
        let done = run.args(["--get", "out"]).cmd("echo new > out").done();
        let kind = fs::symlink_metadata(done.place().join("out")).unwrap().file_type();
        assert!(kind.is_fifo() || kind.is_file(), "{done}");
        let run = Run::new(who);
        run.place.mkdir("real");
        run.place.symlink("/nonexistent", "out");
        let done = run.args(["--get", "out"]).cmd("echo new > out").done();
        assert!(!std::path::Path::new("/nonexistent").exists(), "{done}");
    }

    /// Names that would leave the target directory or confuse a terminal.
    fn odd_names_of_fetched_files(who: Who) {
        let code = "import os\nfor name in (b'\\x1b[31mred.txt', b'new\\nline.txt', b'\\xff.txt', b'-rf.txt', b'a:b.txt', b'..txt', b'\\xe2\\x80\\xae.txt'):\n  open(name, 'wb').write(b'x')";
        let run = Run::new(who);
        run.place.mkdir("out");
        let done = run.args(["--get", "*.txt:out/", "--json"]).python(code).done();
        assert!([0, 125].contains(&done.code), "{done}");
        assert!(done.out().lines().count() == 1 && !done.out().contains('\x1b'), "{done}");
        assert!(fs::read_dir(done.place().path()).unwrap().flatten().all(|entry| !entry.file_name().to_string_lossy().contains("rf.txt")));
        let run = Run::new(who);
        let done = run.args(["--get", "\x1b[31m*"]).cmd("true").done();
        assert!(!done.err().contains('\x1b'), "{done}");
    }

    fn a_setuid_bit_does_not_come_out(who: Who) {
        use std::os::unix::fs::MetadataExt;
        let done = Run::new(who).args(["--get", "tool"]).cmd("cp /bin/true tool; chmod 6777 tool").done().expect_code(0);
        let mode = fs::metadata(done.place().join("tool")).unwrap().mode();
        assert_eq!(mode & 0o7002, 0, "{mode:o}");
    }

    fn a_sparse_giant_is_bounded_by_its_file_system(who: Who) {
        let done = Run::new(who).args(["--get", "giant", "--sandbox-size", "4m", "--json"]).cmd("truncate -s 64m giant; echo made").done();
        assert!([0, 125].contains(&done.code), "{done}");
        let size = fs::metadata(done.place().join("giant")).map_or(0, |found| found.len());
        assert!(size <= 64 << 20);
    }

    /// Links where `--file` puts things: in a root that is somebody else's.
    fn cve_2024_28185_links_where_files_are_put(who: Who) {
        for (link, to) in [("root/sandbox", "PLACE"), ("root/sandbox", "/"), ("root/tmp", "PLACE"), ("root/sandbox", "../../..")] {
            let run = Run::new(who);
            run.place.write_executable("root/p", crate::common::probe::binary());
            run.place.write("input", "planted");
            let target = to.replace("PLACE", run.place.path().to_str().unwrap());
            run.place.symlink(target, link);
            let (root, input) = (run.place.text("root"), run.place.text("input"));
            let done = run.args(["--rootfs", &root, "--file", &format!("{input}:marker")]).program_args(["/p", "int80"]).done();
            assert_ne!(done.code, 0, "{done}");
        }
    }
}
