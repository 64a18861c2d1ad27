//! What is asked for is there: looked at from inside.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use nix::sched::CloneFlags;
use serde_json::json;

use super::{Bundle, apart, assert_flags, build, copy, errno, mounted, private, put, root};
use crate::plan::setup::SetupOp;

const EROFS: i32 = libc::EROFS;

#[test]
fn an_engines_usual_container() {
    if !root("an_engines_usual_container") {
        return;
    }
    let mut bundle = Bundle::new()
        .proc()
        .dev()
        .mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        .mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"])
        .mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])
        .mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"])
        .mount("/etc/hosts", "bind", "$/data/hosts", &["rbind", "rprivate"]);
    bundle.write("data/hosts", "127.0.0.1 localhost");
    bundle.spec["root"]["readonly"] = json!(true);
    bundle.spec["process"]["cwd"] = json!("/work/here");
    bundle.spec["linux"] = json!({
        "maskedPaths": ["/proc/version", "/proc/kcore", "/sys/firmware", "/proc/acpi", "/proc/no-such-file"],
        "readonlyPaths": ["/proc/sys", "/proc/irq", "/proc/nothing"],
        "devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/dev/disk/loop", "type": "b", "major": 7, "minor": 5},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
            {"path": "/dev/null", "type": "u", "major": 1, "minor": 3, "fileMode": 0o620},
        ],
    });
    bundle.inside(|| {
        for (path, device, mode, owner) in [
            ("/dev/null", (1, 3), 0o020_620, (0, 0)),
            ("/dev/zero", (1, 5), 0o020_666, (0, 0)),
            ("/dev/full", (1, 7), 0o020_666, (0, 0)),
            ("/dev/random", (1, 8), 0o020_666, (0, 0)),
            ("/dev/urandom", (1, 9), 0o020_666, (0, 0)),
            ("/dev/tty", (5, 0), 0o020_666, (0, 0)),
            ("/dev/fuse", (10, 229), 0o020_640, (3, 4)),
            ("/dev/disk/loop", (7, 5), 0o060_666, (0, 0)),
            ("/dev/pipe", (0, 0), 0o010_600, (0, 0)),
        ] {
            let found = fs::symlink_metadata(path).unwrap();
            let number = (libc::major(found.rdev()), libc::minor(found.rdev()));
            assert_eq!((number, found.mode(), (found.uid(), found.gid())), (device, mode, owner), "{path}");
        }
        for (link, to) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("core", "/proc/kcore"),
            ("ptmx", "pts/ptmx"),
        ] {
            assert_eq!(fs::read_link(Path::new("/dev").join(link)).unwrap(), Path::new(to));
        }
        assert_eq!(fs::read_to_string("/etc/hosts").unwrap(), "127.0.0.1 localhost");
        assert!(Path::new("/work/here").is_dir());
        assert_eq!(errno(fs::write("/x", "")), EROFS);
        assert_eq!(errno(fs::write("/proc/sys/kernel/hostname", "x")), EROFS);
        assert_eq!(errno(fs::create_dir("/sys/fs/cgroup/x")), EROFS);
        fs::write("/dev/shm/x", "x").unwrap();
        assert_eq!(fs::metadata("/dev/shm").unwrap().permissions().mode() & 0o7777, 0o1777);
        assert!(fs::metadata("/proc/version").unwrap().file_type().is_char_device());
        assert_eq!(fs::read_dir("/sys/firmware").unwrap().count(), 0);
        assert_flags("/", &["ro"], &[]);
        assert_flags("/proc", &["rw", "nosuid", "nodev", "noexec", "relatime"], &[]);
        assert_flags("/sys", &["ro", "nosuid", "nodev", "noexec"], &[]);
        assert_flags("/dev", &["rw", "nosuid"], &["nodev", "noexec", "relatime", "noatime"]);
        assert_flags("/dev/shm", &["rw", "nosuid", "nodev", "noexec"], &[]);
        assert_flags("/etc/hosts", &["rw"], &["shared", "master"]);
        assert!(mounted("/dev/shm").unwrap().2.contains("size=65536k"));
        assert_eq!(mounted("/dev/mqueue").unwrap().1, "mqueue");
        assert_eq!(mounted("/dev/pts").unwrap().1, "devpts");
        let cgroup = mounted("/sys/fs/cgroup").unwrap();
        assert!(cgroup.1 == "cgroup2" || (cgroup.1 == "tmpfs" && mounted("/sys/fs/cgroup/memory").is_some()));
        // Nothing of the host is left, above or below.
        let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert_eq!(text.lines().filter(|line| line.split(' ').nth(4) == Some("/")).count(), 1);
    });
}

#[test]
fn cgroup_v1_without_a_namespace_shows_the_own_group_only() {
    if !root("cgroup_v1_without_a_namespace_shows_the_own_group_only")
        || super::cgroup_tree() != crate::plan::container::CgroupTree::V1
    {
        return;
    }
    let bundle = Bundle::new().proc().mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid"]);
    let mut setup = Vec::new();
    let facts = crate::plan::container::Facts { cgroup_namespace: false, ..bundle.facts() };
    crate::plan::container::plan(&bundle.oci(), &facts, true, &mut setup).unwrap();
    super::apart_in(CloneFlags::CLONE_NEWNS, || {
        build(&setup).unwrap();
        let own = fs::read_to_string("/sys/fs/cgroup/memory/cgroup.procs").unwrap();
        assert!(own.lines().any(|pid| pid == std::process::id().to_string()), "{own}");
        assert!(mounted("/sys/fs/cgroup/systemd").unwrap().2.contains("name=systemd"));
    });
}

#[test]
fn a_tmpfs_may_start_with_what_was_there() {
    if !root("a_tmpfs_may_start_with_what_was_there") {
        return;
    }
    let bundle = Bundle::new()
        .proc()
        .mount("/etc", "tmpfs", "tmpfs", &["tmpcopyup", "ro", "size=1m"])
        .mount("/fresh", "tmpfs", "tmpfs", &["tmpcopyup"])
        .mount("/var/data", "tmpfs", "tmpfs", &[]);
    bundle.write("rootfs/etc/deep/file", "content");
    bundle.link("rootfs/etc/deep/link", "/etc/passwd");
    fs::create_dir_all(bundle.path("rootfs/var/data")).unwrap();
    for (path, mode) in [("rootfs/etc", 0o751), ("rootfs/etc/deep/file", 0o4640), ("rootfs/var/data", 0o2710)] {
        fs::set_permissions(bundle.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::chown(bundle.path("rootfs/etc/deep/file"), Some(7), Some(8)).unwrap();
    fs::set_permissions(bundle.path("rootfs/etc/deep/file"), fs::Permissions::from_mode(0o4640)).unwrap();
    bundle.inside(|| {
        assert_eq!(mounted("/etc").unwrap().1, "tmpfs");
        assert_flags("/etc", &["ro"], &[]);
        let file = fs::metadata("/etc/deep/file").unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4640, 7, 8));
        assert_eq!(fs::read_to_string("/etc/deep/file").unwrap(), "content");
        assert_eq!(fs::read_link("/etc/deep/link").unwrap(), Path::new("/etc/passwd"));
        assert_eq!(fs::metadata("/etc").unwrap().mode() & 0o7777, 0o751);
        assert_eq!(fs::metadata("/var/data").unwrap().mode() & 0o7777, 0o2710);
        assert_eq!(fs::metadata("/fresh").unwrap().mode() & 0o7777, 0o1777);
    });
    assert_eq!(fs::read_to_string(bundle.path("rootfs/etc/deep/file")).unwrap(), "content");
}

#[test]
fn the_root_may_be_shared_and_moved() {
    if !root("the_root_may_be_shared_and_moved") {
        return;
    }
    let before = super::host_mounts();
    let mut bundle = Bundle::new().proc();
    for (given, wanted) in [("shared", "shared:"), ("rshared", "shared:"), ("unbindable", "unbindable")] {
        bundle.spec["linux"]["rootfsPropagation"] = json!(given);
        bundle.inside(|| assert_flags("/", &[wanted], &[]));
    }
    bundle.spec["linux"]["rootfsPropagation"] = json!("private");
    bundle.inside(|| assert_flags("/", &[], &["shared", "master"]));
    bundle.spec["linux"]["rootfsPropagation"] = json!("sideways");
    assert!(crate::plan::container::plan(&bundle.oci(), &bundle.facts(), true, &mut Vec::new()).is_err());

    let bundle = Bundle::new().proc();
    bundle.write("rootfs/mark", "");
    let mut setup = Vec::new();
    crate::plan::container::plan(&bundle.oci(), &bundle.facts(), false, &mut setup).unwrap();
    assert!(setup.iter().any(|operation| matches!(operation, SetupOp::EnterContainer { pivot: false })));
    apart(|| {
        build(&setup).unwrap();
        assert!(Path::new("/mark").exists() && Path::new("/../mark").exists() && !Path::new("/usr").exists());
        assert!(mounted("/proc").is_some());
    });
    assert_eq!(before, super::host_mounts());
}

#[test]
fn settings_of_own_namespaces_are_written() {
    if !root("settings_of_own_namespaces_are_written") {
        return;
    }
    let before = fs::read_to_string("/proc/sys/kernel/domainname").unwrap();
    let mut bundle = Bundle::new().proc();
    bundle.spec["linux"]["sysctl"] = json!({
        "net.core.somaxconn": "77", "kernel.domainname": "inside.example", "kernel.sem": "250 32000 100 129",
        "net/ipv4/conf/lo/forwarding": "1",
    });
    let fake = bundle.path("data/fake");
    bundle.write("data/fake", "");
    let setup = bundle.plan();
    apart(|| {
        // CVE-2025-52881: a setting that is another file, as seen through the host's own /proc.
        private();
        put(&copy(&fake), Path::new("/proc/sys/net/core/somaxconn"));
        build(&setup).unwrap();
        let read = |key: &str| fs::read_to_string(format!("/proc/sys/{key}")).unwrap();
        assert_eq!(read("net/core/somaxconn"), "77\n");
        assert_eq!(read("kernel/domainname"), "inside.example\n");
        assert_eq!(read("kernel/sem"), "250\t32000\t100\t129\n");
        assert_eq!(read("net/ipv4/conf/lo/forwarding"), "1\n");
    });
    assert_eq!(fs::read_to_string(fake).unwrap(), "");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/domainname").unwrap(), before);
    bundle.spec["linux"]["sysctl"] = json!({"net.core.nothing": "1"});
    assert!(bundle.refused().contains("net/core/nothing"));
}

#[test]
fn a_device_that_is_something_else_is_refused() {
    if !root("a_device_that_is_something_else_is_refused") {
        return;
    }
    let bundle = Bundle::new();
    bundle.write("rootfs/dev/zero", "");
    assert!(bundle.refused().contains("something else is there"));
    let bundle = Bundle::new().mount("/dev", "bind", "$/data", &["rbind"]);
    bundle.inside(|| assert_eq!(fs::read_dir("/dev").unwrap().count(), 0));
}

#[test]
fn the_console_is_the_terminal_that_was_given() {
    if !root("the_console_is_the_terminal_that_was_given") {
        return;
    }
    let bundle = Bundle::new().proc().dev();
    let mut setup = bundle.plan();
    let enter = setup.iter().position(|operation| matches!(operation, SetupOp::EnterContainer { .. })).unwrap();
    setup.insert(enter, SetupOp::Console);
    apart(|| {
        let mut builder = super::Builder::for_container(super::Hand::default());
        let mut held = None;
        for operation in &setup {
            if matches!(operation, SetupOp::Console) {
                let (master, terminal) = builder.open_terminal().unwrap();
                builder.set_console(terminal);
                held = Some(master);
            }
            builder.carry_out(operation).map_err(|errno| format!("{operation}: {errno}")).unwrap();
        }
        let console = fs::symlink_metadata("/dev/console").unwrap();
        assert!(console.file_type().is_char_device());
        assert_eq!((libc::major(console.rdev()), libc::minor(console.rdev())), (136, 0));
        assert!(held.is_some());
    });
    // What is no terminal is none.
    apart(|| {
        let mut builder = super::Builder::for_container(super::Hand::default());
        let mut result = Ok(());
        for operation in &setup {
            if matches!(operation, SetupOp::Console) {
                builder.set_console(fs::File::open("/dev/null").unwrap().into());
            }
            result = builder.carry_out(operation);
            if result.is_err() {
                break;
            }
        }
        assert_eq!(result, Err(crate::sys::Errno::ENOTTY));
    });
}

#[test]
fn a_missing_source_is_told() {
    if !root("a_missing_source_is_told") {
        return;
    }
    let refused = Bundle::new().mount("/a", "bind", "$/data/none", &["rbind"]).refused();
    assert!(refused.contains("the source") && refused.contains("/data/none"), "{refused}");
    let bundle = Bundle::new().mount("/a", "bind", "$/data", &["rbind"]);
    bundle.write("rootfs/a", "a file");
    let refused = bundle.refused();
    assert!(refused.contains("Not a directory"), "{refused}");
    assert_eq!(fs::metadata(bundle.path("rootfs/b")).unwrap_err().kind(), ErrorKind::NotFound);
}
