//! The words of a command line as [`FLAGS`] reads them: each value checked by itself, and all against each
//! other. No clap: this is on the way to every launch.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use fumehood::{
    Result,
    error::Hint,
    plan::{landlock::Policy, profile::Builtin, seccomp::Profile as SeccompProfile},
    request::{Fetch, Limits, Mount, Network, Rootfs, SandboxId, Secret, User},
};

use super::{
    flags::{FLAGS, Flag, Given, Kind},
    usage::{UsageError, nearest},
};

/// Which command the options are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Run,
    Explain,
}

impl Verb {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Explain => "explain",
        }
    }

    pub fn takes(self, flag: &Flag) -> bool {
        self == Self::Explain || !flag.explain_only
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
    pub writable: bool,
    pub limits: Limits,
    pub timeout_asked: bool,
    pub env: Vec<OsString>,
    pub env_files: Vec<PathBuf>,
    pub secrets: Vec<Secret>,
    pub user: Option<User>,
    pub workdir: Option<PathBuf>,
    pub hostname: Option<String>,
    pub network: Option<Network>,
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
}

/// Options that contradict one another, and why where it is not plain.
const CONFLICTS: &[(&str, &str, &str)] = &[
    ("bundle", "image", ""),
    ("bundle", "rootfs", "a bundle has a root of its own"),
    ("bundle", "runtime", "a bundle names its program itself"),
    ("cmd", "runtime", "a line of shell is run by the shell"),
    ("events", "json", ""),
    ("image", "rootfs", ""),
    ("interactive", "stdin", ""),
    ("json", "spec", ""),
    ("stdin", "tty", ""),
    ("events", "tty", "a terminal's output goes to your terminal"),
    ("json", "tty", "a terminal's output goes to your terminal"),
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
                None => return Err(unknown(verb, format!("--{name}"), name).into_error()),
            },
            Some(lexopt::Arg::Short(letter)) => match index(verb, |flag| flag.short == Some(letter)) {
                Some(flag) => flag,
                None => return Err(unknown(verb, format!("-{letter}"), "").into_error()),
            },
        };
        given.add(flag).map_err(Hint::into_error)?;
        let flag = &FLAGS[flag];
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
    low.check(&given).map_err(Hint::into_error)?;
    Ok(low)
}

fn index(verb: Verb, wanted: impl Fn(&Flag) -> bool) -> Option<usize> {
    FLAGS.iter().position(|flag| verb.takes(flag) && wanted(flag))
}

fn unknown(verb: Verb, flag: String, name: &str) -> UsageError {
    match name {
        "allow" | "deny" => UsageError::Later { what: "limiting the network by name", with: "egress" },
        _ => {
            let known = FLAGS.iter().filter(|flag| verb.takes(flag)).map(|flag| flag.long);
            UsageError::UnknownFlag { verb: verb.name(), flag, nearest: nearest(name, known) }
        }
    }
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
struct GivenFlags(u64);

const _: () = assert!(FLAGS.len() <= u64::BITS as usize);

impl GivenFlags {
    fn add(&mut self, index: usize) -> Result<(), UsageError> {
        let bit = 1 << index;
        if self.0 & bit != 0 && !FLAGS[index].repeatable {
            return Err(UsageError::Twice { flag: FLAGS[index].long });
        }
        self.0 |= bit;
        Ok(())
    }

    fn has(&self, long: &str) -> bool {
        FLAGS.iter().position(|flag| flag.long == long).is_some_and(|index| self.0 & (1 << index) != 0)
    }
}

impl Low {
    fn check(&self, given: &GivenFlags) -> Result<(), UsageError> {
        if self.interactive && self.file.as_deref() == Some(OsStr::new("-")) {
            return Err(UsageError::Conflict {
                first: "-i".to_owned(),
                second: "FILE `-`".to_owned(),
                why: "standard input is the code",
            });
        }
        let mut sources = [
            self.file.is_some().then_some("FILE"),
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
        if self.runtime.is_some() && self.is_command() {
            return Err(UsageError::Conflict {
                first: "--runtime".to_owned(),
                second: "a command".to_owned(),
                why: "a command is a program already",
            });
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
