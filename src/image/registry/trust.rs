//! Whose certificates are believed: the host's authorities (also by `SSL_CERT_FILE` and `SSL_CERT_DIR`), those that
//! the user names, and those that Docker's and Podman's `certs.d` have for the one registry. A host without any has
//! those that browsers have.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::error::RegistryError;

/// `host` is the registry's as it is written in an image's name, with its port; nobody else has a `certs.d`.
pub fn config(host: Option<&str>, named: &[PathBuf], insecure: bool) -> Result<TlsConfig, RegistryError> {
    let mut found = host_authorities();
    let few = found.is_empty();
    for path in named {
        let certificates = read(path)?;
        if certificates.is_empty() {
            return Err(RegistryError::Authority {
                path: path.clone(),
                why: "there is no certificate in it, as PEM".to_owned(),
            });
        }
        found.extend(certificates);
    }
    for path in host.map(certs_d).unwrap_or_default() {
        found.extend(read(&path)?);
    }
    let roots = if few && found.is_empty() { RootCerts::WebPki } else { RootCerts::from(found) };
    Ok(TlsConfig::builder().root_certs(roots).disable_verification(insecure).build())
}

/// Nobody: with it one learns that there is TLS, and no more.
#[must_use]
pub fn nobody() -> TlsConfig {
    TlsConfig::builder().root_certs(RootCerts::from([])).build()
}

/// One that cannot be read is one authority less, which the connection will tell.
fn host_authorities() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs().certs;
    found.iter().map(|one| Certificate::from_der(one.as_ref()).to_owned()).collect()
}

fn certs_d(host: &str) -> Vec<PathBuf> {
    // A registry's name is checked, and what it is to be here has no slash and does not begin with a dot.
    let mut dirs = vec![PathBuf::from("/etc/containers/certs.d"), PathBuf::from("/etc/docker/certs.d")];
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    dirs.extend(home.map(|home| home.join(".config/containers/certs.d")));
    let files = dirs.into_iter().filter_map(|dir| fs::read_dir(dir.join(host)).ok()).flatten().flatten();
    files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "crt")).collect()
}

fn read(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let bad = |why: String| RegistryError::Authority { path: path.to_owned(), why };
    let bytes = fs::read(path).map_err(|error| bad(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&bytes) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| bad(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    Ok(certificates)
}
