//! `image import`.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use fumehood::{
    Error, Result,
    error::Hint,
    image::{
        ImageError, Reference, Store,
        import::{self, Import, Imported},
        manifest::Wanted,
    },
};

use super::super::{message, progress::Progress};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A docker-archive, an oci-archive, an OCI layout, a tar of a root file system, `docker:NAME`, `podman:NAME`, or -
    #[arg(value_name = "FROM")]
    from: String,
    /// What to call it, instead of the names it brings
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,
    /// Which image of several, as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let store = super::open(store)?;
    // What an import that was killed has left is in nobody's way but the disk's.
    store.sweep().map_err(Hint::into_error)?;
    let name = args.name.as_deref().map(str::parse::<Reference>).transpose().map_err(Hint::into_error)?;
    let progress = Progress::new("importing", None);
    let import = Import {
        what: args.from.clone(),
        name: name.clone(),
        platform: platform(args.platform.as_deref())?,
        progress: &|bytes| progress.add(bytes),
    };
    let done = match args.from.split_once(':') {
        _ if args.from == "-" => import::from_stream(&store, io::stdin().lock(), &import).map_err(Hint::into_error),
        Some((engine @ ("docker" | "podman"), image)) => from_engine(&store, engine, image, import),
        _ => import::from_path(&store, Path::new(&args.from), &import).map_err(Hint::into_error),
    }?;
    progress.finish();
    if args.json {
        return Ok(message::print_json(&done));
    }
    let lines = done.iter().flat_map(|image| image.names.iter().map(|name| format!("{name}\n")));
    Ok(message::print(&lines.collect::<String>()))
}

pub(super) fn platform(text: Option<&str>) -> Result<Wanted> {
    let bad = |text: &str| {
        Error::new(format!("--platform `{text}` is no platform")).with_hint("write it as linux/amd64 or linux/arm/v7")
    };
    text.map_or_else(|| Ok(Wanted::here()), |text| Wanted::parse(text).ok_or_else(|| bad(text)))
}

fn from_engine(store: &Store, engine: &str, image: &str, mut import: Import<'_>) -> Result<Vec<Imported>> {
    if image.starts_with('-') || image.is_empty() {
        return Err(Error::new(format!("`{image}` names no image of {engine}")));
    }
    import.what = format!("{engine} save {image}");
    let failed = |error: io::Error| {
        Error::new(format!("cannot run {engine}: {error}")).with_hint(format!("is {engine} installed and in PATH?"))
    };
    let child = Command::new(engine).args(["save", image]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(failed)?;
    let done = match child.stdout.take() {
        Some(out) => import::from_stream(store, out, &import),
        None => Err(ImageError::Import { what: import.what.clone(), why: "it has no output".to_owned() }),
    };
    let status = child.wait().map_err(failed)?;
    match done {
        // It was us who did not take more.
        Err(error) if status.signal() == Some(libc::SIGPIPE) || matches!(error, ImageError::Io { .. }) => {
            Err(error.into_error())
        }
        _ if !status.success() => Err(Error::new(format!("{}: {status}", import.what))
            .with_hint(format!("`{engine} images` lists what {engine} has"))),
        done => done.map_err(Hint::into_error),
    }
}
