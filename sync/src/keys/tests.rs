//! Who is believed by whom, in handshakes without sockets.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// An authority of a test's own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(fleet: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, fleet);
        params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate with these names that ends in a year.
    pub(crate) fn issue(&self, names: &[&str], until: i32) -> Issued {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The keys of an agent under this authority.
    pub(crate) fn keys(&self, datacenter: &str, fleet: &str) -> Keys {
        let issued = self.issue(&[&name_of(datacenter, fleet)], 2090);
        parse(datacenter, fleet, &self.pem(), &issued).unwrap()
    }
}

pub(crate) fn parse(datacenter: &str, fleet: &str, ca: &str, issued: &Issued) -> Result<Keys, KeysError> {
    let file = |name, text: &'_ str| (name, text.to_owned());
    let files = [file("ca.pem", ca), file("agent.pem", &issued.certificate), file("agent.key", &issued.key)];
    let [ca, certificate, key] =
        files.each_ref().map(|(name, text)| PemFile { name, bytes: text.as_bytes() });
    Keys::parse(datacenter, fleet, ca, certificate, key)
}

/// A handshake: what the server and what the client said. The host is one that no certificate names.
async fn meet(server: Arc<ServerConfig>, client: ClientConfig) -> (Result<(), String>, Result<(), String>) {
    let (here, there) = tokio::io::duplex(1 << 16);
    let host = ServerName::try_from("192.0.2.1").unwrap();
    let serve = async { TlsAcceptor::from(server).accept(here).await.map(drop) };
    let ask = async { TlsConnector::from(Arc::new(client)).connect(host, there).await.map(drop) };
    let (served, asked) = tokio::join!(serve, ask);
    (served.map_err(|error| error.to_string()), asked.map_err(|error| error.to_string()))
}

#[tokio::test]
async fn agents_of_a_fleet_know_each_other() {
    let ca = Authority::new("shop");
    let (seoul, virginia) = (ca.keys("seoul", "shop"), ca.keys("virginia", "shop"));
    let client = virginia.client_config("seoul", "shop").unwrap();
    assert_eq!(meet(seoul.server_config(), client).await, (Ok(()), Ok(())));
    assert_eq!(seoul.info().names, ["seoul.shop.daemun.internal"]);
    assert_eq!(seoul.expires_unix_s(), 3_786_912_000);
    assert_eq!(seoul.info().fingerprint.len(), 64);
}

#[tokio::test]
async fn whoever_answers_in_anothers_place_is_refused() {
    let ca = Authority::new("shop");
    let (seoul, virginia) = (ca.keys("seoul", "shop"), ca.keys("virginia", "shop"));
    for (peer, fleet) in [("frankfurt", "shop"), ("seoul", "other")] {
        let (_, asked) = meet(seoul.server_config(), virginia.client_config(peer, fleet).unwrap()).await;
        assert!(asked.unwrap_err().contains("not valid for name"), "{peer} of {fleet}");
    }
    let foreign = Authority::new("shop").keys("seoul", "shop");
    let (served, asked) =
        meet(foreign.server_config(), virginia.client_config("seoul", "shop").unwrap()).await;
    assert!(served.is_err() && asked.is_err(), "the same names under another authority");
    let stale = ca.issue(&["seoul.shop.daemun.internal"], 2021);
    let stale = parse("seoul", "shop", &ca.pem(), &stale).expect("late, but in order");
    let (_, asked) = meet(stale.server_config(), virginia.client_config("seoul", "shop").unwrap()).await;
    assert!(asked.unwrap_err().contains("expired"));
}

#[tokio::test]
async fn whoever_asks_must_be_known() {
    let ca = Authority::new("shop");
    let seoul = ca.keys("seoul", "shop");
    let mut roots = RootCertStore::empty();
    roots.add(seoul.authorities[0].clone()).unwrap();
    let nobody = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (here, there) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from("seoul.shop.daemun.internal").unwrap();
    let (served, _) = tokio::join!(
        TlsAcceptor::from(seoul.server_config()).accept(here),
        TlsConnector::from(Arc::new(nobody)).connect(name, there)
    );
    assert!(served.unwrap_err().to_string().contains("no certificates"));
    let stranger = Authority::new("shop");
    let issued = stranger.issue(&["virginia.shop.daemun.internal"], 2090);
    // It believes us; we do not believe it.
    let stranger = parse("virginia", "shop", &(ca.pem() + &stranger.pem()), &issued).unwrap();
    let (served, _) = meet(seoul.server_config(), stranger.client_config("seoul", "shop").unwrap()).await;
    assert!(served.is_err());
}

#[tokio::test]
async fn two_authorities_are_trusted_while_one_follows_the_other() {
    let (old, new) = (Authority::new("shop"), Authority::new("shop"));
    let both = new.pem() + &old.pem();
    let early = parse("seoul", "shop", &both, &old.issue(&["seoul.shop.daemun.internal"], 2090)).unwrap();
    let late =
        parse("virginia", "shop", &both, &new.issue(&["virginia.shop.daemun.internal"], 2090)).unwrap();
    let (ask_early, ask_late) =
        (late.client_config("seoul", "shop").unwrap(), early.client_config("virginia", "shop").unwrap());
    assert_eq!(meet(early.server_config(), ask_early).await, (Ok(()), Ok(())));
    assert_eq!(meet(late.server_config(), ask_late).await, (Ok(()), Ok(())));
    let behind = old.keys("seoul", "shop");
    let (served, _) = meet(late.server_config(), behind.client_config("virginia", "shop").unwrap()).await;
    assert!(served.is_err(), "it does not know the new one yet");
}

#[test]
fn a_name_is_one_datacenter_of_one_fleet() {
    let ca = Authority::new("shop");
    let found = |names: &[&str]| {
        let issued = ca.issue(names, 2090);
        let file = PemFile { name: "agent.pem", bytes: issued.certificate.as_bytes() };
        datacenter_in(&certificates(file).unwrap()[0], "shop")
    };
    assert_eq!(found(&["seoul.shop.daemun.internal"]).as_deref(), Some("seoul"));
    for wrong in [
        &["seoul.other.daemun.internal"][..],
        &["shop.daemun.internal"],
        &["a.seoul.shop.daemun.internal"],
        &["*.shop.daemun.internal"],
        &["seoul.shop.daemun.internal.example"],
        &["seoul.shop.daemun.internal", "virginia.shop.daemun.internal"],
        &["192.0.2.1"],
        &[],
    ] {
        assert_eq!(found(wrong), None, "{wrong:?}");
    }
    assert_eq!(datacenter_in(&CertificateDer::from(vec![1, 2, 3]), "shop"), None);
}

#[test]
fn what_is_wrong_is_said_with_its_file() {
    let ca = Authority::new("shop");
    let good = || ca.issue(&["seoul.shop.daemun.internal"], 2090);
    let said = |ca: &str, issued: &Issued| parse("seoul", "shop", ca, issued).unwrap_err().to_string();
    let other = good();
    for (part, said) in [
        ("ca.pem: holds no certificate", said("", &good())),
        ("ca.pem: holds a certificate that is no authority's", said(&other.certificate, &good())),
        (
            "agent.pem: holds no certificate",
            said(&ca.pem(), &Issued { certificate: String::new(), ..good() }),
        ),
        (
            "agent.key: holds no private key",
            said(&ca.pem(), &Issued { key: other.certificate.clone(), ..good() }),
        ),
        (
            "agent.pem and agent.key do not belong together",
            said(&ca.pem(), &Issued { key: other.key.clone(), ..good() }),
        ),
        ("agent.pem: is not signed by an authority in ca.pem", said(&Authority::new("shop").pem(), &good())),
        (
            "agent.pem: is for virginia.shop.daemun.internal, and this is `seoul.shop.daemun.internal`",
            said(&ca.pem(), &ca.issue(&["virginia.shop.daemun.internal"], 2090)),
        ),
        ("ca.pem: holds 9 authorities", said(&ca.pem().repeat(9), &good())),
        ("ca.pem: is not PEM", said("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &good())),
    ] {
        assert!(said.contains(part), "expected `{part}`, was told {said}");
        assert!(said.contains("`daemun keys") || said.contains("copy"), "it says what to do: {said}");
    }
}

#[test]
fn nothing_of_the_key_is_shown() {
    let shown = format!("{:?}", Authority::new("shop").keys("seoul", "shop"));
    assert!(shown.contains("seoul.shop.daemun.internal") && !shown.to_lowercase().contains("private"));
}
