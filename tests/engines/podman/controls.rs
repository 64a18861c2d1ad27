//! fumehood's own controls, by annotation.

use super::Podman;
use crate::{both, common::Who};

/// What `strict` answers to socket(2).
const NO_SOCKET: &str = "Address family not supported";

both! {
    fn takes_controls_by_annotation(who: Who) {
        let Some(podman) = Podman::new("podman annotations", who) else { return };
        let run = |annotation: &str, line: &str| {
            let annotation = format!("io.fumehood.{annotation}");
            podman.run(&["--annotation", &annotation, "box", "sh", "-c", line])
        };
        let connect = "nc -w 1 127.0.0.1 1";
        assert!(run("profile=default", connect).err.contains("refused"));
        assert!(run("profile=strict", connect).err.contains(NO_SOCKET));
        assert_eq!(run("timeout=300ms", "sleep 1000").code, 137);
        // What is wrong is told to whom asked for it, and nothing has run.
        for (annotation, words) in [
            ("profile=nope", "annotations.io.fumehood.profile: "),
            ("profil=strict", "annotations.io.fumehood.profil: it is not known"),
            ("timeout=soon", "annotations.io.fumehood.timeout: "),
            ("isolation=vm", "annotations.io.fumehood.isolation: "),
        ] {
            let said = run(annotation, "echo ran");
            assert!(said.code >= 125 && said.out.is_empty(), "{said:?}");
            said.fails(words);
        }
        // For what is executed in it, too.
        podman.begin("first", &["--annotation", "io.fumehood.profile=strict"], "exec sleep 1000");
        podman.call(&["exec", "first", "sh", "-c", connect]).fails(NO_SOCKET);
    }
}
