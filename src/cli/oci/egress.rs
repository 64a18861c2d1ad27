//! `egress`: what the network of a running container lets through, told and changed.

use std::process::ExitCode;

use fumehood::{
    Error, Result, container,
    spec::container::egress::{self, Open},
};

use super::{Context, flags::Given, id, print_json};

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    let (root, id) = (context.root()?, id(given)?);
    let Some(word) = given.words.get(1) else { return print_json(&container::policy(&root, &id)?, true) };
    let Open { policy, publish } = open("egress", &word.to_string_lossy())?;
    if !publish.is_empty() {
        let hint =
            "leave publish=PORT out: ports that are open stay so, and others are opened when a container is made";
        return Err(Error::new(format!("container {id}: its ports cannot be changed")).with_hint(hint));
    }
    container::set_policy(&root, &id, *policy)?;
    Ok(ExitCode::SUCCESS)
}

/// `what` is where the text stands.
pub fn open(what: &str, text: &str) -> Result<Open> {
    egress::parse(text).map_err(|why| Error::new(format!("{what}: {why}")))
}
