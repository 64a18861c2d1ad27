//! `egress`: what the network of a running container lets through, told and changed.

use std::process::ExitCode;

use fumehood::{Error, Result, container, net::Policy, spec::container::egress};

use super::{Context, flags::Given, id, print_json};

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    let (root, id) = (context.root()?, id(given)?);
    let Some(word) = given.words.get(1) else { return print_json(&container::policy(&root, &id)?, true) };
    container::set_policy(&root, &id, policy("egress", &word.to_string_lossy())?)?;
    Ok(ExitCode::SUCCESS)
}

/// `what` is where the text stands.
pub fn policy(what: &str, text: &str) -> Result<Policy> {
    egress::parse(text).map_err(|why| Error::new(format!("{what}: {why}")))
}
