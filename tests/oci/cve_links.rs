//! Links in a root that lead out of it: whatever is mounted, made or written through them stays inside.

use crate::both;
use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    bundle::Container,
    common::{Who, host},
};

const SYSTEM: [&str; 3] = ["proc", "sys", "dev"];

/// Links to the directory outside: as it is called on the host, relatively, and by another link.
fn ways_out(container: &Container) -> Vec<String> {
    let absolute = container.place.text("outside");
    container.link(&absolute, "chain");
    vec![absolute, "../../outside".to_owned(), "../../../../../../../../../../tmp".to_owned(), "/chain".to_owned()]
}

both! {
    fn cve_2019_19921_and_2023_27561_and_2025_54867_and_2026_41579_system_directories_are_links(who: Who) {
        let Some(container) = Container::new("system links", who) else { return };
        let container = container.shell("ls / /proc/1/root/ 2>&1; cat /proc/1/comm");
        container.outside();
        for name in SYSTEM {
            for to in ways_out(&container) {
                container.link(&to, name);
                let said = container.run();
                container.assert_outside_unchanged();
                assert_ne!(said.code, 0, "{name} -> {to}: {said:?}");
                fs::remove_file(container.rootfs(name)).unwrap();
                fs::create_dir(container.rootfs(name)).unwrap();
            }
        }
        // And with nothing in the way it runs.
        container.run().ok();
    }

    fn cve_2019_18837_mounts_below_links_stay_inside(who: Who) {
        let Some(container) = Container::new("mount links", who) else { return };
        container.outside();
        container.place.write("source/file", "from the source");
        let container = container.shell("cat /l/made/below/file; readlink /l; ls -l /proc/self/mountinfo >/dev/null");
        for to in ways_out(&container) {
            container.link(&to, "l");
            let source = container.place.text("source");
            let mount = json!({ "destination": "/l/made/below", "source": source, "options": ["bind"] });
            let mut config = container.config.clone();
            config["mounts"].as_array_mut().unwrap().push(mount);
            let command = with_config(&container, "run", &config);
            let said = container.output(command);
            container.assert_outside_unchanged();
            // Like any lookup inside: the link means a place below the root.
            assert!(said.code != 0 || said.out.starts_with("from the source"), "{to}: {said:?}");
        }
    }

    fn cve_2025_31133_masks_are_the_kernels_null_device_alone(who: Who) {
        let Some(container) = Container::new("null device", who) else { return };
        let container = container
            .set("/linux/maskedPaths", json!(["/proc/kcore", "/etc/masked", "/etc/dir"]))
            .shell("cat /etc/masked; ls /etc/dir; echo X 2>&1 > /etc/masked; test -c /etc/masked && echo device");
        container.place.write("bundle/rootfs/etc/masked", "secret");
        container.place.write("bundle/rootfs/etc/dir/inner", "secret");
        // A root with a /dev of its own, where the null device leads elsewhere.
        let mut mounts = container.config["mounts"].as_array().unwrap().clone();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let container = container.set("/mounts", Value::from(mounts));
        container.outside();
        for to in ["/proc/sys/kernel/core_pattern", "/etc/passwd", "../../../outside/marker"] {
            container.link(to, "dev/null");
            let said = container.run();
            container.assert_outside_unchanged();
            let shown = said.code == 0 && (said.out != "device\n");
            assert!(!shown, "{to}: {said:?}");
            clean_devices(&container);
        }
        // A link to nowhere in a path to be masked does not unmask what it leads to.
        container.link("../etc/masked", "tmp/alias");
        let said = container.set("/linux/maskedPaths", json!(["/tmp/alias"])).shell("cat /etc/masked").run();
        assert!(!said.out.contains("secret") || said.code != 0, "{said:?}");
    }

    fn cve_2025_24965_nothing_is_written_through_links_of_the_root(who: Who) {
        // The default links and device files, a working directory to be made, and the targets of mounts.
        let Some(container) = Container::new("writing links", who) else { return };
        let out = container.outside();
        let container = container.set("/process/cwd", json!("/work/made")).shell("pwd");
        container.link(&out, "work");
        _ = container.run();
        container.assert_outside_unchanged();
        container.link("../../outside", "work");
        _ = container.run();
        container.assert_outside_unchanged();
        let container = container.set("/process/cwd", json!("/"));
        for name in ["fd", "stdin", "ptmx", "core", "null", "console", "shm", "mqueue"] {
            container.link(out.join("made"), &format!("dev/{name}"));
        }
        let mut mounts = container.config["mounts"].as_array().unwrap().clone();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        let container = container.set("/mounts", Value::from(mounts));
        _ = container.run();
        container.assert_outside_unchanged();
        clean_devices(&container);
    }

    fn cve_2019_16884_a_label_is_not_written_to_what_the_image_calls_proc(who: Who) {
        let Some(container) = Container::new("label on a volume", who) else { return };
        container.outside();
        let before = host::Look::now();
        let fake = ["self/attr/exec", "self/attr/apparmor/exec", "thread-self/attr/exec", "thread-self/attr/apparmor/exec"];
        for path in fake {
            container.place.write(Path::new("fake").join(path), "");
        }
        let source = container.place.text("fake");
        let mut mounts = container.config["mounts"].as_array().unwrap().clone();
        mounts[0] = json!({ "destination": "/proc", "type": "bind", "source": source, "options": ["rbind"] });
        let container = container
            .set("/mounts", Value::from(mounts))
            .set("/process/apparmorProfile", json!("fumehood-no-such-profile"))
            .shell("echo it ran");
        let said = container.run();
        assert_ne!(said.code, 0, "it runs without the label it was to have: {said:?}");
        for path in fake {
            assert_eq!(container.place.read(Path::new("fake").join(path)), "", "a label was written to {path}");
        }
        before.assert_unchanged();
    }

    fn cve_2025_52881_settings_are_not_written_to_what_is_mounted_over_them(who: Who) {
        let Some(container) = Container::new("redirected settings", who) else { return };
        container.outside();
        container.place.write("target", "as it was");
        let source = container.place.text("target");
        let container = container
            .mount(json!({ "destination": "/proc/sys/net/ipv4/ip_default_ttl", "type": "bind", "source": source,
                           "options": ["bind"] }))
            .set("/linux/sysctl", json!({ "net.ipv4.ip_default_ttl": "77" }))
            .shell("cat /proc/sys/net/ipv4/ip_default_ttl");
        let said = container.run();
        assert_eq!(container.place.read("target"), "as it was", "{said:?}");
        container.assert_outside_unchanged();
        // The same for a link in place of a directory of /proc/sys: a fake tree over the container's /proc.
        container.link("/", "fake");
        let said = container.run();
        assert_eq!(container.place.read("target"), "as it was", "{said:?}");
    }
}

fn with_config(container: &Container, verb: &str, config: &Value) -> std::process::Command {
    let command = container.command(verb, &[&container.id]);
    fs::write(container.bundle().join("config.json"), config.to_string()).unwrap();
    command
}

/// What the runtime made in a /dev that is the root's own.
fn clean_devices(container: &Container) {
    fs::remove_dir_all(container.rootfs("dev")).unwrap();
    container.place.mkdir("bundle/rootfs/dev");
}
