//! The host's files, devices and kernel: not there.

use std::{fs, path::Path};

use crate::{
    both,
    common::{Run, Who},
};

both! {
    fn host_files_are_not_visible(who: Who) {
        let run = Run::new(who);
        let marker = run.place.text("marker");
        let done = run.cmd(&format!("cat {marker}; cat /etc/shadow /etc/machine-id /etc/hostname /etc/resolv.conf; ls /root /home /var /run /boot /mnt /srv /media; ls -A /tmp"));
        let done = done.done();
        assert_eq!(done.out(), "", "{done}");
        assert!(!done.err().contains("untouched"), "{done}");
    }

    fn the_root_holds_only_what_was_put_there(who: Who) {
        let done = Run::new(who).cmd("ls -A / /etc").done().expect_code(0);
        let known = ["bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "sandbox", "sbin", "tmp", "usr", "/:", "/etc:", "",
            "alternatives", "group", "hosts", "ld.so.cache", "nsswitch.conf", "passwd", "ssl", "ca-certificates", "pki", "ld.so.conf", "ld.so.conf.d", "localtime"];
        for name in done.out().lines() {
            assert!(known.contains(&name), "{name}: {done}");
        }
        let done = Run::new(who).cmd("cat /etc/passwd /etc/group").done();
        let names: Vec<_> = done.out().lines().map(|line| line.split(':').next().unwrap().to_owned()).collect();
        assert_eq!(names, ["root", "nobody", "sandbox", "root", "nogroup", "sandbox"], "{done}");
    }

    /// As root inside, with every trick of path.
    fn dots_lead_nowhere(who: Who) {
        let run = Run::new(who);
        let marker = run.place.text("marker");
        let line = format!("cat ../../../../..{marker} /proc/self/root{marker} /proc/self/cwd/../..{marker} /proc/1/root{marker} /proc/thread-self/root{marker}");
        for user in ["1000", "0"] {
            let done = Run::new(who).args(["--user", user]).cmd(&line).done();
            assert_eq!(done.out(), "", "{done}");
        }
        drop(run);
    }

    fn no_device_but_the_harmless(who: Who) {
        // find(1) would believe the directory's entries, which are of what lies below the mounts.
        let code = "import os, stat\nfor dir, dirs, files in os.walk('/'):\n  if dir == '/': dirs.remove('proc')\n  for f in sorted(files):\n\
            \x20   mode = os.lstat(f'{dir}/{f}').st_mode\n    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode): print(f'{dir}/{f}'.replace('//', '/'))";
        let done = Run::new(who).python(code).done();
        assert_eq!(done.out(), "/dev/full\n/dev/null\n/dev/random\n/dev/tty\n/dev/urandom\n/dev/zero\n/dev/pts/ptmx\n", "{done}");
        // A node made inside opens nothing.
        let code = "import os, stat\nfor kind, dev in ((stat.S_IFCHR, os.makedev(1, 1)), (stat.S_IFCHR, os.makedev(5, 1)), (stat.S_IFBLK, os.makedev(8, 0)), (stat.S_IFBLK, os.makedev(254, 0))):\n\
            \x20 for d in ('/sandbox', '/tmp', '/dev', '/dev/shm'):\n\
            \x20   try:\n      os.mknod(d + '/node', kind | 0o666, dev); os.open(d + '/node', os.O_RDWR); print('opened', d)\n    except OSError: pass\n";
        for user in ["1000", "0"] {
            Run::new(who).args(["--user", user, "--writable"]).python(code).done().expect_out("");
        }
    }

    fn no_sysfs_and_no_cgroup_tree(who: Who) {
        Run::new(who).cmd("ls -A /sys /sys/fs/cgroup 2>/dev/null; true").done().expect_out("");
        let code = "for line in open('/proc/self/mountinfo'):\n  if any(kind in line for kind in (' cgroup', ' sysfs', ' securityfs', ' debugfs', ' mqueue', ' bpf')): print(line)\n\
            for line in open('/proc/self/cgroup'): print('cgroup', line.split(':', 2)[2].strip()) if line.split(':', 2)[2].strip() not in ('/',) else None";
        let done = Run::new(who).python(code).done();
        assert!(!done.out().contains(" - "), "{done}");
        if who.has_cgroup() {
            assert_eq!(done.out(), "", "its place in the tree is not shown: {done}");
        } else {
            assert!(!done.out().contains("fumehood"), "{done}");
        }
    }

    /// Not even as root inside: it owns nothing of the tree it is in.
    fn cve_2022_0492_release_agent(who: Who) {
        let agent = fs::read_to_string("/sys/fs/cgroup/memory/release_agent").unwrap_or_default();
        let line = "mkdir /tmp/cg; mount -t cgroup -o memory cgroup /tmp/cg && echo mounted; mount -t cgroup2 none /tmp/cg && echo mounted; unshare -UrmC true && echo unshared; true";
        Run::new(who).args(["--user", "0"]).cmd(line).done().expect_out("");
        assert_eq!(fs::read_to_string("/sys/fs/cgroup/memory/release_agent").unwrap_or_default(), agent);
    }

    fn the_mounts_are_as_safe_as_they_look(who: Who) {
        let done = Run::new(who).cmd("cat /proc/self/mountinfo").done().expect_code(0);
        for line in done.out().lines() {
            let words: Vec<_> = line.split(' ').collect();
            let (target, options) = (words[4], words[5]);
            if line.contains(" - devtmpfs ") {
                // One device or, over a file of /proc, a mask: nothing that these options are about.
                assert!(["/null", "/zero", "/full", "/random", "/urandom", "/tty"].contains(&words[3]), "{line}");
                continue;
            }
            assert!(options.contains("nosuid"), "{line}");
            assert!(options.contains("nodev") || target == "/dev/pts", "{line}");
            let writable = ["/sandbox", "/tmp", "/dev/shm", "/dev/pts"];
            assert!(options.split(',').any(|option| option == "ro") || writable.contains(&target), "{line}");
            assert!(!line.contains("master:") && !line.contains("shared:"), "mounts spread out of it: {line}");
            assert!(!line.contains("fumehood-test"), "a path of the host's is named: {line}");
        }
    }

    fn a_mounted_directory_is_all_that_is_seen_of_its_place(who: Who) {
        let run = Run::new(who);
        run.place.write("data/in", "given");
        let mount = format!("{}:/data:rw", run.place.text("data"));
        let done = run.args(["--mount", &mount]).cmd("ls -A /data/..; cat /data/../marker; ln -s ../marker /data/link; cat /data/link; ln /data/in /data/../x").done();
        assert!(!done.out().contains("untouched"), "{done}");
        assert!(!Path::new("/x").exists());
    }

    /// What a program leaves in a mount must have no power outside: a setuid file would be the caller's, and whoever runs
    /// it would be the caller.
    fn a_writable_mount_takes_no_setuid_files(who: Who) {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let code = "import ctypes, os, shutil\nlibc = ctypes.CDLL(None)\n\
            def attempt(f):\n  try: f()\n  except OSError: pass\n\
            attempt(lambda: shutil.copy('/usr/bin/id', '/data/a'))\nattempt(lambda: os.chmod('/data/a', 0o6755))\n\
            attempt(lambda: os.open('/data/b', os.O_CREAT | os.O_WRONLY, 0o6755))\nattempt(lambda: os.mkdir('/data/c', 0o6755))\n\
            attempt(lambda: os.mknod('/data/d', 0o106755))\n\
            fd = os.open('/data/e', os.O_CREAT | os.O_WRONLY, 0o755)\nattempt(lambda: os.fchmod(fd, 0o4755))\n\
            libc.syscall(452, -100, b'/data/a', 0o4755, 0)\nlibc.syscall(268, -100, b'/data/a', 0o4755)\n\
            for kind in (0o020666, 0o060666): attempt(lambda: os.mknod('/data/node', kind, os.makedev(1, 1)))";
        for (user, mode) in [("1000", 0o755), ("0", 0o755), ("1000", 0o777), ("0", 0o777)] {
            let run = Run::new(who);
            let dir = run.place.mkdir("data");
            fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).unwrap();
            let mount = format!("{}:/data:rw", run.place.text("data"));
            let done = run.args(["--mount", &mount, "--user", user]).python(code).done();
            for entry in fs::read_dir(done.place().join("data")).unwrap().flatten() {
                let found = entry.metadata().unwrap();
                assert_eq!(found.mode() & 0o6000, 0, "{:?} of user {}: {:o}: {done}", entry.path(), found.uid(), found.mode());
                assert!(found.is_file() || found.is_dir(), "{:?}: {done}", entry.path());
            }
        }
    }
}
