//! Terminals of containers whose /dev is hostile.

use crate::both;
use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::PathBuf,
};

use nix::sys::stat::{fstat, major};
use serde_json::{Value, json};

use crate::{bundle::Container, common::Who};

/// An engine's end of `--console-socket`.
pub struct Engine {
    listener: UnixListener,
    pub path: PathBuf,
}

impl Engine {
    pub fn listen(container: &Container, name: &str) -> Self {
        let path = container.place.join("runtime-dir").join(name);
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener, path }
    }

    /// What came with the first message, after the runtime has come back. `None` if nobody called, or with nothing.
    pub fn received(&self) -> Option<(Vec<u8>, OwnedFd)> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 64 << 10];
        let (length, fd) = fumehood::sys::socket::receive(stream.as_fd(), &mut buffer).ok()?;
        buffer.truncate(length);
        Some((buffer, fd?))
    }
}

fn without_dev(container: Container) -> Container {
    let mut mounts = container.config["mounts"].as_array().unwrap().clone();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    container.set("/mounts", Value::from(mounts)).set("/process/terminal", json!(true))
}

fn is_a_terminal(fd: &OwnedFd) -> bool {
    let stat = fstat(fd).unwrap();
    // 5:2 is /dev/ptmx itself, by which a master is known.
    matches!(major(stat.st_rdev), 5 | 128..=143) && nix::sys::termios::tcgetattr(fd).is_ok()
}

both! {
    fn a_terminal_is_one_of_the_containers_own(who: Who) {
        let Some(container) = Container::new("terminal", who) else { return };
        let container = container.set("/process/terminal", json!(true)).shell("tty; ls -l /dev/console; sleep 100");
        let engine = Engine::listen(&container, "console");
        container.call("create", &["--console-socket", engine.path.to_str().unwrap()]).ok();
        let (_, master) = engine.received().expect("no terminal was sent");
        assert!(is_a_terminal(&master));
        container.start();
        let mut master = fs::File::from(master);
        let mut text = String::new();
        let mut buffer = [0; 4096];
        while !text.contains("console") {
            let read = master.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        assert!(text.contains("/dev/pts/0") || text.contains("/dev/console"), "{text}");
        assert!(text.contains("crw"), "{text}");
        master.write_all(b"\x03").unwrap();
    }

    fn cve_2025_52565_a_console_is_not_mounted_over_what_a_link_names(who: Who) {
        let Some(container) = Container::new("console links", who) else { return };
        let container = without_dev(container).args(&["sleep", "100"]);
        container.outside();
        let devpts = json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                             "options": ["newinstance", "ptmxmode=0666", "mode=0620"] });
        for (number, to) in ["../../../outside/marker", "/etc/passwd", "/proc/sys/kernel/core_pattern"].iter().enumerate() {
            container.link(to, "dev/console");
            let mut config = container.config.clone();
            config["mounts"].as_array_mut().unwrap().push(devpts.clone());
            let engine = Engine::listen(&container, &format!("console{number}"));
            let command =
                container.command("create", &["--console-socket", engine.path.to_str().unwrap(), &container.id]);
            fs::write(container.bundle().join("config.json"), config.to_string()).unwrap();
            let said = container.output(command);
            assert_ne!(said.code, 0, "{to}: {said:?}");
            container.assert_outside_unchanged();
            container.call("state", &[]).fails("does not exist");
        }
    }

    fn cve_2025_52565_a_ptmx_of_the_image_is_no_terminal(who: Who) {
        let Some(container) = Container::new("false ptmx", who) else { return };
        let container = without_dev(container).args(&["sleep", "100"]);
        container.outside();
        let pts = container.place.mkdir("bundle/rootfs/dev/pts");
        container.link("../../../../outside/marker", "dev/ptmx");
        for (number, kind) in ["file", "fifo", "link"].iter().enumerate() {
            let ptmx = pts.join("ptmx");
            _ = fs::remove_file(&ptmx);
            match *kind {
                "file" => drop(container.place.write("bundle/rootfs/dev/pts/ptmx", "")),
                "fifo" => nix::unistd::mkfifo(&ptmx, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap(),
                _ => container.link("../../../../outside/marker", "dev/pts/ptmx"),
            }
            let engine = Engine::listen(&container, &format!("ptmx{number}"));
            let said = container.call("create", &["--console-socket", engine.path.to_str().unwrap()]);
            assert_ne!(said.code, 0, "{kind}: {said:?}");
            assert!(engine.received().is_none(), "{kind}: something was sent as a terminal");
            container.assert_outside_unchanged();
        }
    }

    fn cve_2025_52565_exec_takes_no_terminal_that_the_container_forged(who: Who) {
        let Some(container) = Container::new("forged terminal", who) else { return };
        let container = container
            .capabilities(&["CAP_SYS_ADMIN", "CAP_MKNOD"])
            .shell("mount -t tmpfs none /dev/pts && busybox mkfifo /dev/pts/ptmx && touch /tmp/forged; sleep 100");
        container.create();
        container.start();
        assert!(crate::common::host::eventually(|| container.rootfs("tmp/forged").exists()));
        let engine = Engine::listen(&container, "exec");
        let args = ["--tty", "--detach", "--console-socket", engine.path.to_str().unwrap(), &container.id, "true"];
        let said = container.output(container.command("exec", &args));
        assert_ne!(said.code, 0, "{said:?}");
        assert!(engine.received().is_none(), "something was sent as a terminal");
    }
}
