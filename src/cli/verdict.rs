//! What is said on stderr of a run that did not end by the program's own doing.

use std::time::Duration;

use fumehood::{
    Outcome, Verdict,
    report::{Compile, Denial, DenialKind},
    request::Limits,
};

/// The lines for a person who sees only the program's output.
pub fn lines(outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    if outcome.error.is_some() || matches!(outcome.verdict, Verdict::Ok | Verdict::SetupError) {
        return lines;
    }
    let compiler = outcome.compile.as_ref().filter(|compile| compile.verdict != Verdict::Ok);
    let setup = outcome.prepared.as_ref().filter(|setup| setup.verdict != Verdict::Ok);
    if let Some(reason) = match compiler {
        _ if setup.is_some() => setup.map(of_setup),
        Some(compile) => Some(of_compiler(compile)),
        None => reason(outcome.verdict, &outcome.limits),
    } {
        lines.push(format!("{}: {reason}", outcome.verdict));
    }
    lines.extend(outcome.denials.as_slice().iter().map(denied));
    if outcome.denials.left_out() > 0 {
        lines.push(format!("denied: and {} times more", outcome.denials.left_out()));
    }
    lines
}

/// Which limit it was, and the option that sets it; nothing where the program ended by itself.
fn reason(verdict: Verdict, limits: &Limits) -> Option<String> {
    Some(match verdict {
        Verdict::Timeout => format!("ended after {} (--timeout)", limits.timeout.map_or_else(String::new, time)),
        Verdict::CpuTimeout => {
            format!("ended after {} of CPU time (--cpu-time)", limits.cpu_time.map_or_else(String::new, time))
        }
        Verdict::Oom => format!("ran out of its {} of memory (--memory)", limits.memory),
        Verdict::OutputLimit => format!("printed more than {} (--max-output)", limits.output),
        Verdict::DiskLimit => {
            format!("filled /sandbox ({}, --sandbox-size) or /tmp ({}, --tmp-size)", limits.sandbox, limits.tmp)
        }
        Verdict::PidsLimit => format!("had no more than {} processes and threads (--pids-limit)", limits.pids),
        Verdict::Denied => "killed for a forbidden system call (--profile, --seccomp)".to_owned(),
        Verdict::Ok | Verdict::Failed | Verdict::Signaled | Verdict::SetupError => return None,
    })
}

/// A setup has a time of its own.
fn of_setup(setup: &Compile) -> String {
    match (setup.verdict, setup.exit_code) {
        (Verdict::Failed, Some(code)) => {
            format!("the setup ended with status {code} (--setup); the program did not run")
        }
        (Verdict::Timeout, _) => format!("the setup was ended after {} (--setup)", time(setup.duration)),
        _ => "the setup was ended (--setup); the program did not run".to_owned(),
    }
}

/// A compiler has limits of its own.
fn of_compiler(compile: &Compile) -> String {
    match (compile.verdict, compile.exit_code) {
        (Verdict::Failed, Some(code)) => format!("the compiler ended with status {code}"),
        (Verdict::Timeout, _) => format!("the compiler was ended after {}", time(compile.duration)),
        _ => "the compiler was ended".to_owned(),
    }
}

fn denied(denial: &Denial) -> String {
    let kind = match denial.kind {
        DenialKind::Syscall => "system call ",
        DenialKind::Network => "connection to ",
        DenialKind::File => "",
    };
    let times = if denial.count > 1 { format!(", {} times", denial.count) } else { String::new() };
    let hint = denial.hint.as_ref().map_or_else(String::new, |hint| format!("; hint: {hint}"));
    format!("denied: {kind}{} ({}{times}){hint}", denial.target, denial.rule)
}

/// `30 s`, `1.5 s`, `250 ms`.
pub fn time(time: Duration) -> String {
    if time >= Duration::from_secs(1) {
        format!("{} s", (time.as_secs_f64() * 1000.0).round() / 1000.0)
    } else {
        format!("{} ms", (time.as_secs_f64() * 1e6).round() / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use fumehood::{
        Error,
        report::{Denials, Failure, Isolation},
        request::SandboxId,
    };

    use super::*;

    fn outcome(verdict: Verdict) -> Outcome {
        let nothing = Failure::setup(&Error::new("replaced"));
        let id = SandboxId::parse("x").unwrap();
        Outcome {
            verdict,
            error: None,
            ..Outcome::setup_error(id, None, Isolation::Native, Limits::default(), nothing)
        }
    }

    #[test]
    fn a_limit_is_named_with_its_option() {
        assert_eq!(lines(&outcome(Verdict::Timeout)), ["timeout: ended after 30 s (--timeout)"]);
        assert_eq!(lines(&outcome(Verdict::Oom)), ["oom: ran out of its 512m of memory (--memory)"]);
        for quiet in [Verdict::Ok, Verdict::Failed, Verdict::Signaled] {
            assert_eq!(lines(&outcome(quiet)), [""; 0], "{quiet}");
        }
    }

    #[test]
    fn denials_are_told_where_the_program_failed() {
        let mut denials = Denials::default();
        for _ in 0..2 {
            denials.record(DenialKind::Syscall, "mount", "seccomp default", || Some("--profile dev".to_owned()));
        }
        let line = "denied: system call mount (seccomp default, 2 times); hint: --profile dev";
        assert_eq!(lines(&Outcome { denials: denials.clone(), ..outcome(Verdict::Failed) }), [line]);
        assert_eq!(lines(&Outcome { denials, ..outcome(Verdict::Ok) }), [""; 0]);
    }

    #[test]
    fn times_are_in_seconds_or_milliseconds() {
        let shown = [30_000_000, 1_500_000, 250_000, 1].map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(shown, ["30 s", "1.5 s", "250 ms", "0.001 ms"]);
    }
}
