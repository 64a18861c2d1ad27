//! The image that everything runs, `box`: a root of busybox, made here, since nothing is downloaded.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::Command,
};

use crate::common::{Place, Who};

const APPLETS: &str = "sh ls cat echo sleep id ps mount true false env hostname mkdir touch head grep wc kill stat \
                       printf test tty stty dd ip nc free df pwd top ulimit readlink rm tail timeout";

/// The directory.
pub fn make_root(place: &Place) -> PathBuf {
    let root = place.mkdir("root");
    for dir in ["bin", "etc", "tmp", "root", "home/u"] {
        place.mkdir(PathBuf::from("root").join(dir));
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
    fs::copy(busybox.expect("apt install busybox-static"), root.join("bin/busybox")).unwrap();
    for applet in APPLETS.split_whitespace() {
        place.symlink("busybox", PathBuf::from("root/bin").join(applet));
    }
    place.write("root/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n");
    place.write("root/etc/group", "root:x:0:\nu:x:1000:\n");
    root
}

/// The same as an archive that engines import.
pub fn make_archive(place: &Place) -> String {
    let archive = place.text("box.tar");
    let status = Command::new("tar").arg("-C").arg(make_root(place)).args(["-cf", &archive, "."]).status().unwrap();
    assert!(status.success());
    archive
}

/// Registers the place's `fumehood-oci` as a person does.
pub fn install(place: &Place, who: Who, args: &[&str]) {
    register(place, who, "fumehood-oci", args);
}

/// And its `fumehood-gvisor` as one more.
pub fn install_gvisor(place: &Place, who: Who, args: &[&str]) {
    fs::hard_link(place.binary(), place.join("fumehood-gvisor")).unwrap();
    register(place, who, "fumehood-gvisor", &[&["--isolation", "gvisor"], args].concat());
}

fn register(place: &Place, who: Who, program: &str, args: &[&str]) {
    let mut command = Command::new(place.binary());
    command.arg("install").args(args).args(["--runtime", &place.text(program)]);
    if let Some((uid, gid)) = who.ids() {
        command.uid(uid).gid(gid);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
