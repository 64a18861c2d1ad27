//! Images out of docker and back into it.

use super::{Docker, NO_BRIDGE};
use crate::said::Said;

#[test]
fn an_image_of_dockers_is_run_without_it_and_read_by_it_again() {
    let Some(docker) = Docker::start("docker images", &NO_BRIDGE) else { return };
    docker.place.write("context/given", "given\n");
    let file = "FROM box\nCOPY given /given\nENV A=b\nWORKDIR /w\nENTRYPOINT [\"sh\", \"-c\"]\n\
                CMD [\"cat /given; echo $A; pwd\"]\n";
    docker.place.write("context/Dockerfile", file);
    docker.call(&["build", "--tag", "built:1", &docker.place.text("context")]).ok();
    let binary = docker.place.binary();
    let fumehood = |args: &[&str]| {
        let mut command = docker.command(binary.to_str().unwrap(), args);
        command.env("FUMEHOOD_STORE", docker.place.join("store"));
        Said::of(command)
    };
    let name = "docker.io/library/built:1\n";
    assert_eq!(fumehood(&["image", "import", "docker:built:1"]).ok(), name);
    docker.call(&["save", "--output", &docker.place.text("saved.tar"), "built:1"]).ok();
    assert_eq!(fumehood(&["image", "import", "saved.tar"]).ok(), name);
    assert_eq!(fumehood(&["run", "--image", "built:1"]).ok(), "given\nb\n/w\n");
    // What it does not have it says itself, and nothing is called so.
    fumehood(&["image", "import", "docker:none:1"]).fails("docker save none:1");
    assert_eq!(fumehood(&["image", "list", "-q"]).ok(), "built:1\n");

    fumehood(&["image", "tag", "built:1", "back:2"]).ok();
    fumehood(&["image", "export", "back:2", "back.tar", "--format", "docker-archive"]).ok();
    docker.call(&["load", "--input", &docker.place.text("back.tar")]).ok();
    assert_eq!(docker.run(&["back:2"]).ok(), "given\nb\n/w\n");
}
