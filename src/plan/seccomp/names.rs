//! System calls by name and by number, for the two architectures that fumehood runs on.
//!
//! Invariant: a name that any Linux architecture knows is told apart from a name that none knows, so
//! that a profile written for many architectures is accepted while a misspelt one is not.

use std::sync::LazyLock;

/// Above every number in the tables: 469 is the highest of Linux 6.17.
const NUMBERS_END: usize = 1024;

/// An architecture that a filter can be compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// The architecture of this build.
    pub const NATIVE: Arch = if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 };

    /// `AUDIT_ARCH_*` of linux/audit.h: what `seccomp_data.arch` holds.
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Arch::X86_64 => 0xc000_003e,
            Arch::Aarch64 => 0xc000_00b7,
        }
    }

    /// Go's name for it, which Docker's `includes` and `excludes` use.
    #[must_use]
    pub const fn go_name(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
        }
    }

    /// The number of the call `name`, or `None` where this architecture has no such call.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        let table = self.table();
        let at = table.binary_search_by_key(&name, |entry| entry.0).ok()?;
        Some(table[at].1)
    }

    /// The name of call `number`.
    #[must_use]
    pub fn name(self, number: u32) -> Option<&'static str> {
        let number = number as usize;
        match self {
            Arch::X86_64 => syscalls::x86_64::Sysno::new(number).map(|call| call.name()),
            Arch::Aarch64 => syscalls::aarch64::Sysno::new(number).map(|call| call.name()).map(canonical),
        }
    }

    fn table(self) -> &'static [(&'static str, u32)] {
        static X86_64: LazyLock<Vec<(&str, u32)>> = LazyLock::new(|| sorted(Arch::X86_64));
        static AARCH64: LazyLock<Vec<(&str, u32)>> = LazyLock::new(|| sorted(Arch::Aarch64));
        match self {
            Arch::X86_64 => &X86_64,
            Arch::Aarch64 => &AARCH64,
        }
    }
}

/// Whether any Linux architecture has a call of this name.
pub(super) fn exists_anywhere(name: &str) -> bool {
    Arch::X86_64.number(name).is_some() || Arch::Aarch64.number(name).is_some() || ELSEWHERE.contains(&name)
}

fn sorted(arch: Arch) -> Vec<(&'static str, u32)> {
    let mut table: Vec<_> = (0..NUMBERS_END as u32).filter_map(|number| Some((arch.name(number)?, number))).collect();
    table.sort_unstable();
    table
}

/// The table calls aarch64's 79 `fstatat`; the kernel, libseccomp and every profile say `newfstatat`.
fn canonical(name: &'static str) -> &'static str {
    if name == "fstatat" { "newfstatat" } else { name }
}

/// Calls of other architectures only (libseccomp's table without x86_64's and aarch64's), which Docker's
/// and Podman's profiles list beside ours.
const ELSEWHERE: &[&str] = &[
    "_llseek",
    "_newselect",
    "arm_fadvise64_64",
    "arm_sync_file_range",
    "bdflush",
    "break",
    "breakpoint",
    "cachectl",
    "cacheflush",
    "chown32",
    "fadvise64_64",
    "fchown32",
    "fcntl64",
    "fstat64",
    "fstatat",
    "fstatat64",
    "fstatfs64",
    "ftime",
    "ftruncate64",
    "get_tls",
    "getegid32",
    "geteuid32",
    "getgid32",
    "getgroups32",
    "getresgid32",
    "getresuid32",
    "getuid32",
    "gtty",
    "idle",
    "ipc",
    "lchown32",
    "lock",
    "lstat64",
    "mmap2",
    "mpx",
    "multiplexer",
    "nice",
    "oldfstat",
    "oldlstat",
    "oldolduname",
    "oldstat",
    "olduname",
    "oldwait4",
    "pciconfig_iobase",
    "pciconfig_read",
    "pciconfig_write",
    "prof",
    "profil",
    "readdir",
    "recv",
    "riscv_flush_icache",
    "riscv_hwprobe",
    "rtas",
    "s390_guarded_storage",
    "s390_pci_mmio_read",
    "s390_pci_mmio_write",
    "s390_runtime_instr",
    "s390_sthyi",
    "send",
    "sendfile64",
    "set_tls",
    "setfsgid32",
    "setfsuid32",
    "setgid32",
    "setgroups32",
    "setregid32",
    "setresgid32",
    "setresuid32",
    "setreuid32",
    "setuid32",
    "sgetmask",
    "sigaction",
    "signal",
    "sigpending",
    "sigprocmask",
    "sigreturn",
    "sigsuspend",
    "socketcall",
    "spu_create",
    "spu_run",
    "ssetmask",
    "stat64",
    "statfs64",
    "stime",
    "stty",
    "subpage_prot",
    "swapcontext",
    "switch_endian",
    "sync_file_range2",
    "sys_debug_setcontext",
    "syscall",
    "sysmips",
    "timerfd",
    "truncate64",
    "ugetrlimit",
    "ulimit",
    "umount",
    "usr26",
    "usr32",
    "vm86",
    "vm86old",
    "waitpid",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_each_others_inverse() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let known = (0..NUMBERS_END as u32).filter_map(|number| Some((number, arch.name(number)?)));
            let count = known.inspect(|&(number, name)| assert_eq!(arch.number(name), Some(number), "{name}")).count();
            assert!(count > 300);
        }
    }

    #[test]
    fn numbers_are_the_kernels() {
        // asm/unistd_64.h and asm-generic/unistd.h.
        for (name, x86_64, aarch64) in [
            ("read", Some(0), Some(63)),
            ("open", Some(2), None),
            ("clone3", Some(435), Some(435)),
            ("newfstatat", Some(262), Some(79)),
            ("arch_prctl", Some(158), None),
            ("file_setattr", Some(469), Some(469)),
            ("no_such_call", None, None),
        ] {
            assert_eq!(Arch::X86_64.number(name), x86_64, "{name}");
            assert_eq!(Arch::Aarch64.number(name), aarch64, "{name}");
        }
    }

    #[test]
    fn a_foreign_name_is_no_typo() {
        for name in ["umount", "socketcall", "mmap2", "open", "newfstatat"] {
            assert!(exists_anywhere(name), "{name}");
        }
        for name in ["mout", "", "Read", "read ", "io_uring"] {
            assert!(!exists_anywhere(name), "{name}");
        }
    }
}
