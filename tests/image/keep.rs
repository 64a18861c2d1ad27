//! What a run wrote becomes a layer: `run --keep`, `diff`, `commit`, `rm`, `ps --all`.

mod disk;
mod hostile;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use crate::{
    both,
    common::{Run, Who, granted_ids, host::eventually},
    run::made::{Made, dir, file, link, text},
};

/// As those who made it see it.
pub struct Kept {
    pub made: Made,
    pub who: Who,
    /// Of its runs' names, by which all that belongs to one is found on the host. In arguments it is `@`.
    prefix: String,
}

impl Kept {
    pub fn new(who: Who, test: &str) -> Option<Self> {
        let below = [
            dir("lower", 0o755),
            dir("lower/sub", 0o711),
            file("lower/sub/b", 0o644, b"b"),
            file("lower/a", 0o644, b"a"),
            dir("replaced", 0o755),
            file("replaced/old", 0o644, b"old"),
            dir("replaced/both", 0o755),
            file("replaced/both/old", 0o644, b"old"),
            dir("rights", 0o755),
            file("rights/only", 0o644, b"as they were"),
            file("gone", 0o644, b""),
            link("to-file", "etc/os"),
        ];
        let made = Made::new(who, test, &json!({"Env": ["PATH=/bin"], "Cmd": ["cat", "/etc/os"]}), &below)?;
        Some(Self::of_made(made, who))
    }

    pub fn of_made(made: Made, who: Who) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("k{}-{}-", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { made, who, prefix }
    }

    fn whole(&self, arg: &str) -> String {
        arg.strip_prefix('@').map_or_else(|| arg.to_owned(), |name| format!("{}{name}-x", self.prefix))
    }

    /// A run that is kept, of root inside.
    pub fn keep(&self, name: &str) -> Run {
        self.made.run().named(&self.whole(&format!("@{name}"))).probe().args(["--keep", "--user", "0"])
    }

    pub fn of(&self, image: &str) -> Run {
        Run::new(self.who).env("FUMEHOOD_STORE", self.made.store()).args(["--image", image])
    }

    #[track_caller]
    pub fn call(&self, args: &[&str]) -> String {
        let args: Vec<String> = args.iter().map(|arg| self.whole(arg)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        text(&self.made.call(&args).stdout)
            .replace(&self.prefix, "@")
            .replace("-x\n", "\n")
            .replace("-x ", " ")
            .replace("-x\"", "\"")
    }

    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.call(args)).unwrap()
    }

    /// A call that fails: what it says.
    #[track_caller]
    pub fn fails(&self, verb: &'static str, args: &[&str]) -> String {
        let run = Run::verb(self.who, verb).env("FUMEHOOD_STORE", self.made.store());
        let run = run.args(args.iter().map(|arg| self.whole(arg)));
        run.done().expect_error("").err()
    }

    fn tool(&self, program: &str, args: &[&str]) -> String {
        let place = &self.made.place;
        let mut command = Command::new(program);
        command.args(args).current_dir(place.path()).env("HOME", place.path());
        if let Some((uid, gid)) = self.who.ids() {
            std::os::unix::process::CommandExt::uid(&mut command, uid);
            std::os::unix::process::CommandExt::gid(&mut command, gid);
        }
        let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}; scripts/test installs it"));
        assert!(output.status.success(), "{program} {args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }
}

/// `SET` is what the probe takes for setxattr(2).
pub fn probed(line: &str) -> String {
    line.replace("SET", &format!("set:{},@", nix::libc::SYS_setxattr))
}

/// Everything that can be done to a tree, as a line of shell.
const CHANGES: &str = r#"
b() { /bin/busybox "$@"; }
set -e
echo new > /added; echo more >> /lower/a; rm /gone; rm -r /lower/sub
b mv /rights /renamed; b mv /etc/os /etc/os2; rm /to-file; b ln -s /nowhere/at/all /to-file
rm -r /replaced; mkdir -p /replaced/both; echo new > /replaced/new; echo new > /replaced/both/new
b chmod 1777 /srv; b chmod 600 /etc/group; b chmod 4755 /renamed/only; b chmod 751 /
mkdir -m 0 /closed; echo secret > /unread; b chmod 0 /unread
echo one > /hard; b ln /hard /lower/hard; b ln /hard /hard3; b ln -s /etc/passwd /soft; b mkfifo -m 640 /fifo
b dd if=/dev/zero of=/sparse bs=1 count=1 seek=1000000 2>/dev/null
touch "/$(printf 'new\nline')" "/$(printf 'not\377utf')" '/ blank ' '/back\slash' '/wh.not' "/'" '/$HOME'; cd /; touch -- -dash
d=/deep; mkdir $d; i=0; while [ $i -lt 40 ]; do d=$d/component-of-a-deep-path; mkdir $d; i=$((i+1)); done; echo deep > $d/$(printf 'x%.0s' 1 2 3 4 5 6 7 8)
/sandbox/probe calls SET/added,@user.note,@kept,4,0 SET/replaced,@user.of-dir,@1,1,0 >/dev/null
b touch -d '2001-02-03 04:05:06' /added /lower
rm /bin/true; echo '#!/bin/sh' > /bin/true; b chmod 755 /bin/true
"#;

/// What each of them was.
const TOLD: &str = r"C /
A / blank 
A /$HOME
A /'
A /-dash
A /added
A /back\\slash
C /bin
C /bin/true
A /closed
A /deep
C /etc
C /etc/group
D /etc/os
A /etc/os2
A /fifo
D /gone
A /hard
A /hard3
C /lower
C /lower/a
A /lower/hard
D /lower/sub
A /new\nline
A /not\xffutf
A /renamed
A /renamed/only
C /replaced
C /replaced/both
A /replaced/both/new
D /replaced/both/old
A /replaced/new
D /replaced/old
D /rights
A /soft
A /sparse
C /srv
C /to-file
A /unread
A /wh.not
";

/// A whole tree, but for what is mounted: paths, kinds, rights, owners, times, links, contents.
const LIST: &str = r#"
B=/bin/busybox
$B find / -xdev -type d -print0 | $B sort -z | $B xargs -0 $B stat -c '%n %f %u:%g %Y' | $B grep -v -E '^/(proc|dev|tmp|sandbox) '
$B find / -xdev ! -type d -print0 | $B sort -z | $B xargs -0 $B stat -c '%n %f %u:%g %Y %h %s %N'
$B find / -xdev -type f ! -path /unread -print0 | $B sort -z | $B xargs -0 $B sha256sum
"#;

both! {
    fn what_a_run_wrote_is_an_image(who: Who) {
        let Some(kept) = Kept::new(who, "what_a_run_wrote_is_an_image") else { return };
        let seen = kept.keep("all").cmd(&probed(&format!("{CHANGES}\n{LIST}"))).done().expect_code(0);
        assert!(seen.err().contains("kept as "), "{seen}");
        assert!(seen.out().lines().count() > 120, "{seen}");
        let told = kept.call(&["diff", "@all"]);
        let deep = |line: &&str| !line.contains("/component-of-a-deep-path");
        assert_eq!(told.lines().filter(deep).map(|line| format!("{line}\n")).collect::<String>(), TOLD);
        assert_eq!(told.lines().filter(|line| !deep(line)).count(), 41);
        let json = kept.json(&["diff", "@all", "--json"]);
        let odd = json.as_array().unwrap().iter().find(|row| row["path_base64"].is_string()).unwrap();
        assert_eq!((&odd["kind"], &odd["path_base64"]), (&json!("A"), &json!("L25vdP91dGY=")));

        let digest = kept.call(&["commit", "@all", "new:1"]);
        let again = kept.of("new:1").args(["--read-only", "--user", "0"]).cmd(LIST).done().expect_code(0);
        let (was, is) = (seen.out(), again.out());
        for (was, is) in was.lines().zip(is.lines()) {
            assert_eq!(was, is);
        }
        assert_eq!(was.len(), is.len());
        // At once, from the name, with what the image says.
        kept.of("new:1").arg("--").arg("cat").arg("/added").done().expect_code(0).expect_out("new\n");
        assert_eq!(kept.json(&["image", "inspect", "new:1"])["digest"], json!(digest.trim()));
        // And by what others make of it.
        kept.call(&["unpack", "new:1", "ours"]);
        kept.call(&["image", "export", "new:1", "exported", "--format", "oci"]);
        let rootless: &[&str] = if who == Who::Root { &[] } else { &["--rootless"] };
        kept.tool("skopeo", &["copy", "--quiet", "oci:exported", "oci:layout:test"]);
        kept.tool("umoci", &[&["unpack", "--image", "layout:test"], rootless, &["theirs"]].concat());
        let list = |bundle: &str| {
            let lister = crate::unpack::LISTER;
            let rootfs = format!("{bundle}/rootfs");
            let mut lines: Vec<String> =
                kept.tool("python3", &["-c", lister, &rootfs, &format!("{who:?}")]).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        // Neither is a user let into what has no rights.
        if who == Who::User {
            for bundle in ["ours", "theirs"] {
                for name in ["closed", "unread"] {
                    let path = kept.made.place.join(bundle).join("rootfs").join(name);
                    assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0, "{}", path.display());
                    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
                }
            }
        }
        let (ours, theirs) = (list("ours"), list("theirs"));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(ours.len(), theirs.len());
        assert!(ours.iter().any(|line| line.contains("user.note") && line.contains("kept")), "{ours:#?}");
    }

    fn the_same_changes_give_the_same_digest(who: Who) {
        let Some(kept) = Kept::new(who, "the_same_changes_give_the_same_digest") else { return };
        let digests = ["one", "two"].map(|name| {
            let done = kept.keep(name).env("SOURCE_DATE_EPOCH", "1600000000").json_result().cmd(&probed(CHANGES)).done().expect_code(0);
            let json = done.json();
            assert_eq!((&json["kept"]["name"], &json["error"]), (&json!(kept.whole(&format!("@{name}"))), &Value::Null));
            let run = Run::verb(who, "commit").env("FUMEHOOD_STORE", kept.made.store()).env("SOURCE_DATE_EPOCH", "1600000000");
            let committed = run.args([kept.whole(&format!("@{name}")).as_str(), &format!("same:{name}"), "--json"]).done().expect_code(0).json();
            assert_eq!(committed["names"], json!([format!("docker.io/library/same:{name}")]));
            (json["kept"]["layer"].clone(), committed["digest"].clone())
        });
        assert_eq!(digests[0], digests[1]);
        assert!(digests[0].0.as_str().unwrap().starts_with("sha256:"));
        kept.keep("three").env("SOURCE_DATE_EPOCH", "yesterday").cmd("echo ran").done().expect_error("SOURCE_DATE_EPOCH");
    }

    fn it_is_kept_however_it_ends(who: Who) {
        let Some(kept) = Kept::new(who, "it_is_kept_however_it_ends") else { return };
        let told = |name: &str| kept.call(&["diff", &format!("@{name}")]);
        kept.keep("failed").cmd("echo x > /left; exit 3").done().expect_code(3);
        assert_eq!(told("failed"), "A /left\n");
        kept.keep("signalled").cmd("echo x > /left; kill -SEGV $$").done().expect_code(139);
        assert_eq!(told("signalled"), "A /left\n");
        let line = "echo x > /left; exec /bin/busybox sleep 1000";
        kept.keep("late").args(["--timeout", "3s", "--json"]).cmd(line).done().expect_verdict("timeout");
        assert_eq!(told("late"), "A /left\n");
        let run = kept.keep("stopped").cmd("echo x > /left; echo up; exec /bin/busybox sleep 1000");
        let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        let running = kept.fails("diff", &["@stopped"]);
        // Of a user it is in another runtime directory, and not seen.
        let expected = if who == Who::Root { "is still running" } else { "no kept run called `" };
        assert!(running.contains(expected), "{running}");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(143));
        assert_eq!(told("stopped"), "A /left\n");
        // What could not be started has written nothing.
        kept.keep("nothing").program_args(["no-such"]).done().expect_code(127);
        assert!(kept.fails("diff", &["@nothing"]).contains("no kept run"));
        // Processes that the program left behind write to what is not kept any more.
        kept.keep("behind").cmd("(while :; do echo x >> /left; done) & echo y > /y").done().expect_code(0);
        assert!(told("behind").ends_with("A /y\n"));
        // And of the name again it is not.
        let again = kept.keep("late").cmd("true").done().expect_error("a kept run is called `");
        assert!(again.err().contains("fumehood rm k"));
    }

    fn a_killed_supervisor_keeps_nothing_and_leaves_nothing(who: Who) {
        let Some(kept) = Kept::new(who, "a_killed_supervisor_keeps_nothing") else { return };
        let run = kept.keep("lost").cmd("echo x > /left; echo up; exec /bin/busybox sleep 1000");
        let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        child.kill().unwrap();
        child.wait().unwrap();
        // Its end of the pipe is closed when the last process of the sandbox is gone.
        assert!(lines.next().is_none());
        assert!(kept.fails("diff", &["@lost"]).contains("no kept run"));
        assert!(!kept.made.store().join("runs").exists());
        kept.call(&["image", "prune"]);
        assert_eq!(fs::read_dir(kept.made.store().join("making")).unwrap().count(), 0);
        let cleanup = Run::verb(who, "cleanup").env("XDG_RUNTIME_DIR", run.place.join("runtime-dir"));
        let gone = eventually(|| {
            let mut command = cleanup.command();
            command.env("XDG_RUNTIME_DIR", run.place.join("runtime-dir")).output().unwrap().status.success()
                && crate::common::host::left_of(&run.name, &run.place).is_empty()
        });
        assert!(gone, "{:?}", crate::common::host::left_of(&run.name, &run.place));
        kept.keep("lost").cmd("touch /x").done().expect_code(0);
    }

    fn what_is_not_of_the_root_is_not_kept(who: Who) {
        let config = json!({"Env": ["PATH=/bin"], "Volumes": {"/data": {}, "/lower/vol": {}}, "WorkingDir": "/made/for/it"});
        let Some(made) = Made::new(who, "what_is_not_of_the_root_is_not_kept", &config, &[dir("lower", 0o755)]) else { return };
        let kept = Kept::of_made(made, who);
        let mine = kept.made.place.write("mine/file", "given").parent().unwrap().to_str().unwrap().to_owned();
        let run = kept.keep("apart").args(["--mount", &format!("{mine}:/mnt/mine:rw"), "--file", &format!("{mine}/file:/sandbox/in")]);
        run.cmd("touch /data/x /lower/vol/x /tmp/x /sandbox/x /dev/shm/x /mnt/mine/x").done().expect_code(0);
        assert_eq!(kept.call(&["diff", "@apart"]), "");
        assert_eq!(kept.json(&["diff", "@apart", "--json"]), json!([]));
        let run = kept.keep("beside").args(["--mount", &format!("{mine}:/mnt/mine:rw")]);
        run.cmd("touch /lower/x /mnt/beside").done().expect_code(0);
        assert_eq!(kept.call(&["diff", "@beside"]), "C /lower\nA /lower/x\nA /mnt\nA /mnt/beside\n");
    }

    fn a_commit_says_what_it_is_told_to(who: Who) {
        let Some(kept) = Kept::new(who, "a_commit_says_what_it_is_told_to") else { return };
        kept.keep("said").cmd("echo x > /left").done().expect_code(0);
        kept.call(&[
            "commit", "@said", "example.org/said:2", "--message", "with\nwords", "--author", "A <a@b>", "--change", "CMD [\"echo\", \"from cmd\"]",
            "-c", "ENV PATH=/opt:$PATH TWO='a b'", "-c", "LABEL l=1", "-c", "USER 7:8", "-c", "WORKDIR /srv", "-c", "EXPOSE 80", "-c", "VOLUME /v",
            "-c", "STOPSIGNAL SIGINT",
        ]);
        let about = kept.json(&["image", "inspect", "example.org/said:2"]);
        let config = &about["config"]["config"];
        let config = if config.is_null() { &about["config"] } else { config };
        assert_eq!(config["Cmd"], json!(["echo", "from cmd"]), "{about}");
        assert_eq!(config["Env"], json!(["PATH=/opt:/bin", "TWO=a b"]));
        assert_eq!((&config["User"], &config["WorkingDir"], &config["StopSignal"]), (&json!("7:8"), &json!("/srv"), &json!("SIGINT")));
        assert_eq!((&config["Labels"]["l"], &config["ExposedPorts"], &config["Volumes"]), (&json!("1"), &json!({"80/tcp": {}}), &json!({"/v": {}})));
        let history = kept.json(&["image", "history", "example.org/said:2", "--json"]);
        assert_eq!((&history[0]["comment"], history.as_array().unwrap().len()), (&json!("with\nwords"), 2));
        assert_eq!(history[0]["created_by"], json!("/bin/sh -c echo x > /left"));
        kept.of("example.org/said:2").done().expect_code(0).expect_out("from cmd\n");
        // A layer on a layer.
        kept.of("example.org/said:2").named(&kept.whole("@on-top")).args(["--keep", "--user", "0"]).cmd("rm /left; echo y > /etc/os").done().expect_code(0);
        assert_eq!(kept.call(&["diff", "@on-top"]), "C /etc\nC /etc/os\nD /left\n");
        kept.call(&["commit", "@on-top", "third"]);
        kept.of("third").args(["--user", "0"]).cmd("cat /etc/os; [ -e /left ] || echo gone").done().expect_code(0).expect_out("y\ngone\n");
        let wrong = kept.fails("commit", &["@said", "x", "--change", "RUN rm -rf /"]);
        assert!(wrong.contains("--change `RUN rm -rf /`"), "{wrong}");
        assert!(kept.fails("commit", &["@said", "Not A Name"]).contains("error: "));
        assert!(kept.fails("commit", &["unknown", "x"]).contains("no kept run called `unknown`"));
        assert!(kept.fails("diff", &["../../marker"]).contains("no kept run"));
    }

    /// From the moment on that the image is found: here the run waits for its code.
    fn what_a_run_stands_on_that_will_be_kept_stays(who: Who) {
        let bash = file("bin/bash", 0o755, b"#!/bin/sh\nexec /bin/sh \"$@\"\n");
        let config = json!({"Env": ["PATH=/bin"]});
        let Some(made) = Made::new(who, "what_a_run_stands_on", &config, &[bash]) else { return };
        let kept = Kept::of_made(made, who);
        let run = kept.keep("held").args(["-r", "bash", "-"]);
        let mut waiting = run.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let making = kept.made.store().join("making");
        let held = || fs::read_dir(&making).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("pin-"));
        assert!(eventually(held));
        kept.call(&["image", "rm", "made"]);
        kept.call(&["image", "prune"]);
        assert_eq!(kept.call(&["image", "list"]).lines().count(), 1);
        waiting.stdin.take().unwrap().write_all(b"echo here > /left").unwrap();
        let output = waiting.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        kept.call(&["commit", "@held", "again"]);
        kept.of("again").cmd("cat /left /etc/os").done().expect_code(0).expect_out("here\nsmall\n");
        kept.call(&["rm", "--all"]);
        kept.call(&["image", "rm", "again"]);
        assert_eq!(fs::read_dir(kept.made.store().join("blobs/sha256")).unwrap().count(), 0, "it is held no longer");
    }

    fn what_a_kept_run_needs_stays(who: Who) {
        let Some(kept) = Kept::new(who, "what_a_kept_run_needs_stays") else { return };
        kept.keep("needed").cmd("echo x > /left").done().expect_code(0);
        kept.keep("other").cmd("echo x > /other").done().expect_code(0);
        kept.call(&["image", "rm", "made"]);
        kept.call(&["image", "prune"]);
        assert_eq!(kept.call(&["diff", "@needed"]), "A /left\n");
        let all = kept.json(&["ps", "--all", "--json"]);
        assert_eq!((&all[0]["status"], &all[0]["name"], &all[0]["image"]["name"]), (&json!("kept"), &json!("@needed"), &json!("made")));
        let listed = || kept.call(&["ps", "-aq"]).lines().filter(|line| line.starts_with('@')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(listed(), ["@needed", "@other"]);
        assert!(kept.call(&["ps", "--all"]).lines().nth(1).unwrap().starts_with("@needed  kept"));
        assert_eq!(kept.call(&["rm", "@other"]), "@other\n");
        kept.call(&["commit", "@needed", "made"]);
        kept.of("made").args(["--user", "0"]).cmd("cat /left").done().expect_code(0).expect_out("x\n");
        kept.call(&["image", "rm", "made"]);
        assert_eq!(kept.call(&["rm", "--all"]), "@needed\n");
        let blobs = kept.made.store().join("blobs/sha256");
        assert_eq!(fs::read_dir(blobs).unwrap().count(), 0, "with the last run that needed them all went");
        assert!(listed().is_empty());
        assert!(kept.fails("rm", &["@needed"]).contains("no kept run called `"));
        // Of a damaged store what is damaged can be removed.
        kept.call(&["image", "import", "layout", "--name", "made"]);
        kept.keep("broken").cmd("true").done().expect_code(0);
        fs::OpenOptions::new().write(true).open(kept.made.store().join("runs").join(kept.whole("@broken"))).unwrap().write_all_at(b"!", 0).unwrap();
        assert!(kept.fails("diff", &["@broken"]).contains("-broken-x`: "));
        kept.call(&["ps", "--all"]);
        assert_eq!(kept.call(&["rm", "@broken"]), "@broken\n");
    }

    fn what_a_kept_run_stands_on_stays_while_it_runs(who: Who) {
        let Some(kept) = Kept::new(who, "what_a_kept_run_stands_on_stays_while_it_runs") else { return };
        let run = kept.keep("going").arg("-i").cmd("echo up; read line; echo x > /left");
        let mut child =
            run.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        // Neither waits for it.
        kept.call(&["image", "rm", "made"]);
        kept.call(&["image", "prune"]);
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        kept.call(&["commit", "@going", "made"]);
        kept.of("made").args(["--user", "0"]).cmd("cat /left").done().expect_code(0).expect_out("x\n");
        kept.call(&["image", "rm", "made"]);
        kept.call(&["rm", "@going"]);
        assert_eq!(fs::read_dir(kept.made.store().join("blobs/sha256")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(kept.made.store().join("making")).unwrap().count(), 0);
    }

    fn what_cannot_be_kept_is_told_before(who: Who) {
        let Some(kept) = Kept::new(who, "what_cannot_be_kept_is_told_before") else { return };
        kept.keep("no").arg("--read-only").cmd("true").done().expect_error("--keep and --read-only");
        let host = Run::new(who).env("FUMEHOOD_STORE", kept.made.store()).args(["--keep", "--writable"]);
        host.cmd("true").done().expect_error("cannot be kept").expect_hint();
        // A directory as root is no image, and what it was can still be seen.
        kept.call(&["unpack", "made", "bundle"]);
        let root = kept.made.place.text("bundle/rootfs");
        if who == Who::Root {
            // The sandbox's ids are to get there.
            fs::set_permissions(kept.made.place.join("bundle"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let run = Run::new(who).named(&kept.whole("@of-dir")).env("FUMEHOOD_STORE", kept.made.store());
        let run = run.args(["--rootfs", &root, "--writable", "--keep", "--user", "0"]);
        run.args(["--env", "PATH=/bin"]).cmd("echo x > /left; rm /gone").done().expect_code(0);
        if who == Who::User {
            assert_eq!(kept.call(&["diff", "@of-dir"]), "D /gone\nA /left\n");
        } else {
            // The root directory is the program's, whose mode the directory's need not be.
            assert!(kept.call(&["diff", "@of-dir"]).ends_with("A /left\n"));
        }
        assert!(kept.fails("commit", &["@of-dir", "x"]).contains("on no image"));
    }

    fn others_read_what_was_committed(who: Who) {
        let Some(kept) = Kept::new(who, "others_read_what_was_committed") else { return };
        kept.keep("shown").cmd("echo shown > /left; rm /gone").done().expect_code(0);
        kept.call(&["commit", "@shown", "example.org/shown:1", "-m", "why"]);
        for (form, to) in [("oci-archive", "o.tar"), ("docker-archive", "d.tar")] {
            kept.call(&["image", "export", "example.org/shown:1", to, "--format", form]);
            let seen: Value = serde_json::from_str(&kept.tool("skopeo", &["inspect", &format!("{form}:{to}")])).unwrap();
            assert_eq!(seen["Layers"].as_array().unwrap().len(), 2, "{seen}");
        }
        if who == Who::Root {
            let (root, run) = (kept.made.place.text("podman"), kept.made.place.text("podman-run"));
            let own = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
            let podman = |args: &[&str]| kept.tool("podman", &[&own[..], args].concat());
            podman(&["load", "--quiet", "--input", "o.tar"]);
            // Each layer is a directory with all that is in those below.
            let layers = fs::read_dir(kept.made.place.join("podman/vfs/dir")).unwrap().map(|entry| entry.unwrap().path());
            let seen = layers.map(|layer| (layer.join("left").exists(), layer.join("gone").exists())).collect::<Vec<_>>();
            assert!(seen.len() == 2 && seen.contains(&(true, false)) && seen.contains(&(false, true)), "{seen:?}");
            podman(&["rmi", "--all"]);
        }
    }
}

/// An ordinary user with one id: the program takes all for its own, and what was there is not made so in the image.
#[test]
fn what_was_roots_stays_roots() {
    let Some(who) = Who::User.find("what_was_roots_stays_roots") else { return };
    let Some(made) = Made::new(who, "what_was_roots_stays_roots", &json!({"Env": ["PATH=/bin"]}), &[]) else {
        return;
    };
    let kept = Kept::of_made(made, who);
    let run = kept.made.run().named(&kept.whole("@one")).args(["--keep"]);
    run.cmd("echo new > /etc/new; echo changed > /etc/os").done().expect_code(0);
    kept.call(&["commit", "@one", "owned"]);
    kept.call(&["image", "export", "owned", "exported", "--format", "oci"]);
    kept.tool("skopeo", &["copy", "--quiet", "oci:exported", "dir:blobs"]);
    let manifest: Value = serde_json::from_str(&kept.made.place.read("blobs/manifest.json")).unwrap();
    let layer = manifest["layers"][1]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let listed = kept.tool("tar", &["--numeric-owner", "-tvzf", &format!("blobs/{layer}")]);
    for (path, owner) in [(" ./", " 0/0 "), (" etc/", " 0/0 "), (" etc/os", " 0/0 "), (" etc/new", " 1000/1000 ")] {
        let line = listed.lines().find(|line| line.ends_with(path));
        assert!(line.is_some_and(|line| line.contains(owner)), "{path}: {listed}");
    }
}

/// An ordinary user whose sandbox has many ids: owners come out as they were inside, and what the user may not read as well.
#[test]
fn owners_are_as_the_program_saw_them() {
    let Some(who) = Who::User.find("owners_are_as_the_program_saw_them") else { return };
    if granted_ids(who, "owners_are_as_the_program_saw_them").is_none() {
        return;
    }
    let open = [dir("open", 0o777)];
    let Some(made) = Made::new(who, "owners_are_as_the_program_saw_them", &json!({"Env": ["PATH=/bin"]}), &open) else {
        return;
    };
    let kept = Kept::of_made(made, who);
    let line = "mkdir -m 700 /open/own; echo secret > /open/own/file; /bin/busybox chmod 0 /open/own/file; \
                /sandbox/probe calls SET/open/own,@user.note,@x,1,0 >/dev/null; stat -c %u:%g /open/own";
    let run = kept.made.run().named(&kept.whole("@granted")).probe().args(["--keep", "--user", "33:34"]);
    run.cmd(&probed(line)).done().expect_code(0).expect_out("33:34\n");
    assert_eq!(kept.call(&["diff", "@granted"]), "C /open\nA /open/own\nA /open/own/file\n");
    kept.call(&["commit", "@granted", "owned"]);
    kept.call(&["image", "export", "owned", "exported", "--format", "oci"]);
    kept.tool("skopeo", &["copy", "--quiet", "oci:exported", "dir:blobs"]);
    let manifest: Value = serde_json::from_str(&kept.made.place.read("blobs/manifest.json")).unwrap();
    let layer = manifest["layers"][1]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let listed = kept.tool("tar", &["--numeric-owner", "-tvzf", &format!("blobs/{layer}")]);
    let owner = |path: &str| listed.lines().find(|line| line.ends_with(path)).unwrap().to_owned();
    assert!(owner(" open/own/").starts_with("drwx------ 33/34 "), "{listed}");
    assert!(owner(" open/own/file").starts_with("---------- 33/34 "), "{listed}");
    assert!(owner(" ./").contains(" 0/0 "), "{listed}");
}
