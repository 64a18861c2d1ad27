//! /proc: its own, read-only, and without what tells of the host or acts on it.

use std::fs;

use crate::{
    both,
    common::{Run, Who},
};

both! {
    fn proc_sys_can_not_be_written(who: Who) {
        let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let code = "import os\nfor path in ('kernel/hostname', 'kernel/core_pattern', 'kernel/modprobe', 'kernel/domainname', 'vm/overcommit_memory', 'kernel/ns_last_pid', 'kernel/shmmax', 'net/ipv4/ip_forward', 'fs/file-max', 'user/max_user_namespaces'):\n\
            \x20 for mode in ('w', 'r+', 'a'):\n    try:\n      with open('/proc/sys/' + path, mode) as f: f.write('1')\n      print('wrote', path)\n    except OSError: pass";
        for user in ["1000", "0"] {
            Run::new(who).args(["--user", user, "--writable"]).python(code).done().expect_out("");
        }
        assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
    }

    fn proc_files_that_act(who: Who) {
        let code = "import os\nfor path in ('sysrq-trigger', 'irq/default_smp_affinity', 'self/oom_score_adj', 'self/loginuid', 'self/timerslack_ns', 'self/attr/current', 'self/attr/exec', 'self/coredump_filter', 'self/clear_refs', 'acpi/wakeup', 'mtrr', 'bus/pci/00/00.0', 'scsi/scsi', 'timer_stats', 'self/autogroup', '1/oom_score_adj', 'pressure/memory'):\n\
            \x20 try:\n    with open('/proc/' + path, 'r+b', 0) as f: f.write(b'-1')\n    print('wrote', path)\n  except OSError: pass";
        for user in ["1000", "0"] {
            Run::new(who).args(["--user", user]).python(code).done().expect_out("");
        }
    }

    fn proc_files_that_tell(who: Who) {
        let code = "for path in ('kcore', 'keys', 'timer_list', 'sched_debug', 'interrupts', 'latency_stats', 'kmsg', 'kpagecount', 'kpageflags', 'kpagecgroup', 'vmallocinfo', 'slabinfo', 'iomem.', 'config', 'acpi/', 'asound/', 'scsi/scsi'):\n\
            \x20 try:\n    if open('/proc/' + path, 'rb').read(16): print('read', path)\n  except OSError: pass\n\
            text = open('/proc/kallsyms').read(4000)\nprint('addresses' if any(line.split()[0].strip('0') for line in text.splitlines()[:-1]) else '', end='')";
        for user in ["1000", "0"] {
            Run::new(who).args(["--user", user]).python(code).done().expect_out("");
        }
    }

    fn masks_can_not_be_lifted(who: Who) {
        Run::new(who).args(["--user", "0"]).cmd("umount /proc/kcore /proc/acpi; mount -o remount,rw /proc; mount -t proc proc /tmp; umount -l /proc; cat /proc/kcore | head -c 1 | wc -c; ls /tmp")
            .done().expect_out("0\n");
    }

    fn proc_is_hidepid_and_read_only(who: Who) {
        let done = Run::new(who).cmd("grep ' /proc ' /proc/self/mountinfo").done().expect_code(0);
        let line = done.out();
        assert!(line.contains(" ro,") && line.contains("nosuid") && line.contains("nodev") && line.contains("noexec"), "{done}");
        assert!(line.contains("hidepid=2") || line.contains("hidepid=invisible"), "{done}");
    }
}
