//! A dockerd of the test's own: its socket, its state and its data are below one directory, its runtime is fumehood.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::common::{Place, Who, host, skip};

const APPLETS: &str = "sh ls cat echo sleep id ps mount true false env hostname mkdir touch head grep wc kill stat \
                       printf test tty stty dd ip nc free df pwd top ulimit readlink";

pub struct Docker {
    place: Place,
    daemon: Child,
    before: host::Look,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

/// A root of busybox.
pub fn make_root(place: &Place) -> PathBuf {
    let root = place.mkdir("root");
    for dir in ["bin", "etc", "tmp", "root", "home/u"] {
        place.mkdir(PathBuf::from("root").join(dir));
    }
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
    fs::copy(busybox.expect("apt install busybox-static"), root.join("bin/busybox")).unwrap();
    for applet in APPLETS.split_whitespace() {
        place.symlink("busybox", PathBuf::from("root/bin").join(applet));
    }
    place.write("root/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n");
    place.write("root/etc/group", "root:x:0:\nu:x:1000:\n");
    root
}

/// Registers the place's `fumehood-oci` as a person does.
pub fn install(place: &Place, who: Who, args: &[&str]) {
    let mut command = Command::new(place.binary());
    command.arg("install").args(args).args(["--runtime", &place.text("fumehood-oci")]);
    if let Some((uid, gid)) = who.ids() {
        command.uid(uid).gid(gid);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

impl Docker {
    /// `None`, said aloud, where there is none.
    pub fn start(test: &str, options: &[&str]) -> Option<Self> {
        Who::Root.find(test)?;
        if Command::new("dockerd").arg("--version").stdout(Stdio::null()).status().is_err() {
            skip(test, "apt install docker.io");
            return None;
        }
        let before = host::Look::now();
        let place = Place::new(Who::Root);
        let runtime = place.join("fumehood-oci");
        fs::hard_link(place.binary(), &runtime).unwrap();
        install(&place, Who::Root, &["docker", "--default", "--config", &place.text("daemon.json")]);
        let log = fs::File::create(place.join("log")).unwrap();
        // In a mount namespace of its own: what it mounts for itself is gone with it, and not what is asked about here.
        let daemon = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "dockerd"])
            .args(["--config-file", &place.text("daemon.json"), "--host", &format!("unix://{}", place.text("socket"))])
            .args(["--exec-root", &place.text("exec"), "--data-root", &place.text("data")])
            .args(["--pidfile", &place.text("pid"), "--storage-driver", "vfs"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let docker = Self { place, daemon, before };
        let up = host::eventually(|| docker.call(&["version"]).code == 0);
        assert!(up, "dockerd does not come up: {}", docker.place.read("log"));
        docker.import();
        Some(docker)
    }

    /// The root as the image `box`.
    fn import(&self) {
        let root = make_root(&self.place);
        let line = format!("tar -C {} -c . | docker import - box", root.display());
        let mut command = Command::new("sh");
        command.args(["-c", &line]);
        self.said(command).ok();
    }

    pub fn call(&self, args: &[&str]) -> Said {
        let mut command = Command::new("docker");
        command.args(args);
        self.said(command)
    }

    /// `docker run --rm` with the limits that a machine without CAP_SYS_RESOURCE can give.
    pub fn run(&self, args: &[&str]) -> Said {
        let mut all = vec!["run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        all.extend(args);
        self.call(&all)
    }

    pub fn shell(&self, line: &str) -> Said {
        self.run(&["box", "sh", "-c", line])
    }

    fn said(&self, mut command: Command) -> Said {
        command.env("DOCKER_HOST", format!("unix://{}", self.place.text("socket"))).env("HOME", self.place.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let ids = self.call(&["ps", "--all", "--quiet"]).out;
        for id in ids.split_whitespace() {
            _ = self.call(&["rm", "--force", id]);
        }
        _ = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM);
        let mut ended = false;
        for _ in 0..300 {
            ended = self.daemon.try_wait().unwrap().is_some();
            if ended {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if !ended {
            _ = self.daemon.kill();
            _ = self.daemon.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.place.read("log").lines().rev().take(20).collect::<Vec<_>>().join("\n"));
            return;
        }
        assert!(ended, "dockerd does not end");
        self.before.assert_unchanged();
    }
}
