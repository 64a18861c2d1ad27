//! Trees of every kind packed, and what comes of them when they are unpacked again.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsStr},
    fs::{self, File, Permissions},
    io::Seek,
    os::{
        fd::AsFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, PermissionsExt, symlink},
        },
    },
    path::Path,
    process::Command,
};

use super::*;
use crate::{
    image::unpack::{self, Archive},
    sys,
};

fn packed(root: &Path, options: &Options) -> Result<(Notes, Vec<u8>), PackError> {
    pack(File::open(root).unwrap().as_fd(), options, Vec::new())
}

fn overlay() -> Options {
    Options::new(Source::Overlay)
}

fn tree() -> Options {
    Options::new(Source::Tree)
}

/// Its entries' paths, in their order.
fn paths(archive: &[u8]) -> Vec<String> {
    let mut entries = Archive::new(archive);
    let mut all = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        all.push(String::from_utf8_lossy(&entry.path).into_owned());
    }
    all
}

fn unpacked(layers: &[&[u8]], into: &Path) {
    let layers = layers.iter().map(|bytes| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        unpack::Layer { name: "test".to_owned(), file, diff_id: None }
    });
    unpack::unpack(layers.collect(), File::open(into).unwrap().into(), Limits::default(), &|_| {}).unwrap();
}

/// Everything of a tree that a layer tells, by name.
fn look(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let (mut all, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut tell = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let kind = found.file_type();
        let content = match kind {
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(path).unwrap()),
            kind if kind.is_file() => format!("{:?}", fs::read(path).unwrap()),
            _ => String::new(),
        };
        let attributes = match kind.is_file() || kind.is_dir() {
            true => {
                let file = File::open(path).unwrap();
                let names = sys::fs::attributes(file.as_fd()).unwrap();
                let value = |name: &CString| (name.clone(), sys::fs::attribute(file.as_fd(), name).unwrap());
                format!("{:?}", names.iter().map(value).collect::<BTreeMap<_, _>>())
            }
            false => String::new(),
        };
        let same = if kind.is_dir() { name.clone() } else { first.entry(found.ino()).or_insert(name.clone()).clone() };
        let told = format!(
            "{:o} {}:{} {} {:?} {content} {attributes}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.mtime(),
            String::from_utf8_lossy(&same)
        );
        (name, told)
    };
    let (name, told) = tell(root);
    all.insert(name, told);
    while let Some(dir) = left.pop() {
        let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            if path.symlink_metadata().unwrap().is_dir() {
                left.push(path.clone());
            }
            let (name, told) = tell(&path);
            all.insert(name, told);
        }
    }
    all
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    sys::fs::set_attribute(File::open(path).unwrap().as_fd(), &CString::new(name).unwrap(), value).unwrap();
}

fn make_node(path: &Path, kind: u32, device: libc::dev_t) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    sys::fs::make_node(sys::fs::cwd(), &path, kind | 0o600, device).unwrap();
}

/// Of every kind, with every odd name.
fn fill(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("dir/deep")).unwrap();
    fs::write(at("dir/file"), "content").unwrap();
    fs::write(at("dir/exactly"), vec![b'x'; 1024]).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::hard_link(at("dir/file"), at("another")).unwrap();
    fs::hard_link(at("dir/file"), at("dir/third")).unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    symlink("x".repeat(300), at("long-link")).unwrap();
    fs::hard_link(at("link"), at("link-again")).unwrap();
    make_node(&at("fifo"), libc::S_IFIFO, 0);
    fs::set_permissions(at("dir/deep"), Permissions::from_mode(0o1777)).unwrap();
    fs::write(at("setuid"), "#!").unwrap();
    fs::set_permissions(at("setuid"), Permissions::from_mode(0o6755)).unwrap();
    for odd in [&b"new\nline"[..], b"not\xff utf-8", b"-dash", b" blank ", b"\\back", b"*", b"wh.not"] {
        fs::write(root.join(OsStr::from_bytes(odd)), odd).unwrap();
    }
    let mut long = root.to_owned();
    for _ in 0..6 {
        long.push("component-of-a-long-path".repeat(4));
        fs::create_dir(&long).unwrap();
    }
    fs::write(long.join(OsStr::from_bytes(b"\xfe at the end")), "deep").unwrap();
    set_attribute(&at("dir"), "user.of-dir", b"a\nb=c\0d");
    set_attribute(&at("dir/file"), "user.of-file", b"");
    let old = File::open(at("empty")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH - std::time::Duration::from_secs(1000)).unwrap();
    // Fractions of seconds are not told.
    let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    for dir in ["", "dir", "dir/deep"] {
        File::open(at(dir)).unwrap().set_modified(when).unwrap();
    }
}

#[test]
fn what_is_packed_is_unpacked_the_same() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(from.path());
    if nix::unistd::geteuid().is_root() {
        make_node(&from.path().join("device"), libc::S_IFCHR, libc::makedev(5, 1));
        std::os::unix::fs::chown(from.path().join("dir/exactly"), Some(3_000_000), Some(65_533)).unwrap();
    }
    for source in [tree(), overlay()] {
        let (notes, bytes) = packed(from.path(), &source).unwrap();
        assert_eq!((notes.sockets_left_out, notes.attributes_left_out, notes.whiteouts), (0, 0, 0));
        let into = to.path().join(format!("{:?}", source.source));
        fs::create_dir(&into).unwrap();
        unpacked(&[&bytes], &into);
        let (was, is) = (look(from.path()), look(&into));
        for (name, told) in &was {
            assert_eq!(Some(told), is.get(name), "{}", String::from_utf8_lossy(name));
        }
        assert_eq!(was.len(), is.len());
        assert_eq!(was.len() as u64, notes.entries);
    }
}

#[test]
fn other_readers_see_the_same() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(from.path());
    let (_, bytes) = packed(from.path(), &tree()).unwrap();
    let archive = to.path().join("archive");
    fs::write(&archive, bytes).unwrap();
    let into = to.path().join("into");
    fs::create_dir(&into).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "-xpf"]).arg(&archive).arg("-C").arg(&into);
    assert!(tar.status().unwrap().success());
    assert_eq!(look(from.path()), look(&into));
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(one.path());
    // In another order, later.
    for name in ["zz", "a", "m"] {
        fs::write(other.path().join(name), "").unwrap();
        fs::remove_file(other.path().join(name)).unwrap();
    }
    fill(other.path());
    let clamped = Options { newest: Some(1_600_000_000), ..tree() };
    fs::set_permissions(other.path(), fs::metadata(one.path()).unwrap().permissions()).unwrap();
    let (one, other) = (packed(one.path(), &clamped).unwrap(), packed(other.path(), &clamped).unwrap());
    assert_eq!(one, other);
    let mut entries = Archive::new(one.1.as_slice());
    while let Some(entry) = entries.next_entry().unwrap() {
        assert!(entry.mtime.seconds <= 1_600_000_000 && entry.mtime.nanos == 0, "{entry:?}");
    }
}

#[test]
fn what_overlayfs_says_becomes_what_a_layer_says() {
    let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in ["replaced", "kept", "gone-dir"] {
        fs::create_dir(lower.path().join(dir)).unwrap();
        fs::write(lower.path().join(dir).join("old"), "old").unwrap();
    }
    fs::write(lower.path().join("gone"), "").unwrap();
    fs::write(lower.path().join("gone-too"), "").unwrap();
    let at = |name: &str| upper.path().join(name);
    for dir in ["replaced", "kept"] {
        fs::create_dir(at(dir)).unwrap();
        fs::write(at(dir).join("new"), "new").unwrap();
    }
    set_attribute(&at("replaced"), "user.overlay.opaque", b"y");
    set_attribute(&at("kept"), "user.overlay.origin", b"\x01\x02");
    set_attribute(&at("kept"), "user.overlay.impure", b"y");
    set_attribute(&at("kept"), "user.overlay.overlay.opaque", b"y");
    make_node(&at("gone"), libc::S_IFCHR, 0);
    // overlayfs makes one whiteout and links it.
    fs::hard_link(at("gone"), at("gone-dir")).unwrap();
    fs::write(at("gone-too"), "").unwrap();
    set_attribute(&at("gone-too"), "user.overlay.whiteout", b"y");
    let (notes, bytes) = packed(upper.path(), &overlay()).unwrap();
    assert_eq!((notes.whiteouts, notes.attributes_left_out), (3, 0));
    let told = [
        "./",
        ".wh.gone",
        ".wh.gone-dir",
        ".wh.gone-too",
        "kept/",
        "kept/new",
        "replaced/",
        "replaced/.wh..wh..opq",
        "replaced/new",
    ];
    assert_eq!(paths(&bytes), told);
    let (_, below) = packed(lower.path(), &tree()).unwrap();
    let into = tempfile::tempdir().unwrap();
    unpacked(&[&below, &bytes], into.path());
    let names: Vec<_> = look(into.path()).into_keys().map(|name| String::from_utf8(name).unwrap()).collect();
    assert_eq!(names, ["", "kept", "kept/new", "kept/old", "replaced", "replaced/new"]);
    assert!(sys::fs::attributes(File::open(into.path().join("kept")).unwrap().as_fd()).unwrap().is_empty());
}

#[test]
fn what_a_layer_cannot_tell_is_an_error() {
    let error = |make: &dyn Fn(&Path), options: &Options| {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        packed(dir.path(), options).unwrap_err().to_string()
    };
    for name in [".wh.x", ".wh.", ".wh..wh..opq"] {
        let made = error(&|dir| fs::write(dir.join(name), "").unwrap(), &tree());
        assert!(made.contains(name) && made.contains("removed"), "{made}");
        let dir = error(&|dir| fs::create_dir(dir.join(name)).unwrap(), &overlay());
        assert!(dir.contains("removed"), "{dir}");
    }
    let device = error(&|dir| make_node(&dir.join("x"), libc::S_IFCHR, 0), &tree());
    assert!(device.contains("0:0"), "{device}");
    for name in ["user.overlay.redirect", "user.overlay.metacopy"] {
        let half = error(&|dir| set_attribute(dir, name, b"/x"), &overlay());
        assert!(half.contains("half"), "{half}");
    }
}

#[test]
fn there_is_an_end_to_it() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
    let small = Options { limits: Limits { bytes: 1 << 20, entries: 3, ..Limits::default() }, ..tree() };
    let error = packed(dir.path(), &small).unwrap_err().to_string();
    assert!(error.contains("bytes of files") && error.contains("sparse"), "{error}");
    fs::remove_file(dir.path().join("sparse")).unwrap();
    for name in ["a", "b"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    assert_eq!(packed(dir.path(), &small).unwrap().0.entries, 3);
    fs::write(dir.path().join("c"), "").unwrap();
    assert!(packed(dir.path(), &small).unwrap_err().to_string().contains("more than 3 files"));
    // Deeper than any path can name, and than descriptors would reach.
    let mut at: std::os::fd::OwnedFd = File::open(dir.path()).unwrap().into();
    for _ in 0..2500 {
        sys::fs::make_dir(at.as_fd(), c"d", 0o755).unwrap();
        at = sys::fs::open_in(at.as_fd(), c"d", libc::O_PATH | libc::O_DIRECTORY, 0, 0).unwrap();
    }
    drop(at);
    assert!(packed(dir.path(), &tree()).unwrap_err().to_string().contains("bytes of a path"));
    let deep = Options { limits: Limits { path: 1 << 20, ..Limits::default() }, ..tree() };
    assert_eq!(packed(dir.path(), &deep).unwrap().0.entries, 2504);
    assert!(Command::new("rm").arg("-rf").arg(dir.path().join("d")).status().unwrap().success());
}

#[test]
fn sockets_and_what_is_left_out_are_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    fs::create_dir_all(dir.path().join("dev/shm")).unwrap();
    fs::write(dir.path().join("dev/shm/x"), "").unwrap();
    fs::write(dir.path().join("deved"), "").unwrap();
    let (notes, bytes) = packed(dir.path(), &Options { without: vec![b"dev".to_vec()], ..tree() }).unwrap();
    assert_eq!(paths(&bytes), ["./", "dev/", "deved"]);
    assert_eq!(notes.sockets_left_out, 1);
}

#[test]
fn a_layer_is_kept_as_it_was_packed() {
    let (dir, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(dir.path());
    fs::set_permissions(place.path(), Permissions::from_mode(0o700)).unwrap();
    let store = crate::image::Store::open(Some(place.path())).unwrap();
    let (_, plain) = packed(dir.path(), &tree()).unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let once = || {
            keep(&store, compression, |to| {
                let root = File::open(dir.path()).unwrap();
                pack(root.as_fd(), &tree(), to).map(|(notes, _)| notes).map_err(KeepError::from)
            })
            .unwrap()
        };
        let (layer, notes) = once();
        assert_eq!(layer, once().0);
        assert_eq!(layer.diff_id, crate::image::digest::Digest::of(&plain));
        assert_eq!(notes.entries, look(dir.path()).len() as u64);
        let (file, size) = store.open_blob(&layer.digest).unwrap();
        assert_eq!(size, layer.size);
        let mut content = Vec::new();
        let mut unpacked = unpack::open_packed(std::io::BufReader::new(file)).unwrap();
        std::io::Read::read_to_end(&mut unpacked, &mut content).unwrap();
        assert_eq!(content, plain);
    }
    let failed = keep(&store, Compression::Gzip, |_| {
        Err::<(), _>(KeepError::Pack(PackError::Untold { path: String::new(), why: "" }))
    });
    assert!(failed.is_err());
    assert_eq!(fs::read_dir(place.path().join("making")).unwrap().count(), 0);
}
