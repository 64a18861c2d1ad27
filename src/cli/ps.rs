//! `fumehood ps`: the sandboxes that are running.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fumehood::{
    Result,
    error::Hint,
    request::Bytes,
    state::{self, Liveness, Record},
};

use super::{
    message,
    table::{self, Align},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let records = match running() {
        Ok(records) => records,
        Err(error) => return message::fail(&error),
    };
    if args.json {
        return message::print_json(&records);
    }
    if args.quiet {
        return message::print(&records.iter().map(|record| format!("{}\n", record.id)).collect::<String>());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let row = |record: &Record| {
        [
            record.id.clone(),
            record.runtime.clone().unwrap_or_else(|| "-".to_owned()),
            record.pid.to_string(),
            age(now.saturating_sub(Duration::from_millis(record.created_ms))),
            Bytes::new(record.memory_bytes).to_string(),
            record.network.clone(),
            record.command.clone(),
        ]
    };
    const HEAD: [(&str, Align); 7] = [
        ("ID", Align::Left),
        ("RUNTIME", Align::Left),
        ("PID", Align::Right),
        ("AGE", Align::Right),
        ("MEMORY", Align::Right),
        ("NET", Align::Left),
        ("COMMAND", Align::Left),
    ];
    message::print(&table::text(HEAD, records.iter().map(row)))
}

/// Those somebody stands by, oldest first.
pub fn running() -> Result<Vec<Record>> {
    let all = state::list().map_err(Hint::into_error)?;
    Ok(all.into_iter().filter(|(_, liveness)| *liveness == Liveness::Running).map(|(record, _)| record).collect())
}

/// The two largest units: `3s`, `4m12s`, `2h05m`, `3d07h`.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_two_largest_units() {
        let shown =
            [0, 59, 60, 252, 3599, 3600, 7500, 86_400, 285_000].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "59s", "1m00s", "4m12s", "59m59s", "1h00m", "2h05m", "1d00h", "3d07h"]);
    }
}
