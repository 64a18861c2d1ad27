//! What the host's root looks like, for the `host` root filesystem: how the old top-level directories lead
//! into `/usr`, and which of the few shareable files of `/etc` there are.

use std::{fs, io, path::PathBuf};

use serde::Serialize;

/// Every name that some distribution links or keeps at top level beside `/usr`.
const TOP_LEVEL: [&str; 6] = ["bin", "sbin", "lib", "lib64", "lib32", "libx32"];

/// What programs need of `/etc` to be found, loaded, and to trust TLS certificates, on any distribution:
/// Debian, Alpine and SUSE (ssl), Fedora (pki), Arch (ca-certificates); `alternatives` is where links in
/// `/usr/bin` lead through; crypto-policies is included by Fedora's openssl.cnf. Nothing here holds a
/// secret: `/etc/ssl` and `/etc/pki/tls` as a whole do (`private`).
const ETC: [&str; 9] = [
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates/extracted",
    "/etc/crypto-policies",
];

/// A top-level name of the host's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TopLevel {
    /// Merged /usr: a link, with its target as it stands (`usr/bin`).
    Link(PathBuf),
    /// A directory of its own.
    Directory,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Those of `bin sbin lib lib64 lib32 libx32` that there are, in this order.
    pub top_level: Vec<(&'static str, TopLevel)>,
    /// Absolute paths to share read-only.
    pub etc: Vec<&'static str>,
}

impl Layout {
    /// Fifteen system calls, so only for a sandbox that uses the host's `/usr`.
    #[must_use]
    pub fn probe() -> Self {
        let top_level = TOP_LEVEL
            .into_iter()
            .filter_map(|name| match fs::read_link(format!("/{name}")) {
                Ok(target) => Some((name, TopLevel::Link(target))),
                // EINVAL: it is there and no link.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Some((name, TopLevel::Directory)),
                Err(_) => None,
            })
            .collect();
        Self { top_level, etc: ETC.into_iter().filter(|path| fs::metadata(path).is_ok()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_there() {
        let layout = Layout::probe();
        assert!(layout.top_level.iter().any(|(name, _)| *name == "bin"));
        for (name, kind) in &layout.top_level {
            let link = fs::symlink_metadata(format!("/{name}")).unwrap().is_symlink();
            assert_eq!(link, matches!(kind, TopLevel::Link(_)), "{name}");
        }
        assert!(layout.etc.iter().all(|path| fs::metadata(path).is_ok()));
    }
}
