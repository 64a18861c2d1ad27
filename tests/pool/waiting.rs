//! Sandboxes that wait: what they are, what becomes of them, and what they do not have of one another.

use std::{collections::BTreeSet, time::Duration};

use fumehood::{
    Pool, Sandbox, Stdin, Verdict,
    cgroup::{Controller, Hierarchy},
    pool::Settings,
    request::{Limits, Secret},
};

fn pool() -> Pool {
    Pool::new(Settings { most: 3, ..Settings::default() })
}

fn out(outcome: &fumehood::Outcome) -> String {
    assert_eq!(outcome.verdict, Verdict::Ok, "{outcome:?}");
    String::from_utf8(outcome.stdout.bytes.clone()).unwrap()
}

#[test]
fn randomness_is_each_ones_own() {
    let pool = pool();
    let code = "import random, os, hashlib, ssl, uuid\n\
                print(hash('x'), random.random(), os.urandom(8), ssl.RAND_bytes(8), uuid.uuid4(), sep='\\n')";
    let mut seen = BTreeSet::new();
    for _ in 0..8 {
        pool.expect(&mut Sandbox::code(""), 3).unwrap();
        let said = out(&pool.output(&mut Sandbox::code(code)).unwrap());
        assert_eq!(said.lines().count(), 5);
        for line in said.lines() {
            assert!(seen.insert(line.to_owned()), "{line} again");
        }
    }
    assert_eq!(pool.counts(), (8, 0));
}

#[test]
fn it_is_used_once() {
    let pool = pool();
    let mut pids = BTreeSet::new();
    for number in 0..6 {
        pool.expect(&mut Sandbox::code(""), 2).unwrap();
        let code = "import os\nprint(os.listdir('/tmp'), os.listdir('/sandbox'), os.path.exists('/tmp/left'))\n\
                    open('/tmp/left', 'w').write('x'); open('/sandbox/left', 'w').write('x')\n\
                    print(sum(name.isdigit() for name in os.listdir('/proc')))";
        let outcome = pool.output(Sandbox::code(code).env("JOB", number.to_string())).unwrap();
        assert_eq!(out(&outcome), "[] ['main.py'] False\n1\n");
        assert!(pids.insert(outcome.id.to_string()));
    }
}

#[test]
fn secrets_and_limits_are_the_jobs() {
    let pool = pool();
    pool.expect(&mut Sandbox::code(""), 1).unwrap();
    let mut sandbox = Sandbox::code("import os; print(os.environ['KEY'], len(os.environ['KEY']))");
    sandbox.secret(Secret::new("KEY", "s3cr3t-value").unwrap());
    let outcome = pool.output(&mut sandbox).unwrap();
    assert_eq!(out(&outcome), "*** 12\n");
    assert_eq!(outcome.controls.as_ref().unwrap().secrets, 1);
    pool.expect(&mut Sandbox::code(""), 1).unwrap();
    // Time counts from when it is used.
    std::thread::sleep(Duration::from_millis(5500));
    let limits = Limits { timeout: Some(Duration::from_secs(5)), ..Limits::default() };
    let outcome = pool.output(Sandbox::code("print('quick')").limits(limits.clone())).unwrap();
    assert_eq!(out(&outcome), "quick\n");
    assert_eq!(outcome.limits.timeout, limits.timeout);
    pool.expect(&mut Sandbox::code(""), 1).unwrap();
    let outcome = pool.output(Sandbox::code("import time; time.sleep(200)").limits(limits)).unwrap();
    assert_eq!(outcome.verdict, Verdict::Timeout);
    assert_eq!(pool.counts(), (3, 0));
}

#[test]
fn what_an_interpreter_must_know_at_its_start_gets_one_of_its_own() {
    let pool = pool();
    let code = "import time, sys; print(time.tzname, sys.flags.optimize)";
    for (name, value, said) in [("TZ", "XYZ3", "('XYZ', 'XYZ') 0\n"), ("PYTHONOPTIMIZE", "2", "('UTC', 'UTC') 2\n")] {
        pool.expect(&mut Sandbox::code(""), 1).unwrap();
        assert_eq!(out(&pool.output(Sandbox::code(code).env(name, value)).unwrap()), said);
    }
    assert_eq!(pool.counts(), if are_measured() { (0, 2) } else { (2, 0) });
}

/// Whether there are cgroups, so that interpreters may be started before their jobs.
fn are_measured() -> bool {
    Hierarchy::detect().can(Controller::Memory)
}

#[test]
fn no_interpreter_starts_where_nobody_measures_it() {
    let pool = pool();
    pool.expect(&mut Sandbox::code(""), 1).unwrap();
    let code = "print(b'FUMEHOOD_BOOT' in open('/proc/self/environ', 'rb').read())";
    let said = out(&pool.output(&mut Sandbox::code(code)).unwrap());
    assert_eq!(said, if are_measured() { "True\n" } else { "False\n" });
    assert_eq!(pool.counts(), (1, 0));
}

#[test]
fn each_has_ids_of_its_own() {
    let pool = pool();
    let code = "print(open('/proc/self/uid_map').read())";
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        assert_eq!(pool.expect(&mut Sandbox::code(""), 3).unwrap(), 3);
        seen.insert(out(&pool.output(&mut Sandbox::code(code)).unwrap()));
        seen.insert(out(&pool.output(&mut Sandbox::code(code)).unwrap()));
    }
    assert_eq!(pool.counts(), (4, 0));
    // An ordinary user has one to give; two of root's may by chance have the same, but not all four.
    assert_eq!(seen.len() > 1, nix::unistd::geteuid().is_root(), "{seen:?}");
}

/// The same alone and with a pool that expects such jobs.
fn both_ways(make: &dyn Fn() -> Sandbox) -> fumehood::Outcome {
    let alone = make().output().unwrap();
    let pool = pool();
    let mut like = Sandbox::code("");
    if let Some(runtime) = &alone.runtime {
        like.runtime(runtime.clone());
    }
    assert_eq!(pool.expect(&mut like, 1).unwrap(), 1);
    let pooled = pool.output(&mut make()).unwrap();
    assert_eq!(alone.stdout.bytes, pooled.stdout.bytes, "{pooled:?}");
    assert_eq!(alone.stderr.bytes, pooled.stderr.bytes, "{pooled:?}");
    alone
}

#[test]
fn packages_of_the_user_are_found() {
    let site = out(&Sandbox::code("import site; print(site.getusersitepackages())").output().unwrap());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.py"), "print('extra')").unwrap();
    let outcome = both_ways(&|| {
        let mut sandbox = Sandbox::code("import extra");
        sandbox.copy_file(dir.path().join("extra.py"), Some(std::path::Path::new(site.trim()).join("extra.py")));
        sandbox
    });
    assert_eq!(out(&outcome), "extra\n");
}

#[test]
fn what_a_shell_cannot_set_is_not_set_in_it() {
    for (name, value) in [("UID", "5"), ("a.b", "1"), ("PPID", "7"), ("GROUPS", "8"), ("PLAIN", "x")] {
        let outcome = both_ways(&|| {
            let mut sandbox = Sandbox::code("env | grep -a '^[aUGP][.IRPL]'; echo \"$UID $PLAIN\"");
            sandbox.runtime("bash").env(name, value);
            sandbox
        });
        assert!(outcome.stderr.bytes.is_empty(), "{name}: {outcome:?}");
    }
}

/// The inits of this process's that wait.
fn inits() -> Vec<i32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let children = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
    }
    found
}

#[test]
fn one_that_died_is_replaced_and_those_that_wait_end_with_the_pool() {
    // Alone, so that all children are this pool's.
    let alone = std::env::var_os("FUMEHOOD_TEST_ALONE").is_some();
    if !alone {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "waiting::one_that_died_is_replaced_and_those_that_wait_end_with_the_pool"])
            .env("FUMEHOOD_TEST_ALONE", "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let pool = pool();
    assert_eq!(pool.expect(&mut Sandbox::code(""), 3).unwrap(), 3);
    let waiting = inits();
    assert_eq!(waiting.len(), 3, "{waiting:?}");
    // The interpreter of one, and the init of another.
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", waiting[0])).unwrap();
    let interpreter: Option<i32> = children.trim().parse().ok();
    assert_eq!(interpreter.is_some(), are_measured());
    for pid in [interpreter.unwrap_or(waiting[0]), waiting[1]] {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..3 {
        assert_eq!(
            out(&pool.output(Sandbox::code("print(input())").stdin(Stdin::Bytes(b"hi\n".to_vec()))).unwrap()),
            "hi\n"
        );
    }
    assert!(pool.counts().0 >= 1, "{:?}", pool.counts());
    pool.expect(&mut Sandbox::code(""), 3).unwrap();
    assert_eq!(pool.expect(&mut Sandbox::code(""), 3).unwrap(), 3);
    drop(pool);
    assert!(inits().is_empty());
}

#[test]
fn what_has_no_interpreter_is_made_ahead_too() {
    let pool = pool();
    for number in 0..5 {
        pool.expect(&mut Sandbox::command("cat"), 2).unwrap();
        let text = format!("job {number}\n");
        let outcome = pool.output(Sandbox::command("cat").stdin(Stdin::Bytes(text.clone().into_bytes()))).unwrap();
        assert_eq!(out(&outcome), text);
    }
    // Another program, in the same sandbox as it was made.
    pool.expect(&mut Sandbox::command("cat"), 2).unwrap();
    assert_eq!(
        out(&pool.output(Sandbox::shell("echo $0 $1; pwd").arg("x").env("LANG", "C")).unwrap()),
        "sh x\n/sandbox\n"
    );
    let outcome = pool.output(&mut Sandbox::command("no-such-program")).unwrap();
    assert_eq!((outcome.verdict, outcome.exit_status()), (Verdict::SetupError, 127));
    assert_eq!(pool.counts().1, 0);
}

#[test]
fn a_compiled_program_has_its_compilers_limits_first() {
    if !std::path::Path::new("/usr/bin/gcc").exists() {
        return crate::skip("a_compiled_program_has_its_compilers_limits_first", "there is no gcc");
    }
    let pool = pool();
    let code = "#include <stdio.h>\nint main(int c, char **v) { printf(\"%d %s\\n\", c, v[1]); return 3; }\n";
    let make = || {
        let mut sandbox = Sandbox::code(code);
        sandbox.runtime("c").arg("word");
        sandbox
    };
    pool.expect(&mut make(), 1).unwrap();
    let outcome = pool.output(&mut make()).unwrap();
    assert_eq!((outcome.verdict, outcome.exit_code), (Verdict::Failed, Some(3)), "{outcome:?}");
    assert_eq!(outcome.stdout.bytes, b"2 word\n");
    assert_eq!(outcome.compile.unwrap().verdict, Verdict::Ok);
    assert_eq!(pool.counts(), (1, 0));
}

#[test]
fn it_is_all_the_same_for_an_ordinary_user() {
    const NAME: &str = "waiting::it_is_all_the_same_for_an_ordinary_user";
    use std::os::unix::{fs::PermissionsExt, process::CommandExt};
    let user = nix::unistd::User::from_name("fumehood-test").unwrap();
    let (true, Some(user)) = (nix::unistd::geteuid().is_root(), user) else {
        return crate::skip(NAME, "it takes root and a user fumehood-test");
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("pool");
    crate::common::copy_program(&std::env::current_exe().unwrap(), &program);
    let done = std::process::Command::new(&program)
        .args(["waiting::", "same::bash", "--skip", "ordinary_user"])
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw())
        .current_dir("/")
        .env_remove("XDG_RUNTIME_DIR")
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("same::bash ... ok"),
        "{said}\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
