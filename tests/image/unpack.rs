//! What hostile layers have done to others (reference: CVEs of unpacking and copying), and whether trees are what
//! another tool makes of the same image.
//!
//! Beside every bundle lies a marker; [`Run::done`] looks that it was not touched.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};
use tar::EntryType;

use crate::{
    archive::{dir, extended, file, gzip, hard_link, image, image_with, raw, symlink, tar, with},
    both,
    common::{Done, Run, Who},
};

/// Unpacks an image of these layers into `bundle`.
fn unpack(who: Who, layers: &[Vec<u8>]) -> Done {
    unpack_file(who, &image("test:1", layers))
}

fn unpack_file(who: Who, bytes: &[u8]) -> Done {
    let run = Run::verb(who, "unpack");
    run.place.write("image.tar", bytes);
    run.arg("image.tar").arg("bundle").done()
}

#[track_caller]
fn refused(who: Who, entries: &[Vec<u8>], why: &str) {
    let done = unpack(who, &[tar(entries)]).expect_error(why);
    assert!(!done.place().join("bundle").exists(), "{done}");
}

fn read(done: &Done, path: &str) -> String {
    done.place().read(Path::new("bundle/rootfs").join(path))
}

both! {
    fn cve_2014_6407_names_that_lead_up(who: Who) {
        refused(who, &[file("../marker", "changed")], "`..`");
        refused(who, &[dir("a/"), file("a/../../marker", "changed")], "`..`");
        refused(who, &[extended(&[("path", "../marker")]), file("x", "changed")], "`..`");
        let done = unpack(who, &[tar(&[file("/absolute", "inside")])]).expect_code(0);
        assert_eq!(read(&done, "absolute"), "inside");
    }

    fn cve_2014_9356_links_that_lead_out(who: Who) {
        let done = unpack(who, &[tar(&[symlink("a", "/"), file("a/inside", "1"), symlink("b", "../../.."), file("b/marker", "2")])]);
        let done = done.expect_code(0);
        assert_eq!((read(&done, "inside"), read(&done, "marker")), ("1".to_owned(), "2".to_owned()));
        // The same over two layers.
        let done = unpack(who, &[tar(&[symlink("out", "../..")]), tar(&[file("out/marker", "2")])]).expect_code(0);
        assert_eq!(read(&done, "marker"), "2");
        // A file in the place of a link is no write through it.
        let done = unpack(who, &[tar(&[symlink("f", "../../marker"), file("f", "own")])]).expect_code(0);
        assert_eq!(read(&done, "f"), "own");
    }

    fn cve_2014_9357_hard_links_that_lead_out(who: Who) {
        refused(who, &[hard_link("h", "../../marker")], "`..`");
        refused(who, &[symlink("a", "../.."), hard_link("h", "a/marker")], "no file of the image");
        refused(who, &[symlink("a", "/"), hard_link("h", "a/etc/passwd")], "no file of the image");
        refused(who, &[dir("d/"), hard_link("h", "d")], "no file of the image");
        // To a link is one more name of the link, and a file in its place no write through it.
        let layer = tar(&[symlink("a", "../../marker"), hard_link("h", "a"), file("h", "own")]);
        assert_eq!(read(&unpack(who, &[layer]).expect_code(0), "h"), "own");
    }

    fn cve_2021_29136_the_root_is_a_directory(who: Who) {
        for name in [".", "/", "./", "/."] {
            refused(who, &[symlink(name, "../..")], "it is the root and no directory");
            refused(who, &[hard_link(name, "x")], "it is the root and no directory");
        }
        unpack(who, &[tar(&[dir("./"), file("./x", "")])]).expect_code(0);
    }

    fn whiteouts_stay_inside(who: Who) {
        let below = tar(&[symlink("out", "../.."), symlink("up", "/"), file("kept", "1"), dir("d/"), file("d/x", "")]);
        let done = unpack(who, &[below.clone(), tar(&[file("out/.wh.marker", ""), file("out/.wh.bundle", "")])]);
        assert_eq!(read(&done.expect_code(0), "kept"), "1");
        let done = unpack(who, &[below.clone(), tar(&[file("out/.wh..wh..opq", ""), file("new", "")])]).expect_code(0);
        let names: Vec<_> = fs::read_dir(done.place().join("bundle/rootfs")).unwrap().collect();
        assert_eq!(names.len(), 1, "all of the image's own is hidden: {names:?}");
        // A whiteout takes a link, not what it leads to.
        unpack(who, &[below.clone(), tar(&[file(".wh.out", "")])]).expect_code(0);
        for name in [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh..."] {
            let done = unpack(who, &[below.clone(), tar(&[file(name, "")])]).expect_error("a whiteout of nothing");
            assert!(!done.place().join("bundle").exists());
        }
        unpack(who, &[below, tar(&[file(".wh.d/x", "")])]).expect_error("below a whiteout");
    }

    fn cve_2021_32760_rights_and_attributes_are_not_given_through_links(who: Who) {
        let run = Run::verb(who, "unpack");
        let before = fs::metadata(run.place.join("marker")).unwrap();
        let open = |kind, name| with(kind, name, |header| header.set_mode(0o777));
        let layer = tar(&[
            extended(&[("SCHILY.xattr.user.a", "1")]),
            symlink("l", "../../marker"),
            open(EntryType::Symlink, "m"),
            symlink("d", "../.."),
            open(EntryType::Directory, "d"),
        ]);
        run.place.write("image.tar", image("test:1", &[layer]));
        let done = run.arg("image.tar").arg("bundle").done();
        let after = fs::metadata(done.place().join("marker")).unwrap();
        assert_eq!((before.mode(), before.uid(), before.mtime(), before.ctime()),
            (after.mode(), after.uid(), after.mtime(), after.ctime()), "{done}");
    }

    fn cve_2021_41103_bundles_and_stores_are_the_owners_alone(who: Who) {
        let set_id = with(EntryType::Regular, "set-id", |header| header.set_mode(0o4755));
        let done = unpack(who, &[tar(&[set_id])]).expect_code(0);
        let mode = |path: &str| fs::metadata(done.place().join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("bundle"), mode("bundle/rootfs/set-id")), (0o700, 0o4755));
        let run = Run::verb(who, "image");
        run.place.write("image.tar", image("test:1", &[tar(&[file("f", "")])]));
        let done = run.args(["--store", "store", "import", "image.tar"]).done().expect_code(0);
        assert_eq!(fs::metadata(done.place().join("store")).unwrap().mode() & 0o7777, 0o700);
        // One that others can enter is not used.
        fs::set_permissions(done.place().join("store"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut again = Run::verb(who, "image").args(["--store".as_ref(), done.place().join("store").as_os_str(), "list".as_ref()]);
        again = again.env("LANG", "C");
        again.done().expect_error("not yours alone").expect_hint();
    }

    fn ghsa_x86f_5xw2_fm2r_no_program_unpacks(who: Who) {
        let mut layer = b"\xfd7zXZ\0".to_vec();
        layer.resize(600, 0);
        let done = unpack(who, &[layer]).expect_error("packed with xz");
        assert!(!done.place().join("bundle").exists());
    }

    fn what_is_not_what_its_digest_says_is_refused(who: Who) {
        let good = tar(&[file("f", "good")]);
        let mut bytes = image("test:1", std::slice::from_ref(&good));
        let at = bytes.windows(4).position(|window| window == b"good").unwrap();
        bytes[at] = b'G';
        unpack_file(who, &bytes).expect_error("what came for");
        // Packed, so that it is seen only when it is unpacked.
        let mut wrong = image("test:1", std::slice::from_ref(&good));
        let config = String::from_utf8_lossy(&wrong).into_owned();
        assert!(config.contains("diff_ids"));
        wrong = image_with_layer(&good, &gzip(&tar(&[file("f", "bad!")])));
        let done = unpack_file(who, &wrong).expect_error("the image wants").expect_hint();
        assert!(!done.place().join("bundle").exists());
    }

    fn cve_2026_53488_labels_are_no_annotations(who: Who) {
        let config = json!({ "Cmd": ["/x"], "Labels": { "run.oci.handler": "krun", "a": "b" } });
        let run = Run::verb(who, "unpack");
        run.place.write("image.tar", image_with("test:1", &[tar(&[file("x", "")])], config));
        let done = run.arg("image.tar").arg("bundle").done().expect_code(0);
        let spec: Value = serde_json::from_str(&done.place().read("bundle/config.json")).unwrap();
        assert_eq!(spec["process"]["args"], json!(["/x"]));
        assert!(!spec["annotations"].to_string().contains("krun"), "{spec}");
    }

    fn overlayfs_attributes_are_not_the_images_to_set(who: Who) {
        let names = ["trusted.overlay.opaque", "user.overlay.redirect", "trusted.a", "security.selinux"];
        let records: Vec<_> = names.map(|name| (format!("SCHILY.xattr.{name}"), "/")).to_vec();
        let records: Vec<_> = records.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let done = unpack(who, &[tar(&[extended(&records), dir("d/")])]).expect_code(0);
        assert!(done.err().contains("4 extended attributes were left out"), "{done}");
    }

    fn trees_are_what_umoci_makes(who: Who) {
        compare_with_umoci(who, &many_layers(who));
    }
}

/// An image whose configuration is of another layer than the one that is there, packed.
pub fn image_with_layer(said: &[u8], packed: &[u8]) -> Vec<u8> {
    let whole = image("test:1", &[said.to_vec()]);
    let mut archive = tar::Archive::new(&whole[..]);
    let mut changed = tar::Builder::new(Vec::new());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        if path.extension().is_some_and(|extension| extension == "tar") {
            bytes = packed.to_vec();
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        changed.append_data(&mut header, path, &bytes[..]).unwrap();
    }
    changed.into_inner().unwrap()
}

/// What images do to each other's files, over a dozen layers.
fn many_layers(who: Who) -> Vec<Vec<u8>> {
    let at = |time: u64, kind, name: &str, mode, ids: (u64, u64), data: &[u8]| {
        let mut header = crate::archive::header(kind, name, "", data.len() as u64);
        header.set_mode(mode);
        header.set_mtime(time);
        header.set_uid(ids.0);
        header.set_gid(ids.1);
        raw(&header, data)
    };
    let device = |kind, name: &str, major, minor| {
        with(kind, name, |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    };
    use EntryType::{Block, Char, Directory, Fifo, Regular};
    let long = format!("dir/{}", "long/".repeat(30));
    let mut layers = vec![
        tar(&[
            at(1_000_000_000, Directory, "./", 0o755, (0, 0), b""),
            at(1_000_000_001, Directory, "dir/", 0o2775, (5, 6), b""),
            at(1_000_000_002, Regular, "dir/set-id", 0o6755, (7, 8), b"program"),
            at(1_000_000_003, Regular, "dir/open", 0o666, (0, 0), b"open"),
            at(1_000_000_004, Regular, "dir/secret", 0o400, (0, 0), b"secret"),
            at(1_000_000_005, Directory, "dir/gone/", 0o700, (0, 0), b""),
            file("dir/gone/file", "gone"),
            hard_link("dir/hard", "dir/open"),
            symlink("link", "dir/open"),
            symlink("broken", "/no/where"),
            dir("type/"),
            file("type/file-to-dir", "1"),
            dir("type/dir-to-file/"),
            file("type/dir-to-file/inner", "1"),
            symlink("type/link-to-file", "../dir/open"),
            at(1_000_000_006, Directory, "tmp/", 0o1777, (0, 0), b""),
            at(1_000_000_007, Fifo, "fifo", 0o640, (0, 0), b""),
            at(1_000_000_008, Directory, "opaque/", 0o755, (0, 0), b""),
            file("opaque/old", "1"),
        ]),
        tar(&[
            dir("dir/"),
            file("dir/.wh.gone", ""),
            dir("opaque/"),
            file("opaque/.wh..wh..opq", ""),
            file("opaque/new", "2"),
            hard_link("opaque/across", "dir/set-id"),
        ]),
        tar(&[
            dir("type/"),
            dir("type/file-to-dir/"),
            file("type/file-to-dir/inner", "2"),
            file("type/dir-to-file", "2"),
            file("type/link-to-file", "2"),
        ]),
        tar(&[
            extended(&[("SCHILY.xattr.user.note", "kept"), ("mtime", "1234567890.987654321")]),
            file("attributes", "3"),
        ]),
        tar(&[
            extended(&[("path", &long)]),
            dir("x"),
            extended(&[("path", &format!("{long}file"))]),
            file("y", "deep"),
        ]),
        tar(&[file(".wh.broken", ""), file("link", "no link any more")]),
    ];
    for number in 0..6 {
        layers.push(tar(&[
            dir("many/"),
            file(&format!("many/{number}"), &"x".repeat(number * 1000)),
            file("many/last", &number.to_string()),
        ]));
    }
    if who == Who::Root {
        let devices = [device(Char, "null", 1, 3), device(Block, "disk", 8, 1), device(Char, "console", 5, 1)];
        let capability = "\u{1}\0\0\u{2}\0\u{4}\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        layers.push(tar(&[
            devices.concat(),
            extended(&[("SCHILY.xattr.security.capability", capability)]),
            file("capable", "4"),
        ]));
    }
    layers
}

/// Lists a tree, one line for each file, with all that is to be the same.
pub const LISTER: &str = r#"
import hashlib, os, stat, sys
root, owners = sys.argv[1], sys.argv[2] == "Root"
os.chdir(root)
for above, dirs, files in os.walk("."):
    for name in sorted(dirs + files) + (["."] if above == "." else []):
        path = os.path.join(above, name)
        s = os.lstat(path)
        content = os.readlink(path) if stat.S_ISLNK(s.st_mode) else ""
        if stat.S_ISREG(s.st_mode):
            content = hashlib.sha256(open(path, "rb").read()).hexdigest()
        attributes = [(a, os.getxattr(path, a, follow_symlinks=False)) for a in sorted(os.listxattr(path, follow_symlinks=False))]
        attributes = [a for a in attributes if a[0] != "user.rootlesscontainers"]
        links = 1 if stat.S_ISDIR(s.st_mode) else s.st_nlink
        # umoci leaves directories the time of the last whiteout in them.
        time = 0 if stat.S_ISDIR(s.st_mode) else int(s.st_mtime)
        print(path, oct(s.st_mode), (s.st_uid, s.st_gid) if owners else "", s.st_rdev, time, links, content, attributes)
"#;

fn compare_with_umoci(who: Who, layers: &[Vec<u8>]) {
    let run = Run::verb(who, "unpack");
    run.place.write("image.tar", image("test:1", layers));
    let done = run.arg("image.tar").arg("bundle").done().expect_code(0);
    let tool = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(done.place().path()).env("HOME", done.place().path());
        if let Some((uid, gid)) = who.ids() {
            std::os::unix::process::CommandExt::uid(&mut command, uid);
            std::os::unix::process::CommandExt::gid(&mut command, gid);
        }
        let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}; scripts/test installs it"));
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    tool("skopeo", &["copy", "--quiet", "docker-archive:image.tar", "oci:layout:test"]);
    let rootless: &[&str] = if who == Who::Root { &[] } else { &["--rootless"] };
    tool("umoci", &[&["unpack", "--image", "layout:test"], rootless, &["theirs"]].concat());
    let list = |bundle: &str| {
        let mut lines: Vec<String> = tool("python3", &["-c", LISTER, &format!("{bundle}/rootfs"), &format!("{who:?}")])
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    let (ours, theirs) = (list("bundle"), list("theirs"));
    assert!(ours.len() > 40, "{ours:#?}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}
