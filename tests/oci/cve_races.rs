//! Roots that change while they are mounted: names exchanged thousands of times while containers are made of them.

use crate::both;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;

use crate::{
    bundle::{Container, Said},
    common::Who,
};

const CONTAINERS: usize = 40;
const EXCHANGES: u64 = 1000;

/// Runs `body` again and again while the names of each pair are exchanged as fast as it goes.
fn while_exchanging(pairs: &[(PathBuf, PathBuf)], mut body: impl FnMut()) {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (one, other) in pairs {
                    if renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        let rounds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (0..CONTAINERS).for_each(|_| body())));
        stop.store(true, Ordering::Relaxed);
        rounds.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(count.into_inner() >= EXCHANGES, "nothing was raced");
}

/// Where the mounts of a container that ran are.
fn mount_points(said: &Said) -> Vec<&str> {
    said.out.lines().filter_map(|line| line.split(' ').nth(4)).collect()
}

both! {
    fn cve_2021_30465_and_2024_45310_the_target_of_a_mount_is_exchanged_for_a_link(who: Who) {
        let Some(container) = Container::new("exchanged target", who) else { return };
        let out = container.outside();
        container.place.write("source/file", "x");
        let source = container.place.text("source");
        let bind = |to: &str| json!({ "destination": to, "source": source, "options": ["rbind"] });
        let container = container
            .mount(bind("/vol/a/b/c"))
            .mount(json!({ "destination": "/vol/a/t", "type": "tmpfs", "source": "tmpfs" }))
            .mount(bind("/vol/a/t/deep/er"))
            .args(&["cat", "/proc/self/mountinfo"]);
        container.place.mkdir("bundle/rootfs/vol/a");
        container.place.mkdir("bundle/rootfs/vol/inside");
        // One to the directory outside, and one to the host's root, from which everything is found.
        container.link("../../../outside", "vol/x");
        container.link("/", "vol/y");
        let vol = |name: &str| container.rootfs("vol").join(name);
        let mut ran = 0;
        while_exchanging(&[(vol("a"), vol("x")), (vol("a"), vol("y"))], || {
            let said = container.run();
            assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "{said:?}");
            if said.code == 0 {
                ran += 1;
                let points = mount_points(&said);
                let host = container.place.path().to_str().unwrap();
                assert!(points.iter().all(|point| !point.contains(host)), "{said:?}");
                assert!(points.iter().filter(|point| **point == "/").count() == 1, "{said:?}");
            }
        });
        container.assert_outside_unchanged();
        assert!(ran > 0, "none of them ran");
    }

    fn cve_2019_19921_proc_and_dev_are_exchanged_for_links(who: Who) {
        let Some(container) = Container::new("exchanged proc", who) else { return };
        let out = container.outside();
        let container = container.args(&["cat", "/proc/self/mountinfo"]);
        let pairs = ["proc", "dev", "sys"].map(|name| {
            let other = format!("{name}-link");
            container.link(if name == "dev" { Path::new("../../outside") } else { &out }, &other);
            (container.rootfs(name), container.rootfs(&other))
        });
        while_exchanging(&pairs, || {
            let said = container.run();
            assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "{said:?}");
            if said.code == 0 {
                // Names are exchanged while the list is read, too: what counts is that the real one is there once, and
                // that what must not be written in it is a mount of its own on it.
                let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
                let procs = said.out.lines().filter(|line| line.contains(" - proc ")).map(fields);
                let (whole, parts): (Vec<_>, Vec<_>) = procs.partition(|fields| fields[3] == "/");
                assert_eq!(whole.len(), 1, "{said:?}");
                let sealed = parts.iter().find(|fields| fields[3] == "/sys" && fields[1] == whole[0][0]);
                assert!(sealed.is_some_and(|fields| fields[5].starts_with("ro")), "{said:?}");
            }
        });
        container.assert_outside_unchanged();
    }

    fn cve_2024_45310_directories_to_be_made_are_exchanged_for_links(who: Who) {
        let Some(container) = Container::new("exchanged parents", who) else { return };
        let out = container.outside();
        let container = container.set("/process/cwd", json!("/deep/one/two/three")).args(&["pwd"]);
        container.place.mkdir("bundle/rootfs/deep/one");
        container.link("../../../outside", "deep/link");
        let pair = (container.rootfs("deep/one"), container.rootfs("deep/link"));
        while_exchanging(&[pair], || {
            let said = container.run();
            assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "{said:?}");
            // Made anew each time, or there is nothing to race.
            for name in ["one/two", "link/two"] {
                if fs::symlink_metadata(container.rootfs("deep").join(name)).is_ok() {
                    _ = fs::remove_dir_all(container.rootfs("deep").join(name));
                }
            }
        });
        container.assert_outside_unchanged();
    }

    fn cve_2025_31133_the_null_device_is_exchanged_for_a_link(who: Who) {
        let Some(container) = Container::new("exchanged null", who) else { return };
        container.outside();
        container.place.write("bundle/rootfs/etc/masked", "secret");
        container.place.write("bundle/rootfs/dev/null", "");
        container.place.write("bundle/rootfs/dev/other", "");
        container.link("/etc/passwd", "dev/link");
        let mut mounts = container.config["mounts"].as_array().unwrap().clone();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let container = container
            .set("/mounts", json!(mounts))
            .set("/linux/maskedPaths", json!(["/etc/masked", "/proc/kcore"]))
            .args(&["cat", "/etc/masked", "/proc/kcore"]);
        let pair = (container.rootfs("dev/null"), container.rootfs("dev/link"));
        while_exchanging(&[pair], || {
            let said = container.run();
            assert!(said.out.is_empty(), "{said:?}");
        });
        container.assert_outside_unchanged();
    }
}
