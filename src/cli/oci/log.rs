//! Where errors go: to the log that the engine named, and as one short line to standard error.
//!
//! containerd's shim reads the last line of a JSON log and wants an RFC 3339 time in it; Podman reads the whole file as
//! one JSON object. So there is exactly one line for a failure, and at the default level nothing else. The file is
//! opened when there is something to write.

use std::{
    fs::File,
    io::{IsTerminal, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixDatagram},
    path::PathBuf,
    sync::OnceLock,
    time::SystemTime,
};

use fumehood::{Error, Result};
use serde::Serialize;

use crate::cli::message::plain;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warning,
    Info,
    Debug,
}

impl Level {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "error" | "fatal" | "panic" => Self::Error,
            "warning" | "warn" => Self::Warning,
            "info" => Self::Info,
            "debug" | "trace" => Self::Debug,
            _ => {
                return Err(Error::new(format!("unknown --log-level {text:?}: there are error, warning, info, debug")));
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// syslog(3).
    fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Stderr,
    File(PathBuf),
    /// With the name to log under.
    Journald(String),
    Syslog(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    target: Target,
    json: bool,
    level: Level,
}

impl Default for Log {
    fn default() -> Self {
        Self { target: Target::Stderr, json: false, level: Level::Error }
    }
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Something that stops nothing.
pub fn warn(message: &str) {
    if let Some(log) = LOG.get() {
        log.tell(Level::Warning, message);
    }
}

pub fn debug(message: impl FnOnce() -> String) {
    if let Some(log) = LOG.get().filter(|log| log.level >= Level::Debug) {
        log.tell(Level::Debug, &message());
    }
}

/// A line of a JSON log, in logrus' order.
#[derive(Debug, Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";

impl Log {
    pub fn new(log: Option<&str>, format: Option<&str>, level: Option<&str>, debug: bool) -> Result<Self> {
        let target = match log {
            None | Some("") => Target::Stderr,
            Some(log) => target(log)?,
        };
        let json = match format {
            None | Some("" | "text") => false,
            Some("json") => true,
            Some(other) => return Err(Error::new(format!("invalid log-format: {other}"))),
        };
        let level = level.map(Level::parse).transpose()?.unwrap_or(Level::Error);
        Ok(Self { target, json, level: if debug { Level::Debug } else { level } })
    }

    /// The failure of the whole call: to the log, and to standard error, which conmon passes on.
    pub fn error(&self, error: &Error) {
        if self.target != Target::Stderr {
            self.tell(Level::Error, error.message());
        }
        let text = self.last_words(error, std::io::stderr().is_terminal());
        _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// One line, but for a person.
    fn last_words(&self, error: &Error, person: bool) -> String {
        let message = plain(error.message());
        let mut text = match (&self.target, self.json) {
            (Target::Stderr, true) => self.line(Level::Error, &message),
            _ => message + "\n",
        };
        if let Some(hint) = error.hint().filter(|_| person) {
            text.push_str(&format!("hint: {}\n", plain(hint)));
        }
        text
    }

    /// For [`warn`] and [`debug`], wherever they are called.
    pub fn install(self) -> &'static Self {
        LOG.get_or_init(|| self)
    }

    fn tell(&self, level: Level, message: &str) {
        if self.level >= level {
            self.write(level, &plain(message));
        }
    }

    fn line(&self, level: Level, message: &str) -> String {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        if self.json {
            let line = Line { level: level.name(), msg: message, time: &time };
            serde_json::to_string(&line).unwrap_or_default() + "\n"
        } else {
            format!("time={time:?} level={} msg={message:?}\n", level.name())
        }
    }

    /// In one write. Nobody is left to tell when it fails but standard error, which has the message too.
    fn write(&self, level: Level, message: &str) {
        let sent = match &self.target {
            Target::Stderr => std::io::stderr().lock().write_all(self.line(level, message).as_bytes()),
            Target::File(path) => {
                let file = File::options().append(true).create(true).mode(0o644).open(path);
                file.and_then(|mut file| file.write_all(self.line(level, message).as_bytes()))
            }
            Target::Journald(name) => {
                let priority = level.priority();
                let fields = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER={name}\nID={name}\nMESSAGE={message}\n");
                datagram(JOURNAL, &fields)
            }
            Target::Syslog(name) => {
                const DAEMON: u8 = 3 << 3;
                let process = std::process::id();
                datagram(SYSLOG, &format!("<{}>{name}[{process}]: {message}", DAEMON | level.priority()))
            }
        };
        if let Err(error) = sent {
            let message = format!("cannot write the log: {error}\n");
            _ = std::io::stderr().lock().write_all(message.as_bytes());
        }
    }
}

fn datagram(to: &str, text: &str) -> std::io::Result<()> {
    UnixDatagram::unbound()?.send_to(text.as_bytes(), to).map(drop)
}

/// A path, or as crun has it `file:PATH`, `journald:NAME`, `syslog:NAME`.
fn target(log: &str) -> Result<Target> {
    let Some((kind, rest)) = log.split_once(':') else { return Ok(Target::File(log.into())) };
    let name = || {
        let name = if rest.is_empty() { "fumehood-oci" } else { rest };
        match name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            true => Err(Error::new(format!("--log: {name:?} is no name to log under"))),
            false => Ok(name.to_owned()),
        }
    };
    match kind {
        "file" => Ok(Target::File(rest.into())),
        "journald" => Ok(Target::Journald(name()?)),
        "syslog" => Ok(Target::Syslog(name()?)),
        _ if kind.contains(['/', '.']) => Ok(Target::File(log.into())),
        _ => Err(Error::new(format!("unknown log type {kind:?} in --log"))
            .with_hint(format!("a file of that name is file:{log}; there are journald: and syslog:, too"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn written(format: &str, level: Option<&str>, write: impl FnOnce(&Log)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::new(Some(path.to_str().unwrap()), Some(format), level, false).unwrap();
        write(&log);
        let mut text = String::new();
        if let Ok(mut file) = File::open(path) {
            file.read_to_string(&mut text).unwrap();
        }
        text
    }

    /// As the shim (getLastRuntimeError) and conmon's readers do.
    #[test]
    fn a_json_log_is_one_object_with_a_time_of_rfc_3339() {
        let error = Error::new("mount `/proc`:\n\"no\"");
        let text = written("json", None, |log| {
            log.tell(Level::Warning, "not told");
            log.tell(Level::Debug, "not told");
            log.tell(Level::Error, error.message());
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (line["level"].as_str(), line["msg"].as_str()),
            (Some("error"), Some("mount `/proc`:\u{fffd}\"no\""))
        );
        humantime::parse_rfc3339(line["time"].as_str().unwrap()).unwrap();
        assert!(text.starts_with("{\"level\":\"error\",\"msg\":"), "{text}");
    }

    #[test]
    fn a_text_log_is_as_logrus_writes_it() {
        let text = written("text", Some("debug"), |log| {
            log.tell(Level::Debug, "a");
            log.tell(Level::Warning, "b \"c\"");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("time=\"") && lines[0].ends_with("Z\" level=debug msg=\"a\""), "{text}");
        assert!(lines[1].ends_with(r#" level=warning msg="b \"c\"""#), "{text}");
    }

    #[test]
    fn standard_error_gets_one_line_and_a_person_a_hint() {
        let error = Error::new("mount `/proc`: no").with_hint("try again");
        let log = |log, format| Log::new(log, Some(format), None, false).unwrap();
        assert_eq!(log(None, "text").last_words(&error, false), "mount `/proc`: no\n");
        assert_eq!(log(Some("/x"), "json").last_words(&error, true), "mount `/proc`: no\nhint: try again\n");
        let line = log(None, "json").last_words(&error, false);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["msg"], "mount `/proc`: no");
    }

    #[test]
    fn lines_are_added_to_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "before\n").unwrap();
        let log = Log::new(Some(&format!("file:{}", path.display())), Some("json"), None, false).unwrap();
        log.tell(Level::Error, "x");
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn where_it_goes_is_read_from_its_prefix() {
        let of = |log: &str| target(log).map_err(|error| error.to_string());
        assert_eq!(of("/a/log.json"), Ok(Target::File("/a/log.json".into())));
        assert_eq!(of("/a:b"), Ok(Target::File("/a:b".into())));
        assert_eq!(of("file:a:b"), Ok(Target::File("a:b".into())));
        assert_eq!(of("journald:box"), Ok(Target::Journald("box".to_owned())));
        assert_eq!(of("syslog:"), Ok(Target::Syslog("fumehood-oci".to_owned())));
        assert_eq!(of("invalid:/path"), Err("unknown log type \"invalid\" in --log".to_owned()));
        assert!(of("journald:a\nPRIORITY=0").is_err());
        assert!(Log::new(None, Some("yaml"), None, false).is_err());
        assert!(Log::new(None, None, Some("loud"), false).is_err());
    }
}
