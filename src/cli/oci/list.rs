//! `list`: all containers.

use std::process::ExitCode;

use fumehood::{
    Error, Result, container,
    error::Hint,
    state::{StateError, container::Record},
};

use super::{Context, contract, flags::Given, log, print_json, state::Shown};
use crate::cli::{
    message,
    table::{self, Align},
};

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    let root = context.root()?;
    // One that was named and is not there is a slip of the pen.
    if context.root_is_given() && !root.path().is_dir() {
        return Err(Error::new(format!("open {}: no such file or directory", root.path().display())));
    }
    let ids = root.list().map_err(StateError::into_error)?;
    if given.is_on("quiet") {
        return Ok(message::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>()));
    }
    let mut records: Vec<Record> = Vec::with_capacity(ids.len());
    for id in ids {
        match container::record(&root, &id) {
            Ok(record) => records.push(record),
            // Just deleted, or never finished.
            Err(error) => log::warn(&format!("load container {id}: {error}")),
        }
    }
    let shown: Vec<Shown<'_>> = records.iter().map(Shown::of).collect();
    match given.text("format")? {
        None | Some("table") => Ok(message::print(&text(&shown))),
        Some("json") => print_json(&shown, false),
        Some(_) => Err(contract::invalid_format()),
    }
}

fn text(shown: &[Shown<'_>]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(|name| (name, Align::Left));
    let row = |one: &Shown<'_>| {
        let bundle = one.bundle.display().to_string();
        [one.id.to_owned(), one.pid.to_string(), one.status.clone(), bundle, one.created.to_owned(), one.owner.clone()]
    };
    table::text(head, shown.iter().map(row))
}
