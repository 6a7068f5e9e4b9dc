//! Whoever comes to the agents' port or to the operators' without being let in: nothing changes, and each is counted. What a
//! member of the fleet can do it can do only in its own name. Network 127.54.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daemun_sync::keys::{Keys, PemFile, name_of};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair, SigningKey,
    date_time_ymd,
};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::fleet::{Fleet, NAMES, TOKEN, wait};

const ALL: &str = "dns,gateway,sync";
/// For so long an attacker waits for an answer.
const WAITS: Duration = Duration::from_secs(10);
/// The other agents find Seoul's here: where the attacker listens in.
const TAPPED: u16 = 7401;
/// A question that an agent may ask.
const GET_FACTS: &str =
    "GET /v1/facts?fleet=test&from=virginia HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// All that an attacker must not change: each agent's whole view, its generation included.
fn views(fleet: &Fleet) -> Vec<Value> {
    NAMES.map(|name| fleet.status(name).expect("a status")["view"].clone()).to_vec()
}

/// Waits until nothing is new any more: all agents have one view for some looks in a row.
fn calm(fleet: &Fleet) -> Vec<Value> {
    let (mut last, mut same) = (views(fleet), 0);
    wait("calm", || {
        let now = views(fleet);
        let is_calm = now == last && now.iter().all(|view| *view == now[0]);
        same = if is_calm { same + 1 } else { 0 };
        last.clone_from(&now);
        (same == 5).then_some(now)
    })
}

fn refused(fleet: &Fleet, reason: &str) -> f64 {
    fleet.metric("seoul", "daemun_agent_refused_total", &format!("reason=\"{reason}\""))
}

/// A fleet, what it looks like when nothing happens, and its authority's secret.
struct Target {
    fleet: Fleet,
    calm: Vec<Value>,
}

impl Target {
    fn agent(&self) -> SocketAddr {
        (self.fleet.address("seoul"), 7400).into()
    }

    fn file(&self, file: &str) -> String {
        std::fs::read_to_string(self.fleet.path("keys").join(file)).unwrap()
    }

    /// Keys by which one comes as a datacenter's agent: with the fleet's authority, and another one too.
    fn keys(&self, other: &str, certificate: &str, key: &str) -> ClientConfig {
        let ca = self.file("ca.pem") + other;
        let [ca, certificate, key] =
            [&*ca, certificate, key].map(|text| PemFile { name: "of the attacker", bytes: text.as_bytes() });
        let keys = Keys::parse("virginia", "test", ca, certificate, key).expect("keys that fit");
        keys.client_config("seoul", "test").unwrap()
    }

    /// The genuine agent of Virginia.
    fn virginia(&self) -> ClientConfig {
        self.keys("", &self.file("virginia/agent.pem"), &self.file("virginia/agent.key"))
    }

    /// Somebody who believes the fleet and shows nothing.
    fn nobody(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots
            .add(rustls::pki_types::CertificateDer::from_pem_slice(self.file("ca.pem").as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        builder.with_root_certificates(roots).with_no_client_auth()
    }

    /// An attack after which one more, at least, is counted for this reason, and nothing is different.
    fn attack(&self, what: &str, reason: &str, attack: impl FnOnce() -> String) -> String {
        let before = refused(&self.fleet, reason);
        let answer = attack();
        wait(&format!("{what} to be counted as {reason}"), || {
            (refused(&self.fleet, reason) > before).then_some(())
        });
        assert_eq!(views(&self.fleet), self.calm, "{what}");
        let said = answer.lines().next().unwrap_or("nothing").to_owned();
        println!("{what}: answered with {said}; {reason} {before} → {}", refused(&self.fleet, reason));
        answer
    }

    /// The same, for one that is not even answered.
    fn turned_away(&self, what: &str, reason: &str, attack: impl FnOnce() -> String) {
        let answer = self.attack(what, reason, attack);
        assert!(!answer.contains("HTTP") && !answer.contains("seoul"), "{what}: {answer}");
    }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, WAITS)?;
    stream.set_read_timeout(Some(WAITS))?;
    stream.set_write_timeout(Some(WAITS))?;
    Ok(stream)
}

/// Says something and hears what comes back until the other side ends.
fn say(mut stream: impl io::Read + io::Write, words: &[u8]) -> String {
    let mut answer = Vec::new();
    // Whoever is turned away in the midst of a word still hears what was said to it.
    let _ = stream.write_all(words).and_then(|()| stream.flush());
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same over TLS.
fn say_secretly(to: SocketAddr, config: ClientConfig, words: &[u8]) -> String {
    let name = ServerName::try_from(name_of("seoul", "test")).unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    say(StreamOwned::new(client, connect(to).unwrap()), words)
}

/// A certificate for an agent of Virginia that ends at the beginning of a year, and its key.
fn issue(by: &Issuer<'_, impl SigningKey>, until: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec![name_of("virginia", "test")]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

/// A connection between two agents, with somebody in between who writes down what is asked.
fn listen_in(from: TcpListener, to: SocketAddr, heard: &'static Mutex<Vec<u8>>) {
    for stream in from.incoming().flatten() {
        let Ok(agent) = connect(to) else { continue };
        let (mut asks, mut answers) = (stream.try_clone().unwrap(), agent.try_clone().unwrap());
        std::thread::spawn(move || {
            let (mut stream, mut agent) = (&stream, &agent);
            let mut bytes = [0; 16 << 10];
            let mut words = Vec::new();
            while let Ok(read @ 1..) = stream.read(&mut bytes) {
                words.extend_from_slice(&bytes[..read]);
                if agent.write_all(&bytes[..read]).is_err() {
                    break;
                }
                let mut heard = heard.lock().unwrap();
                if words.len() > heard.len() {
                    heard.clone_from(&words);
                }
            }
            let _ = agent.shutdown(Shutdown::Both);
        });
        std::thread::spawn(move || {
            let _ = io::copy(&mut answers, &mut asks);
            let _ = asks.shutdown(Shutdown::Both);
        });
    }
}

static HEARD: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// A fleet in which the attacker sits on the way to Seoul's agent.
fn target() -> Target {
    let mut fleet = Fleet::new(54, "");
    let seoul = fleet.address("seoul");
    let config =
        fleet.config("").replace(&format!("https://{seoul}:7400"), &format!("https://{seoul}:{TAPPED}"));
    std::fs::write(fleet.config_path(), config.replace("\"agent:7400\"", "\"datacenter:7400\"")).unwrap();
    let between = TcpListener::bind((seoul, TAPPED)).unwrap();
    std::thread::spawn(move || listen_in(between, (seoul, 7400).into(), &HEARD));
    fleet.start_all();
    let calm = calm(&fleet);
    Target { fleet, calm }
}

#[test]
fn nothing_comes_in_and_everything_is_counted() {
    let target = target();
    let to = target.agent();
    strangers(&target, to);
    members(&target, to);
    oversized(&target, to);
    operators(&target);
    assert_eq!(calm(&target.fleet), target.calm, "in the end");
    half_open(target, to);
}

fn strangers(target: &Target, to: SocketAddr) {
    let get = GET_FACTS.as_bytes();
    target.turned_away("no certificate", "no_certificate", || say_secretly(to, target.nobody(), get));

    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "test");
    let foreign = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let (certificate, key) = issue(&foreign, 2090);
    let config = target.keys(&foreign.pem(), &certificate, &key);
    target.turned_away("a foreign authority", "unknown_ca", || say_secretly(to, config, get));

    let own = KeyPair::from_pem(&target.file("ca.key")).unwrap();
    let own = Issuer::from_ca_cert_pem(&target.file("ca.pem"), own).unwrap();
    let (certificate, key) = issue(&own, 2021);
    let config = target.keys("", &certificate, &key);
    target.turned_away("an expired certificate", "expired", || say_secretly(to, config, get));

    target.turned_away("plain HTTP", "not_tls", || say(connect(to).unwrap(), get));
    target.turned_away("garbage", "not_tls", || say(connect(to).unwrap(), &[0xa5; 5000]));
    let heard = HEARD.lock().unwrap().clone();
    assert!(heard.len() > 1000, "an hour's worth of talk was recorded: {} bytes", heard.len());
    target.turned_away("recorded and replayed", "not_tls", || say(connect(to).unwrap(), &heard));
}

/// What a member says in the name of another, and what nobody is asked: there is no way to push facts.
fn members(target: &Target, to: SocketAddr) {
    let post = |path: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
    };
    let attack = |what: &str, reason: &str, code: &str, words: String| {
        let answer = target.attack(what, reason, || say_secretly(to, target.virginia(), words.as_bytes()));
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{what}: {answer}");
    };
    attack("another's name", "someone_else", "403", GET_FACTS.replace("from=virginia", "from=frankfurt"));
    let door = target.fleet.address("frankfurt");
    let report = format!(
        r#"{{"fleet":"test","node":"a","seen":[{{"server":"door-frankfurt","address":"{door}","old_ms":0,"why":"dead"}}],
            "measured":{{"requests":{{}},"queries":{{}}}}}}"#
    );
    attack("a report for another datacenter", "someone_else", "403", post("/v1/report", &report));
    let elsewhere = GET_FACTS.replace("fleet=test", "fleet=other");
    attack("another fleet", "bad_request", "409", elsewhere);

    // Facts that were true once, as an agent gave them away.
    let stale = say_secretly(to, target.virginia(), GET_FACTS.as_bytes());
    let (head, batch) = stale.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200") && batch.contains("door-frankfurt"), "{stale}");
    let batch = batch.replace("\"up\"", "\"down\"");
    for (path, code) in [("/v1/facts", "405"), ("/v1/view", "405"), ("/v1/verbs", "404"), ("/", "404")] {
        attack(&format!("facts pushed to {path}"), "bad_request", code, post(path, &batch));
        let put = post(path, &batch).replacen("POST", "PUT", 1);
        attack(&format!("facts put to {path}"), "bad_request", code, put);
    }
}

fn oversized(target: &Target, to: SocketAddr) {
    let secretly = |words: &[u8]| say_secretly(to, target.virginia(), words);
    let head =
        "POST /v1/report HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let announced = format!("{head}content-length: 999999999\r\n\r\n");
    let answer =
        target.attack("a body announced as huge", "body_too_large", || secretly(announced.as_bytes()));
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let size = 2 << 20;
    let comes = format!("{head}transfer-encoding: chunked\r\n\r\n{size:x}\r\n{}", "a".repeat(size));
    let answer = target.attack("a body that is huge", "body_too_large", || secretly(comes.as_bytes()));
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    let head = format!("GET /v1/view?fleet=test HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(100_000));
    let answer = target.attack("a head that is huge", "bad_request", || secretly(head.as_bytes()));
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

/// The operators' port, without TLS, behind a token.
fn operators(target: &Target) {
    let to = SocketAddr::from((target.fleet.address("seoul"), 7480));
    let drain = r#"{"what":{"drain":{"over_ms":0}},"datacenter":"frankfurt","by":"an attacker"}"#;
    let huge = format!("{}{}", " ".repeat(100 << 10), drain);
    let right = format!("authorization: Bearer {TOKEN}\r\n");
    for (what, header, body, code) in [
        ("no token", "", drain, "401"),
        ("a wrong token", "authorization: Bearer the-token-of-somebody\r\n", drain, "401"),
        ("half a token", &right[..right.len() - 6], drain, "401"),
        ("no token, and a huge body", "", &huge, "401"),
        ("the token, and a huge body", &right, &huge, "413"),
        ("the token, and nonsense", &right, "{]", "400"),
    ] {
        let length = body.len();
        let words = format!(
            "POST /v1/verbs HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n{header}\
             content-length: {length}\r\n\r\n{body}"
        );
        let answer = say(connect(to).unwrap(), words.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{what}: {answer}");
        assert_eq!(views(&target.fleet), target.calm, "{what}");
    }
    for path in ["/v1/status", "/v1/view", "/v1/history"] {
        let answer = say(
            connect(to).unwrap(),
            format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 401") && !answer.contains("frankfurt"), "{path}: {answer}");
    }
}

/// Half-open handshakes from many addresses, new ones all the time: those that know each other go on, and one that comes
/// anew gets in.
fn half_open(mut target: Target, to: SocketAddr) {
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        for source in 1..=20 {
            scope.spawn(move || flood(Ipv4Addr::new(127, 54, 99, source), to, over));
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| under_flood(&mut target)));
        over.store(true, Relaxed);
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn under_flood(Target { fleet, calm }: &mut Target) {
    wait("the flood to be felt", || (refused(fleet, "too_many") > 1000.0).then_some(()));
    for (agent, peer) in [("virginia", "seoul"), ("frankfurt", "seoul"), ("seoul", "virginia")] {
        let up = fleet.metric(agent, "daemun_link_up", &format!("peer=\"{peer}\""));
        assert_eq!(up, 1.0, "{agent}'s link to {peer}");
    }
    assert_eq!(views(fleet), *calm, "in the flood");
    fleet.kill("virginia", ALL);
    fleet.start("virginia", ALL);
    let begun = Instant::now();
    wait("virginia, begun anew, to hear seoul in the flood", || {
        let links = fleet.status("virginia")?["links"].clone();
        let link = links.as_array()?.iter().find(|link| link["peer"] == "seoul")?.clone();
        (link["is_up"] == true).then_some(())
    });
    let (took, away) = (begun.elapsed().as_secs_f64(), refused(fleet, "too_many"));
    println!(
        "a flood of half-open handshakes: {away} turned away, and one begun anew is in after {took:.2} s"
    );
}

/// Opens connections from one address, and says nothing for as long as it is let, until it is over.
fn flood(from: Ipv4Addr, to: SocketAddr, over: &AtomicBool) {
    let mut open = Vec::new();
    while !over.load(Relaxed) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let bound = socket.bind(&SocketAddr::from((from, 0)).into());
        if bound.and_then(|()| socket.connect_timeout(&to.into(), WAITS)).is_ok() {
            socket.set_nonblocking(true).unwrap();
            open.push(socket);
        }
        let is_open = |socket: &mut socket2::Socket| {
            socket.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        open.retain_mut(is_open);
        std::thread::sleep(Duration::from_millis(5));
    }
}
