//! Images that want more than to be run. Whatever a configuration names is looked up in the image's own tree.

use std::fs;

use serde_json::json;

use super::made::{Made, dir, file, link};
use crate::{both, common::Who};

both! {
    /// Docker followed such links on the host.
    fn cve_2018_15664_a_working_directory_behind_a_link_is_inside(who: Who) {
        let within = [link("in", "srv"), link("up", "../../../../srv"), link("far", "/../../srv")];
        for dir in ["/up/new", "/far/new", "in/new"] {
            let Some(made) = Made::new(who, "cve_2018_15664_within", &json!({"WorkingDir": dir}), &within) else { return };
            made.run().cmd("pwd").done().expect_code(0).expect_out("/srv/new\n");
            made.run().args(["--read-only"]).cmd("pwd").done().expect_code(0).expect_out("/srv/new\n");
        }
    }

    fn cve_2018_15664_a_working_directory_is_not_made_on_the_host(who: Who) {
        let outside = tempfile::tempdir().unwrap();
        fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let there = outside.path().to_str().unwrap();
        let Some(made) = Made::new(who, "cve_2018_15664_outside", &json!({"WorkingDir": "/out/made"}), &[link("out", there)]) else { return };
        made.run().cmd("pwd").done().expect_error("`/out` in ");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        // And where what the link names is there inside, too, that is meant.
        let below: Vec<String> = (2..=there.split('/').count()).map(|n| there.split('/').take(n).collect::<Vec<_>>().join("/")[1..].to_owned()).collect();
        let mut entries: Vec<_> = below.iter().map(|path| dir(path, 0o755)).collect();
        entries.push(link("out", there));
        let Some(made) = Made::new(who, "cve_2018_15664_outside", &json!({"WorkingDir": "/out/made", "Volumes": {"/out/vol": {}}}), &entries) else { return };
        // /tmp inside is a tmpfs, on which nothing of that is.
        let done = made.run().cmd("pwd; touch /out/vol/x; ls $PWD/..").done().expect_code(0);
        assert!(done.out().starts_with(&format!("{there}/made\n")), "{done}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    fn cve_2024_21626_a_working_directory_in_proc_leads_nowhere(who: Who) {
        for dir in ["/proc/self/fd/7/../..", "/proc/1/root", "/dev/fd/5"] {
            let Some(made) = Made::new(who, "cve_2024_21626", &json!({"WorkingDir": dir}), &[]) else { return };
            made.run().cmd("pwd; ls").done().expect_error("").check_nothing_left();
        }
    }

    fn volumes_behind_links_are_inside(who: Who) {
        let outside = tempfile::tempdir().unwrap();
        fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let there = outside.path().to_str().unwrap();
        let links = [link("in", "../../srv"), link("out", there), link("etc/out", "/etc")];
        let Some(made) = Made::new(who, "volumes_behind_links", &json!({"Volumes": {"/in/data": {}, "/etc/out/conf": {}}}), &links) else { return };
        made.run().cmd("touch /srv/data/x /etc/conf/x && ls /in/data /etc/out/conf").done().expect_code(0).expect_out("/etc/out/conf:\nx\n\n/in/data:\nx\n");
        let Some(made) = Made::new(who, "volumes_behind_links", &json!({"Volumes": {"/out/data": {}}}), &links) else { return };
        made.run().cmd("true").done().expect_error("`/out` in ");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    fn volumes_that_nobody_gets(who: Who) {
        let volumes = json!({"/": {}, "/proc": {}, "/proc/sys": {}, "/dev": {}, "/dev/shm": {}, "/sys/fs": {}, "/p": {}, "/a/../b": {}, "c": {}, "": {}, "/fine": {}});
        let Some(made) = Made::new(who, "volumes_that_nobody_gets", &json!({"Volumes": volumes}), &[link("p", "/proc"), dir("proc", 0o555)]) else { return };
        made.run().cmd("touch /fine/x; cat /etc/os; touch /proc/x || echo sealed").done().expect_code(0).expect_out("small\nsealed\n");
        let explained = made.verb("explain").cmd("true").done().expect_code(0).out();
        for volume in ["/", "/proc", "/proc/sys", "/dev", "/p", "/a/../b", "c"] {
            assert!(explained.contains(&format!("leave out volume {volume} ")), "{volume}: {explained}");
        }
        let many: serde_json::Map<_, _> = (0..2000).map(|n| (format!("/v{n}"), json!({}))).collect();
        let Some(made) = Made::new(who, "volumes_that_nobody_gets", &json!({"Volumes": many}), &[]) else { return };
        made.run().cmd("true").done().expect_error("2000 volumes");
    }

    fn a_volume_on_a_file_is_refused(who: Who) {
        let Some(made) = Made::new(who, "a_volume_on_a_file", &json!({"Volumes": {"/etc/os": {}}}), &[]) else { return };
        made.run().cmd("true").done().expect_error("`/etc/os` in ");
    }

    /// The host has such a user; the image, whose file leads out, has not.
    fn cve_2019_14271_no_user_of_the_hosts(who: Who) {
        for passwd in ["../../../../../../etc/passwd", "/proc/self/root/etc/passwd"] {
            let Some(made) = Made::new(who, "cve_2019_14271", &json!({"User": "daemon"}), &[link("etc/passwd", passwd)]) else { return };
            made.run().cmd("id -u").done().expect_error("user `daemon` of the image").expect_hint();
            made.run().args(["--user", "0"]).cmd("id -u").done().expect_code(0).expect_out("0\n");
        }
    }

    fn users_that_are_none(who: Who) {
        for user in ["4294967296", "65535", "svc:no-group", " 0"] {
            let Some(made) = Made::new(who, "users_that_are_none", &json!({"User": user}), &[]) else { return };
            made.run().cmd("id -u").done().expect_error("user").expect_hint();
        }
    }

    fn a_passwd_of_any_length(who: Who) {
        let huge = [b"svc:x:7:8::/:\n".as_slice(), &b"x".repeat(3 << 20)].concat();
        let Some(made) = Made::new(who, "a_passwd_of_any_length", &json!({"User": "svc"}), &[file("etc/passwd", 0o644, &huge)]) else { return };
        made.run().cmd("id -u").done().expect_error("/etc/passwd of the image: it has more than");
        made.run().args(["--user", "0"]).cmd("id -u").done().expect_code(0).expect_out("0\n");
        let Some(made) = Made::new(who, "a_passwd_of_any_length", &json!({}), &[file("etc/passwd", 0o644, &huge)]) else { return };
        made.run().cmd("id -u; echo $HOME").done().expect_code(0).expect_out("1000\n/sandbox\n");
        let nonsense = b"\xff\xfe:\0:\n:::::::::\nsvc\nsvc:x\nsvc:x:\n\n\nsvc:x:7:8::/srv:\n";
        let Some(made) = Made::new(who, "a_passwd_of_any_length", &json!({"User": "svc"}), &[file("etc/passwd", 0o644, nonsense)]) else { return };
        made.run().cmd("id -u").done().expect_error("user `svc` of the image");
    }

    fn mount_points_that_are_links_are_refused(who: Who) {
        for name in ["proc", "sandbox"] {
            let Some(made) = Made::new(who, "mount_points_that_are_links", &json!({}), &[link(name, "/etc")]) else { return };
            made.run().cmd("true").done().expect_error(&format!("`/{name}` in "));
        }
    }

    /// What an image sets is for what is inside: the helpers that map ids, and we, have an environment of our own.
    fn an_images_environment_stays_inside(who: Who) {
        let marker = tempfile::tempdir().unwrap();
        fs::set_permissions(marker.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let at = marker.path().join("loaded").display().to_string();
        let env = json!(["LD_PRELOAD=/lib/evil.so", format!("LD_DEBUG_OUTPUT={at}"), "LD_DEBUG=all", "GCONV_PATH=/", "FUMEHOOD_STORE=/nowhere"]);
        let Some(made) = Made::new(who, "an_images_environment", &json!({"Env": env, "Cmd": ["echo", "ran"]}), &[]) else { return };
        made.run().done().expect_code(0).expect_out("ran\n");
        assert_eq!(fs::read_dir(marker.path()).unwrap().count(), 0);
    }
}
