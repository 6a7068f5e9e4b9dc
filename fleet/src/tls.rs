//! The server's certificate, replaced without a connection lost.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate with its key, checked to belong together.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// Reads a certificate with what signed it, and its private key, from PEM.
    ///
    /// # Errors
    /// What is wrong with which of them. Nothing of the key is repeated.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the certificate is not PEM: {error}"))?;
        if chain.is_empty() {
            return Err(
                "the certificate file holds no certificate (`-----BEGIN CERTIFICATE-----`)".to_owned()
            );
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "the key file holds no private key (`-----BEGIN PRIVATE KEY-----`)".to_owned())?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| format!("certificate and key do not work together: {error}"))?;
        Ok(Self(Arc::new(certified)))
    }
}

/// What the encrypted listeners show: the newest certificate.
#[derive(Debug)]
pub struct TlsIdentity(ArcSwap<CertifiedKey>);

impl TlsIdentity {
    /// Begins with a certificate.
    pub fn new(certificate: Certificate) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(certificate.0)))
    }

    /// From now on shows this one; connections that are open stay.
    pub fn set(&self, certificate: Certificate) {
        self.0.store(certificate.0);
    }

    /// A server's TLS for these protocols (RFC 7301). Who comes back is known by a ticket that only we can read.
    ///
    /// # Errors
    /// When the TLS library does not know the protocol versions that it calls safe.
    pub fn server(self: &Arc<Self>, protocols: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.ticketer = ring::Ticketer::new()?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }
}

impl ResolvesServerCert for TlsIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
