//! The agents' port, and everybody who should not come in.

use std::sync::Arc;

use axum::body::Bytes;
use axum::routing::{get, post};
use prometheus::Registry;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;
use crate::keys::name_of;
use crate::keys::tests::{Authority, parse};
use crate::latest::last_sent;
use crate::link;

/// A running listener of the agent of seoul.
struct Listening {
    address: SocketAddr,
    keys: watch::Sender<Option<Arc<Keys>>>,
    refusals: Refusals,
    _tasks: JoinSet<()>,
}

impl Listening {
    async fn start(keys: Option<Keys>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keys = watch::Sender::new(keys.map(Arc::new));
        let refusals = Refusals::new(&Registry::new()).unwrap();
        let who = |peer: Option<Extension<Peer>>| async { peer.map_or("nobody".to_owned(), |peer| peer.0.0) };
        let length = |body: Bytes| async move { body.len().to_string() };
        let router = Router::new().route("/who", get(who)).route("/length", post(length));
        let door = AgentDoor { keys: keys.subscribe(), fleet: "shop".to_owned(), refusals: refusals.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_agents(listener, router, door));
        Self { address, keys, refusals, _tasks: tasks }
    }

    async fn who(&self, keys: &Keys) -> Result<String, reqwest::Error> {
        let client = link::client(Some(keys), "seoul", "shop").unwrap();
        client.get(format!("https://{}/who", self.address)).send().await?.text().await
    }

    /// What a client gets that says something, over TLS if it has a config for it.
    async fn said_to(&self, client: Option<ClientConfig>, text: &str) -> String {
        let mut answer = Vec::new();
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        match client {
            None => {
                stream.write_all(text.as_bytes()).await.unwrap();
                let _ = stream.read_to_end(&mut answer).await;
            }
            Some(client) => {
                let name = ServerName::try_from(name_of("seoul", "shop")).unwrap();
                let Ok(mut stream) = TlsConnector::from(Arc::new(client)).connect(name, stream).await else {
                    return String::new();
                };
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.read_to_end(&mut answer).await;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Waits until as many were refused for this reason.
    async fn refused(&self, refusal: Refusal, times: u64) {
        for _ in 0..500 {
            if self.refusals.counted(refusal) == times {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let counted = Refusal::ALL.map(|refusal| (refusal.name(), self.refusals.counted(refusal)));
        panic!("expected {times} of {}, counted {counted:?}", refusal.name());
    }
}

const GET: &str = "GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_handler_knows_who_asks() {
    let ca = Authority::new("shop");
    let listening = Listening::start(Some(ca.keys("seoul", "shop"))).await;
    assert_eq!(listening.who(&ca.keys("virginia", "shop")).await.unwrap(), "virginia");
    let total: u64 = Refusal::ALL.iter().map(|&refusal| listening.refusals.counted(refusal)).sum();
    assert_eq!(total, 0);
}

#[tokio::test]
async fn whoever_is_not_of_the_fleet_gets_no_answer() {
    let ca = Authority::new("shop");
    let listening = Listening::start(Some(ca.keys("seoul", "shop"))).await;
    let name = name_of("virginia", "shop");
    // All of these believe the listener; it does not believe them.
    let other = Authority::new("shop");
    let other = parse("virginia", "shop", &(ca.pem() + &other.pem()), &other.issue(&[&name], 2090)).unwrap();
    let stale = parse("virginia", "shop", &ca.pem(), &ca.issue(&[&name], 2021)).unwrap();
    let elsewhere = ca.keys("virginia", "elsewhere");
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(
        crate::keys::certificates(crate::keys::PemFile { name: "ca.pem", bytes: ca.pem().as_bytes() })
            .unwrap(),
    );
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let nobody = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    for (client, refusal) in [
        (Some(other.client_config("seoul", "shop").unwrap()), Refusal::UnknownCa),
        (Some(stale.client_config("seoul", "shop").unwrap()), Refusal::Expired),
        (Some(elsewhere.client_config("seoul", "shop").unwrap()), Refusal::NotOfThisFleet),
        (Some(nobody), Refusal::NoCertificate),
        (None, Refusal::NotTls),
    ] {
        let answer = listening.said_to(client, GET).await;
        assert!(!answer.contains("HTTP") && !answer.contains("virginia"), "{}: {answer}", refusal.name());
        listening.refused(refusal, 1).await;
    }
    // One that does not believe the listener.
    assert!(listening.who(&Authority::new("shop").keys("virginia", "shop")).await.is_err());
    listening.refused(Refusal::RefusedUs, 1).await;
    drop(TcpStream::connect(listening.address).await.unwrap());
    listening.refused(Refusal::HungUp, 1).await;
    let total: u64 = Refusal::ALL.iter().map(|&refusal| listening.refusals.counted(refusal)).sum();
    assert_eq!(total, 7, "each was counted once");
}

#[tokio::test]
async fn whoever_says_nothing_is_dropped() {
    let listening = Listening::start(Some(Authority::new("shop").keys("seoul", "shop"))).await;
    let mut silent = TcpStream::connect(listening.address).await.unwrap();
    let mut answer = Vec::new();
    let _ = silent.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    listening.refused(Refusal::HandshakeTimeout, 1).await;
}

#[tokio::test]
async fn one_client_does_not_take_all_places() {
    let listening = Listening::start(Some(Authority::new("shop").keys("seoul", "shop"))).await;
    let mut open = Vec::new();
    for _ in 0..=CONNECTIONS_PER_CLIENT_MAX {
        open.push(TcpStream::connect(listening.address).await.unwrap());
    }
    listening.refused(Refusal::TooMany, 1).await;
    open.clear();
    listening.refused(Refusal::HungUp, CONNECTIONS_PER_CLIENT_MAX as u64).await;
    drop(TcpStream::connect(listening.address).await.unwrap());
    listening.refused(Refusal::HungUp, CONNECTIONS_PER_CLIENT_MAX as u64 + 1).await;
}

#[tokio::test]
async fn a_flood_of_handshakes_makes_room_for_others() {
    let client = |last: u8| IpAddr::from([192, 0, 2, last]);
    let caps = Caps::new(CONNECTIONS_MAX, CONNECTIONS_PER_CLIENT_MAX);
    let mut genuine = caps.admit_to_handshake(client(1)).unwrap();
    let mut flood = Vec::new();
    for number in 0..10 * HANDSHAKES_MAX {
        flood.extend(caps.admit_to_handshake(client(2 + (number % 20) as u8)));
        flood.retain_mut(|(_, made_room)| made_room.try_recv().is_err());
        assert!(flood.len() < HANDSHAKES_MAX, "as many as there may be");
    }
    assert!(genuine.1.try_recv().is_err(), "who has one only keeps it");
    genuine.0.has_entered();
    flood.extend(caps.admit_to_handshake(client(99)));
    assert_eq!(flood.len(), HANDSHAKES_MAX, "it is inside, and counts no more");
    flood.clear();
    drop(genuine);
    let open = caps.open();
    assert!(open.entering.is_empty() && open.by_client.is_empty(), "{open:?}");
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let listening = Listening::start(None).await;
    let head = "POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let fits = format!("{head}Content-Length: {BODY_BYTES_MAX}\r\n\r\n{}", "a".repeat(BODY_BYTES_MAX));
    assert!(listening.said_to(None, &fits).await.ends_with(&BODY_BYTES_MAX.to_string()));
    let announced = format!("{head}Content-Length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
    assert!(listening.said_to(None, &announced).await.starts_with("HTTP/1.1 413"));
    listening.refused(Refusal::BodyTooLarge, 1).await;
    let size = BODY_BYTES_MAX + 1;
    let comes =
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n{}\r\n0\r\n\r\n", "a".repeat(size));
    assert!(listening.said_to(None, &comes).await.starts_with("HTTP/1.1 413"));
    listening.refused(Refusal::BodyTooLarge, 2).await;
    listening.said_to(None, "\u{1}\r\n\r\n").await;
    listening.refused(Refusal::BadRequest, 1).await;
}

#[tokio::test]
async fn new_keys_hold_for_new_connections() {
    let (old, new) = (Authority::new("shop"), Authority::new("shop"));
    let listening = Listening::start(Some(old.keys("seoul", "shop"))).await;
    let (early, late) = (old.keys("virginia", "shop"), new.keys("virginia", "shop"));
    let client = link::client(Some(&early), "seoul", "shop").unwrap();
    let ask = || client.get(format!("https://{}/who", listening.address)).send();
    ask().await.unwrap();
    listening.keys.send_replace(Some(Arc::new(new.keys("seoul", "shop"))));
    assert_eq!(listening.who(&late).await.unwrap(), "virginia");
    // The connection that was open has ended, and no new one comes about.
    for _ in 0..100 {
        if ask().await.is_err() {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    ask().await.expect_err("its keys are of the old authority");
    assert!(last_sent(&listening.keys).is_some());
}
