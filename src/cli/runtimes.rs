//! `fumehood runtimes`: the languages, and which of them this host has.

use std::process::ExitCode;

use fumehood::{
    error::Hint,
    request::runtimes::{SearchPath, Survey, table},
};

use super::{
    message,
    table::{self as columns, Align},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let survey = match table().survey(&SearchPath::host()) {
        Ok(survey) => survey,
        Err(error) => return message::fail(&error.into_error()),
    };
    if args.json {
        return message::print_json(&survey);
    }
    let row = |runtime: &Survey<'_>| {
        [
            runtime.name.to_owned(),
            runtime.aliases.join(" "),
            runtime.extensions.iter().map(|extension| format!(".{extension}")).collect::<Vec<_>>().join(" "),
            match (&runtime.program, &runtime.hint) {
                (Some(program), _) => program.display().to_string(),
                (None, Some(hint)) => format!("not here: {hint}"),
                (None, None) => "not here".to_owned(),
            },
        ]
    };
    let head = ["NAME", "ALIASES", "EXTENSIONS", "PROGRAM"].map(|name| (name, Align::Left));
    // What can be used comes first.
    let (here, missing): (Vec<_>, Vec<_>) = survey.iter().partition(|runtime| runtime.program.is_some());
    message::print(&columns::text(head, here.into_iter().chain(missing).map(row)))
}
