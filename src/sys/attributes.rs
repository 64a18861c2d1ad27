//! What an OCI process may be given beyond an id: capabilities, groups, scheduling, memory policy.

use super::{Result, check};

/// Supplementary groups, straight to the kernel.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the list is valid for its length.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Real, effective and saved group, then user.
pub fn set_ids(uid: u32, gid: u32) -> Result<()> {
    // SAFETY: numbers only.
    unsafe {
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Root of this user namespace, as far as it has one: an id that is not mapped stays as it is.
pub fn become_root() -> Result<()> {
    // SAFETY: numbers only.
    unsafe {
        for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
            match check(libc::syscall(call, 0, 0, 0)) {
                Ok(_) | Err(super::Errno::EINVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// Whether a change of user keeps the permitted set (PR_SET_KEEPCAPS); execve clears it.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0, 0, 0) }.into()).map(drop)
}

/// Drops all of the bounding set but `keep`, a bit a capability.
pub fn limit_bounding_set(keep: u64) -> Result<()> {
    for capability in 0..64 {
        if keep & 1 << capability != 0 {
            continue;
        }
        // SAFETY: takes no pointer.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) }.into()) {
            // Past the last capability of this kernel.
            Err(super::Errno::EINVAL) => break,
            Ok(0) => continue,
            other => other?,
        };
        // SAFETY: takes no pointer.
        check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into())?;
    }
    Ok(())
}

/// The three sets of this thread, a bit a capability (capset(2)).
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let words = |shift: u32| [effective, permitted, inheritable].map(|set| (set >> shift) as u32);
    let ([a, b, c], [d, e, f]) = (words(0), words(32));
    let data = [a, b, c, d, e, f];
    // SAFETY: a version 3 header takes two sets of three words.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// Makes the ambient set `set`; what may not be raised is an error.
pub fn set_ambient(set: u64) -> Result<()> {
    // SAFETY: takes no pointer.
    let control = |operation: i32, capability: u64| unsafe {
        check(libc::prctl(libc::PR_CAP_AMBIENT, operation as libc::c_ulong, capability, 0, 0).into())
    };
    control(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    for capability in (0..64).filter(|capability| set & 1 << capability != 0) {
        control(libc::PR_CAP_AMBIENT_RAISE, capability)?;
    }
    Ok(())
}

/// Whoever is orphaned below becomes our child (PR_SET_CHILD_SUBREAPER).
pub fn adopt_orphans() -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::personality(persona as libc::c_ulong) }.into()).map(drop)
}

/// As sched_setattr(2) takes it, first version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Scheduling {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

pub fn set_scheduling(scheduling: &Scheduling) -> Result<()> {
    let sized = Scheduling { size: size_of::<Scheduling>() as u32, ..*scheduling };
    // SAFETY: the structure is valid for the size it names.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const sized, 0) }).map(drop)
}

/// Class and level (ioprio_set(2)).
pub fn set_io_priority(class: u32, level: u32) -> Result<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: takes no pointer.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, class << 13 | level) }).map(drop)
}

/// The processors this thread may run on, a bit each.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    // SAFETY: the mask is valid for its length in bytes.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) }).map(drop)
}

/// A memory policy over the nodes of `mask` (set_mempolicy(2)); `mode` with its flags.
pub fn set_memory_policy(mode: i32, mask: &[u64]) -> Result<()> {
    let bits = if mask.is_empty() { 0 } else { mask.len() * 64 + 1 };
    let nodes = if mask.is_empty() { std::ptr::null() } else { mask.as_ptr() };
    // SAFETY: the mask is valid for the number of bits, of which the kernel reads one less.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes, bits) }).map(drop)
}

/// The NIS domain name of this uts namespace.
pub fn set_domain_name(name: &std::ffi::CStr) -> Result<()> {
    // SAFETY: the string is valid for its length.
    check(unsafe { libc::setdomainname(name.as_ptr(), name.count_bytes()) }.into()).map(drop)
}
