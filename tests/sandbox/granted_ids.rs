//! `--user` as an ordinary user: one id where one will do, else those that /etc/subuid and /etc/subgid grant.

use std::{fs, os::unix::fs::MetadataExt};

use crate::common::{
    Run, Who, granted_ids,
    terminal::{OWN_SESSION, Session},
};

/// The ordinary user and their ranges, or an early return.
macro_rules! granted {
    ($test:literal) => {{
        let Some(who) = Who::User.find($test) else { return };
        let Some(ranges) = granted_ids(who, $test) else { return };
        (who, ranges)
    }};
}

fn gid(who: Who) -> u32 {
    who.ids().map_or_else(|| nix::unistd::getegid().as_raw(), |(_, gid)| gid)
}

/// A uid_map with single spaces.
fn plain(map: &str) -> Vec<String> {
    map.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_stranger_has_ids_that_are_granted() {
    let (who, [uids, gids]) = granted!("a_stranger_has_ids_that_are_granted");
    let line = "id -u; id -g; id -G; stat -c '%u:%g' /sandbox /sandbox/given /etc/passwd; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups";
    let done = Run::new(who).args(["--user", "7:8"]).file("given", "x").cmd(line).done().expect_code(0);
    let mut wanted = ["7", "8", "8", "7:8", "7:8", "0:0"].map(str::to_owned).to_vec();
    for (own, (first, count)) in [(who.uid(), uids), (gid(who), gids)] {
        wanted.extend([format!("0 {own} 1"), format!("1 {first} {}", count.min(65_536))]);
    }
    wanted.push("allow".to_owned());
    let found = plain(&done.out());
    // More ranges may be granted than the first.
    let first: Vec<_> = found.iter().filter(|line| wanted.contains(line)).cloned().collect();
    assert_eq!(first, wanted, "{done}");
    let json = Run::new(who).args(["--user", "7:8"]).json_result().cmd("true").done().json();
    assert_eq!(json["controls"]["id_map"], "subuid", "{json}");
}

#[test]
fn one_id_is_used_where_one_will_do() {
    let Some(who) = Who::User.find("one_id_is_used_where_one_will_do") else { return };
    let own = format!("{}:{}", who.uid(), gid(who));
    for user in ["root", "sandbox", "0:1000", own.as_str()] {
        let done = Run::new(who).args(["--user", user, "--json"]).cmd("cat /proc/self/setgroups").done();
        let json = done.json();
        assert_eq!((&json["controls"]["id_map"], &json["stdout"]), (&"single".into(), &"deny\n".into()), "{done}");
    }
    assert_eq!(Run::new(who).json_result().cmd("true").done().json()["controls"]["id_map"], "single");
}

#[test]
fn root_gives_ids_of_nobody_to_anybody() {
    let Some(who) = Who::Root.find("root_gives_ids_of_nobody_to_anybody") else { return };
    let json = Run::new(who).args(["--user", "7:8", "--json"]).cmd("id -u").done().json();
    assert_eq!((&json["controls"]["id_map"], &json["stdout"]), (&"range".into(), &"7\n".into()), "{json}");
}

/// In a mount a file belongs to the id that made it, whichever sandbox that was in.
#[test]
fn files_of_one_user_are_not_another_s_to_write() {
    let (who, [uids, gids]) = granted!("files_of_one_user_are_not_another_s_to_write");
    let run = Run::new(who);
    let dir = run.place.mkdir("data");
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mount = format!("{}:/data:rw", run.place.text("data"));
    // The place must outlive the first run.
    let first =
        run.args(["--mount", &mount, "--user", "7:8"]).cmd("echo one > /data/file; chmod 640 /data/file").done();
    let first = first.expect_code(0);
    let found = first.place().join("data/file").metadata().unwrap();
    assert_eq!((found.uid(), found.gid()), (uids.0 + 6, gids.0 + 7));
    let as_user = |user: &str, line: &str| Run::new(who).args(["--mount", &mount, "--user", user]).cmd(line).done();
    for (user, read) in [("9:9", ""), ("9:8", "one\n"), ("sandbox", ""), ("root", ""), ("7:9", "one\n")] {
        as_user(user, "cat /data/file").expect_out(read);
        if user != "7:9" {
            as_user(user, "echo two > /data/file || chmod 777 /data/file || chown $(id -u) /data/file; true")
                .expect_out("");
            let now = first.place().join("data/file").metadata().unwrap();
            assert_eq!((now.mode() & 0o7777, now.uid(), now.len()), (0o640, uids.0 + 6, 4), "{user}");
        }
    }
    as_user("7:9", "echo two > /data/file; cat /data/file").expect_out("two\n");
}

/// The caller may not read them, and what holds them is gone once they ask.
#[test]
fn private_files_come_out() {
    let (who, _) = granted!("private_files_come_out");
    let run = Run::new(who).args(["--user", "7:8", "--get", "closed/**", "--get", "key"]);
    let line = "umask 077; mkdir -p closed/deep; echo kept > closed/deep/file; echo secret > key; chmod 0 key closed/deep/file";
    let done = run.cmd(line).done().expect_code(0);
    assert_eq!((done.place().read("closed/deep/file"), done.place().read("key")), ("kept\n".into(), "secret\n".into()));
    assert_eq!(done.place().join("key").metadata().unwrap().uid(), who.uid());
    // Root inside is no way around what the caller may not read: of ids that are not mapped it is nobody.
    if who.ids().is_some() {
        let run = Run::new(who);
        let path = run.place.join("data/of-root");
        run.place.write("data/of-root", "untold");
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mount = format!("{}:/sandbox/data", run.place.text("data"));
        let done = run.args(["--user", "7:8", "--mount", &mount, "--get", "data/of-root:out"]).cmd("true").done();
        let done = done.expect_code(125);
        assert!(!done.place().join("out").exists(), "{done}");
    }
}

#[test]
fn explain_says_which_ids() {
    let (who, [uids, gids]) = granted!("explain_says_which_ids");
    let done = Run::verb(who, "explain").args(["--user", "7:8"]).cmd("true").done().expect_code(0);
    for part in [
        format!("users 0 is {} outside", who.uid()),
        format!("users 1-{} are {}-", uids.1.min(65_536), uids.0),
        format!("groups 1-{} are {}-", gids.1.min(65_536), gids.0),
        "/etc/subuid grants you these".to_owned(),
        "newuidmap and newgidmap".to_owned(),
    ] {
        assert!(done.out().contains(&part), "no `{part}`: {done}");
    }
    let plain = Run::verb(who, "explain").cmd("true").done().expect_code(0);
    assert!(!plain.out().contains("newuidmap"), "{plain}");
}

#[test]
fn everything_else_works_as_ever() {
    let (who, _) = granted!("everything_else_works_as_ever");
    let stranger = || Run::new(who).args(["--user", "7:8"]);
    stranger().eval("c", "#include <stdio.h>\nint main(void) { puts(\"compiled\"); }").done().expect_out("compiled\n");
    stranger().arg("--writable").cmd("touch /x && stat -c %u /x").done().expect_out("7\n");
    let run = stranger().arg("-t").wrapped(OWN_SESSION).cmd("tty; test -t 0 && echo all-$((1+1)) > /dev/tty");
    let mut session = Session::start(&run);
    session.expect("/dev/pts/0");
    session.expect("all-2");
    assert_eq!(session.end(), 0, "{}", session.text());
    stranger().args(["--timeout", "300ms"]).cmd("sleep 100").done().expect_code(124);
    let done = stranger().args(["--pids-limit", "20", "--json"]).probe().cmd("./probe forks 100").done();
    assert!(done.json()["stdout"].as_str().unwrap().contains("errno 11"), "{done}");
}

#[test]
fn doctor_tries_the_helpers() {
    let (who, [uids, _]) = granted!("doctor_tries_the_helpers");
    let json = Run::verb(who, "doctor").json_result().done().json();
    let check = json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "ids").unwrap().clone();
    let detail = check["detail"].as_str().unwrap();
    assert_eq!(check["status"], "ok", "{check}");
    assert!(detail.contains(&format!("uids from {}", uids.0)) && detail.contains("newuidmap"), "{check}");
}
