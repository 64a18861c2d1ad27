//! `fumehood rm`.

use std::{path::PathBuf, process::ExitCode};

use fumehood::{Error, Result, error::Hint, image, request::SandboxId};

use super::super::{message, ps};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Their names, or as much of each as no other begins with
    #[arg(value_name = "RUN", required_unless_present = "all", conflicts_with = "all")]
    runs: Vec<String>,
    /// Every kept run
    #[arg(short, long)]
    all: bool,
    /// Where images are kept, instead of /var/lib/fumehood or ~/.local/share/fumehood
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

pub fn run(args: &Args) -> ExitCode {
    removed(args).unwrap_or_else(|error| message::fail(&error))
}

fn removed(args: &Args) -> Result<ExitCode> {
    let store = super::open(args.store.as_deref())?;
    let (kept, broken) = store.runs().map_err(Hint::into_error)?;
    // All are known before the first is removed.
    let mut names = Vec::new();
    for text in &args.runs {
        match broken.iter().find(|name| name.as_str() == text) {
            Some(name) => names.push(name.clone()),
            None => names.push(id(&find(&store, text)?)?),
        }
    }
    if args.all {
        for run in &kept {
            names.push(id(&run.name)?);
        }
        names.extend(broken);
    }
    for name in &names {
        store.remove_run(name).map_err(Hint::into_error)?;
    }
    match store.try_alone().map_err(Hint::into_error)? {
        Some(store) => _ = image::prune(&store).map_err(Hint::into_error)?,
        None => message::note("others use the store now: `fumehood image prune` frees what was only these runs'"),
    }
    Ok(message::print(&names.iter().map(|name| format!("{name}\n")).collect::<String>()))
}

fn find(store: &image::Store, text: &str) -> Result<String> {
    match super::find(store, text) {
        Ok(run) => Ok(run.name),
        Err(_) if ps::running()?.iter().any(|record| record.id == text) => {
            Err(Error::new(format!("run `{text}` is still running")).with_hint(format!("fumehood kill {text}")))
        }
        Err(error) => Err(error),
    }
}

fn id(name: &str) -> Result<SandboxId> {
    SandboxId::parse(name).map_err(|error| Error::new(error.to_string()))
}
