//! `image tag`.

use std::{path::Path, process::ExitCode};

use fumehood::{
    Result,
    error::Hint,
    image::{Image, Reference},
};

use super::super::message;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name, or a digest or as much of it as no other begins with
    #[arg(value_name = "IMAGE")]
    image: String,
    /// What it is to be called as well
    #[arg(value_name = "NAME")]
    name: String,
}

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let store = super::open(store)?;
    let name: Reference = args.name.parse().map_err(Hint::into_error)?;
    let image = Image::find(&store, &args.image).map_err(Hint::into_error)?;
    store.set_name(&name.to_string(), &image.digest).map_err(Hint::into_error)?;
    Ok(message::print(&format!("{name}\n")))
}
