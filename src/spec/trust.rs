//! How a sandbox comes to trust the proxy where requests are looked into: a bundle of authorities in which the sandbox's
//! own is, by the names of files and variables at which programs look.

use std::path::{Path, PathBuf};

use super::SpecError;
use crate::{image, net::Authority, plan::setup::Kind, request::Placed};

const BUNDLE: &str = "/etc/fumehood-ca.pem";
/// OpenSSL and Go, Requests, Node, curl, git, Deno, AWS, pip, Cargo.
const VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "DENO_CERT",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
];
/// What other programs read, as distributions call it.
const KNOWN: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(super) fn variables() -> impl Iterator<Item = (String, String)> {
    VARIABLES.iter().map(|name| ((*name).to_owned(), BUNDLE.to_owned()))
}

/// `root`: where the sandbox's files are, if they are not this host's.
pub(super) fn place(
    authority: &Authority,
    root: Option<&Path>,
    placed: &mut Vec<Placed>,
    needed: &mut Vec<(PathBuf, Kind)>,
) -> Result<(), SpecError> {
    let content = authority.bundle();
    let mut over: Vec<PathBuf> = Vec::new();
    match root {
        None => {
            placed.push(Placed::File { path: BUNDLE.into(), mode: 0o644, content: content.clone() });
            over.extend(KNOWN.iter().filter_map(|path| std::fs::canonicalize(path).ok()));
        }
        Some(root) => {
            let own = image::resolve(root, Path::new(BUNDLE))?;
            needed.push((own.clone(), Kind::File));
            over.push(own);
            for path in KNOWN {
                let path = image::resolve(root, Path::new(path))?;
                let inside = path.strip_prefix("/").unwrap_or(&path);
                if std::fs::symlink_metadata(root.join(inside)).is_ok_and(|found| found.is_file()) {
                    over.push(path);
                }
            }
        }
    }
    over.sort();
    over.dedup();
    placed.extend(over.into_iter().map(|path| Placed::Over { path, content: content.clone() }));
    Ok(())
}
