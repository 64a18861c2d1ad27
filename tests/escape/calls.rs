//! System calls that are no program's business, by number, with the answer that each must get.

use crate::{
    both,
    common::{
        Run, Who,
        probe::{
            Answer::{self, Errno, Killed},
            Call, call, make_calls,
        },
    },
};

const EPERM: Answer = Errno(libc::EPERM);
const ENOSYS: Answer = Errno(libc::ENOSYS);
const EAFNOSUPPORT: Answer = Errno(libc::EAFNOSUPPORT);

/// Makes the calls and wants the same of each; then again as root inside, who must get no more.
#[track_caller]
fn all_answer(who: Who, wanted: Answer, calls: &[Call]) {
    for user in ["1000", "0"] {
        let (answers, done) = make_calls(Run::new(who).args(["--user", user]), calls);
        let wrong: Vec<_> = answers.iter().filter(|(_, answer)| **answer != wanted).collect();
        assert!(wrong.is_empty(), "user {user}: wanted {wanted:?}: {wrong:?}\n{done}");
    }
}

fn n(number: i64) -> String {
    number.to_string()
}

const NEW_USER: i64 = libc::CLONE_NEWUSER as i64;

both! {
    /// The way to CVE-2022-0185, CVE-2022-0492 and most others of the kernel that need no privilege.
    fn cve_2022_0185_nested_user_namespaces(who: Who) {
        let spaces = [
            ("user", libc::CLONE_NEWUSER), ("mount", libc::CLONE_NEWNS), ("pid", libc::CLONE_NEWPID), ("net", libc::CLONE_NEWNET),
            ("ipc", libc::CLONE_NEWIPC), ("uts", libc::CLONE_NEWUTS), ("cgroup", libc::CLONE_NEWCGROUP),
        ];
        let mut calls = Vec::new();
        for (name, flag) in spaces {
            calls.push(call(&format!("unshare-{name}"), libc::SYS_unshare, &[&n(flag.into())]));
            calls.push(call(&format!("clone-{name}"), libc::SYS_clone, &[&n(i64::from(flag | libc::SIGCHLD)), "0"]));
        }
        // With bits set that no flag has.
        calls.push(call("clone-high", libc::SYS_clone, &[&n(NEW_USER | 1 << 40 | i64::from(libc::SIGCHLD)), "0"]));
        calls.push(call("setns", libc::SYS_setns, &["0", "0"]));
        all_answer(who, EPERM, &calls);
    }

    /// Its flags lie in memory, where no filter sees them: C libraries take ENOSYS as "use clone".
    fn clone3_is_not_there(who: Who) {
        all_answer(who, ENOSYS, &[call("clone3", libc::SYS_clone3, &["&", "88"])]);
    }

    fn mounts_by_the_old_calls(who: Who) {
        all_answer(who, EPERM, &[
            call("mount", libc::SYS_mount, &["@none", "@/tmp", "@tmpfs", "0", "0"]),
            call("bind", libc::SYS_mount, &["@/", "@/tmp", "0", &n(libc::MS_BIND as i64), "0"]),
            call("remount", libc::SYS_mount, &["0", "@/", "0", &n((libc::MS_REMOUNT | libc::MS_BIND) as i64), "0"]),
            call("umount2", libc::SYS_umount2, &["@/proc", &n(libc::MNT_DETACH.into())]),
            call("pivot_root", libc::SYS_pivot_root, &["@/tmp", "@/tmp"]),
            call("chroot", libc::SYS_chroot, &["@/tmp"]),
            call("swapon", libc::SYS_swapon, &["@/sandbox/probe", "0"]),
        ]);
    }

    fn cve_2022_0185_mounts_by_the_new_calls(who: Who) {
        all_answer(who, EPERM, &[
            call("fsopen", libc::SYS_fsopen, &["@tmpfs", "0"]),
            call("fsconfig", libc::SYS_fsconfig, &["3", "0", "@source", "@x", "0"]),
            call("fsmount", libc::SYS_fsmount, &["3", "0", "0"]),
            call("fspick", libc::SYS_fspick, &["-100", "@/", "0"]),
            call("open_tree", libc::SYS_open_tree, &["-100", "@/", "1"]),
            call("move_mount", libc::SYS_move_mount, &["-100", "@/tmp", "-100", "@/sandbox", "0"]),
            call("mount_setattr", libc::SYS_mount_setattr, &["-100", "@/", "0", "&", "32"]),
        ]);
    }

    fn keyrings(who: Who) {
        all_answer(who, EPERM, &[
            call("add_key", libc::SYS_add_key, &["@user", "@x", "@x", "1", "-4"]),
            call("request_key", libc::SYS_request_key, &["@user", "@x", "0", "0"]),
            call("keyctl", libc::SYS_keyctl, &["0", "-3", "0"]),
        ]);
    }

    fn io_uring_is_not_there(who: Who) {
        all_answer(who, ENOSYS, &[
            call("setup", libc::SYS_io_uring_setup, &["4", "&"]),
            call("enter", libc::SYS_io_uring_enter, &["3", "1", "0", "0", "0", "0"]),
            call("register", libc::SYS_io_uring_register, &["3", "0", "0", "0"]),
        ]);
    }

    fn kernel_programs_tracing_and_modules(who: Who) {
        all_answer(who, EPERM, &[
            call("bpf", libc::SYS_bpf, &["0", "&", "120"]),
            call("perf_event_open", libc::SYS_perf_event_open, &["&", "0", "-1", "-1", "0"]),
            call("userfaultfd", libc::SYS_userfaultfd, &["1"]),
            call("ptrace", libc::SYS_ptrace, &["0", "0", "0", "0"]),
            call("process_vm_readv", libc::SYS_process_vm_readv, &["1", "&", "1", "&", "1", "0"]),
            call("process_vm_writev", libc::SYS_process_vm_writev, &["1", "&", "1", "&", "1", "0"]),
            call("kcmp", libc::SYS_kcmp, &["1", "1", "0", "0", "0"]),
            call("init_module", libc::SYS_init_module, &["&", "16", "@"]),
            call("finit_module", libc::SYS_finit_module, &["0", "@", "0"]),
            call("delete_module", libc::SYS_delete_module, &["@x", "0"]),
            call("kexec_load", libc::SYS_kexec_load, &["0", "0", "0", "0"]),
            call("kexec_file_load", libc::SYS_kexec_file_load, &["0", "0", "0", "0", "0"]),
            call("open_by_handle_at", libc::SYS_open_by_handle_at, &["-100", "&", "0"]),
            call("fanotify_init", libc::SYS_fanotify_init, &["0", "0"]),
            call("reboot", libc::SYS_reboot, &["0xfee1dead", "672274793", "0", "0"]),
            call("syslog", libc::SYS_syslog, &["3", "&", "100"]),
            call("acct", libc::SYS_acct, &["0"]),
            call("settimeofday", libc::SYS_settimeofday, &["&", "0"]),
            call("clock_settime", libc::SYS_clock_settime, &["0", "&"]),
            call("sethostname", libc::SYS_sethostname, &["@x", "1"]),
            call("setdomainname", libc::SYS_setdomainname, &["@x", "1"]),
            call("quotactl", libc::SYS_quotactl, &["0", "@x", "0", "0"]),
            call("iopl", libc::SYS_iopl, &["3"]),
            call("ioperm", libc::SYS_ioperm, &["0", "1", "1"]),
            call("modify_ldt", libc::SYS_modify_ldt, &["0", "&", "16"]),
            call("pidfd_getfd", libc::SYS_pidfd_getfd, &["0", "0", "0"]),
            call("vhangup", libc::SYS_vhangup, &[]),
        ]);
    }

    /// A filter of the program's own with a listener would be asked before ours, and could wave calls through.
    fn a_filter_with_a_listener(who: Who) {
        all_answer(who, EPERM, &[call("seccomp", libc::SYS_seccomp, &["1", "8", "&"])]);
    }

    /// ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC and their kin.
    fn personalities(who: Who) {
        all_answer(who, EPERM, &[
            call("no-randomize", libc::SYS_personality, &["0x40000"]),
            call("read-implies-exec", libc::SYS_personality, &["0x400000"]),
            call("compat-layout", libc::SYS_personality, &["0x200000"]),
        ]);
    }

    /// x32 calls have the same architecture and numbers of their own.
    #[cfg(target_arch = "x86_64")]
    fn x32_calls_kill(who: Who) {
        let x32 = |number: i64| number | 1 << 30;
        all_answer(who, Killed(libc::SIGSYS), &[
            call("getpid", x32(libc::SYS_getpid), &[]),
            call("ptrace", x32(521), &["0", "0", "0", "0"]),
            call("mount", x32(libc::SYS_mount), &["@none", "@/tmp", "@tmpfs", "0", "0"]),
            call("first", x32(0), &[]),
        ]);
    }

    /// Numbers of i386 mean other calls: 20 is getpid there and writev here.
    #[cfg(target_arch = "x86_64")]
    fn int_0x80_calls_kill(who: Who) {
        for number in ["20", "21", "120"] {
            let done = Run::new(who).json_result().probe().program_args(["./probe", "int80", number]).done();
            let json = done.json();
            // A kernel without the 32-bit gate has nothing to filter there.
            assert!(json["signal"] == libc::SIGSYS || json["signal"] == libc::SIGSEGV, "{done}");
            assert!(json["signal"] == libc::SIGSEGV || json["verdict"] == "denied", "{done}");
        }
    }

    fn numbers_of_no_call(who: Who) {
        let (answers, done) = make_calls(Run::new(who), &[
            call("600", 600, &[]), call("1000000", 1_000_000, &[]), call("minus-one", -1, &[]), call("2-to-the-30-less-1", (1 << 30) - 1, &[]),
        ]);
        for (name, answer) in answers {
            assert!(matches!(answer, Errno(libc::ENOSYS | libc::EPERM)), "{name}: {answer:?}: {done}");
        }
    }

    fn sockets_of_other_families(who: Who) {
        let socket = |name: &str, family: i32, kind: i32, protocol: i32| {
            call(name, libc::SYS_socket, &[&n(family.into()), &n(kind.into()), &n(protocol.into())])
        };
        all_answer(who, EAFNOSUPPORT, &[
            socket("packet", libc::AF_PACKET, libc::SOCK_RAW, 0x300),
            socket("packet-dgram", libc::AF_PACKET, libc::SOCK_DGRAM, 0x300),
            socket("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
            socket("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
            socket("bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 1),
            socket("can", 29, libc::SOCK_RAW, 1),
            socket("tipc", libc::AF_TIPC, libc::SOCK_STREAM, 0),
            socket("xdp", 44, libc::SOCK_RAW, 0),
            socket("key", libc::AF_KEY, libc::SOCK_RAW, 2),
            socket("nfc", libc::AF_NFC, libc::SOCK_RAW, 1),
            socket("smc", 43, libc::SOCK_STREAM, 0),
            socket("netlink-netfilter", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
            socket("netlink-audit", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
            socket("netlink-uevent", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT),
            socket("netlink-xfrm", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_XFRM),
        ]);
        all_answer(who, EPERM, &[
            socket("raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
            socket("raw6", libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
            socket("raw-cloexec", libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW),
        ]);
        // Where the kernel reads an int, the filter must too: the high half is not looked at by either.
        let high = |name: &str, family: i64| call(name, libc::SYS_socket, &[&n(family | 1 << 32), "3", "0"]);
        all_answer(who, EAFNOSUPPORT, &[high("packet-high", libc::AF_PACKET.into()), high("vsock-high", libc::AF_VSOCK.into())]);
    }
}

/// The listener that reports refused calls must not let them by while nobody listens.
#[test]
fn refused_calls_stay_refused_under_every_profile() {
    for who in [Who::Root, Who::User].into_iter().filter_map(|who| who.find("refused_calls")) {
        // The strict one executes nothing of ours, so an interpreter of the host's makes the calls.
        let code = format!(
            "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n\
             for call in [({}, {NEW_USER}), ({}, b'none', b'/tmp', b'tmpfs', 0, 0), ({}, 0, 0, 120), ({}, 0, -3, 0)]:\n  \
             print(c.syscall(*call), ctypes.get_errno())",
            libc::SYS_unshare,
            libc::SYS_mount,
            libc::SYS_bpf,
            libc::SYS_keyctl
        );
        let done = Run::new(who).args(["--profile", "strict"]).python(&code).done();
        assert_eq!(done.out(), "-1 1\n".repeat(4), "{done}");
        for profile in ["default", "dev"] {
            let calls = [
                call("unshare", libc::SYS_unshare, &[&n(NEW_USER)]),
                call("mount", libc::SYS_mount, &["@none", "@/tmp", "@tmpfs", "0", "0"]),
                call("bpf", libc::SYS_bpf, &["0", "&", "120"]),
                call("keyctl", libc::SYS_keyctl, &["0", "-3", "0"]),
            ];
            let (answers, done) = make_calls(Run::new(who).args(["--profile", profile]), &calls);
            assert!(answers.values().all(|answer| *answer == EPERM), "{profile}: {answers:?}\n{done}");
        }
    }
}
