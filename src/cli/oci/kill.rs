//! `kill`: a signal to a container.

use std::{process::ExitCode, str::FromStr};

use fumehood::{Result, container};
use nix::sys::signal::Signal;

use super::{Context, contract, delete, flags::Given, id, log};

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    let text = given.words.get(1).map_or_else(|| "SIGTERM".into(), |word| word.to_string_lossy());
    let signal = parse(&text).ok_or_else(|| contract::unknown_signal(&text))?;
    let root = context.root()?;
    if given.is_on("regex") {
        for id in delete::matching(&root, given)? {
            if let Err(error) = container::kill(&root, &id, signal, given.is_on("all")) {
                log::warn(&format!("{id}: {error}"));
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    container::kill(&root, &id(given)?, signal, given.is_on("all"))?;
    Ok(ExitCode::SUCCESS)
}

/// The last realtime signal.
const LAST: i32 = 64;

/// A number, or a name with or without `SIG`, in capitals or not; `RTMIN+3` too. 0 asks whether it is there.
fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (0..=LAST).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |text: &str| match text {
        "" => Some(0),
        text => text.strip_prefix(['+', '-'])?.parse::<i32>().ok(),
    };
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let realtime = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) if !rest.starts_with('-') => Some(first + offset(rest)?),
        (_, Some(rest)) if !rest.starts_with('+') => Some(last - offset(rest)?),
        _ => None,
    };
    match (realtime, name) {
        (Some(number), _) => (first..=last).contains(&number).then_some(number),
        (None, "IOT") => Some(libc::SIGABRT),
        (None, "POLL") => Some(libc::SIGIO),
        (None, "CLD") => Some(libc::SIGCHLD),
        (None, name) => Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_a_number_or_a_name() {
        for (text, number) in [
            ("9", 9),
            ("0", 0),
            ("64", 64),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("kill", 9),
            ("sigterm", 15),
            ("SIGUSR1", 10),
            ("WINCH", 28),
            ("CLD", 17),
            ("RTMIN", libc::SIGRTMIN()),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "65", "-9", "SIG", "SIGSIGKILL", "NOPE", "9.0", "RTMIN-1", "RTMAX+1", "RTMIN+99", "1e1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
