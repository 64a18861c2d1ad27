//! The one error of this room: there was no test, or it says nothing.

use std::io;

use crate::{
    error::Hint,
    net::{NetError, policy::RuleError},
    sys::Errno,
};

#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    #[error("cannot {what}")]
    System {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error(transparent)]
    Net(#[from] NetError),
    /// In words already.
    #[error("{0}")]
    Run(crate::Error),
    /// By this signal, while nothing was known yet.
    #[error("ended by signal {0}")]
    Interrupted(u8),
    #[error("the attempts did not come to their end inside: {0}")]
    Probe(String),
    #[error("what is allowed is not reached from inside, so nothing was tested: {0}")]
    Allowed(String),
}

impl SelftestError {
    pub(super) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    pub(super) fn errno(what: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::System { what, source: errno.into() }
    }
}

impl Hint for SelftestError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::System { .. } => Some("`fumehood doctor` says what this host lets sandboxes have".to_owned()),
            Self::Run(error) => error.hint().map(str::to_owned),
            Self::Rule(error) => error.hint(),
            Self::Net(error) => error.hint(),
            Self::Interrupted(_) | Self::Probe(_) | Self::Allowed(_) => None,
        }
    }
}
