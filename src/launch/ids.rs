//! Gives a new user namespace its ids (user_namespaces(7)): by one's own hand where that is allowed, else through
//! newuidmap(1) and newgidmap(1), which know what root has granted.
//!
//! The helpers are set-user-ID programs of shadow's. They are found where only root installs programs, get nothing
//! but numbers and an empty environment, and are not believed: what counts is the map that the kernel then shows. The
//! process that they are told by its number is our child and not waited for yet, so nobody else can have that number.

use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    error::Hint,
    host::Host,
    plan::ids::{Ids, IdsKind, Map, Needs},
    request::{SandboxId, User},
};

/// Where a helper is trusted to be the system's, whatever PATH says.
const PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];
/// Of what a helper complains, this much is read.
const MOST_WORDS: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum IdsError {
    #[error("cannot map ids: {} is not installed", .0.helper())]
    Missing(Which),
    #[error("cannot map ids: {}: {why}", path.display())]
    Refused { path: PathBuf, why: String, powerless: bool },
    #[error("cannot open the new user namespace: {source}")]
    Open { source: std::io::Error },
    #[error("cannot write {file} of the new user namespace: {source}")]
    Write { file: &'static str, source: std::io::Error },
}

/// What to do where a helper is not installed.
pub const INSTALL: &str = "sudo apt install uidmap (Debian, Ubuntu), or the shadow-utils of your distribution";

impl Hint for IdsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(_) => Some(format!("{INSTALL}; or leave --user out")),
            // What is known of a host's write errors and refusals is looked up when they happen.
            Self::Open { .. } | Self::Refused { .. } | Self::Write { .. } => None,
        }
    }
}

/// One of a namespace's two maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Users,
    Groups,
}

impl Which {
    const fn file(self) -> &'static str {
        match self {
            Self::Users => "uid_map",
            Self::Groups => "gid_map",
        }
    }

    #[must_use]
    pub const fn helper(self) -> &'static str {
        match self {
            Self::Users => "newuidmap",
            Self::Groups => "newgidmap",
        }
    }

    /// The helper's path, if it is installed.
    #[must_use]
    pub fn find_helper(self) -> Option<PathBuf> {
        let program = |path: &PathBuf| {
            path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        PLACES.iter().map(|place| Path::new(place).join(self.helper())).find(program)
    }
}

/// Whether this process can give a sandbox of its own all the ids that one can have, with `user` among them.
#[must_use]
pub fn has_all_ids(user: User) -> bool {
    let mut host = Host::probe();
    let helped = |which: Which| host.privileged || which.find_helper().is_some();
    if !helped(Which::Users) || !helped(Which::Groups) {
        return false;
    }
    host.read_granted();
    SandboxId::parse("any").is_ok_and(|id| Ids::choose(&id, user, Needs::All, &host).is_ok())
}

/// Writes the maps of the process `pid`, a child that nobody has waited for. Without privilege and helpers, groups
/// must first be made unchangeable: else a program could drop a group that denies it something. newgidmap sees to that
/// itself, where root's grant does not say otherwise.
pub(super) fn write(kind: IdsKind, users: &[Map], groups: &[Map], pid: i32) -> Result<(), IdsError> {
    match kind {
        IdsKind::Subuid => return write_through_helpers(users, groups, pid),
        IdsKind::Single => write_file(pid, "setgroups", "deny")?,
        IdsKind::Range => {}
    }
    write_map(Which::Users, users, pid)?;
    write_map(Which::Groups, groups, pid)
}

pub(super) fn write_map(which: Which, lines: &[Map], pid: i32) -> Result<(), IdsError> {
    write_file(pid, which.file(), &text(lines))
}

/// Maps of a namespace below that of a process which has every capability there, made before that process, which must
/// not allocate.
pub(super) struct Nested {
    deny_groups: bool,
    users: String,
    groups: String,
}

impl Nested {
    pub(super) fn new(ids: &Ids) -> Self {
        Self { deny_groups: ids.kind == IdsKind::Single, users: text(&ids.users), groups: text(&ids.groups) }
    }

    pub(super) fn write(&self, pid: i32) -> std::io::Result<()> {
        if self.deny_groups {
            Self::file(pid, "setgroups", "deny")?;
        }
        Self::file(pid, "uid_map", &self.users)?;
        Self::file(pid, "gid_map", &self.groups)
    }

    fn file(pid: i32, name: &str, text: &str) -> std::io::Result<()> {
        let mut path = [0_u8; 40];
        let mut rest = &mut path[..];
        write!(rest, "/proc/{pid}/{name}")?;
        let left = rest.len();
        let path = std::str::from_utf8(&path[..path.len() - left]).map_err(std::io::Error::other)?;
        std::fs::File::options().write(true).open(path)?.write_all(text.as_bytes())
    }
}

fn text(lines: &[Map]) -> String {
    lines.iter().map(|Map { inside, outside, count }| format!("{inside} {outside} {count}\n")).collect()
}

fn write_file(pid: i32, file: &'static str, text: &str) -> Result<(), IdsError> {
    std::fs::write(format!("/proc/{pid}/{file}"), text).map_err(|source| IdsError::Write { file, source })
}

/// What holds the namespace of `pid` when it is gone.
pub(super) fn namespace(pid: i32) -> Result<OwnedFd, IdsError> {
    let file = std::fs::File::open(format!("/proc/{pid}/ns/user"));
    file.map(OwnedFd::from).map_err(|source| IdsError::Open { source })
}

/// As [`write`], for ids that only root's grant lets the caller map.
pub fn write_through_helpers(users: &[Map], groups: &[Map], pid: i32) -> Result<(), IdsError> {
    let users = Helper::start(Which::Users, users, pid)?;
    // At once, since each takes longer than all the rest of a launch.
    let groups = Helper::start(Which::Groups, groups, pid);
    users.finish()?;
    groups?.finish()
}

/// A helper at work.
struct Helper<'a> {
    which: Which,
    lines: &'a [Map],
    pid: i32,
    path: PathBuf,
    child: Child,
}

impl<'a> Helper<'a> {
    fn start(which: Which, lines: &'a [Map], pid: i32) -> Result<Self, IdsError> {
        let path = which.find_helper().ok_or(IdsError::Missing(which))?;
        let numbers = lines.iter().flat_map(|line| [line.inside, line.outside, line.count]);
        let mut command = Command::new(&path);
        command.arg(pid.to_string()).args(numbers.map(|number| number.to_string()));
        command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        match command.spawn() {
            Ok(child) => Ok(Self { which, lines, pid, path, child }),
            Err(error) => Err(IdsError::Refused { path, why: error.to_string(), powerless: false }),
        }
    }

    fn finish(mut self) -> Result<(), IdsError> {
        let mut words = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            _ = stderr.take(MOST_WORDS).read_to_end(&mut words);
        }
        // A caller that ignores SIGCHLD, or waits for whatever child it has, leaves us none to wait for.
        let status = self.child.wait();
        let file = self.which.file();
        let map = std::fs::read_to_string(format!("/proc/{}/{file}", self.pid));
        let map = map.map_err(|source| IdsError::Write { file, source })?;
        if shows(&map, self.lines) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&words).lines().map(str::trim).find(|line| !line.is_empty()).map(|line| {
            let line = line.strip_prefix(self.which.helper()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(line);
            line.to_owned()
        });
        let why = said.unwrap_or_else(|| match status {
            Ok(status) => format!("it left {file} as it was, without a word ({status})"),
            Err(_) => format!("it left {file} as it was, without a word"),
        });
        let powerless = is_powerless(&self.path);
        Err(IdsError::Refused { path: self.path, why, powerless })
    }
}

/// Whether a helper is no set-user-ID program. Capabilities of the file would do as well, as some distributions have it.
#[must_use]
pub fn is_powerless(helper: &Path) -> bool {
    helper.metadata().is_ok_and(|found| found.permissions().mode() & 0o4000 == 0)
}

/// Whether this text of /proc/PID/uid_map is these lines.
fn shows(text: &str, lines: &[Map]) -> bool {
    let line = |text: &str| {
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        match [numbers.next()?, numbers.next()?, numbers.next()?] {
            [Ok(inside), Ok(outside), Ok(count)] => Some(Map { inside, outside, count }),
            _ => None,
        }
    };
    let mut shown: Vec<_> = text.lines().map(line).collect();
    let mut wanted: Vec<_> = lines.iter().copied().map(Some).collect();
    // The kernel keeps long maps in an order of its own.
    let by_inside = |line: &Option<Map>| line.map(|line| line.inside);
    shown.sort_by_key(by_inside);
    wanted.sort_by_key(by_inside);
    shown == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_what_the_kernel_shows() {
        let lines = [Map { inside: 0, outside: 1000, count: 1 }, Map { inside: 1, outside: 100_000, count: 9 }];
        assert!(shows("         0       1000          1\n         1     100000          9\n", &lines));
        assert!(shows("1 100000 9\n0 1000 1\n", &lines));
        for other in
            ["", "0 1000 1\n", "0 1000 1\n1 100000 8\n", "0 1000 1\n1 100000 9\n10 5 1\n", "0 1000 1\nx\n", "-1"]
        {
            assert!(!shows(other, &lines), "{other:?}");
        }
        assert!(!shows("0 1000 1\n", &[]));
    }
}
