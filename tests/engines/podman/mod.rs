//! podman, as root and as an ordinary user with ids that root has granted.

mod build;
mod checkpoint;
mod controls;
mod egress;
mod gvisor;
mod living;
mod network;
mod pods;
mod policies;
mod run;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        signal::{Signal, kill},
        stat::{Mode, SFlag, makedev, mknod},
    },
    unistd::Pid,
};

use crate::{
    apart::Apart,
    box_image::{install, make_archive},
    common::{
        Place, Who,
        host::{self, eventually},
        skip,
    },
    said::{Said, is_there},
};

/// What a machine without CAP_SYS_RESOURCE can give, for all containers.
const CONFIG: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";

/// The same again, where others are given that would stand for them.
const ULIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

struct Podman {
    who: Who,
    place: Place,
    apart: Apart,
}

impl Podman {
    /// `None`, said aloud, where there is none.
    fn new(test: &str, who: Who) -> Option<Self> {
        Self::new_in(test, who, || Some(())).map(|((), podman)| podman)
    }

    /// As [`Self::new`], on a host that `change` may change before. What came of that outlives the engine.
    fn new_in<T>(test: &str, who: Who, change: impl FnOnce() -> Option<T>) -> Option<(T, Self)> {
        if !is_there("podman") {
            skip(test, "apt install podman");
            return None;
        }
        let mut apart = Apart::new();
        let changed = change()?;
        let place = Place::new(who);
        prepare(who, &place);
        apart.look_again(&place);
        fs::hard_link(place.binary(), place.join("fumehood-oci")).unwrap();
        let podman = Self { who, place, apart };
        podman.place.write("containers.conf", CONFIG);
        install(&podman.place, who, &["podman", "--config", &podman.place.text("containers.conf")]);
        podman.call(&["import", &make_archive(&podman.place), "box"]).ok();
        Some((changed, podman))
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_with("fumehood", args)
    }

    fn command_with(&self, runtime: &str, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        for (option, dir) in [("--root", "store"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.args([option, &self.place.text(dir)]);
        }
        command.args(["--network-config-dir", &self.place.text("networks")]);
        command.args(["--runtime", runtime, "--cgroup-manager", "cgroupfs"]);
        command.args(["--storage-driver", "vfs", "--events-backend", "file"]).args(args);
        let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.place.text("programs"));
        command.env_clear().env("PATH", path).env("HOME", self.place.path());
        command.env("CONTAINERS_CONF", self.place.join("containers.conf"));
        command.env("XDG_RUNTIME_DIR", self.place.join("runtime-dir")).current_dir(self.place.path());
        if let Some((uid, gid)) = self.who.ids() {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn call(&self, args: &[&str]) -> Said {
        self.said(self.command(args))
    }

    /// By files and not by pipes: what podman leaves running holds them open. Each call has its own.
    fn said(&self, mut command: Command) -> Said {
        let streams = tempfile::tempdir_in(self.place.path()).unwrap();
        let [out, err] = ["out", "err"].map(|name| streams.path().join(name));
        command.stdin(std::process::Stdio::null());
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let status = command.status().unwrap();
        let read = |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Said { code: status.code().unwrap_or(-1), out: read(out), err: read(err) }
    }

    fn run(&self, args: &[&str]) -> Said {
        self.call(&[&["run", "--rm", "--network", "none"], args].concat())
    }

    /// A container that stays, called `name`, with a line of shell.
    fn begin(&self, name: &str, args: &[&str], line: &str) {
        let begin = ["run", "--detach", "--network", "none", "--name", name];
        self.call(&[&begin, args, &["box", "sh", "-c", line]].concat()).ok();
    }

    /// A field of what `inspect` says.
    fn field(&self, name: &str, field: &str) -> String {
        self.call(&["inspect", "--format", &format!("{{{{.{field}}}}}"), name]).ok().trim().to_owned()
    }

    #[track_caller]
    fn becomes(&self, name: &str, field: &str, value: &str) {
        let mut last = String::new();
        let became = eventually(|| {
            last = self.field(name, field);
            last == value
        });
        assert!(became, "{field} of {name} is {last}, not {value}");
    }

    /// All there are.
    fn remove_pods(&self) {
        let mut last = String::new();
        for _ in 0..3 {
            last = self.call(&["pod", "rm", "--all", "--force", "--time", "0"]).err;
            if last.is_empty() {
                return;
            }
        }
        eprintln!("pods that podman does not remove: {last}");
    }

    /// The ids of all containers and pods that ever were.
    fn ids(&self) -> Vec<String> {
        let text = fs::read_to_string(self.place.join("tmp/events/events.log")).unwrap();
        let words = text.split(|letter: char| !letter.is_ascii_hexdigit());
        let mut ids: Vec<_> = words.filter(|word| word.len() == 64).map(str::to_owned).collect();
        ids.sort();
        ids.dedup();
        ids
    }
}

/// See [`CONMON_GROUP`]. A pod's group has its name, a container's begins with `libpod-`, and is not touched.
fn remove_groups_of_pods(ids: &[String]) {
    for pod in ids.iter().flat_map(|id| host::cgroups(id)) {
        if !ids.iter().any(|id| pod.ends_with(id)) {
            continue;
        }
        let conmon = pod.join("conmon");
        // No file can be removed in a cgroup, but some in memory.
        for dir in [&conmon, &pod] {
            for file in fs::read_dir(dir).into_iter().flatten().flatten() {
                _ = fs::remove_file(file.path());
            }
            _ = fs::remove_dir(dir);
        }
    }
}

/// Makes the test's own namespaces what a host is, before podman remembers them.
fn prepare(who: Who, place: &Place) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let over = |over: &str, from: &Path| {
        if Path::new(over).exists() {
            mount(Some(from), over, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        }
    };
    // Where CNI's plugins remember who has which address.
    over("/var/lib/cni", &place.mkdir("leases"));
    if who == Who::User {
        // For everybody, as udev makes it; machines without udev may have it for root alone.
        let tun = place.join("tun");
        mknod(&tun, SFlag::S_IFCHR, Mode::empty(), makedev(10, 200)).unwrap();
        fs::set_permissions(&tun, fs::Permissions::from_mode(0o666)).unwrap();
        over("/dev/net/tun", &tun);
    }
}

/// What podman 4 fails with, once for each pod and with any runtime, where not all controllers are mounted that it
/// knows: it makes directories in the memory file system where they would be, and cannot remove what it wrote there.
const CONMON_GROUP: &str = "conmon cgroup";

impl Drop for Podman {
    fn drop(&mut self) {
        self.remove_pods();
        _ = self.call(&["rm", "--all", "--force", "--time", "0"]);
        // The process that holds a rootless podman's namespaces.
        if let Ok(pid) = fs::read_to_string(self.place.join("tmp/pause.pid")) {
            _ = kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL);
        }
        // What podman mounts on itself, and leaves.
        for mounted in ["store", "run"] {
            _ = umount2(&self.place.join(mounted), MntFlags::MNT_DETACH);
        }
        if !std::thread::panicking() {
            let ids = self.ids();
            remove_groups_of_pods(&ids);
            self.apart.assert_nothing_left(&self.place, &ids);
        }
        // Its files belong to ids that only root may remove them for.
        if self.who.ids().is_some() {
            _ = fs::remove_dir_all(self.place.join("store"));
        }
    }
}
