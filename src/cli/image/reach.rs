//! How registries are reached, as the options of `pull` and `push` say it.

use std::{path::PathBuf, time::Duration};

use fumehood::image::registry::{Access, Step};

use super::super::progress::Progress;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Registry")]
pub struct Reach {
    /// Take plain HTTP, or a certificate that nobody vouches for; on loopback plain HTTP needs no option
    #[arg(long)]
    insecure: bool,
    /// Believe this authority's certificates (PEM) besides the host's; repeatable
    #[arg(long, value_name = "FILE")]
    tls_ca: Vec<PathBuf>,
    /// How often to try again what may pass
    #[arg(long, value_name = "N", default_value_t = 3)]
    retry: u32,
    /// Give up when nothing comes for so long [default: 30s; push: 2m]
    #[arg(long, value_name = "TIME", value_parser = stall)]
    stall_timeout: Option<Duration>,
}

fn stall(text: &str) -> Result<Duration, String> {
    fumehood::request::limits::parse_duration(text).map_err(|error| error.to_string())
}

impl Reach {
    /// `stall` where none was asked for.
    pub fn access(&self, mirrors: Vec<String>, stall: Duration) -> Access {
        Access {
            insecure: self.insecure,
            authorities: self.tls_ca.clone(),
            stall: self.stall_timeout.unwrap_or(stall),
            retries: self.retry,
            mirrors,
        }
    }
}

pub fn show(progress: &Progress, step: Step) {
    match step {
        Step::Total(bytes) => progress.total(bytes),
        Step::Bytes(bytes) => progress.add(bytes),
    }
}
