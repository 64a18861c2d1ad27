//! `fumehood doctor`: the report as a table for people, or as JSON.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use fumehood::host::doctor::{Check, Report, Status, examine};

/// Examines the host and prints what it found. Fails when no sandbox can run here.
pub fn run(json: bool) -> ExitCode {
    let report = examine();
    let mut out = io::stdout().lock();
    let printed = if json { print_json(&mut out, &report) } else { print_table(&mut out, &report, wants_colour()) };
    // A reader that went away (`| head`) has what it wanted.
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(125),
        _ if report.ready => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// https://no-color.org: any value but the empty one switches colour off.
fn wants_colour() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    io::stdout().is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb")
}

fn print_json(out: &mut impl Write, report: &Report) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}

fn print_table(out: &mut impl Write, report: &Report, colour: bool) -> io::Result<()> {
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut told: Vec<&str> = Vec::new();
    for Check { name, status, detail, fix } in &report.checks {
        let (word, code) = mark(*status);
        let word = paint(&format!("{word:8}"), code, colour);
        writeln!(out, "{word}  {name:width$}  {detail}")?;
        // One obstacle breaks several parts: its fix is told once.
        if let Some(fix) = fix.as_deref().filter(|fix| !told.contains(fix)) {
            let label = paint("fix:", "1", colour);
            writeln!(out, "{:8}  {:width$}  {label} {fix}", "", "")?;
            told.push(fix);
        }
    }
    writeln!(out)?;
    writeln!(out, "{}", summary(report, colour))
}

fn mark(status: Status) -> (&'static str, &'static str) {
    match status {
        Status::Ok => ("ok", "32"),
        Status::Degraded => ("degraded", "33"),
        Status::Broken => ("broken", "1;31"),
        Status::Info => ("info", "2"),
    }
}

fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn summary(report: &Report, colour: bool) -> String {
    let named = |status| -> Vec<&str> {
        report.checks.iter().filter(|check| check.status == status).map(|check| check.name).collect()
    };
    let degraded = match named(Status::Degraded) {
        names if names.is_empty() => String::new(),
        names => format!("; degraded: {}", names.join(", ")),
    };
    if report.ready {
        format!("{}: sandboxes run here{degraded}", paint("ready", "1;32", colour))
    } else {
        format!("{}: broken: {}{degraded}", paint("not ready", "1;31", colour), named(Status::Broken).join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(statuses: &[(&'static str, Status, Option<&str>)]) -> Report {
        let checks: Vec<_> = statuses
            .iter()
            .map(|(name, status, fix)| Check {
                name,
                status: *status,
                detail: "detail".into(),
                fix: fix.map(str::to_owned),
            })
            .collect();
        Report { ready: checks.iter().all(|check| check.status != Status::Broken), checks, ..examine() }
    }

    #[test]
    fn a_table_is_aligned_and_ends_with_the_verdict() {
        let fix = Some("do this");
        let report =
            report(&[("a", Status::Ok, None), ("longer", Status::Degraded, fix), ("b", Status::Degraded, fix)]);
        let mut out = Vec::new();
        print_table(&mut out, &report, false).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ok        a       detail\n\
             degraded  longer  detail\n\
             \x20                 fix: do this\n\
             degraded  b       detail\n\
             \n\
             ready: sandboxes run here; degraded: longer, b\n"
        );
    }

    #[test]
    fn a_broken_part_is_named_last() {
        let report = report(&[("x", Status::Broken, None), ("y", Status::Info, None)]);
        assert_eq!(summary(&report, false), "not ready: broken: x");
        assert!(summary(&report, true).starts_with("\x1b[1;31mnot ready\x1b[0m"));
    }

    #[test]
    fn json_has_its_three_keys() {
        let mut out = Vec::new();
        print_json(&mut out, &report(&[("x", Status::Info, None)])).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["ready"], true);
        assert_eq!(value["checks"][0]["status"], "info");
        assert_eq!(value["checks"][0]["fix"], serde_json::Value::Null);
        assert!(value["host"]["kernel"].is_string());
    }
}
