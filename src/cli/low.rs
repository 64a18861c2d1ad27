//! The words of a command line as [`FLAGS`] reads them: each value checked by itself, and all against each
//! other. No clap: this is on the way to every launch.

use std::{
    ffi::{OsStr, OsString},
    num::NonZeroUsize,
    path::PathBuf,
};

use fumehood::{
    Result,
    batch::Format,
    error::Hint,
    image::store::Pin,
    net::{
        policy::{Injection, Private, Rule},
        publish::Publish,
    },
    packages::Index,
    plan::{landlock::Policy, profile::Builtin, seccomp::Profile as SeccompProfile},
    request::{Bytes, Fetch, Hostname, Limits, Mount, Rootfs, SandboxId, Secret, User, gvisor::Platform},
};

use super::{
    flags::{BATCH, FLAGS, Flag, Given, Kind},
    policy::NetworkMode,
    usage::{UsageError, nearest},
};

/// Which command the options are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Run,
    Explain,
    Batch,
}

/// What is for one run that somebody watches.
const NOT_BATCH: [&str; 11] =
    ["interactive", "tty", "get", "bundle", "keep", "json", "events", "out", "name", "publish", "log-network"];

impl Verb {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Explain => "explain",
            Self::Batch => "batch",
        }
    }

    pub fn takes(self, flag: &Flag) -> bool {
        match self {
            Self::Run => !flag.explain_only,
            Self::Explain => true,
            Self::Batch => !flag.explain_only && !NOT_BATCH.contains(&flag.long),
        }
    }

    /// All options that it takes.
    pub fn flags(self) -> impl Iterator<Item = &'static Flag> {
        let own = if self == Self::Batch { BATCH } else { &[] };
        own.iter().chain(FLAGS.iter().filter(move |flag| self.takes(flag)))
    }
}

/// What was typed.
#[derive(Debug, Default)]
pub struct Low {
    pub file: Option<OsString>,
    /// What follows `--`.
    pub args: Vec<OsString>,
    pub eval: Option<OsString>,
    pub cmd: Option<String>,
    pub bundle: Option<PathBuf>,
    pub runtime: Option<String>,
    pub stdin: Option<OsString>,
    pub interactive: bool,
    pub tty: bool,
    pub files: Vec<(PathBuf, Option<PathBuf>)>,
    pub dirs: Vec<(PathBuf, Option<PathBuf>)>,
    pub fetch: Vec<Fetch>,
    pub mounts: Vec<Mount>,
    pub exclude: Vec<PathBuf>,
    pub rootfs: Option<Rootfs>,
    pub image: Option<String>,
    pub entrypoint: Option<OsString>,
    pub store: Option<PathBuf>,
    pub install: Vec<String>,
    pub index: Option<Index>,
    pub writable: bool,
    pub read_only: bool,
    pub keep: bool,
    /// Holds the image that a kept run will stand on.
    pub pin: Option<Pin>,
    pub limits: Limits,
    pub timeout_asked: bool,
    pub env: Vec<OsString>,
    pub env_files: Vec<PathBuf>,
    pub secrets: Vec<Secret>,
    pub user: Option<User>,
    pub workdir: Option<PathBuf>,
    pub hostname: Option<Hostname>,
    pub network: Option<NetworkMode>,
    pub allow: Vec<Rule>,
    pub deny: Vec<Rule>,
    pub allow_private: Vec<Private>,
    pub inject: Vec<Injection>,
    pub log_network: Option<OsString>,
    pub publish: Vec<Publish>,
    pub setup: Option<String>,
    pub setup_network: Option<NetworkMode>,
    pub gvisor: bool,
    pub platform: Option<Platform>,
    pub profile: Option<&'static Builtin>,
    pub seccomp: Option<SeccompProfile>,
    pub landlock: Option<Policy>,
    pub json: bool,
    pub events: bool,
    pub spec: bool,
    pub out: Option<PathBuf>,
    pub id: Option<SandboxId>,
    pub quiet: bool,
    pub help: bool,
    pub batch: Many,
}

/// What was typed for `batch` alone.
#[derive(Debug, Default)]
pub struct Many {
    pub output: Option<PathBuf>,
    pub workers: Option<NonZeroUsize>,
    pub memory: Option<Bytes>,
    pub cpus: Option<f64>,
    pub rate: Option<f64>,
    pub format: Option<Format>,
    pub defaults: Option<(PathBuf, String)>,
    pub unordered: bool,
    pub resume: bool,
    pub force: bool,
    pub fail_fast: bool,
    pub retries: u32,
    /// `None`: as many as is best.
    pub pool: Option<usize>,
    pub preload: Vec<String>,
    pub artifacts: Option<PathBuf>,
    pub summary: Option<PathBuf>,
    pub dry_run: bool,
}

/// Options that contradict one another, and why where it is not plain.
const CONFLICTS: &[(&str, &str, &str)] = &[
    ("bundle", "image", ""),
    ("bundle", "rootfs", "a bundle has a root of its own"),
    ("bundle", "runtime", "a bundle names its program itself"),
    ("cmd", "entrypoint", "a line of shell is run by the shell"),
    ("bundle", "install", "a bundle has all that it has"),
    ("cmd", "install", "a line of shell has no packages; name the language with --runtime"),
    ("cmd", "runtime", "a line of shell is run by the shell"),
    ("entrypoint", "eval", "source code is run by its language's program"),
    ("entrypoint", "runtime", "source code is run by its language's program"),
    ("events", "json", ""),
    ("force", "resume", "one begins anew, the other goes on"),
    ("image", "rootfs", ""),
    ("interactive", "stdin", ""),
    ("json", "spec", ""),
    ("stdin", "tty", ""),
    ("events", "tty", "a terminal's output goes to your terminal"),
    ("json", "tty", "a terminal's output goes to your terminal"),
    ("keep", "read-only", "nothing is written that could be kept"),
    ("read-only", "writable", ""),
    ("out", "tty", "a terminal's output goes to your terminal"),
];

/// Reads the words after the verb.
pub fn parse(verb: Verb, words: impl IntoIterator<Item = OsString>) -> Result<Low> {
    let mut low = Low::default();
    let mut given = GivenFlags::default();
    let mut words = lexopt::Parser::from_args(words);
    loop {
        if let Some(mut raw) = words.try_raw_args()
            && raw.next_if(|word| word == "--").is_some()
        {
            low.args = raw.collect();
            break;
        }
        let flag = match words.next().map_err(|error| misread(&error).into_error())? {
            None => break,
            Some(lexopt::Arg::Value(word)) => {
                match &low.file {
                    None => low.file = Some(word),
                    Some(file) => {
                        let file = file.clone();
                        return Err(UsageError::UnexpectedArgument { verb: verb.name(), file, arg: word }.into_error());
                    }
                }
                continue;
            }
            Some(lexopt::Arg::Long(name)) => match index(verb, |flag| flag.is(name)) {
                Some(flag) => flag,
                None => return Err(unknown(verb, low.file, format!("--{name}"), name).into_error()),
            },
            Some(lexopt::Arg::Short(letter)) => match index(verb, |flag| flag.short == Some(letter)) {
                Some(flag) => flag,
                None => return Err(unknown(verb, low.file, format!("-{letter}"), "").into_error()),
            },
        };
        given.add(flag).map_err(Hint::into_error)?;
        let flag = at(flag);
        match &flag.kind {
            Kind::Switch(set) => set(&mut low),
            Kind::Value { set, name, .. } => {
                let raw = words
                    .value()
                    .map_err(|_| UsageError::MissingValue { flag: format!("--{}", flag.long), name }.into_error())?;
                set(&mut low, Given { flag, raw })?;
            }
        }
        if low.help {
            return Ok(low);
        }
    }
    low.check(verb, &given).map_err(Hint::into_error)?;
    Ok(low)
}

fn index(verb: Verb, wanted: impl Fn(&Flag) -> bool) -> Option<usize> {
    let own = BATCH.iter().position(|flag| verb == Verb::Batch && wanted(flag)).map(|index| FLAGS.len() + index);
    own.or_else(|| FLAGS.iter().position(|flag| verb.takes(flag) && wanted(flag)))
}

/// Those of `batch` come after all others.
fn at(index: usize) -> &'static Flag {
    if index < FLAGS.len() { &FLAGS[index] } else { &BATCH[index - FLAGS.len()] }
}

fn unknown(verb: Verb, file: Option<OsString>, flag: String, name: &str) -> UsageError {
    let known = verb.flags().map(|flag| flag.long);
    UsageError::UnknownFlag { verb: verb.name(), flag, file, nearest: nearest(name, known) }
}

fn misread(error: &lexopt::Error) -> UsageError {
    let flag = match error {
        lexopt::Error::UnexpectedValue { option, .. } => option.trim_start_matches('-').to_owned(),
        other => other.to_string(),
    };
    UsageError::UnexpectedValue { flag }
}

/// Which flags were given, by their place in the table.
#[derive(Debug, Default)]
struct GivenFlags(u128);

const _: () = assert!(FLAGS.len() + BATCH.len() <= u128::BITS as usize);

impl GivenFlags {
    fn add(&mut self, index: usize) -> Result<(), UsageError> {
        let bit = 1 << index;
        if self.0 & bit != 0 && !at(index).repeatable {
            return Err(UsageError::Twice { flag: at(index).long });
        }
        self.0 |= bit;
        Ok(())
    }

    fn has(&self, long: &str) -> bool {
        FLAGS.iter().chain(BATCH).position(|flag| flag.long == long).is_some_and(|index| self.0 & (1 << index) != 0)
    }
}

impl Low {
    fn check(&self, verb: Verb, given: &GivenFlags) -> Result<(), UsageError> {
        let source = self.file.is_some() && verb != Verb::Batch;
        if self.interactive && self.file.as_deref() == Some(OsStr::new("-")) {
            return Err(UsageError::Conflict {
                first: "-i".to_owned(),
                second: "FILE `-`".to_owned(),
                why: "standard input is the code",
            });
        }
        let mut sources = [
            source.then_some("FILE"),
            self.eval.is_some().then_some("--eval"),
            self.cmd.is_some().then_some("--cmd"),
            self.bundle.is_some().then_some("--bundle"),
        ]
        .into_iter()
        .flatten();
        if let (Some(first), Some(second)) = (sources.next(), sources.next()) {
            return Err(UsageError::Conflict {
                first: first.to_owned(),
                second: second.to_owned(),
                why: "each says what to run",
            });
        }
        if source && given.has("entrypoint") {
            return Err(UsageError::Conflict {
                first: "FILE".to_owned(),
                second: "--entrypoint".to_owned(),
                why: "source code is run by its language's program",
            });
        }
        if self.runtime.is_some() && self.is_command() && verb != Verb::Batch {
            return Err(UsageError::Conflict {
                first: "--runtime".to_owned(),
                second: "a command".to_owned(),
                why: "a command is a program already",
            });
        }
        for flag in ["entrypoint", "store"] {
            let kept = flag == "store" && (self.keep || given.has("install") || verb == Verb::Batch);
            if given.has(flag) && self.image.is_none() && !kept {
                return Err(UsageError::NeedsImage { flag });
            }
        }
        if self.platform.is_some() && !self.gvisor {
            return Err(UsageError::NeedsGvisor);
        }
        if given.has("index-url") && !given.has("install") {
            return Err(UsageError::NeedsInstall);
        }
        if given.has("setup-net") && !given.has("setup") {
            return Err(UsageError::NeedsSetup);
        }
        match CONFLICTS.iter().find(|(first, second, _)| given.has(first) && given.has(second)) {
            Some((first, second, why)) => {
                Err(UsageError::Conflict { first: format!("--{first}"), second: format!("--{second}"), why })
            }
            None => Ok(()),
        }
    }

    /// Whether what follows `--` is the program itself.
    pub fn is_command(&self) -> bool {
        !self.args.is_empty()
            && self.file.is_none()
            && self.eval.is_none()
            && self.cmd.is_none()
            && self.bundle.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn words(line: &[&str]) -> Vec<OsString> {
        line.iter().map(Into::into).collect()
    }

    fn low(line: &[&str]) -> Low {
        parse(Verb::Run, words(line)).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn error(line: &[&str]) -> (String, String) {
        let error = parse(Verb::Run, words(line)).expect_err(&format!("{line:?}"));
        (error.message().to_owned(), error.hint().unwrap_or_default().to_owned())
    }

    #[test]
    fn the_table_is_without_doubles() {
        let all = || FLAGS.iter().chain(BATCH);
        let longs = all().flat_map(|flag| flag.aliases.iter().chain([&flag.long]));
        let shorts: Vec<_> = all().filter_map(|flag| flag.short).collect();
        let longs: Vec<_> = longs.collect();
        assert!((1..longs.len()).all(|i| !longs[i..].contains(&longs[i - 1])));
        assert!((1..shorts.len()).all(|i| !shorts[i..].contains(&shorts[i - 1])));
        assert!(all().all(|flag| flag.doc.ends_with('.')));
        assert!(NOT_BATCH.iter().all(|name| FLAGS.iter().any(|flag| flag.long == *name)));
    }

    #[test]
    fn conflicts_name_options_that_exist() {
        for (first, second, _) in CONFLICTS {
            assert!(
                [first, second].iter().all(|name| FLAGS.iter().chain(BATCH).any(|flag| flag.long == **name)),
                "{first} {second}"
            );
        }
    }

    #[test]
    fn words_end_where_the_programs_begin() {
        let parsed = low(&["a.py", "--json", "--", "--memory", "--", "x"]);
        assert_eq!((parsed.file, parsed.json), (Some("a.py".into()), true));
        assert_eq!(parsed.args, words(&["--memory", "--", "x"]));
        let parsed = low(&["--", "ls", "-l"]);
        assert!(parsed.is_command());
        assert_eq!(parsed.args, words(&["ls", "-l"]));
        assert!(!low(&["-e", "1", "--", "x"]).is_command());
        assert!(!low(&["--"]).is_command());
    }

    #[test]
    fn values_are_taken_in_each_way_they_are_written() {
        for line in [&["--memory", "64m"][..], &["--memory=64m"], &["-m", "64m"], &["-m64m"], &["-m=64m"]] {
            let limits = low(line).limits;
            assert_eq!((limits.memory.get(), limits.asked.memory), (64 << 20, true), "{line:?}");
        }
        let parsed = low(&["-ite", "-1"]);
        assert_eq!((parsed.interactive, parsed.tty, parsed.eval), (true, true, Some("-1".into())));
        assert_eq!(low(&["--cpus", "0.5"]).limits.cpus, 0.5);
        assert_eq!(low(&["--network", "host"]).network, Some(NetworkMode::Host));
        assert_eq!(low(&["--env", "A=1", "--env", "B"]).env, words(&["A=1", "B"]));
        assert_eq!(low(&["--rootfs", "host"]).rootfs, Some(Rootfs::Host));
        assert_eq!(low(&["--rootfs", "./host"]).rootfs, Some(Rootfs::Dir("./host".into())));
        assert_eq!(low(&["-"]).file, Some("-".into()));
    }

    #[test]
    fn a_time_limit_is_left_out_only_by_its_name() {
        assert_eq!(low(&["--timeout", "none"]).limits.timeout, None);
        assert_eq!(low(&["--timeout", "1500"]).limits.timeout, Some(std::time::Duration::from_millis(1500)));
        let hint = "`--timeout none` is no limit";
        assert_eq!(error(&["--timeout", "0"]), ("--timeout: `0` is too small: the least is 1us".into(), hint.into()));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            &["a.py", "-e", "1"][..],
            &["a.py", "--cmd", "ls"],
            &["-e", "1", "--cmd", "ls"],
            &["--bundle", "b", "-e", "1"],
            &["--bundle", "b", "a.py"],
            &["--bundle", "b", "--rootfs", "host"],
            &["--bundle", "b", "-r", "python"],
            &["--json", "--events", "-e", "1"],
            &["--tty", "--json", "-e", "1"],
            &["--tty", "--events", "-e", "1"],
            &["--tty", "--out", "f", "-e", "1"],
            &["--tty", "--stdin", "x", "-e", "1"],
            &["-i", "--stdin", "x", "-e", "1"],
            &["-i", "-"],
            &["-r", "python", "--cmd", "ls"],
            &["-r", "python", "--", "ls"],
            &["--image", "x", "--rootfs", "host"],
            &["--image", "x", "--entrypoint", "y", "-e", "1"],
            &["--image", "x", "--read-only", "--writable"],
        ] {
            assert!(error(line).0.contains(" cannot be given together"), "{line:?}");
        }
        assert_eq!(error(&["-e", "1", "-e", "2"]).0, "--eval is given twice");
        assert_eq!(error(&["--cpu", "1", "--cpus", "2"]).0, "--cpu is given twice");
    }

    #[test]
    fn an_error_says_what_to_write_instead() {
        for (line, message, hint) in [
            (&["--memroy", "1g"][..], "unknown option --memroy", "did you mean --memory?"),
            (&["--memory=12q"], "--memory: `12q` is no size: the units are b, k, m, g, t", ""),
            (&["--file"], "--file needs a value", "--file HOST[:BOX]"),
            (&["--json=1"], "--json takes no value", ""),
            (
                &["/a.py", "b"],
                "unexpected argument `b`",
                "arguments of the program follow `--`: fumehood run /a.py -- b",
            ),
            (
                &["no-file", "-l"],
                "unknown option -l",
                "a program inside and its arguments follow `--`: fumehood run -- no-file -l",
            ),
            (&["/", "--foo"], "unknown option --foo", "arguments of the program follow `--`: fumehood run / -- --foo"),
            (
                &["--net", "filter"],
                "unknown network mode `filter`",
                "there are none, filtered, packages, web, public, open and host",
            ),
            (
                &["--entrypoint", "x", "--", "y"],
                "--entrypoint says something of an image, and none is given",
                "name it with --image",
            ),
            (
                &["--spec"],
                "unknown option --spec",
                "what is meant for the program follows `--`; `fumehood run --help` lists the options",
            ),
            (
                &["--hostname", "a b"],
                "--hostname: `a b` is no host name: it has ' '",
                "letters, digits and - . _ are allowed",
            ),
            (
                &["--hostname", &"h".repeat(65)],
                "--hostname: a host name of 65 bytes is too long: Linux takes at most 64 (HOST_NAME_MAX)",
                "any shorter name will do: it is known inside only",
            ),
        ] {
            assert_eq!(error(line), (message.to_owned(), hint.to_owned()), "{line:?}");
        }
    }

    #[test]
    fn what_is_not_text_is_bytes_or_an_error() {
        let raw = OsString::from_vec(b"\xff".to_vec());
        let parsed = parse(Verb::Run, vec!["-e".into(), raw.clone(), "--".into(), raw.clone()]).unwrap();
        assert_eq!((parsed.eval, parsed.args), (Some(raw.clone()), vec![raw.clone()]));
        assert_eq!(parse(Verb::Run, vec![raw.clone()]).unwrap().file, Some(raw.clone()));
        for flag in FLAGS {
            let Kind::Value { .. } = flag.kind else { continue };
            // No option's value may make it panic; that some are refused is right.
            _ = parse(Verb::Explain, vec![format!("--{}", flag.long).into(), raw.clone()]);
        }
        let refused = parse(Verb::Run, vec!["--file".into(), raw]).unwrap_err();
        assert_eq!(refused.message(), "--file: `\u{fffd}` is not UTF-8");
    }

    #[test]
    fn help_is_given_whatever_else_is_wrong_behind_it() {
        assert!(low(&["--help", "--bogus"]).help);
        assert!(low(&["-h"]).help);
        assert!(!low(&["--", "ls", "-h"]).help);
    }

    #[test]
    fn explain_takes_what_run_takes_and_the_specification() {
        let parsed = parse(Verb::Explain, words(&["--spec", "--memory", "1g", "a.py"])).unwrap();
        assert!(parsed.spec);
        assert!(parse(Verb::Explain, words(&["--spec", "--json"])).is_err());
    }
}
