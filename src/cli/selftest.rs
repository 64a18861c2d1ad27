//! `fumehood selftest`: the report as a table for people, or as JSON.

use std::{os::fd::AsFd, process::ExitCode};

use clap::{Subcommand, ValueEnum};
use fumehood::{
    Error,
    error::Hint,
    selftest::{self, Filter, Report, SelftestError, Verdict},
    sys::process,
};

use super::{
    message,
    table::{self, Align},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Try the known ways around the network filter, against hostile servers of its own
    Egress(Egress),
}

#[derive(Debug, clap::Args)]
struct Egress {
    /// Print JSON, with every attempt
    #[arg(long)]
    json: bool,
    /// Say what became of every attempt
    #[arg(long, short)]
    verbose: bool,
    /// What the sandbox has in place of the filter: to see this test fail
    #[arg(long, hide = true, default_value = "real")]
    filter: Choice,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    Real,
    Public,
    None,
}

const SIGNALS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

pub fn run(args: &Args) -> ExitCode {
    let What::Egress(args) = &args.what;
    let filter = match args.filter {
        Choice::Real => Filter::Real,
        Choice::Public => Filter::Public,
        Choice::None => Filter::None,
    };
    // What ends it leaves nothing behind.
    let signals = match process::take_signals(&SIGNALS) {
        Ok(signals) => signals,
        Err(errno) => return message::fail(&Error::new(format!("signals: {}", errno.desc()))),
    };
    let report = match selftest::egress(filter, signals.as_fd()) {
        Ok(report) => report,
        Err(SelftestError::Interrupted(signal)) => return ExitCode::from(128_u8.saturating_add(signal)),
        Err(error) => return message::fail(&error.into_error()),
    };
    let printed = if args.json { message::print_json(&report) } else { message::print(&text(&report, args.verbose)) };
    if printed == ExitCode::SUCCESS && !report.passed { ExitCode::FAILURE } else { printed }
}

fn text(report: &Report, verbose: bool) -> String {
    let head = [
        ("#", Align::Right),
        ("BYPASS", Align::Left),
        ("VERDICT", Align::Left),
        ("TRIED", Align::Right),
        ("HOW", Align::Left),
    ];
    let tried = |row: &selftest::Row| row.attempts.iter().filter(|one| one.verdict != Verdict::Untested).count();
    let rows = report.rows.iter().map(|row| {
        [
            row.number.to_string(),
            row.bypass.to_owned(),
            word(row.verdict).to_owned(),
            tried(row).to_string(),
            row.how.to_owned(),
        ]
    });
    let mut text = table::text(head, rows);
    let mut told = false;
    let attempts = report.rows.iter().flat_map(|row| row.attempts.iter().map(move |one| (row.number, one)));
    for (number, one) in attempts.filter(|(_, one)| verbose || one.verdict != Verdict::Blocked) {
        let line = format!(
            "{number}: {}: {}: {}; without a sandbox: {}",
            one.what,
            word(one.verdict),
            one.within,
            one.without
        );
        let gap = if told { "" } else { "\n" };
        told = true;
        text.push_str(&format!("{gap}{}\n", message::plain(&line)));
    }
    let count = |verdict| report.rows.iter().filter(|row| row.verdict == verdict).count();
    text.push_str(&format!("\n{} of {} blocked", count(Verdict::Blocked), report.rows.len()));
    for verdict in [Verdict::NotBlocked, Verdict::Untested, Verdict::OutOfScope] {
        if count(verdict) > 0 {
            text.push_str(&format!(", {} {}", count(verdict), word(verdict)));
        }
    }
    text.push('\n');
    text
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Blocked => "blocked",
        Verdict::NotBlocked => "NOT BLOCKED",
        Verdict::Untested => "untested",
        Verdict::OutOfScope => "out of scope",
    }
}

#[cfg(test)]
mod tests {
    use fumehood::selftest::{Row, Tried};

    use super::*;

    #[test]
    fn a_table_says_what_got_through_and_how() {
        let tried = |what, verdict| Tried { what, verdict, without: "it was reached".into(), within: "a\nb".into() };
        let row = |number, verdict, attempts| Row { number, bypass: "a way", verdict, how: "so", attempts };
        let (blocked, open) = (tried("one", Verdict::Blocked), tried("two", Verdict::NotBlocked));
        let rows = vec![
            row(9, Verdict::Blocked, vec![blocked.clone()]),
            row(10, Verdict::NotBlocked, vec![blocked, open, tried("three", Verdict::Untested)]),
            row(30, Verdict::OutOfScope, Vec::new()),
        ];
        let report = Report { passed: false, rows };
        let expected = " #  BYPASS  VERDICT       TRIED  HOW\n \
            9  a way   blocked           1  so\n\
            10  a way   NOT BLOCKED       2  so\n\
            30  a way   out of scope      0  so\n\n\
            10: two: NOT BLOCKED: a\u{fffd}b; without a sandbox: it was reached\n\
            10: three: untested: a\u{fffd}b; without a sandbox: it was reached\n\n\
            1 of 3 blocked, 1 NOT BLOCKED, 1 out of scope\n";
        assert_eq!(text(&report, false), expected);
        assert!(text(&report, true).contains("\n9: one: blocked: "));
    }
}
