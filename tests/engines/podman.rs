//! podman, as root and as an ordinary user with ids that root has granted.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    both,
    common::{Place, Who, criu, host, skip},
    dockerd::{Said, install, make_root},
};

/// What a machine without CAP_SYS_RESOURCE can give.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

struct Podman {
    who: Who,
    place: Place,
    before: host::Look,
}

impl Podman {
    fn new(test: &str, who: Who) -> Option<Self> {
        if Command::new("podman").arg("--version").stdout(Stdio::null()).status().is_err() {
            skip(test, "apt install podman");
            return None;
        }
        let before = host::Look::now();
        let place = Place::new(who);
        fs::hard_link(place.binary(), place.join("fumehood-oci")).unwrap();
        let podman = Self { who, place, before };
        let root = make_root(&podman.place);
        // For what cannot be told them one by one, such as a pod's first container.
        podman
            .place
            .write("containers.conf", "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n");
        install(&podman.place, who, &["podman", "--config", &podman.place.text("containers.conf")]);
        let archive = podman.place.join("box.tar");
        let status = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg(".").status().unwrap();
        assert!(status.success());
        podman.call(&["import", archive.to_str().unwrap(), "box"]).ok();
        Some(podman)
    }

    fn call(&self, args: &[&str]) -> Said {
        let mut command = Command::new("podman");
        for (option, dir) in [("--root", "store"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.args([option, &self.place.text(dir)]);
        }
        command.args(["--runtime", "fumehood", "--cgroup-manager", "cgroupfs"]);
        command.args(["--storage-driver", "vfs", "--events-backend", "file"]).args(args);
        let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.place.text("programs"));
        command.env_clear().env("PATH", path).env("HOME", self.place.path());
        command.env("CONTAINERS_CONF", self.place.join("containers.conf"));
        command.env("XDG_RUNTIME_DIR", self.place.join("runtime-dir")).current_dir(self.place.path());
        if let Some((uid, gid)) = self.who.ids() {
            command.uid(uid).gid(gid);
        }
        // Not pipes: what podman leaves running holds them open.
        let (out, err) = (self.place.join("out"), self.place.join("err"));
        command.stdin(Stdio::null()).stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let status = command.status().unwrap();
        let read = |path: PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Said { code: status.code().unwrap_or(-1), out: read(out), err: read(err) }
    }

    fn run(&self, args: &[&str]) -> Said {
        self.call(&[&["run", "--rm", "--network", "none"], &LIMITS[..], args].concat())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        _ = self.call(&["pod", "rm", "--all", "--force"]);
        _ = self.call(&["rm", "--all", "--force"]);
        // The process that holds a rootless podman's namespaces.
        if let Ok(pid) = fs::read_to_string(self.place.join("tmp/pause.pid")) {
            _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid.trim().parse().unwrap()),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        for mounted in ["store", "run"] {
            _ = nix::mount::umount2(&self.place.join(mounted), nix::mount::MntFlags::MNT_DETACH);
        }
        // Its files belong to ids that only root may remove them for.
        if self.who.ids().is_some() {
            _ = fs::remove_dir_all(self.place.join("store"));
        }
        if !std::thread::panicking() {
            self.before.assert_unchanged();
        }
    }
}

both! {
    fn runs_what_is_asked_with_its_status_and_streams(who: Who) {
        let Some(podman) = Podman::new("podman run", who) else { return };
        let said = podman.run(&["box", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "out\n", "err\n"));
        assert_eq!(podman.run(&["box", "nope"]).code, 127);
        assert_eq!(podman.run(&["box", "/etc/passwd"]).code, 126);
        assert_eq!(podman.run(&["--bogus", "box"]).code, 125);
        let run = |args: &[&str]| podman.run(args).ok();
        assert_eq!(run(&["--user", "1000:5", "box", "sh", "-c", "id -u; id -g; echo $HOME"]), "1000\n5\n/home/u\n");
        assert_eq!(run(&["--hostname", "h", "--env", "A=b", "box", "sh", "-c", "hostname; echo $A"]), "h\nb\n");
        assert_eq!(run(&["--tty", "box", "tty"]).trim(), "/dev/pts/0");
        assert_ne!(podman.run(&["--read-only", "box", "touch", "/x"]).code, 0);
        assert_eq!(run(&["--tmpfs", "/t", "box", "sh", "-c", "touch /t/x && echo ok"]), "ok\n");
        let shared = podman.place.mkdir("shared");
        podman.place.write("shared/in", "hello");
        let volume = format!("{}:/v", shared.display());
        assert_eq!(run(&["-v", &volume, "box", "sh", "-c", "cat /v/in; echo out > /v/out"]), "hello");
        assert_eq!(podman.place.read("shared/out"), "out\n");
        if who == Who::User {
            let keep = podman.run(&["--userns", "keep-id", "box", "id", "-u"]);
            assert_eq!(keep.ok(), format!("{}\n", who.uid()));
        }
    }

    fn manages_a_container_that_runs(who: Who) {
        let Some(podman) = Podman::new("podman manage", who) else { return };
        let begin = [&["run", "--detach", "--name", "first", "--network", "none"], &LIMITS[..]].concat();
        let program = "trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.1; done";
        podman.call(&[&begin[..], &["box", "sh", "-c", program]].concat()).ok();
        assert!(host::eventually(|| podman.call(&["logs", "first"]).out == "up\n"));
        assert_eq!(podman.call(&["exec", "first", "sh", "-c", "id -u; exit 5"]).code, 5);
        assert_eq!(podman.call(&["exec", "first", "nope"]).code, 127);
        assert_eq!(podman.call(&["exec", "--tty", "first", "tty"]).ok().trim().rsplit('/').nth(1), Some("pts"));
        assert!(podman.call(&["top", "first"]).ok().contains("while"));
        if who == Who::Root {
            podman.call(&["pause", "first"]).ok();
            assert_eq!(podman.call(&["inspect", "--format", "{{.State.Status}}", "first"]).ok(), "paused\n");
            podman.call(&["unpause", "first"]).ok();
            let limit = podman.run(&["--memory", "32m", "box", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
            assert_eq!(limit.ok(), "33554432\n");
        }
        podman.call(&["stop", "first"]).ok();
        assert_eq!(podman.call(&["inspect", "--format", "{{.State.ExitCode}}", "first"]).ok(), "9\n");
        podman.call(&["rm", "first"]).ok();
    }

    fn puts_containers_of_a_pod_into_the_same_namespaces(who: Who) {
        let Some(podman) = Podman::new("podman pod", who) else { return };
        if !PathBuf::from("/usr/libexec/podman/catatonit").exists() && !PathBuf::from("/usr/bin/catatonit").exists() {
            skip("podman pod", "apt install catatonit");
            return;
        }
        let infra = ["--infra-image", "localhost/box", "--infra-command", "sleep 1000"];
        podman.call(&[&["pod", "create", "--name", "p", "--network", "none"], &infra[..]].concat()).ok();
        let member = |args: &[&str]| podman.call(&[&["run", "--rm", "--pod", "p"], &LIMITS[..], args].concat()).ok();
        let show = "for kind in net ipc uts; do readlink /proc/self/ns/$kind; done";
        let first = member(&["box", "sh", "-c", show]);
        let second = member(&["box", "sh", "-c", show]);
        assert_eq!(first, second);
        assert_eq!(first.lines().count(), 3);
    }
}

/// Counts on where it was: under its own name, and under another from an exported image.
#[test]
fn saves_and_restores_a_container() {
    let test = "podman checkpoint";
    let (Some(who), Some(criu)) = (Who::Root.find(test), criu(test)) else { return };
    let Some(podman) = Podman::new(test, who) else { return };
    podman.place.mkdir("programs");
    std::os::unix::fs::symlink(criu, podman.place.join("programs/criu")).unwrap();
    let lines = |name: &str| -> Vec<u32> {
        let logs = podman.call(&["logs", name]).ok();
        logs.lines().map(|line| line.parse().unwrap()).collect()
    };
    let counted = |name: &str, least: usize| assert!(host::eventually(|| lines(name).len() >= least), "{name}");
    let in_a_row = |lines: &[u32]| assert!(lines.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{lines:?}");
    let begin = [&["run", "--detach", "--name", "first", "--network", "none"], &LIMITS[..]].concat();
    let program = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";
    podman.call(&[&begin[..], &["box", "sh", "-c", program]].concat()).ok();
    counted("first", 3);
    podman.call(&["container", "checkpoint", "first"]).ok();
    let state = |name: &str| podman.call(&["inspect", "--format", "{{.State.Status}}", name]).ok();
    assert_eq!(state("first"), "exited\n");
    let before = lines("first").len();
    podman.call(&["container", "restore", "first"]).ok();
    counted("first", before + 3);
    in_a_row(&lines("first"));
    let archive = podman.place.text("saved.tar");
    podman.call(&["container", "checkpoint", "--export", &archive, "--compress", "none", "first"]).ok();
    let before = lines("first").len();
    podman.call(&["rm", "--force", "first"]).ok();
    podman.call(&["container", "restore", "--import", &archive, "--name", "second"]).ok();
    // What it had said comes along.
    counted("second", before + 3);
    in_a_row(&lines("second"));
    assert_eq!(podman.call(&["exec", "second", "hostname"]).code, 0);
}
