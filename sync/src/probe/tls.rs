//! TLS of probes: the name that is verified is the check's, the trust is the machine's.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::said;

/// Who is trusted to sign; none: whom the machine trusts.
pub(super) type Roots = Option<Arc<RootCertStore>>;

/// Whom the machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` count), read once when first needed. As long as there is
/// nobody, each probe looks again: installing the certificates is enough.
static SYSTEM: OnceCell<Arc<RootCertStore>> = OnceCell::const_new();

/// Speaks TLS to a server that must prove to have this name.
pub(super) async fn handshake(
    stream: TcpStream,
    name: &str,
    protocol: &[u8],
    roots: &Roots,
) -> Result<TlsStream<TcpStream>, String> {
    let roots = match roots {
        Some(roots) => Arc::clone(roots),
        None => system_roots().await?,
    };
    let name =
        ServerName::try_from(name.to_owned()).map_err(|_| format!("no certificate can hold `{name}`"))?;
    let provider =
        CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    // A resumed session would not show that the certificate has run out.
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| said(&error))
}

/// Whom the machine trusts.
pub(crate) async fn system_roots() -> Result<Arc<RootCertStore>, String> {
    Ok(Arc::clone(SYSTEM.get_or_try_init(system).await?))
}

async fn system() -> Result<Arc<RootCertStore>, String> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
    let found = found.await.map_err(|error| format!("cannot read the trusted certificates: {error}"))?;
    trust(found.certs)
}

/// What of these can be read is trusted.
fn trust(certificates: Vec<CertificateDer<'static>>) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err("no trusted certificates: install ca-certificates".to_owned());
    }
    Ok(Arc::new(roots))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_to_trust_is_known_or_it_is_said() {
        let said = "no trusted certificates: install ca-certificates";
        assert_eq!(trust(Vec::new()).unwrap_err(), said);
        let garbage = CertificateDer::from(vec![1, 2, 3]);
        assert_eq!(trust(vec![garbage.clone()]).unwrap_err(), said);
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        assert_eq!(trust(vec![garbage, made.cert.der().clone()]).unwrap().len(), 1);
    }
}
