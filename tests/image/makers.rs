//! Images as others make them, each read, unpacked and written.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    both,
    common::{Place, Who, skip},
};

/// A place, and a person with tools in it.
struct Workshop {
    who: Who,
    place: Place,
}

impl Workshop {
    fn new(who: Who) -> Self {
        let place = Place::new(who);
        place.write("root/file", "made");
        place.mkdir("root/dir");
        Self { who, place }
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.place.path()).env("HOME", self.place.path()).stdin(Stdio::null());
        command.env("FUMEHOOD_STORE", self.place.join("store"));
        command.env("CONTAINERS_STORAGE_CONF", self.place.join("storage.conf"));
        if let Some((uid, gid)) = self.who.ids() {
            command.uid(uid).gid(gid);
        }
        command
    }

    #[track_caller]
    fn call(&self, program: &str, args: &[&str]) -> String {
        let done = self.command(program, args).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{program} {args:?}: {out}{err}");
        out.into_owned()
    }

    #[track_caller]
    fn fumehood(&self, args: &[&str]) -> String {
        self.call(self.place.binary().to_str().unwrap(), args)
    }

    /// It is as it was made, and what is written of it is read by skopeo.
    #[track_caller]
    fn check(&self, name: &str, words: &[&str]) {
        self.fumehood(&["unpack", name, "bundle"]);
        assert_eq!(self.place.read("bundle/rootfs/file"), "made");
        let spec: Value = serde_json::from_str(&self.place.read("bundle/config.json")).unwrap();
        assert_eq!(spec["process"]["args"], json!(words));
        self.fumehood(&["image", "export", name, "out.tar"]);
        self.call("skopeo", &["inspect", "oci-archive:out.tar"]);
        fs::remove_dir_all(self.place.join("bundle")).unwrap();
        fs::remove_file(self.place.join("out.tar")).unwrap();
    }
}

both! {
    fn umoci(who: Who) {
        let shop = Workshop::new(who);
        shop.call("umoci", &["init", "--layout", "layout"]);
        shop.call("umoci", &["new", "--image", "layout:mine"]);
        let rootless: &[&str] = if who == Who::Root { &[] } else { &["--rootless"] };
        for path in ["file", "dir"] {
            let (from, to) = (format!("root/{path}"), format!("/{path}"));
            shop.call("umoci", &[&["insert"], rootless, &["--image", "layout:mine", &from, &to]].concat());
        }
        shop.call("umoci", &["config", "--image", "layout:mine", "--config.cmd", "/file", "--config.cmd", "x"]);
        assert_eq!(shop.fumehood(&["image", "import", "layout"]), "docker.io/library/mine:latest\n");
        shop.check("mine", &["/file", "x"]);
    }
}

/// As root only: for others podman wants ranges of ids, and makes the same of the image.
#[test]
fn podman_and_buildah() {
    let test = "podman_and_buildah";
    let Some(who) = Who::Root.find(test) else { return };
    if !Path::new("/usr/bin/podman").exists() {
        return skip(test, "apt install podman");
    }
    let shop = Workshop::new(who);
    let at = |name: &str| shop.place.text(name);
    shop.place.write(
        "storage.conf",
        format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n", at("graph"), at("run")),
    );
    // What builds in podman is buildah.
    shop.place.write("Containerfile", "FROM scratch\nCOPY root/file /\nCOPY root/dir /dir\nCMD [\"/file\", \"y\"]\n");
    for format in ["oci", "docker"] {
        let name = format!("localhost/made-{format}:1");
        shop.call("podman", &["build", "--quiet", "--format", format, "--tag", &name, "."]);
        assert_eq!(shop.fumehood(&["image", "import", &format!("podman:{name}")]), format!("{name}\n"));
        shop.check(&name, &["/file", "y"]);
        shop.call("podman", &["save", "--quiet", "--format", "oci-dir", "--output", format, &name]);
        shop.fumehood(&["image", "import", format, "--name", "again"]);
        shop.check("again", &["/file", "y"]);
    }
    // What the engine says of one that it does not have is passed on, and nothing is named.
    let binary = shop.place.binary();
    let done = shop.command(binary.to_str().unwrap(), &["image", "import", "podman:none:1"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(125) && said.contains("podman save none:1") && said.contains("hint:"), "{said}");
    assert!(!shop.fumehood(&["image", "list", "-q"]).contains("none"));
    shop.call("podman", &["image", "rm", "--all", "--force"]);
}
