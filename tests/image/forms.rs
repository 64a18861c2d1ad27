//! Every form of an image: read, kept, written, and read again by the tools of others.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    archive::{dir, file, gzip, image, tar},
    both,
    common::{Place, Who},
};

/// A place with an image in it, and the store beside it.
struct Work {
    who: Who,
    place: Place,
}

impl Work {
    fn new(who: Who) -> Self {
        let place = Place::new(who);
        let below = tar(&[dir("d/"), file("d/one", "1")]);
        let above = tar(&[file("d/.wh.one", ""), file("two", "2")]);
        place.write("image.tar", image("example.org/test:1", &[below, above]));
        Self { who, place }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.place.path()).env("HOME", self.place.path());
        command.env("FUMEHOOD_STORE", self.place.join("store")).stdin(Stdio::null());
        if let Some((uid, gid)) = self.who.ids() {
            std::os::unix::process::CommandExt::uid(&mut command, uid);
            std::os::unix::process::CommandExt::gid(&mut command, gid);
        }
        command
    }

    #[track_caller]
    fn tool(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program, args).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}; scripts/test installs it"));
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {}{err}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn image(&self, args: &[&str]) -> String {
        self.tool(self.place.binary().to_str().unwrap(), &[&["image"], args].concat())
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.image(args)).unwrap()
    }

    /// Imports under a name; what makes it what it is.
    #[track_caller]
    fn import(&self, from: &str, name: &str) -> (String, String) {
        self.image(&["import", from, "--name", name]);
        let about = self.json(&["inspect", name]);
        (about["digest"].as_str().unwrap().to_owned(), about["chain_id"].as_str().unwrap().to_owned())
    }
}

both! {
    fn every_form_is_read(who: Who) {
        let work = Work::new(who);
        let (_, chain) = work.import("image.tar", "plain:1");
        for (form, to) in [
            ("docker-archive", "docker.tar:example.org/a:1"),
            ("oci-archive", "oci.tar:example.org/a:1"),
            ("oci", "layout:example.org/a:1"),
        ] {
            work.tool("skopeo", &["copy", "--quiet", "docker-archive:image.tar", &format!("{form}:{to}")]);
            let path = to.split(':').next().unwrap();
            // With the name that it brings.
            assert_eq!(work.image(&["import", path]), "example.org/a:1\n", "{form}");
            assert_eq!(work.import(path, "again:1").1, chain, "{form}");
            if form != "oci" {
                let bytes = fs::read(work.place.join(path)).unwrap();
                work.place.write("packed.tar.gz", gzip(&bytes));
                work.place.write("packed.tar.zst", zstd::encode_all(&bytes[..], 1).unwrap());
                assert_eq!(work.import("packed.tar.gz", "again:2").1, chain, "{form}");
                assert_eq!(work.import("packed.tar.zst", "again:3").1, chain, "{form}");
                let piped = work.command(work.place.binary(), &["image", "import", "-", "--name", "piped:1"])
                    .stdin(fs::File::open(work.place.join(path)).unwrap()).output().unwrap();
                assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
                assert_eq!(work.json(&["inspect", "piped:1"])["chain_id"], Value::from(chain.clone()));
            }
        }
    }

    fn a_root_is_read_packed_or_not(who: Who) {
        let work = Work::new(who);
        let root = tar(&[dir("./"), file("./one", "1")]);
        work.place.write("root.tar", &root);
        work.place.write("root.tar.gz", gzip(&root));
        work.place.write("root.tar.zst", zstd::encode_all(&root[..], 1).unwrap());
        let chains = ["root.tar", "root.tar.gz", "root.tar.zst"].map(|path| work.import(path, "root").1);
        assert!(chains.iter().all(|chain| *chain == chains[0]), "{chains:?}");
        work.tool(work.place.binary().to_str().unwrap(), &["unpack", "root.tar.zst", "bundle"]);
        assert_eq!(work.place.read("bundle/rootfs/one"), "1");
        for (name, bytes) in [("empty", &b""[..]), ("text", b"no archive"), ("cut", &root[..700])] {
            work.place.write(name, bytes);
            let done = work.command(work.place.binary(), &["image", "import", name, "--name", "x"]).output().unwrap();
            assert_eq!(done.status.code(), Some(125), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        }
    }

    fn every_form_is_written_and_read_by_skopeo(who: Who) {
        let work = Work::new(who);
        let (digest, chain) = work.import("image.tar", "example.org/b:2");
        for (form, to) in [("oci-archive", "o.tar"), ("oci", "o"), ("docker-archive", "d.tar")] {
            work.image(&["export", "example.org/b:2", to, "--format", form]);
            let seen = work.tool("skopeo", &["inspect", &format!("{form}:{to}")]);
            let seen: Value = serde_json::from_str(&seen).unwrap();
            assert_eq!(seen["Layers"].as_array().unwrap().len(), 2, "{form}: {seen}");
            work.tool("skopeo", &["copy", "--quiet", &format!("{form}:{to}"), &format!("oci:copied-{form}:x")]);
            assert_eq!(work.image(&["import", to]), "example.org/b:2\n", "{form}");
            let (again, same) = work.import(to, "again:1");
            assert_eq!(same, chain);
            if form != "docker-archive" {
                assert_eq!((again, seen["Digest"].as_str().unwrap()), (digest.clone(), digest.as_str()), "{form}");
            }
            // What is there is not written over.
            let twice = work.command(work.place.binary(), &["image", "export", "b:2", to, "--format", form]).output();
            assert_ne!(twice.unwrap().status.code(), Some(0));
        }
        let piped = work.command(work.place.binary(), &["image", "export", "example.org/b:2", "-"]).output().unwrap();
        assert_eq!(piped.stdout, fs::read(work.place.join("o.tar")).unwrap(), "the same bytes each time");
    }

    fn images_are_listed_named_and_removed(who: Who) {
        let work = Work::new(who);
        work.image(&["import", "image.tar"]);
        assert_eq!(work.image(&["list", "--quiet"]), "example.org/test:1\n");
        work.image(&["tag", "example.org/test:1", "mine"]);
        let rows = work.json(&["list", "--json"]);
        assert_eq!(rows.as_array().unwrap().len(), 2);
        assert_eq!(rows[0]["digest"], rows[1]["digest"]);
        assert_eq!(work.json(&["history", "mine", "--json"]).as_array().unwrap().len(), 2);
        let digest = rows[0]["digest"].as_str().unwrap()[7..19].to_owned();
        assert_eq!(work.json(&["inspect", &digest])["names"].as_array().unwrap().len(), 2);
        work.image(&["rm", "mine"]);
        let blobs = || fs::read_dir(work.place.join("store/blobs/sha256")).unwrap().count();
        assert_eq!(blobs(), 4, "the other name still needs them");
        let left = work.place.mkdir("store/making/killed");
        fs::write(left.join("blob"), "x").unwrap();
        work.place.own(&left);
        work.image(&["rm", "example.org/test:1"]);
        assert_eq!((blobs(), left.exists()), (0, false));
        let missing = work.command(work.place.binary(), &["image", "rm", "mine"]).output().unwrap();
        assert_eq!(missing.status.code(), Some(125));
        assert!(String::from_utf8_lossy(&missing.stderr).contains("no image called `mine`"));
        assert!(work.image(&["prune"]).contains("0 blobs"));
    }

    fn what_an_unreadable_image_may_need_is_not_pruned(who: Who) {
        let work = Work::new(who);
        work.import("image.tar", "test:1");
        let about = work.json(&["inspect", "test:1"]);
        let blob = |digest: &Value| work.place.join("store/blobs/sha256").join(&digest.as_str().unwrap()[7..]);
        let (manifest, layer) = (blob(&about["digest"]), blob(&about["layers"][0]["digest"]));
        let bytes = fs::read(&manifest).unwrap();
        fs::write(&manifest, "").unwrap();
        let prune = || work.command(work.place.binary(), &["image", "prune"]).output().unwrap();
        let done = prune();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.contains("test:1 cannot be read"), "{said}");
        assert!(layer.exists());
        // Mended, it is what it was; and in nobody's way once it has no name.
        fs::write(&manifest, bytes).unwrap();
        assert!(prune().stderr.is_empty());
        work.tool(work.place.binary().to_str().unwrap(), &["unpack", "test:1", "bundle"]);
        fs::write(&manifest, "").unwrap();
        work.image(&["rm", "test:1"]);
        assert!(!layer.exists() && !manifest.exists());
    }

    fn cve_2021_41190_what_could_be_read_as_either_is_neither(who: Who) {
        let work = Work::new(who);
        work.tool("skopeo", &["copy", "--quiet", "docker-archive:image.tar", "oci:layout:x"]);
        let path = work.place.join("layout/index.json");
        let index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let old = index["manifests"][0]["digest"].as_str().unwrap();
        let text = work.place.read(format!("layout/blobs/sha256/{}", &old[7..]));
        for changed in [text.replacen('{', "{\"manifests\":[],", 1), text.replace("image.manifest.v1", "image.index.v1")] {
            let digest = fumehood::image::digest::Digest::of(changed.as_bytes());
            work.place.write(format!("layout/blobs/sha256/{}", digest.hex()), &changed);
            let mut index = index.clone();
            index["manifests"][0]["digest"] = digest.to_string().into();
            index["manifests"][0]["size"] = changed.len().into();
            fs::write(&path, index.to_string()).unwrap();
            let done = work.command(work.place.binary(), &["image", "import", "layout"]).output().unwrap();
            assert_eq!(done.status.code(), Some(125), "{changed}: {}", String::from_utf8_lossy(&done.stderr));
            assert_eq!(work.image(&["list", "-q"]), "");
        }
    }

    fn a_damaged_blob_is_not_passed_on(who: Who) {
        let work = Work::new(who);
        work.import("image.tar", "test:1");
        let layer = work.json(&["inspect", "test:1"])["layers"][1]["digest"].as_str().unwrap()[7..].to_owned();
        let path = work.place.join(Path::new("store/blobs/sha256").join(layer));
        let mut bytes = fs::read(&path).unwrap();
        bytes[600] ^= 1;
        fs::write(&path, bytes).unwrap();
        for format in ["oci-archive", "oci", "docker-archive"] {
            let args = ["image", "export", "test:1", "out", "--format", format];
            let done = work.command(work.place.binary(), &args).output().unwrap();
            assert_eq!(done.status.code(), Some(125), "{format}");
            assert!(!work.place.join("out").exists(), "{format}");
        }
        let done = work.command(work.place.binary(), &["unpack", "test:1", "bundle"]).output().unwrap();
        assert!(!done.status.success() && !work.place.join("bundle").exists());
    }

    fn imports_that_are_killed_or_meet_leave_whole_images(who: Who) {
        let work = Work::new(who);
        let large: Vec<_> = (0..40).map(|n| file(&format!("f{n}"), &format!("{n}").repeat(20_000))).collect();
        work.place.write("large.tar", image("example.org/large:1", &[tar(&large), tar(&[file("x", "")])]));
        for round in 0..12 {
            let mut child = work.command(work.place.binary(), &["image", "import", "large.tar"]).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(round * 3));
            _ = child.kill();
            child.wait().unwrap();
            // Named, and whole; or not there.
            if work.image(&["list", "--quiet"]).contains("large") {
                work.image(&["export", "example.org/large:1", &format!("{round}.tar")]);
            }
        }
        let several: Vec<_> = (0..4)
            .map(|_| work.command(work.place.binary(), &["image", "import", "large.tar"]).stdout(Stdio::null()).spawn().unwrap())
            .collect();
        for mut child in several {
            assert!(child.wait().unwrap().success());
        }
        work.image(&["export", "example.org/large:1", "whole.tar"]);
        work.image(&["prune"]);
        let making: Vec<_> = fs::read_dir(work.place.join("store/making")).unwrap().collect();
        assert!(making.is_empty(), "{making:?}");
    }
}

/// As root only: for others podman wants ranges of ids, and makes the same of the image.
#[test]
fn podman_reads_what_is_written_and_the_other_way_round() {
    let Some(who) = Who::Root.find("podman_reads_what_is_written_and_the_other_way_round") else { return };
    let work = Work::new(who);
    let (_, chain) = work.import("image.tar", "example.org/p:1");
    let (root, run) = (work.place.text("podman"), work.place.text("podman-run"));
    let podman = |args: &[&str]| {
        let own = ["--root", &root, "--runroot", &run, "--storage-driver=vfs"];
        work.tool("podman", &[&own[..], args].concat())
    };
    for form in ["oci-archive", "docker-archive"] {
        let name = format!("{form}.tar");
        work.image(&["export", "example.org/p:1", &name, "--format", form]);
        assert!(podman(&["load", "--input", &name]).contains("example.org/p:1"), "{form}");
        let saved = format!("saved-{form}.tar");
        podman(&["save", "--quiet", "--format", form, "--output", &saved, "example.org/p:1"]);
        assert_eq!(work.import(&saved, "back:1").1, chain, "{form}");
        podman(&["rmi", "--force", "example.org/p:1"]);
    }
}
