//! Root file systems made by the enemy: links, devices and swaps where fumehood mounts and writes.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    both,
    common::{Run, Who, probe},
};

/// A run of a static program in `root` of its place, which has nothing else yet.
fn hostile(who: Who) -> Run {
    let run = Run::new(who);
    run.place.write_executable("root/p", probe::binary());
    let outside = run.place.mkdir("outside");
    fs::write(outside.join("file"), "kept").unwrap();
    run
}

fn go(run: Run, args: &[&str]) -> crate::common::Done {
    let root = run.place.text("root");
    let done = run.args(["--rootfs", &root]).args(args).program_args(["/p", "calls", "getpid:39"]).done();
    let names: Vec<_> =
        fs::read_dir(done.place().join("outside")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"], "made or removed outside: {done}");
    assert_eq!(fs::read_to_string(done.place().join("outside/file")).unwrap(), "kept");
    done
}

both! {
    /// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867, CVE-2026-41579, CVE-2026-47766.
    fn cve_2023_27561_mount_points_that_are_links(who: Who) {
        for point in ["proc", "dev", "sandbox", "tmp"] {
            for to in ["OUTSIDE", "../outside", "/", "/proc", "other", "/other/deeper", "PLACE/chain", ".", ".."] {
                let run = hostile(who);
                run.place.mkdir("root/other/deeper");
                run.place.symlink(run.place.join("outside"), "chain");
                let to = to.replace("OUTSIDE", &run.place.text("outside")).replace("PLACE", run.place.path().to_str().unwrap());
                run.place.symlink(&to, Path::new("root").join(point));
                let done = go(run, &[]);
                assert_ne!(done.code, 0, "/{point} is a link to {to}: {done}");
                let done = done.expect_code(125);
                assert!(done.err().contains(point), "{done}");
            }
        }
        // No sysfs is mounted, so a link there is nobody's business.
        let run = hostile(who);
        run.place.symlink(run.place.join("outside"), "root/sys");
        go(run, &[]).expect_code(0);
    }

    fn cve_2026_41579_the_same_with_a_writable_root(who: Who) {
        for point in ["proc", "dev", "sandbox", "tmp"] {
            let run = hostile(who);
            run.place.symlink(run.place.join("outside"), Path::new("root").join(point));
            let done = go(run, &["--writable"]);
            assert_ne!(done.code, 0, "{done}");
        }
    }

    /// A mask or a device must be the host's /dev/null, and never what the root calls so.
    fn cve_2025_31133_dev_null_of_the_root(who: Who) {
        for plant in ["link", "file", "dir"] {
            let run = hostile(who);
            run.place.mkdir("root/dev");
            match plant {
                "link" => _ = run.place.symlink("/proc/sys/kernel/core_pattern", "root/dev/null"),
                "file" => _ = run.place.write("root/dev/null", "not the device"),
                _ => _ = run.place.mkdir("root/dev/null"),
            }
            let root = run.place.text("root");
            // The first byte of /dev/null and of a masked file is none.
            let done = run.args(["--rootfs", &root]).program_args(["/p", "calls", "null:2,@/dev/null,1", "kcore:2,@/proc/kcore,0", "pattern:2,@/proc/sys/kernel/core_pattern,1"]).done();
            if done.code == 0 {
                assert!(done.out().contains("null returned") && !done.out().contains("pattern returned"), "{done}");
            } else {
                assert_eq!(done.code, 125, "{done}");
            }
        }
    }

    fn cve_2025_52565_console_and_pts_of_the_root(who: Who) {
        for plant in ["root/dev/console", "root/dev/pts", "root/dev/ptmx", "root/dev/shm", "root/dev/tty"] {
            let run = hostile(who);
            run.place.mkdir("root/dev");
            run.place.symlink(run.place.join("outside"), plant);
            let done = go(run, &[]);
            assert!([0, 125].contains(&done.code), "{done}");
        }
    }

    fn cve_2019_18837_mounts_below_linked_directories(who: Who) {
        let run = hostile(who);
        run.place.symlink(run.place.join("outside"), "root/data");
        run.place.mkdir("given");
        let mount = format!("{}:/data/deep", run.place.text("given"));
        let done = go(run, &["--mount", &mount]);
        assert_eq!(done.code, 125, "{done}");
        let run = hostile(who);
        run.place.symlink(run.place.join("outside"), "root/data");
        run.place.mkdir("given");
        let mount = format!("{}:/data", run.place.text("given"));
        assert_eq!(go(run, &["--mount", &mount]).code, 125);
    }

    /// CVE-2025-24965: what is written for the program goes into memory, and not through a link of the root's.
    fn cve_2025_24965_files_written_into_the_root(who: Who) {
        let run = hostile(who);
        run.place.mkdir("root/etc");
        for name in ["passwd", "group", "hosts", "nsswitch.conf", "resolv.conf", "hostname"] {
            run.place.symlink(run.place.join("outside/file"), Path::new("root/etc").join(name));
        }
        go(run, &[]).expect_code(0);
        let run = hostile(who);
        run.place.symlink(run.place.join("outside"), "root/etc");
        go(run, &["--hostname", "box"]).expect_code(0);
    }

    /// CVE-2021-30465, CVE-2024-45310: directory and link exchanged again and again while it is mounted on.
    fn cve_2021_30465_a_race_on_mount_points(who: Who) {
        let run = hostile(who);
        for point in ["proc", "dev", "sandbox", "tmp"] {
            run.place.mkdir(Path::new("root").join(point));
            run.place.symlink(run.place.join("outside"), Path::new("root").join(format!("{point}-link")));
        }
        let root = run.place.join("root");
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use nix::fcntl::{RenameFlags, renameat2, AT_FDCWD};
                while !over.load(Ordering::Relaxed) {
                    for point in ["proc", "dev", "sandbox", "tmp"] {
                        let (a, b) = (root.join(point), root.join(format!("{point}-link")));
                        _ = renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE);
                    }
                }
            });
            let mut codes = std::collections::BTreeMap::new();
            for round in 0..60 {
                let mut again = Run::new(who);
                again.place.mkdir("outside");
                let text = root.to_str().unwrap().to_owned();
                again = again.args(["--rootfs", &text]).file("in", "x");
                let done = again.program_args(["/p", "calls", "getpid:39", "marker:2,@/tmp/file,0", "file:2,@/sandbox/file,0"]).done();
                assert!([0, 125].contains(&done.code), "{round}: {done}");
                assert!(!done.out().contains("file returned") && !done.out().contains("marker returned"), "{done}");
                *codes.entry(done.code).or_insert(0) += 1;
            }
            over.store(true, Ordering::Relaxed);
        });
        let names: Vec<_> = fs::read_dir(run.place.join("outside")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
    }

    fn a_setuid_program_of_the_root(who: Who) {
        use std::os::unix::fs::PermissionsExt;
        let run = hostile(who);
        fs::set_permissions(run.place.join("root/p"), fs::Permissions::from_mode(0o6755)).unwrap();
        let root = run.place.text("root");
        let done = run.args(["--rootfs", &root]).program_args(["/p", "calls", "getuid:102", "geteuid:107", "getegid:108"]).done();
        done.expect_code(0).expect_out("getuid returned 1000\ngeteuid returned 1000\ngetegid returned 1000\n");
    }

    fn a_device_node_of_the_root(who: Who) {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        if who == Who::Root {
            let run = hostile(who);
            // The kernel's log: harmless if the test fails.
            mknod(&run.place.join("root/kmsg"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 11)).unwrap();
            let root = run.place.text("root");
            let done = run.args(["--rootfs", &root]).program_args(["/p", "calls", "kmsg:2,@/kmsg,0"]).done();
            done.expect_code(0).expect_out(&format!("kmsg errno {}\n", libc::EACCES));
        }
    }

    /// A root that is the host's own: legal, and still a sandbox.
    fn the_hosts_root_as_rootfs(who: Who) {
        let run = Run::new(who);
        let done = run.args(["--rootfs", "/"]).cmd("id -u; touch /etc/fumehood-was-here; cat /etc/shadow; true").done();
        assert!(!Path::new("/etc/fumehood-was-here").exists());
        assert!(!done.out().contains("root:"), "{done}");
    }

    /// The bundle's configuration is trusted with what to run, not with taking the walls down.
    fn a_bundle_that_asks_for_everything(who: Who) {
        let run = hostile(who);
        run.place.write("config.json", r#"{"ociVersion":"1.0.2","root":{"path":"root","readonly":false},
            "process":{"args":["/p","calls","unshare:272,0x10000000","getpid:39"],"cwd":"/","user":{"uid":0,"gid":0},"noNewPrivileges":false,
                "capabilities":{"bounding":["CAP_SYS_ADMIN"],"effective":["CAP_SYS_ADMIN"],"permitted":["CAP_SYS_ADMIN"],"inheritable":["CAP_SYS_ADMIN"],"ambient":["CAP_SYS_ADMIN"]}},
            "linux":{"namespaces":[{"type":"mount"}],"maskedPaths":[],"readonlyPaths":[],"sysctl":{"kernel.domainname":"x"}}}"#);
        let dir = run.place.text("");
        let done = run.args(["--bundle", &dir]).done();
        assert!(!done.out().contains("unshare returned"), "{done}");
        assert!(done.code == 125 || done.out().contains("unshare errno 1\n"), "{done}");
    }
}
