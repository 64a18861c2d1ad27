//! `image rm`.

use std::{path::Path, process::ExitCode};

use fumehood::{
    Result,
    error::Hint,
    image::{self, Image, ImageError, Reference},
};

use super::super::message;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, or digests or as much of each as no other begins with
    #[arg(value_name = "IMAGE", required_unless_present = "all", conflicts_with = "all")]
    images: Vec<String>,
    /// Every image
    #[arg(short, long)]
    all: bool,
}

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let store = super::open(store)?;
    let all = store.names().map_err(Hint::into_error)?;
    // All are known before the first is removed.
    let mut names = Vec::new();
    for text in &args.images {
        let exact = text.parse::<Reference>().ok().map(|reference| reference.to_string());
        match exact.filter(|name| all.iter().any(|named| named.name == *name)) {
            Some(name) => names.push(name),
            None => {
                let image = Image::find(&store, text).map_err(ImageError::into_error)?;
                names.extend(all.iter().filter(|named| named.manifest == image.digest).map(|named| named.name.clone()));
            }
        }
    }
    if args.all {
        names.extend(all.into_iter().map(|named| named.name));
    }
    for name in &names {
        store.remove_name(name).map_err(Hint::into_error)?;
    }
    match store.try_alone().map_err(Hint::into_error)? {
        Some(store) => {
            image::prune(&store).map_err(Hint::into_error)?;
            super::prune::tell_unreadable(&store)?;
        }
        None => message::note("others use the store now: `fumehood image prune` frees what was only these images'"),
    }
    Ok(message::print(&names.iter().map(|name| format!("{name}\n")).collect::<String>()))
}
