//! The specification of a container that an engine hands in: read whole, and found sound before anything is done.
//!
//! Unlike a bundle of `run`, of which only the parts that a sandbox may have are taken ([`super::load`]), all of it
//! holds. [`parse`] is pure; [`load`] also looks at the host where a rule is about it. An error says where in the
//! document it is: `process.user.uid: …`.

mod controls;
pub mod egress;
mod hooks;
mod kernel;
mod lists;
mod namespaces;
mod process;
mod resources;
mod seccomp;
mod shape;
pub mod template;

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::runtime as oci;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use self::{
    controls::{Controls, Egress, Filter, Isolation, PREFIX as CONTROLS_PREFIX},
    lists::number_list,
};
use crate::request::{Bytes, files};

/// No real config.json comes near this.
pub const LARGEST: Bytes = Bytes::mib(4);
/// The minor versions of the specification 1.x that are known.
const NEWEST_MINOR: u32 = 3;

/// A container's specification, with the bytes it was read from.
#[derive(Debug)]
pub struct Container {
    pub spec: oci::Spec,
    /// To be kept: the file may be another by the time it is needed again.
    pub bytes: Arc<[u8]>,
    /// fumehood's own tightening, from the annotations.
    pub controls: Controls,
    /// What is passed over, as the specification wants it; for the log.
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ContainerSpecError {
    #[error("{at}: {why}")]
    Invalid { at: String, why: String },
    #[error("`{}`: {why}", path.display())]
    Read { path: PathBuf, why: String },
}

impl crate::error::Hint for ContainerSpecError {}

type Check = Result<(), ContainerSpecError>;

fn bad(at: impl Display, why: impl Display) -> ContainerSpecError {
    // One line, whatever the document has in its names and values.
    let plain = |text: String| text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    ContainerSpecError::Invalid { at: plain(at.to_string()), why: plain(why.to_string()) }
}

/// A string that the kernel is to get must end where it ends.
fn no_nul(at: impl Display, text: impl AsRef<[u8]>) -> Check {
    match text.as_ref().contains(&0) {
        true => Err(bad(at, "it contains a NUL byte")),
        false => Ok(()),
    }
}

fn absolute(at: impl Display, path: &Path) -> Check {
    no_nul(&at, path.as_os_str().as_encoded_bytes())?;
    match path.is_absolute() {
        true => Ok(()),
        false => Err(bad(at, format_args!("`{}` is not an absolute path", path.display()))),
    }
}

/// Reads and checks `path`, the config.json of a bundle.
pub fn load(path: &Path) -> Result<Container, ContainerSpecError> {
    let mut container = parse(read(path)?)?;
    namespaces::check_on_host(&container.spec)?;
    let names_file = |(key, value): (&String, &String)| key.starts_with(controls::PREFIX) && value.starts_with('/');
    if container.spec.annotations().iter().flatten().any(names_file)
        && let Some(bytes) = controls::written_out(&container.bytes)?
    {
        // What holds is what is kept, whatever becomes of the files.
        let kept = parse(bytes)?;
        (container.bytes, container.controls) = (kept.bytes, kept.controls);
    }
    Ok(container)
}

/// A regular file of no more than the size that any document may have.
pub fn read(path: &Path) -> Result<Arc<[u8]>, ContainerSpecError> {
    use files::FileError;
    let failed = |why: String| ContainerSpecError::Read { path: path.to_owned(), why };
    files::read(path, LARGEST).map(|(bytes, _)| bytes).map_err(|error| match error {
        FileError::Read { source, .. } => failed(source.to_string()),
        FileError::Directory { .. } => failed("it is a directory".to_owned()),
        FileError::Special { .. } => failed("it is not a regular file".to_owned()),
        FileError::TooLarge { .. } => failed(format!("it is larger than {LARGEST}")),
        other => failed(other.to_string()),
    })
}

/// A configuration to start from: what `spec` writes.
pub const TEMPLATE: &str = include_str!("template.json");

/// As [`read`], of what is open already, be it a pipe; `path` is its name in errors.
pub fn read_from(from: impl std::io::Read, path: &Path) -> Result<Arc<[u8]>, ContainerSpecError> {
    let failed = |why: String| ContainerSpecError::Read { path: path.to_owned(), why };
    let bytes = files::read_at_most(from, 0, LARGEST).map_err(|error| failed(error.to_string()))?;
    bytes.ok_or_else(|| failed(format!("it is larger than {LARGEST}")))
}

/// Checks the bytes of a config.json.
pub fn parse(bytes: Arc<[u8]>) -> Result<Container, ContainerSpecError> {
    if bytes.len() as u64 > LARGEST.get() {
        return Err(bad("config.json", format_args!("it is larger than {LARGEST}")));
    }
    let mut warnings = Vec::new();
    let mut spec: oci::Spec = document(&bytes, "config.json", &mut warnings, Some("/process"))?;
    if spec.linux().is_none() {
        // None of what the types have by default: whoever says nothing gets no namespaces, as with every runtime.
        spec.set_linux(Some(document(b"{}", "linux", &mut warnings, None)?));
    }
    let controls = check(&spec, &mut warnings)?;
    Ok(Container { spec, bytes, controls, warnings })
}

/// Checks the bytes of a process alone, as `exec --process` has it.
pub fn parse_process(bytes: &[u8], warnings: &mut Vec<String>) -> Result<oci::Process, ContainerSpecError> {
    let process = document(bytes, "process", warnings, Some(""))?;
    process::check(&process)?;
    Ok(process)
}

/// Checks a process that was put together from others.
pub fn check_process(process: &oci::Process) -> Result<(), ContainerSpecError> {
    process::check(process)
}

/// Checks the bytes of resources alone, as `update --resources` has them.
pub fn parse_resources(bytes: &[u8]) -> Result<oci::LinuxResources, ContainerSpecError> {
    let resources = document(bytes, "resources", &mut Vec::new(), None)?;
    resources::check(&resources, "resources")?;
    Ok(resources)
}

/// Checks resources that were put together from others.
pub fn check_resources(resources: &oci::LinuxResources) -> Result<(), ContainerSpecError> {
    resources::check(resources, "resources")
}

/// Reads a document in one pass where it is as the types want it. Where it is not, it is read once more, slowly, to
/// say where it went wrong, or to pass over what the specification says is to be passed over in its `process`.
fn document<T: DeserializeOwned>(
    bytes: &[u8],
    name: &str,
    warnings: &mut Vec<String>,
    process: Option<&str>,
) -> Result<T, ContainerSpecError> {
    let text = std::str::from_utf8(bytes).map_err(|error| bad(name, error))?;
    let parsed = match serde_json::from_str(text) {
        Ok(parsed) => parsed,
        Err(_) => {
            let mut reader = serde_json::Deserializer::from_str(text);
            let mut value: Value =
                serde_path_to_error::deserialize(&mut reader).map_err(|error| misread(name, error))?;
            reader.end().map_err(|error| bad(name, error))?;
            if let Some(process) = process.and_then(|pointer| value.pointer_mut(pointer)) {
                process::mend(process, warnings);
            }
            serde_path_to_error::deserialize(value).map_err(|error| misread(name, error))?
        }
    };
    let kind = if process == Some("/process") { shape::Kind::Config } else { shape::Kind::Part };
    shape::check(bytes, kind).map_err(|found| match found.at.is_empty() {
        true => bad(name, found.why),
        false => bad(found.at, found.why),
    })?;
    Ok(parsed)
}

fn misread(name: &str, error: serde_path_to_error::Error<serde_json::Error>) -> ContainerSpecError {
    let path = error.path().to_string();
    // `?` is a key that was not read to its end.
    let at = path.trim_end_matches(['.', '?']);
    bad(if at.is_empty() { name } else { at }, error.inner())
}

/// Every rule that the document itself can be held to.
fn check(spec: &oci::Spec, warnings: &mut Vec<String>) -> Result<Controls, ContainerSpecError> {
    version(spec.version())?;
    match spec.root() {
        None => return Err(bad("root", "it is missing")),
        Some(root) if root.path().as_os_str().is_empty() => return Err(bad("root.path", "it is empty")),
        Some(root) => no_nul("root.path", root.path().as_os_str().as_encoded_bytes())?,
    }
    if let Some(process) = spec.process() {
        process::check(process)?;
    }
    let namespaces = namespaces::Namespaces::of(spec)?;
    namespaces.names(spec)?;
    mounts(spec.mounts().as_deref().unwrap_or_default(), warnings)?;
    if let Some(hooks) = spec.hooks() {
        hooks::check(hooks)?;
    }
    if let Some(linux) = spec.linux() {
        namespaces.maps(linux)?;
        namespaces.settings(linux)?;
        kernel::check(linux, &namespaces, warnings)?;
    }
    Controls::read(spec.annotations().as_ref())
}

/// 1.0 to 1.3, with whatever is behind the minor number: `1.0.2-dev`, `1.1.0+dev`.
fn version(text: &str) -> Check {
    let why = match text.split_once('.') {
        _ if text.is_empty() => "it is missing".to_owned(),
        Some(("1", rest)) => {
            let minor = rest.split(['.', '-', '+']).next().unwrap_or_default();
            match minor.parse::<u32>() {
                Ok(minor) if minor <= NEWEST_MINOR => return Ok(()),
                _ => format!("`{}` is not known: it is to be 1.0 to 1.{NEWEST_MINOR}", text.escape_debug()),
            }
        }
        _ => format!("`{}` is not known: it is to be 1.0 to 1.{NEWEST_MINOR}", text.escape_debug()),
    };
    Err(bad("ociVersion", why))
}

fn mounts(mounts: &[oci::Mount], warnings: &mut Vec<String>) -> Check {
    for (index, mount) in mounts.iter().enumerate() {
        let at = |field: &str| format!("mounts[{index}].{field}");
        let destination = mount.destination();
        if destination.as_os_str().is_empty() {
            return Err(bad(at("destination"), "it is empty"));
        }
        no_nul(at("destination"), destination.as_os_str().as_encoded_bytes())?;
        if !destination.is_absolute() {
            warnings.push(format!(
                "{}: `{}` is relative, which is deprecated: it is taken as below /",
                at("destination"),
                destination.display()
            ));
        }
        if let Some(source) = mount.source() {
            no_nul(at("source"), source.as_os_str().as_encoded_bytes())?;
        }
        if let Some(kind) = mount.typ() {
            no_nul(at("type"), kind)?;
        }
        for (option, text) in mount.options().iter().flatten().enumerate() {
            no_nul(format_args!("mounts[{index}].options[{option}]"), text)?;
        }
        let (uids, gids) = (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref());
        match (uids.is_some_and(|m| !m.is_empty()), gids.is_some_and(|m| !m.is_empty())) {
            (true, false) => return Err(bad(at("gidMappings"), "it is missing, and there are uidMappings")),
            (false, true) => return Err(bad(at("uidMappings"), "it is missing, and there are gidMappings")),
            _ => {}
        }
        namespaces::mappings(&at("uidMappings"), uids.unwrap_or_default())?;
        namespaces::mappings(&at("gidMappings"), gids.unwrap_or_default())?;
    }
    Ok(())
}

impl Container {
    /// The root file system, which is there. Its path, and not what it leads to: that is opened once, later.
    pub fn rootfs(&self, bundle: &Path) -> Result<PathBuf, ContainerSpecError> {
        let Some(root) = self.spec.root() else { return Err(bad("root", "it is missing")) };
        let path = bundle.join(root.path());
        let found = std::fs::metadata(&path).and_then(|found| match found.is_dir() {
            true => Ok(()),
            false => Err(std::io::Error::from_raw_os_error(libc::ENOTDIR)),
        });
        found.map(|()| path.clone()).map_err(|error| bad("root.path", format_args!("`{}`: {error}", path.display())))
    }
}

#[cfg(test)]
mod tests;
