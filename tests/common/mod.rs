//! The one way in which all rings run the command under test, and what they all hold it to.
//!
//! A [`Run`] starts the real binary as root or as the ordinary user `fumehood-test`, in a [`Place`] of its own. When it
//! has ended, [`Run::done`] looks at the host: whatever the test was about, no process, cgroup, state record, mount or
//! changed marker may be left.

#![allow(dead_code, reason = "no ring uses all of it")]

pub mod host;
pub mod probe;
pub mod terminal;
pub mod unified;

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, chown},
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use serde_json::Value;

/// The user that scripts/test makes.
pub const USER: &str = "fumehood-test";
/// Nothing in any ring takes near as long, even where the processor is emulated; what does, hangs.
pub const LONGEST: Duration = Duration::from_secs(240);
/// As much as is promised takes minutes where two processors run unoptimised code.
const LONGEST_OF_LONG: Duration = Duration::from_secs(1200);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command under test: cargo's, or the one that `FUMEHOOD_TEST_BINARY` names, as where there is no cargo.
pub fn binary() -> PathBuf {
    std::env::var_os("FUMEHOOD_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_fumehood").into(), PathBuf::from)
}

/// Says why a test does not run here. Where everything should be there, that is a failure.
pub fn skip(name: &str, reason: &str) {
    // Not with eprintln!, which the harness keeps to itself when a test passes.
    _ = writeln!(std::io::stderr(), "SKIP {name}: {reason}");
    assert!(std::env::var_os("CI").is_none(), "SKIP {name}: {reason}: nothing may be skipped in CI");
}

/// The criu that scripts/test has found to work here; `None`, said aloud, where there is none.
pub fn criu(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("FUMEHOOD_TEST_CRIU").map(PathBuf::from);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/criu/criu");
    let found = named.or_else(|| Some(kept).filter(|kept| kept.exists()));
    if found.is_none() {
        skip(test, "there is no criu: FUMEHOOD_TEST_CRIU=$(scripts/criu), as scripts/test does");
    }
    found
}

/// Who runs fumehood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Root,
    /// `fumehood-test`, or whoever runs the tests if that is not root.
    User,
}

impl Who {
    /// `None`, said aloud, where the tests can't become them.
    pub fn find(self, test: &str) -> Option<Self> {
        let root = nix::unistd::geteuid().is_root();
        match self {
            Self::Root if !root => skip(&format!("{test} as root"), "the tests do not run as root"),
            Self::User if root && test_user().is_none() => {
                skip(&format!("{test} as user"), &format!("there is no user {USER}: useradd --system {USER}"));
            }
            _ => return Some(self),
        }
        None
    }

    /// The ids to change to; `None`: they are the test's own.
    pub fn ids(self) -> Option<(u32, u32)> {
        match self {
            Self::User if nix::unistd::geteuid().is_root() => test_user(),
            _ => None,
        }
    }

    pub fn uid(self) -> u32 {
        self.ids().map_or_else(|| nix::unistd::geteuid().as_raw(), |(uid, _)| uid)
    }

    /// Whether limits are held by cgroups: elsewhere some are held by other means, and some not at all.
    pub fn has_cgroup(self) -> bool {
        let done = Run::new(self).args(["--json"]).cmd("true").done();
        done.json()["controls"]["memory"] == "cgroup"
    }
}

/// The first ranges of user and of group ids that the files grant to whom the tests run as; `None`, said aloud, where
/// there are none or nobody to map them, and for root, who needs neither.
pub fn granted_ids(who: Who, test: &str) -> Option<[(u32, u32); 2]> {
    if who == Who::Root {
        return None;
    }
    let uid = who.uid();
    let name = nix::unistd::User::from_uid(uid.into()).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let first = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().find_map(|line| {
            let (owner, range) = line.split_once(':')?;
            let (first, count) = range.split_once(':')?;
            (owner == name || owner == uid.to_string()).then_some((first.parse().ok()?, count.parse().ok()?))
        })
    };
    let helpers = ["/usr/bin/newuidmap", "/usr/bin/newgidmap"].iter().all(|helper| Path::new(helper).exists());
    match (first("/etc/subuid"), first("/etc/subgid")) {
        (Some(uids), Some(gids)) if helpers => return Some([uids, gids]),
        (Some(_), Some(_)) => skip(test, "newuidmap is not installed: apt install uidmap"),
        _ => skip(test, &format!("no subordinate ids: usermod --add-subuids … --add-subgids … {name}")),
    }
    None
}

fn test_user() -> Option<(u32, u32)> {
    let user = nix::unistd::User::from_name(USER).ok().flatten()?;
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

/// Copies what is to be executed. In a process of its own: a child that another thread forks meanwhile would hold the
/// copy open for writing, and it could not be executed (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}

/// Makes two tests of each: `name::as_root` and `name::as_user`.
#[macro_export]
macro_rules! both {
    ($($(#[$attribute:meta])* fn $name:ident($who:ident: $type:ty) $body:block)+) => { $(
        $(#[$attribute])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn check($who: $type) $body

            #[test]
            fn as_root() {
                if let Some(who) = $crate::common::Who::Root.find(stringify!($name)) {
                    check(who);
                }
            }

            #[test]
            fn as_user() {
                if let Some(who) = $crate::common::Who::User.find(stringify!($name)) {
                    check(who);
                }
            }
        }
    )+ };
}

/// A directory on the host that belongs to whom the test runs as, with the binary, and a marker outside of
/// everything that a sandbox is given.
#[derive(Debug)]
pub struct Place {
    dir: tempfile::TempDir,
    ids: Option<(u32, u32)>,
}

const MARKER: &str = "untouched";

impl Place {
    pub fn new(who: Who) -> Self {
        let dir = tempfile::Builder::new().prefix("fumehood-test-").tempdir_in("/tmp").unwrap();
        let place = Self { dir, ids: who.ids() };
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // The target directory may be where an ordinary user can't look.
        if fs::hard_link(binary(), place.binary()).is_err() {
            copy_program(&binary(), &place.binary());
        }
        place.own(place.path());
        place.write("marker", MARKER);
        place.mkdir("runtime-dir");
        fs::set_permissions(place.join("runtime-dir"), fs::Permissions::from_mode(0o700)).unwrap();
        place
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.join(name).to_str().unwrap().to_owned()
    }

    pub fn binary(&self) -> PathBuf {
        self.join("fumehood")
    }

    pub fn own(&self, path: &Path) {
        if let Some((uid, gid)) = self.ids {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    /// A file, with the directories above it.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let name = name.as_ref();
        if let Some(parent) = name.parent() {
            self.mkdir(parent);
        }
        let path = self.join(name);
        fs::write(&path, content).unwrap();
        self.own(&path);
        path
    }

    pub fn write_executable(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub fn mkdir(&self, name: impl AsRef<Path>) -> PathBuf {
        let mut path = self.path().to_owned();
        for part in name.as_ref() {
            path.push(part);
            if !path.is_dir() {
                fs::create_dir(&path).unwrap();
                self.own(&path);
            }
        }
        path
    }

    pub fn symlink(&self, to: impl AsRef<Path>, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        std::os::unix::fs::symlink(to, &path).unwrap();
        path
    }

    pub fn read(&self, name: impl AsRef<Path>) -> String {
        let path = self.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// One call of fumehood.
#[derive(Debug)]
pub struct Run {
    pub who: Who,
    pub place: Place,
    pub name: String,
    wrapper: Vec<OsString>,
    verb: Option<&'static str>,
    args: Vec<OsString>,
    last: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
}

impl Run {
    pub fn new(who: Who) -> Self {
        Self::verb(who, "run")
    }

    /// `run` and `explain` get a name of their own, by which all that belongs to them is found again.
    pub fn verb(who: Who, verb: &'static str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{count}-x", std::process::id());
        Self {
            who,
            place: Place::new(who),
            name,
            wrapper: Vec::new(),
            verb: Some(verb),
            args: Vec::new(),
            last: Vec::new(),
            env: Vec::new(),
            input: None,
        }
    }

    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub fn json_result(self) -> Self {
        self.arg("--json")
    }

    pub fn cmd(self, line: &str) -> Self {
        self.args(["--cmd", line])
    }

    pub fn eval(self, runtime: &str, code: &str) -> Self {
        self.args(["-r", runtime, "-e", code])
    }

    pub fn python(self, code: &str) -> Self {
        self.eval("python", code)
    }

    /// What comes after everything else: the program's own arguments.
    pub fn program_args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.last.push("--".into());
        self.last.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// A file of the host that is put into /sandbox.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.place.write(name, content);
        self.arg("--file").arg(path)
    }

    /// The C program of `tests/helpers/probe.c` as `/sandbox/probe`.
    pub fn probe(self) -> Self {
        let path = self.place.write_executable("probe", probe::binary());
        self.arg("--file").arg(path)
    }

    /// A variable of fumehood's own environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// A command that executes fumehood as its last arguments.
    pub fn wrapped(mut self, wrapper: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.wrapper = wrapper.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    pub fn command(&self) -> Command {
        let mut words = self.wrapper.clone();
        words.push(self.place.binary().into());
        words.extend(self.verb.map(OsString::from));
        if matches!(self.verb, Some("run" | "explain")) {
            words.extend(["--name".into(), self.name.clone().into()]);
            // To run a ring again on another kernel than this one's.
            let isolation = std::env::var_os("FUMEHOOD_TEST_ISOLATION");
            if let Some(isolation) = isolation.filter(|_| !self.args.iter().any(|arg| arg == "--isolation")) {
                words.extend(["--isolation".into(), isolation]);
            }
        }
        words.extend(self.args.iter().cloned().chain(self.last.iter().cloned()));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.place.path()).env_clear();
        command.env("PATH", PATH).env("HOME", self.place.path()).env("LANG", "C.UTF-8");
        command.env("XDG_RUNTIME_DIR", self.place.join("runtime-dir")).env(host::TAG, &self.name);
        // To run a ring of gVisor's again with another release.
        if let Some(runsc) = std::env::var_os("FUMEHOOD_TEST_RUNSC") {
            command.env("FUMEHOOD_RUNSC", runsc);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some((uid, gid)) = self.who.ids() {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Runs it to its end and holds it to what every run is held to.
    pub fn done(self) -> Done {
        let before = host::Look::now();
        let command = self.command();
        let done = self.finish(command);
        done.check_nothing_left();
        before.assert_unchanged();
        done
    }

    pub fn finish(self, mut command: Command) -> Done {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.wait_for(child)
    }

    pub fn wait_for(self, mut child: Child) -> Done {
        let mut stdin = child.stdin.take();
        let input = self.input.clone();
        std::thread::spawn(move || {
            if let (Some(stdin), Some(input)) = (&mut stdin, input) {
                // It need not read it.
                _ = stdin.write_all(&input);
            }
        });
        let (sender, receiver) = mpsc::channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] =
            [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
        for (number, stream) in streams.into_iter().enumerate() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                if let Some(mut stream) = stream {
                    _ = stream.read_to_end(&mut bytes);
                }
                _ = sender.send((number, bytes));
            });
        }
        let mut streams = [Vec::new(), Vec::new()];
        let longest = if std::env::var_os("FUMEHOOD_LONG").is_some() { LONGEST_OF_LONG } else { LONGEST };
        for _ in 0..2 {
            match receiver.recv_timeout(longest) {
                Ok((number, bytes)) => streams[number] = bytes,
                Err(_) => {
                    _ = child.kill();
                    panic!("it hangs, or something holds its output open: {:?}", self.args);
                }
            }
        }
        let status = child.wait().unwrap();
        let [stdout, stderr] = streams;
        Done { run: self, code: status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)), stdout, stderr }
    }
}

/// A call that has ended.
#[derive(Debug)]
pub struct Done {
    pub run: Run,
    /// The exit status; negative if fumehood itself died of a signal.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Done {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub fn place(&self) -> &Place {
        &self.run.place
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("no JSON: {error}: {self}"))
    }

    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    #[track_caller]
    pub fn expect_out(self, out: &str) -> Self {
        assert_eq!(self.out(), out, "{self}");
        self
    }

    /// The verdict of a `--json` result.
    #[track_caller]
    pub fn expect_verdict(self, verdict: &str) -> Self {
        assert_eq!(self.json()["verdict"], verdict, "{self}");
        self
    }

    /// An error of fumehood's own as a person reads it: one line that says what, at most one that says what to do.
    #[track_caller]
    pub fn expect_error(self, part: &str) -> Self {
        let done = self.expect_code(125);
        let err = done.err();
        let lines: Vec<_> = err.lines().collect();
        assert!(lines.first().is_some_and(|line| line.starts_with("error: ")), "{done}");
        assert!(lines[0].contains(part), "no `{part}` in: {done}");
        assert!(lines.len() <= 2 && lines[1..].iter().all(|line| line.starts_with("hint: ")), "{done}");
        assert!(done.stdout.is_empty(), "{done}");
        done
    }

    #[track_caller]
    pub fn expect_hint(self) -> Self {
        assert!(self.err().lines().any(|line| line.starts_with("hint: ")), "no hint: {self}");
        self
    }

    #[track_caller]
    pub fn check_nothing_left(&self) {
        let left = host::left_of(&self.run.name, &self.run.place);
        assert!(left.is_empty(), "left behind: {left:#?}\n{self}");
        assert_eq!(self.place().read("marker"), MARKER, "{self}");
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let args: Vec<_> = self.run.args.iter().chain(&self.run.last).map(|arg| arg.to_string_lossy()).collect();
        let short = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).into_owned();
        write!(
            f,
            "as {:?}: {args:?}\nstatus {}\nstdout: {}\nstderr: {}",
            self.run.who,
            self.code,
            short(&self.stdout),
            short(&self.stderr)
        )
    }
}

/// An argument that is no text.
pub fn raw(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
