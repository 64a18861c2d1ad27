//! `podman build`: each RUN is a container of the runtime that was named.

use super::Podman;
use crate::{both, common::Who};

both! {
    fn builds_an_image(who: Who) {
        let Some(podman) = Podman::new("podman build", who) else { return };
        // Writes down what it is called for: that it was this runtime, and no other.
        let log = podman.place.text("calls");
        let wrapper = format!("#!/bin/sh\necho \"$@\" >> {log}\nexec {} \"$@\"\n", podman.place.text("fumehood-oci"));
        let wrapper = podman.place.write_executable("logging", wrapper).to_str().unwrap().to_owned();
        let build = |file: &str| {
            podman.place.write("context/Dockerfile", file);
            let args = ["build", "--network", "none", "--isolation", "oci", "--tag", "built"];
            podman.said(podman.command_with(&wrapper, &[&args[..], &[&podman.place.text("context")]].concat()))
        };
        podman.place.write("context/given", "given\n");
        let file = "FROM box\nCOPY given /given\nUSER u\nRUN id -u > /tmp/made && cat /given >> /tmp/made\n\
                    WORKDIR /w\nENV A=b\nCMD [\"sh\", \"-c\", \"cat /tmp/made; pwd; echo $A\"]\n";
        build(file).ok();
        assert!(podman.place.read("calls").lines().any(|line| line.contains("create")));
        assert_eq!(podman.run(&["built"]).ok(), "1000\ngiven\n/w\nb\n");
        build("FROM box\nRUN echo before; exit 7\n").fails("exit status 7");
        build("FROM box\nRUN [\"nope\"]\n").fails("executable file not found in $PATH");
    }
}
