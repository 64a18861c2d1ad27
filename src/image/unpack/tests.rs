//! Layers that are well formed and layers that are not, unpacked in this process.

use std::{
    collections::BTreeMap,
    fs,
    io::{Seek, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use tar::EntryType;

use super::*;

#[path = "../../../tests/image/archive/entries.rs"]
mod entries;
use entries::{dir, extended, file, gzip, header, raw, tar};

fn link(kind: EntryType, path: &str, to: &str) -> Vec<u8> {
    raw(&header(kind, path, to, 0), b"")
}

fn layer(bytes: &[u8], diff_id: Option<Digest>) -> Layer {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    Layer { name: "test".to_owned(), file, diff_id }
}

/// Everything of a tree that there is to be told.
fn look(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let content = match found.file_type() {
                kind if kind.is_dir() => {
                    left.push(path.clone());
                    String::new()
                }
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
                _ => String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
            };
            let (mode, time, links) = (found.mode(), found.mtime(), found.nlink());
            let name = path.strip_prefix(root).unwrap().display().to_string();
            all.insert(name, format!("{mode:o} {time} {links} {content}"));
        }
    }
    all
}

/// Unpacks in a directory with a marker beside it that must be as it was.
fn unpacked(layers: Vec<Layer>, limits: Limits) -> Result<BTreeMap<String, String>, String> {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("marker"), "untouched").unwrap();
    let root = outside.path().join("root");
    fs::create_dir(&root).unwrap();
    let into = File::open(&root).unwrap();
    let done = unpack(layers, into.into(), limits, &|_| {});
    assert_eq!(fs::read_to_string(outside.path().join("marker")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
    let tree = look(&root);
    done.map(|_| tree).map_err(|error| {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text += &format!(": {inner}");
            source = inner.source();
        }
        text
    })
}

fn plain(layers: &[Vec<u8>]) -> Result<BTreeMap<String, String>, String> {
    unpacked(layers.iter().map(|bytes| layer(bytes, None)).collect(), Limits::default())
}

#[track_caller]
fn refused(entries: &[Vec<u8>], why: &str) {
    let error = plain(&[tar(entries)]).unwrap_err();
    assert!(error.contains(why), "{error}");
}

fn small() -> Vec<u8> {
    tar(&[
        dir("d/"),
        file("d/file", "content"),
        link(EntryType::Link, "d/hard", "d/file"),
        extended(&[("path", "d/long"), ("mtime", "1600000000.5")]),
        file("x", "other"),
        link(EntryType::Symlink, "soft", "d/file"),
    ])
}

/// With each byte another, and cut before each: an error, or the very same tree.
fn damaged(bytes: &[u8], wanted: &Digest) {
    let whole = unpacked(vec![layer(bytes, Some(wanted.clone()))], Limits::default()).unwrap();
    assert_eq!(whole.len(), 5);
    let mut same = 0;
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        // Of a long one not every cut: each is found the same way.
        let cut = (at % (bytes.len() / 1000 + 1) == 0).then_some(&bytes[..at]);
        for damaged in [Some(&flipped[..]), cut].into_iter().flatten() {
            if let Ok(tree) = unpacked(vec![layer(damaged, Some(wanted.clone()))], Limits::default()) {
                assert_eq!(tree, whole, "at {at}");
                same += 1;
            }
        }
    }
    // The time and the operating system in gzip's header, say. Nothing is checked if most are the same.
    assert!(same < bytes.len() / 5, "{same}");
}

#[test]
fn every_damaged_byte_of_a_plain_layer_is_found() {
    damaged(&small(), &Digest::of(&small()));
}

#[test]
fn every_damaged_byte_of_a_gzip_layer_is_found() {
    damaged(&gzip(&small()), &Digest::of(&small()));
}

#[test]
fn every_damaged_byte_of_a_zstd_layer_is_found() {
    damaged(&zstd::encode_all(&small()[..], 3).unwrap(), &Digest::of(&small()));
}

#[test]
fn what_is_damaged_and_not_known_by_its_digest_stays_inside() {
    for at in (0..small().len()).step_by(7) {
        let mut flipped = small();
        flipped[at] = flipped[at].wrapping_add(1 + (at % 255) as u8);
        _ = plain(&[flipped]);
    }
}

#[test]
fn whiteouts_take_what_is_below_and_nothing_of_their_own_layer() {
    let below = tar(&[dir("a/"), dir("a/kept/"), file("a/kept/old", "1"), file("a/old", "1"), file("b", "1")]);
    let above = tar(&[
        dir("a/kept/"),
        file("a/new", "2"),
        link(EntryType::Link, "a/hard", "b"),
        file("a/kept/new", "2"),
        file("a/.wh..wh..opq", ""),
        file("b", "2"),
        file(".wh.b", ""),
        file(".wh.nothing", ""),
    ]);
    let tree = plain(&[below, above]).unwrap();
    let names: Vec<_> = tree.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "a/hard", "a/kept", "a/kept/new", "a/new", "b"]);
    assert!(tree["b"].ends_with(" 2") && tree["a/hard"].ends_with(" 1"), "{tree:?}");
}

#[test]
fn a_whiteout_of_a_directory_that_the_layer_has_as_well_empties_it() {
    let below = tar(&[dir("a/"), file("a/old", "1"), dir("gone/"), file("gone/x", "1")]);
    let above = tar(&[dir("a/"), file(".wh.a", ""), file(".wh.gone", "")]);
    assert_eq!(plain(&[below, above]).unwrap().into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn entries_replace_each_other() {
    let tree = plain(&[tar(&[
        dir("a/"),
        file("a/x", "1"),
        dir("z/"),
        link(EntryType::Symlink, "a", "/z"),
        file("a/y", "2"),
        file("f", "1"),
        dir("f/"),
        file("f/g", "3"),
        // Through a link to the root, in the place of the directory that the link is in.
        dir("d/"),
        link(EntryType::Symlink, "d/l", "/"),
        file("d/l/d", "4"),
    ])]);
    let tree = tree.unwrap();
    assert_eq!(tree.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "d", "f", "f/g", "z", "z/y"]);
    assert!(tree["d"].ends_with(" 4"), "{tree:?}");
}

#[test]
fn directories_get_their_modes_and_times_when_all_is_in_them() {
    let closed = |path: &str, mode| {
        let mut header = header(EntryType::Directory, path, "", 0);
        header.set_mode(mode);
        header.set_cksum();
        raw(&header, b"")
    };
    // Reached by a link whose name sorts elsewhere.
    let entries = [
        closed("z", 0o500),
        link(EntryType::Symlink, "a", "z"),
        closed("a/in", 0o2711),
        file("a/in/f", "1"),
        closed("z/shut", 0o100),
    ];
    let tree = plain(&[tar(&entries)]).unwrap_or_else(|error| panic!("{error}"));
    let beginning = |name: &str| tree[name].split(' ').take(2).collect::<Vec<_>>().join(" ");
    assert_eq!(beginning("z"), "40500 1700000000");
    assert_eq!(beginning("z/in"), "42711 1700000000");
}

#[test]
fn rights_are_the_archives_whatever_the_umask_and_the_destination() {
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o2755)).unwrap();
    let root = outside.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut open = header(EntryType::Regular, "open", "", 0);
    open.set_mode(0o666);
    open.set_cksum();
    let bytes = tar(&[raw(&open, b""), dir("d/")]);
    unpack(vec![layer(&bytes, None)], File::open(&root).unwrap().into(), Limits::default(), &|_| {}).unwrap();
    assert_eq!(fs::metadata(root.join("open")).unwrap().mode(), 0o100_666);
    assert_eq!(fs::metadata(root.join("d")).unwrap().mode(), 0o40_755);
    // And the caller's own is what it was.
    fs::write(outside.path().join("own"), "").unwrap();
    assert_ne!(fs::metadata(outside.path().join("own")).unwrap().mode() & 0o777, 0o666);
}

#[test]
fn limits_are_kept() {
    let few = Limits { entries: 3, bytes: 100, path: 20, directories: 150, ..Limits::default() };
    let with = |entries: &[Vec<u8>]| unpacked(vec![layer(&tar(entries), None)], few).unwrap_err();
    assert!(with(&[dir("a"), dir("a"), file("b", ""), file("c", "")]).contains("more than 3 files"));
    assert!(with(&[file("a", &"x".repeat(101))]).contains("more than 100 bytes of files"));
    assert!(with(&[extended(&[("path", &"d/".repeat(11))]), dir("x")]).contains("more than 20 bytes of a path"));
    assert!(with(&[link(EntryType::Symlink, "l", &"x".repeat(21))]).contains("more than 20 bytes of a path"));
    assert!(with(&[dir("a"), dir("b"), dir("c")]).contains("directories"));
    let sparse = [("GNU.sparse.size", "101"), ("GNU.sparse.map", "0,0")];
    assert!(with(&[extended(&sparse), file("s", "")]).contains("more than 100 bytes of files"));
}

#[test]
fn a_bomb_is_stopped_by_its_ratio() {
    let zeroes = header(EntryType::Regular, "zeroes", "", 400 << 20);
    let head = zeroes.as_bytes().to_vec();
    let bytes = std::io::Read::chain(&head[..], std::io::Read::take(std::io::repeat(0), (400 << 20) + 1024));
    let packed = zstd::encode_all(bytes, 1).unwrap();
    let error = unpacked(vec![layer(&packed, None)], Limits::default()).unwrap_err();
    assert!(error.contains("times its packed size"), "{error}");
}

#[test]
fn sizes_are_what_engines_take_them_for() {
    // An extended size counts, and whoever took the header's would find entries in the data.
    let hidden = file("hidden", "");
    let mut bytes = extended(&[("size", &hidden.len().to_string())]);
    bytes.extend(raw(&header(EntryType::Regular, "f", "", 0), b""));
    bytes.extend(&hidden);
    let tree = plain(&[tar(&[bytes])]).unwrap();
    assert_eq!(tree.into_keys().collect::<Vec<_>>(), ["f"]);
    // Of what has no data the size is nobody's business.
    let tree = plain(&[tar(&[raw(&header(EntryType::Symlink, "l", "t", 512), b""), file("f", "")])]).unwrap();
    assert_eq!(tree.into_keys().collect::<Vec<_>>(), ["f", "l"]);
    refused(&[extended(&[("size", "18446744073709551615")]), file("f", "")], "out of range");
    refused(&[extended(&[("size", "99999999999999999999")]), file("f", "")], "no number");
    refused(&[file("a", ""), vec![0; 512], file("b", "")], "a lone block of zeroes");
    refused(&[raw(&header(EntryType::Regular, "d/", "", 3), b"abc")], "data like a file");
}

#[test]
fn the_padding_of_the_last_file_may_be_missing() {
    let whole = file("f", "made");
    for end in [whole.len() - 1, 516] {
        let tree = plain(&[whole[..end].to_vec()]).unwrap();
        assert!(tree["f"].ends_with(" made"), "{tree:?}");
    }
    for end in [515, 512, 511] {
        assert!(plain(&[whole[..end].to_vec()]).is_err(), "{end}");
    }
}

#[test]
fn headers_have_an_end() {
    let long = "x".repeat(2 << 20);
    refused(&[extended(&[("comment", &long)]), file("f", "")], "more than 1 MiB");
    let many: Vec<_> = (0..64).map(|_| extended(&[("SCHILY.xattr.trusted.a", &long[..60_000])])).collect();
    let before = plain(&[tar(&[many.concat(), file("f", "")])]);
    assert!(before.is_ok(), "only the last one counts: {before:?}");
}

#[test]
fn sparse_files_have_their_holes() {
    let map =
        [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "s"), ("GNU.sparse.realsize", "9")];
    let mut data = b"1\n4\n3\n".to_vec();
    data.resize(512, 0);
    data.extend(b"abc");
    let entry = raw(&header(EntryType::Regular, "GNUSparseFile.0/s", "", data.len() as u64), &data);
    let tree = plain(&[tar(&[extended(&map), entry])]).unwrap();
    assert!(tree["s"].ends_with("\0\0\0\0abc\0\0"), "{tree:?}");
    let overlapping = [("GNU.sparse.size", "9"), ("GNU.sparse.map", "4,3,5,1")];
    refused(&[extended(&overlapping), file("s", "abcd")], "pieces do not fit");
    let beyond = [("GNU.sparse.size", "5"), ("GNU.sparse.map", "4,3")];
    refused(&[extended(&beyond), file("s", "abc")], "pieces do not fit");
}

#[test]
fn ids_are_in_range() {
    for id in ["4294967295", "4294967296", "18446744073709551616", "-1"] {
        assert!(plain(&[tar(&[extended(&[("uid", id)]), file("f", "")])]).is_err(), "{id}");
    }
}

#[test]
fn links_that_lead_in_circles_or_nowhere_end() {
    let circle = [link(EntryType::Symlink, "a", "b"), link(EntryType::Symlink, "b", "a"), file("a/x", "")];
    assert!(plain(&[tar(&circle)]).is_err());
    let nowhere = [link(EntryType::Symlink, "a", "/../../new/deep"), file("a/x", "1")];
    assert!(plain(&[tar(&nowhere)]).unwrap().contains_key("new/deep/x"));
    let grows = [link(EntryType::Symlink, "a", "a/b"), file("a/x", "")];
    assert!(plain(&[tar(&grows)]).is_err());
}

#[test]
fn what_was_in_the_tree_before_leads_nowhere_either() {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("root");
    fs::create_dir(&root).unwrap();
    symlink(outside.path(), root.join("out")).unwrap();
    let bytes = tar(&[file("out/x", ""), file("out/.wh.marker", "")]);
    fs::write(outside.path().join("marker"), "").unwrap();
    _ = unpack(vec![layer(&bytes, None)], File::open(&root).unwrap().into(), Limits::default(), &|_| {});
    assert!(outside.path().join("marker").exists() && !outside.path().join("x").exists());
}
