//! `io.fumehood.*`: annotations that tighten a container.

use crate::both;
use serde_json::{Value, json};

use crate::{bundle::Container, common::Who};

const STATUS: &str = "grep -E '^(NoNewPrivs|Seccomp_filters)' /proc/self/status";
/// keyctl(2), which no profile of ours allows: the session keyring's number.
const KEYCTL: &str = "keyctl:250,0,-3,0";

fn annotated(container: Container, annotations: Value) -> Container {
    container.set("/annotations", annotations)
}

/// How many filters, and whether no_new_privs is set.
fn status(container: &Container) -> (u32, bool) {
    let out = container.run().ok();
    let field =
        |name: &str| out.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse::<u32>().unwrap();
    (field("Seccomp_filters:"), field("NoNewPrivs:") == 1)
}

both! {
    fn a_profile_and_a_filter_are_each_one_more(who: Who) {
        let Some(container) = Container::new("more filters", who) else { return };
        // The tests may run under a filter themselves.
        let container = container.set("/process/noNewPrivileges", json!(false)).shell(STATUS);
        let (before, bare) = status(&container);
        assert!(!bare);
        let allow = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["keyctl"],"action":"SCMP_ACT_ERRNO"}]}"#;
        for (annotations, more) in [
            (json!({ "io.fumehood.profile": "default" }), 1),
            (json!({ "io.fumehood.seccomp": "default" }), 1),
            (json!({ "io.fumehood.seccomp": allow }), 1),
            (json!({ "io.fumehood.profile": "default", "io.fumehood.seccomp": allow }), 2),
        ] {
            let container = annotated(Container::new("more filters", who).unwrap(), annotations.clone())
                .set("/process/noNewPrivileges", json!(false))
                .shell(STATUS);
            assert_eq!(status(&container), (before + more, true), "{annotations}");
        }
        let own = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "syscalls": [] });
        let both = annotated(container, json!({ "io.fumehood.profile": "default" })).set("/linux/seccomp", own);
        assert_eq!(status(&both), (before + 2, true));
    }

    fn what_a_profile_refuses_is_refused_in_exec_too(who: Who) {
        let Some(container) = Container::new("refused calls", who) else { return };
        let container = container.helpers().args(&["probe", "calls", KEYCTL]);
        let out = container.run().ok();
        assert!(out.starts_with("keyctl returned"), "without a profile: {out}");
        let container = annotated(container, json!({ "io.fumehood.profile": "strict" }));
        let out = container.run().ok();
        assert_eq!(out, "keyctl errno 1\n");
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.start();
        assert_eq!(container.call_on("exec", &["probe", "calls", KEYCTL]).ok(), "keyctl errno 1\n");
    }

    fn a_landlock_policy_holds(who: Who) {
        let Some(container) = Container::new("landlock", who) else { return };
        let policy = "[paths]\n\"/\" = \"rx\"\n\"/tmp\" = \"rwx\"\n\"/dev\" = \"dev\"\n";
        let container = annotated(container, json!({ "io.fumehood.landlock": policy }));
        let container = container.shell(
            "touch /tmp/a && echo yes; (touch /etc/a) 2>/dev/null || echo no; grep NoNewPrivs /proc/self/status",
        );
        assert_eq!(container.run().ok(), "yes\nno\nNoNewPrivs:\t1\n");
        let container = container.args(&["sleep", "100"]);
        container.create();
        container.start();
        let out = container.call_on("exec", &["sh", "-c", "(touch /etc/a) 2>/dev/null || echo no"]).ok();
        assert_eq!(out, "no\n");
    }

    fn a_timeout_ends_it(who: Who) {
        let Some(container) = Container::new("timeout", who) else { return };
        let container = annotated(container, json!({ "io.fumehood.timeout": "500ms" })).args(&["sleep", "1000"]);
        container.create();
        container.start();
        container.becomes("stopped");
    }

    fn what_is_not_known_or_cannot_be_had_is_an_error(who: Who) {
        let Some(container) = Container::new("unknown controls", who) else { return };
        for (name, value) in [
            ("profil", "strict"),
            ("profile", "loose"),
            ("isolation", "vm"),
            ("landlock", "minimum_abi = 1000\ntcp = false"),
            ("timeout", "-1"),
            ("egress", "exa mple.org"),
        ] {
            let name = format!("io.fumehood.{name}");
            let mut config = container.config.clone();
            config["annotations"] = json!({ &name: value });
            let command = container.command("run", &[&container.id]);
            std::fs::write(container.bundle().join("config.json"), config.to_string()).unwrap();
            container.output(command).fails(&name);
            container.call("state", &[]).fails("does not exist");
        }
    }
}
