//! `fumehood run`.

use std::{ffi::OsString, os::fd::AsFd, process::ExitCode, time::Instant};

use fumehood::{Error, Outcome, Result, Sandbox, request::Network, sys::process};
use nix::sys::signal::Signal;

use super::{
    help, high,
    low::{self, Low, Verb},
    message::{self, OWN_FAILURE},
    observe::View,
    terminal::RawMode,
    verdict,
};

/// What ends a run, and the size of its terminal.
const SIGNALS: [Signal; 5] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGWINCH];

pub fn run(words: Vec<OsString>) -> ExitCode {
    let began = Instant::now();
    let asked = Asked::guess(&words);
    let mut low = match low::parse(Verb::Run, words) {
        Ok(low) => low,
        Err(error) => return asked.refuse(&error, began),
    };
    if low.help {
        return message::print(&help::text(Verb::Run));
    }
    let mut sandbox = match high::sandbox(Verb::Run, &mut low) {
        Ok(sandbox) => sandbox,
        Err(error) => return asked.refuse(&error, began),
    };
    if low.network == Some(Network::Host) && !(low.quiet || low.json || low.events) {
        message::note(
            "--net host: the program shares this host's network, with its localhost services and abstract sockets",
        );
    }
    let mut view = match View::new(&low, began) {
        Ok(view) => view,
        Err(error) => return asked.refuse(&error, began),
    };
    let outcome = attempt(&low, &mut sandbox, &mut view);
    report(&low, &sandbox, &mut view, outcome)
}

fn attempt(low: &Low, sandbox: &mut Sandbox, view: &mut View) -> Result<Outcome> {
    let _raw = low.tty.then(RawMode::enter).transpose()?;
    let signals = process::take_signals(&SIGNALS.map(|signal| signal as i32))
        .map_err(|errno| Error::new(format!("signals: {}", errno.desc())))?;
    sandbox.run(Some(signals.as_fd()), view).map_err(|error| high::explain_file(low, error))
}

fn report(low: &Low, sandbox: &Sandbox, view: &mut View, outcome: Result<Outcome>) -> ExitCode {
    if low.json || low.events {
        let outcome = match outcome.or_else(|error| sandbox.failed(&error)) {
            Ok(outcome) => outcome,
            Err(error) => return message::fail(&error),
        };
        let printed = if low.json { message::print_json(&outcome) } else { message::printed(view.finish(&outcome)) };
        // The program's own status, unless the result did not get out.
        return if printed == ExitCode::SUCCESS { ExitCode::from(outcome.exit_status()) } else { printed };
    }
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return message::fail(&error),
    };
    if let Some(failure) = &outcome.error {
        let error = Error::new(&failure.message);
        message::fail(&match &failure.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        });
    } else if !low.quiet {
        verdict::lines(&outcome).iter().for_each(|line| message::note(line));
    }
    ExitCode::from(outcome.exit_status())
}

/// How errors are wanted, before the command line is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Text,
    Json,
    Events,
}

impl Asked {
    fn guess(words: &[OsString]) -> Self {
        let mut options = words.iter().take_while(|word| *word != "--");
        match options.find(|word| *word == "--json" || *word == "--events") {
            None => Self::Text,
            Some(word) if word == "--json" => Self::Json,
            Some(_) => Self::Events,
        }
    }

    /// Reports an error before there is a sandbox.
    fn refuse(self, error: &Error, began: Instant) -> ExitCode {
        if self == Self::Text {
            return message::fail(error);
        }
        match Sandbox::code("").failed(error) {
            Ok(outcome) if self == Self::Json => _ = message::print_json(&outcome),
            Ok(outcome) => _ = View::events(began).and_then(|mut view| Ok(view.finish(&outcome))),
            Err(error) => _ = message::fail(&error),
        }
        ExitCode::from(OWN_FAILURE)
    }
}
