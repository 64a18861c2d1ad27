//! With a registry that is one: what others put there is pulled, what is pushed others read.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Puller, call, made::Made, served::Served};
use crate::{both, common, common::Who};

both! {
    fn an_image_is_pulled_and_then_it_is_there(who: Who) {
        let Some(served) = Served::plain("registry::real") else { return };
        let made = Made::image(1, &[1000, 300_000, 5, 2_000_000]);
        served.put(&made, "a/b:1");
        let puller = Puller::new(who);
        let name = served.name("a/b:1");
        let done = call(puller.pull(&name)).expect_code(0).expect_out(&format!("{name}\n"));
        assert!(done.err().is_empty(), "{done}");
        puller.check(&[&name]);
        puller.check_has(&made);
        let again = call(puller.pull(&name).arg("--json")).expect_code(0).json();
        assert_eq!((again["fetched_bytes"].as_u64(), again["layers"].as_u64()), (Some(0), Some(4)));
        assert_eq!(again["digest"], made.root.as_str());

        // The tag is moved; what the two have in common stays.
        let moved = made.with_manifest(|manifest| manifest["annotations"] = serde_json::json!({ "x": "y" }));
        served.put(&moved, "a/b:1");
        let again = call(puller.pull(&name).arg("--json")).expect_code(0).json();
        assert_eq!((again["fetched_bytes"].as_u64(), &again["digest"]), (Some(0), &moved.root.as_str().into()));

        // By digest, also one that is no tag's any more.
        let pinned = served.name(&format!("a/b@{}", made.root));
        call(puller.pull(&pinned)).expect_code(0);
        puller.check(&[&name, &pinned]);
        let other = served.name(&format!("a/b@sha256:{}", "0".repeat(64)));
        call(puller.pull(&other)).expect_error("answers 404 (MANIFEST_UNKNOWN: manifest unknown)").expect_hint();
        call(puller.pull(&served.name("no/such"))).expect_error("no/such: 127.0.0.1").expect_hint();
        puller.check(&[&name, &pinned]);
    }

    fn the_platform_is_chosen_from_an_index(who: Who) {
        let Some(served) = Served::plain("registry::real") else { return };
        let (index, [amd64, arm64]) = Made::index(10);
        served.put(&index, "multi:1");
        let name = served.name("multi:1");
        for (platform, wanted) in [("linux/amd64", &amd64), ("arm64", &arm64)] {
            let puller = Puller::new(who);
            for _ in 0..2 {
                let done = call(puller.pull(&name).args(["--platform", platform, "--json"])).expect_code(0).json();
                assert_eq!(done["digest"], wanted.root.as_str());
            }
            puller.check(&[&name]);
            puller.check_has(wanted);
            // The index's digest is a pin as well.
            let pinned = served.name(&format!("multi@{}", index.root));
            let done = call(puller.pull(&pinned).args(["--platform", platform, "--json"])).expect_code(0).json();
            assert_eq!(done["digest"], wanted.root.as_str());
        }
        let puller = Puller::new(who);
        let done = call(puller.pull(&name).args(["--platform", "linux/s390x"]));
        done.expect_error("no image for linux/s390x; there are: linux/amd64, linux/arm64").expect_hint();
        let single = served.name("single:1");
        served.put(&amd64, "single:1");
        call(puller.pull(&single).args(["--platform", "arm64"])).expect_error("no image for linux/arm64");
        puller.check(&[]);
    }

    fn what_is_pushed_others_read(who: Who) {
        let (test, made) = ("registry::real", Made::image(20, &[1000, 500_000]));
        let (Some(one), Some(other)) = (Served::plain(test), Served::plain(test)) else { return };
        one.put(&made, "from:1");
        let puller = Puller::new(who);
        let name = one.name("from:1");
        call(puller.pull(&name)).expect_code(0);

        // Into another repository of the same registry it is only mounted; into another registry it is sent.
        for (to, sent) in [(one.name("to/this:2"), 0), (other.name("to/that:3"), made.bytes())] {
            let done = call(puller.image("push").args([name.as_str(), to.as_str(), "--json"])).expect_code(0).json();
            assert_eq!((&done["digest"], &done["name"]), (&made.root.as_str().into(), &to.as_str().into()));
            assert_eq!(done["sent_bytes"].as_u64().unwrap() > 0, sent > 0, "{done}");
        }
        assert_eq!(one.layers("to/this:2"), made.layers);
        assert_eq!(other.layers("to/that:3"), made.layers);
        let files = other.fetched("to/that:3");
        for layer in &made.layers {
            let hex = layer.strip_prefix("sha256:").unwrap();
            let file = files.iter().find(|file| file.ends_with(hex)).unwrap();
            assert_eq!(fs::read(file).unwrap(), made.blobs[layer]);
        }
        let again = call(puller.image("push").args([name.as_str(), &other.name("to/that:3")]).arg("--json"));
        assert_eq!(again.expect_code(0).json()["sent_bytes"], 0);
        // By digest alone, and by one that is not its own.
        let pinned = other.name(&format!("pinned@{}", made.root));
        call(puller.image("push").args([&name, &pinned])).expect_code(0);
        let wrong = other.name(&format!("pinned@sha256:{}", "0".repeat(64)));
        call(puller.image("push").args([&name, &wrong])).expect_error("the image is sha256:");
        call(puller.image("push").arg("nothing:1")).expect_error("no image called `nothing:1`");
    }

    fn a_pull_that_is_killed_is_gone_on_with(who: Who) {
        let Some(served) = Served::plain("registry::real") else { return };
        let made = Made::image(30, &[400_000; 6]);
        served.put(&made, "big:1");
        let name = served.name("big:1");
        // More where there is time for more.
        let rounds = std::env::var("FUMEHOOD_TEST_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(200);
        let puller = Puller::new(who);
        let store = puller.store();
        // So that a kill may come at any moment of it, however fast this machine is.
        let began = Instant::now();
        call(puller.pull(&name)).expect_code(0);
        let longest = began.elapsed().as_micros() as u64;
        fs::remove_dir_all(&store).unwrap();
        let (mut random, mut killed) = (0x1234_5678_9abc_def1_u64, 0);
        for _ in 0..rounds {
            // It has the copy of the binary that is run.
            let run = puller.pull(&name);
            let mut child = run.command().stdout(Stdio::null()).spawn().unwrap();
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            thread::sleep(Duration::from_micros(random % longest));
            _ = child.kill();
            killed += usize::from(!child.wait().unwrap().success());
            // One file for each name; most rounds have none.
            let names = Path::new(&store).join("names");
            if names.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
                puller.check(&[&name]);
                puller.check_has(&made);
                fs::remove_dir_all(&store).unwrap();
            }
        }
        assert!(killed > 0, "none was killed in time");
        call(puller.pull(&name)).expect_code(0);
        puller.check(&[&name]);
        puller.check_has(&made);
        let left = fs::read_dir(Path::new(&store).join("making")).unwrap().count();
        // Directories of names that were being written; no layer.
        assert!(left <= rounds, "{left}");
    }

    fn many_who_pull_the_same_fetch_it_once(who: Who) {
        let Some(served) = Served::plain("registry::real") else { return };
        let made = Made::image(40, &[2_000_000; 5]);
        served.put(&made, "many:1");
        let (name, puller) = (served.name("many:1"), Puller::new(who));
        let pulls: Vec<_> = thread::scope(|scope| {
            let pull = || call(puller.pull(&name).arg("--json")).expect_code(0).json();
            let all: Vec<_> = (0..8).map(|_| scope.spawn(pull)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        // What each fetched is told; all together it is the image, and the configuration once.
        let fetched: u64 = pulls.iter().map(|done| done["fetched_bytes"].as_u64().unwrap()).sum();
        let config = made.blobs.values().find(|bytes| bytes.starts_with(b"{\"architecture")).unwrap().len() as u64;
        assert_eq!(fetched, made.bytes() + config);
        puller.check(&[&name]);
        puller.check_has(&made);
    }
}

#[test]
fn podman_reads_what_was_pushed() {
    let test = "registry::real::podman_reads_what_was_pushed";
    let (Some(who), Some(served)) = (Who::Root.find(test), Served::plain(test)) else { return };
    if !Path::new("/usr/bin/podman").exists() {
        return common::skip(test, "podman is not installed");
    }
    let made = Made::image(50, &[1000, 100_000]);
    served.put(&made, "from:1");
    let puller = Puller::new(who);
    call(puller.pull(&served.name("from:1"))).expect_code(0);
    call(puller.image("push").args([served.name("from:1"), served.name("to:1")])).expect_code(0);
    let place = |name: &str| puller.place.text(name);
    let (root, runroot) = (place("podman-root"), place("podman-run"));
    let podman = |args: &[&str]| {
        let own = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
        let done = Command::new("podman").args(own).args(args).env("HOME", puller.place.path()).output().unwrap();
        assert!(done.status.success(), "podman {args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    podman(&["pull", "-q", "--tls-verify=false", &served.name("to:1")]);
    let digest = podman(&["image", "inspect", "--format", "{{.Digest}}", &served.name("to:1")]);
    assert_eq!(digest.trim(), made.root);
    podman(&["image", "rm", "-a", "-f"]);
}
