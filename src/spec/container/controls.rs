//! fumehood's own controls, asked for by annotation: `io.fumehood.*`.
//!
//! They can only tighten: a filter is added to the container's own and a Landlock policy is one more layer, so what
//! the rest of the document forbids stays forbidden. A name that is not known is an error: a control that was asked
//! for and misspelt must not be missing in silence.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use serde_json::Value;

use super::{ContainerSpecError, bad, egress, read};
use crate::{
    plan::{landlock, profile, seccomp},
    request::limits::parse_duration,
};

pub const PREFIX: &str = "io.fumehood.";
const NAMES: [&str; 6] = ["egress", "isolation", "landlock", "profile", "seccomp", "timeout"];

/// What was asked for beyond the specification.
#[derive(Debug, Default)]
pub struct Controls {
    /// `io.fumehood.profile`: its filter and its Landlock policy.
    pub profile: Option<&'static profile::Builtin>,
    /// `io.fumehood.landlock`: TOML, or the absolute path of a file with it.
    pub landlock: Option<landlock::Policy>,
    /// `io.fumehood.seccomp`: the name of a profile, JSON, or the absolute path of a file with it.
    pub seccomp: Option<Filter>,
    /// `io.fumehood.isolation`.
    pub isolation: Option<Isolation>,
    /// `io.fumehood.timeout`: how long the container may run.
    pub timeout: Option<Duration>,
    /// `io.fumehood.egress`: what its network lets through.
    pub egress: Option<Egress>,
}

/// A seccomp filter of fumehood's own or of the caller's.
#[derive(Debug)]
pub enum Filter {
    Builtin(&'static profile::Builtin),
    Own(Box<seccomp::Profile>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    Native,
    Gvisor,
}

/// A container's filtered network.
#[derive(Debug, Clone)]
pub struct Egress {
    pub open: egress::Open,
    /// A container to which nobody gives a network reaches out by the host's. No annotation says so: they may come from
    /// an image, and only take away.
    pub from_host: bool,
}

impl Controls {
    pub(super) fn read(annotations: Option<&HashMap<String, String>>) -> Result<Self, ContainerSpecError> {
        let mut controls = Self::default();
        for (key, value) in annotations.into_iter().flatten() {
            let at = || format!("annotations.{}", key.escape_debug());
            if key.is_empty() {
                return Err(bad("annotations", "there is one without a name"));
            }
            let Some(name) = key.strip_prefix(PREFIX) else { continue };
            match name {
                "profile" => controls.profile = Some(builtin(value).map_err(|error| bad(at(), error))?),
                "landlock" => {
                    let policy = landlock::Policy::parse(&text(value).map_err(|error| bad(at(), error))?);
                    controls.landlock = Some(policy.map_err(|error| bad(at(), error))?);
                }
                "seccomp" => {
                    controls.seccomp = Some(match builtin(value) {
                        Ok(profile) => Filter::Builtin(profile),
                        Err(_) => {
                            let json = text(value).map_err(|error| bad(at(), error))?;
                            let own = seccomp::Profile::parse(&json).map_err(|error| bad(at(), error))?;
                            Filter::Own(Box::new(own))
                        }
                    });
                }
                "isolation" => {
                    controls.isolation = Some(match value.as_str() {
                        "native" => Isolation::Native,
                        "gvisor" => Isolation::Gvisor,
                        _ => {
                            let why = format!("`{}` is not known: there are native and gvisor", value.escape_debug());
                            return Err(bad(at(), why));
                        }
                    });
                }
                "timeout" => controls.timeout = Some(parse_duration(value).map_err(|error| bad(at(), error))?),
                "egress" => {
                    let open = egress::parse(value).map_err(|why| bad(at(), why))?;
                    controls.egress = Some(Egress { open, from_host: false });
                }
                _ => return Err(bad(at(), format_args!("it is not known: there are {}", NAMES.join(", ")))),
            }
        }
        Ok(controls)
    }
}

fn builtin(name: &str) -> Result<&'static profile::Builtin, profile::ProfileError> {
    profile::Builtin::by_name(name)
}

/// Written out in the annotation, or in the file that it names.
pub(super) fn text(value: &str) -> Result<String, String> {
    if !value.starts_with('/') {
        return Ok(value.to_owned());
    }
    let bytes = read(Path::new(value)).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes.to_vec()).map_err(|_| format!("`{value}` is not UTF-8"))?;
    if text.starts_with('/') {
        return Err(format!("`{value}` begins with a `/`, as the name of a file does"));
    }
    Ok(text)
}

/// A document with what the files say in place of their names; `None` if it names none.
pub(super) fn written_out(document: &[u8]) -> Result<Option<Arc<[u8]>>, ContainerSpecError> {
    let mut document: Value = serde_json::from_slice(document).map_err(|error| bad("config.json", error))?;
    let mut named = false;
    for (key, value) in document.get_mut("annotations").and_then(Value::as_object_mut).into_iter().flatten() {
        let name = key.strip_prefix(PREFIX).unwrap_or_default();
        if let Some(file) =
            value.as_str().filter(|value| ["egress", "landlock", "seccomp"].contains(&name) && value.starts_with('/'))
        {
            *value = text(file).map_err(|why| bad(format!("annotations.{key}"), why))?.into();
            named = true;
        }
    }
    if !named {
        return Ok(None);
    }
    let bytes = serde_json::to_vec(&document).map_err(|error| bad("config.json", error))?;
    Ok(Some(bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Controls, String> {
        let annotations = HashMap::from([(name.to_owned(), value.to_owned())]);
        Controls::read(Some(&annotations)).map_err(|error| error.to_string())
    }

    #[test]
    fn each_control_is_read() {
        assert_eq!(read("io.fumehood.profile", "strict").unwrap().profile.unwrap().name, "strict");
        assert_eq!(read("io.fumehood.landlock", "tcp = false").unwrap().landlock.unwrap().tcp, Some(false));
        let filter = |value: &str| read("io.fumehood.seccomp", value).unwrap().seccomp.unwrap();
        assert!(matches!(filter("dev"), Filter::Builtin(profile) if profile.name == "dev"));
        assert!(matches!(filter(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}"#), Filter::Own(_)));
        assert_eq!(read("io.fumehood.isolation", "gvisor").unwrap().isolation, Some(Isolation::Gvisor));
        assert_eq!(read("io.fumehood.timeout", "1m").unwrap().timeout, Some(Duration::from_secs(60)));
        let egress = read("io.fumehood.egress", "web").unwrap().egress.unwrap();
        assert!(!egress.from_host && egress.open.policy.mode() == crate::net::policy::Mode::Web);
    }

    #[test]
    fn a_file_may_hold_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "tcp = false\n").unwrap();
        let read_file = read("io.fumehood.landlock", file.path().to_str().unwrap());
        assert_eq!(read_file.unwrap().landlock.unwrap().tcp, Some(false));
        assert!(read("io.fumehood.landlock", "/no/such/file").unwrap_err().contains("/no/such/file"));
    }

    #[test]
    fn what_is_not_known_is_an_error_and_what_is_others_is_not() {
        assert!(read("org.example.profile", "x").is_ok());
        assert!(read("io.fumehoods", "x").is_ok());
        let error = |name: &str, value: &str| read(name, value).unwrap_err();
        assert_eq!(
            error("io.fumehood.profil", "strict"),
            "annotations.io.fumehood.profil: it is not known: there are egress, isolation, landlock, profile, seccomp, \
             timeout"
        );
        for (name, value) in [
            ("profile", "loose"),
            ("landlock", "tcp = 1"),
            ("seccomp", "{"),
            ("seccomp", "unconfined"),
            ("isolation", "vm"),
            ("isolation", ""),
            ("timeout", "0"),
            ("timeout", "soon"),
            ("egress", ""),
            ("egress", "a b"),
        ] {
            let error = error(&format!("io.fumehood.{name}"), value);
            assert!(error.starts_with(&format!("annotations.io.fumehood.{name}: ")), "{error}");
        }
    }
}
