//! `fumehood profile`: the built-in profiles, to read and to start one's own from.

use std::process::ExitCode;

use clap::Subcommand;
use fumehood::{
    Error,
    plan::profile::{BUILTINS, Builtin},
};
use serde_json::{Value, json};

use super::{
    message,
    table::{self, Align},
    usage::nearest,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print one: its filter as --seccomp takes it, and its Landlock rules as --landlock takes them
    Show {
        name: String,
        /// Print both as JSON
        #[arg(long, conflicts_with_all = ["seccomp", "landlock"])]
        json: bool,
        /// The filter alone
        #[arg(long)]
        seccomp: bool,
        /// The Landlock rules alone
        #[arg(long, conflicts_with = "seccomp")]
        landlock: bool,
    },
}

pub fn run(args: &Args) -> ExitCode {
    match &args.verb {
        Verb::List { json: true } => {
            let all = BUILTINS.iter().map(|profile| json!({ "name": profile.name, "about": profile.about }));
            message::print_json(&all.collect::<Vec<_>>())
        }
        Verb::List { json: false } => {
            let row = |profile: &Builtin| [profile.name.to_owned(), profile.about.to_owned()];
            message::print(&table::text([("NAME", Align::Left), ("FOR", Align::Left)], BUILTINS.iter().map(row)))
        }
        Verb::Show { name, json, seccomp, landlock } => {
            let Ok(profile) = Builtin::by_name(name) else { return unknown(name) };
            let filter = profile.seccomp().map_or("", |filter| filter.json);
            if *json {
                let filter: Value = serde_json::from_str(filter).unwrap_or_default();
                return message::print_json(&json!({
                    "name": profile.name,
                    "about": profile.about,
                    "seccomp": filter,
                    "landlock": profile.landlock,
                }));
            }
            message::print(&match (seccomp, landlock) {
                (true, _) => filter.to_owned(),
                (_, true) => profile.landlock.to_owned(),
                _ => format!(
                    "{}: {}\n\n--- Landlock, beyond what the mounts say ---\n{}\n--- seccomp ---\n{}",
                    profile.name, profile.about, profile.landlock, filter
                ),
            })
        }
    }
}

fn unknown(name: &str) -> ExitCode {
    let names = BUILTINS.map(|profile| profile.name);
    let error = Error::new(format!("no profile is called `{name}`"));
    message::fail(&match nearest(name, names) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")),
        None => error.with_hint(format!("there are {}", names.join(", "))),
    })
}
