//! `fumehood snapshot`: a container of `fumehood-oci` saved to a directory, and brought back.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use fumehood::{
    Error, Result,
    container::{self, Driver, Isolation},
    criu::Options,
    error::Hint,
    state::{
        StateError,
        root::{ContainerId, StateRoot},
    },
};

use super::{message, ps};

/// CRIU writes no file of that name.
const OF_GVISOR: &str = "checkpoint.img";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Save a running container, which ends with that
    Save(Save),
    /// Bring a saved container back, from the bundle that it was made of
    Restore(Restore),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The container's name
    container: String,
    /// The directory of what is saved, which is yours alone
    dir: PathBuf,
    /// Where the state of containers is kept, if not where fumehood-oci keeps it by itself
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Save {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Restore {
    #[command(flatten)]
    which: Which,
    /// The directory of the bundle
    #[arg(long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Do not wait for its end
    #[arg(long)]
    detach: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let done = match &args.verb {
        Verb::Save(args) => save(args).map(|()| ExitCode::SUCCESS),
        Verb::Restore(args) => restore(args),
    };
    done.unwrap_or_else(|error| message::fail(&error))
}

impl Which {
    fn find(&self) -> Result<(StateRoot, ContainerId)> {
        let root = StateRoot::at(self.root.as_deref()).map_err(StateError::into_error)?;
        Ok((root, ContainerId::parse(&self.container).map_err(StateError::into_error)?))
    }
}

fn warn(text: &str) {
    message::note(text);
}

fn save(args: &Save) -> Result<()> {
    let (root, id) = args.which.find()?;
    if let Err(error) = container::record(&root, &id) {
        let name = args.which.container.as_str();
        let of_run = ps::running()?.iter().any(|record| record.id == name);
        return Err(if of_run { not_of_run(name) } else { error });
    }
    container::checkpoint(&container::Checkpoint {
        root,
        id,
        criu: None,
        images: args.which.dir.clone(),
        work: None,
        parent: None,
        pre_dump: false,
        leave_running: false,
        status: None,
        options: Options::default(),
        warn,
    })
}

fn not_of_run(name: &str) -> Error {
    Error::new(format!(
        "`{name}` is a sandbox of `fumehood run`, which cannot be saved: its streams, limits and network are held by the \
         process that started it"
    ))
    .with_hint("a container of fumehood-oci can be, on gVisor's kernel or with CRIU")
}

fn restore(args: &Restore) -> Result<ExitCode> {
    let (root, id) = args.which.find()?;
    let status = container::restore(&container::Restore {
        root,
        id,
        bundle: absolute(&args.bundle)?,
        criu: None,
        images: args.which.dir.clone(),
        work: None,
        pid_file: None,
        console_socket: None,
        detach: args.detach,
        driver: Driver::Cgroupfs,
        rootless: container::is_rootless(),
        // What gVisor has saved is gVisor's to bring back, whether the bundle says so or not.
        isolation: Isolation { gvisor: args.which.dir.join(OF_GVISOR).is_file(), ..Isolation::default() },
        egress: container::Egress::default(),
        options: Options::default(),
        warn,
    })?;
    Ok(ExitCode::from(status as u8))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::new(format!("--bundle `{}`: {error}", path.display())))
}
