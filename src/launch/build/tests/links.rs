//! A root full of links: nothing is made, found or mounted outside.

use std::{fs, path::Path};

use serde_json::json;

use super::{Bundle, mounted, root};

/// CVE-2023-27561, CVE-2023-28642, CVE-2019-19921, CVE-2025-54867, CVE-2026-41579.
#[test]
fn system_directories_must_be_no_links() {
    if !root("system_directories_must_be_no_links") {
        return;
    }
    for name in ["proc", "sys", "dev"] {
        for to in ["/tmp", "../outside", "../../../../../outside", "chain", "$"] {
            let bundle = match name {
                "proc" => Bundle::new().proc(),
                "sys" => Bundle::new().mount("/sys", "sysfs", "sysfs", &["ro"]),
                _ => Bundle::new().dev(),
            };
            fs::create_dir(bundle.path("rootfs/tmp")).unwrap();
            bundle.link("rootfs/chain", bundle.path("outside"));
            let to = if to == "$" { bundle.path("outside") } else { to.into() };
            bundle.link(&format!("rootfs/{name}"), to);
            let refused = bundle.refused();
            assert!(refused.contains("not on a link"), "{name}: {refused}");
            bundle.assert_outside_untouched();
        }
    }
}

/// CVE-2026-41579: devices without a mount on /dev.
#[test]
fn devices_are_made_in_no_linked_dev() {
    if !root("devices_are_made_in_no_linked_dev") {
        return;
    }
    let bundle = Bundle::new();
    bundle.link("rootfs/dev", bundle.path("outside"));
    assert!(bundle.refused().contains("/dev/"));
    bundle.assert_outside_untouched();
    assert_eq!(fs::read_dir(bundle.path("rootfs")).unwrap().count(), 1);

    let mut bundle = Bundle::new();
    bundle.link("rootfs/else", bundle.path("outside"));
    bundle.spec["linux"]["devices"] = json!([{"path": "/else/null", "type": "c", "major": 1, "minor": 3}]);
    bundle.inside(|| ());
    bundle.assert_outside_untouched();
}

#[test]
fn links_are_followed_within_the_root() {
    if !root("links_are_followed_within_the_root") {
        return;
    }
    let bundle = Bundle::new()
        .proc()
        .mount("/var/run/docker.sock", "bind", "$/data/sock", &["rbind"])
        .mount("/up/../sideways/a", "tmpfs", "tmpfs", &[])
        .mount("/escape/b", "tmpfs", "tmpfs", &[])
        .mount("/loop/d", "tmpfs", "tmpfs", &[])
        .mount("relative/c", "tmpfs", "tmpfs", &[]);
    bundle.write("data/sock", "sock");
    bundle.bait(&["a", "b"]);
    // Where it leads is not there yet.
    bundle.link("rootfs/var/run", "/run/./");
    bundle.link("rootfs/escape", "../../../../../outside");
    bundle.link("rootfs/sideways", bundle.path("outside"));
    bundle.link("rootfs/loop", "one/../two");
    bundle.link("rootfs/two", "/three/../three");
    let inside = bundle.path("outside");
    bundle.inside(move || {
        assert_eq!(fs::read_to_string("/run/docker.sock").unwrap(), "sock");
        assert_eq!(mounted("/outside/b").unwrap().1, "tmpfs");
        assert_eq!(mounted(&format!("{}/a", inside.display())).unwrap().1, "tmpfs");
        assert_eq!(mounted("/three/d").unwrap().1, "tmpfs");
        assert!(mounted("/relative/c").is_some());
        assert!(Path::new("/one").is_dir());
    });
    bundle.assert_outside_untouched();
}

#[test]
fn links_in_circles_end() {
    if !root("links_in_circles_end") {
        return;
    }
    let bundle = Bundle::new().mount("/a/x", "tmpfs", "tmpfs", &[]);
    bundle.link("rootfs/a", "b");
    bundle.link("rootfs/b", "a");
    assert!(bundle.refused().contains("symbolic links"));
}

/// CVE-2019-16884: what is not the kernel's cannot be where the kernel's is.
#[test]
fn nothing_covers_proc() {
    if !root("nothing_covers_proc") {
        return;
    }
    let plan = |bundle: &Bundle| {
        let mut setup = Vec::new();
        crate::plan::container::plan(&bundle.oci(), &bundle.facts(), true, &mut setup)
            .map_err(|error| error.to_string())
    };
    for (destination, kind, options) in [
        ("/proc", "tmpfs", &[][..]),
        ("//proc/.", "tmpfs", &[]),
        ("/a/../proc", "sysfs", &[]),
        ("/proc/self", "tmpfs", &[]),
        ("/proc/sys", "bind", &["bind"]),
        ("/proc/cpuinfo/x", "bind", &["bind"]),
        ("/", "bind", &["bind"]),
    ] {
        let bundle = Bundle::new().mount(destination, kind, "$/data", options);
        assert!(plan(&bundle).is_err(), "{destination} {kind}");
    }
    // A directory on /proc, with nothing else there; a link to the inside of /proc.
    let bundle = Bundle::new().mount("/proc", "bind", "$/data", &["rbind"]);
    assert!(bundle.refused().contains("not of type proc"));
    for to in ["/proc", "/proc/sys", "proc/self", "/proc/self/attr"] {
        let bundle = Bundle::new().proc().mount("/innocent", "tmpfs", "tmpfs", &[]);
        bundle.link("rootfs/innocent", to);
        let refused = bundle.refused();
        assert!(refused.contains("inside /proc") || refused.contains("symbolic links"), "{to}: {refused}");
    }
    let bundle = Bundle::new().mount("/proc", "bind", "/proc", &["rbind"]);
    bundle.inside(|| assert_eq!(mounted("/proc").unwrap().1, "proc"));
    let bundle = Bundle::new().proc().mount("/proc/uptime", "bind", "$/data/uptime", &["bind"]);
    bundle.write("data/uptime", "0.00 0.00\n");
    bundle.inside(|| assert_eq!(fs::read_to_string("/proc/uptime").unwrap(), "0.00 0.00\n"));
}

/// CVE-2025-31133: what covers a masked file is the host's own /dev/null, whatever the root's is.
#[test]
fn masks_do_not_come_from_the_root() {
    if !root("masks_do_not_come_from_the_root") {
        return;
    }
    let mut bundle = Bundle::new().proc().mount("/dev", "bind", "$/data/dev", &["bind"]);
    bundle.link("data/dev/null", "/proc/sys/kernel/core_pattern");
    bundle.write("rootfs/secret", "secret");
    bundle.link("rootfs/way", "secret");
    bundle.spec["linux"] = json!({"maskedPaths": ["/way", "/nothing/there"], "readonlyPaths": ["/dir"]});
    bundle.write("rootfs/dir/file", "");
    let inside = bundle.inside(|| (fs::read_to_string("/secret").unwrap(), fs::write("/dir/file", "x").is_err()));
    assert_eq!(inside, (String::new(), true));
}
