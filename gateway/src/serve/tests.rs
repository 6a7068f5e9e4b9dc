//! Bytes in, bytes out, through the same `connection` that the sockets call: real sockets on loopback, whole threads.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream as Client};
use std::time::Duration;

use super::*;
use crate::tests::{CLOCK, files_with, placer, settings};

/// A door on a port of its own, until dropped.
struct Running {
    address: SocketAddr,
    door: Arc<Door>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        let page = Ok(bytes::Bytes::from_static(b"<p>shop</p></html>"));
        let large: &'static str = Box::leak("0123456789".repeat(500_000).into_boxed_str());
        let files = files_with(Some(&page), &[("/large.png", large), ("/small.txt", "small")]);
        let door = Door::new(settings(CLOCK, BTreeMap::new()), placer(&[]), files);
        let listeners = bind(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 0))], &[]).unwrap();
        // Port 0 is another for each thread's socket: one is enough here.
        let mut sockets = listeners.0.into_iter().next().unwrap();
        let address = sockets.plain[0].local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let shown = Arc::clone(&door);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let listeners =
                Listeners(vec![Sockets { plain: std::mem::take(&mut sockets.plain), tls: Vec::new() }]);
            let serving = serve(listeners, shown, None, stopped, || Duration::from_secs(5));
            runtime.block_on(serving).unwrap();
        });
        Self { address, door, stop, thread: Some(thread) }
    }

    fn connect(&self) -> Client {
        let client = Client::connect(self.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    /// All that comes back until the door closes.
    fn ask(&self, bytes: &[u8]) -> String {
        let mut client = self.connect();
        client.write_all(bytes).unwrap();
        let mut all = Vec::new();
        let _ = client.read_to_end(&mut all);
        String::from_utf8_lossy(&all).into_owned()
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Reads one reply; its body by its length.
fn read_one(client: &mut Client) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    let mut text = String::from_utf8(head).unwrap();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    client.read_exact(&mut body).unwrap();
    text += &String::from_utf8_lossy(&body);
    text
}

fn statuses(replies: &str) -> Vec<u16> {
    let heads = replies.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head[..3].parse().unwrap()).collect()
}

#[test]
fn one_request_after_the_other_and_many_at_once() {
    let door = Running::start();
    let mut client = door.connect();
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let reply = read_one(&mut client);
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("<p>shop</p></html>"), "{reply}");
        assert!(reply.contains("\r\ndate: Fri, 15 Jan 2027 08:00:00 GMT\r\n"), "{reply}");
    }
    // Byte by byte.
    for byte in b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.write_all(&[*byte]).unwrap();
    }
    assert!(read_one(&mut client).ends_with("\r\n\r\nsmall"));
    let many = b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500);
    let last = b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    let replies = door.ask(&[&many[..], last].concat());
    assert_eq!(statuses(&replies), [200; 501], "what comes after a close is not read");
    assert!(replies.ends_with("connection: close\r\n\r\n"), "a HEAD has no body");
    let large = door.ask(b"GET /large.png HTTP/1.0\r\n\r\n");
    assert_eq!(large.len() - large.find("\r\n\r\n").unwrap() - 4, 5_000_000);
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let door = Running::start();
    let after = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let refused = [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "both lengths",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "two lengths"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "twice the same"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", "a list"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", "a sign"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", "hexadecimal"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", "no length"),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "unknown coding"),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", "not chunked last"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "chunked twice",
        ),
        ("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked in 1.0"),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", "a space before the colon"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", "a folded line"),
        ("GET / HTTP/1.1\nHost: a\n\n", "bare LF"),
        ("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "one bare LF"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: z\r\n\r\n", "a bare CR"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\0X: y\r\n\r\n", "NUL in a name"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "two hosts"),
        ("GET / HTTP/1.1\r\n\r\n", "no host"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "two spaces"),
        ("GET /\u{fc}ber HTTP/1.1\r\nHost: a\r\n\r\n", "a path that is not ASCII"),
        ("GET /\r\n\r\n", "HTTP/0.9"),
        ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", "no authority"),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "another scheme"),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "no slash"),
        ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", "a fragment"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "a tunnel"),
    ];
    for (request, what) in refused {
        let replies = door.ask(format!("{request}{after}").as_bytes());
        let refusals = statuses(&replies);
        assert_eq!(refusals[0], 400, "{what}: {replies}");
        assert_eq!(refusals.len(), 1, "{what}: {replies}");
    }
}

#[test]
fn a_body_is_never_read_as_a_request() {
    let door = Running::start();
    let hidden = "GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n";
    for request in [
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n{hidden}"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\n{hidden}"),
    ] {
        let replies = door.ask(request.as_bytes());
        assert_eq!(statuses(&replies).len(), 1, "{request}: {replies}");
        assert!(replies.contains("connection: close\r\n") && !replies.contains("small"), "{replies}");
    }
}

#[test]
fn limits_of_a_head() {
    let door = Running::start();
    for other in ["HTTP/1.2", "HTTP/2.0", "HTTP/9.9"] {
        assert_eq!(
            statuses(&door.ask(format!("GET / {other}\r\nHost: a\r\n\r\n").as_bytes())),
            [505],
            "{other}"
        );
    }
    let query = door.ask(b"GET HTTP://a?x HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n");
    assert!(query.ends_with("<p>shop</p></html>"), "{query}");
    let with = |lines: usize| {
        let lines: String = (0..lines).map(|number| format!("X-{number}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n")
    };
    assert_eq!(statuses(&door.ask(with(62).as_bytes())), [200]);
    assert_eq!(statuses(&door.ask(with(63).as_bytes())), [431]);
    let long = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(bytes));
    assert_eq!(statuses(&door.ask(long(HEAD_BYTES_MAX).as_bytes())), [431]);
    let uri = format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "a".repeat(8 * 1024));
    assert_eq!(statuses(&door.ask(uri.as_bytes())), [414]);
    // Never ending: refused while it still comes.
    let mut client = door.connect();
    let _ = client.write_all(b"GET / HTTP/1.1\r\n");
    let _ = client.write_all("X: y\r\n".repeat(5_000).as_bytes());
    let mut reply = Vec::new();
    let _ = client.read_to_end(&mut reply);
    assert_eq!(statuses(&String::from_utf8_lossy(&reply)), [431]);
}

#[test]
fn events_are_chunks_and_end_with_the_door() {
    let mut running = Running::start();
    let mut client = running.connect();
    client.write_all(b"GET /v1/servers/watch HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut seen = String::new();
    let mut bytes = [0; 4096];
    while !seen.contains("\n\n\r\n") {
        let read = client.read(&mut bytes).unwrap();
        assert!(read > 0, "{seen}");
        seen += std::str::from_utf8(&bytes[..read]).unwrap();
    }
    assert!(seen.contains("transfer-encoding: chunked\r\n") && seen.contains("data: {\"v\":1,"), "{seen}");
    assert_eq!(running.door.metrics.watchers.get(), 1);
    running.end();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    assert_eq!(running.door.metrics.watchers.get(), 0);
}

#[test]
fn who_waits_and_goes_gives_the_place_back() {
    let running = Running::start();
    let watchers = |wanted: i64| {
        for _ in 0..2_000 {
            if running.door.metrics.watchers.get() == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{} wait, not {wanted}", running.door.metrics.watchers.get());
    };
    for path in ["/v1/servers/watch", "/v1/servers?wait=55"] {
        let mut client = running.connect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n");
        client.write_all(request.replace("*", &tag(&running)).as_bytes()).unwrap();
        watchers(1);
        drop(client);
        watchers(0);
    }
}

fn tag(running: &Running) -> String {
    let reply = running.ask(b"GET /v1/servers HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    reply.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap().to_owned()
}

#[test]
fn nobody_has_all_the_places_or_all_the_time() {
    let running = Running::start();
    let watch = || {
        let mut client = running.connect();
        client.write_all(b"GET /v1/servers/watch HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).unwrap();
        (client, status.ends_with(b"200"))
    };
    let all: Vec<_> = (0..70).map(|_| watch()).collect();
    assert_eq!(all.iter().filter(|(_, is_in)| *is_in).count(), 64);
    // One that asks without end, for what costs most, and one that asks once.
    let mut greedy = running.connect();
    let many: String =
        (0..2_000).map(|key| format!("HEAD /v1/servers?key={key} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    greedy.write_all(many.as_bytes()).unwrap();
    assert_eq!(statuses(&running.ask(b"GET /v1/ping HTTP/1.0\r\n\r\n")), [204]);
    let mut seen = String::new();
    let mut bytes = [0; 65_536];
    while statuses(&seen).len() < 2_000 {
        let read = greedy.read(&mut bytes).unwrap();
        seen += std::str::from_utf8(&bytes[..read]).unwrap();
    }
}

#[test]
fn a_door_that_closes_says_so_and_fails_nobody() {
    let mut running = Running::start();
    let mut kept = running.connect();
    let ask = |client: &mut Client| {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        read_one(client)
    };
    assert!(!ask(&mut kept).contains("connection:"));
    running.stop.send_replace(true);
    while !running.door.is_draining() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let reply = ask(&mut kept);
    assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("connection: close\r\n"), "{reply}");
    assert_eq!(kept.read(&mut [0]).unwrap(), 0);
    let reply = ask(&mut running.connect());
    assert!(
        reply.starts_with("HTTP/1.1 200") && reply.contains("connection: close\r\n"),
        "still let in: {reply}"
    );
    running.end();
    assert!(Client::connect(running.address).is_err());
}
