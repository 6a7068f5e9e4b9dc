//! Who an agent is, and how it knows the others: TLS in which both sides show a certificate of the fleet's own
//! authority.
//!
//! The one DNS name in a certificate, `seoul.shop.daemun.internal`, says whose it is; addresses and host names in URLs
//! prove nothing and are not looked at. While an authority is replaced, the old and the new one are both trusted.
//! `daemun keys` makes the files; nothing here reads one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::config::is_name;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite,
};
use webpki::EndEntityCert;
use x509_parser::parse_x509_certificate;

/// What all names end in: `.internal` is kept free for private use (ICANN, 2024), so nobody else certifies it.
const SUFFIX: &str = "daemun.internal";
/// The organization in the name of an authority that `daemun keys` made; its common name is the fleet's.
pub const ORGANIZATION: &str = "daemun";
/// More authorities than a change of them needs.
const AUTHORITIES_MAX: usize = 8;

/// The name in the certificate of a datacenter's agent; both are names as [`is_name`] has it.
pub fn name_of(datacenter: &str, fleet: &str) -> String {
    format!("{datacenter}.{fleet}.{SUFFIX}")
}

/// The datacenter that a certificate is for; `None` if it is of another fleet, or not for exactly one datacenter.
/// Whether it is genuine must have been found out before.
pub fn datacenter_in(certificate: &CertificateDer<'_>, fleet: &str) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_dns_names();
    let datacenter = names.next()?.strip_suffix(&format!(".{fleet}.{SUFFIX}"))?;
    (names.next().is_none() && is_name(datacenter)).then(|| datacenter.to_owned())
}

/// A certificate, DER.
pub type Certificate = CertificateDer<'static>;

/// A PEM file that was read.
#[derive(Clone, Copy, Debug)]
pub struct PemFile<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// What it holds.
    pub bytes: &'a [u8],
}

/// What is wrong with keys: with which file, and what to do. Nothing of a private key is repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It holds something else.
    #[error("{file}: is not PEM: {error}; copy it again from where `daemun keys` made it")]
    Pem {
        /// The file.
        file: String,
        /// What the reader said.
        error: String,
    },
    /// There is no certificate in it.
    #[error(
        "{file}: holds no certificate (`-----BEGIN CERTIFICATE-----`); `daemun keys issue` makes one, `daemun keys init` \
         the authority's"
    )]
    NoCertificate {
        /// The file.
        file: String,
    },
    /// A certificate does not parse.
    #[error(
        "{file}: holds a certificate that does not parse: {error}; make a new one with `daemun keys issue`"
    )]
    Certificate {
        /// The file.
        file: String,
        /// What the parser said.
        error: String,
    },
    /// A certificate among the authorities is none of an authority.
    #[error(
        "{file}: holds a certificate that is no authority's: expected what `daemun keys init` made, ca.pem"
    )]
    NoAuthority {
        /// The file.
        file: String,
    },
    /// There are more authorities than anyone needs.
    #[error(
        "{file}: holds {found} authorities, at most {AUTHORITIES_MAX} are read; `daemun keys rotate --finish` drops old ones"
    )]
    Authorities {
        /// The file.
        file: String,
        /// How many there are.
        found: usize,
    },
    /// There is no private key in it.
    #[error("{file}: holds no private key (`-----BEGIN PRIVATE KEY-----`); `daemun keys issue` makes one")]
    NoKey {
        /// The file.
        file: String,
    },
    /// Certificate and key are not a pair.
    #[error(
        "{certificate} and {key} do not belong together: {error}; copy both from one `daemun keys issue`"
    )]
    Pair {
        /// The file of the certificate.
        certificate: String,
        /// The file of the key.
        key: String,
        /// What the library said.
        error: String,
    },
    /// The others would refuse the certificate.
    #[error(
        "{certificate}: is not signed by an authority in {ca} ({error}); make a new one with `daemun keys issue`"
    )]
    Unsigned {
        /// The file of the certificate.
        certificate: String,
        /// The file of the authorities.
        ca: String,
        /// What the verifier said.
        error: String,
    },
    /// The certificate is somebody else's.
    #[error(
        "{certificate}: is for {found}, and this is `{expected}`; copy the one that `daemun keys issue {datacenter}` made"
    )]
    Stranger {
        /// The file of the certificate.
        certificate: String,
        /// The names in it.
        found: String,
        /// The name that it should have.
        expected: String,
        /// The datacenter it should be for.
        datacenter: String,
    },
    /// The library refuses them.
    #[error("keys of the agent: {0}")]
    Tls(String),
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Its DNS names.
    pub names: Vec<String>,
    /// Common name of its subject.
    pub common_name: String,
    /// Organization of its subject.
    pub organization: String,
    /// Start of its validity, seconds of Unix time.
    pub not_before_unix_s: u64,
    /// End of its validity, seconds of Unix time.
    pub not_after_unix_s: u64,
    /// SHA-256 of it, 64 hexadecimal digits.
    pub fingerprint: String,
    /// It may sign others.
    pub is_authority: bool,
}

impl CertificateInfo {
    /// Reads it.
    ///
    /// # Errors
    /// What does not parse.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
        let checked = EndEntityCert::try_from(certificate).map_err(|error| error.to_string())?;
        let text = |value: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            value.and_then(|value| value.as_str().ok()).unwrap_or_default().to_owned()
        };
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        Ok(Self {
            names: checked.valid_dns_names().map(str::to_owned).collect(),
            common_name: text(parsed.subject().iter_common_name().next()),
            organization: text(parsed.subject().iter_organization().next()),
            not_before_unix_s: seconds(parsed.validity().not_before),
            not_after_unix_s: seconds(parsed.validity().not_after),
            fingerprint: fingerprint(certificate),
            is_authority: parsed.is_ca(),
        })
    }

    /// The fleet whose authority it is, if `daemun keys` made it.
    pub fn fleet(&self) -> Option<&str> {
        let fits = self.is_authority && self.organization == ORGANIZATION && is_name(&self.common_name);
        fits.then_some(self.common_name.as_str())
    }
}

/// SHA-256 of a certificate, by the TLS library's provider.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let SupportedCipherSuite::Tls13(suite) = ring::cipher_suite::TLS13_AES_128_GCM_SHA256 else {
        return String::new(); // it is one of TLS 1.3
    };
    let hash = suite.common.hash_provider.hash(certificate);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// When it is not PEM, or holds none.
pub fn certificates(file: PemFile<'_>) -> Result<Vec<Certificate>, KeysError> {
    let name = || file.name.to_owned();
    let found: Vec<Certificate> = CertificateDer::pem_slice_iter(file.bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| KeysError::Pem { file: name(), error: error.to_string() })?;
    if found.is_empty() { Err(KeysError::NoCertificate { file: name() }) } else { Ok(found) }
}

/// Which of some authorities has signed a certificate, by its number.
pub fn signer(chain: &[Certificate], authorities: &[Certificate]) -> Option<usize> {
    let info = CertificateInfo::read(chain.first()?).ok()?;
    let has_signed = |authority: &Certificate| {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).ok()?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
        verified(&verifier, chain, &info, info.names.first()?).ok()
    };
    authorities.iter().position(|authority| has_signed(authority).is_some())
}

/// What an agent shows, and whom it believes.
pub struct Keys {
    authorities: Vec<Certificate>,
    certified: Arc<CertifiedKey>,
    info: CertificateInfo,
    server: Arc<ServerConfig>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Keys {
    /// Reads the keys of the agent of a datacenter. That they have expired is no error: the others will say so, and a
    /// process that cannot ask them still answers.
    ///
    /// # Errors
    /// The first thing that is wrong, with the name of its file.
    pub fn parse(
        datacenter: &str,
        fleet: &str,
        ca: PemFile<'_>,
        certificate: PemFile<'_>,
        key: PemFile<'_>,
    ) -> Result<Self, KeysError> {
        let (authorities, roots) = authorities(ca)?;
        let chain = certificates(certificate)?;
        let info = read(certificate, &chain[0])?;
        let private = PrivateKeyDer::from_pem_slice(key.bytes)
            .map_err(|_| KeysError::NoKey { file: key.name.to_owned() })?;
        let provider = Arc::new(ring::default_provider());
        let certified = CertifiedKey::from_der(chain.clone(), private, &provider).map_err(|error| {
            let (certificate, key) = (certificate.name.to_owned(), key.name.to_owned());
            KeysError::Pair { certificate, key, error: error.to_string() }
        })?;
        let certified = Arc::new(certified);
        let expected = name_of(datacenter, fleet);
        if datacenter_in(&chain[0], fleet).as_deref() != Some(datacenter) {
            let found = if info.names.is_empty() {
                "nobody".to_owned()
            } else {
                daemun_fleet::shorten(&info.names.join(", "))
            };
            let (certificate, datacenter) = (certificate.name.to_owned(), datacenter.to_owned());
            return Err(KeysError::Stranger { certificate, found, expected, datacenter });
        }
        let refused = |error: &dyn fmt::Display| KeysError::Tls(error.to_string());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| refused(&error))?;
        verified(&verifier, &chain, &info, &expected).map_err(|error| KeysError::Unsigned {
            certificate: certificate.name.to_owned(),
            ca: ca.name.to_owned(),
            error: error.to_string(),
        })?;
        let server = server_config(roots, provider, &certified).map_err(|error| refused(&error))?;
        Ok(Self { authorities, certified, info, server: Arc::new(server), verifier })
    }

    /// TLS for those who come: it wants a certificate of an authority from them. Whose it is, [`datacenter_in`] says.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// TLS for asking the agent of one datacenter, wherever it is: only its certificate will do.
    ///
    /// # Errors
    /// When the library refuses its part.
    pub fn client_config(&self, peer: &str, fleet: &str) -> Result<ClientConfig, rustls::Error> {
        let verifier = PeerVerifier {
            peer: peer.to_owned(),
            fleet: fleet.to_owned(),
            name: server_name(&name_of(peer, fleet))?,
            verifier: Arc::clone(&self.verifier),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .dangerous() // it is not: what is behind it checks all that the usual one checks, and the name more strictly
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.certified))));
        // Each connection is checked anew: there are few, and they are kept.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// What the own certificate says.
    pub fn info(&self) -> &CertificateInfo {
        &self.info
    }

    /// When the own certificate ends, seconds of Unix time.
    pub fn expires_unix_s(&self) -> u64 {
        self.info.not_after_unix_s
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authorities, info, .. } = self;
        f.debug_struct("Keys")
            .field("authorities", &authorities.len())
            .field("info", info)
            .finish_non_exhaustive()
    }
}

/// The same certificates; a key belongs to its certificate.
impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.authorities == other.authorities && self.certified.cert == other.certified.cert
    }
}

impl Eq for Keys {}

fn read(file: PemFile<'_>, certificate: &CertificateDer<'_>) -> Result<CertificateInfo, KeysError> {
    CertificateInfo::read(certificate)
        .map_err(|error| KeysError::Certificate { file: file.name.to_owned(), error })
}

type Authorities = (Vec<Certificate>, Arc<RootCertStore>);

fn authorities(file: PemFile<'_>) -> Result<Authorities, KeysError> {
    let authorities = certificates(file)?;
    let name = || file.name.to_owned();
    if authorities.len() > AUTHORITIES_MAX {
        return Err(KeysError::Authorities { file: name(), found: authorities.len() });
    }
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        if !read(file, authority)?.is_authority {
            return Err(KeysError::NoAuthority { file: name() });
        }
        let added = roots.add(authority.clone());
        added.map_err(|error| KeysError::Certificate { file: name(), error: error.to_string() })?;
    }
    Ok((authorities, Arc::new(roots)))
}

/// Whether the others would believe a chain, in the middle of its validity: how late it is now is another question.
fn verified(
    verifier: &WebPkiServerVerifier,
    chain: &[CertificateDer<'_>],
    info: &CertificateInfo,
    name: &str,
) -> Result<ServerCertVerified, rustls::Error> {
    let middle = info.not_before_unix_s.midpoint(info.not_after_unix_s);
    let then = UnixTime::since_unix_epoch(Duration::from_secs(middle));
    verifier.verify_server_cert(&chain[0], &chain[1..], &server_name(name)?, &[], then)
}

fn server_name(name: &str) -> Result<ServerName<'static>, rustls::Error> {
    ServerName::try_from(name.to_owned()).map_err(|error| rustls::Error::General(format!("{name}: {error}")))
}

fn server_config(
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    certified: &Arc<CertifiedKey>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(certified))));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would bring a certificate that is not checked again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Believes the one peer, whatever the host in the URL is.
#[derive(Debug)]
struct PeerVerifier {
    peer: String,
    fleet: String,
    name: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)?;
        // Stricter than the name alone: no wildcard, no second name.
        if datacenter_in(end_entity, &self.fleet).as_ref() != Some(&self.peer) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
pub(crate) mod tests;
