//! Images from and to registries (distribution-spec 1.1), over blocking HTTP.
//!
//! A registry, and whoever is between it and us, is hostile: nothing it sends has a name in the store before its size
//! and digest are checked, nothing it says makes us ask what only we can reach ([`address`]), and nobody but the host
//! that credentials are for sees them ([`client`]).

mod address;
mod answer;
mod challenge;
mod client;
mod credentials;
mod error;
mod patience;
mod pull;
mod push;
mod token;
mod trust;
pub(crate) mod url;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;

use std::{path::PathBuf, time::Duration};

pub use error::RegistryError;
pub use pull::{Pull, Pulled, pull};
pub use push::{Push, Pushed, push};

/// How registries are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Plain HTTP, or certificates that nobody vouches for, will do.
    pub insecure: bool,
    /// Files with certificates of authorities, besides the host's.
    pub authorities: Vec<PathBuf>,
    /// How long nothing may come before it is over.
    pub stall: Duration,
    /// How often what may pass is tried again.
    pub retries: u32,
    /// Asked before docker.io is, in this order.
    pub mirrors: Vec<String>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            insecure: false,
            authorities: Vec::new(),
            stall: Duration::from_secs(30),
            retries: 3,
            mirrors: Vec::new(),
        }
    }
}

/// What is told while it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All bytes there will be.
    Total(u64),
    /// So many more are done.
    Bytes(u64),
}
