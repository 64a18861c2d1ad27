//! `fumehood run`.

use std::{ffi::OsString, os::fd::AsFd, process::ExitCode, time::Instant};

use fumehood::{Error, Outcome, Result, Sandbox, sys::process};
use nix::sys::signal::{SigSet, Signal};

use super::{
    help, high,
    kept::Keeping,
    low::{self, Low, Verb},
    message::{self, OWN_FAILURE},
    observe::View,
    policy::NetworkMode,
    terminal::RawMode,
    verdict,
};

/// What ends a run; the last one tells of a terminal's new size, and is taken only with one.
const SIGNALS: [i32; 5] = [
    Signal::SIGINT as i32,
    Signal::SIGTERM as i32,
    Signal::SIGHUP as i32,
    Signal::SIGQUIT as i32,
    Signal::SIGWINCH as i32,
];

pub fn run(words: Vec<OsString>) -> ExitCode {
    let began = Instant::now();
    let format = Format::guess(&words);
    let mut low = match low::parse(Verb::Run, words) {
        Ok(low) if low.help => return message::print(&help::text(Verb::Run)),
        Ok(low) => low,
        Err(error) => return format.fail(&Sandbox::code(""), &error, began),
    };
    let mut sandbox = match high::sandbox(Verb::Run, &mut low) {
        Ok(sandbox) => sandbox,
        Err(error) => return format.fail(&Sandbox::code(""), &error, began),
    };
    if matches!(low.network, Some(NetworkMode::Host)) && format == Format::Text && !low.quiet {
        message::note(
            "--net host: the program shares this host's network, with its localhost services and abstract sockets",
        );
    }
    attempt(&low, &mut sandbox, began).unwrap_or_else(|error| format.fail(&sandbox, &error, began))
}

fn attempt(low: &Low, sandbox: &mut Sandbox, began: Instant) -> Result<ExitCode> {
    let keeping = low.keep.then(|| Keeping::prepare(low)).transpose()?;
    let taken = if low.tty { &SIGNALS[..] } else { &SIGNALS[..SIGNALS.len() - 1] };
    let signals = process::take_signals(taken).map_err(|errno| Error::new(format!("signals: {}", errno.desc())))?;
    // A terminal's new size must not end the waiting for it.
    let mut view = View::new(low, began, (!low.tty).then(|| signals.as_fd()))?;
    let raw = low.tty.then(RawMode::enter).transpose()?;
    let mut kept = None;
    let ran = match &keeping {
        None => sandbox.run(Some(signals.as_fd()), &mut view),
        Some(keeping) => sandbox.run_kept(Some(signals.as_fd()), &mut view, |upper| {
            kept = Some(keeping.keep(upper)?);
            Ok(())
        }),
    };
    drop(raw);
    // From here on a signal ends us as it does any program. It only fails for a mask that is no mask.
    _ = SigSet::all().thread_unblock();

    let mut outcome = ran.map_err(|error| high::explain_file(low, error))?;
    outcome.kept = kept;
    if let Some(error) = view.failure() {
        return Err(error);
    }
    if let Some(signal) = view.interrupted() {
        outcome.signal = u8::try_from(signal).ok();
    }
    let printed = match Format::of(low) {
        Format::Text => {
            tell(&outcome, low.quiet);
            ExitCode::SUCCESS
        }
        Format::Json => message::print_json(&outcome),
        Format::Events => message::printed(view.finish(&outcome)),
    };
    // The program's own status, unless the result did not get out.
    Ok(if printed == ExitCode::SUCCESS { ExitCode::from(outcome.exit_status()) } else { printed })
}

/// What a person has to know beside the program's output.
fn tell(outcome: &Outcome, quiet: bool) {
    if let Some(failure) = &outcome.error {
        let error = Error::new(&failure.message);
        message::fail(&match &failure.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        });
    } else if !quiet {
        verdict::lines(outcome).iter().for_each(|line| message::note(line));
    }
    if let Some(kept) = outcome.kept.as_ref().filter(|_| !quiet) {
        let name = &kept.name;
        message::note(&format!("kept as {name}: see `fumehood diff {name}`, or `fumehood commit {name} IMAGE`"));
    }
}

/// How the result is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Events,
}

impl Format {
    fn of(low: &Low) -> Self {
        match (low.json, low.events) {
            (true, _) => Self::Json,
            (false, true) => Self::Events,
            (false, false) => Self::Text,
        }
    }

    /// Before the command line is understood: how its errors are wanted.
    fn guess(words: &[OsString]) -> Self {
        let mut options = words.iter().take_while(|word| *word != "--");
        match options.find(|word| *word == "--json" || *word == "--events") {
            None => Self::Text,
            Some(word) if word == "--json" => Self::Json,
            Some(_) => Self::Events,
        }
    }

    /// Reports that there was no run.
    fn fail(self, sandbox: &Sandbox, error: &Error, began: Instant) -> ExitCode {
        if self == Self::Text {
            return message::fail(error);
        }
        let told = sandbox.failed(error).and_then(|outcome| {
            Ok(match self {
                Self::Text | Self::Json => message::print_json(&outcome),
                Self::Events => message::printed(View::events(began)?.finish(&outcome)),
            })
        });
        match told {
            Err(error) => message::fail(&error),
            Ok(_) => ExitCode::from(OWN_FAILURE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn an_error_is_told_as_the_result_would_be() {
        let guess = |line: &str| Format::guess(&line.split(' ').map(Into::into).collect::<Vec<_>>());
        assert_eq!(guess("--bogus --json"), Format::Json);
        assert_eq!(guess("--events --bogus"), Format::Events);
        assert_eq!(guess("--bogus -- --json"), Format::Text);
    }
}
