//! `events`: what a container uses, and when it runs out of memory, a JSON line each.

use std::{
    io::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use fumehood::{
    Error, Result,
    cgroup::container::{OomEvent, Stats},
    container::Usage,
    error::Hint,
};
use serde::Serialize;

use super::{Context, flags::Given, id, log};
use crate::cli::message;

#[derive(Debug, Serialize)]
struct Event<'a> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Stats>,
}

const INTERVAL: Duration = Duration::from_secs(5);

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    let id = id(given)?;
    let interval = match given.text("interval")? {
        None => INTERVAL,
        Some(text) => duration(text)
            .ok_or_else(|| Error::new(format!("invalid value {text:?} for flag -interval: parse error")))?,
    };
    if interval.is_zero() {
        return Err(Error::new("duration interval must be greater than 0"));
    }
    let usage = Usage::of(&context.root()?, &id)?;
    let stats = |usage: &Usage| {
        usage.stats().and_then(|stats| line(&Event { r#type: "stats", id: id.as_str(), data: Some(&stats) }))
    };
    if given.is_on("stats") {
        return Ok(message::print(&stats(&usage)?));
    }
    let mut oom = usage.watch_oom()?;
    let mut next = Instant::now() + interval;
    loop {
        match oom.wait(next.saturating_duration_since(Instant::now())).map_err(Hint::into_error)? {
            OomEvent::Oom => {
                if !tell(&line(&Event { r#type: "oom", id: id.as_str(), data: None })?) {
                    break;
                }
            }
            OomEvent::Gone => break,
            OomEvent::TimedOut => {
                if usage.is_over() {
                    break;
                }
                next = Instant::now() + interval;
                match stats(&usage) {
                    Ok(line) if !tell(&line) => break,
                    Ok(_) => {}
                    Err(error) => log::warn(error.message()),
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(event: &Event<'_>) -> Result<String> {
    serde_json::to_string(event)
        .map(|text| text + "\n")
        .map_err(|error| Error::new(format!("cannot write JSON: {error}")))
}

/// Whether anybody still reads.
fn tell(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Go's time.ParseDuration, without a sign: `1h2m3.5s`, `100ms`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut nanos) = (text.strip_prefix('+').unwrap_or(text), 0_f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| number + at);
        let scale = match &rest[number..unit] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        let digits = &rest[..number];
        if !digits.contains(|c: char| c.is_ascii_digit()) {
            return None;
        }
        nanos += digits.parse::<f64>().ok()? * scale;
        rest = &rest[unit..];
    }
    // Go's are 64 bits of nanoseconds.
    (nanos < i64::MAX as f64).then(|| Duration::from_nanos(nanos as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_gos() {
        let millis = |text: &str| duration(text).map(|time| time.as_millis());
        for (text, expected) in [
            ("5s", 5000),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1.5s", 1500),
            (".5s", 500),
            ("1.s", 1000),
            ("+2s", 2000),
            ("0", 0),
            ("0s", 0),
            ("1500us", 1),
            ("2000µs", 2),
            ("5000000ns", 5),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for text in ["", "5", "s", "-1s", "5x", "1s2", ".s", "1..2s", "5 s", "1d", "99999999999h", "+", "1e3s"] {
            assert_eq!(millis(text), None, "{text}");
        }
    }
}
