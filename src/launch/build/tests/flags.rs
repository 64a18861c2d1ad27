//! Options of mounts, as the kernel has them afterwards.

use std::{fs, os::fd::AsFd};

use serde_json::json;

use super::{ALL, Bundle, apart, apart_in, assert_flags, build, errno, mounted, private, put, root};
use crate::sys::{fs as descriptors, mount};

/// Every option of the runtime spec, on what is new and on what is bound.
#[test]
fn every_option_is_taken() {
    if !root("every_option_is_taken") {
        return;
    }
    let mut setup = Vec::new();
    for word in crate::plan::container::options::names() {
        let own = if matches!(word, "tmpcopyup" | "remount") { "rro" } else { word };
        let bind = Bundle::new().mount("/bound", "bind", "$/data", &["rbind", own]);
        // Not of anything that is new: what changes or maps something else.
        let fresh = !["bind", "rbind", "remount", "idmap", "ridmap"].contains(&word);
        let bundle = if word == "remount" {
            bind.mount("/bound", "bind", "$/data", &["remount", "bind"])
        } else if word.ends_with("idmap") {
            continue;
        } else {
            bind
        };
        let bundle = if fresh { bundle.mount("/new", "tmpfs", "tmpfs", &[word]) } else { bundle };
        let bundle = bundle.proc();
        setup.push((word, fresh, bundle.plan(), bundle));
    }
    let failed: Vec<String> = setup
        .iter()
        .filter_map(|(word, fresh, setup, _)| {
            apart(|| match build(setup) {
                Err(why) => Some(format!("{word}: {why}")),
                Ok(()) if *fresh && mounted("/new").is_none() => Some(format!("{word}: nothing is mounted")),
                Ok(()) => None,
            })
        })
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(setup.len() > 50);
}

#[test]
fn flags_of_bind_mounts() {
    if !root("flags_of_bind_mounts") {
        return;
    }
    let bundle = Bundle::new()
        .proc()
        .mount("/source", "tmpfs", "tmpfs", &["ro", "nosuid", "noexec", "nodiratime", "nosymfollow"])
        .mount("/plain", "bind", "$/data", &["bind", "nosuid", "noexec", "nodev", "noatime"])
        .mount("/all", "bind", "$/data", &["bind", "ro", "nosuid", "nodev", "noexec", "nosymfollow", "strictatime"])
        .mount("/later", "bind", "$/data", &["bind", "ro", "noexec", "rw", "exec"])
        .mount("/plain", "", "", &["remount", "bind", "ro"])
        .mount("/shared", "bind", "$/data", &["bind", "shared"])
        .mount("/unbindable", "bind", "$/data", &["bind", "unbindable"]);
    bundle.write("data/file", "");
    std::os::unix::fs::symlink("file", bundle.path("data/link")).unwrap();
    bundle.inside(|| {
        assert_flags("/source", &["ro", "nosuid", "noexec", "nodiratime", "nosymfollow"], &["nodev"]);
        assert_flags("/all", &["ro", "nosuid", "nodev", "noexec", "nosymfollow"], &["relatime", "noatime"]);
        assert_flags("/later", &["rw"], &["noexec", "ro"]);
        assert_flags("/plain", &["ro", "noatime"], &["nosuid", "noexec", "nodev"]);
        assert_flags("/shared", &["shared:"], &[]);
        assert_flags("/unbindable", &["unbindable"], &[]);
        assert_eq!(errno(fs::read("/all/link")), libc::ELOOP);
        assert_eq!(errno(fs::write("/all/file", "")), libc::EROFS);
        fs::read("/later/link").unwrap();
    });
}

#[test]
fn mounts_of_the_host_are_shared_only_if_asked_for() {
    if !root("mounts_of_the_host_are_shared_only_if_asked_for") {
        return;
    }
    for (of_root, wanted, unwanted) in
        [(None, "", "shared:"), (Some("rslave"), "", "shared:"), (Some("shared"), "shared:", "master:")]
    {
        let mut bundle = Bundle::new()
            .proc()
            .mount("/as-it-is", "bind", "$/data", &["rbind"])
            .mount("/private", "bind", "$/data", &["rbind", "rprivate"])
            .mount("/slave", "bind", "$/data", &["rbind", "rslave"]);
        bundle.spec["linux"]["rootfsPropagation"] = of_root.map_or(json!(null), |word| json!(word));
        let (setup, place) = (bundle.plan(), bundle.path("data"));
        apart(move || {
            private();
            let tree = super::super::tmpfs(4096, 0o755, 0).unwrap();
            put(&tree, &place);
            mount::set_propagation(tree.as_fd(), libc::MS_SHARED, false).unwrap();
            build(&setup).unwrap();
            assert_flags("/as-it-is", &[wanted], &[unwanted]);
            assert_flags("/private", &[], &["shared:", "master:"]);
            if of_root == Some("shared") {
                assert_flags("/slave", &["master:"], &["shared:"]);
            }
        });
    }
}

/// `ro` is of one mount, `rro` of all: with the new mount API as with the old.
#[test]
fn recursive_flags_reach_nested_mounts() {
    if !root("recursive_flags_reach_nested_mounts") {
        return;
    }
    let nested = Bundle::new();
    fs::create_dir(nested.path("data/nested")).unwrap();
    let top = nested
        .proc()
        .mount("/ro", "bind", "$/data", &["rbind", "ro"])
        .mount("/rro", "bind", "$/data", &["rbind", "rro", "rnosuid", "rnodev", "rnoexec", "rnosymfollow", "rnoatime"])
        .mount("/back", "bind", "$/data", &["rbind", "rro", "rrw"])
        .mount("/alone", "bind", "$/data", &["bind", "ro"]);
    let setup = top.plan();
    let place = top.path("data/nested");
    apart(move || {
        private();
        put(&super::super::tmpfs(4096, 0o755, 0).unwrap(), &place);
        build(&setup).unwrap();
        assert_flags("/ro", &["ro"], &[]);
        assert_flags("/ro/nested", &["rw"], &["ro"]);
        for path in ["/rro", "/rro/nested"] {
            assert_flags(path, &["ro", "nosuid", "nodev", "noexec", "nosymfollow", "noatime"], &[]);
        }
        assert_flags("/back/nested", &["rw"], &[]);
        assert!(mounted("/alone/nested").is_none());
        assert_eq!(errno(fs::write("/rro/nested/x", "")), libc::EROFS);
    });
}

/// What fsconfig(2) does not take, mount(2) does: strings of 256 bytes and more, and `iversion`.
#[test]
fn options_that_only_mount_takes() {
    if !root("options_that_only_mount_takes") {
        return;
    }
    let name = "l".repeat(120);
    let lower = format!("lowerdir=$/data/{name}1:$/data/{name}2:$/data/{name}3");
    let bundle = Bundle::new();
    for number in 1..=3 {
        bundle.write(&format!("data/{name}{number}/{number}"), "");
    }
    let lower = lower.replace('$', bundle.path("").to_str().unwrap().trim_end_matches('/'));
    let bundle = bundle.proc().mount("/overlay", "overlay", "overlay", &[&lower, "nosuid", "private"]).mount(
        "/counting",
        "tmpfs",
        "tmpfs",
        &["iversion", "noexec", "size=64k"],
    );
    bundle.inside(|| {
        assert_eq!(fs::read_dir("/overlay").unwrap().count(), 3);
        assert_flags("/overlay", &["nosuid"], &["shared", "master"]);
        assert_flags("/counting", &["noexec"], &[]);
        assert!(mounted("/counting").unwrap().2.contains("size=64k"));
    });
}

#[test]
fn unknown_options_are_the_file_systems() {
    if !root("unknown_options_are_the_file_systems") {
        return;
    }
    let refused = Bundle::new().mount("/a", "tmpfs", "tmpfs", &["frobnicate=1"]).refused();
    assert!(refused.contains("frobnicate"), "{refused}");
    let bundle = Bundle::new().proc().mount("/a", "tmpfs", "tmpfs", &["size=4k,nr_inodes=3", "mode=700"]);
    let refused = Bundle::new().mount("/a", "nosuchfs", "x", &[]).refused();
    assert!(refused.contains("no such file system"), "{refused}");
    bundle.inside(|| {
        let (_, _, options) = mounted("/a").unwrap();
        assert!(options.contains("size=4k") && options.contains("nr_inodes=3") && options.contains("mode=700"));
    });
}

#[test]
fn a_remount_changes_the_file_system() {
    if !root("a_remount_changes_the_file_system") {
        return;
    }
    let bundle = Bundle::new().proc().mount("/a", "tmpfs", "tmpfs", &["size=4k", "noexec"]).mount(
        "/a",
        "tmpfs",
        "tmpfs",
        &["remount", "nosuid", "size=8k"],
    );
    bundle.inside(|| {
        assert!(mounted("/a").unwrap().2.contains("size=8k"));
        assert_flags("/a", &["nosuid"], &["noexec"]);
    });
    let refused = Bundle::new().mount("/a", "bind", "", &["remount", "bind", "ro"]).refused();
    assert!(refused.contains("/a"), "{refused}");
}

/// On most hosts every mount is shared. None of a container's own may show there, and none of the host's go away.
#[test]
fn nothing_spreads_to_a_host_that_shares() {
    if !root("nothing_spreads_to_a_host_that_shares") {
        return;
    }
    for (pivot, own_mount) in [(true, false), (true, true), (false, false), (false, true)] {
        for propagation in ["", "rslave", "private", "shared", "rshared"] {
            let mut bundle = Bundle::new().proc().dev().mount("/sys", "sysfs", "sysfs", &["ro"]).mount(
                "/data",
                "bind",
                "$/data",
                &["rbind"],
            );
            bundle.spec["linux"] = json!({"rootfsPropagation": propagation, "maskedPaths": ["/proc/version"]});
            let mut setup = Vec::new();
            crate::plan::container::plan(&bundle.oci(), &bundle.facts(), pivot, &mut setup).unwrap();
            apart(|| {
                private();
                if own_mount {
                    put(&super::super::tmpfs(1 << 20, 0o755, 0).unwrap(), &bundle.path("rootfs"));
                }
                let host = descriptors::open_in(descriptors::cwd(), c"/", libc::O_PATH, 0, 0).unwrap();
                mount::set_propagation(host.as_fd(), libc::MS_SHARED, true).unwrap();
                let before = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                apart_in(ALL, || {
                    build(&setup).unwrap();
                    assert!(mounted("/data").is_some());
                });
                let after = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
                assert_eq!(before, after, "pivot {pivot}, own mount {own_mount}, {propagation}");
            });
        }
    }
}
