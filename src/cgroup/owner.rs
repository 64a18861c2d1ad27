//! The process that a group belongs to, as the group's name says it: whoever cleans up knows by that whether it is alive.

use std::fmt;

use crate::state::process;

/// One that waits to be used again.
pub(super) const KEPT: &str = "kept";
/// One that holds those of a batch.
pub(super) const COHORT: &str = "batch";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    /// Processes have other numbers in other pid namespaces.
    namespace: u64,
    pub(super) pid: i32,
    started: u64,
}

impl Owner {
    /// This process.
    pub(super) fn own() -> Option<Self> {
        let pid = crate::sys::process::id();
        Some(Self { namespace: pid_namespace()?, pid, started: process::start_time(pid)? })
    }

    /// Whose a group is, if its name is that of one of this kind.
    pub(super) fn of(kind: &str, name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(kind)?.strip_prefix('-')?.split('-');
        let mut number = || parts.next()?.parse().ok();
        let (namespace, pid, started, _) = (number()?, number()?, number()?, number()?);
        Some(Self { namespace, pid: i32::try_from(pid).ok()?, started })
    }

    /// What its group of this kind is called that has this number.
    pub(super) fn name(self, kind: &str, number: u64) -> String {
        format!("{kind}-{self}-{number}")
    }

    /// `None`: nobody can say from here.
    pub(super) fn is_alive(self) -> Option<bool> {
        // What cannot be looked at is there.
        (Some(self.namespace) == pid_namespace()).then(|| !matches!(process::open(self.pid, self.started), Ok(None)))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.namespace, self.pid, self.started)
    }
}

fn pid_namespace() -> Option<u64> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_known_by_name() {
        let own = Owner::own().unwrap();
        for kind in [KEPT, COHORT] {
            assert_eq!(Owner::of(kind, &own.name(kind, 12)), Some(own));
        }
        assert_eq!(Owner::of(COHORT, &own.name(KEPT, 12)), None);
        assert_eq!(own.is_alive(), Some(true));
        assert_eq!(Owner { started: own.started + 1, ..own }.is_alive(), Some(false));
        assert_eq!(Owner { namespace: own.namespace + 1, ..own }.is_alive(), None);
        for name in ["kept", "kept-1-2-3", "kept-1-2-x-4", "b1-2-3-4", "kept1-2-3-4"] {
            assert_eq!(Owner::of(KEPT, name), None, "{name}");
        }
    }
}
