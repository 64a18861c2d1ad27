//! gVisor: the same sandbox on a kernel of its own, which is a program, `runsc`.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Limits, Mount, Network};
use crate::plan::profile::{self, Builtin};

/// Where it is looked for besides PATH, which ordinary users may have without the system's directories.
const PLACES: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// That a program is to be run by it, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gvisor {
    runsc: PathBuf,
    platform: Platform,
}

/// How gVisor's kernel gets hold of the program's system calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Platform {
    /// What that runsc takes by itself: systrap, and ptrace where it does not know that yet.
    #[default]
    Auto,
    Systrap,
    Kvm,
    Ptrace,
}

impl Platform {
    pub const NAMES: [&str; 4] = ["auto", "systrap", "kvm", "ptrace"];

    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|known| *known == name)?;
        Some([Self::Auto, Self::Systrap, Self::Kvm, Self::Ptrace][at])
    }

    /// Those that `runsc flags` describes its option with.
    fn described(flags: &str) -> Vec<Self> {
        let line = flags.lines().skip_while(|line| line.split_ascii_whitespace().next() != Some("-platform")).nth(1);
        let words = line.unwrap_or_default();
        [Self::Systrap, Self::Kvm, Self::Ptrace]
            .into_iter()
            .filter(|platform| words.contains(platform.name()))
            .collect()
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GvisorError {
    #[error("--isolation gvisor: runsc is not installed")]
    NotInstalled,
    #[error("FUMEHOOD_RUNSC: `{}` is no program", path.display())]
    NoProgram { path: PathBuf },
    #[error("--gvisor-platform {}: `{}` has only {known}", platform.name(), runsc.display())]
    NoPlatform { platform: Platform, runsc: PathBuf, known: String },
    #[error("{option} does not hold with --isolation gvisor: {why}")]
    Refused { option: &'static str, why: &'static str },
}

impl crate::error::Hint for GvisorError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotInstalled => "apt install runsc (Debian), or https://gvisor.dev/docs/user_guide/install/; \
                                   FUMEHOOD_RUNSC names one that is elsewhere"
                .to_owned(),
            Self::NoProgram { .. } => "it names the runsc to be used".to_owned(),
            Self::NoPlatform { .. } => {
                "leave --gvisor-platform out for what that runsc takes by itself, or install another".to_owned()
            }
            Self::Refused { option, .. } => format!("leave {option} out, or run without --isolation gvisor"),
        })
    }
}

impl Gvisor {
    /// With the runsc that `named` names, or the first on PATH.
    pub fn find(platform: Platform, named: Option<&OsStr>) -> Result<Self, GvisorError> {
        let runsc = match named.filter(|name| !name.is_empty()).map(PathBuf::from) {
            Some(path) if path.is_absolute() && is_program(&path) => path,
            Some(path) => return Err(GvisorError::NoProgram { path }),
            None => Self::installed().ok_or(GvisorError::NotInstalled)?,
        };
        let Ok(runsc) = runsc.canonicalize() else { return Err(GvisorError::NoProgram { path: runsc }) };
        if platform != Platform::Auto {
            let known = Self::platforms(&runsc);
            if !known.is_empty() && !known.contains(&platform) {
                let known: Vec<_> = known.into_iter().map(Platform::name).collect();
                return Err(GvisorError::NoPlatform { platform, runsc, known: known.join(" and ") });
            }
        }
        Ok(Self { runsc, platform })
    }

    /// The platforms that a runsc says it has; none if it does not say.
    #[must_use]
    pub fn platforms(runsc: &Path) -> Vec<Platform> {
        let flags = Command::new(runsc).arg("flags").stdin(Stdio::null()).output();
        let text = flags.map(|told| [told.stdout, told.stderr].concat()).unwrap_or_default();
        Platform::described(&String::from_utf8_lossy(&text))
    }

    fn installed() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
        dirs.chain(PLACES.map(PathBuf::from)).map(|dir| dir.join("runsc")).find(|path| is_program(path))
    }

    /// The program, by a path without links.
    #[must_use]
    pub fn runsc(&self) -> &Path {
        &self.runsc
    }

    #[must_use]
    pub const fn platform(&self) -> Platform {
        self.platform
    }
}

/// What of a request gVisor cannot hold, told by name.
pub(crate) fn check(
    profile: &Builtin,
    own_filter: bool,
    own_rules: bool,
    limits: &Limits,
    network: &Network,
    mounts: &[Mount],
) -> Result<(), GvisorError> {
    let refusals = [
        (
            !std::ptr::eq(profile, profile::DEFAULT) && profile.name != profile::DEFAULT.name,
            "--profile",
            "the program's system calls are gVisor's to answer, and reach no filter of this kernel's",
        ),
        (
            own_filter,
            "--seccomp",
            "the program's system calls are gVisor's to answer, and reach no filter of this kernel's",
        ),
        (own_rules, "--landlock", "gVisor opens the program's files, and mounts, which Landlock forbids"),
        (
            limits.asked.pids,
            "--pids-limit",
            "gVisor counts no processes; those that it needs itself are capped, which ends the whole sandbox",
        ),
        (*network == Network::Host, "--net host", "gVisor's own network stack cannot share this host's addresses"),
        (
            mounts.iter().any(|mount| mount.target.starts_with("/sys")),
            "--mount …:/sys",
            "gVisor mounts a /sys of its own, over all that is there",
        ),
    ];
    match refusals.into_iter().find(|(asked, ..)| *asked) {
        Some((_, option, why)) => Err(GvisorError::Refused { option, why }),
        None => Ok(()),
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_have_names() {
        for name in Platform::NAMES {
            assert_eq!(Platform::by_name(name).map(Platform::name), Some(name));
        }
        assert_eq!(Platform::by_name("xen"), None);
    }

    #[test]
    fn platforms_are_those_of_the_description() {
        let flags = "  -pcap-log string\n    \tkvm of something else\n  -platform string\n    \tspecifies which platform to use: \
            ptrace (default), kvm. (default \"ptrace\")\n  -platform_device_path string\n    \tsystrap\n";
        assert_eq!(Platform::described(flags), [Platform::Kvm, Platform::Ptrace]);
        assert_eq!(Platform::described("nothing"), []);
    }

    #[test]
    fn a_runsc_that_is_named_must_be_a_program() {
        for bad in ["/etc/passwd", "/usr", "runsc", "/nonexistent/runsc"] {
            let error = Gvisor::find(Platform::Auto, Some(OsStr::new(bad))).unwrap_err();
            assert_eq!(error, GvisorError::NoProgram { path: bad.into() });
        }
        let found = Gvisor::find(Platform::Kvm, Some(OsStr::new("/bin/sh"))).unwrap();
        assert_eq!((found.platform(), found.runsc().is_absolute()), (Platform::Kvm, true));
    }

    #[test]
    fn what_does_not_hold_is_told_by_name() {
        let limits = Limits::default();
        let check = |limits: &Limits, network| {
            check(profile::DEFAULT, false, false, limits, &network, &[]).map_err(|error| error.to_string())
        };
        assert_eq!(check(&limits, Network::None), Ok(()));
        assert!(check(&limits, Network::Host).unwrap_err().starts_with("--net host does not hold"));
        let mut asked = Limits::default();
        asked.asked.pids = true;
        assert!(check(&asked, Network::None).unwrap_err().starts_with("--pids-limit does not hold"));
    }
}
