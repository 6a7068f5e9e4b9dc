//! The API over real sockets, on a real store.

use std::sync::Arc;
use std::time::Duration;

use daemun_fleet::Clock;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::super::engine::{Store, StoreSettings, Threads};
use super::super::replica::Retention;
use super::serve;

mod bad;
mod buckets;
mod described;
mod keys;
mod watched;

const TOKEN: &str = "0123456789abcdef";

/// The machine's clocks; the monotonic one runs ten times as fast where there are peers that nobody wants to wait for.
#[expect(clippy::disallowed_methods, reason = "the store under test is a real one")]
fn clock(is_fast: bool) -> Clock {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    fn since() -> Duration {
        std::time::Instant::now().saturating_duration_since(*START)
    }
    fn unix_ms() -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.unwrap_or_default().as_millis() as u64
    }
    let monotonic = if is_fast { || since() * 10 } else { since };
    Clock { monotonic, unix_ms }
}

/// A store that listens.
struct Scene {
    store: Store,
    address: std::net::SocketAddr,
    _serving: JoinSet<()>,
    _threads: Threads,
    _directory: TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::with(&[], Retention { entries_min: 100_000, entries_max: 1_000_000 }).await
    }

    async fn with(peers: &[&str], retention: Retention) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, threads) = Store::open(&StoreSettings {
            directory: directory.path().join("store"),
            datacenter: "seoul".to_owned(),
            peers: peers.iter().map(|peer| (*peer).to_owned()).collect(),
            clock: clock(!peers.is_empty()),
            retention,
        })
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Ok(store.clone()), TOKEN.into()));
        if peers.is_empty() {
            while !store.status().is_open {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Self { store, address, _serving: serving, _threads: threads, _directory: directory }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Said {
        let mut client = Client::new(self.address).await;
        client.ask(method, path, headers, body.as_ref()).await
    }

    async fn get(&self, path: &str) -> Said {
        self.ask("GET", path, &[], "").await
    }

    async fn put(&self, path: &str, body: &str) -> Said {
        self.ask("PUT", path, &[], body).await
    }

    async fn put_json(&self, path: &str, body: &str) -> Said {
        self.ask("PUT", path, &["Content-Type: application/json; charset=utf-8"], body).await
    }
}

/// An answer.
#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Said {
    fn header(&self, name: &str) -> Option<&str> {
        let is_it =
            |line: &&str| line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name));
        self.head.lines().find(is_it).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The stamp in its tag.
    #[track_caller]
    fn stamp(&self) -> String {
        self.header("etag").unwrap_or_else(|| panic!("no ETag: {self:?}")).trim_matches('"').to_owned()
    }

    /// It is this status; else the test ends with what was said.
    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {}", self.head, String::from_utf8_lossy(&self.body));
        self
    }

    /// It is a problem: of this status, and says this about that.
    #[track_caller]
    fn problem(self, status: u16, error: &str, at: &str) -> Self {
        let said = self.is(status);
        let body = said.json();
        let found = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        assert!(found("error").contains(error), "{body}: {error}");
        assert!(found("at").contains(at), "{body}: {at}");
        said
    }
}

/// A connection that is kept.
struct Client(TcpStream);

impl Client {
    async fn new(address: std::net::SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn ask(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Said {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: h\r\n");
        if !headers.iter().any(|header| header.starts_with("Authorization")) {
            head += &format!("Authorization: Bearer {TOKEN}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for header in headers {
            head += &format!("{header}\r\n");
        }
        head += "\r\n";
        self.0.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        self.read(method).await
    }

    async fn head(&mut self) -> (String, Vec<u8>) {
        let mut read = Vec::new();
        loop {
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                let body = read.split_off(end + 4);
                return (String::from_utf8(read).unwrap(), body);
            }
            let mut part = vec![0; 4096];
            let count = self.0.read(&mut part).await.unwrap();
            assert!(count > 0, "it hung up: {}", String::from_utf8_lossy(&read));
            read.extend(&part[..count]);
        }
    }

    async fn read(&mut self, method: &str) -> Said {
        let (head, mut body) = self.head().await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let said = Said { status, head, body: Vec::new() };
        assert!(said.header("transfer-encoding").is_none(), "{said:?}");
        let length = match (method, status) {
            ("HEAD", _) | (_, 304) => 0,
            _ => said.header("content-length").unwrap_or_else(|| panic!("{said:?}")).parse().unwrap(),
        };
        while body.len() < length {
            let mut part = vec![0; length - body.len()];
            let count = self.0.read(&mut part).await.unwrap();
            assert!(count > 0, "it hung up");
            body.extend(&part[..count]);
        }
        Said { body, ..said }
    }
}

#[tokio::test]
async fn without_a_store_it_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    let token: Arc<str> = TOKEN.into();
    serving.spawn(serve(listener, Err("its disk is gone".to_owned()), token));
    let mut client = Client::new(address).await;
    let said = client.ask("GET", "/v1/kv/b/k", &[], b"").await.problem(503, "its disk is gone", "store");
    assert_eq!(said.header("retry-after"), Some("1"));
    client.ask("GET", "/v1/openapi.json", &[], b"").await.is(200);
}
