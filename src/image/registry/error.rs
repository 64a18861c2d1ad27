//! What goes wrong with a registry, and which of it may go right the next time.

use std::{io, path::PathBuf, time::Duration};

use super::address::Refused;
use crate::error::Hint;

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{repository}: {registry} answers {status}{said} to {what}")]
    Status { registry: String, repository: String, what: String, status: u16, said: String, after: Option<Duration> },
    #[error("{repository}: {registry} answers {what} with {kind} (status {status}), as no registry does")]
    NoRegistry { registry: String, repository: String, what: String, status: u16, kind: String },
    #[error("{repository}: {what} of {registry}: {why}")]
    Wrong { registry: String, repository: String, what: String, why: String },
    #[error("cannot reach {host}: {why}")]
    Network { host: String, why: String, refused: bool },
    #[error("cannot trust {host}: {why}")]
    Certificate { host: String, why: String },
    #[error("{registry} leads to {to}: {why}")]
    Led { registry: String, to: String, why: String },
    #[error("{registry} wants to know who asks, and {why}")]
    Login { registry: String, why: String },
    #[error("credentials for {registry}: {from}: {why}")]
    Credentials { registry: String, from: String, why: String },
    #[error("`{text}` is no host of a registry")]
    Host { text: String },
    #[error("{path}: {why}", path = path.display())]
    Authority { path: PathBuf, why: String },
    #[error("another layer failed")]
    Stopped,
}

impl RegistryError {
    /// Whether the same may work a little later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Network { .. } => true,
            _ => false,
        }
    }

    /// When the registry says it should be asked again.
    #[must_use]
    pub fn after(&self) -> Option<Duration> {
        match self {
            Self::Status { after, .. } => *after,
            _ => None,
        }
    }

    /// What the client said of a request to `host`.
    pub(super) fn of(registry: &str, host: &str, error: ureq::Error) -> Self {
        let host = host.to_owned();
        match error {
            ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(rustls::Error::InvalidCertificate(why)) => Self::Certificate { host, why: certificate(why) },
                Some(other) => Self::Network { host, why: format!("TLS: {other}"), refused: false },
                None if error.kind() == io::ErrorKind::TimedOut => Self::stalled(host),
                None => {
                    let refused = error.kind() == io::ErrorKind::ConnectionRefused;
                    Self::Network { host, why: error.to_string(), refused }
                }
            },
            ureq::Error::Timeout(_) => Self::stalled(host),
            ureq::Error::HostNotFound => Self::Network { host, why: "there is no such host".to_owned(), refused: true },
            ureq::Error::Other(inner) => match inner.downcast::<Refused>() {
                Ok(refused) => Self::Led { registry: registry.to_owned(), to: host, why: refused.to_string() },
                Err(other) => Self::Network { host, why: other.to_string(), refused: false },
            },
            ureq::Error::Protocol(error) => {
                Self::Network { host, why: format!("its answer is no HTTP: {error}"), refused: false }
            }
            ureq::Error::Rustls(error) => Self::Network { host, why: format!("TLS: {error}"), refused: false },
            other => Self::Network { host, why: other.to_string(), refused: false },
        }
    }

    pub(super) fn stalled(host: String) -> Self {
        Self::Network { host, why: "nothing came from it for too long".to_owned(), refused: false }
    }
}

fn certificate(why: &rustls::CertificateError) -> String {
    match why {
        rustls::CertificateError::UnknownIssuer => {
            "its certificate is of an authority that is not known here".to_owned()
        }
        rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name".to_owned()
        }
        other => format!("its certificate: {other}"),
    }
}

impl Hint for RegistryError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Status { registry, status: 401 | 403, .. } | Self::Login { registry, .. } => Some(format!(
                "is the name right? if it is private: `docker login {registry}` or `podman login {registry}`, whose \
                 files are read here too"
            )),
            Self::Status { status: 404, .. } => Some("is its name right, and its tag?".to_owned()),
            Self::Status { status: 429, .. } => Some("too many have asked it; later, or from a --mirror".to_owned()),
            Self::NoRegistry { .. } => Some("is that a registry? its name is the first part of the image's".to_owned()),
            Self::Wrong { .. } => Some("nothing of it was kept".to_owned()),
            Self::Certificate { .. } => Some(
                "name the authority's certificate with --tls-ca FILE; --insecure trusts anybody on the way".to_owned(),
            ),
            Self::Network { why, .. } if why.starts_with("TLS: ") => {
                Some("a registry without TLS off this machine needs --insecure".to_owned())
            }
            Self::Host { .. } => Some("write it as HOST or HOST:PORT".to_owned()),
            _ => None,
        }
    }
}
