//! `image push`.

use std::{path::Path, process::ExitCode, time::Duration};

use fumehood::{
    Result,
    error::Hint,
    image::{
        Image, Reference,
        registry::{self, Push},
    },
};

use super::{
    super::{message, progress::Progress},
    reach::{Reach, show},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name, or a digest or as much of it as no other begins with
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where to, as HOST/NAME:TAG; without it, where its name says
    #[arg(value_name = "REF")]
    reference: Option<String>,
    #[command(flatten)]
    reach: Reach,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A registry may take its time to put a large layer where it belongs.
const STALL: Duration = Duration::from_secs(120);

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let to = args.reference.as_deref().unwrap_or(&args.image);
    let reference: Reference = to.parse().map_err(Hint::into_error)?;
    let store = super::open(store)?;
    let image = Image::find(&store, &args.image).map_err(Hint::into_error)?;
    let progress = Progress::new("pushing", None);
    let done = registry::push(
        &store,
        &Push {
            image: &image,
            reference: &reference,
            access: &args.reach.access(Vec::new(), STALL),
            progress: &|step| show(&progress, step),
        },
    );
    progress.finish();
    let done = done.map_err(Hint::into_error)?;
    if args.json {
        return Ok(message::print_json(&done));
    }
    Ok(message::print(&format!("{}\n", done.name)))
}
