//! All verbs but `run`, `explain` and `batch`: read by clap, and handed on.

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use fumehood::{Error, error::Hint};

use super::{
    cleanup, completions, doctor, help, image, install, kept, kill,
    low::Verb as RunVerb,
    message, net, profile, ps, runtimes, selftest, snapshot,
    usage::{UsageError, nearest},
};

/// Run untrusted code on this host, in a sandbox without network and without your files.
#[derive(Debug, Parser)]
#[command(name = "fumehood", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  fumehood run script.py
  fumehood run -e 'print(6 * 7)'
  fumehood run -- ls -l
  fumehood doctor

`fumehood COMMAND --help` tells more of each.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the sandboxes that are running, and runs that were kept
    #[command(after_help = "Examples:\n  fumehood ps\n  fumehood kill $(fumehood ps -q)\n  fumehood ps --all")]
    Ps(ps::Args),
    /// End running sandboxes
    #[command(after_help = "Examples:\n  fumehood kill 3f2a\n  fumehood kill --all")]
    Kill(kill::Args),
    /// Say or show what a running sandbox may reach
    Net(net::Args),
    /// Remove what a killed fumehood left behind
    #[command(after_help = "Examples:\n  fumehood cleanup --dry-run\n  fumehood cleanup")]
    Cleanup(cleanup::Args),
    /// List the languages, and which of them this host has
    #[command(after_help = "Examples:\n  fumehood runtimes\n  fumehood runtimes --json")]
    Runtimes(runtimes::Args),
    /// Print the JSON Schema of what `batch` takes and gives
    #[command(after_help = "Examples:\n  fumehood schema job > job.schema.json\n  fumehood schema result")]
    Schema {
        /// Of what
        #[arg(value_enum)]
        of: Schema,
    },
    /// Keep images: import, list, inspect, remove
    #[command(after_help = "Examples:\n  fumehood image import image.tar\n  fumehood image list")]
    Image(image::Args),
    /// List what a kept run has changed: A added, C changed, D deleted
    #[command(
        after_help = "Examples:\n  fumehood run --keep --name try --image debian:12 --user 0 --cmd 'touch /etc/new'\n  \
                      fumehood diff try\n  fumehood diff try --json"
    )]
    Diff(kept::DiffArgs),
    /// Make an image of a kept run and what it stood on
    #[command(after_help = "Examples:\n  fumehood commit try mine:2\n  \
                      fumehood commit try mine:2 --message 'with tools' --change 'CMD [\"bash\"]' --change 'ENV A=1'\n  \
                      fumehood run --image mine:2\n\n\
                      Instructions: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR. With \
                      SOURCE_DATE_EPOCH set, when the run is kept and here, the same changes give the same digest.")]
    Commit(kept::CommitArgs),
    /// Remove kept runs
    #[command(after_help = "Examples:\n  fumehood rm try\n  fumehood rm --all")]
    Rm(kept::RemoveArgs),
    /// Make an OCI bundle from an image, for any runtime
    #[command(
        after_help = "Examples:\n  fumehood unpack image.tar bundle/\n  fumehood unpack python:3.12-slim bundle/"
    )]
    Unpack(image::UnpackArgs),
    /// Save a container of fumehood-oci to a directory, and bring it back
    #[command(after_help = "Examples:\n  fumehood snapshot save box saved/\n  \
                            fumehood snapshot restore box saved/ --bundle bundle/ --detach")]
    Snapshot(snapshot::Args),
    /// Show the built-in profiles
    #[command(after_help = "Examples:\n  fumehood profile list\n  fumehood profile show strict\n  \
                      fumehood profile show default --seccomp > mine.json")]
    Profile(profile::Args),
    /// Register with Docker, Podman or containerd, as a runtime of containers
    #[command(after_help = "Examples:\n  fumehood install docker --dry-run\n  sudo fumehood install docker\n  \
                      docker run --rm --runtime fumehood alpine true\n  sudo fumehood install docker --uninstall")]
    Install(install::Args),
    /// Say what of this host sandboxes can use, and how to mend the rest
    #[command(after_help = "Examples:\n  fumehood doctor\n  fumehood doctor --json")]
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Try the known ways around what sandboxes are kept from, on this host
    #[command(after_help = "Examples:\n  fumehood selftest egress\n  fumehood selftest egress --json")]
    Selftest(selftest::Args),
    /// Print completions for a shell
    #[command(after_help = "Examples:\n  \
                      fumehood completions bash > ~/.local/share/bash-completion/completions/fumehood\n  \
                      fumehood completions zsh > ~/.zfunc/_fumehood\n  \
                      fumehood completions fish > ~/.config/fish/completions/fumehood.fish")]
    Completions(completions::Args),
    /// Print the version
    Version,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Schema {
    Job,
    Result,
}

/// Every verb as clap knows it, `run`, `explain` and `batch` from their table.
pub fn command() -> clap::Command {
    let mut command = Cli::command();
    let rest: Vec<_> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    command = command.subcommand(completions::command(RunVerb::Run)).subcommand(completions::command(RunVerb::Explain));
    command = command.subcommand(completions::command(RunVerb::Batch));
    // In the order they are wanted.
    command = command.mut_subcommand("run", |verb| verb.display_order(0));
    command = command.mut_subcommand("explain", |verb| verb.display_order(1));
    command = command.mut_subcommand("batch", |verb| verb.display_order(2));
    for (order, name) in rest.into_iter().enumerate() {
        command = command.mut_subcommand(name, |verb| verb.display_order(order + 3));
    }
    command
}

pub fn run(mut words: Vec<OsString>) -> ExitCode {
    if words.first().is_some_and(|word| word == "help") {
        words.remove(0);
        match words.first().and_then(|word| word.to_str()) {
            Some("run") => return message::print(&help::text(RunVerb::Run)),
            Some("explain") => return message::print(&help::text(RunVerb::Explain)),
            Some("batch") => return message::print(&help::text(RunVerb::Batch)),
            _ => words.truncate(1),
        }
        words.push("--help".into());
    }
    let mut command = command();
    if let Some(word) = words.first().and_then(|word| unknown(word, &command)) {
        return message::fail(&word.into_error());
    }
    if words.is_empty() {
        return message::print(&command.render_help().to_string());
    }
    let matched = command.try_get_matches_from_mut(std::iter::once("fumehood".into()).chain(words));
    match matched.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => dispatch(cli.verb),
        Err(error) => refuse(&error),
    }
}

fn dispatch(verb: Verb) -> ExitCode {
    match verb {
        Verb::Ps(args) => ps::run(&args),
        Verb::Kill(args) => kill::run(&args),
        Verb::Snapshot(args) => snapshot::run(&args),
        Verb::Net(args) => net::run(&args),
        Verb::Cleanup(args) => cleanup::run(&args),
        Verb::Runtimes(args) => runtimes::run(&args),
        Verb::Schema { of: Schema::Job } => message::print(fumehood::batch::JOB_SCHEMA),
        Verb::Schema { of: Schema::Result } => message::print(fumehood::batch::RESULT_SCHEMA),
        Verb::Image(args) => image::run(&args),
        Verb::Diff(args) => kept::diff(&args),
        Verb::Commit(args) => kept::commit(&args),
        Verb::Rm(args) => kept::remove(&args),
        Verb::Unpack(args) => image::run_unpack(&args),
        Verb::Profile(args) => profile::run(&args),
        Verb::Install(args) => install::run(&args),
        Verb::Doctor { json } => doctor::run(json),
        Verb::Selftest(args) => selftest::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Version => message::print(concat!("fumehood ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

fn unknown(word: &OsString, command: &clap::Command) -> Option<UsageError> {
    let text = word.to_string_lossy();
    if text.starts_with('-') || command.find_subcommand(word).is_some() {
        return None;
    }
    let nearest = nearest(&text, command.get_subcommands().map(clap::Command::get_name)).map(str::to_owned);
    let is_file = nearest.is_none() && std::path::Path::new(word).is_file();
    Some(UsageError::UnknownVerb { word: text.into_owned(), nearest, is_file })
}

/// clap's errors in our words' form; its help and version are no errors.
fn refuse(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        return message::print(&error.render().to_string());
    }
    let text = error.render().to_string();
    let mut paragraphs = text.trim_start_matches("error: ").split("\n\n");
    let what = paragraphs.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let tip = paragraphs.find_map(|paragraph| paragraph.trim().strip_prefix("tip: "));
    message::fail(&Error::new(what.replace('\'', "`")).with_hint(tip.map_or_else(
        || "`fumehood COMMAND --help` tells what each takes".to_owned(),
        |tip| tip.split_whitespace().collect::<Vec<_>>().join(" ").replace('\'', "`"),
    )))
}
