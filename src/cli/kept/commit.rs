//! `fumehood commit`.

use std::{path::PathBuf, process::ExitCode};

use fumehood::{
    Result,
    error::Hint,
    image::{
        Image, Reference, change, runs,
        store::{Run, RunBase, Store},
    },
};
use serde::Serialize;

use super::super::message;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name, or as much of it as no other begins with
    #[arg(value_name = "RUN")]
    run: String,
    /// What the image is to be called
    #[arg(value_name = "NAME")]
    name: String,
    /// What is said of it in the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Who made it
    #[arg(short, long, value_name = "WHO")]
    author: Option<String>,
    /// An instruction of a Dockerfile, such as 'CMD ["bash"]' or 'ENV A=1'
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where images are kept, instead of /var/lib/fumehood or ~/.local/share/fumehood
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Committed {
    digest: String,
    names: [String; 1],
}

pub fn run(args: &Args) -> ExitCode {
    made(args).unwrap_or_else(|error| message::fail(&error))
}

fn made(args: &Args) -> Result<ExitCode> {
    let name: Reference = args.name.parse().map_err(Hint::into_error)?;
    let store = super::open(args.store.as_deref())?;
    let run = super::find(&store, &args.run)?;
    let changes = match base(&store, &run)? {
        Some(image) => {
            let config = image.config.config().clone().unwrap_or_default();
            let env = config.env().clone().unwrap_or_default();
            change::parse(&args.change, &env, config.working_dir().as_deref()).map_err(Hint::into_error)?
        }
        // It is told that there is none.
        None => change::parse(&args.change, &[], None).map_err(Hint::into_error)?,
    };
    let image = runs::commit(&store, &run, &changes, args.message.clone(), args.author.clone());
    let image = image.map_err(Hint::into_error)?;
    store.set_name(&name.to_string(), &image.digest).map_err(Hint::into_error)?;
    let done = Committed { digest: image.digest.to_string(), names: [name.to_string()] };
    if args.json {
        return Ok(message::print_json(&done));
    }
    Ok(message::print(&format!("{}\n", done.digest)))
}

fn base(store: &Store, run: &Run) -> Result<Option<Image>> {
    match &run.base {
        RunBase::Image { manifest, .. } => Image::load(store, manifest).map(Some).map_err(Hint::into_error),
        RunBase::Directory(_) => Ok(None),
    }
}
