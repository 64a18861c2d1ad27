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
    apart::Apart,
    box_image::{install, make_root},
    common::{Place, Who, host, skip},
    said::{Said, is_there},
};

struct Containerd {
    place: Place,
    daemon: Child,
    apart: Apart,
    root: String,
}

impl Containerd {
    fn start(test: &str) -> Option<Self> {
        Who::Root.find(test)?;
        if !is_there("containerd") {
            skip(test, "apt install containerd");
            return None;
        }
        let apart = Apart::new();
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
        let root = make_root(&place).to_str().unwrap().to_owned();
        let containerd = Self { place, daemon, apart, root };
        let up = host::eventually(|| containerd.ctr(&["version"]).code == 0);
        assert!(up, "containerd does not come up: {}", containerd.place.read("log"));
        Some(containerd)
    }

    fn ctr(&self, args: &[&str]) -> Said {
        let mut command = Command::new("ctr");
        command.args(["--address", &self.place.text("socket")]).args(args);
        Said::of(command)
    }

    /// The name of a container that is no other's, by which its cgroup is found.
    fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.place.path().file_name().unwrap().to_string_lossy())
    }

    fn run(&self, args: &[&str], name: &str, program: &[&str]) -> Said {
        let runtime = self.place.text("fumehood-oci");
        let runtime = ["--runc-binary", &runtime, "--rootfs", &self.root];
        self.ctr(&[&["run"], args, &runtime[..], &[&self.name(name)], program].concat())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        _ = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM);
        _ = self.daemon.wait();
        if !std::thread::panicking() {
            self.apart.assert_nothing_left(&self.place, &[self.name("")]);
        }
    }
}

#[test]
fn runs_executes_and_ends() {
    let Some(containerd) = Containerd::start("containerd") else { return };
    let said = containerd.run(&["--rm"], "first", &["/bin/sh", "-c", "echo out; exit 7"]);
    assert_eq!((said.code, said.out.as_str()), (7, "out\n"), "{said:?}");
    containerd.run(&["--detach"], "second", &["/bin/sleep", "1000"]).ok();
    let name = containerd.name("second");
    let task = |verb: &str, args: &[&str]| containerd.ctr(&[&["task", verb], args, &[&name]].concat());
    let said = containerd.ctr(&["task", "exec", "--exec-id", "x", &name, "/bin/sh", "-c", "echo in; exit 3"]);
    assert_eq!((said.code, said.out.as_str()), (3, "in\n"), "{said:?}");
    task("pause", &[]).ok();
    assert!(containerd.ctr(&["task", "ls"]).ok().contains("PAUSED"));
    task("resume", &[]).ok();
    assert!(task("metrics", &[]).ok().contains(&name));
    assert_eq!(task("ps", &[]).ok().lines().count(), 2);
    task("kill", &["--signal", "SIGKILL"]).ok();
    assert!(host::eventually(|| containerd.ctr(&["task", "ls"]).out.contains("STOPPED")));
    task("rm", &[]);
    containerd.ctr(&["container", "rm", &name]).ok();
}

#[test]
fn takes_controls_by_annotation() {
    let Some(containerd) = Containerd::start("containerd annotations") else { return };
    let run = |annotation: &str, line: &str| {
        let annotation = format!("io.fumehood.{annotation}");
        containerd.run(&["--rm", "--annotation", &annotation], "first", &["/bin/sh", "-c", line])
    };
    let connect = "nc -w 1 127.0.0.1 1";
    assert!(run("profile=default", connect).err.contains("refused"));
    assert!(run("profile=strict", connect).err.contains("Address family not supported"));
    // What is wrong is told to whom asked for it.
    run("profile=nope", "true").fails("annotations.io.fumehood.profile: ");
    run("profil=strict", "true").fails("annotations.io.fumehood.profil: it is not known");
}

/// The CRI plugin does not run here, but its configuration is read.
#[test]
fn reads_what_install_writes_for_it() {
    if !is_there("containerd") {
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
