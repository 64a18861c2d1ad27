//! The command line for container engines, in runc's place: `fumehood-oci`, or `fumehood oci`.
//!
//! Its form is given: options as runc and crun take them ([`flags`]), the words that engines look for ([`contract`]),
//! one line to the log on failure ([`log`]), status 1. Nothing here does anything to a container but through
//! [`fumehood::container`].

mod checkpoint;
mod contract;
mod create;
mod delete;
mod egress;
mod events;
mod exec;
mod features;
mod flags;
mod freeze;
mod help;
mod kill;
mod list;
mod log;
mod ps;
mod spec;
mod start;
mod state;
mod table;
mod update;
mod user;

use std::{
    ffi::OsString,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::ExitCode,
};

use fumehood::{
    Error, Result,
    container::{self, Driver, Isolation},
    error::Hint,
    request::gvisor::Platform,
    state::{
        StateError,
        root::{ContainerId, StateRoot},
    },
};

use self::{
    flags::{Given, Until},
    log::Log,
    table::{GLOBALS, VERBS, Verb},
};
use super::message;

pub use fumehood::state::container::OCI_VERSION as SPEC_VERSION;

/// What an engine takes for "it did not work".
const FAILURE: u8 = 1;

/// A pipe that nobody reads, or that somebody reads no more, would end what is written by a proxy that nobody sees.
fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::File::options();
    let log = options.append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = log.metadata()?.file_type();
    match kind.is_file() || kind.is_char_device() {
        true => Ok(log),
        false => Err(std::io::Error::other("it is neither a file nor a device")),
    }
}

/// What holds for every verb.
#[derive(Debug)]
pub struct Context {
    root: Option<OsString>,
    pub driver: Driver,
    pub rootless: bool,
    /// Instead of the one in PATH.
    pub criu: Option<PathBuf>,
    pub isolation: Isolation,
    egress: Option<String>,
    egress_from_host: bool,
    egress_log: Option<PathBuf>,
}

/// By this name every container is on gVisor's kernel.
pub const GVISOR: &str = "fumehood-gvisor";

/// `program` is what we are called: `fumehood-oci`.
pub fn main(program: &str, words: Vec<OsString>) -> ExitCode {
    let mut words = words.into_iter();
    let given = match flags::parse(GLOBALS, &mut words, Until::FirstWord) {
        Ok(given) => given,
        Err(error) => return failed(&Log::default(), &error, FAILURE),
    };
    if given.is_on("version") {
        return message::print(&contract::version(program));
    }
    let log = match log(&given) {
        Ok(log) => log.install(),
        Err(error) => return failed(&Log::default(), &error, FAILURE),
    };
    let Some(name) = words.next().filter(|_| !given.is_on("help")) else {
        return message::print(&help::all(program));
    };
    if name == "help" {
        return match words.next().map(|word| verb(&word).ok_or(word)) {
            None => message::print(&help::all(program)),
            Some(Ok(verb)) => message::print(&help::of(program, verb)),
            Some(Err(word)) => failed(log, &contract::unknown_verb(&word.to_string_lossy()), FAILURE),
        };
    }
    let Some(verb) = verb(&name) else {
        return failed(log, &contract::unknown_verb(&name.to_string_lossy()), FAILURE);
    };
    match run(program, verb, &given, words) {
        Ok(code) => code,
        Err(error) => failed(log, &error, verb.failure),
    }
}

fn verb(name: &OsString) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name.as_bytes() == name.as_bytes())
}

fn run(program: &str, verb: &Verb, globals: &Given, mut words: std::vec::IntoIter<OsString>) -> Result<ExitCode> {
    let given = flags::parse(verb.flags, &mut words, verb.until)?;
    if given.is_on("help") {
        return Ok(message::print(&help::of(program, verb)));
    }
    if let Some(error) = contract::arguments(verb.name, verb.least, verb.most, given.words.len()) {
        return Err(error);
    }
    let context = Context::new(program, globals)?;
    if !fumehood::container::is_second_start() {
        log::debug(|| format!("{} {:?} in {:?}", verb.name, given.words, context.root));
    }
    (verb.run)(&context, &given)
}

fn failed(log: &Log, error: &Error, status: u8) -> ExitCode {
    log.error(error);
    ExitCode::from(status)
}

fn log(given: &Given) -> Result<Log> {
    Log::new(given.text("log")?, given.text("log-format")?, given.text("log-level")?, given.is_on("debug"))
}

impl Context {
    fn new(program: &str, given: &Given) -> Result<Self> {
        let rootless = match given.text("rootless")?.map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "auto") => fumehood::container::is_rootless(),
            Some(text) => flags::boolean(text.as_bytes())
                .ok_or_else(|| Error::new(format!("invalid --rootless {text:?}: it is true, false or auto")))?,
        };
        let manager = match given.text("cgroup-manager")? {
            None | Some("") if given.is_on("systemd-cgroup") => "systemd",
            None | Some("") => "cgroupfs",
            Some(manager) => manager,
        };
        let driver = match manager {
            "cgroupfs" => Driver::Cgroupfs,
            "systemd" => Driver::Systemd { user: rootless },
            "disabled" => Driver::Disabled,
            _ => {
                return Err(Error::new(format!("unknown --cgroup-manager {manager:?}"))
                    .with_hint("there are cgroupfs, systemd and disabled"));
            }
        };
        let platform = given.text("gvisor-platform")?.filter(|name| !name.is_empty()).map(|name| {
            let unknown = || Error::new(format!("unknown --gvisor-platform {name:?}"));
            Platform::by_name(name).ok_or_else(|| unknown().with_hint("there are auto, systrap, kvm and ptrace"))
        });
        Ok(Self {
            root: given.value("root").map(OsString::from),
            driver,
            rootless,
            criu: given.path("criu"),
            isolation: Isolation { gvisor: program == GVISOR, platform: platform.transpose()?.unwrap_or_default() },
            egress: given.text("egress")?.map(str::to_owned),
            egress_from_host: given.is_on("egress-from-host"),
            egress_log: given.path("egress-log"),
        })
    }

    /// What holds for the network of a container that is made.
    pub fn egress(&self) -> Result<container::Egress> {
        let open = self.egress.as_deref().map(|text| egress::open("--egress", text)).transpose()?;
        let log = self.egress_log.as_deref().map(|path| {
            open_log(path).map_err(|error| Error::new(format!("--egress-log `{}`: {error}", path.display())))
        });
        Ok(container::Egress { open, from_host: self.egress_from_host, log: log.transpose()? })
    }

    pub fn root(&self) -> Result<StateRoot> {
        StateRoot::at(self.root.as_deref().map(Path::new)).map_err(StateError::into_error)
    }

    /// Whether the root was named, not left to us.
    pub fn root_is_given(&self) -> bool {
        self.root.as_ref().is_some_and(|root| !root.is_empty())
    }
}

/// The first word of a verb, which is a container's name.
fn id(given: &Given) -> Result<ContainerId> {
    let word = given.words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    ContainerId::parse(&word).map_err(StateError::into_error)
}

/// Prints JSON as engines read it, over several lines where a person may look at it.
fn print_json(value: &impl serde::Serialize, pretty: bool) -> Result<ExitCode> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    let text = text.map_err(|error| Error::new(format!("cannot write JSON: {error}")))?;
    Ok(message::print(&(text + "\n")))
}
