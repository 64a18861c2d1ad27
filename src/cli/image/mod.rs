//! `fumehood image`: the images of this user.

mod build;
mod export;
mod history;
mod import;
mod inspect;
mod list;
mod prune;
mod pull;
mod push;
mod reach;
mod remove;
mod tag;
mod unpack;

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use fumehood::{Result, error::Hint, image::Store};

use super::{message, table};

pub use unpack::Args as UnpackArgs;
pub use unpack::run as run_unpack;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where images are kept, instead of /var/lib/fumehood or ~/.local/share/fumehood
    #[arg(long, value_name = "DIR", global = true)]
    store: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make an image from a recipe
    #[command(
        after_help = "Examples:\n  fumehood image build --list\n  fumehood image build python\n  fumehood image build \
                      ./recipe.toml -t mine:2\n  fumehood image build ./recipe.toml --no-cache --json\n\nThe same recipe and \
                      inputs give the same digest, and what was built is not built again. Packages that have changed \
                      where they come from are not seen without --no-cache. Recipes are described in docs/images.md; files \
                      get the time of $SOURCE_DATE_EPOCH, or always the same."
    )]
    Build(build::Args),
    /// Take images from a file, a directory, an engine or standard input
    #[command(
        after_help = "Examples:\n  fumehood image import image.tar\n  fumehood image import rootfs.tar.gz --name mine:1\n  \
                      docker save app:2 | fumehood image import -\n  fumehood image import podman:localhost/app:2"
    )]
    Import(import::Args),
    /// Fetch an image from a registry
    #[command(
        after_help = "Examples:\n  fumehood image pull python:3.12-slim\n  fumehood image pull ghcr.io/owner/app@sha256:…\n  \
                      fumehood image pull localhost:5000/app:2 --platform linux/arm64\n\nCredentials are those of \
                      `docker login` and `podman login`; HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE count."
    )]
    Pull(pull::Args),
    /// Send an image to a registry
    #[command(
        after_help = "Examples:\n  fumehood image push ghcr.io/owner/app:2\n  fumehood image push app:2 localhost:5000/app:2"
    )]
    Push(push::Args),
    /// Write an image to a file or a directory, for other tools
    #[command(
        after_help = "Examples:\n  fumehood image export app:2 app.tar\n  fumehood image export app:2 app --format oci\n  \
                      fumehood image export app:2 - --format docker-archive | docker load"
    )]
    Export(export::Args),
    /// List the images
    #[command(visible_alias = "ls", after_help = "Examples:\n  fumehood image list\n  fumehood image list --json")]
    List(list::Args),
    /// Show what an image is made of and what it says of itself
    #[command(after_help = "Examples:\n  fumehood image inspect python:3.12-slim")]
    Inspect(inspect::Args),
    /// Show how an image was made, the newest layer first
    #[command(after_help = "Examples:\n  fumehood image history python:3.12-slim")]
    History(history::Args),
    /// Give an image one more name
    #[command(after_help = "Examples:\n  fumehood image tag python:3.12-slim mine:1")]
    Tag(tag::Args),
    /// Remove images, and what no other image needs
    #[command(
        visible_alias = "remove",
        after_help = "Examples:\n  fumehood image rm python:3.12-slim\n  fumehood image rm --all"
    )]
    Rm(remove::Args),
    /// Free what no image needs
    #[command(after_help = "Examples:\n  fumehood image prune")]
    Prune(prune::Args),
}

pub fn run(args: &Args) -> ExitCode {
    let store = args.store.as_deref();
    let done = match &args.verb {
        Verb::Build(args) => build::run(store, args),
        Verb::Import(args) => import::run(store, args),
        Verb::Pull(args) => pull::run(store, args),
        Verb::Push(args) => push::run(store, args),
        Verb::Export(args) => export::run(store, args),
        Verb::List(args) => list::run(store, args),
        Verb::Inspect(args) => inspect::run(store, args),
        Verb::History(args) => history::run(store, args),
        Verb::Tag(args) => tag::run(store, args),
        Verb::Rm(args) => remove::run(store, args),
        Verb::Prune(args) => prune::run(store, args),
    };
    done.unwrap_or_else(|error| message::fail(&error))
}

fn open(store: Option<&std::path::Path>) -> Result<Store> {
    Store::open(store).map_err(Hint::into_error)
}

fn open_alone(store: Option<&std::path::Path>) -> Result<Store> {
    Store::open_alone(store).map_err(Hint::into_error)
}

/// As people read it: three digits and a unit.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 9.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_three_digits() {
        let texts = [0, 999, 1000, 9_949, 12_345, 999_499, 999_500, 3_000_000_000].map(super::size);
        assert_eq!(texts, ["0 B", "999 B", "1.0 kB", "9.9 kB", "12 kB", "999 kB", "1.0 MB", "3.0 GB"]);
    }
}
