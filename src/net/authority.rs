//! The authority of one sandbox: it signs certificates for the names whose requests the proxy looks into.
//!
//! Nobody else trusts it. Its key is in this process's memory alone and goes with it; the sandbox gets its certificate,
//! in a bundle with the host's authorities.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use super::{NetError, policy::Name};

/// What is spoken within TLS: the requests of no other version are looked into.
const SPOKEN: &[u8] = b"http/1.1";
/// Names whose certificates are kept.
const KEPT: usize = 256;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Of all the certificates that it signs.
    key: KeyPair,
    provider: Arc<CryptoProvider>,
    outward: Arc<ClientConfig>,
    inward: Mutex<HashMap<Name, Arc<ServerConfig>>>,
    bundle: Arc<[u8]>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Authority {}

impl Authority {
    /// With a new key, beside the authorities that this host trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded).
    pub fn new() -> Result<Self, NetError> {
        let provider = Arc::new(ring::default_provider());
        let found = rustls_native_certs::load_native_certs().certs;
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(found.iter().cloned());
        if taken == 0 {
            return Err(NetError::Authorities);
        }
        let mut outward = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        outward.alpn_protocols = vec![SPOKEN.to_vec()];

        let own = KeyPair::generate().map_err(certificate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("fumehood, for this sandbox alone");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let signed = params.self_signed(&own).map_err(certificate)?;
        let bundle: String = std::iter::once(signed.der()).chain(&found).map(pem).collect();
        Ok(Self {
            issuer: Issuer::new(params, own),
            key: KeyPair::generate().map_err(certificate)?,
            provider,
            outward: Arc::new(outward),
            inward: Mutex::default(),
            bundle: bundle.into_bytes().into(),
        })
    }

    /// Its certificate and those of the host's authorities, as a file of them.
    #[must_use]
    pub fn bundle(&self) -> Arc<[u8]> {
        self.bundle.clone()
    }

    /// How the proxy goes to a server.
    pub(super) fn outward(&self) -> Arc<ClientConfig> {
        self.outward.clone()
    }

    /// How the proxy stands for `name`.
    pub(super) fn inward(&self, name: &Name) -> Result<Arc<ServerConfig>, NetError> {
        let mut kept = self.inward.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(name) {
            return Ok(known.clone());
        }
        let mut params = CertificateParams::new([name.to_string()]).map_err(certificate)?;
        // As long a name as there may be is too long for a common name.
        params.distinguished_name = named("fumehood");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&self.key, &self.issuer).map_err(certificate)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .map_err(tls)?;
        config.alpn_protocols = vec![SPOKEN.to_vec()];
        let config = Arc::new(config);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(name.clone(), config.clone());
        Ok(config)
    }
}

fn named(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// As a file has it (RFC 7468).
pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn certificate(error: rcgen::Error) -> NetError {
    NetError::Certificate { why: error.to_string() }
}

fn tls(error: rustls::Error) -> NetError {
    NetError::Certificate { why: error.to_string() }
}
