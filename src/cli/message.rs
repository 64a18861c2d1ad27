//! The one place where an error becomes text: `error: …`, then `hint: …`.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use fumehood::Error;

/// fumehood's own failure, wrong usage included; the program's statuses are its own (docker-run(1)).
pub const OWN_FAILURE: u8 = 125;
/// What a shell shows for a program that SIGPIPE ended.
const BROKEN_PIPE: u8 = 128 + 13;

/// Prints the error and returns its status.
pub fn fail(error: &Error) -> ExitCode {
    let colour = wants_colour(&std::io::stderr());
    let mut text = format!("{} {}\n", paint("error:", "1;31", colour), plain(error.message()));
    if let Some(hint) = error.hint() {
        text.push_str(&format!("{} {}\n", paint("hint:", "1;36", colour), plain(hint)));
    }
    say(&text);
    ExitCode::from(OWN_FAILURE)
}

/// A line of ours beside the program's own.
pub fn note(line: &str) {
    say(&format!("fumehood: {}\n", plain(line)));
}

/// In one write, so that lines of several processes do not mix. Nobody is left to tell when it fails.
fn say(text: &str) {
    _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// The status after something was printed on stdout: a reader that went away (`| head`) has what it wanted.
pub fn printed(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(BROKEN_PIPE),
        Err(error) => fail(&Error::new(format!("standard output: {error}"))),
    }
}

/// Prints `text` on stdout.
pub fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Prints what is too much to be held.
pub fn stream(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    printed(write(&mut out).and_then(|()| out.flush()))
}

/// As [`print_json`], of what is too much to be held.
pub fn stream_json(value: &impl serde::Serialize) -> ExitCode {
    let pretty = std::io::stdout().is_terminal();
    stream(|mut out| {
        let written = match pretty {
            true => serde_json::to_writer_pretty(&mut out, value),
            false => serde_json::to_writer(&mut out, value),
        };
        written.map_err(std::io::Error::from)?;
        writeln!(out)
    })
}

/// Prints a value as JSON: over several lines for a person, on one for a program.
pub fn print_json(value: &impl serde::Serialize) -> ExitCode {
    let stdout = std::io::stdout();
    let text = if stdout.is_terminal() { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    match text {
        Ok(text) => print(&(text + "\n")),
        Err(error) => fail(&Error::new(format!("cannot write JSON: {error}"))),
    }
}

/// https://no-color.org: any value but the empty one switches colour off.
pub fn wants_colour(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb")
}

pub fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// One line without control characters: names may come from inside, or from a hostile directory.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
