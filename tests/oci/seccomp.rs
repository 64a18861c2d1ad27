//! The container's own filter: what it is over, and who is told.

use crate::both;
use serde_json::{Value, json};

use crate::{bundle::Container, common::Who, cve_terminals::Engine};

fn filter(action: &str, names: &[&str]) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": names, "action": action }] })
}

/// As an engine's default: a list of what is allowed, of which keyctl(2) is not, on these architectures.
#[cfg(target_arch = "x86_64")]
fn allow_list(architectures: &[&str]) -> Value {
    let text = include_str!("../../profiles/seccomp/default.json");
    let mut profile: Value = serde_json::from_str(text).unwrap();
    let mut rules = profile["syscalls"].take();
    for rule in rules.as_array_mut().unwrap() {
        rule.as_object_mut().unwrap().remove("comment");
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": architectures, "syscalls": rules,
    })
}

#[cfg(target_arch = "x86_64")]
both! {
    fn programs_of_listed_architectures_run_and_are_held(who: Who) {
        let Some(container) = Container::new("architectures", who) else { return };
        let container = container.helpers().args(&["short"]);
        container.place.write_executable("bundle/rootfs/bin/short", crate::common::probe::short());
        let said = container.run();
        if said.code == 126 || said.err.contains("exec format error") {
            crate::common::skip("architectures", "a kernel with CONFIG_IA32_EMULATION");
            return;
        }
        assert_eq!(said.out, "ran\n", "{said:?}");
        let all = allow_list(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        let container = container.set("/linux/seccomp", all);
        let said = container.run();
        assert_eq!((said.out.as_str(), said.code), ("ran\n", 1), "{said:?}");
        // The 32-bit gate from a program of 64 bits: getpid and keyctl by i386's numbers. By x86_64's these are writev
        // and mknodat.
        let container = container.args(&["probe", "int80", "20"]);
        assert_eq!(container.run().ok(), "survived 1\n");
        let container = container.args(&["probe", "int80", "288"]);
        assert_eq!(container.run().ok(), "survived -1\n");
        // x32's getpid: whether there is one is the kernel's to say, not the filter's.
        let x32 = ["probe", "calls", "getpid:0x40000027"];
        let container = container.args(&x32);
        assert!(["getpid returned 1\n", "getpid errno 38\n"].contains(&container.run().ok().as_str()));
        let native = allow_list(&["SCMP_ARCH_X86_64"]);
        let container = container.set("/linux/seccomp", native).args(&["probe", "int80", "20"]);
        assert_eq!(container.run().code, 128 + libc::SIGSYS);
        let container = container.args(&x32);
        assert_eq!(container.run().ok(), format!("getpid killed {}\n", libc::SIGSYS));
        let container = container.args(&["short"]);
        let said = container.run();
        assert_eq!((said.out.as_str(), said.code), ("", 128 + libc::SIGSYS), "{said:?}");
    }
}

both! {
    fn hooks_inside_run_under_the_filter(who: Who) {
        let Some(container) = Container::new("hook filter", who) else { return };
        let hook = json!([{ "path": "/bin/probe", "args": ["probe", "calls", "keyctl:250,0,-3,0"], "env": [] }]);
        let hook = {
            let mut hook = hook;
            let line = "/bin/probe calls keyctl:250,0,-3,0 > /tmp/hook; grep Seccomp: /proc/self/status >> /tmp/hook";
            hook[0] = json!({ "path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/bin"] });
            hook
        };
        let mut container = container
            .helpers()
            .set("/hooks", json!({ "startContainer": hook }))
            .set("/linux/seccomp", filter("SCMP_ACT_ERRNO", &["keyctl"]))
            .args(&["cat", "/tmp/hook"]);
        for no_new_privileges in [true, false] {
            container = container.set("/process/noNewPrivileges", json!(no_new_privileges));
            assert_eq!(container.run().ok(), "keyctl errno 1\nSeccomp:\t2\n", "noNewPrivileges: {no_new_privileges}");
        }
    }

    fn an_agent_gets_the_listener(who: Who) {
        let Some(container) = Container::new("listener", who) else { return };
        let agent = Engine::listen(&container, "agent");
        let mut seccomp = filter("SCMP_ACT_NOTIFY", &["mkdir", "mkdirat"]);
        seccomp["listenerPath"] = json!(agent.path);
        seccomp["listenerMetadata"] = json!("for the agent");
        let mut container = container
            .set("/linux/seccomp", seccomp)
            .shell("mkdir /tmp/made 2>/dev/null || echo refused; exec sleep 100");
        for no_new_privileges in [true, false] {
            container = container.set("/process/noNewPrivileges", json!(no_new_privileges));
            container.create();
            let (message, listener) = agent.received().expect("nobody told the agent");
            let message: Value = serde_json::from_slice(&message).unwrap();
            assert_eq!((&message["fds"], &message["metadata"]), (&json!(["seccompFd"]), &json!("for the agent")));
            assert_eq!((&message["state"]["status"], &message["state"]["id"]), (&json!("creating"), &json!(container.id)));
            assert_eq!(message["pid"].to_string(), container.place.read("pid"));
            let name = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener)));
            assert!(name.unwrap().to_str().unwrap().contains("seccomp"), "it is no listener");
            // Without an agent such a call is refused (seccomp_unotify(2): ENOSYS).
            drop(listener);
            container.start();
            // exec has a filter and a listener of its own; until that is closed the call waits for the agent.
            let line = "mkdir /tmp/by-exec; echo $? > /tmp/status";
            container.output(container.command("exec", &["--detach", &container.id, "sh", "-c", line])).ok();
            let (message, listener) = agent.received().expect("nobody told the agent of exec");
            let message: Value = serde_json::from_slice(&message).unwrap();
            assert_eq!(message["state"]["status"], "running");
            drop(listener);
            let status = || std::fs::read_to_string(container.rootfs("tmp/status")).unwrap_or_default() == "1\n";
            assert!(crate::common::host::eventually(status), "the call of exec is not refused");
            std::fs::remove_file(container.rootfs("tmp/status")).unwrap();
            assert!(!container.rootfs("tmp/made").exists() && !container.rootfs("tmp/by-exec").exists());
            container.call("delete", &["--force"]).ok();
        }
    }

    fn an_agent_that_is_not_there_is_an_error(who: Who) {
        let Some(container) = Container::new("no agent", who) else { return };
        let mut seccomp = filter("SCMP_ACT_NOTIFY", &["mkdir", "mkdirat"]);
        seccomp["listenerPath"] = json!(container.place.join("nobody"));
        let container = container.set("/linux/seccomp", seccomp);
        container.run().fails("seccomp agent");
        container.call("state", &[]).fails("does not exist");
    }
}
