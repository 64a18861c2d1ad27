//! Somebody who changes the root while it is built: CVE-2021-30465, CVE-2024-45310, CVE-2019-19921.

use std::{
    ffi::CString,
    fs,
    os::{
        fd::{AsFd, AsRawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{Bundle, apart, build, host_mounts, root, within_made};
use crate::{plan::setup::Kind, sys::fs as descriptors};

const ROUNDS: usize = 1500;

/// Exchanges two names without a moment in which one is missing, until told to stop.
fn exchange(one: &Path, other: &Path, stop: &AtomicBool) -> usize {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    let (one, other) = (text(one), text(other));
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        let at = nix::fcntl::AT_FDCWD;
        let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
        nix::fcntl::renameat2(at, one.as_c_str(), at, other.as_c_str(), flags).unwrap();
        times += 1;
    }
    times
}

fn against_exchange(bundle: &Bundle, rounds: impl FnOnce() + Send) {
    let stop = AtomicBool::new(false);
    let (one, other) = (bundle.path("rootfs/vol/a"), bundle.path("rootfs/vol/b"));
    fs::create_dir_all(&one).unwrap();
    let names: Vec<String> = (0..50).flat_map(|number| ["t", "f", "d"].map(|kind| format!("{kind}{number}"))).collect();
    bundle.bait(&names.iter().map(String::as_str).collect::<Vec<_>>());
    bundle.link("rootfs/vol/b", bundle.path("outside"));
    let times = std::thread::scope(|scope| {
        let attacker = scope.spawn(|| exchange(&one, &other, &stop));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rounds));
        stop.store(true, Ordering::Relaxed);
        let times = attacker.join().unwrap();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        times
    });
    assert!(times > ROUNDS, "only {times} exchanges: no race");
}

#[test]
fn places_are_made_inside_whatever_is_exchanged() {
    let bundle = Bundle::new();
    let root = fs::File::open(bundle.path("rootfs")).unwrap();
    let (outside, mut made, mut failed) = (bundle.path("outside"), 0, 0);
    against_exchange(&bundle, || {
        for round in 0..ROUNDS {
            // What is there outside, what is there nowhere, and what has been made before.
            for (kind, name) in [(Kind::Dir, "x/bait"), (Kind::Dir, "x/y"), (Kind::File, "z")] {
                let path = CString::new(format!("vol/a/d{}/{name}", round % 1000)).unwrap();
                match within_made(root.as_fd(), &path, kind) {
                    Ok(found) => {
                        let link = format!("/proc/self/fd/{}", found.place.as_raw_fd());
                        let place = fs::read_link(link).unwrap();
                        assert!(!place.starts_with(&outside), "found {place:?}");
                        made += 1;
                    }
                    Err(_) => failed += 1,
                }
            }
        }
    });
    bundle.assert_outside_untouched();
    assert!(made > ROUNDS, "{made} made, {failed} failed");
}

#[test]
fn mounts_are_made_inside_whatever_is_exchanged() {
    if !root("mounts_are_made_inside_whatever_is_exchanged") {
        return;
    }
    let mut bundle = Bundle::new();
    for number in 0..50 {
        bundle = bundle.mount(&format!("/vol/a/t{number}/x"), "tmpfs", "tmpfs", &["size=4k"]).mount(
            &format!("/vol/a/f{number}"),
            "bind",
            "$/data/file",
            &["bind"],
        );
    }
    bundle.write("data/file", "");
    let before = host_mounts();
    let mut setup = bundle.plan();
    // The links of /dev are not what this is about.
    setup.retain(|operation| {
        use crate::plan::setup::SetupOp;
        matches!(operation, SetupOp::ContainerRoot { .. } | SetupOp::Mount(_))
    });
    let outside = bundle.path("outside");
    against_exchange(&bundle, || {
        for _ in 0..ROUNDS / 50 {
            apart(|| {
                // Either it is built, or somebody was in the way.
                _ = build(&setup);
                let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                let outside = outside.to_str().unwrap();
                assert!(
                    !mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|path| path.starts_with(outside))),
                    "mounted outside of the root"
                );
            });
        }
    });
    bundle.assert_outside_untouched();
    assert_eq!(before, host_mounts(), "the host's mounts are not as they were");
}

/// /proc itself is exchanged for a link: mounted on what it is, or refused.
#[test]
fn proc_is_mounted_on_proc_or_not_at_all() {
    if !root("proc_is_mounted_on_proc_or_not_at_all") {
        return;
    }
    let bundle = Bundle::new().mount("/vol/a", "proc", "proc", &[]);
    let mut setup = bundle.plan();
    setup.truncate(2);
    let outside = bundle.path("outside");
    against_exchange(&bundle, || {
        for _ in 0..ROUNDS {
            apart(|| {
                _ = build(&setup);
                let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                assert!(!mounts.contains(outside.to_str().unwrap()), "mounted outside of the root");
            });
        }
    });
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let path = CString::new(outside.as_os_str().as_bytes()).unwrap();
    let outside = descriptors::open_in(descriptors::cwd(), &path, flags, 0, descriptors::NO_LINKS).unwrap();
    assert!(!descriptors::is_proc(outside.as_fd()));
    bundle.assert_outside_untouched();
}
