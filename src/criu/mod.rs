//! CRIU, which saves running processes to files and brings them back: found, asked what it can do, and given work.
//!
//! It is another program, run as root on the host: all that it is told comes from the runtime and the engine, nothing
//! from the container. The words are its own RPC's ([`messages`]), spoken with `criu swrk` over a socket
//! ([`session`]), as runc does. Nothing of a launch comes by here.

mod image;
mod messages;
mod outside;
mod root;
mod session;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub use image::{Directory, Streams};
pub use messages::{CgroupMode, CgroupRoot, ExternalMount, InheritedFd, JoinedNamespace, Options, PageServer};
pub use outside::Outside;
pub use root::Root;
pub use session::{Event, FIRST_INHERITED, Job, Session};

use crate::error::Hint;

/// Namespaces of process ids that are not the container's own, and notice of the lazy page server: since 3.15.
const OLDEST: (u32, u32) = (3, 15);
/// Where it is looked for without PATH.
const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, thiserror::Error)]
pub enum CriuError {
    #[error("checkpoint and restore need CRIU, and there is no criu in PATH")]
    Missing,
    #[error("checkpoint and restore need CRIU, and {} cannot be executed: {why}", path.display())]
    Unusable { path: PathBuf, why: String },
    #[error("{} is CRIU {version}: too old, {}.{} is the oldest that will do", path.display(), OLDEST.0, OLDEST.1)]
    TooOld { path: PathBuf, version: String },
    #[error("{} cannot work on this machine: `criu check` says: {why}", path.display())]
    Refused { path: PathBuf, why: String },
    #[error("this CRIU and kernel have no {0}")]
    Feature(&'static str),
    #[error("{what}: {why}")]
    Talk { what: &'static str, why: String },
    #[error("criu failed to {what}: {why} (log: {})", log.display())]
    Failed { what: &'static str, why: String, log: PathBuf },
    #[error("{at}: {why}")]
    Directory { at: String, why: String },
    #[error("{at}: {why}")]
    Mount { at: String, why: String },
}

impl Hint for CriuError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Missing => "install it (`apt install criu`), or name it with `--criu PATH`",
            Self::Unusable { .. } => "`--criu PATH` names another",
            Self::TooOld { .. } | Self::Refused { .. } => "a newer one may do: see https://criu.org/Installation",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

type Result<T = (), E = CriuError> = std::result::Result<T, E>;

fn talk(what: &'static str) -> impl Fn(nix::errno::Errno) -> CriuError {
    move |errno| CriuError::Talk { what, why: errno.desc().to_owned() }
}

/// A criu that can be executed and says a version that will do.
#[derive(Debug)]
pub struct Criu {
    path: PathBuf,
    version: String,
}

impl Criu {
    /// The one that is named, or the first in PATH.
    ///
    /// # Errors
    /// When there is none, or it is too old.
    pub fn find(named: Option<&Path>) -> Result<Self> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => in_path().ok_or(CriuError::Missing)?,
        };
        let unusable = |why: String| CriuError::Unusable { path: path.clone(), why };
        let (done, said) = run(&path, "--version").map_err(|error| unusable(error.to_string()))?;
        let version = said.lines().find_map(|line| line.trim().strip_prefix("Version:")).unwrap_or_default().trim();
        let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
        let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
            let why = if done { "it does not say its version".to_owned() } else { reason(&said) };
            return Err(unusable(why));
        };
        let version = version.to_owned();
        if (major, minor) < OLDEST {
            return Err(CriuError::TooOld { path, version });
        }
        Ok(Self { path, version })
    }

    /// Asks it whether it can do anything on this kernel.
    pub fn check(self) -> Result<Self> {
        let (done, said) = run(&self.path, "check")
            .map_err(|error| CriuError::Unusable { path: self.path.clone(), why: error.to_string() })?;
        match done {
            true => Ok(self),
            false => Err(CriuError::Refused { path: self.path, why: reason(&said) }),
        }
    }

    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

fn run(path: &Path, word: &str) -> std::io::Result<(bool, String)> {
    let output = Command::new(path).arg(word).stdin(Stdio::null()).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

fn in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| USUAL.into());
    let runs = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    // A directory without a slash would be whoever called's, and theirs to put a criu in.
    std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join("criu")).find(runs)
}

/// What it complains of, on one line: its own errors, or the last that it said.
fn reason(said: &str) -> String {
    const MOST: usize = 3;
    // `(00.012345)` and the process it is about come before. It goes on with fewer descriptors than it would like.
    let of_it = |line: &str| line.find("Error (").map(|at| line[at..].trim().to_owned());
    let of_it = |line: &str| of_it(line).filter(|error| !error.contains("rlimit: Can't setup RLIMIT_NOFILE"));
    let mut errors: Vec<String> = said.lines().filter_map(of_it).collect();
    errors.dedup();
    errors.truncate(MOST);
    match errors.is_empty() {
        false => errors.join("; "),
        true => said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("nothing").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("criu");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_criu_is_found_by_what_it_says_of_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = script(dir.path(), "echo 'Version: 4.1.1'; echo 'GitID: v4'");
        assert_eq!(Criu::find(Some(&path)).unwrap().version(), "4.1.1");
        for (said, wanted) in [
            ("echo 'Version: 3.14'", "too old, 3.15 is the oldest"),
            ("echo 'Version: 2.99.1'", "too old"),
            ("echo hello", "does not say its version"),
            ("echo 'cannot open shared object file' >&2; exit 127", "cannot open shared object file"),
        ] {
            let path = script(dir.path(), said);
            let error = Criu::find(Some(&path)).unwrap_err();
            assert!(error.to_string().contains(wanted), "{said}: {error}");
            assert!(error.hint().is_some());
        }
        let error = Criu::find(Some(Path::new("/nowhere/criu"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere/criu cannot be executed"), "{error}");
    }

    #[test]
    fn what_criu_complains_of_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = script(
            dir.path(),
            "[ $1 = check ] || { echo 'Version: 4.0'; exit; }\n\
             echo '(00.1) Error (criu/vdso.c:381): vdso: bad' >&2; echo 'Looks bad' >&2; exit 1",
        );
        let error = Criu::find(Some(&path)).unwrap().check().unwrap_err();
        assert!(error.to_string().ends_with("`criu check` says: Error (criu/vdso.c:381): vdso: bad"), "{error}");
        assert_eq!(reason("a\nb\n\n"), "b");
        assert_eq!(reason(""), "nothing");
    }
}
