//! `fumehood kill`: ends running sandboxes.

use std::process::ExitCode;

use fumehood::{
    Error, Result,
    error::Hint,
    state::{self, Record},
};

use super::{message, ps, usage::nearest};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ids, or as much of each as no other begins with
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// Every sandbox of yours
    #[arg(long)]
    all: bool,
}

pub fn run(args: &Args) -> ExitCode {
    match kill(args) {
        Ok(killed) => message::print(&killed.iter().map(|id| format!("{id}\n")).collect::<String>()),
        Err(error) => message::fail(&error),
    }
}

/// All ids are known before the first is killed.
fn kill(args: &Args) -> Result<Vec<String>> {
    let running = ps::running()?;
    let mut chosen: Vec<&Record> = Vec::new();
    if args.all {
        chosen.extend(&running);
    }
    for id in &args.ids {
        let record = choose(&running, id)?;
        if !chosen.contains(&record) {
            chosen.push(record);
        }
    }
    let mut killed = Vec::new();
    for record in chosen {
        // One that has ended meanwhile is as good as killed.
        if record.kill().map_err(|error: state::StateError| error.into_error())? {
            killed.push(record.id.clone());
        }
    }
    Ok(killed)
}

pub(super) fn choose<'a>(running: &'a [Record], id: &str) -> Result<&'a Record> {
    if let Some(record) = running.iter().find(|record| record.id == id) {
        return Ok(record);
    }
    let mut beginning = running.iter().filter(|record| !id.is_empty() && record.id.starts_with(id));
    match (beginning.next(), beginning.next()) {
        (Some(record), None) => Ok(record),
        (Some(first), Some(second)) => Err(Error::new(format!("`{id}` is the beginning of several ids"))
            .with_hint(format!("give more of it: {}, {}", first.id, second.id))),
        _ => {
            let error = Error::new(format!("no sandbox called `{id}` is running"));
            Err(match nearest(id, running.iter().map(|record| record.id.as_str())) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error.with_hint("`fumehood ps` lists them"),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_or_what_only_it_begins_with() {
        let running = ["abc123", "abd456", "ab"].map(Record::unknown);
        let chosen = |id| choose(&running, id).map(|record| record.id.as_str());
        assert_eq!(chosen("abc123"), Ok("abc123"));
        assert_eq!(chosen("abd"), Ok("abd456"));
        assert_eq!(chosen("ab"), Ok("ab"), "a whole id wins over beginnings");
        let hint = |id| choose(&running, id).unwrap_err().hint().unwrap().to_owned();
        assert_eq!(hint("a"), "give more of it: abc123, abd456");
        assert_eq!(hint("abc132"), "did you mean `abc123`?");
        assert_eq!(hint(""), "`fumehood ps` lists them");
    }
}
