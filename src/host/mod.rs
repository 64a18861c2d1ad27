//! What this kernel and this user can do: probed once, passed by reference.
//!
//! [`Host`] holds the few facts every launch needs and costs about five system calls; [`Layout`] what a
//! sandbox on the host's own `/usr` needs on top; [`doctor`] tries out everything else in child processes
//! and explains it to a person. [`explain_launch_errno`], [`explain_refused_ids`] and [`closed_to_others`] are asked
//! only after a launch has failed.

mod circumstances;
mod closed;
pub mod doctor;
mod explain;
mod ids;
mod kernel;
mod layout;
pub mod mountinfo;

use std::fs;

use crate::sys::{self, probe};

pub use self::{
    closed::{closed_to_others, closed_to_us},
    explain::{explain_launch_errno, explain_refused_ids},
    ids::{Granted, IdRange, IdSpace},
    kernel::KernelVersion,
    layout::{Layout, TopLevel},
};

/// Facts about this process on this kernel. They hold as long as the process keeps its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Effective ids.
    pub uid: u32,
    pub gid: u32,
    /// May mount, make namespaces and take on other ids in its own user namespace (CAP_SYS_ADMIN,
    /// CAP_SETUID and CAP_SETGID): "root", for what that is worth where it runs.
    pub privileged: bool,
    /// Runs in the host's own user namespace: not in a rootless container or another sandbox.
    pub initial_user_namespace: bool,
    /// The ids a privileged process may map into a sandbox. Without privilege it is its own alone.
    pub ids: IdSpace,
    /// What an unprivileged one may give beside that, through setuid helpers. Empty until [`Self::read_granted`].
    pub granted: Granted,
    /// 0 when Landlock is absent or switched off.
    pub landlock_abi: u32,
    pub kernel: KernelVersion,
}

impl Host {
    /// Six system calls as root, five for anyone else; twelve more for root of a nested user namespace. What
    /// can't be found out (no `/proc`) counts as not given.
    #[must_use]
    pub fn probe() -> Self {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let privileged = uid == 0 && has_root_capabilities();
        let initial_user_namespace = in_initial_user_namespace();
        let ids = match (privileged, initial_user_namespace) {
            (true, true) => IdSpace::all(),
            (true, false) => IdSpace { uids: id_map("uid"), gids: id_map("gid") },
            (false, _) => {
                IdSpace { uids: vec![IdRange { first: uid, count: 1 }], gids: vec![IdRange { first: gid, count: 1 }] }
            }
        };
        let kernel = probe::kernel_release().map_or_else(|_| KernelVersion::default(), |r| KernelVersion::parse(&r));
        let granted = Granted::default();
        Self { uid, gid, privileged, initial_user_namespace, ids, granted, landlock_abi: sys::landlock::abi(), kernel }
    }

    /// Looks up the caller's subordinate ids: for the few who need them.
    pub fn read_granted(&mut self) {
        self.granted = Granted::read(self.uid);
    }
}

fn has_root_capabilities() -> bool {
    let needed = 1u64 << probe::CAP_SYS_ADMIN | 1 << probe::CAP_SETUID | 1 << probe::CAP_SETGID;
    probe::effective_capabilities().is_ok_and(|have| have & needed == needed)
}

/// The initial user namespace has a fixed inode number (PROC_USER_INIT_INO in the kernel's proc_ns.h, part
/// of its ABI since 6.18 and the same since 3.8).
pub(crate) fn in_initial_user_namespace() -> bool {
    fs::read_link("/proc/self/ns/user").is_ok_and(|link| link.as_os_str() == "user:[4026531837]")
}

fn id_map(kind: &str) -> Vec<IdRange> {
    fs::read_to_string(format!("/proc/self/{kind}_map")).map_or_else(|_| Vec::new(), |text| ids::parse_id_map(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_proc() {
        let host = Host::probe();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name)).unwrap();
            line.split_ascii_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(field("Uid:")[1], host.uid.to_string());
        assert_eq!(field("Gid:")[1], host.gid.to_string());
        let capabilities = u64::from_str_radix(&field("CapEff:")[0], 16).unwrap();
        assert_eq!(probe::effective_capabilities(), Ok(capabilities));
        assert!(host.ids.has(host.uid, host.gid));
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(host.kernel, KernelVersion::parse(&release));
    }
}
