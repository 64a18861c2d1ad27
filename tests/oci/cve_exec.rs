//! Processes that enter a container whose own are hostile: nothing of the host's may be had from them.

use crate::both;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    bundle::Container,
    common::{self, Who, host, probe},
};

/// A helper that works inside until it is told to end, and what it says then.
struct Inside {
    child: Child,
    said: std::path::PathBuf,
}

impl Inside {
    /// Returns when it works.
    fn start(container: &Container, args: &[&str]) -> Self {
        let said = container.place.join("inside");
        let mut all = vec![container.id.as_str()];
        all.extend(args);
        let mut command = container.command("exec", &all);
        command.stdin(Stdio::piped()).stdout(fs::File::create(&said).unwrap()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        assert!(host::eventually(|| fs::read_to_string(&said).unwrap().contains("ready")), "it does not start");
        Self { child, said }
    }

    fn end(mut self) -> String {
        // This closes its standard input.
        assert!(self.child.wait().unwrap().success());
        fs::read_to_string(&self.said).unwrap()
    }
}

/// Enters again and again, for some seconds and a dozen times at least.
fn enter(container: &Container, seconds: f64) {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut count = 0;
    while Instant::now() < until || count < 12 {
        container.call_on("exec", &["true"]).ok();
        count += 1;
    }
}

/// The number that a helper's report gives under `name`.
fn number(said: &str, name: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {said}")).parse().unwrap()
}

both! {
    fn cve_2016_9962_who_enters_shows_nothing_of_the_host(who: Who) {
        let Some(container) = Container::new("spy", who) else { return };
        let container = container
            .helpers()
            .capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_CHROOT"])
            .args(&["sleep", "100"]);
        container.create();
        container.start();
        let spy = Inside::start(&container, &["attacker", "spy"]);
        enter(&container, 3.5);
        let said = spy.end();
        assert!(number(&said, "seen") > 10, "nothing was seen: {said}");
        // By its inode: the number of a device is not written alike everywhere.
        let own_root = format!(":{}", fs::metadata(container.rootfs("")).unwrap().ino());
        // What the caller gave it, and what it reads and executes inside.
        let inside = [container.rootfs("etc/passwd"), container.rootfs("bin/busybox")];
        let given = [container.place.join("stdout"), container.place.join("stderr")].into_iter().chain(inside);
        let given: Vec<_> = given.map(|path| fs::metadata(path).unwrap().ino().to_string()).collect();
        for line in said.lines() {
            let (what, found) = line.split_once(' ').unwrap_or((line, ""));
            let fine = match what {
                "ready" | "seen" => true,
                "root" | "cwd" | "directory" => found.ends_with(&own_root),
                "file" => given.iter().any(|inode| inode == found),
                // What is named is a file or directory, of which more above, or a device.
                "fd" => {
                    let nowhere = ["pipe:", "socket:", "anon_inode:[pidfd]", "/dev/null"];
                    found == "/"
                        || nowhere.iter().any(|kind| found.starts_with(kind))
                        || ["/stdout", "/stderr", "/etc/passwd", "/bin/busybox"].iter().any(|name| found.ends_with(name))
                }
                _ => false,
            };
            assert!(fine, "{line:?} was seen in {said}");
        }
    }

    fn cve_2024_21626_no_directory_of_the_host_is_a_working_directory(who: Who) {
        let Some(container) = Container::new("working directories", who) else { return };
        let container = container.args(&["sleep", "100"]);
        container.link("/proc/self/fd", "fds");
        container.create();
        container.start();
        for number in 3..12 {
            for dir in ["/proc/self/fd", "/fds", "/proc/thread-self/fd", "/proc/1/fd"] {
                let cwd = format!("{dir}/{number}");
                let command = container.command("exec", &["--cwd", &cwd, &container.id, "pwd"]);
                let said = container.output(command);
                assert_ne!(said.code, 0, "{cwd}: {said:?}");
            }
        }
        for cwd in ["/proc/self/cwd", "/proc/1/cwd", "/proc/self/root", "/proc/1/root"] {
            let command = container.command("exec", &["--cwd", cwd, &container.id, "sh", "-c", "ls -di / ."]);
            let said = container.output(command);
            let numbers: Vec<_> = said.out.lines().filter_map(|line| line.split_whitespace().next()).collect();
            assert!(said.code != 0 || numbers[0] == numbers[1], "{cwd}: {said:?}");
        }
        let said = container.call_on("exec", &["sh", "-c", "ls /proc/self/fd"]).ok();
        assert_eq!(said, "0\n1\n2\n3\n", "the fourth is what ls reads");
    }

    fn cve_2019_5736_the_runtime_cannot_be_overwritten(who: Who) {
        let Some(container) = Container::new("overwriting", who) else { return };
        // A copy: what is overwritten is not what the other tests run.
        fs::remove_file(container.place.binary()).unwrap();
        common::copy_program(&common::binary(), &container.place.binary());
        container.place.own(&container.place.binary());
        let all = ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER"];
        let container = container.helpers().capabilities(&all).args(&["sleep", "100"]);
        overwrite(&container);
        container.call("delete", &["--force"]).ok();
        if who == Who::Root {
            // With a user namespace that is no wall: the owner of the binary is in it.
            let maps = json!([{ "containerID": 0, "hostID": 0, "size": 1000 }]);
            let mut namespaces = container.config["linux"]["namespaces"].as_array().unwrap().clone();
            namespaces.push(json!({ "type": "user" }));
            let container = container
                .set("/linux/namespaces", json!(namespaces))
                .set("/linux/uidMappings", maps.clone())
                .set("/linux/gidMappings", maps);
            overwrite(&container);
        }
    }

    fn an_init_that_ends_meanwhile_never_leaves_a_process_on_the_host(who: Who) {
        let Some(container) = Container::new("dying init", who) else { return };
        let container = container.args(&["sleep", "100"]);
        // The same path on the host and inside.
        let out = container.outside();
        let escaped = out.join("escaped");
        let line = format!("touch {} 2>/dev/null; true", escaped.display());
        let exec = || {
            let mut command = container.command("exec", &[&container.id, "sh", "-c", &line]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        container.create();
        container.start();
        // With every file warm, and nobody in its way.
        let started = Instant::now();
        assert!(exec().wait().unwrap().success());
        let whole = started.elapsed();
        container.call("delete", &["--force"]).ok();
        assert!(!escaped.exists(), "it ran on the host");
        let mut entered = 0;
        for round in 0..24_u32 {
            container.create();
            container.start();
            let init = nix::unistd::Pid::from_raw(container.place.read("pid").parse().unwrap());
            let mut child = exec();
            // From before anything of it is done to after all of it is.
            std::thread::sleep(whole * round / 16);
            nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGKILL).unwrap();
            entered += u32::from(child.wait().unwrap().success());
            assert!(!escaped.exists(), "round {round}: it ran on the host");
            container.call("delete", &["--force"]).ok();
        }
        // The point is what lies between the two.
        assert!(entered < 24, "it was never too late");
        container.assert_outside_unchanged();
    }

    fn the_callers_session_keyring_stays_outside(who: Who) {
        let Some(container) = Container::new("keyring", who) else { return };
        let container = container.helpers().args(&["sleep", "100"]);
        let attacker = container.place.write_executable("attacker", probe::attacker());
        let probe = container.place.write_executable("probe", probe::binary());
        let search = ["calls", "search:250,10,-3,@user,@fumehood-secret,0"];
        let with_key = |command: &Command| {
            let mut with = Command::new(&attacker);
            with.arg("keyring").arg(command.get_program()).args(command.get_args());
            with.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            with.current_dir(container.bundle());
            if let Some((uid, gid)) = who.ids() {
                std::os::unix::process::CommandExt::uid(&mut with, uid);
                std::os::unix::process::CommandExt::gid(&mut with, gid);
            }
            with
        };
        let seen = container.output(with_key(Command::new(probe).args(search))).ok();
        assert!(seen.starts_with("search returned"), "the key cannot even be found outside: {seen}");
        // The name of the runtime is the program's: `attacker` cannot give it another.
        let oci = |verb: &str, args: &[&str]| {
            let named = container.command(verb, args);
            let words: Vec<_> = named.get_args().map(ToOwned::to_owned).collect();
            let mut command = Command::new(container.place.binary());
            command.arg("oci").args(words).env("PATH", "/usr/bin:/bin");
            command.env("XDG_RUNTIME_DIR", container.place.join("runtime-dir")).env(host::TAG, &container.id);
            with_key(&command)
        };
        container.output(oci("create", &[&container.id])).ok();
        container.start();
        let mut exec = vec![container.id.as_str(), "probe"];
        exec.extend(search);
        // ENOKEY 126.
        let refused = ["search errno 126\n", "search errno 13\n"];
        let seen = container.output(oci("exec", &exec)).ok();
        assert!(refused.contains(&seen.as_str()), "{seen}");
        // The first process has none of it, either.
        let show = container.call_on("exec", &["sh", "-c", "cat /proc/keys"]);
        assert!(!show.out.contains("fumehood-secret"), "{show:?}");
        container.call("delete", &["--force"]).ok();
        let mut config = container.config.clone();
        config["process"]["args"] = json!(["probe", search[0], search[1]]);
        let run = oci("run", &[&container.id]);
        fs::write(container.bundle().join("config.json"), config.to_string()).unwrap();
        let seen = container.output(run);
        assert!(refused.contains(&seen.out.as_str()), "{seen:?}");
    }

    fn cve_2022_29162_nothing_is_inheritable_unless_it_is_asked_for(who: Who) {
        let Some(container) = Container::new("inheritable", who) else { return };
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.start();
        for args in [&[][..], &["--cap", "CAP_KILL"], &["--cap", "CAP_CHOWN,CAP_FOWNER"]] {
            let mut all = args.to_vec();
            all.extend([container.id.as_str(), "grep", "-E", "^Cap(Inh|Amb)", "/proc/self/status", "/proc/1/status"]);
            let out = container.output(container.command("exec", &all)).ok();
            assert_eq!(out.lines().count(), 4, "{out}");
            assert!(out.lines().all(|line| line.ends_with("\t0000000000000000")), "{out}");
        }
    }

    fn cve_2026_30892_a_user_is_never_taken_for_root(who: Who) {
        let Some(container) = Container::new("exec user", who) else { return };
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.start();
        for user in ["u", "", ":5", "1:", "-1", "+0", "4294967295", "4294967296", "0x0", " 0"] {
            let said = container.output(container.command("exec", &["--user", user, &container.id, "id"]));
            assert!(said.code != 0 && said.out.is_empty(), "{user:?}: {said:?}");
        }
        let said = container.output(container.command("exec", &["--user", "1:2", &container.id, "sh", "-c", "id -u; id -g"]));
        // An ordinary user's container has one user.
        assert_eq!(said.code == 0 && said.out == "1\n2\n", who == Who::Root, "{said:?}");
    }
}

fn overwrite(container: &Container) {
    let binary = container.place.binary();
    let before = fs::read(&binary).unwrap();
    container.create();
    container.start();
    let attacker = Inside::start(container, &["attacker", "overwrite"]);
    enter(container, 2.0);
    let said = attacker.end();
    assert!(number(&said, "held") > 0, "it was never even held: {said}");
    assert_eq!(number(&said, "wrote"), 0, "{said}");
    // As the program itself, and as its interpreter.
    container.place.write_executable("bundle/rootfs/bin/interpreted", "#!/proc/self/exe\n");
    for program in ["/proc/self/exe", "/bin/interpreted"] {
        _ = container.call_on("exec", &[program, "--version"]);
    }
    assert!(fs::read(&binary).unwrap() == before, "the runtime was overwritten");
    container.call("delete", &["--force"]).ok();
    let first = fs::read_to_string(container.bundle().join("config.json")).unwrap();
    for program in ["/proc/self/exe", "/bin/interpreted"] {
        let command = container.command("run", &[&container.id]);
        let mut config: serde_json::Value = serde_json::from_str(&first).unwrap();
        config["process"]["args"] = json!([program, "--version"]);
        fs::write(container.bundle().join("config.json"), config.to_string()).unwrap();
        _ = container.output(command);
        container.call("delete", &["--force"]).ok();
    }
    assert!(fs::read(&binary).unwrap() == before, "the runtime was overwritten");
}
