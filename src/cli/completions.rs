//! `fumehood completions`: for bash, zsh and fish.

use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, ValueEnum, ValueHint, builder::PossibleValuesParser};
use clap_complete::Shell as Known;

use super::{
    flags::{Flag, Kind, Of},
    low::Verb,
    message, verbs,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub fn run(args: &Args) -> ExitCode {
    let shell = match args.shell {
        Shell::Bash => Known::Bash,
        Shell::Zsh => Known::Zsh,
        Shell::Fish => Known::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut verbs::command(), "fumehood", &mut script);
    message::print(&String::from_utf8_lossy(&script))
}

/// The command whose options are in the table, for completions and the list of commands only.
pub fn command(verb: Verb) -> Command {
    let about = match verb {
        Verb::Run => "Run code or a program in a sandbox",
        Verb::Explain => "Say what `run` would do, and why",
        Verb::Batch => "Run many jobs, a line in, a line out",
    };
    let options = verb.flags().map(option);
    Command::new(verb.name())
        .about(about)
        .disable_help_flag(true)
        .args(options)
        .arg(Arg::new(if verb == Verb::Batch { "JOBS" } else { "FILE" }).value_hint(ValueHint::FilePath))
        .arg(Arg::new("ARGS").num_args(0..).last(true).value_hint(ValueHint::CommandWithArguments))
}

fn option(flag: &Flag) -> Arg {
    // The first sentence is what a menu has room for.
    let help = flag.doc.split_inclusive([';', '.']).next().unwrap_or_default().trim_end_matches([';', '.']);
    let mut option = Arg::new(flag.long).long(flag.long).help(help);
    if let Some(short) = flag.short {
        option = option.short(short);
    }
    match flag.kind {
        Kind::Switch(_) => option.action(ArgAction::SetTrue),
        Kind::Value { name, of, .. } => {
            let action = if flag.repeatable { ArgAction::Append } else { ArgAction::Set };
            let option = option.action(action).value_name(name);
            match of {
                Of::Text => option.value_hint(ValueHint::Other),
                Of::File => option.value_hint(ValueHint::AnyPath),
                Of::Dir => option.value_hint(ValueHint::DirPath),
                Of::Any(values) => option.value_parser(PossibleValuesParser::new(values)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_every_option() {
        // clap checks its commands for contradictions only when asked.
        verbs::command().debug_assert();
        for shell in [Known::Bash, Known::Zsh, Known::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut verbs::command(), "fumehood", &mut script);
            let script = String::from_utf8(script).unwrap();
            for flag in Verb::Explain.flags().chain(Verb::Batch.flags()) {
                assert!(script.contains(flag.long), "{shell} {}", flag.long);
            }
        }
    }
}
