//! `fumehood cleanup`: removes what a killed fumehood left behind.

use std::process::ExitCode;

use fumehood::cleanup::clean;

use super::message;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let found = match clean(args.dry_run) {
        Ok(found) => found,
        Err(error) => return message::fail(&error),
    };
    if args.json {
        return message::print_json(&found);
    }
    let (kill, remove) = if args.dry_run { ("would kill", "would remove") } else { ("killed", "removed") };
    let mut text = String::new();
    found.killed.iter().for_each(|id| text.push_str(&format!("{kill} sandbox {id}\n")));
    for path in found.records.iter().chain(&found.cgroups) {
        text.push_str(&format!("{remove} {}\n", message::plain(&path.to_string_lossy())));
    }
    if text.is_empty() {
        text.push_str("nothing was left behind\n");
    }
    message::print(&text)
}
