//! `fumehood unpack`: an image as an OCI bundle, for any runtime.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use fumehood::{
    Result,
    error::Hint,
    image::{Image, Store, bundle, import},
};

use super::{
    super::{message, progress::Progress},
    import::platform,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// An image of the store, or a file or directory with one
    #[arg(value_name = "IMAGE|FILE")]
    from: String,
    /// Where the bundle is to be; it must not be there, or be empty
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// Which image of several, as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Where images are kept
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

pub fn run(args: &Args) -> ExitCode {
    unpack(args).unwrap_or_else(|error| message::fail(&error))
}

fn unpack(args: &Args) -> Result<ExitCode> {
    let destination = bundle::Destination::make(&args.to).map_err(Hint::into_error)?;
    if Path::new(&args.from).exists() {
        // Beside what becomes of it, and gone when that is done.
        let put_by = destination.put_by().map_err(Hint::into_error)?;
        let store = Store::open(Some(put_by.path())).map_err(Hint::into_error)?;
        let progress = Progress::new("reading", None);
        let import = import::Import {
            what: args.from.clone(),
            name: "unpacked".parse().ok(),
            platform: platform(args.platform.as_deref())?,
            progress: &|bytes| progress.add(bytes),
        };
        import::from_path(&store, Path::new(&args.from), &import).map_err(Hint::into_error)?;
        progress.finish();
        let image = Image::find(&store, "unpacked").map_err(Hint::into_error)?;
        into(&store, &image, destination)
    } else {
        let store = super::open(args.store.as_deref())?;
        let image = Image::find(&store, &args.from).map_err(Hint::into_error)?;
        into(&store, &image, destination)
    }
}

fn into(store: &Store, image: &Image, destination: bundle::Destination) -> Result<ExitCode> {
    let progress = Progress::new("unpacking", Some(image.packed_bytes()));
    let done = bundle::unpack(store, image, destination, &|bytes| progress.add(bytes)).map_err(Hint::into_error)?;
    progress.finish();
    let notes = done.notes;
    if notes.attributes_left_out > 0 {
        let what = "extended attributes were left out: only user.* and file capabilities set by root are kept";
        message::note(&format!("{} {what}", notes.attributes_left_out));
    }
    if notes.devices_left_out > 0 {
        message::note(&format!("{} device files were left out: only root can make them", notes.devices_left_out));
    }
    if done.runs_as_root {
        message::note(
            "the bundle's program runs as root of its user namespace, who is you: an ordinary user has one id",
        );
    }
    Ok(ExitCode::SUCCESS)
}
