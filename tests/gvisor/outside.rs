//! What this host sees of gVisor's processes, and what they are kept from.

use std::{fs, process::Stdio};

use crate::{
    both,
    common::{Run, Who, host::eventually},
    gvisor,
};

fn descendants(pid: u32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut pending = vec![pid as i32];
    while let Some(pid) = pending.pop() {
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace().map(|child| child.parse().unwrap()) {
                found.push(child);
                pending.push(child);
            }
        }
    }
    found
}

both! {
    /// Root of the sandbox, and so nobody here; and under a filter of ours from before it started.
    fn none_is_root_or_without_a_filter(who: Who) {
        let Some(run) = gvisor(who, "none_is_root_or_without_a_filter") else { return };
        let run = run.args(["--user", "0"]).cmd("sleep 1000");
        let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let named = |pid: i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(command.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
        };
        assert!(eventually(|| {
            let all: Vec<_> = descendants(child.id()).into_iter().map(named).collect();
            ["runsc", "runsc-gofer", "runsc-sandbox"].iter().all(|name| all.iter().any(|found| found == name))
        }));
        for pid in descendants(child.id()) {
            let (status, name) = (fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), named(pid));
            let field = |field: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(field));
                line.map(|words| words.split_ascii_whitespace().collect::<Vec<_>>()).unwrap_or_default()
            };
            assert!(!field("Uid:").contains(&"0") && !field("Gid:").contains(&"0"), "{name}: {status}");
            if name.starts_with("runsc") {
                assert_eq!((field("Seccomp:"), field("NoNewPrivs:")), (vec!["2"], vec!["1"]), "{name}: {status}");
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(eventually(|| crate::common::host::processes(&run.name).is_empty()));
    }

    /// What would have the kernel wait for all CPUs, and is for nothing but on kvm.
    fn runsc_is_spared_waits(who: Who) {
        let Some(run) = gvisor(who, "runsc_is_spared_waits") else { return };
        let run = run.cmd("sleep 1000");
        let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let spared = |pid: i32, name: &str| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let field = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok()).unwrap_or_default()
            };
            // What keeps it from calls is one; the other two load more by themselves. And gVisor's kernel has so large a
            // table in any case.
            let is_spared = field("Seccomp_filters:") > 1 && field("FDSize:") >= 512;
            command.split(|byte| *byte == 0).next() == Some(name.as_bytes()) && is_spared
        };
        assert!(eventually(|| {
            let all = descendants(child.id());
            ["runsc", "runsc-gofer", "runsc-sandbox"].iter().all(|name| all.iter().any(|pid| spared(*pid, name)))
        }));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(eventually(|| crate::common::host::processes(&run.name).is_empty()));

        for (platform, wanted) in [("auto", true), ("ptrace", true), ("kvm", false)] {
            let run = Run::verb(who, "explain").args(["--isolation", "gvisor", "--gvisor-platform", platform]);
            let done = run.cmd("true").done().expect_code(0);
            assert_eq!(done.out().contains("seccomp no-registration"), wanted, "{platform}: {done}");
        }
    }

    /// What runsc says to its end is told once, by us.
    fn runscs_own_words_are_not_the_programs(who: Who) {
        for (program, code) in [("/usr", 126), ("/no/such", 127)] {
            let Some(run) = gvisor(who, "runscs_own_words_are_not_the_programs") else { return };
            let done = run.program_args([program]).done().expect_code(code);
            assert!(done.err().starts_with("error: ") && !done.err().contains("running container"), "{done}");
        }
        // A program may say the same.
        let Some(run) = gvisor(who, "runscs_own_words_are_not_the_programs") else { return };
        let done = run.cmd("echo 'running container: well' >&2").done().expect_code(0);
        assert_eq!(done.err(), "running container: well\n");
    }

    fn a_kernel_that_is_killed_leaves_its_log(who: Who) {
        let Some(run) = gvisor(who, "a_kernel_that_is_killed_leaves_its_log") else { return };
        let run = run.args(["--secret", "TOKEN=hunter22"]).cmd("echo $TOKEN >&2; exec sleep 1000 # hunter22");
        let child = run.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let sentry = || {
            let all = descendants(child.id()).into_iter();
            let mut found = all.filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.starts_with(b"runsc-sandbox")));
            found.next()
        };
        assert!(eventually(|| sentry().is_some()));
        // It has started the program when that has a process.
        std::thread::sleep(std::time::Duration::from_secs(2));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(sentry().unwrap()), nix::sys::signal::Signal::SIGKILL).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{err}");
        assert!(err.contains("error: gVisor did not run the program"), "{err}");
        let path = err.lines().find_map(|line| line.strip_prefix("hint: runsc's log is in ")).unwrap_or_else(|| panic!("{err}"));
        let log = fs::read_to_string(path).unwrap();
        assert!(log.contains("sandbox.go") && !log.contains("hunter22"), "{log}");
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let meta = fs::metadata(path).unwrap();
        assert_eq!((meta.uid(), meta.permissions().mode() & 0o777), (who.uid(), 0o600));
        fs::remove_file(path).unwrap();
    }
}
