//! System calls by name and by number, for the two architectures that fumehood runs on, and for the other ways into
//! their kernels.
//!
//! Invariant: a name that any Linux architecture knows is told apart from a name that none knows, so
//! that a profile written for many architectures is accepted while a misspelt one is not.

use std::sync::LazyLock;

/// Above every number in the tables: 469 is the highest of Linux 6.17.
const NUMBERS_END: usize = 1024;

/// An architecture that a filter can have rules for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    X86_64,
    Aarch64,
    /// The 32-bit calls of an x86_64 kernel (`int 0x80`).
    X86,
    /// x86_64's calls for programs with pointers of 32 bits: the same, with one more bit in the number.
    X32,
    /// The 32-bit calls of an aarch64 kernel.
    Arm,
}

/// What makes a call of x86_64 one of x32.
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// The architecture of this build.
    pub const NATIVE: Arch = if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 };

    /// `AUDIT_ARCH_*` of linux/audit.h: what `seccomp_data.arch` holds.
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::X86 => 0x4000_0003,
            Arch::Arm => 0x4000_0028,
        }
    }

    /// The others whose calls a kernel for this one takes, each as a specification calls it.
    #[must_use]
    pub const fn others(self) -> &'static [(&'static str, Arch)] {
        match self {
            Arch::X86_64 => &[("SCMP_ARCH_X86", Arch::X86), ("SCMP_ARCH_X32", Arch::X32)],
            Arch::Aarch64 => &[("SCMP_ARCH_ARM", Arch::Arm)],
            Arch::X86 | Arch::X32 | Arch::Arm => &[],
        }
    }

    /// Whether its arguments have 32 bits.
    #[must_use]
    pub const fn has_short_arguments(self) -> bool {
        matches!(self, Arch::X86 | Arch::Arm)
    }

    /// Go's name for it, which Docker's `includes` and `excludes` use.
    #[must_use]
    pub const fn go_name(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
            Arch::X86 => "x86",
            Arch::X32 => "x32",
            Arch::Arm => "arm",
        }
    }

    /// The number of the call `name`, or `None` where this architecture has no such call.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        self.numbers(name).last()
    }

    /// All numbers by which the kernel may know it: of a call that x32 has one of its own for, x86_64's, too (until 5.4).
    pub fn numbers(self, name: &str) -> impl Iterator<Item = u32> {
        let table = self.table();
        let rest = &table[table.partition_point(|entry| entry.0 < name)..];
        rest.iter().take_while(move |entry| entry.0 == name).map(|entry| entry.1)
    }

    /// The name of call `number`.
    #[must_use]
    pub fn name(self, number: u32) -> Option<&'static str> {
        let number = number as usize;
        match self {
            Arch::X86_64 => syscalls::x86_64::Sysno::new(number).map(|call| call.name()),
            Arch::Aarch64 => syscalls::aarch64::Sysno::new(number).map(|call| call.name()).map(canonical),
            Arch::X86 => syscalls::x86::Sysno::new(number).map(|call| call.name()),
            Arch::Arm => match number.checked_sub(ARM_OWN_BEGIN) {
                Some(own) => ARM_OWN.get(own).copied(),
                None => syscalls::arm::Sysno::new(number).map(|call| call.name()),
            },
            Arch::X32 => {
                let number = number.checked_sub(X32_BIT as usize)?;
                match number.checked_sub(512) {
                    Some(own) => X32_OWN.get(own).copied(),
                    None => Arch::X86_64.name(number as u32),
                }
            }
        }
    }

    fn table(self) -> &'static [(&'static str, u32)] {
        static X86_64: LazyLock<Vec<(&str, u32)>> = LazyLock::new(|| sorted(Arch::X86_64));
        static AARCH64: LazyLock<Vec<(&str, u32)>> = LazyLock::new(|| sorted(Arch::Aarch64));
        static X86: LazyLock<Vec<(&str, u32)>> = LazyLock::new(|| sorted(Arch::X86));
        static X32: LazyLock<Vec<(&str, u32)>> = LazyLock::new(|| sorted(Arch::X32));
        static ARM: LazyLock<Vec<(&str, u32)>> = LazyLock::new(|| sorted(Arch::Arm));
        match self {
            Arch::X86_64 => &X86_64,
            Arch::Aarch64 => &AARCH64,
            Arch::X86 => &X86,
            Arch::X32 => &X32,
            Arch::Arm => &ARM,
        }
    }
}

/// x32's own calls, from 512 on: those whose structures have pointers in them.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// The call of i386 by which `name` can be made, too, and the number by which it knows it there
/// (linux/net.h, linux/ipc.h).
#[must_use]
pub(super) fn multiplexed(name: &str) -> Option<(&'static str, u64)> {
    const SOCKETS: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    let socket = SOCKETS.iter().zip(1..).find(|(known, _)| **known == name).map(|(_, number)| ("socketcall", number));
    socket.or_else(|| IPC.iter().find(|(known, _)| *known == name).map(|(_, number)| ("ipc", *number)))
}

/// Whether any Linux architecture has a call of this name.
pub(super) fn exists_anywhere(name: &str) -> bool {
    let has = |arch: Arch| arch.number(name).is_some();
    has(Arch::X86_64) || has(Arch::Aarch64) || ELSEWHERE.contains(&name)
}

/// Arm's own calls, from 0xf0001 on.
const ARM_OWN: [&str; 6] = ["breakpoint", "cacheflush", "usr26", "usr32", "set_tls", "get_tls"];
const ARM_OWN_BEGIN: usize = 0xf_0001;

fn sorted(arch: Arch) -> Vec<(&'static str, u32)> {
    let first = if arch == Arch::X32 { X32_BIT } else { 0 };
    let own = ARM_OWN_BEGIN as u32..if arch == Arch::Arm { (ARM_OWN_BEGIN + ARM_OWN.len()) as u32 } else { 0 };
    let numbers = (first..first + NUMBERS_END as u32).chain(own);
    let mut table: Vec<_> = numbers.filter_map(|number| Some((arch.name(number)?, number))).collect();
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
        for arch in [Arch::X86_64, Arch::Aarch64, Arch::X86, Arch::Arm] {
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
    fn numbers_of_other_ways_in_are_the_kernels() {
        // asm/unistd_32.h, asm/unistd_x32.h and arm's asm/unistd.h.
        for (name, x86, x32, arm) in [
            ("read", Some(3), Some(X32_BIT), Some(3)),
            ("execve", Some(11), Some(X32_BIT + 520), Some(11)),
            ("socketcall", Some(102), None, None),
            ("ipc", Some(117), None, None),
            ("mmap2", Some(192), None, Some(192)),
            ("umount", Some(22), None, None),
            ("umount2", Some(52), Some(X32_BIT + 166), Some(52)),
            ("clone3", Some(435), Some(X32_BIT + 435), Some(435)),
            ("set_tls", None, None, Some(0xf_0005)),
            ("pwritev2", Some(379), Some(X32_BIT + 547), Some(393)),
        ] {
            assert_eq!(Arch::X86.number(name), x86, "{name}");
            assert_eq!(Arch::X32.number(name), x32, "{name}");
            assert_eq!(Arch::Arm.number(name), arm, "{name}");
        }
        let numbers = |arch: Arch, name| arch.numbers(name).collect::<Vec<_>>();
        assert_eq!(numbers(Arch::X32, "execve"), [X32_BIT + 59, X32_BIT + 520]);
        assert_eq!((numbers(Arch::X32, "read"), numbers(Arch::X86_64, "execve")), (vec![X32_BIT], vec![59]));
        assert_eq!(Arch::X32.name(X32_BIT + 520), Some("execve"));
        assert_eq!((multiplexed("sendmmsg"), multiplexed("shmctl")), (Some(("socketcall", 20)), Some(("ipc", 24))));
        assert_eq!(multiplexed("read"), None);
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
