//! containerd by its own client, with the runtime named as `BinaryName`.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    common::{Place, Who, host, skip},
    dockerd::{Said, install, make_root},
};

struct Containerd {
    place: Place,
    daemon: Child,
    before: host::Look,
}

impl Containerd {
    fn start(test: &str) -> Option<Self> {
        Who::Root.find(test)?;
        if Command::new("containerd").arg("--version").stdout(Stdio::null()).status().is_err() {
            skip(test, "apt install containerd");
            return None;
        }
        let before = host::Look::now();
        let place = Place::new(Who::Root);
        fs::hard_link(place.binary(), place.join("fumehood-oci")).unwrap();
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        place.write("config.toml", config);
        let log = fs::File::create(place.join("log")).unwrap();
        let daemon = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "containerd", "--config", &place.text("config.toml")])
            .args(["--address", &place.text("socket"), "--root", &place.text("data"), "--state", &place.text("state")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Self { place, daemon, before };
        let up = host::eventually(|| containerd.ctr(&["version"]).code == 0);
        assert!(up, "containerd does not come up: {}", containerd.place.read("log"));
        Some(containerd)
    }

    fn ctr(&self, args: &[&str]) -> Said {
        let mut command = Command::new("ctr");
        command.args(["--address", &self.place.text("socket")]).args(args).stdin(Stdio::null());
        let output = command.output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn run(&self, args: &[&str], root: &str, name: &str, program: &[&str]) -> Said {
        let runtime = ["--runc-binary", &self.place.text("fumehood-oci"), "--rootfs", root].map(str::to_owned);
        let runtime: Vec<_> = runtime.iter().map(String::as_str).collect();
        self.ctr(&[&["run"], args, &runtime[..], &[name], program].concat())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        _ = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM);
        _ = self.daemon.wait();
        if !std::thread::panicking() {
            self.before.assert_unchanged();
        }
    }
}

#[test]
fn runs_executes_and_ends() {
    let Some(containerd) = Containerd::start("containerd") else { return };
    let root = make_root(&containerd.place);
    let root = root.to_str().unwrap();
    let said = containerd.run(&["--rm"], root, "first", &["/bin/sh", "-c", "echo out; exit 7"]);
    assert_eq!((said.code, said.out.as_str()), (7, "out\n"), "{said:?}");
    containerd.run(&["--detach"], root, "second", &["/bin/sleep", "1000"]).ok();
    let said = containerd.ctr(&["task", "exec", "--exec-id", "x", "second", "/bin/sh", "-c", "echo in; exit 3"]);
    assert_eq!((said.code, said.out.as_str()), (3, "in\n"), "{said:?}");
    containerd.ctr(&["task", "pause", "second"]).ok();
    assert!(containerd.ctr(&["task", "ls"]).ok().contains("PAUSED"));
    containerd.ctr(&["task", "resume", "second"]).ok();
    assert!(containerd.ctr(&["task", "metrics", "second"]).ok().contains("second"));
    containerd.ctr(&["task", "kill", "--signal", "SIGKILL", "second"]).ok();
    assert!(host::eventually(|| containerd.ctr(&["task", "ls"]).out.contains("STOPPED")));
    containerd.ctr(&["task", "rm", "second"]);
    containerd.ctr(&["container", "rm", "second"]).ok();
}

/// The CRI plugin does not run here, but its configuration is read.
#[test]
fn reads_what_install_writes_for_it() {
    if Command::new("containerd").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skip("containerd install", "apt install containerd");
    }
    let place = Place::new(Who::Root);
    fs::hard_link(place.binary(), place.join("fumehood-oci")).unwrap();
    let dump = || {
        let mut command = Command::new("containerd");
        let output = command.args(["--config", &place.text("config.toml"), "config", "dump"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    place.write("config.toml", "version = 2\n");
    let before = dump();
    install(&place, Who::Root, &["containerd", "--default", "--config", &place.text("config.toml")]);
    let after = dump();
    assert!(after.contains(&format!("BinaryName = \"{}\"", place.text("fumehood-oci"))), "{after}");
    assert!(
        after.contains("default_runtime_name = \"fumehood\"")
            && after.contains("pod_annotations = [\"io.fumehood.*\"]")
    );
    install(&place, Who::Root, &["containerd", "--uninstall", "--config", &place.text("config.toml")]);
    assert_eq!(dump(), before);
}
