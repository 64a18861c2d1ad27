//! A container of one test: a bundle with a busybox root, and the runtime's own state directory.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use crate::common::{Place, Who, host, probe, skip, unified::Group};

const APPLETS: [&str; 30] = [
    "sh", "ls", "cat", "echo", "sleep", "id", "ps", "mount", "true", "false", "env", "hostname", "mkdir", "touch",
    "head", "grep", "wc", "kill", "stat", "printf", "test", "tty", "stty", "dd", "ip", "df", "pwd", "readlink",
    "umask", "ulimit",
];

pub struct Container {
    pub who: Who,
    pub place: Place,
    pub id: String,
    pub config: Value,
    /// Options before the verb.
    pub globals: Vec<String>,
    /// Whether the group is to be made by systemd.
    systemd: bool,
    before: host::Look,
}

impl Container {
    /// `None`, said aloud, where it cannot be had.
    pub fn new(test: &str, who: Who) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Some(busybox) = ["/usr/bin/busybox", "/bin/busybox"].iter().find(|path| Path::new(path).exists()) else {
            skip(test, "apt install busybox-static");
            return None;
        };
        let before = host::Look::now();
        let place = Place::new(who);
        for dir in ["proc", "sys", "dev", "tmp", "etc", "root", "home/u"] {
            place.mkdir(Path::new("bundle/rootfs").join(dir));
        }
        place.write_executable("bundle/rootfs/bin/busybox", fs::read(busybox).unwrap());
        for applet in APPLETS {
            place.symlink("busybox", Path::new("bundle/rootfs/bin").join(applet));
        }
        place.write("bundle/rootfs/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n");
        let id = format!("t{}-{}-o", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let config = config(who, &id);
        Some(Self { who, place, id, config, globals: Vec::new(), systemd: false, before })
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.config["process"]["args"] = json!(args);
        self
    }

    pub fn shell(self, line: &str) -> Self {
        self.args(&["sh", "-c", line])
    }

    /// Sets the value at a JSON pointer, making what is missing on the way.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut at = &mut self.config;
        for part in pointer.split('/').skip(1) {
            at = match part.parse::<usize>() {
                Ok(number) if at.is_array() => &mut at[number],
                _ => &mut at[part],
            };
        }
        *at = value;
        self
    }

    /// With `--systemd-cgroup`, and with the variables by which the user's systemd is found.
    pub fn systemd(mut self) -> Self {
        self.systemd = true;
        self
    }

    /// One more mount after those that are there.
    pub fn mount(mut self, mount: Value) -> Self {
        self.config["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    /// The capabilities of all three sets that count.
    pub fn capabilities(self, names: &[&str]) -> Self {
        self.set("/process/capabilities", json!({ "bounding": names, "effective": names, "permitted": names }))
    }

    /// `tests/helpers/attacker.c` and `probe.c` as `/bin/attacker` and `/bin/probe`.
    pub fn helpers(self) -> Self {
        self.place.write_executable("bundle/rootfs/bin/attacker", probe::attacker());
        self.place.write_executable("bundle/rootfs/bin/probe", probe::binary());
        self
    }

    pub fn rootfs(&self, path: &str) -> PathBuf {
        self.place.join("bundle/rootfs").join(path)
    }

    /// Puts a link where a directory or nothing is.
    pub fn link(&self, to: impl AsRef<Path>, at: &str) {
        let path = self.rootfs(at);
        if path.symlink_metadata().is_ok() {
            fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).unwrap();
        }
        std::os::unix::fs::symlink(to, path).unwrap();
    }

    /// A directory beside the bundle that nothing may get into, with one file.
    pub fn outside(&self) -> PathBuf {
        let dir = self.place.mkdir("outside");
        self.place.write("outside/marker", "outside");
        // Whoever gets here may write, unless they are kept out.
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        dir
    }

    #[track_caller]
    pub fn assert_outside_unchanged(&self) {
        let names: Vec<_> =
            fs::read_dir(self.place.join("outside")).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["marker"], "something was made outside");
        assert_eq!(self.place.read("outside/marker"), "outside");
        assert_eq!(self.place.read("marker"), "untouched");
    }

    pub fn bundle(&self) -> PathBuf {
        self.place.join("bundle")
    }

    /// A call of the runtime, with the globals of an engine.
    pub fn command(&self, verb: &str, args: &[&str]) -> Command {
        let text = serde_json::to_vec(&self.config).unwrap();
        self.place.write("bundle/config.json", text);
        let mut command = Command::new(self.place.binary());
        command.arg0("fumehood-oci").arg("--root").arg(self.place.join("runtime-dir/oci"));
        // The others are to know by what was made.
        if self.systemd && matches!(verb, "create" | "run") {
            command.arg("--systemd-cgroup");
        }
        command.args(&self.globals).arg(verb).args(args);
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").current_dir(self.bundle());
        command.env("XDG_RUNTIME_DIR", self.place.join("runtime-dir")).env(host::TAG, &self.id);
        if let Some(bus) = std::env::var_os("DBUS_SESSION_BUS_ADDRESS").filter(|_| self.systemd) {
            command.env("DBUS_SESSION_BUS_ADDRESS", bus);
        }
        if let Some((uid, gid)) = self.who.ids() {
            command.uid(uid).gid(gid);
        }
        command
    }

    pub fn call(&self, verb: &str, args: &[&str]) -> Said {
        let mut all = args.to_vec();
        all.push(&self.id);
        self.output(self.command(verb, &all))
    }

    /// The id comes first: for `exec` and `kill`.
    pub fn call_on(&self, verb: &str, args: &[&str]) -> Said {
        let mut all = vec![self.id.as_str()];
        all.extend(args);
        self.output(self.command(verb, &all))
    }

    pub fn output(&self, command: Command) -> Said {
        self.output_with(command, Stdio::null())
    }

    pub fn output_with(&self, mut command: Command, stdin: impl Into<Stdio>) -> Said {
        // Not pipes: a container that `create` leaves behind holds them open.
        let out = self.place.join("stdout");
        let err = self.place.join("stderr");
        command.stdin(stdin).stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let status = command.status().unwrap();
        let output = Output { status, stdout: fs::read(out).unwrap(), stderr: fs::read(err).unwrap() };
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn run(&self) -> Said {
        self.call("run", &[])
    }

    #[track_caller]
    pub fn create(&self) {
        self.call("create", &["--pid-file", &self.place.text("pid")]).ok();
    }

    /// The group of the v2 tree that its first process is in.
    #[track_caller]
    pub fn group(&self) -> Group {
        let own = fs::read_to_string(format!("/proc/{}/cgroup", self.place.read("pid"))).unwrap();
        let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_else(|| panic!("{own}"));
        Group(Path::new("/sys/fs/cgroup").join(path))
    }

    #[track_caller]
    pub fn start(&self) {
        self.call("start", &[]).ok();
    }

    pub fn status(&self) -> String {
        // By pipes, for the container may still write to the files that it was created with.
        let said = self.command("state", &[&self.id]).stdin(Stdio::null()).output().unwrap();
        if !said.status.success() {
            return String::from_utf8_lossy(&said.stderr).into_owned();
        }
        serde_json::from_slice::<Value>(&said.stdout).unwrap()["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn becomes(&self, status: &str) {
        assert!(host::eventually(|| self.status() == status), "it is {}, not {status}", self.status());
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let forced = self.call("delete", &["--force"]);
        if std::thread::panicking() {
            return;
        }
        assert_eq!(forced.code, 0, "delete --force: {}", forced.err);
        let gone = || host::left_of(&self.id, &self.place).is_empty();
        assert!(host::eventually(gone), "left: {:?}", host::left_of(&self.id, &self.place));
        self.before.assert_unchanged();
    }
}

/// What a call said.
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

    #[track_caller]
    pub fn fails(self, with: &str) -> String {
        assert_ne!(self.code, 0, "{self:?}");
        assert!(self.err.contains(with), "no {with:?} in {:?}", self.err);
        self.err
    }
}

/// What an engine would write for a plain container.
fn config(who: Who, id: &str) -> Value {
    let capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"];
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["true"],
            "env": ["PATH=/bin:/sbin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 512, "hard": 512 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "box",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" },
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    let linux = &mut config["linux"];
    if who == Who::Root {
        linux["cgroupsPath"] = json!(format!("/fumehood-test/{id}"));
        linux["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    } else {
        let (uid, gid) = who.ids().unwrap_or_else(|| (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()));
        linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
        linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
    }
    config
}
