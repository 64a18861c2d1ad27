//! `image export`.

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use fumehood::{
    Error, Result,
    error::Hint,
    image::{
        Image, ImageError, Reference, Store,
        export::{self, Sink},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// An OCI layout in a tar archive
    OciArchive,
    /// An OCI layout in a directory
    Oci,
    /// What `docker load` takes, of any age
    DockerArchive,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name, or a digest or as much of it as no other begins with
    #[arg(value_name = "IMAGE")]
    image: String,
    /// A file or directory that is not there yet, or - for standard output
    #[arg(value_name = "FILE|DIR")]
    to: PathBuf,
    /// In which form
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "oci-archive")]
    format: Format,
}

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let store = super::open(store)?;
    let image = Image::find(&store, &args.image).map_err(Hint::into_error)?;
    let name = name(&store, &image, &args.image)?;
    let done = match args.format {
        Format::Oci if args.to == Path::new("-") => {
            return Err(Error::new("a directory cannot be written to standard output")
                .with_hint("choose --format oci-archive or docker-archive"));
        }
        Format::Oci => to_directory(&store, &image, name.as_ref(), &args.to),
        format if args.to == Path::new("-") => {
            if io::stdout().is_terminal() {
                return Err(Error::new("an archive would be written to the terminal").with_hint("name a file"));
            }
            write(&store, &image, name.as_ref(), format, io::stdout().lock())
        }
        format => to_file(&store, &image, name.as_ref(), format, &args.to),
    };
    done.map_err(Hint::into_error)?;
    Ok(ExitCode::SUCCESS)
}

/// The name that was given, if it is one; else the first that the image has.
fn name(store: &Store, image: &Image, text: &str) -> Result<Option<Reference>> {
    let names = store.names().map_err(Hint::into_error)?;
    let given = text.parse::<Reference>().ok().map(|reference| reference.to_string());
    let mut own = names.into_iter().filter(|named| named.manifest == image.digest).map(|named| named.name);
    let first = own.next();
    let chosen = own.find(|name| Some(name) == given.as_ref()).or(first);
    Ok(chosen.and_then(|name| name.parse().ok()))
}

fn write(
    store: &Store,
    image: &Image,
    name: Option<&Reference>,
    format: Format,
    to: impl Write,
) -> std::result::Result<(), ImageError> {
    let to = Sink::archive(BufWriter::with_capacity(256 << 10, to));
    match format {
        Format::DockerArchive => export::docker(store, image, name, to),
        _ => export::layout(store, image, name, to),
    }
}

/// Half a file is no archive: it is removed.
fn to_file(
    store: &Store,
    image: &Image,
    name: Option<&Reference>,
    format: Format,
    path: &Path,
) -> std::result::Result<(), ImageError> {
    let failed = |source| ImageError::Io { action: "make", path: path.to_owned(), source };
    let file = File::create_new(path).map_err(failed)?;
    let done = write(store, image, name, format, file);
    if done.is_err() {
        _ = fs::remove_file(path);
    }
    done
}

fn to_directory(
    store: &Store,
    image: &Image,
    name: Option<&Reference>,
    path: &Path,
) -> std::result::Result<(), ImageError> {
    let to = Sink::directory(path)?;
    let done = export::layout(store, image, name, to);
    if done.is_err() {
        for part in ["oci-layout", "index.json"] {
            _ = fs::remove_file(path.join(part));
        }
        _ = fs::remove_dir_all(path.join("blobs"));
        _ = fs::remove_dir(path);
    }
    done
}
