//! `image pull`.

use std::{path::Path, process::ExitCode, time::Duration};

use fumehood::{
    Result,
    error::Hint,
    image::{
        Reference,
        registry::{self, Pull},
    },
};

use super::{
    super::{message, progress::Progress},
    import::platform,
    reach::{Reach, show},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME, NAME:TAG, HOST/NAME:TAG or NAME@sha256:DIGEST
    #[arg(value_name = "REF")]
    reference: String,
    /// Which image of several, as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Ask this registry before docker.io; repeatable; also $FUMEHOOD_REGISTRY_MIRROR, separated by commas
    #[arg(long, value_name = "HOST")]
    mirror: Vec<String>,
    #[command(flatten)]
    reach: Reach,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const MIRRORS: &str = "FUMEHOOD_REGISTRY_MIRROR";
const STALL: Duration = Duration::from_secs(30);

pub fn run(store: Option<&Path>, args: &Args) -> Result<ExitCode> {
    let reference: Reference = args.reference.parse().map_err(Hint::into_error)?;
    let platform = args.platform.as_deref().map(|text| platform(Some(text))).transpose()?;
    let store = super::open(store)?;
    let progress = Progress::new("pulling", None);
    let done = registry::pull(
        &store,
        &Pull {
            reference: &reference,
            platform,
            access: &args.reach.access(mirrors(args), STALL),
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

fn mirrors(args: &Args) -> Vec<String> {
    if !args.mirror.is_empty() {
        return args.mirror.clone();
    }
    let named = std::env::var(MIRRORS).unwrap_or_default();
    named.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned).collect()
}
