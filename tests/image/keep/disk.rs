//! What is written to a root lies on a disk: a library's option.

use std::{
    fs,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        process::CommandExt,
    },
    path::Path,
    process::Command,
    sync::Arc,
};

use fumehood::{
    Observer, Sandbox,
    image::{
        Ready, Store,
        pack::{Options, Source},
    },
    request::{Bytes, Limits, User},
};
use serde_json::json;

use crate::{
    both,
    common::{Who, copy_program, granted_ids},
    run::made::{Made, dir, text},
};

const STORE: &str = "FUMEHOOD_TEST_DISK_STORE";
const USER: &str = "FUMEHOOD_TEST_DISK_USER";

struct Deaf;
impl Observer for Deaf {}

/// In a process of whom it is about: a program that uses the library.
#[test]
#[ignore = "it is started by others"]
fn library() {
    let store = std::env::var_os(STORE).unwrap();
    let user = std::env::var(USER).unwrap();
    let place = Path::new(&store).parent().unwrap();
    let disk = place.join("disk");
    fs::DirBuilder::new().mode(0o700).create(&disk).unwrap();
    let image = Ready::find(&Store::open(Some(Path::new(&store))).unwrap(), "made", &|_| {}).unwrap();
    // More than may be in memory; in a directory that its owner may not enter, deeper than descriptors reach.
    let line = "b=/bin/busybox; mkdir -m 700 /open/d; cd /open/d; $b dd if=/dev/zero of=big bs=1M count=8 || exit 1; \
                rm /open/old; $b chmod 0 big; i=0; while [ $i -lt 1200 ]; do mkdir d; cd d || exit 2; i=$((i+1)); done; \
                $b chmod 0 /open/d; stat -c %u /open/d; exit 7";
    let mut sandbox = Sandbox::shell(line);
    sandbox.rootfs(fumehood::request::Rootfs::Image(Arc::new(image)));
    sandbox.limits(Limits { sandbox: Bytes::mib(4), ..Limits::default() });
    sandbox.user(User::parse(&user).unwrap()).writable_on_disk(&disk);
    let mut archive = Vec::new();
    let during = std::cell::Cell::new(0);
    let outcome = sandbox
        .run_kept(None, &mut Deaf, |upper| {
            during.set(fs::read_dir(&disk).map_or(99, Iterator::count));
            upper.pack(&Options::new(Source::Overlay), &mut archive).map_err(fumehood::error::Hint::into_error)?;
            Ok(())
        })
        .unwrap();
    let shown = format!(
        "{} {}",
        String::from_utf8_lossy(&outcome.stdout.bytes),
        String::from_utf8_lossy(&outcome.stderr.bytes)
    );
    assert_eq!((outcome.exit_code, outcome.error), (Some(7), None), "{shown}");
    assert_eq!(during.get(), 2, "its upper and its work directory");
    assert_eq!(outcome.stdout.bytes, format!("{}\n", user.split(':').next().unwrap()).as_bytes());
    let mut entries = fumehood::image::unpack::Archive::new(archive.as_slice());
    let (mut count, mut big, mut gone) = (0, None, false);
    while let Some(entry) = entries.next_entry().unwrap() {
        count += 1;
        gone |= entry.path == b"open/.wh.old";
        if entry.path == b"open/d/big" {
            big = Some((entry.size, entry.mode, entry.uid.to_string()));
        }
    }
    assert_eq!(big, Some((8 << 20, 0, user.split(':').next().unwrap().to_owned())));
    assert!(gone && count > 1200, "{count}");
    // Nothing is left, and the directory is whose it was.
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 0);
    assert_eq!(fs::metadata(&disk).unwrap().uid(), nix::unistd::geteuid().as_raw());
    // Not when it cannot be started either.
    let mut sandbox = Sandbox::command("/no-such");
    let image = Ready::find(&Store::open(Some(Path::new(&store))).unwrap(), "made", &|_| {}).unwrap();
    sandbox.rootfs(fumehood::request::Rootfs::Image(Arc::new(image))).user(User::parse(&user).unwrap());
    let outcome = sandbox.writable_on_disk(&disk).output().unwrap();
    assert_eq!(outcome.exit_status(), 127);
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 0);
    // And a root that has nothing below it takes none.
    let error = Sandbox::shell("true").writable_on_disk(&disk).output().unwrap_err();
    assert!(error.message().contains("on a disk"), "{error}");
    println!("the library did it");
}

#[track_caller]
fn on_disk(who: Who, test: &str, user: &str) {
    let open = [dir("open", 0o777), crate::run::made::file("open/old", 0o666, b"")];
    let Some(made) = Made::new(who, test, &json!({"Env": ["PATH=/bin"]}), &open) else { return };
    let program = made.place.join("library");
    copy_program(&std::env::current_exe().unwrap(), &program);
    let mut command = Command::new(&program);
    command.args(["--exact", "keep::disk::library", "--ignored", "--nocapture"]);
    command.current_dir(made.place.path()).env("HOME", made.place.path()).env(STORE, made.store()).env(USER, user);
    command.env("XDG_RUNTIME_DIR", made.place.join("runtime-dir"));
    if let Some((uid, gid)) = who.ids() {
        command.uid(uid).gid(gid);
    }
    let done = command.output().unwrap();
    assert!(text(&done.stdout).contains("the library did it"), "{}\n{}", text(&done.stdout), text(&done.stderr));
}

both! {
    fn a_root_on_a_disk_is_packed_and_removed(who: Who) {
        on_disk(who, "a_root_on_a_disk_is_packed_and_removed", "0:0");
    }
}

/// What belongs to ids that the user has by grant is removed as well.
#[test]
fn a_root_on_a_disk_of_granted_ids() {
    let name = "a_root_on_a_disk_of_granted_ids";
    let Some(who) = Who::User.find(name) else { return };
    if granted_ids(who, name).is_some() {
        on_disk(who, name, "33:33");
    }
}
