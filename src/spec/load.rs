//! An OCI bundle's config.json: trusted, and still checked, since what can't be done must be said.

use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use super::SpecError;
use crate::request::{Bytes, files};

/// No real config.json comes near this.
const MOST: Bytes = Bytes::mib(4);

/// A bundle's spec with the parts that `run` takes from it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) spec: oci::Spec,
    /// Absolute.
    pub(super) root: Option<PathBuf>,
    pub(super) left_out: Vec<String>,
}

pub(super) fn load(bundle: &Path) -> Result<Loaded, SpecError> {
    let path = bundle.join("config.json");
    let failed = |source: std::io::Error| SpecError::Bundle { path: path.clone(), source };
    let (bytes, _) = files::read(&path, MOST).map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    let mut spec: oci::Spec = serde_json::from_slice(&bytes)
        .map_err(|error| SpecError::Config { path: path.clone(), why: error.to_string() })?;
    let config = |why: &str| SpecError::Config { path: path.clone(), why: why.to_owned() };
    if !(spec.version().starts_with("1.") || spec.version() == "1") {
        return Err(config("its ociVersion is not 1.x"));
    }
    let unsupported = |what: &str| Err(SpecError::Unsupported { what: what.to_owned() });
    if spec.hooks().as_ref().is_some_and(|hooks| *hooks != oci::Hooks::default()) {
        return unsupported("hooks");
    }
    if let Some(linux) = spec.linux() {
        if linux.namespaces().iter().flatten().any(|namespace| namespace.path().is_some()) {
            return unsupported("namespaces of other processes");
        }
        if linux.seccomp().is_some() {
            return unsupported("a seccomp filter of its own (give it with --seccomp)");
        }
    }
    let Some(process) = spec.process() else { return Err(config("it has no process")) };
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(config("process.args is empty"));
    }
    if !process.cwd().is_absolute() {
        return Err(config("process.cwd is not absolute"));
    }
    let root = spec.root().as_ref().map(|root| bundle.join(root.path()));
    let left_out = sort_mounts(&mut spec)?;
    Ok(Loaded { spec, root, left_out })
}

/// Keeps the mounts that a sandbox may have; the system's own are fumehood's to make, or are not given.
fn sort_mounts(spec: &mut oci::Spec) -> Result<Vec<String>, SpecError> {
    let mut left_out = Vec::new();
    let mut kept = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let target = mount.destination();
        match mount.typ().as_deref() {
            Some("bind" | "none") | None => kept.push(mount.clone()),
            Some("tmpfs") if !target.starts_with("/dev") => kept.push(mount.clone()),
            Some("proc" | "devpts" | "tmpfs") => {}
            Some(kind @ ("sysfs" | "cgroup" | "cgroup2" | "mqueue")) => {
                left_out.push(format!("{kind} on {}", target.display()))
            }
            Some(kind) => return Err(SpecError::Unsupported { what: format!("a mount of type {kind}") }),
        }
    }
    spec.set_mounts(Some(kept));
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(config: &str) -> Result<Loaded, SpecError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        load(dir.path())
    }

    #[test]
    fn what_is_not_done_is_said() {
        let with = |extra: &str| {
            bundle(&format!(
                r#"{{"ociVersion":"1.0.2","process":{{"args":["x"],"cwd":"/","user":{{"uid":0,"gid":0}}}},"root":{{"path":"r"}}{extra}}}"#
            ))
        };
        assert!(with("").is_ok());
        assert!(matches!(with(r#","hooks":{"prestart":[{"path":"/x"}]}"#), Err(SpecError::Unsupported { .. })));
        assert!(matches!(
            with(r#","linux":{"namespaces":[{"type":"network","path":"/p"}]}"#),
            Err(SpecError::Unsupported { .. })
        ));
        assert!(matches!(
            with(r#","mounts":[{"destination":"/x","type":"nfs","source":"y"}]"#),
            Err(SpecError::Unsupported { .. })
        ));
        assert_eq!(
            with(r#","mounts":[{"destination":"/sys","type":"sysfs","source":"sysfs"}]"#).unwrap().left_out,
            ["sysfs on /sys"]
        );
    }

    #[test]
    fn a_broken_config_is_an_error_and_no_panic() {
        for config in ["", "{", "[]", "{}", "\0", r#"{"ociVersion":"2.0"}"#, r#"{"ociVersion":"1.0.2"}"#] {
            assert!(bundle(config).is_err(), "{config}");
        }
        assert!(load(Path::new("/no/such")).is_err());
    }
}
