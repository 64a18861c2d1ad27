//! Files in, files out, mounts, and what is hidden of them.

use std::os::unix::fs::PermissionsExt;

use crate::{
    both,
    common::{Run, Who},
};

both! {
    fn files_go_in(who: Who) {
        let run = Run::new(who).file("a.txt", "alpha");
        let other = run.place.text("b.txt");
        run.place.write("b.txt", "beta");
        run.args(["--file", &format!("{other}:deep/down/c.txt")]).cmd("cat a.txt deep/down/c.txt; echo x >> a.txt; cat a.txt")
            .done().expect_code(0).expect_out("alphabetaalphax\n");
    }

    fn what_the_program_does_to_a_copy_stays_inside(who: Who) {
        let done = Run::new(who).file("a.txt", "alpha").cmd("echo changed > a.txt; rm a.txt").done().expect_code(0);
        assert_eq!(done.place().read("a.txt"), "alpha");
    }

    fn the_mode_of_a_file_is_kept(who: Who) {
        let run = Run::new(who);
        let tool = run.place.write_executable("tool", "#!/bin/sh\necho ran\n");
        run.arg("--file").arg(tool).cmd("./tool").done().expect_code(0).expect_out("ran\n");
    }

    fn a_directory_goes_in_without_its_links(who: Who) {
        let run = Run::new(who);
        run.place.write("d/one", "1");
        run.place.write("d/sub/two", "2");
        run.place.symlink("/etc/shadow", "d/link");
        let dir = run.place.text("d");
        run.args(["--dir", &dir]).cmd("cd d && find . -type f | sort && find . -type l").done().expect_out("./one\n./sub/two\n");
        let run = Run::new(who);
        run.place.write("d/one", "1");
        let dir = format!("{}:elsewhere", run.place.text("d"));
        run.args(["--dir", &dir]).cmd("cat elsewhere/one").done().expect_out("1");
    }

    fn files_come_out(who: Who) {
        let done = Run::new(who).args(["--get", "out.txt", "--get", "out.txt:renamed"]).cmd("echo result > out.txt").done().expect_code(0);
        assert_eq!(done.place().read("out.txt"), "result\n");
        assert_eq!(done.place().read("renamed"), "result\n");
    }

    fn files_come_out_by_pattern(who: Who) {
        let run = Run::new(who);
        run.place.mkdir("out");
        let done = run.args(["--json", "--get", "**/*.txt:out/"]).cmd("mkdir -p a/b; echo 1 > x.txt; echo 2 > a/b/y.txt; echo 3 > z.bin").done();
        assert_eq!(done.place().read("out/x.txt"), "1\n");
        assert_eq!(done.place().read("out/a/b/y.txt"), "2\n");
        assert!(!done.place().join("out/z.bin").exists());
        let json = done.json();
        let paths: Vec<_> = json["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap().to_owned()).collect();
        assert_eq!(paths, ["a/b/y.txt", "x.txt"], "{json}");
        assert_eq!(json["files"][1]["bytes"], 2);
        assert_eq!(json["files"][1]["sha256"], "4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865");
    }

    fn files_come_out_of_a_run_that_failed(who: Who) {
        let done = Run::new(who).args(["--get", "log"]).cmd("echo why > log; exit 9").done().expect_code(9);
        assert_eq!(done.place().read("log"), "why\n");
    }

    fn a_file_that_was_not_made_is_told(who: Who) {
        let done = Run::new(who).args(["--get", "nothing"]).cmd("true").done();
        assert_ne!(done.code, 0, "{done}");
        assert!(done.err().contains("nothing"), "{done}");
    }

    fn mounts_are_read_only_unless_asked(who: Who) {
        let run = Run::new(who);
        run.place.write("data/in", "given");
        let mount = format!("{}:/data", run.place.text("data"));
        run.args(["--mount", &mount]).cmd("cat /data/in; echo x > /data/in || echo refused; touch /data/new || echo refused")
            .done().expect_out("givenrefused\nrefused\n");
    }

    fn a_mount_can_be_written(who: Who) {
        let run = Run::new(who);
        run.place.write("data/in", "given");
        let mount = format!("{}:/data:rw", run.place.text("data"));
        let done = run.args(["--mount", &mount]).cmd("echo more >> /data/in && echo new > /data/new").done().expect_code(0);
        assert_eq!(done.place().read("data/in"), "givenmore\n");
        let new = std::fs::metadata(done.place().join("data/new")).unwrap();
        if who == Who::User {
            use std::os::unix::fs::MetadataExt;
            assert_eq!(new.uid(), who.uid());
        }
        assert_eq!(new.permissions().mode() & 0o7000, 0);
    }

    fn a_single_file_can_be_mounted(who: Who) {
        let run = Run::new(who);
        run.place.write("conf", "setting");
        let mount = format!("{}:/sandbox/etc/conf", run.place.text("conf"));
        run.args(["--mount", &mount]).cmd("cat etc/conf; rm -f etc/conf || echo kept").done().expect_out("settingkept\n");
    }

    fn what_is_excluded_is_not_seen(who: Who) {
        let run = Run::new(who);
        run.place.write("data/open", "open");
        run.place.write("data/secret/key", "hunter2");
        run.place.write("data/file", "hunter3");
        let mount = format!("{}:/data", run.place.text("data"));
        let (dir, file) = (run.place.text("data/secret"), run.place.text("data/file"));
        let done = run.args(["--mount", &mount, "--exclude", &dir, "--exclude", &file]);
        let done = done.cmd("cat /data/open; ls -A /data/secret; cat /data/secret/key /data/file").done();
        assert!(done.out() == "open" && !done.err().contains("hunter"), "{done}");
        let done = Run::new(who).args(["--exclude", "/usr/share"]).cmd("ls -A /usr/share").done();
        assert_eq!(done.out(), "", "{done}");
    }

    fn the_root_is_read_only_unless_asked(who: Who) {
        let line = "for d in / /etc /usr /usr/bin /opt /var; do [ -d $d ] && touch $d/x 2>/dev/null && echo wrote $d; done; true";
        Run::new(who).cmd(line).done().expect_code(0).expect_out("");
        let done = Run::new(who).arg("--writable").cmd("touch /x /etc/x && mkdir /var/new -p && echo wrote; touch /usr/bin/x && echo usr").done();
        assert!(done.out().starts_with("wrote\n"), "{done}");
        assert!(!std::path::Path::new("/usr/bin/x").exists() && !std::path::Path::new("/x").exists() && !std::path::Path::new("/etc/x").exists());
    }

    fn a_read_only_mount_stays_so_for_what_is_mounted_below(who: Who) {
        let run = Run::new(who);
        // /dev/shm is a mount below /dev on the host: mounts of a tree are read-only as a whole.
        let done = run.args(["--mount", "/dev/shm:/shm"]).cmd("touch /shm/fumehood-was-here || echo refused").done();
        assert_eq!(done.out(), "refused\n", "{done}");
        assert!(!std::path::Path::new("/dev/shm/fumehood-was-here").exists());
    }
}
