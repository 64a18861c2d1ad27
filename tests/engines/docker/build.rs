//! `docker build`: each RUN is a container of the default runtime.

use super::{Docker, NO_BRIDGE};

#[test]
fn builds_an_image() {
    let Some(docker) = Docker::start("docker build", &NO_BRIDGE) else { return };
    docker.place.write("context/given", "given\n");
    let file = "FROM box\nCOPY given /given\nUSER u\nRUN id -u > /tmp/made && cat /given >> /tmp/made\n\
                WORKDIR /w\nENV A=b\nCMD [\"sh\", \"-c\", \"cat /tmp/made; pwd; echo $A\"]\n";
    docker.place.write("context/Dockerfile", file);
    docker.call(&["build", "--tag", "built", &docker.place.text("context")]).ok();
    assert_eq!(docker.run(&["built"]).ok(), "1000\ngiven\n/w\nb\n");
    docker.place.write("context/Dockerfile", "FROM box\nRUN echo before; exit 7\n");
    docker.call(&["build", &docker.place.text("context")]).fails("returned a non-zero code: 7");
    docker.place.write("context/Dockerfile", "FROM box\nRUN [\"nope\"]\n");
    docker.call(&["build", &docker.place.text("context")]).fails("executable file not found in $PATH");
}
