//! The one error of this room.

use std::io;

use super::{policy::RuleError, publish::Publish};
use crate::error::Hint;

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error("cannot publish port {} at {}", publish.port, publish.at())]
    Publish {
        publish: Publish,
        #[source]
        source: io::Error,
    },
    #[error("cannot find this host's certificate authorities")]
    Authorities,
    #[error("cannot make a certificate for the sandbox: {why}")]
    Certificate { why: String },
    #[error("cannot {action}")]
    Proxy {
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

impl NetError {
    pub(super) fn proxy(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Proxy { action, source }
    }
}

impl Hint for NetError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Rule(error) => error.hint(),
            Self::Publish { publish: Publish { port, .. }, source } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    Some(format!("another port of the host's, or -p 0:{port} for any that is free"))
                }
                io::ErrorKind::PermissionDenied => {
                    Some(format!("ports below 1024 are root's: -p 0:{port} takes any that is free"))
                }
                io::ErrorKind::AddrNotAvailable => Some("an address of this host's, or none for 127.0.0.1".to_owned()),
                _ => None,
            },
            Self::Authorities => Some(
                "install ca-certificates, or name a file of them with SSL_CERT_FILE: servers are checked by them"
                    .to_owned(),
            ),
            Self::Certificate { .. } | Self::Proxy { .. } => None,
        }
    }
}
