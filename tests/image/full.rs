//! A disk that is full while an image comes in: an error that says so, a store that is as good as before, and all of it
//! done once there is room.

use std::process::{Command, Output};

use crate::{
    archive::{file, image, tar},
    both,
    common::{Place, Who},
    registry::{liar::Liar, made::Made},
};

const LARGE: usize = 4_000_000;
/// Runs the line with `store` and `out` on a file system of two MiB, as the user; `room` makes it larger.
const SMALL_DISK: &str = r#"
mkdir disk && mount -t tmpfs -o "size=2m,mode=700,uid=$1,gid=$2" none disk || exit 90
room() { mount -o remount,size=64m disk; }
fh() { setpriv --reuid="$id" --regid="$group" --clear-groups "$binary" "$@"; }
image() { fh image --store disk/store "$@"; }
full() {
    "$@" 2>err && { echo "$* succeeded"; exit 91; }
    grep -q 'No space left on device' err && grep -q 'hint: the disk is full' err || { cat err; exit 92; }
}
nothing_half() { [ -z "$(ls disk/store/making)" ] || { ls -R disk/store/making; exit 93; }; }
id=$1 group=$2 binary=$3
set -ex
"#;

fn on_a_small_disk(who: Who, place: &Place, line: &str) -> Output {
    let (uid, gid) = who.ids().unwrap_or((0, 0));
    let script = format!("{SMALL_DISK}{line}");
    let mut command = Command::new("unshare");
    // Its own mounts go with it.
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command.args([uid.to_string(), gid.to_string(), place.binary().display().to_string()]);
    command.current_dir(place.path()).env("HOME", place.path()).env("LANG", "C.UTF-8").output().unwrap()
}

#[track_caller]
fn succeeds(who: Who, place: &Place, line: &str) {
    if nix::unistd::geteuid().is_root() {
        let done = on_a_small_disk(who, place, line);
        let said = [&done.stdout[..], &done.stderr].concat();
        assert!(done.status.success(), "{}: {}", done.status, String::from_utf8_lossy(&said));
    } else {
        crate::common::skip("a full disk", "only root can mount a small one");
    }
}

/// Two images, one of which has no room.
fn images(who: Who) -> Place {
    let place = Place::new(who);
    place.write("small.tar", image("small:1", &[tar(&[file("f", "small")])]));
    place.write("large.tar", image("large:1", &[tar(&[file("f", &"large".repeat(LARGE / 5))])]));
    place
}

both! {
    fn an_import(who: Who) {
        succeeds(who, &images(who), r#"
            image import small.tar
            full image import large.tar
            full image import - <large.tar
            [ "$(image list -q)" = small:1 ]
            nothing_half
            fh unpack --store disk/store small:1 small
            room
            image import large.tar
            image prune
            fh unpack --store disk/store large:1 large
            [ "$(stat -c %s large/rootfs/f)" = 4000000 ]
        "#);
    }

    fn an_unpack(who: Who) {
        succeeds(who, &images(who), r#"
            fh image --store store import large.tar
            full fh unpack --store store large:1 disk/out
            [ -z "$(ls disk)" ]
            full fh unpack large.tar disk/out
            [ -z "$(ls disk)" ]
            room
            fh unpack --store store large:1 disk/out
            [ "$(stat -c %s disk/out/rootfs/f)" = 4000000 ]
        "#);
    }

    fn a_pull(who: Who) {
        let made = Made::image(91, &[1000, LARGE]);
        let registry = Liar::of(made, |_| None);
        let (name, place) = (registry.name("a/b:1"), Place::new(who));
        succeeds(who, &place, &format!(r#"
            full image pull {name}
            [ -z "$(image list -q)" ]
            image prune
            room
            [ "$(image pull {name})" = {name} ]
            nothing_half
            fh unpack --store disk/store {name} out
            [ "$(stat -c %s out/rootfs/file-1)" = {LARGE} ]
        "#));
    }
}
