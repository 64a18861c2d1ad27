//! A real registry on loopback, and one that lies.

mod hostile;
pub mod liar;
mod login;
pub mod made;
mod real;
mod secure;
mod served;

use std::{fs, path::Path};

use fumehood::image::digest::Digest;

use crate::common::{Done, Place, Run, Who};
use made::Made;

/// One who pulls and pushes, with a store that lasts over several calls.
struct Puller {
    who: Who,
    place: Place,
}

impl Puller {
    fn new(who: Who) -> Self {
        Self { who, place: Place::new(who) }
    }

    fn store(&self) -> String {
        self.place.text("store")
    }

    fn image(&self, verb: &str) -> Run {
        let run = Run::verb(self.who, "image").args(["--store", &self.store(), verb]);
        run.env("HOME", self.place.path()).env("DOCKER_CONFIG", self.place.join("docker"))
    }

    fn pull(&self, reference: &str) -> Run {
        self.image("pull").arg(reference)
    }

    /// What has a name in the store is whole and what its name says, and the image is or is not there.
    #[track_caller]
    fn check(&self, names: &[&str]) {
        let done = call(self.image("list").arg("-q")).expect_code(0);
        let mut found: Vec<String> = done.out().lines().map(str::to_owned).collect();
        found.sort();
        assert_eq!(found, names, "{done}");
        let blobs = Path::new(&self.store()).join("blobs/sha256");
        for entry in fs::read_dir(blobs).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert_eq!(Digest::of(&fs::read(&path).unwrap()).hex(), name, "{}", path.display());
        }
    }

    /// All of the image is here.
    #[track_caller]
    fn check_has(&self, made: &Made) {
        for digest in made.blobs.keys() {
            let hex = digest.strip_prefix("sha256:").unwrap();
            assert!(Path::new(&self.store()).join("blobs/sha256").join(hex).is_file(), "{digest} is missing");
        }
    }
}

/// Without looking at the host afterwards: what is tested here makes no sandbox.
fn call(run: Run) -> Done {
    let command = run.command();
    run.finish(command)
}
