//! Subordinate ids: the helpers that map them, and the file that grants them, when somebody means ill.
//!
//! What root alone can change is changed in a mount namespace of the test's own.

use std::{fs, process::Command};

use crate::{
    bombs,
    common::{Done, Run, Who, granted_ids},
};

macro_rules! granted {
    ($test:literal) => {{
        let Some(who) = Who::User.find($test) else { return };
        let Some(ranges) = granted_ids(who, $test) else { return };
        (who, ranges)
    }};
}

/// The ordinary user, where root stages something for them.
macro_rules! staged {
    ($test:literal) => {{
        let (who, ranges) = granted!($test);
        if Who::Root.find($test).is_none() {
            return;
        }
        (who, ranges)
    }};
}

/// Runs it as the ordinary user, with files of its place bound over files of the host.
fn with_covers(run: Run, covers: &[(&str, &str)]) -> Done {
    let (uid, gid) = run.who.ids().unwrap();
    let mut script = String::new();
    for (file, over) in covers {
        script.push_str(&format!("mount --bind {} {over} || exit 99\n", run.place.text(file)));
    }
    script.push_str(&format!("exec setpriv --reuid {uid} --regid {gid} --clear-groups -- \"$@\""));
    let plain = run.command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(run.place.path()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = run.finish(command);
    done.check_nothing_left();
    done
}

#[test]
fn helpers_are_not_looked_up_in_path() {
    let (who, _) = granted!("helpers_are_not_looked_up_in_path");
    let run = Run::new(who).args(["--user", "7:8"]).cmd("id -u");
    for name in ["newuidmap", "newgidmap"] {
        run.place
            .write_executable(format!("bin/{name}"), format!("#!/bin/sh\necho ran >> {}\n", run.place.text("ran")));
    }
    let path = format!("{}:{}:/usr/bin:/bin", run.place.text("bin"), ".");
    let done = run.env("PATH", path).done().expect_code(0).expect_out("7\n");
    assert!(!done.place().join("ran").exists(), "{done}");
}

/// A program's name, its arguments and its environment are three ways into a set-user-ID program.
#[test]
fn helpers_get_numbers_and_nothing_else() {
    let (who, [(first, count), _]) = staged!("helpers_get_numbers_and_nothing_else");
    let run = Run::new(who).args(["--user", "7:8"]).env("IN_THE_WAY", "x").cmd("id -u");
    run.place.mkdir("seen");
    let seen = run.place.text("seen");
    let script = format!(
        "#!/bin/bash\nn=${{0##*/}}; cat /proc/$$/environ > {seen}/$n.env; echo \"$*\" > {seen}/$n.args; pwd > {seen}/$n.dir; \
         echo \"newuidmap: no, $(printf '\\033')[31mnever\" >&2; exit 1\n"
    );
    run.place.write_executable("fake", script);
    let done = with_covers(run, &[("fake", "/usr/bin/newuidmap"), ("fake", "/usr/bin/newgidmap")]);
    let done = done.expect_error("/usr/bin/newuidmap: no, ").expect_hint();
    assert!(!done.err().contains('\x1b'), "{done}");
    for helper in ["newuidmap", "newgidmap"] {
        let read = |kind: &str| done.place().read(format!("seen/{helper}.{kind}"));
        assert_eq!(read("env"), "", "{done}");
        assert_eq!(read("dir"), "/\n");
        let args = read("args");
        assert!(args.trim().split(' ').all(|word| word.parse::<u32>().is_ok()), "{args}");
        if helper == "newuidmap" {
            assert!(args.trim().ends_with(&format!(" 0 {} 1 1 {first} {}", who.uid(), count.min(65_536))), "{args}");
        }
    }
}

/// What it says is not believed, only what the kernel shows.
#[test]
fn a_helper_that_lies_maps_nothing() {
    let (who, _) = staged!("a_helper_that_lies_maps_nothing");
    let run = Run::new(who).args(["--user", "7:8"]).cmd("id");
    run.place.write_executable("fake", "#!/bin/sh\nexit 0\n");
    let done = with_covers(run, &[("fake", "/usr/bin/newuidmap")]);
    done.expect_error("/usr/bin/newuidmap: it left uid_map as it was").expect_hint();
    let run = Run::new(who).args(["--user", "7:8"]).cmd("id");
    run.place.write_executable("fake", "#!/bin/sh\nexit 0\n");
    let done = with_covers(run, &[("fake", "/usr/bin/newgidmap")]);
    done.expect_error("/usr/bin/newgidmap: it left gid_map as it was");
    // Half of what was asked for.
    let run = Run::new(who).args(["--user", "7:8"]).cmd("id");
    fs::copy("/usr/bin/newuidmap", run.place.join("real")).unwrap();
    fs::set_permissions(run.place.join("real"), std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let real = run.place.text("real");
    run.place.write_executable("fake", format!("#!/bin/sh\nexec {real} $1 $2 $3 $4\n"));
    with_covers(run, &[("fake", "/usr/bin/newuidmap")]).expect_error("it left uid_map as it was");
}

#[test]
fn a_helper_that_is_missing_or_without_power_is_told() {
    let (who, _) = granted!("a_helper_that_is_missing_or_without_power_is_told");
    let bound = ["setpriv", "--no-new-privs"];
    let done = Run::new(who).wrapped(bound).args(["--user", "7:8"]).cmd("id").done();
    let done = done.expect_error("newuidmap: ").expect_hint();
    assert!(done.err().contains("no_new_privs"), "{done}");
    // It is not needed for all that can be had without it.
    Run::new(who).wrapped(bound).args(["--user", "0"]).cmd("id -u").done().expect_out("0\n");
    if Who::Root.find("a_helper_that_is_missing_or_without_power_is_told").is_none() {
        return;
    }
    let run = Run::new(who).args(["--user", "7:8"]).cmd("id");
    run.place.write("not-executable", "");
    let done = with_covers(run, &[("not-executable", "/usr/bin/newgidmap")]);
    let done = done.expect_error("newgidmap is not installed").expect_hint();
    assert!(done.err().contains("apt install uidmap"), "{done}");
}

#[test]
fn a_hostile_file_grants_nothing_it_should_not() {
    let (who, _) = staged!("a_hostile_file_grants_nothing_it_should_not");
    let (uid, name) = (who.uid(), crate::common::USER);
    let with_file = |text: &[u8], user: &str| {
        let run = Run::new(who).args(["--user", user]).cmd("cat /proc/self/uid_map");
        run.place.write("subuid", text);
        with_covers(run, &[("subuid", "/etc/subuid")])
    };
    for text in [
        "",
        "garbage",
        ":::::",
        &format!("{name}:100000:0"),
        &format!("{name}:0:1"),
        &format!("{name}:{uid}:1"),
        &format!("{name}:4294967295:1\n{name}:4294967290:100\n{name}:1:4294967296"),
        &format!("{name}:-5:10\n{name}:0x10:10\n{name}:1 0:10\n{name}:100000:10:10\n {name}:100000:10\n#{name}:1:9"),
        &format!("{name}x:100000:65536\n{}:100000:65536", uid + 1),
        &format!("{name}:100000"),
    ] {
        let done = with_file(text.as_bytes(), "7:8").expect_error("user 7 cannot be given").expect_hint();
        assert!(done.err().contains("usermod --add-subuids"), "{done}");
    }
    let maps = |text: &[u8], wanted: &[String]| {
        let done = with_file(text, "1:8").expect_code(0);
        let found: Vec<_> =
            done.out().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(found[0], format!("0 {uid} 1"), "{done}");
        assert_eq!(&found[1..], wanted, "{done}");
    };
    // The host's root, and one id twice, are left out; what is granted besides is not.
    maps(format!("{name}:0:3").as_bytes(), &["1 1 2".to_owned()]);
    let (before, after) = (uid - 1, uid + 1);
    maps(format!("{name}:{before}:3").as_bytes(), &[format!("1 {before} 1"), format!("2 {after} 1")]);
    let text = format!("{name}:100000:10\n{name}:100005:10\n{uid}:100000:20\n");
    maps(text.as_bytes(), &["1 100000 10".into(), "11 100010 5".into(), "16 100015 5".into()]);
    let text = [b"\xff\xfe:1:1\n".as_slice(), format!("{name}:100000:10\n").as_bytes()].concat();
    maps(&text, &["1 100000 10".to_owned()]);
    // Few are told from none.
    let few = format!("{name}:100000:5\n");
    with_file(few.as_bytes(), "6:8").expect_error("grants only 5 ids");
}

/// Nobody measures them but the supervisor, who has another id.
#[test]
fn memory_of_a_stranger_is_held() {
    let (who, _) = granted!("memory_of_a_stranger_is_held");
    for kind in ["private", "memfd", "shm", "file"] {
        bombs::assert_held(who, &bombs::memory_bomb_as(who, "7:8", kind));
    }
}

/// The caller, who is root inside, is out of reach of the program; so is the init, which has the caller's id.
#[test]
fn the_caller_is_out_of_reach() {
    let (who, _) = granted!("the_caller_is_out_of_reach");
    let code = "import os, ctypes\nfor f, a in ((os.setuid, (0,)), (os.setresgid, (0, 0, 0)), (os.setgroups, ([0],)), (os.setuid, (9,)), (os.kill, (1, 9)), (os.chown, ('.', 0, 0)), (os.chown, ('.', 9, 9))):\n\
        \x20 try: f(*a); print(f.__name__)\n  except OSError: pass\nprint(ctypes.CDLL(None).ptrace(16, 1, 0, 0))";
    Run::new(who).args(["--user", "7:8"]).python(code).done().expect_code(0).expect_out("-1\n");
    // What only the caller may read on the host is nothing to a stranger, handed in or not.
    let run = Run::new(who).args(["--user", "7:8"]);
    let path = run.place.write("data/private", "untold");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mount = format!("{}:/data:rw", run.place.text("data"));
    let line =
        "cat /data/private; echo x > /data/private; echo x > /data/new; chmod 777 /data; rm -f /data/private; ls /data";
    let done = run.args(["--mount", &mount]).cmd(line).done().expect_out("private\n");
    assert_eq!(done.place().read("data/private"), "untold");
}
