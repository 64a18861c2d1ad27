use std::{collections::HashSet, io::Write, path::Path};

use super::*;
use crate::image::unpack::{Layer, Limits};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    (dir, store)
}

fn made(store: &Store) -> usize {
    fs::read_dir(store.path().join("making")).unwrap().count()
}

#[test]
fn only_the_owner_gets_in() {
    let (_dir, store) = store();
    for path in [store.path().to_owned(), store.path().join("blobs/sha256"), store.path().join("trees")] {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700, "{}", path.display());
    }
    let open = tempfile::tempdir().unwrap();
    fs::set_permissions(open.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(matches!(Store::open(Some(open.path())), Err(StoreError::NotOurs { .. })));
}

#[test]
fn a_blob_is_what_its_name_says_or_is_not_there() {
    let (_dir, store) = store();
    let digest = store.put(b"hello").unwrap();
    assert_eq!(digest, Digest::of(b"hello"));
    assert_eq!(store.read_document(&digest).unwrap(), b"hello");
    let other = Digest::of(b"other");
    assert!(matches!(store.open_blob(&other), Err(StoreError::Missing { .. })));
    let mut incoming = store.receive(other.algorithm()).unwrap();
    incoming.write_all(b"othex").unwrap();
    assert!(matches!(incoming.keep_checked(&other, 5), Err(StoreError::WrongContent { .. })));
    let mut incoming = store.receive(other.algorithm()).unwrap();
    incoming.write_all(b"other").unwrap();
    assert!(matches!(incoming.keep_checked(&other, 4), Err(StoreError::WrongSize { .. })));
    assert!(!store.has_blob(&other));
    assert_eq!(made(&store), 0, "nothing stays of what failed");
    // What a disk has changed is told.
    fs::write(store.blob_path(&digest), b"hellx").unwrap();
    assert!(matches!(store.read_document(&digest), Err(StoreError::WrongContent { .. })));
}

#[test]
fn what_broke_off_is_gone_on_with() {
    let (_dir, store) = store();
    let digest = Digest::of(b"hello world");
    let mut partial = store.receive_known(&digest, 11).unwrap().unwrap();
    partial.add(b"hello ").unwrap();
    drop(partial);
    let mut partial = store.receive_known(&digest, 11).unwrap().unwrap();
    assert_eq!(partial.length(), 6);
    partial.add(b"world").unwrap();
    partial.keep().unwrap();
    assert!(store.receive_known(&digest, 11).unwrap().is_none());
    // One that a crash of the machine has emptied is not there.
    fs::write(store.blob_path(&digest), b"").unwrap();
    let mut partial = store.receive_known(&digest, 11).unwrap().unwrap();
    partial.add(b"hello world").unwrap();
    partial.keep().unwrap();
    assert_eq!(store.read_document(&digest).unwrap(), b"hello world");
}

#[test]
fn more_or_other_than_was_said_is_forgotten() {
    let (_dir, store) = store();
    let digest = Digest::of(b"hello");
    let mut partial = store.receive_known(&digest, 5).unwrap().unwrap();
    assert!(matches!(partial.add(b"hello and more"), Err(StoreError::WrongSize { .. })));
    assert_eq!(partial.length(), 0);
    partial.add(b"hellx").unwrap();
    assert!(matches!(partial.keep(), Err(StoreError::WrongContent { .. })));
    assert_eq!(store.receive_known(&digest, 5).unwrap().unwrap().length(), 0);
}

#[test]
fn a_name_is_replaced_whole_and_removed() {
    let (_dir, store) = store();
    let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
    let name = "docker.io/library/a:1";
    assert!(store.name(name).unwrap().is_none());
    store.set_name(name, &one).unwrap();
    store.set_name(name, &other).unwrap();
    store.set_name("localhost/../b", &one).unwrap();
    assert_eq!(store.name(name).unwrap().unwrap().manifest, other);
    assert_eq!(
        store.names().unwrap().iter().map(|named| named.name.as_str()).collect::<Vec<_>>(),
        [name, "localhost/../b"]
    );
    assert!(store.remove_name(name).unwrap() && !store.remove_name(name).unwrap());
    let [other] = fs::read_dir(store.path().join("names")).unwrap().collect::<Vec<_>>().try_into().unwrap();
    fs::write(other.unwrap().path(), "").unwrap();
    assert!(store.names().unwrap().is_empty() && store.name("localhost/../b").unwrap().is_none());
    assert_eq!(made(&store), 0);
}

#[test]
fn only_what_is_needed_is_kept() {
    let (_dir, store) = store();
    let (kept, gone) = (store.put(b"kept").unwrap(), store.put(b"gone").unwrap());
    for tree in ["aa", "bb"] {
        fs::create_dir_all(store.path().join("trees").join(tree).join("root/x")).unwrap();
    }
    let freed = store.remove_all_but(&HashSet::from([kept.clone()]), &HashSet::from(["bb".to_owned()])).unwrap();
    assert_eq!((freed.blobs, freed.trees), (1, 1));
    assert!(store.has_blob(&kept) && !store.has_blob(&gone));
    assert!(!store.path().join("trees/aa").exists() && store.path().join("trees/bb").exists());
}

#[test]
fn what_dead_makers_left_is_swept_and_what_is_being_made_is_not() {
    let (_dir, store) = store();
    let making = store.making().unwrap();
    let dead = store.path().join("making/dead");
    fs::create_dir_all(dead.join("tree/root/closed")).unwrap();
    let mut partial = store.receive_known(&Digest::of(b"x"), 1).unwrap().unwrap();
    partial.add(b"x").unwrap();
    drop(partial);
    store.sweep().unwrap();
    assert!(making.path.exists() && !dead.exists());
    assert_eq!(made(&store), 2, "a download of today is kept, too");
}

#[test]
fn who_sweeps_meets_who_makes() {
    let (_dir, store) = store();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    store.sweep().unwrap();
                }
            });
        }
        let made: Vec<_> = (0..300_u32).map(|number| store.put(&number.to_le_bytes())).collect();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        for (number, digest) in made.into_iter().enumerate() {
            assert_eq!(store.read_document(&digest.unwrap()).unwrap(), (number as u32).to_le_bytes());
        }
    });
}

#[test]
fn who_removes_is_alone() {
    let (_dir, store) = store();
    let path: &Path = store.path();
    assert!(Store::open(Some(path)).unwrap().try_alone().unwrap().is_none(), "this one uses it, too");
    let again = Store::open(Some(path)).unwrap();
    drop(store);
    assert!(again.try_alone().unwrap().is_some());
}

#[test]
fn a_tree_that_a_power_cut_has_emptied_is_unpacked_again() {
    let (_dir, store) = store();
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    header.set_uid(nix::unistd::geteuid().as_raw().into());
    header.set_gid(nix::unistd::getegid().as_raw().into());
    layer.append_data(&mut header, "f", &b"whole"[..]).unwrap();
    let digest = store.put(&layer.into_inner().unwrap()).unwrap();
    let chain = Digest::of(b"chain");
    let unpacked = || {
        let (file, _) = store.open_blob(&digest).unwrap();
        let layers = vec![Layer { name: "f".to_owned(), file, diff_id: Some(digest.clone()) }];
        let tree = store.unpacked(&chain, Limits::default(), move || Ok(layers), &|_| {}).unwrap();
        fs::read_to_string(tree.root.join("f")).unwrap()
    };
    assert_eq!(unpacked(), "whole");
    let at = store.path().join("trees").join(chain.hex());
    let (about, file) = (at.join("about.json"), at.join("root/f"));
    let written = fs::read_to_string(&about).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let before = written.replace(boot.trim(), "another");
    assert_ne!(before, written);

    // The machine was off, and all is there: that is noted.
    fs::write(&about, &before).unwrap();
    assert!(store.tree(&chain).unwrap().is_some());
    assert_eq!(fs::read_to_string(&about).unwrap(), written);

    // It is looked at once after each start, and not for every run.
    fs::write(&file, "").unwrap();
    assert!(store.tree(&chain).unwrap().is_some());

    fs::write(&about, &before).unwrap();
    assert!(store.tree(&chain).unwrap().is_none() && !at.exists());
    assert_eq!(unpacked(), "whole");
    fs::write(&about, "").unwrap();
    assert_eq!(unpacked(), "whole");
    assert_eq!(made(&store), 0);
}
