//! The runtime is killed at every point where it has just made something: nothing is lost.

use crate::both;
use serde_json::json;

use crate::{
    bundle::{Container, Said},
    common::{Who, host},
};

fn killed(container: &Container, verb: &str, point: &str) -> Said {
    let mut command = container.command(verb, &[&container.id]);
    command.env("FUMEHOOD_DIE_AT", point);
    container.output(command)
}

both! {
    fn delete_finds_all_that_a_killed_create_has_made(who: Who) {
        let Some(container) = Container::new("killed create", who) else { return };
        let log = container.place.text("poststop");
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo ran >> {log}")], "env": [] }]);
        let container = container.args(&["sleep", "100"]).set("/hooks", json!({ "poststop": hook }));
        for point in ["named", "announced", "grouped", "ready", "recorded"] {
            let said = killed(&container, "create", point);
            assert_eq!(said.code, -1, "it was not killed at {point}: {said:?}");
            // An init that nobody let go ends by itself.
            let none = || host::processes(&container.id).is_empty();
            assert!(host::eventually(none), "{point}: {:?}", host::processes(&container.id));
            assert_ne!(container.call("start", &[]).code, 0, "{point}");
            container.call("delete", &["--force"]).ok();
            let left = host::left_of(&container.id, &container.place);
            assert!(left.is_empty(), "{point}: {left:?}");
            container.call("state", &[]).fails("does not exist");
            // The name is free.
            container.create();
            assert_eq!(container.status(), "created");
            container.call("delete", &["--force"]).ok();
        }
    }

    fn a_container_whose_start_was_killed_is_ended_by_delete(who: Who) {
        let Some(container) = Container::new("killed start", who) else { return };
        let container = container.args(&["sleep", "100"]);
        container.create();
        let said = killed(&container, "start", "starting");
        assert_eq!(said.code, -1, "{said:?}");
        container.call("delete", &["--force"]).ok();
        let left = host::left_of(&container.id, &container.place);
        assert!(left.is_empty(), "{left:?}");
    }
}
