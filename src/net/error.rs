//! The one error of this room.

use std::io;

use super::policy::RuleError;
use crate::error::Hint;

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error(transparent)]
    Rule(#[from] RuleError),
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
            Self::Authorities => Some(
                "install ca-certificates, or name a file of them with SSL_CERT_FILE: servers are checked by them"
                    .to_owned(),
            ),
            Self::Certificate { .. } | Self::Proxy { .. } => None,
        }
    }
}
