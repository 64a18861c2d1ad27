//! docker, as people use it, with a dockerd of the test's own: its socket, its state and its data are below one
//! directory, and its default runtime is fumehood.

mod build;
mod compose;
mod egress;
mod gvisor;
mod images;
mod limits;
mod living;
mod network;
mod policies;
pub mod run;
mod security;

use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command},
};

use nix::{
    sys::signal::{Signal, kill},
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

const NO_BRIDGE: [&str; 2] = ["--bridge=none", "--iptables=false"];
/// What a machine without CAP_SYS_RESOURCE can give.
const ULIMITS: [&str; 4] = ["--default-ulimit", "nofile=1024:1024", "--default-ulimit", "nproc=1024:1024"];
/// The distribution's client, which is as old as its daemon, before others.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

struct Docker {
    place: Place,
    options: Vec<String>,
    daemon: Child,
    apart: Apart,
}

impl Docker {
    /// `None`, said aloud, where there is none.
    fn start(test: &str, options: &[&str]) -> Option<Self> {
        Self::start_in(test, options, |_| Some(())).map(|((), docker)| docker)
    }

    /// As [`Self::start`], on a host that `prepare` may change before the daemon is there, and its configuration. What
    /// came of that outlives the daemon.
    fn start_in<T>(test: &str, options: &[&str], prepare: impl FnOnce(&Place) -> Option<T>) -> Option<(T, Self)> {
        Who::Root.find(test)?;
        if !is_there("dockerd") {
            skip(test, "apt install docker.io");
            return None;
        }
        let mut apart = Apart::new();
        let place = Place::new(Who::Root);
        fs::hard_link(place.binary(), place.join("fumehood-oci")).unwrap();
        install(&place, Who::Root, &["docker", "--default", "--config", &place.text("daemon.json")]);
        let prepared = prepare(&place)?;
        apart.look_again(&place);
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let daemon = spawn(&place, &options);
        let docker = Self { place, options, daemon, apart };
        docker.wait();
        docker.call(&["import", &make_archive(&docker.place), "box"]).ok();
        Some((prepared, docker))
    }

    fn wait(&self) {
        let up = eventually(|| self.call(&["version"]).code == 0);
        assert!(up, "dockerd does not come up: {}", self.place.read("log"));
    }

    /// Ends the daemon as a service manager does; whether it ended by itself.
    fn stop(&mut self) -> bool {
        _ = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM);
        let ended = eventually(|| self.daemon.try_wait().unwrap().is_some());
        _ = self.daemon.kill();
        _ = self.daemon.wait();
        ended
    }

    fn restart(&mut self) {
        assert!(self.stop(), "dockerd does not end");
        self.daemon = spawn(&self.place, &self.options);
        self.wait();
    }

    /// A program that finds the daemon.
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.place.path()).env("PATH", PATH).env("HOME", self.place.path());
        command.env("DOCKER_HOST", format!("unix://{}", self.place.text("socket"))).env("DOCKER_BUILDKIT", "0");
        command
    }

    fn call(&self, args: &[&str]) -> Said {
        Said::of(self.command("docker", args))
    }

    fn run(&self, args: &[&str]) -> Said {
        self.call(&[&["run", "--rm"], args].concat())
    }

    fn shell(&self, line: &str) -> Said {
        self.run(&["box", "sh", "-c", line])
    }

    /// A container that stays, called `name`, with a line of shell.
    fn begin(&self, name: &str, args: &[&str], line: &str) {
        self.call(&[&["run", "--detach", "--name", name], args, &["box", "sh", "-c", line]].concat()).ok();
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

    /// The group that the cgroups of all its containers are in.
    fn group(place: &Place) -> String {
        format!("{}-group", place.path().file_name().unwrap().to_string_lossy())
    }
}

fn spawn(place: &Place, options: &[String]) -> Child {
    let log = fs::File::options().create(true).append(true).open(place.join("log")).unwrap();
    // In a mount namespace of its own: what it mounts for itself is gone with it, and not what is asked about here.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "dockerd"])
        .args(["--config-file", &place.text("daemon.json"), "--host", &format!("unix://{}", place.text("socket"))])
        .args(["--exec-root", &place.text("exec"), "--data-root", &place.text("data")])
        .args(["--pidfile", &place.text("pid"), "--storage-driver", "vfs"])
        .args(["--cgroup-parent", &format!("/{}", Docker::group(place))])
        .args(ULIMITS)
        .args(options)
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0);
    command.spawn().unwrap()
}

impl Drop for Docker {
    fn drop(&mut self) {
        let ids = self.call(&["ps", "--all", "--quiet"]).out;
        let ids: Vec<_> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            _ = self.call(&[&["rm", "--force"], &ids[..]].concat());
        }
        let ended = self.stop();
        if std::thread::panicking() {
            eprintln!("{}", self.place.read("log").lines().rev().take(20).collect::<Vec<_>>().join("\n"));
            return;
        }
        assert!(ended, "dockerd does not end");
        // What is the daemon's to make stays, with every runtime; what is below is the runtime's.
        for group in host::cgroups(&Self::group(&self.place)) {
            let below = |path: &PathBuf| path.is_dir();
            let left: Vec<_> = fs::read_dir(&group).unwrap().map(|entry| entry.unwrap().path()).filter(below).collect();
            assert!(left.is_empty(), "cgroups left behind: {left:?}");
            fs::remove_dir(&group).unwrap();
        }
        self.apart.assert_nothing_left(&self.place, &[]);
    }
}
