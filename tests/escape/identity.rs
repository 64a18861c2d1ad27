//! Who the program is: nobody, with nothing, inside and out.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::{
    both,
    common::{
        Run, Who, granted_ids,
        host::{eventually, processes},
        skip,
    },
};

fn status(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(k, v)| (k.to_owned(), v.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

both! {
    /// Inheritable ones too: CVE-2022-29162 and its kin in crun, buildah, podman and youki.
    fn cve_2022_29162_no_capability_in_any_set(who: Who) {
        let stranger = if who == Who::Root { Some("7:8") } else { granted_ids(who, "no_capability").map(|_| "7:8") };
        for user in ["1000", "0"].into_iter().chain(stranger) {
            for args in [&[][..], &["--writable"], &["--profile", "dev"], &["--net", "host"]] {
                let done = Run::new(who).args(["--user", user]).args(args).cmd("cat /proc/self/status").done().expect_code(0);
                let found = status(&done.out());
                for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                    assert_eq!(found[set], "0000000000000000", "{set}: {done}");
                }
                assert_eq!(found["NoNewPrivs"], "1", "{done}");
                assert_eq!(found["Seccomp"], "2", "{done}");
                assert!(found["Groups"].is_empty() || found["Groups"] == "65534", "{done}");
                assert_eq!(found["TracerPid"], "0");
                // Signals over 31 are a C library's own.
                assert_eq!(u64::from_str_radix(&found["SigIgn"], 16).unwrap() & 0x7fff_ffff, 0, "{done}");
                assert_eq!(found["SigBlk"], "0000000000000000", "{done}");
            }
        }
    }

    /// Looked at from outside, where ids are what they are.
    fn never_root_on_the_host(who: Who) {
        let granted = granted_ids(who, "never_root_on_the_host");
        for user in ["1000", "0"].into_iter().chain(granted.map(|_| "7:8")) {
            let run = Run::new(who).args(["--user", user]).args(["--env", "HOST_VIEW=1"]).cmd("echo ready; exec sleep 1000");
            let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n");
            let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            assert!(eventually(|| descendants(child.id()).into_iter().any(|pid| name(pid) == "sleep\n")));
            let mut seen = Vec::new();
            for pid in descendants(child.id()) {
                // A helper of the init's may be gone by now.
                let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
                let found = status(&text);
                seen.push(format!("{} {}", found["Name"], found["Uid"]));
                for id in found["Uid"].split(' ').chain(found["Gid"].split(' ')) {
                    assert_ne!(id, "0", "{seen:?}");
                    if let Some([uids, gids]) = granted.filter(|_| user == "7:8" && found["Name"] == "sleep") {
                        let wanted = [uids, gids].map(|(first, _)| first);
                        assert!(id == (wanted[0] + 6).to_string() || id == (wanted[1] + 7).to_string(), "{seen:?}");
                    } else if who == Who::User {
                        assert!(id == who.uid().to_string() || found["Gid"].contains(id), "{seen:?}");
                    } else {
                        assert!(id.parse::<u32>().unwrap() >= 65_536, "an id that may belong to somebody: {seen:?}");
                    }
                }
                assert!(found["Groups"].split(' ').all(|group| group != "0"), "{found:?}");
            }
            assert!(seen.iter().any(|line| line.starts_with("sleep ")), "{seen:?}");
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(eventually(|| processes(&run.name).is_empty()));
            Run::verb(who, "cleanup").env("XDG_RUNTIME_DIR", run.place.join("runtime-dir")).done().expect_code(0);
        }
    }

    fn setuid_programs_give_nothing(who: Who) {
        let line = "for p in su sudo mount umount passwd chsh newgrp pkexec newuidmap; do f=$(command -v $p) && $f --version >/dev/null 2>&1; done; \
            sudo -n id; su -c id; grep -E 'Cap|NoNew' /proc/self/status; id -u";
        let done = Run::new(who).cmd(line).done();
        assert!(!done.out().contains("uid=0") && done.out().ends_with("1000\n"), "{done}");
        // A setuid file of one's own.
        let code = "import os, shutil, subprocess\nshutil.copy('/usr/bin/id', 'id'); os.chmod('id', 0o6755)\nprint(subprocess.run(['./id', '-u'], capture_output=True).stdout.decode())";
        Run::new(who).python(code).done().expect_out("1000\n\n");
    }

    fn ids_can_not_be_changed(who: Who) {
        let code = "import os\nfor f, a in ((os.setuid, (0,)), (os.setgid, (0,)), (os.setresuid, (0, 0, 0)), (os.setgroups, ([0],)), (os.setreuid, (1, 1))):\n\
            \x20 try: f(*a); print(f.__name__)\n  except OSError: pass";
        Run::new(who).python(code).done().expect_out("");
        let code = "import os\nfor f in ('uid_map', 'gid_map', 'setgroups', 'oom_score_adj'):\n  try:\n    with open('/proc/self/' + f, 'w') as o: o.write('0 0 1' if f.endswith('map') else 'allow' if f == 'setgroups' else '-1000')\n    print(f)\n  except OSError: pass";
        Run::new(who).args(["--user", "0"]).python(code).done().expect_out("");
    }

    fn strange_users_are_refused_or_harmless(who: Who) {
        for user in ["-1", "4294967296", "4294967295", "65535", "99999999999999999999", "root:root:root", "1,2"] {
            Run::new(who).args([format!("--user={user}")]).cmd("id").done().expect_error("");
        }
    }

    fn a_session_and_keyring_of_its_own(who: Who) {
        let code = "import os\nprint(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid(), os.tcgetpgrp(0) if os.isatty(0) else '')";
        Run::new(who).python(code).done().expect_out("True True \n");
        if fs::read_to_string("/proc/keys").is_err() {
            skip("a_session_and_keyring_of_its_own", "this kernel has no keyrings");
            return;
        }
        let done = Run::new(who).cmd("cat /proc/keys /proc/key-users").done();
        assert!(!done.out().contains("_ses") && !done.out().contains("_uid"), "{done}");
    }
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut pending = vec![pid];
    while let Some(pid) = pending.pop() {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        pending.extend(&children);
        found.extend(children);
    }
    found
}
