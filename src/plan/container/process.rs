//! The process of an OCI container, or one more in it (`exec`), as the kernel takes it.
//!
//! Pure: names become numbers and strings C strings here, so that between clone and execve nothing is left to
//! go wrong but the kernel itself. Source: runtime-spec `config.md`, "process", and `config-linux.md`.

use std::{borrow::Cow, ffi::CString};

use oci_spec::runtime as oci;

use super::ContainerError;
use crate::{
    plan::{landlock::Layer, seccomp},
    sys::attributes::Scheduling,
};

#[derive(Debug)]
pub struct Process {
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    pub argv: Vec<CString>,
    /// As `NAME=value`, in the spec's order: each name once, and no empty HOME.
    pub env: Vec<CString>,
    pub cwd: CString,
    pub user: User,
    pub capabilities: Capabilities,
    pub rlimits: Vec<crate::plan::ResourceLimit>,
    pub no_new_privileges: bool,
    pub apparmor: Option<CString>,
    pub selinux: Option<CString>,
    pub oom_score_adj: Option<i32>,
    pub scheduling: Option<Scheduling>,
    /// Class and level.
    pub io_priority: Option<(u32, u32)>,
    pub affinity: Affinity,
    pub seccomp: Option<Seccomp>,
    pub landlock: Vec<Layer>,
    /// Filters of our own beside the container's: see [`super::controls`].
    pub tightening: Vec<Cow<'static, seccomp::Filter>>,
    pub personality: Option<u64>,
    /// Mode with its flags, and the nodes, a bit each.
    pub memory_policy: Option<(i32, Vec<u64>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: Option<u32>,
}

/// A bit a capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

impl Capabilities {
    /// Those that are held, or may be.
    #[must_use]
    pub const fn all(&self) -> u64 {
        self.bounding | self.effective | self.permitted | self.inheritable | self.ambient
    }
}

/// Processors before and after the cgroup is entered, for `exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affinity {
    pub initial: Option<Vec<u64>>,
    pub last: Option<Vec<u64>>,
}

#[derive(Debug)]
pub struct Seccomp {
    pub filter: seccomp::Filter,
    /// For seccomp(2).
    pub flags: u32,
    /// The socket that is given the listener, and what it is told beside the state.
    pub listener: Option<(std::path::PathBuf, Option<String>)>,
}

impl Process {
    pub fn new(
        spec: &oci::Process,
        linux: Option<&oci::Linux>,
        kernel: seccomp::KernelVersion,
    ) -> Result<Self, ContainerError> {
        let strings = |what: &str, list: Option<&Vec<String>>| {
            list.into_iter()
                .flatten()
                .enumerate()
                .map(|(number, text)| c_string(format_args!("{what}[{number}]"), text))
                .collect::<Result<Vec<_>, _>>()
        };
        let argv = strings("process.args", spec.args().as_ref())?;
        if argv.first().is_none_or(|program| program.is_empty()) {
            return Err(ContainerError::spec("process.args", "it names no program"));
        }
        if !spec.cwd().is_absolute() {
            return Err(ContainerError::spec("process.cwd", "it is not absolute"));
        }
        let user = spec.user();
        let label = |what: &'static str, text: &Option<String>| {
            text.as_deref()
                .filter(|text| !text.is_empty())
                .map(|text| c_string(format_args!("{what}"), text))
                .transpose()
        };
        Ok(Self {
            terminal: spec.terminal().unwrap_or(false),
            console_size: spec.console_size().map(|size| {
                let number = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
                (number(size.height()), number(size.width()))
            }),
            argv,
            env: environment(strings("process.env", spec.env().as_ref())?),
            cwd: c_string(format_args!("process.cwd"), &spec.cwd().to_string_lossy())?,
            user: User {
                uid: user.uid(),
                gid: user.gid(),
                groups: user.additional_gids().clone().unwrap_or_default(),
                umask: user.umask(),
            },
            capabilities: spec.capabilities().as_ref().map(Capabilities::new).unwrap_or_default(),
            rlimits: rlimits(spec)?,
            no_new_privileges: spec.no_new_privileges().unwrap_or(false),
            apparmor: label("process.apparmorProfile", spec.apparmor_profile())?,
            selinux: label("process.selinuxLabel", spec.selinux_label())?,
            oom_score_adj: spec.oom_score_adj(),
            scheduling: spec.scheduler().as_ref().map(scheduling).transpose()?,
            io_priority: spec.io_priority().as_ref().map(io_priority).transpose()?,
            affinity: match spec.exec_cpu_affinity() {
                Some(affinity) => Affinity {
                    initial: cpus("process.execCPUAffinity.initial", affinity.initial().as_deref())?,
                    last: cpus("process.execCPUAffinity.final", affinity.cpu_affinity_final().as_deref())?,
                },
                None => Affinity::default(),
            },
            seccomp: linux
                .and_then(|linux| linux.seccomp().as_ref())
                .map(|spec| Seccomp::new(spec, kernel))
                .transpose()?,
            landlock: Vec::new(),
            tightening: Vec::new(),
            personality: linux.and_then(|linux| linux.personality().as_ref()).map(personality).transpose()?,
            memory_policy: linux.and_then(|linux| linux.memory_policy().as_ref()).map(memory_policy).transpose()?,
        })
    }

    /// The value of an environment variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        let found = self
            .env
            .iter()
            .rev()
            .find_map(|entry| entry.to_str().ok()?.split_once('=').filter(|(key, _)| *key == name));
        found.map(|(_, value)| value)
    }
}

/// Of one name the last counts, as in runc: the program's C library would take the first. An empty HOME is none.
fn environment(given: Vec<CString>) -> Vec<CString> {
    let name = |entry: &CString| entry.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default().to_vec();
    let mut known = std::collections::HashSet::new();
    let last = given.into_iter().rev().filter(|entry| known.insert(name(entry)) && entry.to_bytes() != b"HOME=");
    let mut kept: Vec<CString> = last.collect();
    kept.reverse();
    kept
}

pub(super) fn c_string(what: std::fmt::Arguments<'_>, text: &str) -> Result<CString, ContainerError> {
    CString::new(text).map_err(|_| ContainerError::spec(what.to_string(), "it has a NUL byte"))
}

/// In the order of the kernel's numbers (linux/capability.h).
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Capabilities {
    pub(crate) fn new(spec: &oci::LinuxCapabilities) -> Self {
        let bits = |set: &Option<oci::Capabilities>| {
            set.iter().flatten().fold(0, |bits, capability| {
                let name = capability.to_string();
                CAPABILITIES.iter().position(|known| *known == name).map_or(bits, |number| bits | 1 << number)
            })
        };
        Self {
            bounding: bits(spec.bounding()),
            effective: bits(spec.effective()),
            permitted: bits(spec.permitted()),
            inheritable: bits(spec.inheritable()),
            ambient: bits(spec.ambient()),
        }
    }
}

fn rlimits(spec: &oci::Process) -> Result<Vec<crate::plan::ResourceLimit>, ContainerError> {
    let limits = crate::plan::rlimits(spec);
    for (number, limit) in limits.iter().enumerate() {
        if limits[..number].iter().any(|earlier| earlier.resource == limit.resource) {
            return Err(ContainerError::spec(format!("process.rlimits[{number}]"), "the limit is given twice"));
        }
    }
    Ok(limits)
}

fn scheduling(spec: &oci::Scheduler) -> Result<Scheduling, ContainerError> {
    use oci::{LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy};
    let policy = match spec.policy() {
        Policy::SchedOther => libc::SCHED_OTHER,
        Policy::SchedFifo => libc::SCHED_FIFO,
        Policy::SchedRr => libc::SCHED_RR,
        Policy::SchedBatch => libc::SCHED_BATCH,
        Policy::SchedIdle => libc::SCHED_IDLE,
        Policy::SchedDeadline => libc::SCHED_DEADLINE,
        Policy::SchedIso => return Err(ContainerError::spec("process.scheduler.policy", "Linux has no SCHED_ISO")),
    };
    let flag = |flag: &Flag| match flag {
        Flag::SchedResetOnFork => 0x01,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    };
    let priority = u32::try_from(spec.priority().unwrap_or(0))
        .map_err(|_| ContainerError::spec("process.scheduler.priority", "it is negative"))?;
    Ok(Scheduling {
        policy: policy as u32,
        flags: spec.flags().iter().flatten().map(flag).fold(0, |all, one| all | one),
        nice: spec.nice().unwrap_or(0),
        priority,
        runtime: spec.runtime().unwrap_or(0),
        deadline: spec.deadline().unwrap_or(0),
        period: spec.period().unwrap_or(0),
        ..Scheduling::default()
    })
}

fn io_priority(spec: &oci::LinuxIOPriority) -> Result<(u32, u32), ContainerError> {
    use oci::IOPriorityClass as Class;
    let class = match spec.class() {
        Class::IoprioClassRt => 1,
        Class::IoprioClassBe => 2,
        Class::IoprioClassIdle => 3,
    };
    match u32::try_from(spec.priority()) {
        Ok(level) if level <= 7 => Ok((class, level)),
        _ => Err(ContainerError::spec("process.ioPriority.priority", "it is not between 0 and 7")),
    }
}

/// A list such as `0-3,7` as a mask (cpuset(7), "List format").
pub(super) fn list_mask(what: &str, list: &str) -> Result<Vec<u64>, ContainerError> {
    const MOST: usize = 8192;
    let wrong = || ContainerError::spec(what, "it is not a list such as 0-3,7");
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n < MOST).ok_or_else(wrong);
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(wrong());
        }
        if mask.len() <= last / 64 {
            mask.resize(last / 64 + 1, 0u64);
        }
        (first..=last).for_each(|n| mask[n / 64] |= 1 << (n % 64));
    }
    Ok(mask)
}

fn cpus(what: &str, list: Option<&str>) -> Result<Option<Vec<u64>>, ContainerError> {
    list.filter(|list| !list.is_empty()).map(|list| list_mask(what, list)).transpose()
}

fn personality(spec: &oci::LinuxPersonality) -> Result<u64, ContainerError> {
    if spec.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(ContainerError::spec("linux.personality.flags", "no flag is defined by the specification"));
    }
    // linux/personality.h
    Ok(match spec.domain() {
        oci::LinuxPersonalityDomain::PerLinux => 0,
        oci::LinuxPersonalityDomain::PerLinux32 => 0x0008,
    })
}

fn memory_policy(spec: &oci::LinuxMemoryPolicy) -> Result<(i32, Vec<u64>), ContainerError> {
    use oci::{MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};
    let mode = match spec.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &Flag| match flag {
        Flag::MpolFNumaBalancing => 1 << 13,
        Flag::MpolFRelativeNodes => 1 << 14,
        Flag::MpolFStaticNodes => 1 << 15,
    };
    let flags = spec.flags().iter().flatten().map(flag).fold(0, |all, one| all | one);
    let nodes = spec.nodes().as_deref().map(|list| list_mask("linux.memoryPolicy.nodes", list)).transpose()?;
    Ok((mode | flags, nodes.unwrap_or_default()))
}

impl Seccomp {
    fn new(spec: &oci::LinuxSeccomp, kernel: seccomp::KernelVersion) -> Result<Self, ContainerError> {
        let json =
            serde_json::to_string(spec).map_err(|error| ContainerError::spec("linux.seccomp", error.to_string()))?;
        let profile = seccomp::Profile::parse(&json)?;
        let target = seccomp::Target { arch: seccomp::Arch::NATIVE, kernel };
        Ok(Self {
            filter: seccomp::compile_listed(&profile, target)?,
            flags: profile.flags,
            listener: profile.listener_path.map(|path| (path.into(), profile.listener_metadata)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        assert_eq!(list_mask("x", "0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(list_mask("x", "64").unwrap(), [0, 1]);
        for bad in ["a", "3-1", "-1", "99999", "1-"] {
            assert!(list_mask("x", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_each_variable_the_last_counts() {
        let strings = |list: &[&str]| list.iter().map(|text| CString::new(*text).unwrap()).collect::<Vec<_>>();
        let given = strings(&["A=1", "HOME=", "B=", "A=2=3", "PATH=/bin"]);
        assert_eq!(environment(given), strings(&["B=", "A=2=3", "PATH=/bin"]));
        assert_eq!(environment(strings(&["HOME=/a", "HOME="])), strings(&[]));
        assert_eq!(environment(strings(&["HOME=", "HOME=/a"])), strings(&["HOME=/a"]));
    }

    #[test]
    fn capabilities_have_the_kernels_numbers() {
        let spec: oci::LinuxCapabilities = serde_json::from_str(
            r#"{"bounding": ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"], "effective": ["CAP_SYS_ADMIN"]}"#,
        )
        .unwrap();
        let bits = Capabilities::new(&spec);
        assert_eq!((bits.bounding, bits.effective, bits.ambient), (1 | 1 << 40, 1 << 21, 0));
    }
}
