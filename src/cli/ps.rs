//! `fumehood ps`: the sandboxes that are running.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fumehood::{
    Result,
    error::Hint,
    image::{
        Store,
        store::{Run, RunBase},
    },
    request::Bytes,
    state::{self, Liveness, Record},
};

use serde::Serialize;

use super::{
    image::size,
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
    /// Kept runs too (run --keep)
    #[arg(short, long)]
    all: bool,
    /// Where kept runs are, instead of /var/lib/fumehood or ~/.local/share/fumehood
    #[arg(long, value_name = "DIR", requires = "all")]
    store: Option<PathBuf>,
}

/// With --all: one of either kind.
#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Any {
    Running(Record),
    Kept(Run),
}

pub fn run(args: &Args) -> ExitCode {
    if args.all {
        return all(args).unwrap_or_else(|error| message::fail(&error));
    }
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

fn all(args: &Args) -> Result<ExitCode> {
    let store = Store::open(args.store.as_deref()).map_err(Hint::into_error)?;
    let (kept, broken) = store.runs().map_err(Hint::into_error)?;
    for name in broken {
        message::note(&format!("run {name} cannot be read: `fumehood rm {name}` removes it"));
    }
    let all: Vec<Any> = kept.into_iter().map(Any::Kept).chain(running()?.into_iter().map(Any::Running)).collect();
    if args.json {
        return Ok(message::print_json(&all));
    }
    if args.quiet {
        return Ok(message::print(&all.iter().map(|one| format!("{}\n", one.row()[0])).collect::<String>()));
    }
    const HEAD: [(&str, Align); 6] = [
        ("ID", Align::Left),
        ("STATUS", Align::Left),
        ("AGE", Align::Right),
        ("IMAGE", Align::Left),
        ("CHANGED", Align::Right),
        ("COMMAND", Align::Left),
    ];
    Ok(message::print(&table::text(HEAD, all.iter().map(Any::row))))
}

impl Any {
    fn row(&self) -> [String; 6] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = |ms| age(now.saturating_sub(Duration::from_millis(ms)));
        let none = || "-".to_owned();
        match self {
            Self::Running(record) => [
                record.id.clone(),
                "running".to_owned(),
                since(record.created_ms),
                none(),
                none(),
                record.command.clone(),
            ],
            Self::Kept(run) => {
                let below = match &run.base {
                    RunBase::Image { name, .. } => name.clone(),
                    RunBase::Directory(path) => path.display().to_string(),
                };
                let words = run.command.join(" ");
                // Of a line: what does not fit is in the JSON.
                let command = words.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).take(70).collect();
                let changed = size(run.layer.size);
                [run.name.clone(), "kept".to_owned(), since(run.kept_ms), below, changed, command]
            }
        }
    }
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
