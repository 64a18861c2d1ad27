//! Trees of containers with a user namespace: made by somebody who is root in it only, with what the runtime hands
//! over.
//!
//! Entering a user namespace takes a process with one thread. So each test starts this program again for itself
//! alone; that process clones one into the namespaces, as the runtime does.

use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::Path,
    process::Command,
};

use serde_json::json;

use super::{Bundle, assert_flags, mounted, root};
use crate::{
    launch::{
        build::{Builder, trees},
        protocol::{InitEnd, SupervisorEnd},
    },
    plan::{
        container::{self, Facts},
        setup::SetupOp,
    },
    sys::{
        clone::{self, Cloned},
        fs as descriptors, mount, process, socket,
    },
};

const FIRST: u32 = 700_000;
const AGAIN: &str = "FUMEHOOD_TEST_AGAIN";

/// Runs `body` in a process of its own, as a test of its own.
fn again(name: &str, body: impl FnOnce()) {
    if !root(name) {
        return;
    }
    if std::env::var_os(AGAIN).is_some() {
        return body();
    }
    let path = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &path, "--nocapture", "--test-threads=1"])
        .env(AGAIN, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Builds `setup` in namespaces `kinds`, with one id for each of the first 65,536 inside, and looks around there.
fn in_user_namespace(kinds: i32, setup: &[SetupOp], look: impl FnOnce()) -> Result<(), String> {
    let (ours, theirs) = socket::record_pair().unwrap();
    let (mut answer, mut say) = std::io::pipe().unwrap();
    let flags = (kinds | libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u64;
    let Cloned::Parent { pid, pidfd } = clone::clone_process(flags, None).unwrap() else {
        drop(ours);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut ready = [0];
            socket::receive(theirs.as_fd(), &mut ready).unwrap();
            process::become_user(0, 0, true).unwrap();
            let mut builder = Builder::for_container(InitEnd(theirs.as_fd()));
            for operation in setup {
                builder.carry_out(operation).map_err(|errno| {
                    format!("{operation}: {}: {}", errno.desc(), builder.detail().unwrap_or_default())
                })?;
            }
            look();
            Ok(())
        }));
        let said = match result {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(why)) => why,
            Err(panic) => format!("panicked: {:?}", panic.downcast_ref::<String>()),
        };
        _ = say.write_all(said.as_bytes());
        process::exit_now(0);
    };
    drop((theirs, say));
    let map = format!("0 {FIRST} 65536\n");
    fs::write(format!("/proc/{pid}/uid_map"), &map).unwrap();
    fs::write(format!("/proc/{pid}/gid_map"), &map).unwrap();
    socket::send(ours.as_fd(), b"g", None).unwrap();
    let users = fs::File::open(format!("/proc/{pid}/ns/user")).unwrap();
    let trees = trees::make(setup, pidfd.as_fd(), Some(users.as_fd())).map_err(|error| error.to_string());
    let ours = SupervisorEnd(ours);
    for tree in trees.iter().flatten() {
        ours.mount(tree.as_fd()).unwrap();
    }
    drop(ours);
    let mut said = String::new();
    answer.read_to_string(&mut said).unwrap();
    process::wait(pid, true).unwrap();
    trees?;
    assert!(!said.starts_with("panicked"), "{said}");
    if said == "ok" { Ok(()) } else { Err(said) }
}

fn all() -> i32 {
    libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP
}

/// The root's directories belong to the container's root, as engines have them.
fn give(bundle: &Bundle) {
    for name in ["", "rootfs"] {
        fs::set_permissions(bundle.path(name), fs::Permissions::from_mode(0o711)).unwrap();
    }
    std::os::unix::fs::chown(bundle.path("rootfs"), Some(FIRST), Some(FIRST)).unwrap();
}

fn plan(bundle: &Bundle, change: impl FnOnce(&mut Facts<'_>)) -> Vec<SetupOp> {
    let mut facts = Facts { own_user_namespace: true, ..bundle.facts() };
    change(&mut facts);
    let mut setup = Vec::new();
    container::plan(&bundle.oci(), &facts, true, &mut setup).unwrap();
    setup
}

#[test]
fn a_container_with_ids_of_its_own() {
    again("a_container_with_ids_of_its_own", || {
        let mut bundle = Bundle::new()
            .proc()
            .dev()
            .mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
            .mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])
            .mount("/secret", "bind", "$/closed/secret", &["rbind", "ro"])
            .mount("/mapped", "bind", "$/owned", &["bind", "idmap"]);
        bundle.spec["root"]["readonly"] = json!(true);
        bundle.spec["linux"] = json!({
            "maskedPaths": ["/proc/version", "/sys/firmware"], "readonlyPaths": ["/proc/sys"],
            "sysctl": {"net.core.somaxconn": "77"},
        });
        // What its own root could not reach.
        bundle.write("closed/secret", "reached");
        fs::set_permissions(bundle.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
        bundle.write("owned/file", "");
        give(&bundle);
        let setup = plan(&bundle, |_| ());
        in_user_namespace(all(), &setup, || {
            for (name, number) in [("null", (1, 3)), ("full", (1, 7)), ("tty", (5, 0))] {
                let found = fs::metadata(Path::new("/dev").join(name)).unwrap();
                assert!(found.file_type().is_char_device());
                assert_eq!((libc::major(found.rdev()), libc::minor(found.rdev())), number);
            }
            fs::write("/dev/null", "x").unwrap();
            assert_eq!(fs::read_to_string("/secret").unwrap(), "reached");
            assert_flags("/secret", &["ro"], &[]);
            // On the host it is root's, and so it is here.
            assert_eq!(fs::metadata("/mapped/file").unwrap().uid(), 0);
            fs::write("/mapped/file", "written").unwrap();
            assert_eq!(fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap(), "77\n");
            assert_eq!(fs::write("/proc/sys/net/core/somaxconn", "1").unwrap_err().raw_os_error(), Some(libc::EROFS));
            assert_flags("/", &["ro"], &[]);
            assert_flags("/sys", &["ro"], &[]);
            assert_eq!(mounted("/dev/pts").unwrap().1, "devpts");
        })
        .unwrap();
        assert_eq!(fs::read_to_string(bundle.path("owned/file")).unwrap(), "written");
        assert_eq!(fs::metadata(bundle.path("owned/file")).unwrap().uid(), 0);
    });
}

/// What shows a namespace of the host cannot be had anew: the host's is shown.
#[test]
fn systems_of_the_hosts_namespaces_are_the_hosts() {
    again("systems_of_the_hosts_namespaces_are_the_hosts", || {
        let bundle = Bundle::new().mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]).mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", "ro"],
        );
        give(&bundle);
        let setup = plan(&bundle, |facts| {
            facts.own_network_namespace = false;
            facts.own_pid_namespace = false;
        });
        in_user_namespace(libc::CLONE_NEWIPC, &setup, || {
            assert_eq!(mounted("/sys").unwrap().1, "sysfs");
            assert_flags("/sys", &["ro", "nosuid"], &[]);
            assert!(Path::new("/sys/class/net").exists());
            assert_eq!(mounted("/proc").unwrap().1, "proc");
        })
        .unwrap();
        // Without its own, and nothing to show instead, it is refused.
        let refused = plan(&bundle, |_| ());
        let why = in_user_namespace(libc::CLONE_NEWIPC | libc::CLONE_NEWPID, &refused, || ()).unwrap_err();
        assert!(why.contains("/sys"), "{why}");
    });
}

/// What the host forbids on a mount stays forbidden, and asking for it by name is refused.
#[test]
fn locked_flags_stay() {
    again("locked_flags_stay", || {
        let host = |bundle: &Bundle| {
            let tree = super::super::tmpfs(1 << 20, 0o755, mount::NO_EXEC | mount::READ_ONLY).unwrap();
            super::put(&tree, &bundle.path("data"));
        };
        // Else the directory could not be removed.
        let gone = |bundle: Bundle| mount::detach(&super::text(&bundle.path("data"))).unwrap();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        super::private();
        for (options, handed) in [(["bind", "nosymfollow"], true), (["bind", "ro"], false)] {
            let bundle = Bundle::new().proc().mount("/a", "bind", "$/data", &options);
            give(&bundle);
            host(&bundle);
            let setup = plan(&bundle, |facts| facts.rootless = !handed);
            in_user_namespace(all(), &setup, || {
                assert_flags("/a", &["ro", "nosuid", "nodev", "noexec"], &[]);
                let change = |clear| {
                    let found = descriptors::open_in(descriptors::cwd(), c"/a", libc::O_PATH, 0, 0).unwrap();
                    mount::change_attributes(found.as_fd(), 0, clear, false)
                };
                // Not even later, by the container itself.
                assert_eq!(change(mount::READ_ONLY), Err(crate::sys::Errno::EPERM));
                assert_eq!(change(mount::NO_EXEC), Err(crate::sys::Errno::EPERM));
            })
            .unwrap();
            gone(bundle);
            for option in ["rw", "exec", "dev", "suid"] {
                let bundle = Bundle::new().proc().mount("/a", "bind", "$/data", &["bind", option]);
                give(&bundle);
                host(&bundle);
                let setup = plan(&bundle, |facts| facts.rootless = !handed);
                let why = in_user_namespace(all(), &setup, || ()).unwrap_err();
                assert!(why.contains("Operation not permitted"), "{option}: {why}");
                gone(bundle);
            }
        }
    });
}

/// A mapping of a mount's own needs no user namespace of the container.
#[test]
fn a_mount_may_have_ids_of_its_own() {
    if !root("a_mount_may_have_ids_of_its_own") {
        return;
    }
    let mut bundle = Bundle::new().proc();
    let data = bundle.path("data");
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 10}]);
    for (destination, options) in [("/one", json!(["bind", "idmap"])), ("/two", json!(["rbind", "ridmap"]))] {
        bundle.spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": destination, "type": "bind", "source": data, "options": options,
            "uidMappings": map, "gidMappings": map,
        }));
    }
    bundle.write("data/file", "");
    let setup = bundle.plan();
    super::apart(|| {
        super::private();
        let here = fs::File::open("/proc/thread-self/ns/mnt").unwrap();
        let made = trees::make(&setup, here.as_fd(), None).unwrap();
        assert_eq!(made.len(), 2);
        let mut builder = Builder::for_container(super::Hand(std::cell::RefCell::new(made.into())));
        setup.iter().try_for_each(|operation| builder.carry_out(operation)).unwrap();
        assert_eq!(fs::metadata("/one/file").unwrap().uid(), 5000);
        assert_eq!(fs::metadata("/two/file").unwrap().gid(), 5000);
    });
    // With none, and no user namespace, there is nothing to map by.
    let bundle = Bundle::new().mount("/a", "bind", "/", &["bind", "idmap"]);
    let refused = container::plan(&bundle.oci(), &bundle.facts(), true, &mut Vec::new());
    assert!(refused.unwrap_err().to_string().contains("user namespace"));
}
