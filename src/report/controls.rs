//! What was in force around a program: the result says it, so that nothing is ever degraded silently.
//!
//! Where no sandbox stood there was nothing to hold, and there are none.

use serde::Serialize;

/// The result's `controls`, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controls {
    pub user_namespace: bool,
    /// The profile's name.
    pub seccomp: Option<String>,
    /// The ABI that the rules were written for (landlock(7)), not the newest the kernel has.
    pub landlock_abi: Option<u32>,
    pub cgroup: Cgroup,
    pub memory: Means,
    pub network: Network,
    pub pids: Means,
    pub cpu: Means,
    pub landlock_scopes: Vec<LandlockScope>,
    pub no_new_privs: bool,
    pub capabilities: Capabilities,
    pub id_map: Option<IdMap>,
    pub rootfs: Option<Rootfs>,
    /// How many values are masked in the output.
    pub secrets: usize,
    /// The digest of the image's manifest, where the root file system is an image's.
    pub image: Option<String>,
}

/// The cgroup hierarchy that the sandbox has a group in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cgroup {
    V2,
    V1,
    None,
}

/// What holds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// The kernel, for all processes together.
    Cgroup,
    /// The supervisor, which looks and kills: late, but for all processes together.
    Watched,
    /// The kernel, for each process (or each user) by itself.
    Rlimit,
    None,
}

/// What the program reaches of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    None,
    Filtered,
    Packages,
    Web,
    Public,
    Open,
    Host,
}

/// `LANDLOCK_SCOPE_*`: what the program can't reach outside its own domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LandlockScope {
    AbstractUnixSocket,
    Signal,
}

/// The program's capabilities, in all five sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Capabilities {
    None,
    /// Those of root who installs a system's packages in a build: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID,
    /// in the bounding, permitted and effective sets.
    Install,
}

/// How ids inside stand for ids outside (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdMap {
    /// A range of its own, given out by root.
    Range,
    /// One id: the caller's.
    Single,
    /// The caller's ranges in /etc/subuid and /etc/subgid.
    Subuid,
}

/// Where the root file system came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    Host,
    Image,
    Bundle,
    Directory,
}
