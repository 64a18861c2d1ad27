//! Servers to which the proxy adds a key: their certificates, and what they say back.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::{
    SelftestError,
    names::{KEYED, address},
};
use crate::net::authority;

/// The header that is added, in lower case, and by which it is known on the wire.
pub const HEADER: &str = "x-selftest-key";
/// What a server says that was shown the key in cleartext.
pub const SEEN: &[u8] = b"the key was seen in cleartext";
/// The end of everything that is said back.
pub const END: &[u8] = b"\r\nend of what was said\r\n";

/// What nobody inside is to see.
#[must_use]
pub fn key(salt: &str) -> String {
    format!("key-of-the-selftest-{salt}-0123456789")
}

/// How servers of TLS stand for their names, by address.
#[derive(Debug, Clone)]
pub struct Certificates(HashMap<IpAddr, Arc<ServerConfig>>);

impl Certificates {
    /// And the certificate of the one authority that is to be trusted, as a file has it.
    pub fn make() -> Result<(Self, String), SelftestError> {
        let (trusted, unknown) = (signs()?, signs()?);
        let mut all = HashMap::new();
        for name in KEYED {
            let (by, shown) = if name == KEYED[1] { (&unknown, name) } else { (&trusted, name) };
            let shown = if name == KEYED[2] { "elsewhere.example" } else { shown };
            let mut params = CertificateParams::new([shown.to_owned()]).map_err(failed)?;
            if name == KEYED[3] {
                params.not_before = date_time_ymd(2001, 1, 1);
                params.not_after = date_time_ymd(2002, 1, 1);
            }
            let key = KeyPair::generate().map_err(failed)?;
            let leaf = params.signed_by(&key, &by.0).map_err(failed)?;
            if let Some(at) = address(name) {
                all.insert(at, Arc::new(config(leaf.der(), &key)?));
            }
        }
        Ok((Self(all), trusted.1))
    }

    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<Arc<ServerConfig>> {
        self.0.get(&address).cloned()
    }
}

fn signs() -> Result<(Issuer<'static, KeyPair>, String), SelftestError> {
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority::pem(params.self_signed(&key).map_err(failed)?.der());
    Ok((Issuer::new(params, key), pem))
}

fn config(leaf: &CertificateDer<'static>, key: &KeyPair) -> Result<ServerConfig, SelftestError> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.clone()], key)
        .map_err(failed)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> SelftestError {
    SelftestError::io("make the servers' certificates")(std::io::Error::other(error))
}

/// What is said back to a request with the key in it; `None` if it has none.
#[must_use]
pub fn say_back(head: &[u8], secure: bool) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(head).ok()?;
    let (_, value) =
        head.lines().filter_map(|line| line.split_once(':')).find(|(n, _)| n.eq_ignore_ascii_case(HEADER))?;
    let value = value.trim();
    let end = String::from_utf8_lossy(END);
    Some(if !secure {
        answer("", &[SEEN, END].concat())
    } else if head.starts_with("GET /header") {
        answer(&format!("X-Back: {value}\r\n"), END)
    } else if head.starts_with("GET /pieces") {
        // Each byte of it in a piece of its own.
        let pieces: String = value.chars().map(|one| format!("1\r\n{one}\r\n")).collect();
        let rest = format!("{:x}\r\n{end}\r\n0\r\n\r\n", end.len());
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{pieces}{rest}").into_bytes()
    } else {
        answer("", format!("{value}{end}").as_bytes())
    })
}

fn answer(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
