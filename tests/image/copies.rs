//! What is copied into images and out of them, whatever stands in the way: the CVEs of `cp`, COPY and VOLUME of others.
//!
//! There is no copying into a sandbox that runs. What stands in its place: `--file` and `--dir`, before the program
//! starts, and `--get`, when it has ended (tests/escape/links.rs), both through no link; `[[files]]` of recipes; and what
//! `--keep` and `commit` take (keep/hostile.rs).

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};

use crate::{
    archive::{dir, file, gzip, tar, with},
    both,
    build::shop::{Shop, has, text},
    common::{Run, Who},
    run::made::{self, Made, link},
    unpack::image_with_layer,
};

const BUSYBOX: (&str, &str) = ("/usr/bin/busybox", "busybox-static");

both! {
    /// Buildah and Docker followed what a source had become between looking and reading.
    fn cve_2024_1753_a_source_is_exchanged_for_a_link(who: Who) {
        if !has("cve_2024_1753", &[BUSYBOX]) {
            return;
        }
        let shop = Shop::new(who);
        shop.place.write("outside/f", "secret");
        shop.place.write("outside/name-of-outside", "secret");
        shop.place.write("in/data/sub/f", "own");
        shop.place.write("in/data/g", "own");
        symlink("../../outside", shop.place.join("in/data/other-sub")).unwrap();
        symlink("../../outside/f", shop.place.join("in/data/other-g")).unwrap();
        let recipe = "name = \"x\"\nbase = \"scratch\"\nhost = [\"/usr/bin/busybox\"]\n[[files]]\nfrom = \"data\"\nto = \"/data\"\n";
        shop.place.write("in/recipe.toml", recipe);
        let pairs = [("sub", "other-sub"), ("g", "other-g")].map(|(one, other)| [one, other].map(|name| shop.place.join("in/data").join(name)));
        let (stop, count, built) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| while !stop.load(Ordering::Relaxed) {
                for [one, other] in &pairs {
                    if renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            for number in 0..40 {
                let name = format!("x:{number}");
                let output = shop.try_call(&["image", "build", "in/recipe.toml", "--no-cache", "-t", &name, "--quiet"]);
                if !output.status.success() {
                    assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
                    continue;
                }
                built.fetch_add(1, Ordering::Relaxed);
                shop.call(&["unpack", &name, "bundle"]);
                let found = contents(&shop.place.join("bundle/rootfs/data"));
                fs::remove_dir_all(shop.place.join("bundle")).unwrap();
                let wrong = |found: &&String| found.contains("secret") || found.contains("name-of-outside");
                assert_eq!(found.iter().find(wrong), None, "{found:?}");
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(count.into_inner() > 1000, "nothing was raced");
    }

    /// The destination leads out of the image, as a link of the base says.
    fn ghsa_rg2x_37c3_w2rh_a_destination_behind_links_is_the_images(who: Who) {
        if !has("ghsa_rg2x_37c3_w2rh", &[BUSYBOX]) {
            return;
        }
        let outside = tempfile::tempdir().unwrap();
        fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let there = outside.path().to_str().unwrap();
        let Some(made) = Made::new(who, "ghsa_rg2x_37c3_w2rh", &json!({}), &[link("out", there), link("up", "../../../../../.."), link("own", "/proc/self/fd/3")]) else { return };
        made.place.write("planted", "planted");
        let recipe = |to: &str| format!("name = \"top\"\nbase = \"made\"\n[[files]]\nfrom = \"planted\"\nto = \"{to}\"\n");
        for (to, inside) in [(format!("/up{there}/planted"), format!("{there}/planted")), ("/out/planted".to_owned(), format!("{there}/planted")), ("/own/planted".to_owned(), "/proc/self/fd/3/planted".to_owned())] {
            made.place.write("recipe.toml", recipe(&to));
            made.call(&["image", "build", "./recipe.toml", "--quiet"]);
            made.call(&["unpack", "top", "bundle"]);
            assert_eq!(made.place.read(format!("bundle/rootfs{inside}")), "planted");
            fs::remove_dir_all(made.place.join("bundle")).unwrap();
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    /// containerd copied what is behind a volume's path from the host.
    fn cve_2022_23648_a_volume_shows_nothing_of_the_hosts(who: Who) {
        let outside = tempfile::tempdir().unwrap();
        fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let there = outside.path().to_str().unwrap();
        let volumes = json!({format!("/../../../../../..{there}"): {}, "/data/../../../../etc": {}, "/data": {}});
        let Some(made) = Made::new(who, "cve_2022_23648", &json!({"Volumes": volumes}), &[]) else { return };
        let line = format!("ls {there} /data 2>/dev/null; cat {there}/secret /etc/os 2>/dev/null");
        made.run().cmd(&line).done().expect_out("/data:\nsmall\n");
    }

    fn cve_2019_10152_what_is_copied_out_is_the_sandboxs(who: Who) {
        let outside = tempfile::tempdir().unwrap();
        fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let there = outside.path().to_str().unwrap();
        let Some(made) = Made::new(who, "cve_2019_10152", &json!({}), &[link("out", there), link("up", "../../../.."), link("file", &format!("{there}/secret"))]) else { return };
        for path in ["/out/secret", "/file", &format!("/up{there}/secret")] {
            let done = made.run().args(["--get", &format!("{path}:stolen")]).cmd("true").done();
            assert!(done.code != 0 && !done.place().join("stolen").exists(), "{path}: {done}");
        }
        assert!(!made.place.join("stolen").exists());
    }

    /// The daemon waited for ever, or read the host's file.
    fn cve_2024_9676_a_passwd_that_is_none(who: Who) {
        for target in ["/dev/zero", "/proc/kmsg", "../../../../../../etc/shadow"] {
            let Some(made) = Made::new(who, "cve_2024_9676", &json!({"User": "svc"}), &[link("etc/passwd", target)]) else { return };
            made.run().cmd("id -u").done().expect_error("of the image");
        }
        let layer = tar(&[dir("etc/"), with(tar::EntryType::Fifo, "etc/passwd", |_| {}), file("x", "")]);
        let run = Run::verb(who, "image");
        let config = json!({"Cmd": ["/x"], "User": "svc"});
        run.place.write("image.tar", crate::archive::image_with("test:1", &[layer], config));
        let done = run.args(["--store", "store", "import", "image.tar"]).done().expect_code(0);
        let again = Run::new(who).env("FUMEHOOD_STORE", done.place().join("store")).args(["--image", "test:1"]);
        again.done().expect_error("/etc/passwd");
    }

    /// The daemon ran what it found in the PATH, the image's own too, as itself.
    fn ghsa_x86f_5xw2_fm2r_no_program_of_any_path_is_run(who: Who) {
        let script = "#!/bin/sh\necho ran >> \"$MARKED\"\nexec cat\n";
        let names = ["gzip", "gunzip", "unpigz", "pigz", "zstd", "unzstd", "xz", "unxz", "bzip2", "lz4", "tar", "zcat"];
        let entries: Vec<_> = names.iter().map(|name| format!("bin/{name}")).collect();
        let entries: Vec<_> = entries.iter().map(|path| made::file(path, 0o755, script.as_bytes())).collect();
        let Some(made) = Made::new(who, "ghsa_x86f_5xw2_fm2r", &json!({"Env": ["PATH=/bin"]}), &entries) else { return };
        for name in names {
            made.place.write_executable(format!("path/{name}"), script);
        }
        let marked = made.place.text("marked");
        let path = format!("{}:/usr/bin:/bin", made.place.text("path"));
        let plain = tar(&[file("f", "packed")]);
        for layer in [gzip(&plain), zstd::encode_all(&plain[..], 3).unwrap()] {
            let run = Run::verb(who, "unpack").env("PATH", &path).env("MARKED", &marked);
            run.place.write("image.tar", image_with_layer(&plain, &layer));
            let done = run.arg("image.tar").arg("bundle").done().expect_code(0);
            assert_eq!(done.place().read("bundle/rootfs/f"), "packed");
        }
        let name = format!("x86f-{}-{}-x", std::process::id(), who.uid());
        let verb = |verb| Run::verb(who, verb).env("FUMEHOOD_STORE", made.store());
        let run = |run: Run| run.env("PATH", &path).env("MARKED", &marked).done().expect_code(0);
        run(made.run().named(&name).args(["--keep", "--user", "0"]).cmd("echo x > /left"));
        run(verb("commit").args([name.as_str(), "kept"]));
        run(verb("image").args(["export", "kept", "out.tar"]));
        assert!(!Path::new(&marked).exists());
    }

    /// An archive of a checkpoint says who runs, with what, and what is mounted. None is restored from an image.
    fn cve_2026_53492_an_image_with_a_checkpoint_is_an_image(who: Who) {
        let spec = json!({"ociVersion": "1.0.2", "process": {"args": ["/x"], "cwd": "/"}, "root": {"path": "/"},
            "mounts": [{"destination": "/host", "source": "/", "type": "bind", "options": ["rbind", "rw"]}]});
        let layer = tar(&[
            dir("checkpoint/"),
            file("checkpoint/inventory.img", "x"),
            file("checkpoint/pages-1.img", "x"),
            file("config.dump", r#"{"id":"x","name":"x","rootfsImageName":"x"}"#),
            file("spec.dump", &spec.to_string()),
            file("status", r#"{"Pid":1}"#),
            file("config.json", &spec.to_string()),
            file("rootfs-diff.tar", "x"),
        ]);
        let labels = json!({"org.criu.checkpoint.container.name": "x", "io.kubernetes.cri-o.annotations.checkpoint.name": "x", "io.podman.annotations.privileged": "TRUE"});
        let run = Run::verb(who, "unpack");
        run.place.write("image.tar", crate::archive::image_with("test:1", &[layer], json!({"Cmd": ["/x"], "Labels": labels})));
        let done = run.arg("image.tar").arg("bundle").done().expect_code(0);
        let made: Value = serde_json::from_str(&done.place().read("bundle/config.json")).unwrap();
        assert_eq!(made["process"]["args"], json!(["/x"]));
        assert!(made["mounts"].as_array().unwrap().iter().all(|mount| mount["destination"] != "/host"), "{made}");
        assert_eq!(made["annotations"].get("org.criu.checkpoint.container.name"), None, "{made}");
        assert_eq!(done.place().read("bundle/rootfs/config.dump"), r#"{"id":"x","name":"x","rootfsImageName":"x"}"#);
    }
}

/// All names below, with what is in files and where links lead.
fn contents(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        all.push(match () {
            () if found.is_symlink() => format!("{} -> {}", path.display(), fs::read_link(&path).unwrap().display()),
            () if found.is_dir() => path.display().to_string(),
            () => format!("{}: {}", path.display(), fs::read_to_string(&path).unwrap()),
        });
        if found.is_dir() {
            all.extend(contents(&path));
        }
    }
    all
}
